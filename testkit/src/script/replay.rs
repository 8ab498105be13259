//! A source that replays a recording.
//!
//! It has no driver: a driver would infer, compact and add markers of its own, and a replay has to
//! deliver what was recorded, gaps and all.

use std::collections::HashSet;
use std::fmt;
use std::future::ready;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use virevent::{
    Capabilities, Change, Counters, DomainEvent, Error, EventSource, EventStream, Health, Kinds,
    Options, Status,
};

use super::Recording;

/// The range of speeds.
const SPEEDS: std::ops::RangeInclusive<f64> = 0.001..=1_000_000.0;

/// A source that replays a [`Recording`], as that of the URI `fake:?replay=FILE`.
///
/// Each subscription replays the whole recording from its start, in the recorded order, at the
/// recorded times divided by the speed, and ends after the last event. The events keep the sources
/// that they had. A slow reader gets every event, late: the only gaps are the recorded ones. The
/// filter and [`existing`](Options::existing) apply; capacity, slack and wait have no effect.
#[derive(Clone)]
pub struct ReplayedSource {
    recording: Recording,
    uri: Arc<str>,
    speed: f64,
    status: Arc<watch::Sender<Status>>,
}

impl ReplayedSource {
    pub(super) fn new(recording: Recording) -> Self {
        let status = Arc::new(watch::Sender::new(Status::Idle));
        Self { recording, uri: "fake:?replay".into(), speed: 1.0, status }
    }

    /// Replays this many times as fast as recorded.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a speed that is not from 0.001 to 1,000,000.
    pub fn speed(mut self, speed: f64) -> Result<Self, Error> {
        if !SPEEDS.contains(&speed) {
            let expected = "a number from 0.001 to 1000000";
            return Err(Error::invalid_option("speed", speed.to_string(), expected));
        }
        self.speed = speed;
        Ok(self)
    }

    /// Sets the source's URI. Default: `fake:?replay`.
    #[must_use]
    pub fn with_uri(mut self, uri: &str) -> Self {
        self.uri = uri.into();
        self
    }
}

#[async_trait]
impl EventSource for ReplayedSource {
    async fn subscribe_with(&self, options: Options) -> Result<EventStream, Error> {
        if options.capacity == 0 {
            return Err(Error::invalid_option("capacity", "0", "1 or more"));
        }
        if options.resume.is_some() {
            let expected = "no snapshot: a replay begins where its recording does";
            return Err(Error::invalid_option("resume", "a snapshot", expected));
        }
        Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let mut status = self.status.subscribe();
        if *status.borrow() == Status::Shutdown {
            return Err(Error::Shutdown);
        }
        self.status.send_if_modified(|status| {
            let is_first = *status == Status::Idle;
            if is_first {
                *status = Status::Synced;
            }
            is_first
        });
        let recording = self.recording.clone();
        let speed = self.speed;
        let start = Instant::now();
        let events = stream::unfold(0, move |index| {
            let recorded = recording.get(index).cloned();
            async move {
                let (after, event) = recorded?;
                let due = start + after.div_f64(speed);
                // Without a wait it does not yield: events of one time come together.
                if due > Instant::now() {
                    sleep_until(due).await;
                }
                Some((event, index + 1))
            }
        });
        let mut wanted = Wanted::new(options);
        let events = events.filter(move |event| ready(wanted.wants(event)));
        let shutdown = async move {
            let _ = status.wait_for(|status| *status == Status::Shutdown).await;
        };
        Ok(EventStream::from_events(Arc::clone(&self.uri), events.take_until(shutdown)))
    }

    fn uri(&self) -> &str {
        &self.uri
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.kinds = Kinds::all();
        capabilities
    }

    fn health(&self) -> Health {
        Health::from_status(self.status.subscribe())
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }

    async fn shutdown(&self) {
        self.status.send_replace(Status::Shutdown);
    }
}

/// What a subscriber asked for.
struct Wanted {
    options: Options,
    kinds: Kinds,
    /// The sources that were synced once: what exists before that is left out without `existing`.
    synced: HashSet<Box<str>>,
}

impl Wanted {
    fn new(options: Options) -> Self {
        let kinds = options.filter.kinds.clone().unwrap_or_else(Kinds::common);
        Self { options, kinds, synced: HashSet::new() }
    }

    fn wants(&mut self, event: &DomainEvent) -> bool {
        let Some(kind) = event.kind() else {
            if !self.options.existing && matches!(event, DomainEvent::Synced(_)) {
                self.synced.insert(event.source().into());
            }
            return true;
        };
        let is_first_list = matches!(event.change(), Some(Change::Existing(_)))
            && !self.options.existing
            && !self.synced.contains(event.source());
        let filter = &self.options.filter;
        let is_selected = filter.domains.is_empty()
            || event.domain().is_some_and(|domain| filter.selects(domain));
        self.kinds.contains(&kind) && is_selected && !is_first_list
    }
}

impl fmt::Debug for ReplayedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayedSource")
            .field("uri", &self.uri)
            .field("speed", &self.speed)
            .field("events", &self.recording.events().len())
            .finish_non_exhaustive()
    }
}
