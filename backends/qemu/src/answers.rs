//! What QEMU answers to our questions, as far as it matters here.

use serde::Deserialize;

/// The answer to `query-name`.
#[derive(Deserialize)]
pub(crate) struct Name {
    pub(crate) name: Option<String>,
}

/// The answer to `query-uuid`.
#[derive(Deserialize)]
pub(crate) struct Uuid {
    #[serde(rename = "UUID")]
    pub(crate) uuid: Option<String>,
}

/// An entry of the answer to `query-cpus-fast`.
#[derive(Deserialize)]
pub(crate) struct Cpu {
    #[serde(rename = "thread-id")]
    pub(crate) thread: Option<u32>,
}

/// The answer to `query-migrate`: empty where there was no migration yet.
#[derive(Deserialize)]
pub(crate) struct Migration<'a> {
    #[serde(borrow)]
    pub(crate) status: Option<&'a str>,
    pub(crate) ram: Option<Ram>,
}

/// How far a migration has come with the memory.
#[derive(Deserialize)]
pub(crate) struct Ram {
    /// What is still to be sent, in bytes.
    pub(crate) remaining: u64,
}

/// The answer to `query-status`.
#[derive(Deserialize)]
pub(crate) struct Status {
    pub(crate) status: String,
}
