//! The stage: how far the driver is with its source.

use tokio::time::Instant;

/// How far the driver is with its source.
///
/// ```text
///         subscriber               connected             list
///   Idle ────────────▶ Connecting ───────────▶ Syncing ───────▶ Synced
///    ▲                  ▲    ▲                  │ │               │ ▲
///    │ no subscriber    │    │ connection lost  │ │ no list       │ │
///    └── (from any) ────┘    ├──────────────────┘ │ in time       │ │
///                            ├────────────────────┼───────────────┘ │
///                            │                    ▼          list   │
///                            └──────────── Late, Overdue ───────────┘
/// ```
///
/// Beside it stands the *outage*: why the source is unreachable, as its streams have been told. It
/// begins with the loss of the connection, a first connection that fails, a list that is overdue, or
/// a session's report that the whole source is lost; it ends with the next list, or with the report
/// that the source is back. `Synced` therefore does not exclude it, and a whole source that is lost
/// before the first list makes the stage `Late` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::driver) enum Stage {
    /// There is no subscriber.
    Idle,
    /// The driver connects, or waits before it connects again.
    Connecting,
    /// The driver awaits the list that makes the domains known, and holds events until then.
    Syncing,
    /// The same after the list's deadline. Streams have opened with a gap; none of them knows the
    /// domains.
    Late,
    /// The list's deadline has passed, and streams know the domains from before: events are
    /// delivered as they come, inside the gap.
    Overdue,
    /// All domains are known.
    Synced { since: Instant },
}

impl Stage {
    pub(in crate::driver) fn is_synced(self) -> bool {
        matches!(self, Self::Synced { .. })
    }

    /// Whether events are delivered as they come, rather than held until the list.
    pub(super) fn delivers(self) -> bool {
        matches!(self, Self::Synced { .. } | Self::Overdue)
    }
}
