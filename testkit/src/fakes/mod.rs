//! Fake servers that speak the real protocols over real sockets, for what the real ones do not do
//! on demand.
//!
//! ```text
//!   Host, Toolstack or test ──▶ fake ══ socket ══▶ the client under test
//!                                ▲
//!                             Faults: what it does wrong
//! ```

#[cfg(feature = "fake-libvirtd")]
pub mod libvirtd;
#[cfg(any(feature = "fake-libvirtd", feature = "fake-qemu"))]
mod pieces;
#[cfg(feature = "fake-qemu")]
pub mod qemu;
mod state;
#[cfg(feature = "fake-xenstored")]
pub mod xenstored;
