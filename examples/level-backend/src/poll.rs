//! The session: a timer, and the comparison of what was there with what is.
//!
//! ```text
//!            due, or a list is wanted              it has ended
//!   waiting ──────────────────────────▶ looking ─────────────────▶ waiting
//! ```
//!
//! A guest that is there is reported by [`Batch::state`], one that is no more by [`Batch::gone`];
//! the driver knows what it delivered before and derives `started`, `suspended`, `stopped`. A list
//! is the answer of the same look.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use virevent::driver::{Batch, Connect, Interest, Listed, Session};
use virevent::{Error, State, StopCause, Uuid};

/// Less would be a busy loop.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// Lists the guests that run now. This is what you write for your hypervisor.
pub trait Inventory: Clone + Debug + Send + Sync + 'static {
    /// The guests that run. `known` are those of the look before. It may block.
    ///
    /// # Errors
    /// They cannot be listed, not even in part: a list that lacks a guest says that it is gone.
    fn look(&self, known: &Guests) -> Result<Guests, Error>;
}

/// The guests that run.
pub type Guests = BTreeMap<Uuid, Guest>;

/// A guest that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Its name.
    pub name: String,
    /// The id of its run, for people and for the driver: another id is another run.
    pub id: u32,
    /// What distinguishes this run from a later one that has the same id.
    pub began: u64,
    /// How it is.
    pub state: State,
}

/// Makes sessions that look at an interval.
#[derive(Debug)]
pub struct Poll<I> {
    uri: String,
    host: String,
    inventory: I,
    interval: Duration,
}

impl<I: Inventory> Poll<I> {
    /// A source of this URI, on this host.
    pub fn new(uri: String, host: String, inventory: I, interval: Duration) -> Self {
        Self { uri, host, inventory, interval: interval.max(MIN_INTERVAL) }
    }
}

impl<I: Inventory> Connect for Poll<I> {
    type Session = PollSession<I>;

    fn uri(&self) -> &str {
        &self.uri
    }

    async fn connect(&self) -> Result<PollSession<I>, Error> {
        let mut session = PollSession {
            host: self.host.clone(),
            inventory: self.inventory.clone(),
            interval: self.interval,
            due: Instant::now(),
            look: None,
            known: None,
            is_wanted: false,
            tag: None,
            list: None,
        };
        // Only to know that it can be done: the driver asks for a list, and that is a look of its own.
        session.looked().await?;
        Ok(session)
    }
}

/// Looks at an interval, while there is a subscriber.
#[derive(Debug)]
pub struct PollSession<I> {
    host: String,
    inventory: I,
    interval: Duration,
    /// When to look again.
    due: Instant,
    /// A look that is under way.
    look: Option<JoinHandle<Result<Guests, Error>>>,
    /// The guests of the last look; `None` until the first list.
    known: Option<Guests>,
    is_wanted: bool,
    tag: Option<u64>,
    list: Option<u64>,
}

impl<I: Inventory> Session for PollSession<I> {
    fn host(&self) -> &str {
        &self.host
    }

    fn set_interest(&mut self, interest: &Interest, tag: u64) {
        self.is_wanted = !interest.is_empty();
        self.tag = Some(tag);
    }

    fn request_list(&mut self, tag: u64) {
        self.list = Some(tag);
    }

    /// A list is one look, and so is what is reported: neither is older than what came before it.
    fn is_ordered(&self) -> bool {
        true
    }

    // Cancel safe: the time that is waited for and the look that is under way are kept in `self`.
    async fn advance(&mut self, out: &mut Batch) -> Result<(), Error> {
        if let Some(tag) = self.tag.take() {
            out.interest_done(tag, &[]);
            return Ok(());
        }
        if !self.is_wanted && self.list.is_none() {
            // Until the next call of the driver, which drops this future.
            std::future::pending::<()>().await;
        }
        if self.look.is_none() && self.list.is_none() {
            sleep_until(self.due).await;
        }
        let now = self.looked().await?;
        if let Some(known) = &self.known {
            report(known, &now, out);
        }
        if let Some(tag) = self.list.take() {
            // After the levels of the same look, so that a change that a verification happens to
            // find is delivered as observed, as by any other look.
            let listed = now.iter().map(|(uuid, guest)| {
                let domain = out.domain(*uuid, &guest.name, Some(guest.id));
                Listed::new(domain, guest.state, Some(false))
            });
            let listed = listed.collect();
            out.listed(tag, listed);
        } else if self.known.is_none() {
            // Before the first list there is nothing to compare with.
            return Ok(());
        }
        self.known = Some(now);
        Ok(())
    }
}

impl<I: Inventory> PollSession<I> {
    /// Looks, or waits for the look that is under way.
    ///
    /// # Cancel safety
    /// Cancel safe: the look goes on, and the next call waits for it.
    async fn looked(&mut self) -> Result<Guests, Error> {
        let look = self.look.get_or_insert_with(|| {
            self.due = Instant::now() + self.interval;
            let inventory = self.inventory.clone();
            let known = self.known.clone().unwrap_or_default();
            // Files and processes may take their time, which the driver's other work must not.
            spawn_blocking(move || inventory.look(&known))
        });
        let outcome = look.await;
        self.look = None;
        // The look has panicked, or the runtime shuts down.
        outcome.map_err(|error| Error::closed("the inventory", error.to_string()))?
    }
}

/// Says how each guest is, where that has changed.
fn report(known: &Guests, now: &Guests, out: &mut Batch) {
    for (uuid, old) in known {
        let is_same_run = |new: &Guest| (new.id, new.began) == (old.id, old.began);
        if !now.get(uuid).is_some_and(is_same_run) {
            let domain = out.domain(*uuid, &old.name, Some(old.id));
            // Nothing says why it ended.
            out.gone(&domain, StopCause::Unspecified);
        }
    }
    for (uuid, new) in now {
        // Levels may be repeated: this only saves the driver the work.
        if known.get(uuid) != Some(new) {
            let domain = out.domain(*uuid, &new.name, Some(new.id));
            out.state(domain, new.state);
        }
    }
}
