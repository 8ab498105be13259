//! The fake's session with the driver.

use std::sync::Arc;

use tokio::sync::watch;
use virevent::driver::{Batch, Connect, Interest, Session};
use virevent::{Change, Domain, DomainEvent, Error, Kinds, StopCause};

use super::journal::Asked;
use super::line::{Connects, ENDPOINT, Item, Line};
use crate::host::Emitted;

/// The most items that one read returns, as a read of a socket is limited by its buffer.
const READ: usize = 256;

#[derive(Debug)]
pub(super) struct FakeConnect {
    pub(super) uri: Arc<str>,
    pub(super) line: Arc<Line>,
}

#[derive(Debug)]
pub(super) struct FakeSession {
    line: Arc<Line>,
    number: u64,
    changes: watch::Receiver<()>,
    emitted: watch::Receiver<u64>,
}

impl Connect for FakeConnect {
    type Session = FakeSession;

    fn uri(&self) -> &str {
        &self.uri
    }

    fn kinds(&self) -> Kinds {
        Kinds::all()
    }

    async fn connect(&self) -> Result<FakeSession, Error> {
        let mut changes = self.line.changes();
        // Noted before it hangs or fails, so that a test can wait for the attempt.
        self.line.change(|state| state.note(Asked::Connect));
        loop {
            changes.mark_unchanged();
            let connects = self.line.lock().connects.clone();
            match connects {
                Connects::Succeed => break,
                Connects::Fail(error) => return Err(error),
                // Cannot fail: `self.line` holds the sender.
                Connects::Hang => drop(changes.changed().await),
            }
        }
        let line = Arc::clone(&self.line);
        let number = line.connect();
        let emitted = line.host.emitted();
        Ok(FakeSession { line, number, changes, emitted })
    }
}

impl Session for FakeSession {
    fn host(&self) -> &str {
        self.line.host.name()
    }

    fn set_interest(&mut self, interest: &Interest, tag: u64) {
        let asked = match interest.is_empty() {
            true => Asked::Deregister,
            false => Asked::Register(interest.kinds().clone()),
        };
        self.line.change(|state| {
            state.note(asked);
            if let Some(live) = state.live(self.number) {
                live.asked_interest = Some((tag, interest.clone()));
            }
        });
    }

    fn request_list(&mut self, tag: u64) {
        self.line.change(|state| {
            state.note(Asked::List);
            if let Some(live) = state.live(self.number) {
                live.asked_list = Some(tag);
            }
        });
    }

    fn ping(&mut self) -> bool {
        self.line.change(|state| {
            state.note(Asked::Ping);
            if let Some(live) = state.live(self.number) {
                live.ready.push_back(Item::Pong);
            }
        });
        true
    }

    async fn advance(&mut self, out: &mut Batch) -> Result<(), Error> {
        loop {
            // Before the read: a change during the read must wake the wait below.
            self.changes.mark_unchanged();
            self.emitted.mark_unchanged();
            if self.read(out)? {
                return Ok(());
            }
            tokio::select! {
                _ = self.changes.changed() => {}
                _ = self.emitted.changed() => {}
            }
        }
    }
}

impl FakeSession {
    /// Moves the ready items into `out`. False if there are none.
    fn read(&self, out: &mut Batch) -> Result<bool, Error> {
        let mut state = self.line.lock();
        if state.live(self.number).is_none() {
            return Err(Error::closed(ENDPOINT, ""));
        }
        self.line.serve(&mut state);
        let Some(live) = state.live(self.number).filter(|live| !live.silent) else {
            return Ok(false);
        };
        let few = live.ready.len().min(READ);
        let items: Vec<_> = live.ready.drain(..few).collect();
        // Decoding takes the host's lock, and an operation on the host must not wait for this one.
        drop(state);
        let any = !items.is_empty();
        for item in items {
            self.decode(item, out);
        }
        Ok(any)
    }

    fn decode(&self, item: Item, out: &mut Batch) {
        match item {
            Item::Emitted(emitted) if self.line.level_triggered => level(&emitted, out),
            Item::Emitted(emitted) => event(emitted.event, out),
            Item::Outage(scope, fault) => out.outage(scope, fault),
            Item::Restored(scope, before) => {
                // Before `restored`, which makes the driver deliver the differences and `Synced`.
                self.report_states(&before, &|domain| scope.contains(domain), out);
                out.restored(scope);
            }
            Item::InterestDone(tag, refused) => out.interest_done(tag, &refused),
            Item::Listed(tag, mut list) => {
                for entry in &mut list {
                    entry.domain = intern(&entry.domain, out);
                }
                out.listed(tag, list);
            }
            Item::Pong => {}
        }
    }

    /// Reports the states of the domains in a part that is reachable again.
    fn report_states(&self, before: &[Domain], within: &dyn Fn(&Domain) -> bool, out: &mut Batch) {
        let mut now = self.line.host.domains();
        now.retain(|entry| within(&entry.domain));
        if self.line.level_triggered {
            now.retain(|entry| entry.domain.is_active());
        }
        // Domains may have ended while the part was unreachable.
        for domain in before {
            if !now.iter().any(|entry| entry.domain.is_same(domain)) {
                let domain = intern(domain, out);
                out.gone(&domain, StopCause::Unspecified);
            }
        }
        for entry in now {
            let domain = intern(&entry.domain, out);
            out.state(domain, entry.state);
        }
    }
}

/// The driver ends the connection, unless the hypervisor has ended it before.
impl Drop for FakeSession {
    fn drop(&mut self) {
        self.line.change(|state| {
            // Otherwise the hypervisor has ended it, or another connection has replaced it.
            if state.live(self.number).is_some() {
                state.note(Asked::Disconnect);
                state.lose();
            }
        });
    }
}

fn intern(domain: &Domain, out: &mut Batch) -> Domain {
    out.domain_on(domain.host(), domain.uuid(), domain.name(), domain.id())
}

fn event(mut event: DomainEvent, out: &mut Batch) {
    if let DomainEvent::Lifecycle(lifecycle) = &mut event {
        lifecycle.domain = intern(&lifecycle.domain, out);
    }
    out.event(event);
}

/// The report of a level-triggered hypervisor: only runs, and only their states.
fn level(emitted: &Emitted, out: &mut Batch) {
    let DomainEvent::Lifecycle(lifecycle) = &emitted.event else {
        return out.event(emitted.event.clone());
    };
    match (&emitted.now, lifecycle.change) {
        (_, Change::Stopped(cause)) => {
            let domain = intern(&lifecycle.domain, out);
            out.gone(&domain, cause);
        }
        (Some(now), _) if now.domain.is_active() => {
            let domain = intern(&now.domain, out);
            out.state(domain, now.state);
        }
        _ => {}
    }
}
