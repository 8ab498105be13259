//! Metrics of sources, for [prometheus-client] (feature `metrics`).
//!
//! [prometheus-client]: https://docs.rs/prometheus-client

mod encode;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{DomainStore, EventSource};

/// The metrics of the sources that were [added](Self::add), as a collector for a registry of yours.
///
/// Everything is read when the registry is encoded; between two scrapes it costs nothing but the
/// counters of the driver. A handle: clones share the sources.
///
/// ```
/// # async fn example(
/// #     source: std::sync::Arc<dyn virevent::EventSource>,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use prometheus_client::encoding::text::encode;
/// use prometheus_client::registry::Registry;
/// use virevent::EventSourceExt;
/// use virevent::metrics::Metrics;
///
/// let metrics = Metrics::default();
/// let mut registry = Registry::default();
/// registry.register_collector(Box::new(metrics.clone()));
///
/// let store = source.store().await?;
/// let series = metrics.add(source).domains(store);
///
/// let mut text = String::new();
/// encode(&mut text, &registry)?;
/// drop(series); // from now on nothing is said of that source
/// # Ok(())
/// # }
/// ```
///
/// The series, each with the label `source`, the URI without secrets:
///
/// | series | type | what |
/// |---|---|---|
/// | `virevent_up` | gauge | 1 while all domains are known, 0 in an outage, before the first list and without a subscriber |
/// | `virevent_unreachable_parts` | gauge | the parts of the source that are unreachable: domains, hosts |
/// | `virevent_verified_timestamp_seconds` | gauge | when all that is known was last compared with the hypervisor's list |
/// | `virevent_events_total` | counter | events by `kind` and `origin` |
/// | `virevent_missed_total` | counter | events dropped for slow subscribers |
/// | `virevent_gaps_total`, `virevent_reconnects_total` | counter | outages of the source or a part of it, and their ends |
/// | `virevent_corrected_total` | counter | domains that a verification corrected |
/// | `virevent_call_duration_seconds` | histogram | calls by `call`: `register`, `list`, `look` |
/// | `virevent_domains` | gauge | domains by `state`, in an outage as of before; needs [`domains`](SourceMetrics::domains) |
/// | `virevent_domains_uncertain` | gauge | those of them whose state may be out of date |
///
/// Of a [`Fleet`](crate::Fleet) there are the series of each member, while it is one.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    added: Arc<Mutex<Added>>,
}

#[derive(Debug, Default)]
struct Added {
    next: u64,
    sources: BTreeMap<u64, Watched>,
}

#[derive(Clone, Debug)]
struct Watched {
    source: Arc<dyn EventSource>,
    store: Option<DomainStore>,
}

impl Metrics {
    /// Adds a source, until what it returns is dropped. What is added twice counts once.
    pub fn add(&self, source: Arc<dyn EventSource>) -> SourceMetrics {
        let mut added = lock(&self.added);
        let id = added.next;
        added.next += 1;
        added.sources.insert(id, Watched { source, store: None });
        SourceMetrics { id, added: Arc::clone(&self.added) }
    }

    fn watched(&self) -> Vec<Watched> {
        lock(&self.added).sources.values().cloned().collect()
    }
}

/// The series of one source; dropping it removes them.
#[derive(Debug)]
#[must_use = "dropping it removes the series"]
pub struct SourceMetrics {
    id: u64,
    added: Arc<Mutex<Added>>,
}

impl SourceMetrics {
    /// Counts the domains of this store by their state. It is the store of the source, or of the
    /// fleet: other sources' domains in it are left out.
    pub fn domains(self, store: DomainStore) -> Self {
        if let Some(watched) = lock(&self.added).sources.get_mut(&self.id) {
            watched.store = Some(store);
        }
        self
    }
}

impl Drop for SourceMetrics {
    fn drop(&mut self) {
        let removed = lock(&self.added).sources.remove(&self.id);
        // Outside the lock: it may be the last handle of a source.
        drop(removed);
    }
}

fn lock(added: &Mutex<Added>) -> MutexGuard<'_, Added> {
    // Nothing that runs under the lock leaves the map half changed.
    added.lock().unwrap_or_else(PoisonError::into_inner)
}
