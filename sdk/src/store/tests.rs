use std::time::{Duration, SystemTime};

use futures::FutureExt;
use futures::stream::StreamExt;

use super::*;
use crate::{
    Change, DefineCause, Fault, FaultKind, Gap, GapKind, Lifecycle, Origin, Reboot, RunningReason,
    ShutoffReason, StartCause, State, StopCause, SuspendCause, Synced, UndefineCause, Uuid,
};

const T0: SystemTime = SystemTime::UNIX_EPOCH;

fn domain(name: &str, id: Option<u32>) -> Domain {
    let uuid = name.bytes().fold(0, |uuid, byte| uuid << 8 | u128::from(byte));
    Domain::new("s:", "h", Uuid::from_u128(uuid << 64), name, id)
}

fn event(name: &str, id: Option<u32>, change: Change, persistent: bool) -> DomainEvent {
    Lifecycle::new(domain(name, id), change, T0).persistent(persistent).into()
}

fn started(name: &str, id: u32) -> DomainEvent {
    event(name, Some(id), Change::Started(StartCause::Booted), false)
}

fn running(name: &str, id: u32) -> DomainEvent {
    event(name, Some(id), Change::Existing(State::Running(RunningReason::Booted)), true)
}

fn stopped(name: &str, id: u32, persistent: bool) -> DomainEvent {
    event(name, Some(id), Change::Stopped(StopCause::Crashed), persistent)
}

fn all() -> Scope {
    Scope::source_wide("s:")
}

fn synced() -> DomainEvent {
    Synced::new(all(), 0).into()
}

fn disconnected(scope: Scope) -> DomainEvent {
    Gap::new(scope, GapKind::disconnected(Fault::new(FaultKind::Closed, "hung up"))).into()
}

fn reset() -> DomainEvent {
    Gap::new(all(), GapKind::lagged(7, true)).into()
}

fn filled(events: &[DomainEvent]) -> DomainStore {
    let store = DomainStore::new();
    for event in events {
        store.apply(event);
    }
    store
}

