//! The polling session on a fake inventory, on tokio's paused time, and the whole on real QEMUs.
#![allow(clippy::unwrap_used, clippy::panic)]

mod conformance;
mod fake;
mod polls;
mod real;
mod watched;
