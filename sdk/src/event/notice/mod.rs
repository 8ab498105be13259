//! Events with a type of their own, beside lifecycle and reboot: what happens to a domain's
//! devices, jobs, memory, and guest agent.
//!
//! The names are libvirt's (`virsh event --list`). QEMU's own events are of the same kinds where
//! they mean the same. `docs/libvirt.md` and `docs/qemu.md` say which event of the wire becomes
//! which.

mod display;
mod enums;
#[cfg(feature = "serde")]
mod json;
mod text;
mod values;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

pub use self::enums::{
    AddressFamily, BlockJobStatus, BlockJobType, ChannelReason, ChannelState, DiskChangeReason,
    GraphicsPhase, IoErrorAction, MemoryFailureAction, MemoryFailureRecipient, MetadataType,
    TrayChangeReason, WatchdogAction,
};
pub use self::text::Text;
pub use self::values::{GraphicsAddress, GraphicsIdentity, ParamValue, Params};
use crate::{Domain, Kind, Origin};

/// An event with a type of its own, beside lifecycle and reboot.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// The domain.
    pub domain: Domain,
    /// How it came to be known.
    pub origin: Origin,
    /// When: the hypervisor's own time stamp where it sends one, else the time of receipt.
    pub at: SystemTime,
    /// What happened. Shared, so that a clone is cheap.
    pub body: Arc<NoticeBody>,
}

impl Notice {
    /// An observed event.
    #[must_use]
    pub fn new(domain: Domain, body: NoticeBody, at: SystemTime) -> Self {
        Self { domain, origin: Origin::Observed, at, body: Arc::new(body) }
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.body.kind()
    }

    /// The memory that it keeps alive, in bytes, as if it shared nothing.
    pub(crate) fn weight(&self) -> usize {
        size_of::<NoticeBody>() + self.body.texts() + self.domain.weight()
    }
}

/// `web[3] io-error virtio-disk0: paused, no space left (/x.qcow2)`.
impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.domain, self.kind())?;
        let body = self.body.to_string();
        if body.is_empty() { Ok(()) } else { write!(f, " {body}") }
    }
}

/// The length of what a field refers to, in bytes.
trait Texts {
    fn texts(&self) -> usize {
        0
    }
}

impl Texts for bool {}
impl Texts for i32 {}
impl Texts for i64 {}
impl Texts for u32 {}
impl Texts for u64 {}
impl Texts for crate::PmSuspendCause {}

impl Texts for Text {
    fn texts(&self) -> usize {
        self.boxed()
    }
}

impl<T: Texts> Texts for Option<T> {
    fn texts(&self) -> usize {
        self.as_ref().map_or(0, T::texts)
    }
}

impl Texts for GraphicsAddress {
    fn texts(&self) -> usize {
        self.node.boxed() + self.service.boxed()
    }
}

impl Texts for Vec<GraphicsIdentity> {
    fn texts(&self) -> usize {
        let of = |identity: &GraphicsIdentity| {
            size_of::<GraphicsIdentity>() + identity.kind.boxed() + identity.name.boxed()
        };
        self.iter().map(of).sum()
    }
}

impl Texts for Params {
    fn texts(&self) -> usize {
        let of = |(name, value): &(Text, ParamValue)| {
            let text = if let ParamValue::Text(text) = value { text.boxed() } else { 0 };
            size_of::<(Text, ParamValue)>() + name.boxed() + text
        };
        self.0.iter().map(of).sum()
    }
}

macro_rules! numbers {
    ($($name:ident),+) => { $( impl Texts for $name {} )+ };
}

numbers!(
    AddressFamily,
    BlockJobStatus,
    BlockJobType,
    ChannelReason,
    ChannelState,
    DiskChangeReason,
    GraphicsPhase,
    IoErrorAction,
    MemoryFailureAction,
    MemoryFailureRecipient,
    MetadataType,
    TrayChangeReason,
    WatchdogAction
);

