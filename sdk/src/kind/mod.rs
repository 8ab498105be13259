//! Kinds of events: what a subscriber asks for and a source can report.

mod kinds;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub use self::kinds::Kinds;

/// What a hypervisor calls one of its events: libvirt numbers its events, QEMU names them.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventName {
    /// A number: libvirt's event id (`virDomainEventID`).
    Number(u32),
    /// A name: QEMU's `RTC_CHANGE`.
    Name(Arc<str>),
}

impl EventName {
    /// The kind of the event, if it has a type.
    pub(crate) fn typed(&self) -> Option<Kind> {
        match self {
            Self::Number(number) => Kind::of_libvirt(*number),
            Self::Name(name) => Kind::of_qemu(name),
        }
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl From<&str> for EventName {
    fn from(text: &str) -> Self {
        // libvirt's events have numbers and QEMU's have names that begin with a letter, so the form
        // tells which is meant.
        match text.parse() {
            Ok(number) => Self::Number(number),
            Err(_) => Self::Name(text.into()),
        }
    }
}

/// Defines [`Kind`]: each kind with its name, the numbers of libvirt's events that are of it
/// (`virDomainEventID`), and the names of QEMU's.
macro_rules! kinds {
    ($( $(#[$meta:meta])* $variant:ident $name:literal
        [$($id:literal),*] [$($qemu:literal),*] )+) => {
        /// A kind of event.
        ///
        /// In text: libvirt's own name (`virsh event --list`), such as `lifecycle`, `reboot` or
        /// `io-error` (where libvirt has two events for one kind, either name is read); `other`
        /// (every event that the crate has no type for), or one such event by its number or name:
        /// `other:99`, `other:POWERDOWN`.
        #[non_exhaustive]
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $( $(#[$meta])* $variant, )+
            /// [`DomainEvent::Other`](crate::DomainEvent::Other), all of them.
            Other,
            /// One [`DomainEvent::Other`](crate::DomainEvent::Other), by its name.
            Named(EventName),
        }

        impl Kind {
            /// The kinds with a type of their own.
            pub const TYPED: &[Self] = &[$( Self::$variant ),+];

            /// The name of a kind with a type of its own.
            fn typed_name(&self) -> Option<&'static str> {
                match self {
                    $( Self::$variant => Some($name), )+
                    Self::Other | Self::Named(_) => None,
                }
            }

            /// The kind of libvirt's event with this number (`virDomainEventID`), if it has a type.
            #[must_use]
            pub fn of_libvirt(id: u32) -> Option<Self> {
                match id {
                    $( $( $id => Some(Self::$variant), )* )+
                    _ => None,
                }
            }

            /// The kind of QEMU's event with this name (`qapi`), if it has a type.
            #[must_use]
            pub fn of_qemu(name: &str) -> Option<Self> {
                match name {
                    $( $( $qemu => Some(Self::$variant), )* )+
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// A change of a domain's run or definition.
    Lifecycle "lifecycle" [0] ["STOP", "RESUME", "SHUTDOWN", "GUEST_PANICKED", "GUEST_CRASHLOADED"]
    /// The guest rebooted within its run.
    Reboot "reboot" [1] ["RESET"]
    /// The guest set its real-time clock.
    RtcChange "rtc-change" [2] ["RTC_CHANGE"]
    /// The guest's watchdog fired.
    Watchdog "watchdog" [3] ["WATCHDOG"]
    /// A read or write of a disk failed on the host.
    IoError "io-error" [4, 6] ["BLOCK_IO_ERROR"]
    /// A client of a graphical console connects, authenticates or disconnects.
    Graphics "graphics" [5]
        ["VNC_CONNECTED", "VNC_INITIALIZED", "VNC_DISCONNECTED",
         "SPICE_CONNECTED", "SPICE_INITIALIZED", "SPICE_DISCONNECTED"]
    /// The management daemon cannot control the hypervisor's process.
    ControlError "control-error" [7] []
    /// A job that works on a disk changed its status.
    BlockJob "block-job" [8, 16] ["BLOCK_JOB_READY", "BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED"]
    /// The source of a removable disk was changed at the start of a run.
    DiskChange "disk-change" [9] []
    /// The tray of a removable drive was opened or closed.
    TrayChange "tray-change" [10] ["DEVICE_TRAY_MOVED"]
    /// The guest woke up from a sleep.
    PmWakeup "pm-wakeup" [11] ["WAKEUP"]
    /// The guest put itself to sleep.
    PmSuspend "pm-suspend" [12, 14] ["SUSPEND", "SUSPEND_DISK"]
    /// The guest's balloon changed its size.
    BalloonChange "balloon-change" [13] ["BALLOON_CHANGE"]
    /// A device was removed.
    DeviceRemoved "device-removed" [15] ["DEVICE_DELETED"]
    /// Tunable parameters were changed.
    Tunable "tunable" [17] []
    /// The guest agent connected or disconnected.
    AgentLifecycle "agent-lifecycle" [18] []
    /// A device was added.
    DeviceAdded "device-added" [19] []
    /// A migration begins another pass over the guest's memory.
    MigrationIteration "migration-iteration" [20] ["MIGRATION_PASS"]
    /// A long-running job completed.
    JobCompleted "job-completed" [21] []
    /// The guest refused to release a device.
    DeviceRemovalFailed "device-removal-failed" [22] ["DEVICE_UNPLUG_GUEST_ERROR"]
    /// The metadata of the domain were changed.
    MetadataChange "metadata-change" [23] []
    /// A write passed a threshold that was set on a disk's image.
    BlockThreshold "block-threshold" [24] ["BLOCK_WRITE_THRESHOLD"]
    /// The host reported a failure of memory that the domain uses.
    MemoryFailure "memory-failure" [25] ["MEMORY_FAILURE"]
    /// The guest changed the size of a memory device.
    MemoryDeviceSizeChange "memory-device-size-change" [26] ["MEMORY_DEVICE_SIZE_CHANGE"]
    /// The guest changed the address of a network interface.
    NicMacChange "nic-mac-change" [27] []
    /// The guest released a virtual processor.
    VcpuRemoved "vcpu-removed" [28] []
    /// A channel between guest and host was opened or closed in the guest.
    ChannelLifecycle "channel-lifecycle" [29] ["VSERPORT_CHANGE"]
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => write!(f, "other:{name}"),
            kind => f.write_str(kind.typed_name().unwrap_or("other")),
        }
    }
}

impl FromStr for Kind {
    type Err = ParseKindError;

    fn from_str(text: &str) -> Result<Self, ParseKindError> {
        if text == "other" {
            return Ok(Self::Other);
        }
        if let Some(name) = text.strip_prefix("other:").filter(|name| !name.is_empty()) {
            let name = EventName::from(name);
            return match name.typed() {
                Some(kind) => Err(ParseKindError { text: text.into(), typed: Some(kind) }),
                None => Ok(Self::Named(name)),
            };
        }
        let name = match FORMS.iter().find(|(form, _)| names_match(form, text)) {
            Some((_, name)) => name,
            None => text,
        };
        let mut typed = Self::TYPED.iter();
        let kind =
            typed.find(|kind| kind.typed_name().is_some_and(|typed| names_match(typed, name)));
        kind.cloned().ok_or_else(|| ParseKindError { text: text.into(), typed: None })
    }
}

/// libvirt's names for the second form of an event, and the kind that has both.
const FORMS: [(&str, &str); 3] = [
    ("io-error-reason", "io-error"),
    ("block-job-2", "block-job"),
    ("pm-suspend-disk", "pm-suspend"),
];

/// Whether a text is this name, as virsh has it or as the JSON form has it (with `_`).
fn names_match(name: &str, text: &str) -> bool {
    name.len() == text.len()
        && name.bytes().zip(text.bytes()).all(|(a, b)| a == b || (a == b'-' && b == b'_'))
}

/// A text that names no kind of event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseKindError {
    text: Box<str>,
    /// The kind of the event that was asked for by its number or name.
    typed: Option<Kind>,
}

impl ParseKindError {
    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What to give instead.
    pub(crate) fn expected(&self) -> String {
        match &self.typed {
            Some(kind) => format!("{kind}, which is the type of that event"),
            None => {
                let names = Kind::TYPED.iter().map(Kind::to_string).collect::<Vec<_>>();
                format!("other, other:NAME, or one of {}", names.join(", "))
            }
        }
    }
}

impl fmt::Display for ParseKindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a kind: give {}", self.text, self.expected())
    }
}

impl std::error::Error for ParseKindError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_reads_back_from_its_text() {
        let typed = Kind::TYPED.iter().map(Kind::to_string);
        let others = ["other", "other:99", "other:POWERDOWN"].map(str::to_owned);
        for text in typed.chain(others) {
            assert_eq!(text.parse::<Kind>().unwrap().to_string(), text);
        }
        assert_eq!("io_error".parse::<Kind>().unwrap(), Kind::IoError);
        let error = "lifecyle".parse::<Kind>().unwrap_err().to_string();
        assert!(error.contains("lifecycle") && error.contains("vcpu-removed"), "{error}");
    }

    #[test]
    fn libvirts_name_of_a_second_form_is_its_kind() {
        let forms = [
            ("io-error-reason", Kind::IoError),
            ("block-job-2", Kind::BlockJob),
            ("pm_suspend_disk", Kind::PmSuspend),
        ];
        for (text, kind) in forms {
            assert_eq!(text.parse(), Ok(kind));
        }
    }

    #[test]
    fn an_event_that_has_a_type_is_an_error_with_its_kind() {
        let typed = [
            ("other:8", "block-job"),
            ("other:16", "block-job"),
            ("other:0", "lifecycle"),
            ("other:BLOCK_JOB_READY", "block-job"),
            ("other:RTC_CHANGE", "rtc-change"),
            ("other:STOP", "lifecycle"),
        ];
        for (text, kind) in typed {
            let error = text.parse::<Kind>().unwrap_err().to_string();
            assert!(error.contains(&format!("give {kind},")), "{error}");
        }
    }

    #[test]
    fn every_number_of_libvirt_up_to_29_has_a_type() {
        assert!((0..30).all(|id| Kind::of_libvirt(id).is_some()));
        assert_eq!(Kind::of_libvirt(30), None);
    }
}
