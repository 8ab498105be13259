//! Users and passwords for SASL: where they come from.
//!
//! ```text
//!   callback ──none──▶ libvirt's auth file ──none──▶ environment ──none──▶ an error that names all three
//! ```
//!
//! The first that has credentials decides. Only the callback is asked again after a refusal: what
//! the others hold does not change within a connection.

mod credentials;
mod key_file;
mod stored;

pub(crate) use self::credentials::{Callback, Candidate};
pub use self::credentials::{Credentials, CredentialsCallback, CredentialsRequest};
pub use self::stored::{PASSWORD_VARIABLE, USER_VARIABLE};
pub(crate) use self::stored::{Places, find};
