//! What a step of a monitor works with: what all monitors of the source share, and the output.

use virevent::driver::Batch;

use crate::event_filter::EventFilter;
use crate::peer::identity::ClaimedUuids;

/// What a monitor is to its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The only monitor of the source: its outage is the source's, and a failure of the first
    /// attempt to connect is an error.
    Source,
    /// One of many in a directory: its outage is that of its domain, and it never returns an error.
    Member,
}

/// The state that the monitors of a source share.
#[derive(Debug, Default)]
pub(crate) struct SourceContext {
    pub(crate) events: EventFilter,
    pub(crate) uuids: ClaimedUuids,
    /// Whether the driver waits for a first list, after a start or an outage of the source. What
    /// the list contains is not delivered as events, and an outage of the source is reported after
    /// the list. A verifying list is different: events continue while it is under way.
    pub(crate) is_listing: bool,
    /// Whether the directory of the sockets is unreadable. That is the outage then, and no monitor
    /// connects.
    pub(crate) is_unreadable: bool,
}

/// The context of one step of a monitor.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) shared: &'a mut SourceContext,
    pub(crate) out: &'a mut Batch,
}
