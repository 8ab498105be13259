//! Runs the steps of a script on a driver, and checks the invariants.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use tokio::task::JoinHandle;
use virevent::driver::{Driver, Reconnect};
use virevent::{Error, EventSource, EventStream, Kind, Kinds, Options, Status};

use crate::history::EventHistory;
use crate::server::{Server, uuid};
use crate::steps::{Step, SubscriberKind};

/// The conditions under which the steps are run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variant {
    pub(crate) verify: bool,
    /// Domains also change without an event, and events may be late.
    pub(crate) silent: bool,
    /// The hypervisor is level-triggered: it reports states, not changes.
    pub(crate) level: bool,
    /// The hypervisor does not report reboots.
    pub(crate) lacking: bool,
}

const INTERVAL: Duration = Duration::from_secs(20);

/// Runs a script.
///
/// # Errors
/// The invariant that does not hold.
pub(crate) fn play(variant: Variant, steps: &[Step]) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let mut play = Play::new(variant);
        for step in steps {
            play.step(*step).await?;
        }
        play.settle().await
    })
}

struct Play {
    variant: Variant,
    server: Server,
    driver: Driver,
    waiting: Vec<Waiting>,
    pair: u32,
    readers: Vec<Reader>,
}

/// A subscription that is not answered yet.
struct Waiting {
    kind: SubscriberKind,
    pair: u32,
    subscribing: JoinHandle<Result<EventStream, Error>>,
}

struct Reader {
    kind: SubscriberKind,
    stream: EventStream,
    history: EventHistory,
    /// A slow subscriber and the fast one that subscribed with it have the same number.
    pair: u32,
}

impl Play {
    fn new(variant: Variant) -> Self {
        let server = Server::new(variant);
        let driver = Driver::builder(server.clone())
            .reconnect(Reconnect::local().seed(1))
            .verify(variant.verify.then_some(INTERVAL))
            .build();
        Self { variant, server, driver, waiting: Vec::new(), pair: 0, readers: Vec::new() }
    }