/// The names, in order, with a question mark for what is uncertain.
fn names(store: &DomainStore) -> String {
    let name = |stored: &Arc<StoredDomain>| {
        format!("{}{}", stored.domain, if stored.certain { "" } else { "?" })
    };
    store.snapshot().iter().map(name).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_transition_has_the_domain_before_and_after() {
    let store = filled(&[running("web", 1), synced()]);
    let [step] = store.apply(&stopped("web", 1, true)).try_into().unwrap();
    let [before, after] = [step.before.clone().unwrap(), step.after.clone().unwrap()];
    assert_eq!(before.domain, domain("web", Some(1)));
    assert_eq!((&after.domain, after.state.is_shutoff()), (&domain("web", None), true));
    assert_eq!((after.change, after.since), (Change::Stopped(StopCause::Crashed), Some(T0)));
    assert_eq!(step.ended_run(), Some(StopCause::Crashed));
    let [step] = store.apply(&started("web", 2)).try_into().unwrap();
    assert!(step.began_run() && step.ended_run().is_none());
}

#[test]
fn the_end_of_a_run_has_the_id_of_that_run() {
    let store = filled(&[running("web", 1), running("db", 2), synced()]);
    let crashed = StopCause::Crashed;
    let [step] = store.apply(&stopped("web", 1, true)).try_into().unwrap();
    assert_eq!(step.domain().id(), None);
    assert_eq!(step.stopped(), Some((&domain("web", Some(1)), crashed)));
    // Where the event lacks the id, and where no event names the end.
    let end = event("db", None, Change::Stopped(crashed), true);
    let [step] = store.apply(&end).try_into().unwrap();
    assert_eq!(step.stopped(), Some((&domain("db", Some(2)), crashed)));
    store.extend([&started("web", 3), &reset()]);
    let [step, ..] = &store.apply(&running("web", 4))[..] else { panic!("nothing has changed") };
    assert_eq!(step.domain().id(), Some(4));
    assert_eq!(step.stopped(), Some((&domain("web", Some(3)), StopCause::Unspecified)));
    assert_eq!(store.apply(&synced()).iter().find_map(Transition::stopped), None);
}

#[test]
fn a_transient_domain_that_stops_is_gone() {
    let store = filled(&[started("web", 1), synced()]);
    let [step] = store.apply(&stopped("web", 1, false)).try_into().unwrap();
    assert_eq!((step.after.clone(), step.ended_run()), (None, Some(StopCause::Crashed)));
    assert_eq!((store.snapshot().len(), store.get("web")), (0, None));
}

#[test]
fn a_definition_leaves_the_state_and_its_time() {
    let store = filled(&[started("web", 1), synced()]);
    let defined = Change::Defined(DefineCause::Added);
    let [step] = store.apply(&event("web", Some(1), defined, true)).try_into().unwrap();
    let [before, after] = [step.before.unwrap(), step.after.unwrap()];
    assert_eq!((before.persistent, after.persistent), (Some(false), Some(true)));
    assert_eq!((after.change, after.state), (before.change, before.state));
    assert_eq!(store.apply(&event("web", Some(1), defined, true)), [], "nothing changed");
}

#[test]
fn a_definition_begins_no_run() {
    let defined = Change::Defined(DefineCause::Updated);
    let store = filled(&[event("web", Some(1), defined, true), synced()]);
    assert_eq!(names(&store), "web");
    assert_eq!(store.apply(&event("web", Some(1), defined, true)), []);
    assert_eq!(names(&store), "web");
}

#[test]
fn a_rename_changes_the_name_of_one_domain() {
    let store = filled(&[event("web", None, Change::Defined(DefineCause::Added), true), synced()]);
    let renamed = Change::Undefined(UndefineCause::Renamed);
    assert_eq!(store.apply(&event("web", None, renamed, true)), []);
    let uuid = domain("web", None).uuid();
    let named = Domain::new("s:", "h", uuid, "new", None);
    let defined = Lifecycle::new(named, Change::Defined(DefineCause::Renamed), T0);
    store.apply(&defined.persistent(true).into());
    assert_eq!(names(&store), "new");
    let gone = Change::Undefined(UndefineCause::Removed);
    let gone = Lifecycle::new(domain("web", None), gone, T0).persistent(false);
    store.apply(&gone.into());
    assert_eq!(names(&store), "");
}

#[test]
fn domains_are_uncertain_until_synced_and_in_an_outage() {
    let store = DomainStore::new();
    assert!(!store.snapshot().is_certain());
    store.apply(&running("db", 1));
    store.apply(&running("web", 2));
    assert_eq!(names(&store), "db[1]? web[2]?");
    assert_eq!(store.apply(&synced()).len(), 2);
    assert_eq!((names(&store).as_str(), store.snapshot().is_certain()), ("db[1] web[2]", true));
    let web = Scope::Domain(domain("web", None));
    assert_eq!(store.apply(&disconnected(web.clone())).len(), 1);
    assert_eq!(names(&store), "db[1] web[2]?");
    store.apply(&disconnected(all()));
    store.apply(&Synced::new(web.clone(), 1).into());
    assert_eq!(names(&store), "db[1]? web[2]?", "the source is still unreachable");
    store.apply(&disconnected(web));
    store.apply(&synced());
    assert_eq!((names(&store).as_str(), store.snapshot().is_certain()), ("db[1] web[2]", true));
}

#[test]
fn a_reset_removes_what_is_not_listed_at_its_end() {
    let store = filled(&[running("db", 1), running("old", 2), running("web", 3), synced()]);
    store.apply(&reset());
    assert_eq!(names(&store), "db[1]? old[2]? web[3]?", "kept until the list is complete");
    assert_eq!(store.apply(&running("db", 1)), []);
    let [again] = store.apply(&running("web", 7)).try_into().unwrap();
    assert!(again.began_run() && again.ended_run() == Some(StopCause::Unspecified));
    assert_eq!(again.origin, Origin::Inferred);
    let [new] = store.apply(&running("new", 8)).try_into().unwrap();
    assert!(new.began_run());
    let steps = store.apply(&synced());
    let gone: Vec<_> = steps.iter().filter(|step| step.after.is_none()).collect();
    assert_eq!(gone.len(), 1);
    assert_eq!((gone[0].domain().name(), gone[0].origin), ("old", Origin::Inferred));
    assert_eq!(gone[0].ended_run(), Some(StopCause::Unspecified));
    assert_eq!(names(&store), "db[1] new[8] web[7]");
}

#[test]
fn a_domain_that_starts_behind_the_list_of_a_reset_stays() {
    let store = filled(&[running("web", 1), synced(), reset(), started("web", 2)]);
    assert_eq!(store.apply(&synced()).len(), 1, "it is certain, and not gone");
    assert_eq!(names(&store), "web[2]");
}

#[tokio::test]
async fn what_ran_at_the_first_list_did_not_begin() {
    let store = DomainStore::new();
    store.begin(&all());
    let mut changed = store.changed();
    for n in 0..2000 {
        let [step] = store.apply(&running(&format!("web{n}"), 1)).try_into().unwrap();
        assert!(!step.began_run());
    }
    store.apply(&synced());
    let mut steps = std::iter::from_fn(|| changed.next().now_or_never()).map(Option::unwrap);
    assert!(steps.by_ref().take(2000).all(|step| !step.began_run() && step.before.is_none()));
    assert!(steps.next().is_none());
}

/// As in LXC.
#[test]
fn a_reboot_under_another_id_is_the_same_run() {
    let store = filled(&[running("web", 1), synced()]);
    let [step] = store.apply(&Reboot::new(domain("web", Some(2)), T0).into()).try_into().unwrap();
    assert!(!step.began_run() && step.ended_run().is_none());
    assert_eq!(names(&store), "web[2]");
    let suspended = event("web", Some(2), Change::Suspended(SuspendCause::Paused), true);
    let [step] = store.apply(&suspended).try_into().unwrap();
    assert!(!step.began_run() && step.ended_run().is_none());
    assert_eq!(store.apply(&Reboot::new(domain("web", Some(2)), T0).into()), []);
}

#[test]
fn a_later_stream_of_a_fleet_ends_no_domain_of_a_lost_member() {
    let of = |source, change| {
        let domain = Domain::new(source, "h", Uuid::from_u128(1), "web", Some(1));
        DomainEvent::from(Lifecycle::new(domain, change, T0))
    };
    let started = Change::Started(StartCause::Booted);
    let fleet = |members: &[&str]| Scope::fleet("f:", members.iter().map(|&uri| uri.into()));
    let store = filled(&[of("a:", started), of("b:", started), of("c:", started)]);
    store.apply(&Synced::new(fleet(&["a:", "b:", "c:"]), 3).into());
    store.begin(&fleet(&["a:", "b:", "c:"]));
    // Of the later stream: c has lost its domain, and b is unreachable.
    store.apply(&of("a:", Change::Existing(State::Running(RunningReason::Booted))));
    store.apply(&disconnected(Scope::source_wide("b:")));
    let steps = store.apply(&Synced::new(fleet(&["a:", "c:"]), 1).into());
    let gone: Vec<_> = steps.iter().filter(|step| step.after.is_none()).collect();
    assert_eq!((gone.len(), gone[0].domain().source()), (1, "c:"));
    let now = store.snapshot();
    assert_eq!(now.iter().map(|one| one.certain).collect::<Vec<_>>(), [true, false]);
    // It comes back without its domain.
    let steps = store.apply(&Synced::new(Scope::source_wide("b:"), 0).into());
    assert_eq!(steps.len(), 1);
    assert!(steps[0].after.is_none() && store.snapshot().is_certain());
}

#[test]
fn events_behind_the_end_are_ignored() {
    let store = filled(&[running("web", 1), synced()]);
    store.finish(End::Shutdown);
    assert_eq!(store.apply(&synced()), []);
    assert_eq!(names(&store), "web[1]?");
}

#[test]
fn a_reset_within_a_reset_keeps_what_is_unconfirmed() {
    let store = filled(&[running("db", 1), running("web", 2), synced(), reset()]);
    store.apply(&running("db", 1));
    store.apply(&reset());
    store.apply(&running("web", 2));
    store.apply(&synced());
    assert_eq!(names(&store), "web[2]");
}

#[test]
fn a_stop_that_a_reset_hid_has_the_listed_cause() {
    let store = filled(&[running("web", 1), synced(), reset()]);
    let off = Change::Existing(State::Shutoff(ShutoffReason::Crashed));
    let [step] = store.apply(&event("web", None, off, true)).try_into().unwrap();
    assert_eq!(step.ended_run(), Some(StopCause::Crashed));
}

#[test]
fn one_vm_of_two_sources_is_two_domains() {
    let store = DomainStore::new();
    let of = |source| Domain::new(source, "h", Uuid::from_u128(1), "web", Some(1));
    for source in ["a:", "b:"] {
        let started = Change::Started(StartCause::Booted);
        store.apply(&Lifecycle::new(of(source), started, T0).into());
    }
    assert_eq!(store.snapshot().len(), 2);
    assert_eq!(store.same(&of("b:")).unwrap().domain.source(), "b:");
    let scope = Scope::source_wide("b:");
    store.apply(&Gap::new(scope.clone(), GapKind::lagged(9, true)).into());
    store.apply(&Synced::new(scope, 0).into());
    assert_eq!(store.snapshot().iter().next().unwrap().domain, of("a:"));
    assert_eq!(store.snapshot().len(), 1, "a reset affects its own source only");
}

#[test]
fn a_snapshot_does_not_change() {
    let store = filled(&[running("db", 1), running("web", 2), synced()]);
    let then = store.snapshot();
    let copy = then.clone();
    store.apply(&stopped("web", 2, true));
    store.apply(&started("new", 3));
    assert!(then == copy && then.len() == 2 && then.get("web").unwrap().domain.is_active());
    assert!(then != store.snapshot());
}

#[tokio::test]
async fn changed_delivers_each_transition() {
    let store = filled(&[running("web", 1), synced()]);
    let mut changed = store.changed();
    assert!(changed.next().now_or_never().is_none());
    store.apply(&stopped("web", 1, true));
    store.apply(&started("web", 2));
    assert!(changed.next().await.unwrap().ended_run().is_some());
    assert!(changed.next().await.unwrap().began_run());
    assert!(changed.next().now_or_never().is_none());
}

#[tokio::test]
async fn changed_delivers_the_difference_to_a_slow_reader() {
    let store = filled(&[running("db", 1), running("old", 2), running("web", 3), synced()]);
    let mut changed = store.changed();
    for id in 0..2000 {
        store.apply(&stopped("web", 3 + id, true));
        store.apply(&started("web", 4 + id));
    }
    store.apply(&stopped("old", 2, false));
    store.apply(&started("new", 9));
    let steps: Vec<_> =
        std::iter::from_fn(|| changed.next().now_or_never()).map(Option::unwrap).collect();
    let steps: Vec<_> = steps.iter().map(|step| step.domain().to_string()).collect();
    assert_eq!(steps, ["new[9]", "old[2]", "web[2003]"]);
    store.apply(&stopped("db", 1, false));
    let step = changed.next().await.unwrap();
    assert_eq!(step.ended_run(), Some(StopCause::Crashed), "each one again");
}

#[tokio::test(start_paused = true)]
async fn wait_for_returns_the_state_that_it_accepts() {
    let store = filled(&[running("web", 1), synced()]);
    let paused = |now: &Snapshot| now.get("web").is_some_and(|web| web.state.is_paused());
    let waiting = store.wait_for(paused);
    let acting = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        store.apply(&event("web", Some(1), Change::Suspended(SuspendCause::Paused), true));
        store.apply(&event("web", Some(1), Change::Suspended(SuspendCause::IoError), true));
    };
    let (now, ()) = tokio::join!(waiting, acting);
    assert!(now.unwrap().get("web").unwrap().state.is_paused());
}
