//! libvirt's own RPC.
