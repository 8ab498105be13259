//! QEMU's answers, with the members that matter here.

use serde::Deserialize;

/// The answer to `query-name`.
#[derive(Deserialize)]
pub(crate) struct NameInfo {
    pub(crate) name: Option<String>,
}

/// The answer to `query-uuid`.
#[derive(Deserialize)]
pub(crate) struct UuidInfo {
    #[serde(rename = "UUID")]
    pub(crate) uuid: Option<String>,
}

/// An entry of the answer to `query-cpus-fast`.
#[derive(Deserialize)]
pub(crate) struct CpuInfo {
    #[serde(rename = "thread-id")]
    pub(crate) thread: Option<u32>,
}

/// The answer to `query-migrate`: empty before the first migration.
#[derive(Deserialize)]
pub(crate) struct MigrationInfo<'a> {
    #[serde(borrow)]
    pub(crate) status: Option<&'a str>,
    pub(crate) ram: Option<MigrationRam>,
}

/// How much of the memory has been migrated.
#[derive(Deserialize)]
pub(crate) struct MigrationRam {
    /// How much is still to be sent, in bytes.
    pub(crate) remaining: u64,
}

/// The answer to `query-status`.
#[derive(Deserialize)]
pub(crate) struct StatusInfo {
    pub(crate) status: String,
}
