//! Tests of the queue: what it keeps and counts, and the memory that it holds.

use uuid::Uuid;

use super::*;
use crate::{Domain, EventData, Lifecycle, RawEvent, ResumeCause, StartCause, State, StopCause};

fn event(domain: u128, id: u32, change: Change) -> DomainEvent {
    let domain = Domain::new("s:", "h", Uuid::from_u128(domain), "d", Some(id));
    let at = std::time::SystemTime::UNIX_EPOCH;
    Lifecycle::new(domain, change, at).into()
}

fn drain(queue: &mut Queue) -> Vec<DomainEvent> {
    let mut out = VecDeque::new();
    queue.take(&mut out);
    out.into()
}

#[test]
fn missed_counts_exactly_what_was_dropped() {
    let mut queue = Queue::new("s".into(), 16);
    for id in 0..1000 {
        queue.push(event(1, id, Change::Started(StartCause::Booted)));
        queue.push(event(1, id, Change::Stopped(StopCause::Shutdown)));
    }
    let delivered = drain(&mut queue);
    let DomainEvent::Gap(Gap { kind: GapKind::Lagged { missed, reset: false, .. }, .. }) =
        delivered[0]
    else {
        panic!("{:?}", delivered[0])
    };
    assert_eq!(missed as usize + delivered.len() - 1, 2000);
    assert!(delivered.len() <= 17, "{}", delivered.len());
    assert_eq!(delivered.last(), Some(&event(1, 999, Change::Stopped(StopCause::Shutdown))));
}

#[test]
fn a_queue_beyond_its_slack_goes_stale_and_only_counts() {
    let mut queue = Queue::new("s".into(), 1);
    let total = 2 * SLACK as u128 + 10;
    for uuid in 0..total {
        queue.push(event(uuid, 1, Change::Stopped(StopCause::Shutdown)));
    }
    assert!(queue.is_stale() && queue.is_empty());
    queue.reset(1);
    queue.push(event(7, 9, Change::Resumed(ResumeCause::Unpaused)));
    let delivered = drain(&mut queue);
    assert_eq!(delivered.len(), 2);
    let missed = GapKind::lagged(total as u64, true);
    assert!(
        matches!(&delivered[0], DomainEvent::Gap(gap) if gap.kind == missed),
        "{:?}",
        delivered[0]
    );
}

fn data(bytes: usize) -> DomainEvent {
    let data = EventData::Bytes(vec![0; bytes].into());
    RawEvent::new("s:", None, "8".into(), data, std::time::SystemTime::UNIX_EPOCH).into()
}

fn named(uuid: u128, name: &str, change: Change) -> DomainEvent {
    let domain = Domain::new("s:", "h", Uuid::from_u128(uuid), name, Some(1));
    Lifecycle::new(domain, change, std::time::SystemTime::UNIX_EPOCH).into()
}

const STOPPED: Change = Change::Stopped(StopCause::Shutdown);
const EXISTING: Change = Change::Existing(State::Blocked);

#[test]
fn the_data_of_untyped_events_is_bounded_too() {
    let mut queue = Queue::new("s:".into(), 1024);
    for _ in 0..21 {
        queue.push(data(BYTES / 4));
        assert!(queue.events.len() <= 4);
    }
    let delivered = drain(&mut queue);
    let missed = GapKind::lagged(22 - delivered.len() as u64, false);
    assert!(
        matches!(&delivered[0], DomainEvent::Gap(gap) if gap.kind == missed),
        "{}",
        delivered[0]
    );
}

#[test]
fn what_was_read_no_longer_counts_for_the_bytes() {
    let mut queue = Queue::new("s:".into(), 1024);
    for _ in 0..3 {
        for _ in 0..3 {
            queue.push(data(BYTES / 4));
        }
        assert_eq!(drain(&mut queue).len(), 3);
    }
}

#[test]
fn what_a_compaction_dropped_no_longer_counts_for_the_bytes() {
    let mut queue = Queue::new("s:".into(), 1024);
    for _ in 0..4 {
        queue.push(data(BYTES / 4));
    }
    assert_eq!(queue.events.len(), 1, "the fourth, for which the others were dropped");
    queue.push(data(BYTES / 4));
    queue.push(data(BYTES / 4));
    assert_eq!(queue.events.len(), 3);
}

