//! The series.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Unit;

use super::Metrics;
use crate::statistics::BOUNDS;
use crate::{Counters, DomainStore, EventSource, Snapshot, State, Statistics, Status};

/// The names of all states.
const STATES: [&str; 9] = [
    "no_state",
    "running",
    "blocked",
    "paused",
    "shutting_down",
    "shutoff",
    "crashed",
    "pm_suspended",
    "unknown",
];

/// What a source says at one moment.
struct Sample {
    uri: String,
    status: Status,
    unreachable: usize,
    verified: Option<SystemTime>,
    counters: Counters,
    statistics: Statistics,
    domains: Option<Domains>,
}

#[derive(Default)]
struct Domains {
    by_state: [u64; STATES.len()],
    uncertain: u64,
}

impl Sample {
    fn of(source: &dyn EventSource, known: Option<&BTreeMap<String, Domains>>) -> Self {
        let health = source.health();
        let verified = health.verified();
        let domains = known.and_then(|known| match known.get(source.uri()) {
            Some(domains) => Some(Domains { ..*domains }),
            // A source that was never reached does not have none: nothing is known of it.
            None => verified.map(|_| Domains::default()),
        });
        Self {
            uri: source.uri().into(),
            status: health.status(),
            unreachable: health.unreachable().len(),
            verified,
            counters: source.counters(),
            statistics: source.statistics(),
            domains,
        }
    }
}

impl Metrics {
    /// Of each source that is not shut down, by URI.
    fn samples(&self) -> BTreeMap<String, Sample> {
        let mut samples = BTreeMap::new();
        for watched in self.watched() {
            let known = watched.store.as_ref().map(DomainStore::snapshot).map(|now| count(&now));
            collect(&watched.source, known.as_ref(), &mut samples);
        }
        samples
    }
}

/// The source's sample; of one with members, theirs.
fn collect(
    source: &Arc<dyn EventSource>,
    known: Option<&BTreeMap<String, Domains>>,
    samples: &mut BTreeMap<String, Sample>,
) {
    let members = source.members();
    members.iter().for_each(|member| collect(member, known, samples));
    if !members.is_empty() {
        return;
    }
    let sample = Sample::of(&**source, known);
    let is_over = matches!(sample.status, Status::Shutdown | Status::Ended);
    let has_less = |one: &Sample| one.domains.is_none();
    if !is_over && samples.get(&sample.uri).is_none_or(has_less) {
        samples.insert(sample.uri.clone(), sample);
    }
}

fn count(now: &Snapshot) -> BTreeMap<String, Domains> {
    let mut counted = BTreeMap::<String, Domains>::new();
    for stored in now.iter() {
        let source = stored.domain.source();
        if !counted.contains_key(source) {
            counted.insert(source.into(), Domains::default());
        }
        let Some(domains) = counted.get_mut(source) else { continue };
        domains.by_state[place(stored.state)] += 1;
        domains.uncertain += u64::from(!stored.certain);
    }
    counted
}

fn place(state: State) -> usize {
    STATES.iter().position(|name| *name == state.as_str()).unwrap_or(STATES.len() - 1)
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let samples = self.samples();
        let mut families = Families { encoder: &mut encoder, samples: &samples };
        let up = |sample: &Sample| Some(i64::from(sample.status == Status::Synced));
        families.gauge("up", "Whether all domains of the source are known now", up)?;
        families.gauge(
            "unreachable_parts",
            "The parts of the source that are unreachable",
            |sample| Some(sample.unreachable as i64),
        )?;
        families.verified()?;
        families.events()?;
        let missed = "Events that were dropped for slow subscribers";
        families.counter("missed", missed, |counters| counters.missed)?;
        let gaps = "How many times the source, or a part of it, became unreachable";
        families.counter("gaps", gaps, |counters| counters.gaps)?;
        let reconnects = "How many times it was reachable again";
        families.counter("reconnects", reconnects, |counters| counters.reconnects)?;
        let corrected = "Domains that a verification corrected";
        families.counter("corrected", corrected, |counters| counters.corrected)?;
        families.calls()?;
        families.domains()?;
        families.gauge(
            "domains_uncertain",
            "Domains whose state may be out of date, since they are unreachable",
            |sample| Some(sample.domains.as_ref()?.uncertain as i64),
        )
    }
}

