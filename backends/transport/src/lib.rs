//! What the backends of virevent share below their protocols.
//!
//! ```text
//!   URI ──▶ uri ──▶ Endpoint ──▶ Socket ──poll_io──▶ ReadBuffer ──▶ the backend's frames
//!                                   ▲
//!                                Outbox ◀── the backend's calls
//! ```
//!
//! | module | what it has |
//! |---|---|
//! | [`endpoint`] | the address of a unix or tcp socket |
//! | [`socket`] | a connection: connecting before a deadline, writing and reading in one poll |
//! | [`read_buffer`] | the bytes that were read and not yet taken: memory follows what came |
//! | [`outbox`] | the bytes that are still to be written |
//! | [`timer`] | one timer for all deadlines of a session |
//! | [`uri`] | percent escapes, and URIs without their passwords |
//! | `tls` | TLS over tcp, with the feature `tls` |
//! | [`host`] | the name of this host |
//!
//! There is no protocol in this crate, and no advice about a certain daemon: an error of a socket
//! is an [`std::io::Error`], and what it means is for the backend to say.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod endpoint;
pub mod host;
pub mod outbox;
pub mod read_buffer;
pub mod socket;
pub mod timer;
#[cfg(feature = "tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
pub mod tls;
pub mod uri;

pub use self::endpoint::{Endpoint, MAX_SOCKET_PATH};
pub use self::host::host_name;
pub use self::outbox::Outbox;
pub use self::read_buffer::ReadBuffer;
pub use self::socket::{ConnectError, Socket};
pub use self::timer::{LazyTimer, deadline_after};
#[cfg(feature = "tls")]
pub use self::tls::{TlsClient, TlsError, TlsFailure, TlsFiles};
