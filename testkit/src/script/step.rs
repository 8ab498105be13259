//! The steps of a script.

use virevent::{StartCause, StopCause};

use crate::{FakeHypervisor, OpError};

/// One step of a script, with the names of its domains.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// [`FakeHypervisor::define`].
    Define(Box<str>),
    /// [`FakeHypervisor::create`].
    Create(Box<str>),
    /// [`FakeHypervisor::start_as`].
    Start(Box<str>, StartCause),
    /// [`FakeHypervisor::suspend`].
    Suspend(Box<str>),
    /// [`FakeHypervisor::resume`].
    Resume(Box<str>),
    /// [`FakeHypervisor::pm_suspend`].
    PmSuspend(Box<str>),
    /// [`FakeHypervisor::wake_up`].
    WakeUp(Box<str>),
    /// [`FakeHypervisor::shut_down`].
    ShutDown(Box<str>),
    /// [`FakeHypervisor::stop_as`].
    Stop(Box<str>, StopCause),
    /// [`FakeHypervisor::crash`].
    Crash(Box<str>),
    /// [`FakeHypervisor::undefine`].
    Undefine(Box<str>),
    /// [`FakeHypervisor::rename`]: the old name and the new one.
    Rename(Box<str>, Box<str>),
    /// [`FakeHypervisor::reboot`].
    Reboot(Box<str>),
    /// [`FakeHypervisor::lose_connection`].
    LoseConnection,
    /// [`FakeHypervisor::go_down`].
    GoDown,
    /// [`FakeHypervisor::restore`].
    Restore,
    /// [`FakeHypervisor::go_silent`].
    GoSilent,
}

impl Step {
    pub(super) fn apply(&self, fake: &FakeHypervisor) -> Result<(), OpError> {
        match self {
            Self::Define(name) => fake.define(name).map(drop)?,
            Self::Create(name) => fake.create(name).map(drop)?,
            Self::Start(name, cause) => fake.start_as(name, *cause).map(drop)?,
            Self::Suspend(name) => fake.suspend(name).map(drop)?,
            Self::Resume(name) => fake.resume(name).map(drop)?,
            Self::PmSuspend(name) => fake.pm_suspend(name).map(drop)?,
            Self::WakeUp(name) => fake.wake_up(name).map(drop)?,
            Self::ShutDown(name) => fake.shut_down(name).map(drop)?,
            Self::Stop(name, cause) => fake.stop_as(name, *cause).map(drop)?,
            Self::Crash(name) => fake.crash(name).map(drop)?,
            Self::Undefine(name) => fake.undefine(name).map(drop)?,
            Self::Rename(old, new) => fake.rename(old, new).map(drop)?,
            Self::Reboot(name) => fake.reboot(name).map(drop)?,
            Self::LoseConnection => fake.lose_connection(),
            Self::GoDown => fake.go_down(),
            Self::Restore => fake.restore(),
            Self::GoSilent => fake.go_silent(),
        }
        Ok(())
    }
}
