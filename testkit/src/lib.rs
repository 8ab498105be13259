//! A hypervisor inside the process, for tests: of programs that use virevent, of backends, and of
//! virevent itself.
//!
//! * [`FakeHypervisor`] is an [`EventSource`](virevent::EventSource) whose domains do what a test
//!   says, and whose connection breaks on demand.
//! * [`Script`] is a timeline as data, from code or from a TOML file; [`scripted`] makes a source of
//!   it.
//! * [`assert`](mod@assert) has what a test wants to know of a stream: the next event, silence, a
//!   sequence, the state that all events lead to.
//! * [`conformance`] is what every source must do, as tests that any backend can run.
//!
//! A test says what happens, and what is to be told of it:
//!
//! ```
//! use virevent::{EventSource, Options};
//! use virevent_testkit::{FakeHypervisor, assert};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let fake = FakeHypervisor::new();
//! let mut events = fake.subscribe_with(Options::default()).await.unwrap();
//! assert::until_synced(&mut events).await.unwrap();
//!
//! fake.create("web").unwrap();
//! assert::expect_sequence(&mut events, &["web[1] started (booted)"]).await.unwrap();
//!
//! fake.lose_connection();
//! fake.stop("web").unwrap();
//! let expected = ["disconnected from fake:*", "web[1] stopped [inferred]", "synced with fake:*"];
//! assert::expect_sequence(&mut events, &expected).await.unwrap();
//! # }
//! ```
//!
//! On tokio's paused time (`#[tokio::test(start_paused = true)]`) no test takes any.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod assert;
pub mod conformance;
mod fake;
mod host;
#[cfg(feature = "fake-libvirtd")]
pub mod libvirtd;
#[cfg(feature = "fake-qemu")]
pub mod qmp;
mod script;
#[cfg(feature = "servers")]
pub mod servers;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(any(feature = "servers", feature = "fake-xenstored"))]
pub mod xen;
#[cfg(feature = "fake-xenstored")]
pub mod xenstored;

pub use self::assert::Failure;
pub use self::fake::{Asked, Builder, FakeHypervisor};
pub use self::host::{Emitted, Host, Observer, OpError};
pub use self::script::{Script, ScriptError, ScriptedSource, Step, scripted, scripted_with};
