//! The whole way from a store to a stream, without a socket and on paused time, in whatever order the
//! test wants requests served and packets read.

mod random;
mod store;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use virevent::driver::{self, Batch, Connect, Driver, Interest};
use virevent::{DomainEvent, Error, EventSource, EventStream, Kind, Kinds, Options};

use self::store::Store;
use super::{LIMIT, Observer, Past};
use crate::wire::Decoder;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A store, and how it and its client take turns.
#[derive(Clone, Debug, Default)]
struct Rig {
    store: Arc<Mutex<Store>>,
    changed: Arc<Notify>,
    past: Arc<Mutex<Past>>,
    /// Decides whose turn it is; without it all is served at once and read at once.
    random: Option<Arc<Mutex<fastrand::Rng>>>,
    with_dom0: bool,
    is_device: bool,
}

impl Rig {
    /// Does something to the store.
    fn act<T>(&self, act: impl FnOnce(&mut Store) -> T) -> T {
        let done = act(&mut self.store.lock().unwrap());
        self.changed.notify_one();
        done
    }

    /// Has so many domains run as if they had always been there.
    fn fill(&self, domains: u16) {
        self.act(|store| {
            store.nodes.insert("/local/domain".into(), Vec::new());
            for domid in 1..=domains {
                let home = format!("/local/domain/{domid}");
                let vm = format!("/vm/{}", virevent::Uuid::from_u128(domid.into()));
                store.nodes.insert(format!("{home}/vm"), vm.into());
                store.nodes.insert(format!("{home}/name"), format!("vm{domid}").into());
                store.nodes.insert(home, Vec::new());
                store.introduced.insert(domid);
            }
        });
    }

    fn source(&self) -> Driver {
        Driver::builder(self.clone()).build()
    }

    async fn events(&self) -> EventStream {
        let options = Options::default().kind(Kind::Lifecycle).kind(Kind::Other).capacity(100_000);
        self.source().subscribe_with(options).await.unwrap()
    }

    /// A stream that has told what there is.
    async fn synced(&self) -> Told {
        let mut told = Told(self.events().await);
        let lines = told.lines().await;
        assert!(lines.last().unwrap().starts_with("synced"), "{lines:?}");
        told
    }
}

struct Told(EventStream);

impl Told {
    /// All that is told until nothing more comes, in far less than a second.
    async fn lines(&mut self) -> Vec<String> {
        self.within(Duration::from_millis(50)).await
    }

    /// All that is told until nothing more comes for so long.
    async fn within(&mut self, time: Duration) -> Vec<String> {
        self.events(time).await.iter().map(ToString::to_string).collect()
    }

    async fn events(&mut self, time: Duration) -> Vec<DomainEvent> {
        use futures::StreamExt;
        let mut events = Vec::new();
        while let Ok(event) = tokio::time::timeout(time, self.0.next()).await {
            events.push(event.unwrap());
        }
        events
    }
}

impl Connect for Rig {
    type Session = Session;

    fn uri(&self) -> &str {
        "xenstore:"
    }

    fn kinds(&self) -> Kinds {
        [Kind::Lifecycle].into_iter().collect()
    }

    async fn connect(&self) -> Result<Session, Error> {
        let past = std::mem::take(&mut *self.past.lock().unwrap());
        let observer = Observer::new("h".into(), self.with_dom0, self.is_device, past);
        Ok(Session { rig: self.clone(), observer, decoder: Decoder::new() })
    }
}

struct Session {
    rig: Rig,
    observer: Observer,
    decoder: Decoder,
}

impl Session {
    /// Lets the store serve and the client read, one of each at a time or all there is.
    fn turn(&mut self) -> (bool, Option<usize>) {
        let mut store = self.rig.store.lock().unwrap();
        let unwritten = self.observer.client.unwritten();
        let bytes = unwritten.len();
        store.take(unwritten);
        self.observer.client.wrote(bytes);
        let Some(random) = &self.rig.random else {
            while store.serve() {}
            let mut read = 0;
            while let Some(bytes) = store.give() {
                read += bytes.len();
                assert_eq!(self.decoder.push(&bytes), bytes.len());
                if read > 30_000 {
                    break;
                }
            }
            return (bytes > 0, Some(read).filter(|read| *read > 0));
        };
        let mut random = random.lock().unwrap();
        let served = random.bool() && store.serve();
        if random.bool() {
            store.overtake();
        }
        let bytes = if random.bool() { store.give() } else { None };
        let is_busy = served || !store.inbox.is_empty() || !store.outbox.is_empty();
        (is_busy, bytes.map(|bytes| self.decoder.push(&bytes)))
    }
}

