//! The real and the fake xenstored, and that they behave alike.
#![cfg(all(feature = "servers", feature = "fake-xenstored"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod alike;
mod fake;
mod raw;
mod real;
