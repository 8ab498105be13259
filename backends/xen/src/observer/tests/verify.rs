//! Lists that are requested while changes are reported.

use super::bounds::ObserverHarness;
use super::*;

impl ObserverHarness {
    /// The list of a verification.
    fn verified(&mut self) -> Vec<String> {
        self.observer.request_list(9);
        self.serve();
        assert_eq!(self.observer.state(), "live", "the list is answered");
        self.listed()
    }

    /// The list that would be reported without reading.
    fn listed(&self) -> Vec<String> {
        let listed = self.observer.domains.listed();
        assert!(listed.iter().all(|entry| entry.persistent == Some(false)));
        let mut lines: Vec<_> =
            listed.iter().map(|entry| format!("{} {}", entry.domain, entry.state)).collect();
        lines.sort();
        lines
    }
}

const RUNNING: [&str; 2] = ["vm1[1] running", "vm2[2] running"];

#[test]
fn a_verifying_list_is_read_from_the_store() {
    type Act = fn(&mut MemoryStore);
    let table: [(Act, &[&str]); 7] = [
        (|_| {}, &RUNNING),
        (|store| store.write("/local/domain/2/name", "db"), &["db[2] running", "vm1[1] running"]),
        (|store| store.request(2, "poweroff"), &["vm1[1] running", "vm2[2] shutting_down (user)"]),
        (|store| store.write_down(2, 7, "db"), &["db[2] running", "vm1[1] running"]),
        (|store| store.release(2), &["vm1[1] running"]),
        (|store| store.remove("/local/domain/2"), &["vm1[1] running"]),
        (|store| store.start(7, 7, "db"), &["db[7] running", "vm1[1] running", "vm2[2] running"]),
    ];
    for (act, expected) in table {
        let mut harness = ObserverHarness::synced(2);
        harness.store.silently(act);
        harness.serve();
        assert_eq!(harness.listed(), RUNNING, "no event announces it");
        assert_eq!(harness.verified(), expected);
        let batch = format!("{:?}", harness.batch);
        let is_left = !batch.contains("Gone(") && !batch.contains(" State(");
        assert!(is_left, "a difference is left to the list: {batch}");
        // The watches are set: the next change is found without a list.
        harness.store.start(9, 9, "web");
        harness.serve();
        assert!(harness.listed().contains(&"web[9] running".into()));
    }
}

#[test]
fn a_verification_takes_four_requests_a_domain() {
    let mut harness = ObserverHarness::synced(1_000);
    harness.store.asked.clear();
    assert_eq!(harness.verified().len(), 1_000);
    assert_eq!(harness.store.asked.len(), 4 * 1_000 + 1);
}

/// The facts that an event marks are read before the rest of a verification.
#[test]
fn an_event_is_answered_before_the_rest_of_a_verification() {
    let mut harness = ObserverHarness::synced(1_000);
    harness.store.asked.clear();
    harness.observer.request_list(9);
    harness.write();
    harness.store.write("/local/domain/1000/name", "db");
    harness.store.start(2_000, 2_000, "new");
    for _ in 0..5 {
        while harness.store.serve() {}
        while let Some(bytes) = harness.store.give() {
            harness.read(&bytes);
        }
        harness.write();
    }
    let batch = format!("{:?}", harness.batch);
    assert!(batch.contains("\"db\"") && batch.contains("\"new\""), "{batch}");
    assert_eq!(harness.observer.state(), "verifying", "it is far from its end");
}

/// Guests may write their request all the time, and domains may end all the time.
#[test]
fn a_verification_ends_while_events_never_do() {
    let mut harness = ObserverHarness::synced(100);
    harness.observer.request_list(9);
    for round in 0..200 {
        for domid in 1..=100 {
            harness.store.request(domid, if round % 2 == 0 { "dance" } else { "" });
        }
        harness.store.stray_release();
        harness.store.introduce(200 + round);
        harness.store.write_down(200 + round, u128::from(200 + round), "web");
        harness.write();
        while harness.store.serve() {}
        // As many packets as one request of each domain has: the events go on in between.
        for _ in 0..200 {
            let Some(bytes) = harness.store.give() else { break };
            harness.read(&bytes);
        }
        if harness.observer.state() == "live" {
            return;
        }
    }
    panic!("the list is not answered");
}

/// The interval of verification.
const VERIFY: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_silent_change_is_corrected_at_the_next_verification() {
    type Act = fn(&mut MemoryStore);
    let table: [(Act, &[&str]); 6] = [
        (
            |store| store.write("/local/domain/2/name", "db"),
            &["vm2[2] undefined (renamed) [inferred]", "db[2] defined (renamed) [inferred]"],
        ),
        (|store| store.request(2, "poweroff"), &["vm2[2] shutting_down [inferred]"]),
        (
            |store| store.write_down(2, 7, "db"),
            &["vm2[2] stopped [inferred]", "db[2] started [inferred]"],
        ),
        (|store| store.release(2), &["vm2[2] stopped [inferred]"]),
        (|store| store.remove("/local/domain/2"), &["vm2[2] stopped [inferred]"]),
        (|store| store.start(7, 7, "db"), &["db[7] started [inferred]"]),
    ];
    for (act, expected) in table {
        let harness = Harness { verify: VERIFY, ..Harness::default() };
        harness.fill(2);
        let source = harness.source();
        let mut events = EventLines(source.subscribe_with(Options::default()).await.unwrap());
        assert_eq!(events.within(Duration::from_secs(10)).await.len(), 3);
        harness.act(|store| store.silently(act));
        assert_eq!(events.within(2 * VERIFY).await, expected);
        let corrected = source.counters().corrected;
        let domains = if expected.len() == 2 && expected[1].contains("started") { 2 } else { 1 };
        assert_eq!(corrected, domains, "{expected:?}");
        assert!(events.within(10 * VERIFY).await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn verification_of_an_unchanged_store_reports_nothing() {
    let harness = Harness { verify: VERIFY, with_dom0: true, ..Harness::default() };
    harness.fill(20);
    // One domain that is written and never introduced, and one that is introduced and has no name.
    harness.act(|store| store.write_down(30, 30, "prepared"));
    harness.act(|store| {
        store.write("/local/domain/31/domid", "31");
        store.introduce(31);
    });
    let source = harness.source();
    let mut events = EventLines(source.subscribe_with(Options::default()).await.unwrap());
    events.within(Duration::from_secs(10)).await;
    harness.act(|store| store.asked.clear());
    assert!(events.within(11 * VERIFY).await.is_empty());
    let lists = harness.act(|store| {
        store.asked.iter().filter(|asked| **asked == crate::wire::Operation::DIRECTORY).count()
    });
    assert!((9..=12).contains(&lists), "{lists} lists in 11 intervals");
    assert_eq!(source.counters().corrected, 0);
}

/// A change while everything is read is observed, and does not wait for the list.
#[tokio::test(start_paused = true)]
async fn an_event_during_a_verification_is_no_correction() {
    let harness = Harness { verify: VERIFY, ..Harness::default() };
    harness.fill(300);
    let source = harness.source();
    let mut events = EventLines(source.subscribe_with(Options::default()).await.unwrap());
    assert_eq!(events.within(Duration::from_secs(10)).await.len(), 301);
    harness.act(|store| {
        store.asked.clear();
        // By then the list is read, and some of the domains; the last are read much later.
        store.script = [(100, 299, "poweroff")].into();
    });
    assert_eq!(events.within(2 * VERIFY).await, ["vm299[299] shutting_down (host)"]);
    assert_eq!(source.counters().corrected, 0);
}
