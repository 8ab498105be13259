//! Expecting a domain to run, or to stop, from before the act that leads to it.
//!
//! ```text
//!  expect ──▶ subscription ──▶ Subject (what is known of the domain) ──▶ reached, failed, or wait on
//!                 events        │
//!  timers ──────────────────────┘   (a start that may still be a start in pause; the deadline)
//! ```

mod error;
mod subject;

use std::future::pending;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep_until};

pub use self::error::WaitError;
use self::subject::{News, Subject};
use crate::{Domain, End, EventStream, Scope, Selector, State, StopCause};

/// A subscription to one domain, made before the act whose outcome it awaits.
///
/// [`EventSourceExt::expect`](crate::EventSourceExt::expect) makes one. What happens from then on
/// counts, however late [`running`](Self::running) or [`stopped`](Self::stopped) is called:
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
/// # .block_on(async {
/// use std::time::Duration;
/// use virevent::{EventSourceExt, StopCause, WaitError};
/// use virevent_testkit::FakeHypervisor;
///
/// let source = FakeHypervisor::new();
/// source.define("web")?;
///
/// let mut web = source.expect("web").await?;
/// source.start("web")?; // virsh start web
/// let (domain, state) = web.running(Duration::from_secs(30)).await?;
/// println!("{domain} is {state}");
///
/// source.crash("web")?;
/// let (_, cause) = web.stopped(Duration::MAX).await?; // however long it runs
/// assert_eq!(cause, StopCause::Crashed);
///
/// // A start that fails without an event.
/// let error = web.running(Duration::from_secs(30)).await.unwrap_err();
/// assert!(matches!(error, WaitError::Deadline { .. }));
/// assert_eq!(
///     error.to_string(),
///     "web is not running at the deadline of 30s: it is shutoff (crashed)"
/// );
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// - Each wait goes on where the one before ended: `running`, then `stopped`, follow one run. (Of
///   more than 1,000 unread events only the last states count, as in any stream.)
/// - A run that goes on when the expectation is made counts, too: after a restart call `stopped`,
///   and then `running`, for the new run.
/// - During an outage nothing is reached by what was known before it: a wait goes on, and what the
///   driver infers after the reconnect counts.
/// - A domain that does not exist yet is waited for. By name it is the domain that is called so: if
///   it is renamed, it is gone. By uuid a rename changes nothing.
/// - Where several hosts of a fleet have such a domain, `running` returns the first that runs, or why
///   one does not; `stopped` returns the first run that ends, or waits until none runs.
///
/// Dropping it cancels the subscription.
#[derive(Debug)]
pub struct Expectation {
    events: EventStream,
    subject: Subject,
}

impl Expectation {
    pub(super) fn new(events: EventStream, domain: Selector) -> Self {
        let scope = Scope::Source(events.source());
        Self { events, subject: Subject::new(domain, &scope) }
    }

    /// Waits until the domain runs, and returns it with the id of its run; at once if it runs
    /// already.
    ///
    /// Neither a start in pause (`virsh start --paused`) counts nor a guest that migrates in, until
    /// the run is resumed. A start of libvirt's that may still fail without an event counts when
    /// libvirt has reported it complete; unless it was under way when the expectation was made. A
    /// start in the last 100 ms before the deadline is waited for until it is known to be none in
    /// pause.
    ///
    /// # Errors
    /// [`WaitError`]: as soon as a run ends or its guest crashes, or the domain is gone; otherwise
    /// at the deadline, `timeout` from now ([`Duration::MAX`]: none). libvirt sends nothing for most
    /// starts that fail, so these end at the deadline. Another call waits for the next run.
    ///
    /// # Cancel safety
    /// Cancel safe: the next call goes on with what this one knew.
    pub async fn running(&mut self, timeout: Duration) -> Result<(Domain, State), WaitError> {
        let judge = |subject: &Subject, now: Moment| match now {
            Moment::Event(news) => news.failure_of_running("running").map(Err),
            Moment::CaughtUp => subject.reached(State::is_running).map(Ok),
        };
        self.wait("running", timeout, judge).await
    }

