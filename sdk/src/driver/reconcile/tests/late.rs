//! Tests of what a list leaves behind: doubts, ended runs, a list that came late.

use super::*;

/// A roster that knows `web`, and a buffer that holds these events.
fn holding(old: Listed, held: &[Lifecycle]) -> (Roster, SyncBuffer) {
    let mut roster = Roster::new(crate::domain::Host::new("s:".into(), "h".into()));
    let key = roster.key(&old.domain);
    roster.insert(key, Entry::listed(old));
    let mut buffer = SyncBuffer::new("s:".into());
    held.iter().for_each(|held| buffer.event(held.clone().into()));
    (roster, buffer)
}

#[test]
fn a_completed_start_settles_only_its_own_doubt() {
    let other = Domain::new("s:", "h", Uuid::from_u128(2), "db", Some(9));
    let other = Lifecycle::new(other, RESUMED, SystemTime::UNIX_EPOCH);
    let held = [other, event(Some(6), RESUMED), event(Some(6), STARTED)];
    let (mut roster, mut buffer) = holding(entry(None, OFF), &held);
    let at = SystemTime::UNIX_EPOCH;
    let list = vec![entry(None, OFF)];
    let merged = merge(&mut roster, list, &mut buffer, &Scopes::default(), true, at);
    let doubted: Vec<_> = merged.doubted.iter().map(|(_, domain)| domain.name()).collect();
    assert_eq!(doubted, ["db"]);
}

#[test]
fn a_start_under_way_in_a_late_list_is_doubted() {
    let (mut roster, mut buffer) = holding(entry(Some(5), RUNNING), &[]);
    let arriving = entry(Some(5), State::Paused(PausedReason::Migration));
    let at = SystemTime::UNIX_EPOCH;
    let merged = merge_late(&mut roster, vec![arriving], &mut buffer, &Scopes::default(), at);
    assert_eq!(merged.doubted.len(), 1);
}

#[test]
fn a_list_forgets_which_runs_earlier_lists_ended() {
    let (mut roster, mut buffer) = holding(entry(Some(5), RUNNING), &[]);
    let key = roster.key(&event(None, DEFINED).domain);
    roster.end_run(key, Some(4));
    let at = SystemTime::UNIX_EPOCH;
    let list = vec![entry(Some(5), RUNNING)];
    merge(&mut roster, list, &mut buffer, &Scopes::default(), true, at);
    assert!(!roster.has_ended_any(key));
}

#[test]
fn a_late_list_of_many_hosts_is_compared_host_by_host() {
    let on = |host: &str, id| Domain::new("s:", host, Uuid::from_u128(1), "web", id);
    let (mut roster, mut buffer) = holding(entry(Some(5), RUNNING), &[]);
    let far = on("far", Some(7));
    let key = roster.key(&far);
    roster.insert(key, Entry::seen(far.clone(), RUNNING, Some(true)));
    // It has been delivered, and is newer than the list.
    let stopped = Lifecycle::new(on("far", None), STOPPED, SystemTime::UNIX_EPOCH);
    roster.get_mut(key).unwrap().domain = on("far", None);
    buffer.event(stopped.into());
    let list = vec![
        entry(Some(5), RUNNING),
        Listed::new(far, RUNNING, Some(true)),
        Listed::new(on("new", Some(9)), RUNNING, Some(false)),
    ];
    let at = SystemTime::UNIX_EPOCH;
    let merged = merge_late(&mut roster, list, &mut buffer, &Scopes::default(), at);
    let delivered: Vec<_> = merged.difference.iter().map(ToString::to_string).collect();
    assert_eq!(delivered, ["web[9] started (booted) [inferred]"]);
    assert_eq!(merged.listed.len(), 3);
}
