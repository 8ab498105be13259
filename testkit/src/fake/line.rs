//! What lies between the driver and the simulated host: the connection with its faults.
//!
//! Answers and events take one queue, in the order in which the host made them, as on a socket. In
//! single step the events wait aside until they are let through; answers don't.
//!
//! ```text
//!   host ──▶ observer ──▶ (stepping: held ──step()──▶) ready ──▶ session ──▶ driver
//!                                                        ▲
//!                    answers to registration and list ───┘
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use virevent::driver::{Interest, Listed};
use virevent::{Domain, Error, Fault, Kind, Kinds, Scope};

use super::journal::{Asked, Journal};
use crate::host::{Emitted, Host, Observer};

/// What the fake calls its end of the line in errors.
pub(super) const ENDPOINT: &str = "the fake hypervisor";

/// Shared by the fake's handles, its connector and its session.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) host: Host,
    pub(super) level_triggered: bool,
    state: Mutex<State>,
    /// Changes whenever anything here does.
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
    /// Counts connections, so that a session knows whether it is still the one.
    connection: u64,
    pub(super) live: Option<Live>,
}

type ChangeList = dyn FnMut(&mut Vec<Listed>) + Send;

/// What a list is made into.
pub(super) struct Falsify(pub(super) Box<ChangeList>);

impl fmt::Debug for Falsify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Falsify")
    }
}

/// What becomes of an attempt to connect.
#[derive(Clone, Debug, Default)]
pub(super) enum Connects {
    #[default]
    Succeed,
    Fail(Error),
    Hang,
}

/// The connection that there is.
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
    /// Parts that are out of reach.
    out: Vec<Out>,
}

#[derive(Debug)]
struct Out {
    scope: Scope,
    fault: Fault,
    /// The domains that the driver may know from before, each at least once.
    before: Vec<Domain>,
}

/// What comes over the line.
#[derive(Debug)]
pub(super) enum Item {
    Emitted(Emitted),
    Outage(Scope, Fault),
    /// With the domains that were there before it went out of reach.
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

    /// Changes the state and wakes whoever waits for it.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let outcome = change(&mut self.lock());
        self.changes.send_modify(|()| ());
        outcome
    }

    /// Makes a connection, in place of any other, and returns its number.
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
                out: Vec::new(),
            });
            state.connection
        })
    }

    /// Does what was asked and does not hang.
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
                let registered = &live.registered;
                live.held.retain(|item| item.is_of(registered));
                live.ready.push_back(Item::InterestDone(tag, refused));
                for out in live.out.iter().filter(|_| first) {
                    live.ready.push_back(Item::Outage(out.scope.clone(), out.fault.clone()));
                }
            }
        }
        if !*lists_hang {
            if let Some(tag) = live.asked_list.take() {
                let mut list = self.host.domains();
                if self.level_triggered {
                    list.retain(|entry| entry.domain.is_active());
                    list.iter_mut().for_each(|entry| entry.persistent = Some(false));
                }
                for out in &mut live.out {
                    let inside = list.iter().filter(|entry| out.scope.contains(&entry.domain));
                    out.before.extend(inside.map(|entry| entry.domain.clone()));
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
    /// Whether it is sent to one who has registered for these. What a server still has of a
    /// registration that is over it does not send.
    fn is_of(&self, registered: &Interest) -> bool {
        match self {
            Self::Emitted(emitted) => match emitted.event.kind() {
                Some(kind) => registered.contains(&kind),
                None => !registered.is_empty(),
            },
            _ => true,
        }
    }
}

impl State {
    /// The connection of that number, if it is still the one.
    pub(super) fn live(&mut self, number: u64) -> Option<&mut Live> {
        self.live.as_mut().filter(|live| live.number == number)
    }

    /// The hypervisor ends the connection.
    pub(super) fn lose(&mut self) {
        self.live = None;
    }

    pub(super) fn go_out(&mut self, host: &Host, scope: Scope, fault: Fault) {
        let Some(live) = &mut self.live else { return };
        live.pull(self.stepping);
        live.out.retain(|out| !out.scope.is_same(&scope));
        let inside = host.domains().into_iter().map(|entry| entry.domain);
        let before = inside.filter(|domain| scope.contains(domain)).collect();
        live.out.push(Out { scope: scope.clone(), fault: fault.clone(), before });
        live.send_if_registered(self.stepping, Item::Outage(scope, fault));
    }

    pub(super) fn come_back(&mut self, scope: Scope) {
        let Some(live) = &mut self.live else { return };
        live.pull(self.stepping);
        let Some(at) = live.out.iter().position(|out| out.scope.is_same(&scope)) else { return };
        let before = live.out.remove(at).before;
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
            live.pull(self.stepping);
            live.ready.append(&mut live.held);
        }
        self.stepping = false;
    }

    /// Whether nothing is on its way to a driver that listens.
    pub(super) fn is_delivered(&mut self) -> bool {
        let Some(live) = &mut self.live else { return true };
        live.pull(self.stepping);
        live.silent || live.ready.is_empty()
    }

    pub(super) fn note(&mut self, asked: Asked) {
        self.journal.note(asked);
    }
}

impl Live {
    /// Takes in what the host emitted and the driver has registered for.
    fn pull(&mut self, stepping: bool) {
        while let Some(emitted) = self.observer.try_next() {
            let out = emitted
                .event
                .domain()
                .is_some_and(|domain| self.out.iter().any(|out| out.scope.contains(domain)));
            let item = Item::Emitted(emitted);
            if !out && item.is_of(&self.registered) {
                self.send(stepping, item);
            }
        }
    }

    /// To one who has not registered nothing is said.
    fn send_if_registered(&mut self, stepping: bool, item: Item) {
        if !self.registered.is_empty() {
            self.send(stepping, item);
        }
    }

    fn send(&mut self, stepping: bool, item: Item) {
        if stepping { &mut self.held } else { &mut self.ready }.push_back(item);
    }
}
