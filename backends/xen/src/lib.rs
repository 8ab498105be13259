//! XenStore: the backend of [`virevent`](https://docs.rs/virevent) for a Xen host, without libvirt.

pub mod wire;
