//! A fake hypervisor.

#[cfg(feature = "servers")]
pub mod servers;