/// Defines [`NoticeBody`], and what follows from its fields: the kind, the length of texts, and
/// (feature `serde`) the form of `data` in JSON.
macro_rules! notices {
    ($(
        $(#[$meta:meta])*
        $variant:ident { $( $(#[$fmeta:meta])* $field:ident: $type:ty ),* $(,)? }
    )+) => {
        /// What happened, one variant for each kind.
        #[non_exhaustive]
        #[derive(Clone, Debug, PartialEq)]
        pub enum NoticeBody {
            $( $(#[$meta])* $variant { $( $(#[$fmeta])* $field: $type, )* }, )+
        }

        impl NoticeBody {
            /// The kind.
            #[must_use]
            pub fn kind(&self) -> Kind {
                match self {
                    $( Self::$variant { .. } => Kind::$variant, )+
                }
            }

            fn texts(&self) -> usize {
                match self {
                    $( Self::$variant { $($field),* } => 0 $( + Texts::texts($field) )*, )+
                }
            }

            /// Writes the fields as entries of a JSON object.
            #[cfg(feature = "serde")]
            fn write_fields<M: serde::ser::SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
                match self {
                    $( Self::$variant { $($field),* } => {
                        $( json::Field::write($field, stringify!($field), map)?; )*
                    } )+
                }
                Ok(())
            }

            /// Reads the fields of a kind from a JSON object. `None`: the kind is no notice's.
            #[cfg(feature = "serde")]
            fn read_fields(kind: &Kind, fields: &json::Fields) -> Option<Result<Self, String>> {
                match kind {
                    $( Kind::$variant => {
                        let read = || Ok(Self::$variant {
                            $( $field: json::Field::read(stringify!($field), fields)?, )*
                        });
                        Some(read())
                    } )+
                    _ => None,
                }
            }
        }
    };
}

notices! {
    /// The guest set its real-time clock.
    RtcChange {
        /// The new offset of the guest's clock from UTC, in seconds.
        offset: i64,
    }
    /// The guest's watchdog fired.
    Watchdog {
        /// What was done about it.
        action: WatchdogAction,
    }
    /// A read or write of a disk failed on the host.
    IoError {
        /// The path of the disk's source on the host; may be empty.
        path: Text,
        /// The alias of the disk. From QEMU itself: the name of the drive, the id of its device or
        /// the name of the block node.
        alias: Text,
        /// What was done about it.
        action: IoErrorAction,
        /// Why: `enospc`, or empty where the hypervisor does not say.
        reason: Text,
    }
    /// A client of a graphical console connects, authenticates or disconnects.
    Graphics {
        /// How far it is.
        phase: GraphicsPhase,
        /// The hypervisor's end of the connection.
        local: GraphicsAddress,
        /// The client's end.
        remote: GraphicsAddress,
        /// The authentication that was used.
        auth_scheme: Text,
        /// What the client proved to be.
        identities: Vec<GraphicsIdentity>,
    }
    /// The management daemon cannot control the hypervisor's process.
    ControlError {}
    /// A job that works on a disk of a running domain changed its status.
    BlockJob {
        /// The disk: its target (`vda`), or the path of its source from a daemon before libvirt
        /// 1.2.6. From QEMU itself: the id of the job.
        disk: Text,
        /// The type of the job.
        job: BlockJobType,
        /// Its status.
        status: BlockJobStatus,
    }
    /// The source of a removable disk was changed at the start of a run.
    DiskChange {
        /// The path before, where there was a source.
        old_path: Option<Text>,
        /// The path after, where there is a source.
        new_path: Option<Text>,
        /// The alias of the disk.
        alias: Text,
        /// Why.
        reason: DiskChangeReason,
    }
    /// The tray of a removable drive was opened or closed.
    TrayChange {
        /// The alias of the drive.
        alias: Text,
        /// Which of the two.
        reason: TrayChangeReason,
    }
    /// The guest woke up from a sleep.
    PmWakeup {
        /// libvirt's reason, which was always 0 so far.
        reason: i32,
    }
    /// The guest put itself to sleep.
    PmSuspend {
        /// How deep it sleeps.
        target: crate::PmSuspendCause,
        /// libvirt's reason, which was always 0 so far.
        reason: i32,
    }
    /// The guest's balloon changed its size.
    BalloonChange {
        /// The memory that the guest has now, in KiB.
        actual: u64,
    }
    /// The guest released a device, and it was removed.
    DeviceRemoved {
        /// The alias of the device.
        alias: Text,
    }
    /// A device was added to the running domain.
    DeviceAdded {
        /// The alias of the device.
        alias: Text,
    }
    /// The guest refused to release a device.
    DeviceRemovalFailed {
        /// The alias of the device.
        alias: Text,
    }
    /// Tunable parameters of the running domain were changed.
    Tunable {
        /// The parameters that changed, and their values: `cputune.vcpupin0`,
        /// `blkdeviotune.total_bytes_sec` ...
        params: Params,
    }
    /// The guest agent connected or disconnected.
    AgentLifecycle {
        /// Which of the two.
        state: ChannelState,
        /// Why.
        reason: ChannelReason,
    }
    /// A channel between guest and host was opened or closed in the guest.
    ChannelLifecycle {
        /// The name of the channel: `org.qemu.guest_agent.0`. From QEMU itself: the id of its device.
        channel: Text,
        /// Which of the two.
        state: ChannelState,
        /// Why.
        reason: ChannelReason,
    }
    /// A migration or save begins another pass over the guest's memory.
    MigrationIteration {
        /// The number of the pass, from 1.
        iteration: i32,
    }
    /// A long-running job of the domain (migration, save, dump) completed.
    JobCompleted {
        /// Its statistics: `time_elapsed` in ms, `data_total` in bytes ...
        params: Params,
    }
    /// The metadata of the domain were changed.
    MetadataChange {
        /// What was changed.
        metadata: MetadataType,
        /// The namespace of a custom element.
        uri: Option<Text>,
    }
    /// A write passed a threshold that was set on a disk's image.
    BlockThreshold {
        /// The disk's target, with the index of the image where it is not the top one: `vda[3]`. From
        /// QEMU itself: the name of the block node.
        disk: Text,
        /// The path of the image, where it is a local file.
        path: Option<Text>,
        /// The threshold, in bytes.
        threshold: u64,
        /// By how much the write passed it, in bytes.
        excess: u64,
    }
    /// The host reported a failure of memory that the domain uses.
    MemoryFailure {
        /// Whose memory it is.
        recipient: MemoryFailureRecipient,
        /// What the hypervisor did about it.
        action: MemoryFailureAction,
        /// The failure was found by the guest's own access.
        action_required: bool,
        /// It happened while an earlier one was being handled.
        recursive: bool,
        /// Flags without a name in this version.
        other_flags: u32,
    }
    /// The guest changed the size of a memory device.
    MemoryDeviceSizeChange {
        /// The alias of the device.
        alias: Text,
        /// The size that it has now, in KiB.
        size: u64,
    }
    /// The guest changed the address of a network interface.
    NicMacChange {
        /// The alias of the interface.
        alias: Text,
        /// The MAC address before.
        old_mac: Text,
        /// The MAC address now.
        new_mac: Text,
    }
    /// The guest released a virtual processor.
    VcpuRemoved {
        /// The number of the processor.
        vcpu: u32,
    }
}
