//! Property tests of compaction: on random streams, a table folded from what a slow reader gets
//! equals the table folded from everything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::SystemTime;

use proptest::collection::vec;
use proptest::prelude::*;
use uuid::Uuid;

use crate::event::ScopeKey;
use crate::mailbox::Queue;
use crate::{
    Change, Domain, DomainEvent, Fault, FaultKind, Gap, GapKind, Lifecycle, Reboot, Scope, State,
    Synced,
};

/// What a user's table of domains holds, and which scopes it does not see at the moment.
#[derive(Clone, Debug, Default, PartialEq)]
struct Table {
    rows: BTreeMap<ScopeKey, Row>,
    unseen: Vec<Scope>,
}

#[derive(Clone, Debug, PartialEq)]
struct Row {
    domain: Domain,
    state: Option<State>,
    persistent: Option<bool>,
}

impl Table {
    fn apply(&mut self, event: &DomainEvent) {
        match event {
            DomainEvent::Lifecycle(event) => self.step(event),
            DomainEvent::Gap(Gap {
                scope,
                kind: GapKind::Lagged { reset: true, .. } | GapKind::Removed,
            }) => {
                self.rows.retain(|_, row| !scope.contains(&row.domain));
            }
            DomainEvent::Gap(Gap { kind: GapKind::Lagged { .. }, .. }) => {}
            DomainEvent::Gap(Gap { scope, .. }) => {
                self.unseen.retain(|unseen| !unseen.is_same(scope));
                self.unseen.push(scope.clone());
                self.unseen.sort_by_key(Scope::key);
            }
            DomainEvent::Synced(Synced { scope, .. }) => {
                self.unseen.retain(|unseen| !scope.includes(unseen));
            }
            DomainEvent::Reboot(_) | DomainEvent::Notice(_) | DomainEvent::Other(_) => {}
        }
    }

    fn step(&mut self, event: &Lifecycle) {
        let key = ScopeKey::of(&event.domain);
        if event.is_gone() {
            self.rows.remove(&key);
            return;
        }
        let domain = event.domain.clone();
        let row = self.rows.entry(key).or_insert(Row { domain, state: None, persistent: None });
        row.domain = event.domain.clone();
        row.state = State::after(event.change).or(row.state);
        row.persistent = event.persistent.or(row.persistent);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push(DomainEvent),
    Read,
}

/// A few domains, so that streams of one meet: two sources know the same uuid on the same host.
fn domain() -> impl Strategy<Value = Domain> {
    let ids = prop_oneof![Just(None), (1..4u32).prop_map(Some)];
    (0..2usize, 0..2usize, 0..2u128, 0..2usize, ids).prop_map(|(source, host, uuid, name, id)| {
        let uuid = Uuid::from_u128(uuid);
        Domain::new(["a:", "b:"][source], ["h", "i"][host], uuid, ["web", "db"][name], id)
    })
}

fn scope() -> impl Strategy<Value = Scope> {
    domain().prop_flat_map(|domain| {
        prop_oneof![
            Just(Scope::source_wide(domain.source())),
            Just(Scope::on_host(domain.source(), domain.host())),
            Just(Scope::Domain(domain)),
        ]
    })
}

/// Every change that libvirt numbers, also with unknown details and events, and
/// `Existing` in every state.
fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        8 => (0..10i32, -1..11i32).prop_map(|(event, detail)| Change::from_codes(event, detail)),
        1 => (0..8i32, 0..3i32)
            .prop_map(|(state, reason)| Change::Existing(State::from_codes(state, reason))),
    ]
}

