//! Certificates for tests, and a TLS server before a daemon that has none.
//!
//! ```text
//!   Pki ──▶ Certificate ──▶ a directory with PEM files ──▶ libvirtd, TlsFront, the client under test
//!
//!   client ══ TLS ══▶ TlsFront ──unix socket──▶ any daemon, fake or real
//! ```

mod front;
mod pki;

pub use self::front::{Clients, TlsFront};
pub use self::pki::{Certificate, KeyForm, Leaf, Pki, Validity};
