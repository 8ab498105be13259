//! The values of a toolstack: a domain's description, requests, run states.

use virevent::Uuid;

use crate::host::uuid_of;

/// The description of a domain to make. A name is one too: `"web".into()`.
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
    /// A domain with this name. Its uuid is a function of the name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let uuid = uuid_of(name, 0);
        Self { name: name.into(), uuid, domid: None, with_name: true, with_vm: true }
    }

    /// Sets the uuid. Default: a function of the name.
    #[must_use]
    pub fn uuid(mut self, uuid: Uuid) -> Self {
        self.uuid = uuid;
        self
    }

    /// Sets the domain id. Default: the highest so far plus one, as Xen assigns them.
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

/// A toolstack's request to a guest, written to `control/shutdown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Power {
    /// Shut down and power off.
    PowerOff,
    /// Shut down and start again.
    Reboot,
    /// Shut down.
    Halt,
    /// Suspend, before a save or a migration.
    Suspend,
    /// Crash, for a dump.
    Crash,
}

impl Power {
    /// Every request.
    pub const ALL: [Self; 5] =
        [Self::PowerOff, Self::Reboot, Self::Halt, Self::Suspend, Self::Crash];

    /// The value of the node: `poweroff`.
    #[must_use]
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

/// The state of a domain in the hypervisor, as its store daemon sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunState {
    /// The domain exists, running or paused.
    Running,
    /// The domain has shut down or suspended itself, and still exists. Only the hypervisor knows
    /// which.
    Shutdown,
    /// The domain has crashed and still exists.
    Crashed,
    /// The domain is being destroyed.
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

/// A domain as the store daemon has it.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its id.
    pub domid: u32,
    /// Whether it is introduced: for the store daemon, that means it runs.
    pub introduced: bool,
    /// The value of `/local/domain/N/name`, with replacements for bytes that are not UTF-8.
    pub name: Option<String>,
    /// The uuid in `/local/domain/N/vm`.
    pub uuid: Option<Uuid>,
}
