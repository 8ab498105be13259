//! Tests on real libvirtds, each private to its test: `cargo test -- --ignored`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod containers;
mod expecting;
mod hour;
mod moves;
mod outages;
mod polkit;
mod resume;
mod sick;
mod silent;
mod stories;
mod table;
mod trouble;
mod typed;
mod watcher;
mod window;

use std::time::Duration;

use virevent::driver::{Driver, Reconnect};
use virevent::{DomainEvent, EventSource, EventStream, Options};
use virevent_libvirt::Libvirt;
use virevent_testkit::assert::{next_within, until_synced};

/// libvirt's test driver, whose domains are simulated.
const TEST: &str = "test:///default";

/// Far longer than any step of these tests takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn client(uri: &str) -> Driver {
    let quick = Reconnect::local().base(Duration::from_millis(10)).max(Duration::from_millis(100));
    Libvirt::new(uri).unwrap().reconnect(quick).source()
}

/// A synced stream, and what it delivered up to `Synced`, as lines.
async fn synced_stream(uri: &str, options: Options) -> (EventStream, Vec<String>) {
    let mut events = client(uri).subscribe_with(options).await.unwrap();
    let existing = until_synced(&mut events).await.unwrap();
    (events, existing.iter().map(ToString::to_string).collect())
}

/// The events up to the first one for which `last` is true, as lines.
async fn lines_until(events: &mut EventStream, mut last: impl FnMut(&str) -> bool) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    while !lines.last().is_some_and(|line| last(line)) {
        match next_within(events, PATIENCE).await {
            Ok(event) => lines.push(event.to_string()),
            Err(failure) => panic!("{failure}, after {lines:#?}"),
        }
    }
    lines
}

/// A domain of the test driver.
fn test_domain(name: &str) -> String {
    format!(
        "<domain type='test'><name>{name}</name><memory>8192</memory>\
         <os><type>hvm</type></os></domain>"
    )
}

fn is_gap(event: &DomainEvent) -> bool {
    matches!(event, DomainEvent::Gap(_))
}