impl driver::Session for Session {
    fn host(&self) -> &str {
        "h"
    }

    fn set_interest(&mut self, interest: &Interest, tag: u64) {
        self.observer.set_interest(interest, tag);
    }

    fn request_list(&mut self, tag: u64) {
        self.observer.request_list(tag);
    }

    async fn advance(&mut self, out: &mut Batch) -> Result<(), Error> {
        loop {
            let now = Instant::now();
            self.observer.pump(now, out);
            if self.observer.take_told() {
                return Ok(());
            }
            match self.turn() {
                (_, Some(_)) => {
                    while let Some(packet) = self.decoder.next_packet().unwrap() {
                        self.observer.receive(&packet, now, out)?;
                    }
                    self.observer.pump(now, out);
                    self.observer.take_told();
                    return Ok(());
                }
                (true, None) => tokio::task::yield_now().await,
                (false, None) => {
                    let at = self.observer.deadline(TIMEOUT).unwrap_or(now + TIMEOUT);
                    tokio::select! {
                        () = self.rig.changed.notified() => {}
                        () = tokio::time::sleep_until(at) => {
                            self.observer.ring(Instant::now(), TIMEOUT)?;
                        }
                    }
                }
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        *self.rig.past.lock().unwrap() = self.observer.take_past();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_there_is_told_first_and_then_what_changes() {
    let rig = Rig::default();
    rig.act(|store| store.start(3, 3, "web"));
    rig.act(|store| store.write_down(4, 4, "being-built"));
    let mut told = Told(rig.events().await);
    assert_eq!(
        told.lines().await,
        ["web[3] existing (running)", "synced with xenstore: (1 domain)"]
    );
    rig.act(|store| store.introduce(4));
    assert_eq!(told.lines().await, ["being-built[4] started"]);
    rig.act(|store| store.destroy(3));
    assert_eq!(told.lines().await, ["web[3] stopped"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_half_written_when_the_stream_begins_is_told_as_started_once_it_is_whole() {
    let rig = Rig::default();
    rig.act(|store| {
        store.start(3, 3, "web");
        store.request(3, "poweroff");
        store.write("/local/domain/4/name", "half");
        store.introduce(4);
    });
    let mut told = Told(rig.events().await);
    let existing = ["web[3] existing (shutting_down (user))", "synced with xenstore: (1 domain)"];
    assert_eq!(told.lines().await, existing);
    rig.act(|store| store.write("/local/domain/4/vm", "/vm/00000000-0000-0000-0000-000000000004"));
    assert_eq!(told.lines().await, ["half[4] started"]);
    rig.act(|store| store.destroy(3));
    assert_eq!(told.lines().await, ["web[3] stopped (shutdown)"]);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_another_domain_has_got_is_a_stop_and_a_start_and_no_rename() {
    let rig = Rig::default();
    rig.act(|store| store.start(3, 3, "web"));
    let mut told = rig.synced().await;
    rig.act(|store| store.write_down(3, 4, "db"));
    assert_eq!(told.lines().await, ["web[3] stopped", "db[3] started"]);
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_written_anew_long_after_it_went_is_found_although_nothing_is_introduced() {
    let rig = Rig::default();
    rig.act(|store| store.start(3, 3, "web"));
    let mut told = rig.synced().await;
    assert!(told.within(Duration::from_secs(10)).await.is_empty());
    rig.act(|store| store.remove("/local/domain/3"));
    assert_eq!(told.lines().await, ["web[3] stopped"]);
    assert!(told.within(Duration::from_secs(10)).await.is_empty());
    rig.act(|store| store.write_down(3, 4, "db"));
    assert_eq!(told.within(Duration::from_secs(20)).await, ["db[3] started"]);
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_came_and_went_between_two_looks_is_told_as_a_new_run() {
    let rig = Rig::default();
    rig.act(|store| store.start(3, 1, "web"));
    let mut told = rig.synced().await;
    rig.act(|store| {
        store.destroy(3);
        store.start(4, 1, "web");
    });
    assert_eq!(told.lines().await, ["web[3] stopped", "web[4] started"]);
    rig.act(|store| {
        store.start(5, 5, "unseen");
        store.destroy(5);
    });
    assert!(told.lines().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_partly_written_domain_is_told_once_it_is_whole() {
    let rig = Rig::default();
    let mut told = rig.synced().await;
    rig.act(|store| {
        store.write("/local/domain/3/domid", "3");
        store.introduce(3);
    });
    assert!(told.lines().await.is_empty());
    rig.act(|store| store.write("/local/domain/3/name", "web"));
    assert!(told.lines().await.is_empty());
    rig.act(|store| store.write("/local/domain/3/vm", "/vm/00000000-0000-0000-0000-000000000007"));
    assert_eq!(told.lines().await, ["web[3] started"]);
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_nobody_completes_is_told_after_5_s_and_not_before() {
    let rig = Rig::default();
    let mut told = rig.synced().await;
    rig.act(|store| {
        store.write("/local/domain/3/domid", "3");
        store.introduce(3);
    });
    assert!(told.within(LIMIT - Duration::from_millis(100)).await.is_empty());
    assert_eq!(told.lines().await.len(), 0);
    assert_eq!(told.within(Duration::from_secs(1)).await, ["Domain-3[3] started"]);
    rig.act(|store| store.write("/local/domain/3/name", "web"));
    let renamed = ["Domain-3[3] undefined (renamed)", "web[3] defined (renamed)"];
    assert_eq!(told.lines().await, renamed);
    rig.act(|store| store.write("/local/domain/3/vm", "/vm/00000000-0000-0000-0000-000000000007"));
    assert_eq!(told.lines().await, ["web[3] stopped", "web[3] started"]);
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_gets_its_place_only_after_it_was_introduced_is_found() {
    let rig = Rig::default();
    let mut told = rig.synced().await;
    rig.act(|store| store.introduce(3));
    assert!(told.within(Duration::from_secs(1)).await.is_empty());
    rig.act(|store| store.write_down(3, 3, "web"));
    assert_eq!(told.within(Duration::from_secs(3)).await, ["web[3] started"]);
}

#[tokio::test(start_paused = true)]
async fn a_place_is_looked_for_until_5_s_after_an_introduction_however_it_is_made() {
    for has_depth in [false, true] {
        let rig = Rig::default();
        rig.act(|store| store.has_depth = has_depth);
        let mut told = rig.synced().await;
        rig.act(|store| store.introduce(3));
        assert!(told.within(LIMIT - Duration::from_millis(100)).await.is_empty());
        // What is written into a place makes the place, and that fires no watch of the place itself.
        rig.act(|store| {
            store.write("/local/domain/3/vm", "/vm/00000000-0000-0000-0000-000000000007");
            store.write("/local/domain/3/name", "web");
        });
        assert_eq!(told.within(Duration::from_secs(600)).await, ["web[3] started"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_told_with_its_word_and_decides_what_the_stop_is() {
    let rig = Rig::default();
    let mut told = rig.synced().await;
    for (domid, word) in ["poweroff", "reboot", "halt", "suspend", "crash"].iter().enumerate() {
        let domid = domid as u16 + 1;
        rig.act(|store| store.start(domid, 9, "web"));
        assert_eq!(told.lines().await, [format!("web[{domid}] started")]);
        rig.act(|store| store.request(domid, word));
        let event = format!("web[{domid}] event control/shutdown {{\"request\":\"{word}\"}}");
        assert_eq!(told.lines().await, [format!("web[{domid}] shutting_down (host)"), event]);
        rig.act(|store| store.request(domid, ""));
        assert!(told.lines().await.is_empty(), "an answer is no event");
        rig.act(|store| store.destroy(domid));
        assert_eq!(told.lines().await, [format!("web[{domid}] stopped (shutdown)")]);
    }
    rig.act(|store| store.start(9, 9, "web"));
    rig.act(|store| store.request(9, "dance"));
    let event = "web[9] event control/shutdown {\"request\":\"dance\"}";
    assert_eq!(told.lines().await, ["web[9] started", event]);
    rig.act(|store| store.destroy(9));
    assert_eq!(told.lines().await, ["web[9] stopped"]);
}

#[tokio::test(start_paused = true)]
async fn a_request_does_not_wait_for_all_domains_to_be_asked_whether_they_are_there() {
    let rig = Rig::default();
    for domid in 1..=400 {
        rig.act(|store| store.start(domid, domid.into(), "web"));
    }
    let mut told = rig.synced().await;
    rig.act(|store| {
        store.asked.clear();
        // The guest takes note of it while the last is not asked.
        store.script = [(100, 399, "poweroff"), (300, 399, "")].into();
        store.shut_down(1);
    });
    assert_eq!(told.lines().await.first().unwrap(), "web[399] shutting_down (host)");
}

#[tokio::test(start_paused = true)]
async fn a_domain_without_a_place_may_be_the_one_that_shut_down() {
    let rig = Rig::default();
    rig.act(|store| store.start(3, 3, "web"));
    let mut told = rig.synced().await;
    rig.act(|store| store.request(3, "poweroff"));
    rig.act(|store| store.introduce(7));
    assert_eq!(told.within(Duration::from_secs(20)).await.len(), 2);
    rig.act(|store| store.shut_down(7));
    rig.act(|store| store.release(7));
    assert!(told.within(Duration::from_secs(20)).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn each_request_to_shut_down_is_finished_anew() {
    let rig = Rig::default();
    rig.act(|store| store.start(3, 3, "web"));
    let mut told = rig.synced().await;
    for word in ["suspend", "poweroff"] {
        rig.act(|store| store.request(3, word));
        assert_eq!(told.lines().await.len(), 2);
        rig.act(|store| store.request(3, ""));
        rig.act(|store| store.shut_down(3));
        assert_eq!(told.lines().await, ["web[3] shutting_down (finished)"]);
    }
}

#[tokio::test(start_paused = true)]
async fn without_asking_for_them_no_words_come_and_a_reboot_cannot_be_asked_for() {
    let rig = Rig::default();
    rig.act(|store| store.start(3, 3, "web"));
    let source = rig.source();
    let mut told = Told(source.subscribe_with(Options::default()).await.unwrap());
    told.lines().await;
    rig.act(|store| store.request(3, "halt"));
    assert_eq!(told.lines().await, ["web[3] shutting_down (host)"]);
    for kind in ["reboot", "other:control/shutdow", "other:7"] {
        let options = Options::default().kind(kind.parse().unwrap());
        let error = source.subscribe_with(options).await.unwrap_err();
        assert!(error.to_string().contains(kind), "{error}");
    }
    let options = Options::default().kind("other:control/shutdown".parse().unwrap());
    let mut told = Told(source.subscribe_with(options).await.unwrap());
    told.lines().await;
    rig.act(|store| store.request(3, "poweroff"));
    let event = "web[3] event control/shutdown {\"request\":\"poweroff\"}";
    assert_eq!(told.lines().await, [event]);
}

#[tokio::test(start_paused = true)]
async fn what_shut_down_is_told_where_the_only_one_was_asked_to_or_the_daemon_names_it() {
    for has_depth in [false, true] {
        let rig = Rig::default();
        rig.act(|store| store.has_depth = has_depth);
        rig.act(|store| store.start(3, 3, "web"));
        rig.act(|store| store.start(4, 4, "db"));
        let mut told = rig.synced().await;
        rig.act(|store| store.shut_down(3));
        let named: &[&str] = if has_depth { &["web[3] shutting_down (finished)"] } else { &[] };
        assert_eq!(told.lines().await, named);
        rig.act(|store| store.remove("/local/domain/3"));
        assert_eq!(told.lines().await, ["web[3] stopped"]);
        // The event of the one's end is not taken for the other's.
        rig.act(|store| store.release(3));
        assert!(told.lines().await.is_empty());
        rig.act(|store| store.request(4, "halt"));
        assert_eq!(told.lines().await.len(), 2);
        rig.act(|store| store.shut_down(4));
        assert_eq!(told.lines().await, ["db[4] shutting_down (finished)"]);
        rig.act(|store| store.shut_down(4));
        assert!(told.lines().await.is_empty(), "once is enough");
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_of_nobody_says_nothing_of_the_only_domain_if_nobody_asked_it_to_shut_down() {
    let rig = Rig::default();
    rig.act(|store| store.start(3, 3, "web"));
    let source = rig.source();
    let mut told = Told(source.subscribe_with(Options::default()).await.unwrap());
    told.lines().await;
    for _ in 0..3 {
        rig.act(Store::release_of_nobody);
        assert!(told.within(Duration::from_secs(6)).await.is_empty());
    }
    let mut later = Told(source.subscribe_with(Options::default()).await.unwrap());
    assert_eq!(later.lines().await[0], "web[3] existing (running)");
    // With a word that is no request to end it is the same.
    rig.act(|store| store.request(3, "dance"));
    rig.act(Store::release_of_nobody);
    assert!(told.within(Duration::from_secs(6)).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_migration_within_the_host_is_told_as_where_it_went_to() {
    let rig = Rig::default();
    rig.act(|store| store.start(3, 1, "web"));
    let mut told = rig.synced().await;
    rig.act(|store| store.start(4, 1, "web--incoming"));
    // As one look finds it, they change places.
    let lines = told.lines().await;
    assert!(lines.contains(&"web[3] stopped".into()), "{lines:?}");
    assert_eq!(lines.last().unwrap(), "web--incoming[4] started");
    // It fails, and the domain runs on where it was.
    rig.act(|store| store.destroy(4));
    assert_eq!(told.lines().await, ["web--incoming[4] stopped", "web[3] started"]);
    rig.act(|store| store.destroy(3));
    assert_eq!(told.lines().await, ["web[3] stopped"]);
}

#[tokio::test(start_paused = true)]
async fn spurious_events_and_the_same_value_again_are_no_events() {
    let rig = Rig::default();
    rig.act(|store| store.start(3, 3, "web"));
    let mut told = rig.synced().await;
    rig.act(|store| {
        for path in ["vm", "name", "control/shutdown"] {
            let path = format!("/local/domain/3/{path}");
            let value = String::from_utf8(store.nodes[&path].clone()).unwrap();
            store.write(&path, &value);
        }
        store.special_events();
    });
    assert!(told.within(Duration::from_secs(6)).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn domain_0_is_told_with_the_nil_uuid_where_it_is_asked_for() {
    let rig = Rig { with_dom0: true, ..Rig::default() };
    let mut told = Told(rig.events().await);
    let events = told.events(Duration::from_millis(50)).await;
    assert_eq!(events[0].to_string(), "Domain-0[0] existing (running)");
    assert!(events[0].domain().unwrap().uuid().is_nil());
    rig.act(|store| store.write("/local/domain/0/name", "Domain-zero"));
    assert_eq!(told.lines().await.len(), 2);
    // A guest that has the same is one without: it is told with one that is derived.
    rig.act(|store| store.start(3, 0, "nil"));
    assert_eq!(told.within(Duration::from_secs(8)).await, ["nil[3] started"]);
}

#[tokio::test(start_paused = true)]
async fn of_10_000_domains_all_are_listed_and_their_watches_dropped() {
    let rig = Rig::default();
    rig.fill(10_000);
    let mut told = Told(rig.events().await);
    assert_eq!(told.lines().await.len(), 10_001);
    assert_eq!(rig.act(|store| store.watches.len()), 30_002);
    told.0.close().await;
    assert!(rig.act(|store| store.watches.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_device_is_asked_one_thing_at_a_time_and_its_watches_are_dropped_one_by_one() {
    let rig = Rig { is_device: true, ..Rig::default() };
    rig.act(|store| store.start(3, 3, "web"));
    let mut told = rig.synced().await;
    rig.act(|store| store.start(4, 4, "db"));
    assert_eq!(told.lines().await, ["db[4] started"]);
    told.0.close().await;
    assert!(rig.act(|store| store.watches.is_empty()));
    assert!(!rig.act(|store| store.asked.contains(&crate::wire::Operation::RESET_WATCHES)));
}

#[tokio::test(start_paused = true)]
async fn dropping_watches_one_by_one_takes_no_longer_for_each_the_more_there_are() {
    let rig = Rig { is_device: true, ..Rig::default() };
    rig.fill(4_000);
    let mut told = Told(rig.events().await);
    assert_eq!(told.lines().await.len(), 4_001);
    let begun = std::time::Instant::now();
    told.0.close().await;
    assert!(rig.act(|store| store.watches.is_empty()));
    // A tenth of a second, where a look at all domains for each watch takes more than ten.
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}
