//! The backend, from the outside: on a fake that writes what Cloud Hypervisor writes, and on a real
//! one where `CLOUD_HYPERVISOR` named it when the tests were built (see `build.rs`).
#![allow(clippy::unwrap_used, clippy::panic)]

mod conformance;
mod ends;
mod fake;
mod faults;
mod fleet;
#[cfg(cloud_hypervisor)]
mod real;
mod stream;
