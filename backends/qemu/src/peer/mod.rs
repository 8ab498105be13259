//! The QEMU at the other end of a socket: which run it is, whether its process lives, how to reach
//! its socket again, and what to do when it cannot be reached.

pub(crate) mod advice;
pub(crate) mod answers;
pub(crate) mod blocking;
pub(crate) mod handshake;
pub(crate) mod identity;
pub(crate) mod pinned_socket;
pub(crate) mod process;
