//! What a Xen toolstack does to domains, in the order in which libxl does it.
//!
//! ```text
//!   test ──▶ Toolstack ──requests──────▶ xenstored, a real one or a fake ══▶ the client under test
//!                └──run states, VIRQ──▶ the "hypervisor" that xenstored asks
//! ```
//!
//! On a Xen host a domain lives in two places: in the hypervisor, which alone knows whether it runs,
//! and in the store, where the toolstack writes down who it is and introduces it. A [`Toolstack`] has
//! its backend on both, so that a test can do what libxl does, do it in another order, or leave half of
//! it out.
//!
//! It waits for the daemon's answers where it stands (a real one takes microseconds) and needs no
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
