//! XenStore: the launcher of the real daemon, the fake one, and that they are alike.
#![cfg(all(feature = "servers", feature = "fake-xenstored"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod alike;
mod fake;
mod raw;
mod real;