fn event() -> impl Strategy<Value = DomainEvent> {
    let at = SystemTime::UNIX_EPOCH;
    let persistent = prop_oneof![2 => any::<bool>().prop_map(Some), 1 => Just(None)];
    let lifecycle =
        (domain(), change(), persistent).prop_map(move |(domain, change, persistent)| {
            DomainEvent::from(Lifecycle { persistent, ..Lifecycle::new(domain, change, at) })
        });
    let disconnected = GapKind::disconnected(Fault::new(FaultKind::Closed, "it closed"));
    prop_oneof![
        20 => lifecycle,
        1 => domain().prop_map(move |domain| Reboot::new(domain, at).into()),
        1 => scope().prop_map(|scope| Synced::new(scope, 1).into()),
        1 => scope().prop_map(move |scope| Gap::new(scope, disconnected.clone()).into()),
        // A relay passes on the `Lagged` of its own stream.
        1 => (scope(), 1..4u64, any::<bool>()).prop_map(|(scope, missed, reset)| {
            Gap::new(scope, GapKind::lagged(missed, reset)).into()
        }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(prop_oneof![12 => event().prop_map(Step::Push), 1 => Just(Step::Read)], 0..80)
}

/// Histories of one to three domains as a driver delivers them: settled persistence, ids that
/// belong to runs, crashes, sleeps, renames. They begin with `Existing` if the domain is known at
/// the start.
fn histories() -> impl Strategy<Value = Vec<Step>> {
    let starts = vec(prop_oneof![Just(None), any::<bool>().prop_map(Some)], 1..4);
    (starts, vec((0..3usize, 0..12u8, any::<bool>()), 0..80)).prop_map(|(starts, steps)| {
        let mut delivered = Vec::new();
        let histories = starts.into_iter().enumerate();
        let mut histories: Vec<_> = histories
            .map(|(number, start)| DomainHistory::new(number as u128, start, &mut delivered))
            .collect();
        for (which, step, choice) in steps {
            let count = histories.len();
            histories[which % count].step(step, choice, &mut delivered);
        }
        delivered
    })
}

struct DomainHistory {
    uuid: Uuid,
    active: bool,
    defined: bool,
    run: u32,
    renamed: bool,
}

impl DomainHistory {
    /// Begins with a domain that runs and persists or does not, or with none.
    fn new(number: u128, persistent: Option<bool>, delivered: &mut Vec<Step>) -> Self {
        let uuid = Uuid::from_u128(number);
        let active = persistent.is_some();
        let history =
            Self { uuid, active, defined: persistent == Some(true), run: 1, renamed: false };
        if active {
            history.push(Change::Existing(State::from_codes(1, 1)), delivered);
        }
        history
    }

    fn push(&self, change: Change, delivered: &mut Vec<Step>) {
        let ends = matches!(change, Change::Stopped(_));
        let id = (self.active || ends).then_some(self.run);
        let name = if self.renamed { "db" } else { "web" };
        let domain = Domain::new("a:", "h", self.uuid, name, id);
        let event = Lifecycle::new(domain, change, SystemTime::UNIX_EPOCH).persistent(self.defined);
        delivered.push(Step::Push(event.into()));
    }

    fn step(&mut self, step: u8, choice: bool, delivered: &mut Vec<Step>) {
        let code = |event, detail| Change::from_codes(event, detail);
        match (step, self.active, self.defined) {
            (0 | 1, false, _) => {
                self.run += 1;
                self.active = true;
                self.push(code(2, i32::from(step)), delivered);
            }
            (0..3, true, _) => {
                self.active = false;
                self.push(code(5, i32::from(step)), delivered);
            }
            (3, true, _) => self.push(code(3, 0), delivered),
            (4, true, _) => self.push(code(4, 0), delivered),
            (5, true, _) => self.push(code(7, 0), delivered),
            // It wakes up.
            (6, true, _) => self.push(code(2, 4), delivered),
            // It crashes, or goes on in its crash kernel.
            (7, true, _) => self.push(code(8, i32::from(choice)), delivered),
            (8, _, _) => {
                let update = i32::from(self.defined);
                self.defined = true;
                self.push(code(0, update), delivered);
            }
            (9, _, true) => {
                self.defined = false;
                self.push(code(1, 0), delivered);
            }
            (10, false, true) => {
                self.push(code(1, 1), delivered);
                self.renamed = !self.renamed;
                self.push(code(0, 2), delivered);
            }
            _ if choice => delivered.push(Step::Read),
            _ => {}
        }
    }
}

/// Reads what a queue of that capacity kept of `steps`, and compares it with all of them.
fn check(capacity: usize, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut queue = Queue::new("a:".into(), capacity);
    let mut all = Table::default();
    let mut got = Table::default();
    let mut pushed = 0;
    let mut read = 0;
    for step in steps.iter().chain([&Step::Read]) {
        match step {
            Step::Push(event) => {
                all.apply(event);
                pushed += happenings(event);
                queue.push(event.clone());
            }
            Step::Read => {
                let mut events = VecDeque::new();
                queue.take(&mut events);
                read += events.iter().map(happenings).sum::<u64>();
                check_size(capacity, &events)?;
                events.iter().for_each(|event| got.apply(event));
                prop_assert_eq!(&got, &all);
                prop_assert_eq!(read, pushed);
            }
        }
    }
    Ok(())
}

fn happenings(event: &DomainEvent) -> u64 {
    match event {
        DomainEvent::Gap(Gap { kind: GapKind::Lagged { missed, .. }, .. }) => *missed,
        event => u64::from(event.is_happening()),
    }
}

/// Whatever came, what is kept is bounded by the domains and scopes there are.
fn check_size(capacity: usize, events: &VecDeque<DomainEvent>) -> Result<(), TestCaseError> {
    let domains: BTreeSet<_> =
        events.iter().filter_map(DomainEvent::domain).map(ScopeKey::of).collect();
    let scopes = events.iter().filter(|event| event.is_marker()).count();
    let kept = 8 * domains.len() + scopes;
    prop_assert!(events.len() <= 1 + capacity.max(2 * kept), "{} events", events.len());
    Ok(())
}

proptest! {
    // 256 cases each; more by PROPTEST_CASES.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_compacted_stream_folds_as_the_whole(capacity in 1..8usize, steps in steps()) {
        check(capacity, &steps)?;
    }

    #[test]
    fn compacted_histories_fold_as_the_whole(capacity in 1..8usize, steps in histories()) {
        check(capacity, &steps)?;
    }
}