struct Families<'a, 'e> {
    encoder: &'a mut DescriptorEncoder<'e>,
    samples: &'a BTreeMap<String, Sample>,
}

impl Families<'_, '_> {
    /// Describes a family, and encodes it of each source.
    fn family(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        of: MetricType,
        mut one: impl FnMut(&Sample, &mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let name = format!("virevent_{name}");
        let mut metric = self.encoder.encode_descriptor(&name, help, unit, of)?;
        self.samples.values().try_for_each(|sample| one(sample, &mut metric))
    }

    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        value: impl Fn(&Sample) -> Option<i64>,
    ) -> fmt::Result {
        self.family(name, help, None, MetricType::Gauge, |sample, metric| match value(sample) {
            Some(value) => metric.encode_family(&sample.labels())?.encode_gauge(&value),
            None => Ok(()),
        })
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Fn(&Counters) -> u64) -> fmt::Result {
        self.family(name, help, None, MetricType::Counter, |sample, metric| {
            add(metric, &sample.labels(), value(&sample.counters))
        })
    }

    fn verified(&mut self) -> fmt::Result {
        let help = "When all that is known was last compared with the hypervisor's list";
        let unit = Some(&Unit::Seconds);
        self.family("verified_timestamp", help, unit, MetricType::Gauge, |sample, metric| {
            let since = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).ok();
            match sample.verified.and_then(since) {
                Some(at) => metric.encode_family(&sample.labels())?.encode_gauge(&at.as_secs_f64()),
                None => Ok(()),
            }
        })
    }

    fn events(&mut self) -> fmt::Result {
        let help = "Events received, inferred ones included";
        self.family("events", help, None, MetricType::Counter, |sample, metric| {
            // A kind that never came has no series: most sources report few.
            let came = sample.statistics.events.iter().filter(|(_, _, count)| *count > 0);
            came.into_iter().try_for_each(|(kind, origin, count)| {
                let labels = [
                    ("source", &*sample.uri),
                    ("kind", &kind.to_string()),
                    ("origin", origin.as_str()),
                ];
                add(metric, &labels, *count)
            })
        })
    }

    fn calls(&mut self) -> fmt::Result {
        let help = "How long calls took that were answered";
        let unit = Some(&Unit::Seconds);
        self.family("call_duration", help, unit, MetricType::Histogram, |sample, metric| {
            sample.statistics.calls.iter().try_for_each(|times| {
                let labels = [("source", &*sample.uri), ("call", times.call)];
                let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
                let buckets: Vec<_> = bounds.zip(times.counts).collect();
                let count = times.counts.iter().sum();
                let sum = times.sum.as_secs_f64();
                let mut metric = metric.encode_family(&labels)?;
                metric.encode_histogram::<[(&str, &str); 0]>(sum, count, &buckets, None)
            })
        })
    }

    fn domains(&mut self) -> fmt::Result {
        let help = "Domains by state, in an outage as of before";
        self.family("domains", help, None, MetricType::Gauge, |sample, metric| {
            let Some(domains) = &sample.domains else { return Ok(()) };
            STATES.into_iter().zip(domains.by_state).try_for_each(|(state, count)| {
                let labels = [("source", &*sample.uri), ("state", state)];
                metric.encode_family(&labels)?.encode_gauge(&(count as i64))
            })
        })
    }
}

impl Sample {
    fn labels(&self) -> [(&'static str, &str); 1] {
        [("source", &self.uri)]
    }
}

fn add(metric: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, value: u64) -> fmt::Result {
    let exemplar = None::<&Exemplar<[(&str, &str); 0], u64>>;
    metric.encode_family(labels)?.encode_counter(&value, exemplar)
}
