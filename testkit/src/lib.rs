//! A fake hypervisor.
