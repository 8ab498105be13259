//! What a hypervisor may say that the fake one does not: word for word, on a connection by hand.

mod calls;
mod events;
mod reach;
mod stale;
mod verification;

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures::{FutureExt, StreamExt};
use tokio::sync::{Notify, mpsc};
use virevent::driver::{Batch, Builder, Connect, Driver, Interest, Listed, Session};
use virevent::{
    Change, Domain, DomainEvent, Error, EventSource, EventSourceExt, Fault, FaultKind, Lifecycle,
    Options, Reboot, RunningReason, Scope, ShutoffReason, StartCause, State, Status, StopCause,
    SuspendCause, Uuid,
};
use virevent_testkit::assert::{next_within, nothing_within, until_synced};

use crate::{delivered, secs};

type Word = Box<dyn FnOnce(&mut Batch) + Send>;

/// The server's end: what it says is what it is delivered to, and it confirms registrations.
#[derive(Clone, Debug)]
struct Wire {
    server: Arc<Mutex<Server>>,
    /// Rings whenever the driver connects or asks for something.
    asked: Arc<Notify>,
}

#[derive(Debug)]
struct Server {
    host: &'static str,
    line: Option<mpsc::UnboundedSender<Word>>,
    /// Lists that were asked for and not answered.
    lists: Vec<u64>,
    /// Looks at single domains that were asked for and not answered; `None` where it cannot look.
    looks: Option<Vec<u64>>,
    /// Keepalives are answered.
    answers_pings: bool,
    /// Keepalives that were asked for.
    pings: usize,
    /// Replies and events come in their order.
    is_ordered: bool,
    /// Registrations are not confirmed, but kept here.
    held: Option<Vec<u64>>,
    /// What was last asked to be registered.
    interest: Interest,
    /// Connections made so far.
    connections: usize,
}

struct Line {
    wire: Wire,
    host: &'static str,
    words: mpsc::UnboundedReceiver<Word>,
}

impl Wire {
    fn new() -> (Self, Driver) {
        let (wire, builder) = Self::builder();
        (wire, builder.build())
    }

    fn builder() -> (Self, Builder<Self>) {
        let server = Server {
            host: "h",
            line: None,
            lists: Vec::new(),
            looks: None,
            answers_pings: false,
            pings: 0,
            is_ordered: false,
            held: None,
            interest: Interest::default(),
            connections: 0,
        };
        let wire = Self { server: Arc::new(Mutex::new(server)), asked: Arc::default() };
        (wire.clone(), Driver::builder(wire))
    }

    /// One that lives: it answers keepalives.
    fn alive() -> (Self, Driver) {
        let (wire, source) = Self::new();
        wire.server(|server| server.answers_pings = true);
        (wire, source)
    }

    fn server<T>(&self, act: impl FnOnce(&mut Server) -> T) -> T {
        act(&mut self.server.lock().unwrap())
    }

    /// The driver acts on the server: those that wait for that look again.
    fn ask<T>(&self, act: impl FnOnce(&mut Server) -> T) -> T {
        let outcome = self.server(act);
        self.asked.notify_waiters();
        outcome
    }

    fn say(&self, word: impl FnOnce(&mut Batch) + Send + 'static) {
        // Into a line that is dead nobody speaks.
        self.server(|server| server.line.as_ref().map(|line| line.send(Box::new(word))));
    }

    fn event(&self, id: Option<u32>, change: Change) {
        self.say(move |batch| {
            let (domain, at) = (batch.domain(web(id).uuid(), "web", id), batch.received());
            batch.event(Lifecycle::new(domain, change, at));
        });
    }

    /// Answers a question of this number with a list, and leaves in its place what was asked for.
    fn list_of(&self, tag: u64, domains: &[Listed]) {
        let domains = domains.to_vec();
        self.say(move |batch| batch.listed(tag, domains));
    }

