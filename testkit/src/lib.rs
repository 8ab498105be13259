//! A hypervisor inside the process, for tests of programs that use virevent, of backends, and of
//! virevent itself.
//!
//! * [`FakeHypervisor`] is an [`EventSource`](virevent::EventSource) whose domains a test controls,
//!   and whose connection breaks on demand.
//! * [`Script`] is a timeline as data, from code or from a TOML file; [`scripted`] makes a source
//!   that plays it.
//! * [`assert`](mod@assert) has assertions on streams: the next event, silence, a sequence, the
//!   state that all events lead to.
//! * [`conformance`] has the checks that every source must pass, as tests that any backend can run.
//!
//! Behind features: `fakes` that speak the real protocols over real sockets, `servers` that launch
//! real ones, and a Xen `toolstack` that acts on both.
//!
//! A test acts on domains and asserts the events:
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
//! On tokio's paused time (`#[tokio::test(start_paused = true)]`) waits take no real time.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod assert;
pub mod conformance;
mod fake;
#[cfg(any(feature = "fake-libvirtd", feature = "fake-qemu", feature = "fake-xenstored"))]
pub mod fakes;
mod host;
#[cfg(any(
    feature = "fake-libvirtd",
    feature = "fake-qemu",
    feature = "fake-xenstored",
    feature = "servers"
))]
mod listener;
mod notices;
mod script;
#[cfg(feature = "servers")]
pub mod servers;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(any(feature = "servers", feature = "fake-xenstored"))]
pub mod toolstack;

pub use self::assert::Failure;
pub use self::fake::{Asked, Builder, FakeHypervisor};
pub use self::host::{Emitted, Host, Observer, OpError};
pub use self::notices::notices;
#[cfg(feature = "recordings")]
pub use self::script::{Recording, RecordingError, ReplayedSource};
pub use self::script::{Script, ScriptError, ScriptedSource, Step, scripted, scripted_with};
