//! The end of a stream, and why it ended.

use crate::Error;

/// Why a stream ended.
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum End {
    /// It was cancelled: one of its halves was dropped or closed.
    #[error("the subscription was cancelled")]
    Cancelled,
    /// Its source was shut down.
    #[error("the source was shut down")]
    Shutdown,
    /// The source failed in a way that no retry can help.
    #[error("the source failed for good")]
    Failed(#[source] Error),
}
