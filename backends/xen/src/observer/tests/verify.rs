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
