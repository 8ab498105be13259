//! A Xen toolstack: it acts on domains in the order in which libxl does.
//!
//! ```text
//!   test ──▶ Toolstack ──requests──────▶ xenstored, a real one or a fake ══▶ the client under test
//!                └──run states, VIRQ──▶ the "hypervisor" that xenstored asks
//! ```
//!
//! On a Xen host a domain is in two places: in the hypervisor, which alone knows whether it runs,
//! and in the store, where the toolstack writes its name and uuid and introduces it. A
//! [`Toolstack`] acts on both, so that a test can do what libxl does, do it in another order, or
//! leave steps out.
//!
//! It blocks the thread while it waits for the daemon (microseconds, with a real one) and needs no
//! runtime.

mod backend;
mod blueprint;
mod operations;

pub use self::backend::ToolstackError;
pub(crate) use self::backend::{Answer, ToolstackBackend};
#[cfg(feature = "servers")]
pub(crate) use self::backend::{INTRODUCE, MKDIR, RM, SET_PERMS, WRITE, terminated};
pub use self::blueprint::{Blueprint, Known, Power, RunState};
pub use self::operations::Toolstack;
