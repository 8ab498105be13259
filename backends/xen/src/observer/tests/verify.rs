//! A list that is asked for while changes are delivered.

use super::bounds::Bench;
use super::*;

impl Bench {
    /// What the answer to a list says now.
    fn verified(&mut self) -> Vec<String> {
        self.observer.request_list(9);
        self.serve();
        assert!(self.observer.verification.is_none(), "the list is answered");
        self.listed()
    }

    /// What a list would say without reading.
    fn listed(&self) -> Vec<String> {
        let listed = self.observer.listed();
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
    type Act = fn(&mut Store);
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
        let mut bench = Bench::synced(2);
        bench.store.silently(act);
        bench.serve();
        assert_eq!(bench.listed(), RUNNING, "nothing announces it");
        assert_eq!(bench.verified(), expected);
        let batch = format!("{:?}", bench.batch);
        let is_left = !batch.contains("Gone(") && !batch.contains(" State(");
        assert!(is_left, "a difference is left to the list: {batch}");
        // The watches are there and work: what comes next is seen without a list.
        bench.store.start(9, 9, "web");
        bench.serve();
        assert!(bench.listed().contains(&"web[9] running".into()));
    }
}

#[test]
fn a_verification_asks_four_questions_of_each_domain() {
    let mut bench = Bench::synced(1_000);
    bench.store.asked.clear();
    assert_eq!(bench.verified().len(), 1_000);
    assert_eq!(bench.store.asked.len(), 4 * 1_000 + 1);
}

/// The rest of a verification waits for what an event asks, not the other way round.
#[test]
fn an_event_is_answered_before_the_rest_of_a_verification() {
    let mut bench = Bench::synced(1_000);
    bench.store.asked.clear();
    bench.observer.request_list(9);
    bench.write();
    bench.store.write("/local/domain/1000/name", "db");
    bench.store.start(2_000, 2_000, "new");
    for _ in 0..5 {
        while bench.store.serve() {}
        while let Some(bytes) = bench.store.give() {
            bench.read(&bytes);
        }
        bench.write();
    }
    let batch = format!("{:?}", bench.batch);
    assert!(batch.contains("\"db\"") && batch.contains("\"new\""), "{batch}");
    assert!(bench.observer.verification.is_some(), "it is far from its end");
}

/// Guests may write their request all the time, and domains may end all the time.
#[test]
fn a_verification_ends_while_events_never_do() {
    let mut bench = Bench::synced(100);
    bench.observer.request_list(9);
    for round in 0..200 {
        for domid in 1..=100 {
            bench.store.request(domid, if round % 2 == 0 { "dance" } else { "" });
        }
        bench.store.release_of_nobody();
        bench.store.introduce(200 + round);
        bench.store.write_down(200 + round, u128::from(200 + round), "web");
        bench.write();
        while bench.store.serve() {}
        // As many packets as one request of each domain may have: the events go on in between.
        for _ in 0..200 {
            let Some(bytes) = bench.store.give() else { break };
            bench.read(&bytes);
        }
        if bench.observer.verification.is_none() {
            return;
        }
    }
    panic!("the list is not answered");
}

/// How often the driver verifies here.
const VERIFY: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_silent_change_is_corrected_at_the_next_verification() {
    type Act = fn(&mut Store);
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
        let rig = Rig { verify: VERIFY, ..Rig::default() };
        rig.fill(2);
        let source = rig.source();
        let mut told = Told(source.subscribe_with(Options::default()).await.unwrap());
        assert_eq!(told.within(Duration::from_secs(10)).await.len(), 3);
        rig.act(|store| store.silently(act));
        assert_eq!(told.within(2 * VERIFY).await, expected);
        let corrected = source.counters().corrected;
        let domains = if expected.len() == 2 && expected[1].contains("started") { 2 } else { 1 };
        assert_eq!(corrected, domains, "{expected:?}");
        assert!(told.within(10 * VERIFY).await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_change_is_verified_in_silence() {
    let rig = Rig { verify: VERIFY, with_dom0: true, ..Rig::default() };
    rig.fill(20);
    // One that is written and never introduced, and one that is introduced and has no name.
    rig.act(|store| store.write_down(30, 30, "prepared"));
    rig.act(|store| {
        store.write("/local/domain/31/domid", "31");
        store.introduce(31);
    });
    let source = rig.source();
    let mut told = Told(source.subscribe_with(Options::default()).await.unwrap());
    told.within(Duration::from_secs(10)).await;
    rig.act(|store| store.asked.clear());
    assert!(told.within(11 * VERIFY).await.is_empty());
    let lists = rig.act(|store| {
        store.asked.iter().filter(|asked| **asked == crate::wire::Operation::DIRECTORY).count()
    });
    assert!((9..=12).contains(&lists), "{lists} lists in 11 intervals");
    assert_eq!(source.counters().corrected, 0);
}

/// What comes while everything is read is observed, and does not wait for the list.
#[tokio::test(start_paused = true)]
async fn an_event_during_a_verification_is_no_correction() {
    let rig = Rig { verify: VERIFY, ..Rig::default() };
    rig.fill(300);
    let source = rig.source();
    let mut told = Told(source.subscribe_with(Options::default()).await.unwrap());
    assert_eq!(told.within(Duration::from_secs(10)).await.len(), 301);
    rig.act(|store| {
        store.asked.clear();
        // The list is asked for, and some of the domains; the last are asked much later.
        store.script = [(100, 299, "poweroff")].into();
    });
    assert_eq!(told.within(2 * VERIFY).await, ["vm299[299] shutting_down (host)"]);
    assert_eq!(source.counters().corrected, 0);
}
