//! Plays steps on a driver, and looks whether all holds.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use tokio::task::JoinHandle;
use virevent::driver::{Driver, Reconnect};
use virevent::{Error, EventSource, EventStream, Kind, Kinds, Options, Status};

use crate::server::{Server, uuid};
use crate::steps::{Sort, Step};
use crate::story::Story;

/// Under which conditions the steps are played.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variant {
    pub(crate) verify: bool,
    /// Things change in silence, and events may be late.
    pub(crate) silent: bool,
    /// The hypervisor says only how things are.
    pub(crate) level: bool,
    /// The hypervisor has no reboots.
    pub(crate) lacking: bool,
}

const INTERVAL: Duration = Duration::from_secs(20);

/// # Errors
/// What does not hold.
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
    twins: u32,
    readers: Vec<Reader>,
}

/// A subscription that is not answered yet.
struct Waiting {
    sort: Sort,
    twins: u32,
    subscribing: JoinHandle<Result<EventStream, Error>>,
}

struct Reader {
    sort: Sort,
    stream: EventStream,
    story: Story,
    /// A slow one and a fast one that came together have the same number.
    twins: u32,
}

impl Play {
    fn new(variant: Variant) -> Self {
        let server = Server::new(variant);
        let driver = Driver::builder(server.clone())
            .reconnect(Reconnect::local().seed(1))
            .verify(variant.verify.then_some(INTERVAL))
            .build();
        Self { variant, server, driver, waiting: Vec::new(), twins: 0, readers: Vec::new() }
    }