#[test]
fn longest_names_within_the_capacity_are_never_compacted() {
    let mut queue = Queue::new("s:".into(), 1024);
    let name = "n".repeat(4096);
    for uuid in 0..1024 {
        queue.push(named(uuid % 2, &name, STOPPED));
    }
    assert_eq!(drain(&mut queue).len(), 1024);
}

#[test]
fn a_larger_capacity_comes_with_more_bytes() {
    let mut queue = Queue::new("s:".into(), 4 * BYTES / BYTES_PER_EVENT);
    for _ in 0..3 {
        queue.push(data(BYTES));
    }
    assert_eq!(drain(&mut queue).len(), 3);
}

#[test]
fn a_queue_that_must_keep_too_many_bytes_goes_stale() {
    let mut queue = Queue::new("s:".into(), 1);
    let name = "n".repeat(4096);
    let mut heaviest = 0;
    let mut pushed = 0;
    while !queue.is_stale() && pushed < 20_000 {
        queue.push(named(pushed, &name, STOPPED));
        pushed += 1;
        heaviest = heaviest.max(queue.bytes);
    }
    assert!(heaviest > BYTES && heaviest <= 2 * BYTES, "{heaviest}");
    assert!(pushed > 4000 && queue.missed() == pushed as u64, "{pushed}");
    queue.reset(0);
    queue.push(named(1, "d", STOPPED));
    assert_eq!(drain(&mut queue).len(), 2, "what was read no longer weighs");
}

#[test]
fn existing_domains_alone_never_make_a_queue_stale() {
    let mut queue = Queue::new("s:".into(), 1);
    for uuid in 0..3 * SLACK as u128 {
        queue.push(named(uuid, "d", EXISTING));
    }
    assert_eq!(drain(&mut queue).len(), 3 * SLACK);
    let name = "n".repeat(4096);
    for uuid in 0..3 * BYTES as u128 / 4096 {
        queue.push(named(uuid, &name, EXISTING));
    }
    assert!(queue.bytes > 3 * BYTES && !queue.is_stale());
}

#[test]
fn a_push_to_a_long_queue_seldom_compacts() {
    for (events, name) in [(10_000, "d".into()), (1000, "n".repeat(1 << 16))] {
        let mut queue = Queue::new("s:".into(), 1);
        let mut limits = vec![(queue.max_events, queue.max_bytes)];
        for uuid in 0..events {
            queue.push(named(uuid, &name, EXISTING));
            limits.push((queue.max_events, queue.max_bytes));
            assert!(queue.events.len() <= queue.max_events && queue.bytes <= queue.max_bytes);
        }
        limits.dedup();
        assert!(limits.len() < 20, "each compaction sets another limit: {limits:?}");
    }
}

#[test]
fn what_a_burst_allocated_is_given_back() {
    let mut queue = Queue::new("s".into(), 8);
    for uuid in 0..50_000 {
        queue.push(event(uuid, 1, Change::Stopped(StopCause::Shutdown)));
    }
    drop(drain(&mut queue));
    drop(drain(&mut queue));
    assert!(queue.events.capacity() <= 4 * 1024);
}

#[test]
fn a_loss_before_the_queue_is_something_to_read() {
    let mut queue = Queue::new("s:".into(), 8);
    assert!(queue.is_empty());
    queue.add_missed(3);
    assert!(!queue.is_empty());
    let delivered = drain(&mut queue);
    let missed = GapKind::lagged(3, false);
    assert!(
        matches!(&delivered[..], [DomainEvent::Gap(gap)] if gap.kind == missed),
        "{delivered:?}"
    );
}

#[test]
fn a_reset_without_a_loss_is_not_marked() {
    let mut queue = Queue::new("s:".into(), 1);
    queue.reset(2);
    for _ in 0..9 {
        queue.push(named(1, "d", STOPPED));
    }
    let delivered = drain(&mut queue);
    assert!(
        matches!(
            &delivered[0],
            DomainEvent::Gap(Gap { kind: GapKind::Lagged { reset: false, .. }, .. })
        ),
        "{delivered:?}"
    );
}

#[test]
fn a_reset_makes_room_for_its_own_events() {
    let mut queue = Queue::new("s:".into(), 1);
    queue.reset(100);
    assert_eq!(queue.max_events, 200);
}