    /// Answers the list that was asked for first.
    async fn list(&self, domains: &[Listed]) {
        self.asked_to_list().await;
        let (tag, domains) = (self.server(|server| server.lists.remove(0)), domains.to_vec());
        self.say(move |batch| batch.listed(tag, domains));
    }

    /// Answers the look that was asked for first; `None`: there is no such domain.
    async fn look(&self, found: Option<Listed>) {
        self.asked_to_look().await;
        let tag = self.server(|server| server.looks.as_mut().unwrap().remove(0));
        self.say(move |batch| batch.looked(tag, found));
    }

    async fn asked_to_look(&self) {
        self.until(|server| server.looks.as_ref().is_some_and(|looks| !looks.is_empty())).await;
    }

    /// Confirms the registration that was held back first.
    fn confirm(&self) {
        let tag = self.server(|server| server.held.as_mut().unwrap().remove(0));
        self.say(move |batch| batch.interest_done(tag, &[]));
    }

    async fn asked_to_list(&self) {
        self.until(|server| !server.lists.is_empty()).await;
    }

    /// # Panics
    /// After ten minutes: it never comes.
    async fn until(&self, reached: impl Fn(&Server) -> bool) {
        let waited = async {
            loop {
                let asked = self.asked.notified();
                if self.server(|server| reached(server)) {
                    return;
                }
                asked.await;
            }
        };
        tokio::time::timeout(secs(600), waited).await.unwrap();
    }

    fn hang_up(&self) {
        self.server(|server| {
            server.line = None;
            server.lists.clear();
            server.looks.iter_mut().for_each(Vec::clear);
        });
    }
}

impl Connect for Wire {
    type Session = Line;

    fn uri(&self) -> &str {
        "wire:"
    }

    async fn connect(&self) -> Result<Line, Error> {
        let (line, words) = mpsc::unbounded_channel();
        let host = self.ask(|server| {
            server.line = Some(line);
            server.connections += 1;
            server.host
        });
        Ok(Line { wire: self.clone(), host, words })
    }
}

impl Session for Line {
    fn host(&self) -> &str {
        self.host
    }

    fn set_interest(&mut self, interest: &Interest, tag: u64) {
        let is_held = self.wire.ask(|server| {
            server.interest = interest.clone();
            server.held.as_mut().map(|held| held.push(tag)).is_some()
        });
        if !is_held {
            self.wire.say(move |batch| batch.interest_done(tag, &[]));
        }
    }

    fn request_list(&mut self, tag: u64) {
        self.wire.ask(|server| server.lists.push(tag));
    }

    fn request_state(&mut self, _: &Domain, tag: u64) -> bool {
        self.wire.ask(|server| server.looks.as_mut().map(|looks| looks.push(tag)).is_some())
    }

    fn is_ordered(&self) -> bool {
        self.wire.server(|server| server.is_ordered)
    }

    fn ping(&mut self) -> bool {
        let is_answered = self.wire.server(|server| {
            server.pings += 1;
            server.answers_pings
        });
        if is_answered {
            self.wire.say(|_| {});
        }
        true
    }

    async fn advance(&mut self, out: &mut Batch) -> Result<(), Error> {
        let closed = Error::closed("wire", "");
        self.words.recv().await.ok_or(closed)?(out);
        Ok(())
    }
}

const RUNNING: State = State::Running(RunningReason::Booted);
const OFF: State = State::Shutoff(ShutoffReason::Shutdown);
const STARTED: Change = Change::Started(StartCause::Booted);
const SUSPENDED: Change = Change::Suspended(SuspendCause::Paused);
const STOPPED: Change = Change::Stopped(StopCause::Destroyed);

fn web(id: Option<u32>) -> Domain {
    Domain::new("wire:", "h", Uuid::from_u128(1), "web", id)
}

fn running(id: u32) -> Listed {
    Listed::new(web(Some(id)), RUNNING, Some(true))
}

