//! A hypervisor inside the process, for tests: of programs that use virevent, and of virevent.

pub mod assert;
pub mod conformance;
mod fake;
mod host;
#[cfg(feature = "fake-libvirtd")]
pub mod libvirtd;
mod script;
#[cfg(feature = "servers")]
pub mod servers;

pub use self::assert::Failure;
pub use self::fake::{Asked, Builder, FakeHypervisor};
pub use self::host::{Emitted, Host, Observer, OpError};
pub use self::script::{Script, ScriptError, ScriptedSource, Step, scripted};
