//! The metrics of fake hypervisors, as text, on paused time.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use futures::StreamExt;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use virevent::metrics::Metrics;
use virevent::{DomainEvent, EventSource, EventSourceExt, Fleet, Options, Snapshot};
use virevent_testkit::FakeHypervisor;

fn registry(metrics: &Metrics) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(metrics.clone()));
    registry
}

/// The samples, without the histogram's buckets.
fn scrape(registry: &Registry) -> Vec<String> {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let is_sample = |line: &&str| !line.starts_with('#') && !line.contains("_bucket");
    text.lines().filter(is_sample).map(ToOwned::to_owned).collect()
}

/// The samples of a series, each as its labels but the source, and its value.
fn values(registry: &Registry, series: &str) -> Vec<String> {
    let start = format!("virevent_{series}{{source=\"fake:\"");
    let scraped = scrape(registry);
    let found = scraped.iter().filter_map(|line| line.strip_prefix(&start));
    found.map(|rest| rest.trim_start_matches(',').replace('}', "")).collect()
}

#[tokio::test(start_paused = true)]
async fn events_are_counted_by_kind_and_origin() {
    let fake = FakeHypervisor::new();
    fake.define("web").unwrap();
    let metrics = Metrics::default();
    let registry = registry(&metrics);
    let _series = metrics.add(Arc::new(fake.clone()));
    let mut events = fake.subscribe().await.unwrap();
    assert_eq!(values(&registry, "events_total"), [""; 0], "existing domains are no events");
    fake.start("web").unwrap();
    fake.reboot("web").unwrap();
    while !matches!(events.next().await.unwrap(), DomainEvent::Reboot(_)) {}
    fake.go_down();
    fake.stop("web").unwrap();
    fake.restore();
    while !matches!(events.next().await.unwrap(), DomainEvent::Synced(_)) {}
    assert_eq!(
        values(&registry, "events_total"),
        [
            "kind=\"lifecycle\",origin=\"observed\" 1",
            "kind=\"lifecycle\",origin=\"inferred\" 1",
            "kind=\"reboot\",origin=\"observed\" 1",
        ]
    );
    assert_eq!(values(&registry, "gaps_total"), [" 1"]);
    assert_eq!(values(&registry, "reconnects_total"), [" 1"]);
    assert_eq!(values(&registry, "missed_total"), [" 0"]);
    assert_eq!(values(&registry, "corrected_total"), [" 0"]);
}