    async fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Domain(deed, number) => self.server.with(|server| server.act(deed, number)),
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
            Step::Subscribe(sort) => {
                self.twins += 1;
                self.subscribe(sort);
                if sort == Sort::Slow {
                    self.subscribe(Sort::Fast);
                }
            }
            Step::Read(at) => return self.read(usize::from(at)),
            Step::Drop(at) if usize::from(at) < self.readers.len() => {
                let reader = self.readers.remove(usize::from(at));
                let (mut events, guard) = reader.stream.split();
                drop(guard);
                if events.next().now_or_never() != Some(None) {
                    return Err("something came after the end".into());
                }
            }
            Step::Drop(_) => {}
        }
        self.admit().await;
        (0..self.readers.len())
            .filter(|at| self.readers[*at].sort == Sort::Fast)
            .collect::<Vec<_>>()
            .into_iter()
            .try_for_each(|at| self.read(at))
    }

    /// The server does what it is asked, and the driver takes it in, until both are idle.
    async fn serve(&mut self) {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if !self.server.with(|server| server.serve()) {
                return;
            }
        }
    }

    fn subscribe(&mut self, sort: Sort) {
        let options = match sort {
            Sort::Fast => Options::default(),
            Sort::Slow => Options::default().capacity(4),
            Sort::Patient => Options::default().wait(true),
            Sort::Lifecycle => Options::default().kind(Kind::Lifecycle),
            Sort::Reboots => Options::default().kind(Kind::Reboot),
            Sort::One => Options::default().domain(uuid(1)),
            Sort::Changes => Options::default().existing(false),
        };
        let driver = self.driver.clone();
        let subscribing = tokio::spawn(async move { driver.subscribe_with(options).await });
        self.waiting.push(Waiting { sort, twins: self.twins, subscribing });
    }

    /// Takes over the streams that have begun.
    async fn admit(&mut self) {
        tokio::task::yield_now().await;
        for waiting in std::mem::take(&mut self.waiting) {
            if !waiting.subscribing.is_finished() {
                self.waiting.push(waiting);
                continue;
            }
            let Waiting { sort, twins, subscribing } = waiting;
            if let Ok(Ok(stream)) = subscribing.await {
                self.readers.push(Reader { sort, stream, story: Story::of(sort), twins });
            }
        }
    }

    fn read(&mut self, at: usize) -> Result<(), String> {
        let lacking = self.variant.lacking;
        let Some(reader) = self.readers.get_mut(at) else { return Ok(()) };
        while let Some(event) = reader.stream.next().now_or_never() {
            let Some(event) = event else {
                // One that opened in an outage learns only then that what it asks for cannot be
                // had.
                if lacking && reader.sort == Sort::Reboots {
                    self.readers.remove(at);
                    return Ok(());
                }
                return Err(format!("a stream ended: {:?}", reader.stream.end()));
            };
            if matches!(reader.sort, Sort::Reboots) {
                continue;
            }
            reader.story.hear(&event).map_err(|wrong| format!("{:?}: {wrong}", reader.sort))?;
        }
        Ok(())
    }

    /// Nothing happens any more: after a while everybody believes what is true.
    async fn settle(&mut self) -> Result<(), String> {
        self.server.with(|server| {
            server.refuse(false);
            server.end_starts();
        });
        // A list that was lost again and again waits for up to five minutes.
        for _ in 0..400 {
            self.serve().await;
            self.admit().await;
            let is_out = !matches!(self.driver.health().status(), Status::Synced | Status::Idle);
            if !is_out && self.waiting.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        // A doubt waits for the interval, twice.
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
        if let Some(Waiting { sort, .. }) = self.waiting.first() {
            return Err(format!("{sort:?} still waits to be let in"));
        }
        self.check()?;
        // Whoever comes now is let in, and knows.
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
        let stream = stream.map_err(|error| format!("a newcomer is refused: {error}"))?;
        self.readers.clear();
        self.readers.push(Reader {
            sort: Sort::Fast,
            stream,
            story: Story::of(Sort::Fast),
            twins: 0,
        });
        self.serve().await;
        self.read(0)?;
        self.check()
    }

    fn check(&self) -> Result<(), String> {
        let mut truth = self.server.with(|server| server.domains.clone());
        if self.variant.level {
            truth.retain(|truth| truth.run.is_some());
        }
        for reader in &self.readers {
            let checked = match reader.sort {
                Sort::Reboots | Sort::Changes => Ok(()),
                Sort::One => match truth.iter().find(|truth| truth.number == 1) {
                    Some(truth) => reader.story.check_one(truth),
                    None => reader.story.check(&[]),
                },
                _ => reader.story.check(&truth),
            };
            checked.map_err(|wrong| format!("{:?}: {wrong}", reader.sort))?;
        }
        self.check_twins()?;
        self.check_registrations()?;
        let corrected = self.driver.counters().corrected;
        let was_silent = self.server.with(|server| server.was_silent);
        if corrected > 0 && !self.variant.silent {
            return Err(format!(
                "{corrected} corrections, and nothing happened in silence: {was_silent}"
            ));
        }
        Ok(())
    }

    /// A slow reader got or missed as many events as the fast one that came with it.
    fn check_twins(&self) -> Result<(), String> {
        for fast in self.readers.iter().filter(|reader| reader.sort == Sort::Fast) {
            let is_twin = |other: &&Reader| other.sort == Sort::Slow && other.twins == fast.twins;
            for slow in self.readers.iter().filter(is_twin) {
                if slow.story.counted != fast.story.counted {
                    let slow = slow.story.counted;
                    let fast = fast.story.counted;
                    return Err(format!("{slow} got or missed, where another got {fast}"));
                }
            }
        }
        Ok(())
    }

    fn check_registrations(&self) -> Result<(), String> {
        let mut wanted = Kinds::default();
        for reader in &self.readers {
            wanted.insert(Kind::Lifecycle);
            if !matches!(reader.sort, Sort::Lifecycle) && !self.variant.lacking {
                wanted.insert(Kind::Reboot);
            }
        }
        match self.server.registered() {
            Some(registered) if *registered.kinds() != wanted => {
                Err(format!("{registered:?} is registered, and {wanted} wanted"))
            }
            None if !self.readers.is_empty() => Err("there is no connection".into()),
            _ => Ok(()),
        }
    }
}
