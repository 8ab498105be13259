//! The connection between the driver and the simulated host, with its faults.
//!
//! Replies and events share one queue, in the order in which the host made them, as on a socket. In
//! single-step mode events are held in a second queue until they are released; replies are not.
//!
//! ```text
//!   host ──▶ observer ──▶ (stepping: held ──step()──▶) ready ──▶ session ──▶ driver
//!                                                        ▲
//!                    replies to registration and list ───┘
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use virevent::driver::{Interest, Listed};
use virevent::{Domain, Error, Fault, Kind, Kinds, Scope};

use super::journal::{Asked, Journal};
use crate::host::{Emitted, Host, Observer};

/// The name of the fake's endpoint in errors.
pub(super) const ENDPOINT: &str = "the fake hypervisor";

/// The state that the fake's handles, its connector and its session share.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) host: Host,
    pub(super) level_triggered: bool,
    state: Mutex<State>,
    /// Changes with every change of the state.
    changes: watch::Sender<()>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) journal: Journal,
    pub(super) connects: Connects,
    pub(super) lists_hang: bool,
    pub(super) falsify: Option<Falsify>,
    pub(super) registrations_hang: bool,
    pub(super) stepping: bool,
    /// The kinds that the server does not have.
    pub(super) lacking: Kinds,
    /// The number of connections so far, by which a session recognizes its own.
    connection: u64,
    pub(super) live: Option<Live>,
}

type ChangeList = dyn FnMut(&mut Vec<Listed>) + Send;

/// The function that falsifies lists.
pub(super) struct Falsify(pub(super) Box<ChangeList>);

impl fmt::Debug for Falsify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Falsify")
    }
}

/// The outcome of attempts to connect.
#[derive(Clone, Debug, Default)]
pub(super) enum Connects {
    #[default]
    Succeed,
    Fail(Error),
    Hang,
}

/// The open connection.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) number: u64,
    pub(super) silent: bool,
    pub(super) registered: Interest,
    observer: Observer,
    pub(super) held: VecDeque<Item>,
    pub(super) ready: VecDeque<Item>,
    pub(super) asked_interest: Option<(u64, Interest)>,
    pub(super) asked_list: Option<u64>,
    /// Parts that are unreachable.
    unreachable: Vec<Unreachable>,
}

#[derive(Debug)]
struct Unreachable {
    scope: Scope,
    fault: Fault,
    /// The domains that the driver may know from before, each at least once.
    before: Vec<Domain>,
}

/// An item that comes over the connection.
#[derive(Debug)]
pub(super) enum Item {
    Emitted(Emitted),
    Outage(Scope, Fault),
    /// A part that is reachable again, with the domains that it had before.
    Restored(Scope, Vec<Domain>),
    InterestDone(u64, Vec<Kind>),
    Listed(u64, Vec<Listed>),
    Pong,
}

impl Line {
    pub(super) fn new(host: Host, level_triggered: bool, lacking: Kinds) -> Self {
        let (changes, _) = watch::channel(());
        let state = Mutex::new(State { lacking, ..State::default() });
        Self { host, level_triggered, state, changes }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Changes the state and wakes the tasks that wait for a change.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let outcome = change(&mut self.lock());
        self.changes.send_modify(|()| ());
        outcome
    }

    /// Opens a connection in place of any other, and returns its number.
    pub(super) fn connect(&self) -> u64 {
        self.change(|state| {
            state.connection += 1;
            state.live = Some(Live {
                number: state.connection,
                silent: false,
                registered: Interest::default(),
                observer: self.host.observe(),
                held: VecDeque::new(),
                ready: VecDeque::new(),
                asked_interest: None,
                asked_list: None,
                unreachable: Vec::new(),
            });
            state.connection
        })
    }