#[tokio::test(start_paused = true)]
async fn an_outage_shows_and_leaves_the_states_as_they_were() {
    let fake = FakeHypervisor::new();
    fake.define("off").unwrap();
    fake.create("web").unwrap();
    let metrics = Metrics::default();
    let registry = registry(&metrics);
    let store = fake.store().await.unwrap();
    let _series = metrics.add(Arc::new(fake.clone())).domains(store.clone());
    store.wait_for(Snapshot::is_certain).await.unwrap();
    let states = ["state=\"running\" 1", "state=\"shutoff\" 1"];
    let counted = || {
        let mut counted = values(&registry, "domains");
        assert_eq!(counted.len(), 9);
        counted.retain(|state| !state.ends_with(" 0"));
        counted
    };
    assert_eq!(counted(), states);
    assert_eq!(values(&registry, "up"), [" 1"]);
    assert_eq!(values(&registry, "domains_uncertain"), [" 0"]);
    assert_eq!(values(&registry, "verified_timestamp_seconds").len(), 1);
    fake.go_down();
    store.wait_for(|now| !now.is_certain()).await.unwrap();
    assert_eq!(counted(), states, "unreachable is not stopped");
    assert_eq!(values(&registry, "up"), [" 0"]);
    assert_eq!(values(&registry, "domains_uncertain"), [" 2"]);
    fake.restore();
    store.wait_for(Snapshot::is_certain).await.unwrap();
    assert_eq!(values(&registry, "up"), [" 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_source_never_reached_has_no_domains_series() {
    let fake = FakeHypervisor::new();
    fake.create("web").unwrap();
    fake.go_down();
    let metrics = Metrics::default();
    let registry = registry(&metrics);
    let store = fake.store_with(Options::default().wait(true)).await.unwrap();
    let _series = metrics.add(Arc::new(fake.clone())).domains(store.clone());
    assert_eq!(values(&registry, "up"), [" 0"]);
    assert_eq!(values(&registry, "domains"), [""; 0]);
    assert_eq!(values(&registry, "domains_uncertain"), [""; 0]);
    fake.restore();
    store.wait_for(Snapshot::is_certain).await.unwrap();
    assert_eq!(values(&registry, "up"), [" 1"]);
    assert_eq!(values(&registry, "domains").len(), 9);
}

#[tokio::test(start_paused = true)]
async fn calls_are_timed_by_what_they_ask() {
    let fake = FakeHypervisor::builder().verify(None).build();
    let metrics = Metrics::default();
    let registry = registry(&metrics);
    let _series = metrics.add(Arc::new(fake.clone()));
    let _events = fake.subscribe().await.unwrap();
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let labels = "source=\"fake:\",call=\"list\"";
    for line in [
        "# UNIT virevent_call_duration_seconds seconds".to_owned(),
        format!("virevent_call_duration_seconds_count{{{labels}}} 1"),
        format!("virevent_call_duration_seconds_bucket{{le=\"0.001\",{labels}}} 1"),
        format!("virevent_call_duration_seconds_bucket{{le=\"+Inf\",{labels}}} 1"),
    ] {
        assert!(text.contains(&line), "{line} is not in {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_series_of_a_source_go_with_it() {
    let fakes = ["fake:a", "fake:b"].map(|uri| FakeHypervisor::builder().uri(uri).build());
    let metrics = Metrics::default();
    let registry = registry(&metrics);
    let series = fakes.each_ref().map(|fake| metrics.add(Arc::new(fake.clone())));
    let sources = || {
        let mut found: Vec<_> = scrape(&registry)
            .iter()
            .filter_map(|line| Some(line.split_once("source=\"")?.1.split_once('"')?.0.to_owned()))
            .collect();
        found.dedup();
        found.sort();
        found.dedup();
        found
    };
    assert_eq!(sources(), ["fake:a", "fake:b"]);
    let [a, _b] = series;
    drop(a);
    assert_eq!(sources(), ["fake:b"]);
    fakes[1].shutdown().await;
    assert_eq!(sources(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_fleet_has_the_series_of_its_members_while_they_are() {
    let fakes = ["fake:a", "fake:b"].map(|uri| FakeHypervisor::builder().uri(uri).build());
    let fleet = Fleet::new("fleet:all");
    for fake in &fakes {
        fake.create("web").unwrap();
        fleet.add(Arc::new(fake.clone())).unwrap();
    }
    let metrics = Metrics::default();
    let registry = registry(&metrics);
    let store = fleet.store().await.unwrap();
    let _series = metrics.add(Arc::new(fleet.clone())).domains(store.clone());
    // What is added twice counts once, with its domains.
    let _again = metrics.add(Arc::new(fakes[0].clone()));
    store.wait_for(Snapshot::is_certain).await.unwrap();
    let running = || {
        let mut lines = scrape(&registry);
        lines.retain(|line| line.contains("state=\"running\""));
        lines
    };
    let line = |uri: &str| format!("virevent_domains{{source=\"{uri}\",state=\"running\"}} 1");
    assert_eq!(running(), [line("fake:a"), line("fake:b")]);
    assert!(!scrape(&registry).iter().any(|line| line.contains("fleet:")));
    drop(fleet.remove("fake:b"));
    assert_eq!(running(), [line("fake:a")]);
}

#[test]
fn a_uri_with_quotes_is_one_label() {
    let fake = FakeHypervisor::builder().uri("fake:a\"b\\c\nd").build();
    let metrics = Metrics::default();
    let registry = registry(&metrics);
    let _series = metrics.add(Arc::new(fake));
    let up = scrape(&registry).remove(0);
    assert_eq!(up, r#"virevent_up{source="fake:a\"b\\c\nd"} 0"#);
}