    /// Waits until the domain's run ends, and returns the domain, with the id of that run, and the
    /// cause; at once if it is inactive already, without an id. (To await the end of a run that is
    /// about to start call [`running`](Self::running) before.)
    ///
    /// A guest that crashed and that the hypervisor keeps has not stopped.
    ///
    /// # Errors
    /// [`WaitError`]: at the deadline, `timeout` from now ([`Duration::MAX`]: none); when the domain
    /// that was expected by its name is renamed, its source is removed from the fleet, or the source
    /// has ended.
    ///
    /// # Cancel safety
    /// Cancel safe: the next call goes on with what this one knew. The end of a run that
    /// [`running`](Self::running) or [`until`](Self::until) has returned is returned once more, until
    /// there is another run.
    pub async fn stopped(&mut self, timeout: Duration) -> Result<(Domain, StopCause), WaitError> {
        let judge = |subject: &Subject, now: Moment| match now {
            Moment::Event(news) => news.end_of_run(),
            Moment::CaughtUp => subject.inactive().map(Ok),
        };
        self.wait("stopped", timeout, judge).await
    }

    /// Waits until the domain is in a state that `wanted` accepts, and returns it; at once if it is
    /// in such a state already. The end of a run ends this wait only if the domain no longer exists.
    ///
    /// ```
    /// # async fn example(source: &dyn virevent::EventSource) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use virevent::{EventSourceExt, State};
    ///
    /// let mut web = source.expect("web").await?;
    /// let (web, state) = web.until(State::is_paused, Duration::from_secs(60)).await?;
    /// println!("{web} is {state}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`WaitError`]: when the domain is gone; at the deadline, `timeout` from now
    /// ([`Duration::MAX`]: none).
    ///
    /// # Cancel safety
    /// Cancel safe: the next call goes on with what this one knew.
    pub async fn until(
        &mut self,
        mut wanted: impl FnMut(State) -> bool,
        timeout: Duration,
    ) -> Result<(Domain, State), WaitError> {
        let expected = "in the awaited state";
        let judge = |subject: &Subject, now: Moment| {
            if let Moment::Event(news) = now {
                if let Some(failure) = news.failure_of_existing(expected) {
                    return Some(Err(failure));
                }
            }
            subject.reached(&mut wanted).map(Ok)
        };
        self.wait(expected, timeout, judge).await
    }

    /// Waits until `judge` returns an outcome.
    async fn wait<T>(
        &mut self,
        expected: &'static str,
        timeout: Duration,
        mut judge: impl FnMut(&Subject, Moment) -> Option<Result<T, WaitError>>,
    ) -> Result<T, WaitError> {
        let deadline = Instant::now().checked_add(timeout);
        let mut is_late = false;
        loop {
            // What is delivered already comes first: a run that has ended since does not run.
            let mut next = self.events.next().now_or_never();
            if next.is_none() {
                if let Some(outcome) = judge(&self.subject, Moment::CaughtUp) {
                    return outcome;
                }
                if is_late && self.subject.settles().is_none() {
                    return Err(self.subject.late(expected, timeout));
                }
                tokio::select! {
                    biased;
                    event = self.events.next() => next = Some(event),
                    () = at(self.subject.settles()) => self.subject.settle(),
                    () = at(deadline.filter(|_| !is_late)) => is_late = true,
                }
            }
            match next {
                Some(Some(event)) => {
                    let news = self.subject.apply(&event);
                    let outcome = news.and_then(|news| judge(&self.subject, Moment::Event(news)));
                    if let Some(outcome) = outcome {
                        return outcome;
                    }
                }
                Some(None) => {
                    let end = self.events.end().unwrap_or(End::Cancelled);
                    return Err(self.subject.ended(expected, end));
                }
                None => {}
            }
        }
    }
}

/// When a wait is judged.
enum Moment {
    /// After an event of the domain.
    Event(News),
    /// After all that is delivered so far.
    CaughtUp,
}

/// Resolves at this time; `None`: never.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}
