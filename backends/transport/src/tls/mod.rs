//! TLS connections, by rustls with ring.
//!
//! ```text
//!   files ──TlsFiles::load──▶ TlsClient ──Socket::connect_tls──▶ Socket
//!                                │
//!                                └── TlsFailure: why a server is not trusted, or refuses us
//! ```
//!
//! TLS 1.3 and 1.2. The server's certificate must lead to a CA of the CA file, be valid now, and
//! have the host's name or address in its subjectAltName. Nothing of a connection is kept for the
//! next one: no tickets, no session cache.

mod client;
mod failure;
mod files;
mod stream;

pub use self::client::{TlsClient, TlsError};
pub use self::failure::TlsFailure;
pub use self::files::{FileProblem, TlsFileError, TlsFiles};
pub(crate) use self::stream::TlsSocket;
