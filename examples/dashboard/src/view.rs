//! What a browser is sent.

use std::time::SystemTime;

use serde::Serialize;
use virevent::{Change, Domain, EventSource, Origin, Status, StoredDomain, Transition};

use crate::board::Board;

#[derive(Serialize)]
#[serde(tag = "message", rename_all = "lowercase")]
pub(crate) enum Message {
    All {
        sources: Vec<Source>,
        rows: Vec<Row>,
    },
    Changes {
        #[serde(skip_serializing_if = "Option::is_none")]
        sources: Option<Vec<Source>>,
        rows: Vec<Row>,
        gone: Vec<String>,
        activity: Vec<Activity>,
    },
}

/// A host, or what else a URI names.
#[derive(Clone, PartialEq, Serialize)]
pub(crate) struct Source {
    uri: String,
    /// `synced`, `disconnected` ...
    status: &'static str,
    /// Why it is unreachable.
    fault: Option<String>,
    /// Since when it has that status, in milliseconds since 1970.
    since: Option<u64>,
    /// How many of its parts are unreachable.
    unreachable: usize,
    events: u64,
    missed: u64,
    gaps: u64,
}

impl Source {
    pub(crate) fn all(board: &Board) -> Vec<Self> {
        let members = board.fleet.members();
        members.iter().map(|member| Self::of(&**member, board.since(member.uri()))).collect()
    }

    fn of(source: &dyn EventSource, since: Option<SystemTime>) -> Self {
        let health = source.health();
        let status = health.status();
        let counters = source.counters();
        Self {
            uri: source.uri().into(),
            status: status.as_str(),
            fault: match &status {
                Status::Disconnected(fault) => Some(fault.to_string()),
                _ => None,
            },
            since: since.and_then(millis),
            unreachable: health.unreachable().len(),
            events: counters.events,
            missed: counters.missed,
            gaps: counters.gaps,
        }
    }
}

/// A domain.
#[derive(Serialize)]
pub(crate) struct Row {
    key: String,
    source: String,
    host: String,
    name: String,
    uuid: String,
    id: Option<u32>,
    /// `running`, `shutoff` ...
    state: &'static str,
    /// What led there, `started (booted)`.
    change: String,
    is_inferred: bool,
    /// Since when, in milliseconds since 1970.
    since: Option<u64>,
    is_transient: bool,
    /// Its state is that of the last time it was reachable.
    is_uncertain: bool,
}

impl Row {
    pub(crate) fn of(stored: &StoredDomain) -> Self {
        let domain = &stored.domain;
        Self {
            key: key(domain),
            source: domain.source().into(),
            host: domain.host().into(),
            name: domain.name().into(),
            uuid: domain.uuid().to_string(),
            id: domain.id(),
            state: stored.state.as_str(),
            change: match stored.change {
                Change::Existing(state) => state.reason().replace('_', " "),
                change => in_words(change),
            },
            is_inferred: stored.origin == Origin::Inferred,
            since: stored.since.and_then(millis),
            is_transient: stored.persistent == Some(false),
            is_uncertain: !stored.certain,
        }
    }
}

/// Something that happened to a domain.
#[derive(Serialize)]
pub(crate) struct Activity {
    key: String,
    source: String,
    host: String,
    name: String,
    /// `started`, `stopped` ...
    kind: &'static str,
    change: String,
    is_inferred: bool,
    at: Option<u64>,
}

impl Activity {
    /// `None` for what is no event: a domain that is no longer, or again, certain.
    pub(crate) fn of(transition: &Transition) -> Option<Self> {
        let event = transition.event.as_ref()?.lifecycle()?;
        let is_happening = !matches!(event.change, Change::Existing(_));
        is_happening.then(|| Self {
            key: key(&event.domain),
            source: event.domain.source().into(),
            host: event.domain.host().into(),
            name: event.domain.name().into(),
            kind: event.change.as_str(),
            change: in_words(event.change),
            is_inferred: event.origin == Origin::Inferred,
            at: millis(event.at),
        })
    }
}

/// What names a domain for the browser.
pub(crate) fn key(domain: &Domain) -> String {
    format!("{}\n{}\n{}", domain.source(), domain.host(), domain.uuid())
}

/// `pm suspended (memory)`.
fn in_words(change: Change) -> String {
    change.to_string().replace('_', " ")
}

fn millis(at: SystemTime) -> Option<u64> {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}