fn fault() -> Fault {
    Fault::new(FaultKind::Closed, "gone")
}

async fn subscribe(wire: &Wire, source: &Driver, list: &[Listed]) -> virevent::EventStream {
    subscribe_with(wire, source, Options::default(), list).await
}

async fn subscribe_with(
    wire: &Wire,
    source: &Driver,
    options: Options,
    list: &[Listed],
) -> virevent::EventStream {
    let (events, ()) = tokio::join!(source.subscribe_with(options), wire.list(list));
    let mut events = events.unwrap();
    until_synced(&mut events).await.unwrap();
    events
}

#[tokio::test(start_paused = true)]
async fn one_list_is_requested_at_a_time_and_old_ones_dropped() {
    let (wire, source) = Wire::new();
    for _ in 0..3 {
        assert!(tokio::time::timeout(secs(1), source.subscribe()).await.is_err());
        assert_eq!(wire.server(|server| server.lists.len()), 1);
    }
    let answers = async {
        wire.list(&[running(3)]).await; // to the first, that is over
        wire.list(&[running(4)]).await;
    };
    let (events, ()) = tokio::join!(source.subscribe(), answers);
    delivered(&mut events.unwrap(), &["web[4] existing *", "synced with *"]).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_has_the_time_of_its_receipt() {
    let (wire, source) = Wire::new();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    let _later = source.subscribe().await.unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let before = SystemTime::now();
    wire.event(Some(3), SUSPENDED);
    let event = next_within(&mut events, secs(1)).await.unwrap();
    assert!(event.lifecycle().unwrap().at >= before);
}

#[tokio::test(start_paused = true)]
async fn held_events_beyond_the_bound_are_counted_exactly() {
    const REBOOTS: u64 = 70_000;
    let (wire, source) = Wire::new();
    let mut small = subscribe(&wire, &source, &[running(3)]).await;
    let large = Options::default().capacity(200_000);
    let mut large = source.subscribe_with(large).await.unwrap();
    until_synced(&mut large).await.unwrap();
    wire.hang_up();
    delivered(&mut small, &["disconnected from *"]).await;
    delivered(&mut large, &["disconnected from *"]).await;
    wire.asked_to_list().await;
    wire.say(|batch| {
        let reboot = Reboot::new(web(Some(3)), SystemTime::UNIX_EPOCH);
        (0..REBOOTS).for_each(|_| batch.event(reboot.clone()));
    });
    wire.list(&[running(3)]).await;
    for events in [&mut small, &mut large] {
        let mut missed = 0;
        let mut came = 0;
        while let Ok(event) = next_within(events, secs(1)).await {
            match event {
                DomainEvent::Gap(gap) => match gap.kind {
                    virevent::GapKind::Lagged { missed: n, .. } => missed += n,
                    other => panic!("{other:?}"),
                },
                event => came += u64::from(event.is_happening()),
            }
        }
        assert_eq!(missed + came, REBOOTS);
    }
}

#[tokio::test(start_paused = true)]
async fn a_level_before_the_list_is_delivered_once() {
    let (wire, source) = Wire::new();
    let mut first = subscribe(&wire, &source, &[]).await;
    wire.hang_up();
    delivered(&mut first, &["disconnected from *"]).await;
    let mut second = source.subscribe().await.unwrap();
    wire.asked_to_list().await;
    wire.say(|batch| batch.state(web(Some(7)), RUNNING));
    wire.list(&[]).await;
    delivered(&mut first, &["web[7] started (booted)", "synced with wire: (1 domain)"]).await;
    delivered(&mut second, &["disconnected from *", "web[7] started (booted)", "synced with *"])
        .await;
}

#[tokio::test(start_paused = true)]
async fn two_runs_that_end_before_a_list_leave_no_ghost() {
    let (wire, source) = Wire::new();
    let subscribing = tokio::spawn({
        let source = source.clone();
        async move { source.subscribe().await.unwrap() }
    });
    wire.asked_to_list().await;
    let transient = Listed::new(web(Some(7)), RUNNING, Some(false));
    wire.say(|batch| batch.gone(&web(Some(7)), StopCause::Shutdown));
    wire.say(|batch| batch.state(web(Some(8)), RUNNING));
    wire.say(|batch| batch.gone(&web(Some(8)), StopCause::Shutdown));
    wire.list(&[transient]).await;
    delivered(&mut subscribing.await.unwrap(), &["synced with wire: (0 domains)"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_transient_domain_leaves_no_level_ghost() {
    let (wire, source) = Wire::new();
    let mut events = subscribe(&wire, &source, &[]).await;
    wire.say(|batch| batch.state(web(Some(7)), RUNNING));
    wire.say(|batch| batch.state(web(None), OFF));
    delivered(&mut events, &["web[7] started (booted)", "web[7] stopped (shutdown)"]).await;
    nothing_within(&mut events, secs(1)).await.unwrap();
    delivered(&mut source.subscribe().await.unwrap(), &["synced with wire: (0 domains)"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_renamed_host_keeps_the_name_that_is_known() {
    let (wire, source) = Wire::new();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    wire.server(|server| server.host = "renamed");
    wire.hang_up();
    wire.asked_to_list().await;
    let tag = wire.server(|server| server.lists.remove(0));
    wire.say(move |batch| {
        let web = batch.domain(web(None).uuid(), "web", Some(3));
        batch.listed(tag, vec![Listed::new(web, RUNNING, Some(true))]);
    });
    delivered(&mut events, &["disconnected from *", "synced with *"]).await;
    wire.event(Some(3), SUSPENDED);
    assert_eq!(events.next().await.unwrap().domain().unwrap().host(), "h");
}

#[tokio::test(start_paused = true)]
async fn after_a_suspend_the_driver_reads_before_a_timeout() {
    let (wire, source) = Wire::new();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    tokio::time::sleep(secs(29)).await;
    wire.event(Some(3), SUSPENDED);
    tokio::time::advance(secs(60)).await;
    delivered(&mut events, &["web[3] suspended (paused)"]).await;
    nothing_within(&mut events, secs(29)).await.unwrap();
    delivered(&mut events, &["disconnected from *no answer to a keepalive within 30s*"]).await;
}

#[tokio::test(start_paused = true)]
async fn endless_events_do_not_extend_a_call_without_answer() {
    let (wire, source) = Wire::new();
    let flood = async {
        wire.asked_to_list().await;
        for _ in 0..15 {
            (0..100).for_each(|_| wire.event(Some(3), SUSPENDED));
            tokio::time::advance(secs(1)).await;
        }
    };
    let error = tokio::select! {
        outcome = source.subscribe() => outcome.unwrap_err(),
        () = flood => panic!("it still waits"),
    };
    assert!(matches!(error, Error::Timeout { call: "the list of domains", .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_endless_timeout_does_not_panic() {
    let (wire, builder) = Wire::builder();
    let builder = builder.call_timeout(Duration::MAX).idle_timeout(Duration::MAX);
    let builder = builder.connect_timeout(Duration::MAX).keepalive(Some(Duration::MAX), 3);
    let source = builder.build();
    let events = subscribe(&wire, &source, &[running(3)]).await;
    events.close().await;
    tokio::time::sleep(secs(1_000_000)).await;
    assert_eq!(source.health().status(), Status::Idle);
    subscribe(&wire, &source, &[running(3)]).await;
}

#[tokio::test(start_paused = true)]
async fn events_before_a_lost_connection_precede_the_gap() {
    let (wire, source) = Wire::new();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    wire.event(None, STOPPED);
    wire.event(Some(4), STARTED);
    wire.hang_up();
    delivered(&mut events, &["web[3] stopped *", "web[4] started *", "disconnected from *"]).await;
}
