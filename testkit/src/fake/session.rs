//! The fake's end of the line, as the driver sees it.

use std::sync::Arc;

use tokio::sync::watch;
use virevent::driver::{Batch, Connect, Interest, Session};
use virevent::{Change, Domain, DomainEvent, Error, Kinds, StopCause};

use super::journal::Asked;
use super::line::{Connects, ENDPOINT, Item, Line};
use crate::host::Emitted;

/// The most that one read brings, as a read of a socket brings at most a bufferful.
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
        self.line.change(|state| state.note(Asked::Connect));
        loop {
            changes.mark_unchanged();
            let connects = self.line.lock().connects.clone();
            match connects {
                Connects::Succeed => break,
                Connects::Fail(error) => return Err(error),
                // The line outlives this: it holds the sender.
                Connects::Hang => drop(changes.changed().await),
            }
        }
        let line = Arc::clone(&self.line);
        let (number, emitted) = (line.connect(), line.host.emitted());
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
    /// Moves what is ready into `out`; false if nothing is.
    fn read(&self, out: &mut Batch) -> Result<bool, Error> {
        let mut state = self.line.lock();
        if state.live(self.number).is_none() {
            return Err(Error::Closed { endpoint: ENDPOINT.into(), detail: String::new() });
        }
        self.line.serve(&mut state);
        let Some(live) = state.live(self.number).filter(|live| !live.silent) else {
            return Ok(false);
        };
        let few = live.ready.len().min(READ);
        let items: Vec<_> = live.ready.drain(..few).collect();
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
                self.tell_states(&before, &|domain| scope.contains(domain), out);
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

    /// Says how the domains of a part that is back are now.
    fn tell_states(&self, before: &[Domain], within: &dyn Fn(&Domain) -> bool, out: &mut Batch) {
        let mut now = self.line.host.domains();
        now.retain(|entry| within(&entry.domain));
        if self.line.level_triggered {
            now.retain(|entry| entry.domain.is_active());
        }
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

/// The driver is done with the connection.
impl Drop for FakeSession {
    fn drop(&mut self) {
        self.line.change(|state| {
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

/// A level-triggered hypervisor knows only runs, and says only how they are.
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