    async fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Domain(operation, number) => {
                self.server.with(|server| server.act(operation, number));
            }
            Step::Confirm => _ = self.server.with(|server| server.confirm()),
            Step::Take => _ = self.server.with(|server| server.take()),
            Step::Reply => _ = self.server.with(|server| server.reply()),
            Step::Flush => _ = self.server.with(|server| server.flush()),
            Step::Serve => self.serve().await,
            Step::Cut => self.server.with(|server| server.cut()),
            Step::Restart => self.server.with(|server| server.restart()),
            Step::Refuse => self.server.with(|server| server.refuse(true)),
            Step::Accept => self.server.with(|server| server.refuse(false)),
            Step::Wait(ms) => tokio::time::sleep(Duration::from_millis(ms.into())).await,
            Step::Subscribe(kind) => {
                self.pair += 1;
                self.subscribe(kind);
                // The fast one of the pair says how many events there were.
                if kind == SubscriberKind::Slow {
                    self.subscribe(SubscriberKind::Fast);
                }
            }
            Step::Read(at) => return self.read(usize::from(at)),
            Step::Drop(at) if usize::from(at) < self.readers.len() => {
                let reader = self.readers.remove(usize::from(at));
                let (mut events, guard) = reader.stream.split();
                drop(guard);
                if events.next().now_or_never() != Some(None) {
                    return Err("an event was delivered after the end".into());
                }
            }
            Step::Drop(_) => {}
        }
        self.admit().await;
        (0..self.readers.len())
            .filter(|at| self.readers[*at].kind == SubscriberKind::Fast)
            .collect::<Vec<_>>()
            .into_iter()
            .try_for_each(|at| self.read(at))
    }

    /// Lets the server answer and the driver process the answers, until both are idle.
    async fn serve(&mut self) {
        // A bound, since a verification may follow each answer.
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if !self.server.with(|server| server.serve()) {
                return;
            }
        }
    }

    fn subscribe(&mut self, kind: SubscriberKind) {
        let options = match kind {
            SubscriberKind::Fast => Options::default(),
            SubscriberKind::Slow => Options::default().capacity(4),
            SubscriberKind::Patient => Options::default().wait(true),
            SubscriberKind::Lifecycle => Options::default().kind(Kind::Lifecycle),
            SubscriberKind::Reboots => Options::default().kind(Kind::Reboot),
            SubscriberKind::One => Options::default().domain(uuid(1)),
            SubscriberKind::Changes => Options::default().existing(false),
        };
        let driver = self.driver.clone();
        let subscribing = tokio::spawn(async move { driver.subscribe_with(options).await });
        self.waiting.push(Waiting { kind, pair: self.pair, subscribing });
    }

    /// Takes over the streams that have begun.
    async fn admit(&mut self) {
        // Lets the subscriptions that were answered finish.
        tokio::task::yield_now().await;
        for waiting in std::mem::take(&mut self.waiting) {
            if !waiting.subscribing.is_finished() {
                self.waiting.push(waiting);
                continue;
            }
            let Waiting { kind, pair, subscribing } = waiting;
            if let Ok(Ok(stream)) = subscribing.await {
                self.readers.push(Reader { kind, stream, history: EventHistory::of(kind), pair });
            }
        }
    }

    fn read(&mut self, at: usize) -> Result<(), String> {
        let lacking = self.variant.lacking;
        let Some(reader) = self.readers.get_mut(at) else { return Ok(()) };
        while let Some(event) = reader.stream.next().now_or_never() {
            let Some(event) = event else {
                // A stream that opened in an outage learns only at the sync that the server lacks
                // its kind.
                if lacking && reader.kind == SubscriberKind::Reboots {
                    self.readers.remove(at);
                    return Ok(());
                }
                return Err(format!("a stream ended: {:?}", reader.stream.end()));
            };
            // Without lifecycle events there is nothing to fold.
            if matches!(reader.kind, SubscriberKind::Reboots) {
                continue;
            }
            reader.history.apply(&event).map_err(|wrong| format!("{:?}: {wrong}", reader.kind))?;
        }
        Ok(())
    }

    /// Lets time pass without operations, then checks that every subscriber's table is right.
    async fn settle(&mut self) -> Result<(), String> {
        self.server.with(|server| {
            server.refuse(false);
            server.end_starts();
        });
        // After repeated losses with a list unanswered the driver waits for up to five minutes.
        for _ in 0..400 {
            self.serve().await;
            self.admit().await;
            let is_out = !matches!(self.driver.health().status(), Status::Synced | Status::Idle);
            if !is_out && self.waiting.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        // A doubt is resolved by two replies, each at most an interval later.
        let seconds = if self.variant.verify { 120 } else { 20 };
        for second in 0..seconds {
            self.serve().await;
            self.admit().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            if second % 10 == 0 {
                (0..self.readers.len()).try_for_each(|at| self.read(at))?;
            }
        }
        self.serve().await;
        self.admit().await;
        (0..self.readers.len()).try_for_each(|at| self.read(at))?;
        if let Some(Waiting { kind, .. }) = self.waiting.first() {
            return Err(format!("{kind:?} still waits for its stream"));
        }
        self.check()?;
        // A late subscriber is served from the roster, which must be right, too.
        let subscribing = tokio::spawn({
            let driver = self.driver.clone();
            async move { driver.subscribe_with(Options::default()).await }
        });
        for _ in 0..1000 {
            self.serve().await;
            if subscribing.is_finished() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let stream = subscribing.await.map_err(|error| error.to_string())?;
        let stream = stream.map_err(|error| format!("a late subscriber is refused: {error}"))?;
        self.readers.clear();
        self.readers.push(Reader {
            kind: SubscriberKind::Fast,
            stream,
            history: EventHistory::of(SubscriberKind::Fast),
            pair: 0,
        });
        self.serve().await;
        self.read(0)?;
        self.check()
    }

    fn check(&mut self) -> Result<(), String> {
        let mut truth = self.server.with(|server| server.domains.clone());
        // XenStore lists domains that run, so the others do not exist for it.
        if self.variant.level {
            truth.retain(|truth| truth.run.is_some());
        }
        for reader in &mut self.readers {
            let checked = match reader.kind {
                SubscriberKind::Reboots | SubscriberKind::Changes => Ok(()),
                SubscriberKind::One => match truth.iter().find(|truth| truth.number == 1) {
                    Some(truth) => reader.history.check_one(truth),
                    None => reader.history.check(&[]),
                },
                _ => reader.history.check(&truth),
            };
            checked.map_err(|wrong| format!("{:?}: {wrong}", reader.kind))?;
        }
        self.check_pairs()?;
        self.check_registrations()?;
        let corrected = self.driver.counters().corrected;
        let was_silent = self.server.with(|server| server.was_silent);
        if corrected > 0 && !self.variant.silent {
            return Err(format!("{corrected} corrections without a silent change ({was_silent})"));
        }
        Ok(())
    }

    /// Checks that slow and fast subscribers of a pair count the same events.
    fn check_pairs(&self) -> Result<(), String> {
        for fast in self.readers.iter().filter(|reader| reader.kind == SubscriberKind::Fast) {
            let is_pair =
                |other: &&Reader| other.kind == SubscriberKind::Slow && other.pair == fast.pair;
            for slow in self.readers.iter().filter(is_pair) {
                if slow.history.counted != fast.history.counted {
                    let slow = slow.history.counted;
                    let fast = fast.history.counted;
                    return Err(format!(
                        "the slow subscriber got or missed {slow}, the fast one {fast}"
                    ));
                }
            }
        }
        Ok(())
    }

    fn check_registrations(&self) -> Result<(), String> {
        let mut wanted = Kinds::default();
        for reader in &self.readers {
            wanted.insert(Kind::Lifecycle);
            if !matches!(reader.kind, SubscriberKind::Lifecycle) && !self.variant.lacking {
                wanted.insert(Kind::Reboot);
            }
        }
        match self.server.registered() {
            Some(registered) if *registered.kinds() != wanted => {
                Err(format!("{registered:?} is registered, {wanted} is wanted"))
            }
            None if !self.readers.is_empty() => Err("there is no connection".into()),
            _ => Ok(()),
        }
    }
}