    /// Executes the requests that do not hang.
    pub(super) fn serve(&self, state: &mut State) {
        let State {
            lists_hang,
            falsify,
            registrations_hang,
            stepping,
            lacking,
            live: Some(live),
            ..
        } = state
        else {
            return;
        };
        // Events before the replies: those of before the request are in front of its reply.
        live.pull(*stepping);
        if live.silent {
            return;
        }
        if !*registrations_hang {
            if let Some((tag, interest)) = live.asked_interest.take() {
                let lacks = |kind: &&Kind| lacking.contains(kind);
                let refused: Vec<_> = interest.kinds().iter().filter(lacks).cloned().collect();
                let granted = interest.kinds().iter().filter(|kind| !lacking.contains(kind));
                let first = live.registered.is_empty();
                live.registered = granted.cloned().collect();
                // A server drops the queued events of a registration that has ended.
                let registered = &live.registered;
                live.held.retain(|item| item.is_of(registered));
                live.ready.push_back(Item::InterestDone(tag, refused));
                // The first registration of a connection learns which parts are unreachable
                // already.
                for part in live.unreachable.iter().filter(|_| first) {
                    live.ready.push_back(Item::Outage(part.scope.clone(), part.fault.clone()));
                }
            }
        }
        if !*lists_hang {
            if let Some(tag) = live.asked_list.take() {
                let mut list = self.host.domains();
                // Such a hypervisor has only runs, and no definitions.
                if self.level_triggered {
                    list.retain(|entry| entry.domain.is_active());
                    list.iter_mut().for_each(|entry| entry.persistent = Some(false));
                }
                // The driver knows them from now on, so they must be reported at the part's return.
                for part in &mut live.unreachable {
                    let inside = list.iter().filter(|entry| part.scope.contains(&entry.domain));
                    part.before.extend(inside.map(|entry| entry.domain.clone()));
                }
                if let Some(Falsify(falsify)) = falsify {
                    falsify(&mut list);
                }
                live.ready.push_back(Item::Listed(tag, list));
            }
        }
    }
}

impl Item {
    /// Whether it is sent under these registrations. A server drops queued events of a registration
    /// that has ended.
    fn is_of(&self, registered: &Interest) -> bool {
        match self {
            // Events without a kind are markers: they belong to every registration.
            Self::Emitted(emitted) => match emitted.event.kind() {
                Some(kind) => registered.contains(&kind),
                None => !registered.is_empty(),
            },
            _ => true,
        }
    }
}

impl State {
    /// The connection with this number, if it is still open.
    pub(super) fn live(&mut self, number: u64) -> Option<&mut Live> {
        self.live.as_mut().filter(|live| live.number == number)
    }

    /// The hypervisor ends the connection.
    pub(super) fn lose(&mut self) {
        self.live = None;
    }

    pub(super) fn disconnect_part(&mut self, host: &Host, scope: Scope, fault: Fault) {
        let Some(live) = &mut self.live else { return };
        // Events of before the fault are still delivered.
        live.pull(self.stepping);
        live.unreachable.retain(|part| !part.scope.is_same(&scope));
        let inside = host.domains().into_iter().map(|entry| entry.domain);
        let before = inside.filter(|domain| scope.contains(domain)).collect();
        let part = Unreachable { scope: scope.clone(), fault: fault.clone(), before };
        live.unreachable.push(part);
        live.send_if_registered(self.stepping, Item::Outage(scope, fault));
    }

    pub(super) fn restore_part(&mut self, scope: Scope) {
        let Some(live) = &mut self.live else { return };
        live.pull(self.stepping);
        let same = |part: &Unreachable| part.scope.is_same(&scope);
        let Some(at) = live.unreachable.iter().position(same) else { return };
        let before = live.unreachable.remove(at).before;
        live.send_if_registered(self.stepping, Item::Restored(scope, before));
    }

    pub(super) fn step(&mut self) -> bool {
        let Some(live) = &mut self.live else { return false };
        live.pull(self.stepping);
        let Some(item) = live.held.pop_front() else { return false };
        live.ready.push_back(item);
        true
    }

    pub(super) fn release(&mut self) {
        if let Some(live) = &mut self.live {
            // Into the held ones first, so that the order stays.
            live.pull(self.stepping);
            live.ready.append(&mut live.held);
        }
        self.stepping = false;
    }

    /// Whether the driver has read all items that it can get.
    pub(super) fn is_delivered(&mut self) -> bool {
        let Some(live) = &mut self.live else { return true };
        live.pull(self.stepping);
        // Over a silent connection the rest never arrives: waiting for it would not end.
        live.silent || live.ready.is_empty()
    }

    pub(super) fn note(&mut self, asked: Asked) {
        self.journal.note(asked);
    }
}

impl Live {
    /// Queues the host's events that the driver is registered for.
    fn pull(&mut self, stepping: bool) {
        while let Some(emitted) = self.observer.try_next() {
            let unreachable = emitted.event.domain().is_some_and(|domain| {
                self.unreachable.iter().any(|part| part.scope.contains(domain))
            });
            let item = Item::Emitted(emitted);
            if !unreachable && item.is_of(&self.registered) {
                self.send(stepping, item);
            }
        }
    }

    /// Sends nothing while there is no registration.
    fn send_if_registered(&mut self, stepping: bool, item: Item) {
        if !self.registered.is_empty() {
            self.send(stepping, item);
        }
    }

    fn send(&mut self, stepping: bool, item: Item) {
        if stepping { &mut self.held } else { &mut self.ready }.push_back(item);
    }
}
