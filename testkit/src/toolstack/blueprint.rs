//! What a domain is made from, and what is known of it.

use virevent::Uuid;

use crate::host::uuid_of;

/// A domain to be made. A name makes one: `"web".into()`.
///
/// ```
/// use virevent_testkit::toolstack::Blueprint;
///
/// let blueprint = Blueprint::named("web").domid(7).without_name();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blueprint {
    pub(super) name: String,
    pub(super) uuid: Uuid,
    pub(super) domid: Option<u32>,
    pub(super) with_name: bool,
    pub(super) with_vm: bool,
}

impl Blueprint {
    /// A domain of this name. Its uuid is a function of the name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let uuid = uuid_of(name, 0);
        Self { name: name.into(), uuid, domid: None, with_name: true, with_vm: true }
    }

    /// The uuid. Default: one that belongs to the name.
    #[must_use]
    pub fn uuid(mut self, uuid: Uuid) -> Self {
        self.uuid = uuid;
        self
    }

    /// The domain id. Default: the one after the highest so far, as Xen gives them.
    #[must_use]
    pub fn domid(mut self, domid: u32) -> Self {
        self.domid = Some(domid);
        self
    }

    /// Leaves `name` out, until [`complete`](super::Toolstack::complete).
    #[must_use]
    pub fn without_name(mut self) -> Self {
        self.with_name = false;
        self
    }

    /// Leaves `vm` out, and `/vm/<uuid>`, until [`complete`](super::Toolstack::complete).
    #[must_use]
    pub fn without_vm(mut self) -> Self {
        self.with_vm = false;
        self
    }
}

impl From<&str> for Blueprint {
    fn from(name: &str) -> Self {
        Self::named(name)
    }
}

/// What a toolstack asks of a guest, by writing it to `control/shutdown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Power {
    /// Shut down, and off.
    PowerOff,
    /// Shut down, and start again.
    Reboot,
    /// Shut down.
    Halt,
    /// Suspend, to be saved or migrated.
    Suspend,
    /// Crash, to leave a dump.
    Crash,
}

impl Power {
    /// Each of them.
    pub const ALL: [Self; 5] =
        [Self::PowerOff, Self::Reboot, Self::Halt, Self::Suspend, Self::Crash];

    /// The word that is written: `poweroff`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PowerOff => "poweroff",
            Self::Reboot => "reboot",
            Self::Halt => "halt",
            Self::Suspend => "suspend",
            Self::Crash => "crash",
        }
    }
}

/// How a domain fares, as the hypervisor tells its store daemon. What has gone has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunState {
    /// It is there, running or paused.
    Running,
    /// It has shut down, or suspended itself, and is still there. The reason is known to the
    /// hypervisor only.
    Shutdown,
    /// It has crashed, and is still there.
    Crashed,
    /// It is being destroyed.
    Dying,
}

impl RunState {
    #[cfg(feature = "servers")]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Shutdown => "shutdown",
            Self::Crashed => "crashed",
            Self::Dying => "dying",
        }
    }
}

/// What a store daemon knows of a domain.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its id.
    pub domid: u32,
    /// Whether it is introduced: to the store it runs, as far as that can tell.
    pub introduced: bool,
    /// `/local/domain/N/name`; what is not UTF-8 is replaced.
    pub name: Option<String>,
    /// The uuid in `/local/domain/N/vm`.
    pub uuid: Option<Uuid>,
}
