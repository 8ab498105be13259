//! A real xenstored, and a toolstack that keeps it busy.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use virevent::driver::Driver;
use virevent::{Change, DomainEvent, EventSource, EventStream, Kind, Options, Origin, Uuid};
use virevent_testkit::assert::{Fold, next_within, nothing_within, until_synced};
use virevent_testkit::servers::{Store, Xenstored};
use virevent_testkit::xen::{Blueprint, Power, RunState};
use virevent_xen::XenStore;

fn client(daemon: &Xenstored) -> Driver {
    XenStore::new(&daemon.uri()).unwrap().source()
}

/// All that a store can tell, in lines.
struct Told {
    events: EventStream,
    fold: Fold,
    names: BTreeMap<Uuid, String>,
    all: Vec<DomainEvent>,
}

impl Told {
    async fn by(source: &dyn EventSource) -> Self {
        let options = Options::default().kind(Kind::Lifecycle).kind(Kind::Other).capacity(65_536);
        let events = source.subscribe_with(options).await.unwrap();
        let (fold, names) = (Fold::default(), BTreeMap::new());
        let mut told = Self { events, fold, names, all: Vec::new() };
        for event in until_synced(&mut told.events).await.unwrap() {
            told.take(&event);
        }
        told
    }

    fn take(&mut self, event: &DomainEvent) {
        self.fold.apply(event);
        if let Some(domain) = event.domain() {
            self.names.insert(domain.uuid(), domain.name().into());
        }
    }

    async fn next(&mut self) -> String {
        let event = next_within(&mut self.events, Duration::from_secs(10)).await;
        let event = event.unwrap_or_else(|error| panic!("{error}; so far {:?}", self.all.last()));
        self.take(&event);
        self.all.push(event.clone());
        event.to_string()
    }

    /// These come next, in this order.
    async fn expect(&mut self, lines: &[&str]) {
        for line in lines {
            assert_eq!(self.next().await, *line);
        }
    }

    /// Reads on until so many events of this sort have come, counted from the first.
    async fn until(&mut self, count: usize, of: impl Fn(&DomainEvent) -> bool) {
        while self.all.iter().filter(|event| of(event)).count() < count {
            self.next().await;
        }
    }

    async fn nothing(&mut self) {
        nothing_within(&mut self.events, Duration::from_millis(150)).await.unwrap();
    }

    /// What is believed is what the daemon says.
    fn check(&self, daemon: &Xenstored) {
        let mut believed: Vec<_> = self
            .fold
            .active()
            .iter()
            .map(|(uuid, run)| (run.domain.id(), Some(*uuid), self.names.get(uuid).cloned()))
            .collect();
        let known = daemon.toolstack().domains().unwrap();
        let mut known: Vec<_> = known
            .into_iter()
            .filter(|known| known.introduced)
            .map(|known| (Some(known.domid), known.uuid, known.name))
            .collect();
        believed.sort();
        known.sort();
        assert_eq!(believed, known);
    }
}

fn started(event: &DomainEvent) -> bool {
    matches!(event.change(), Some(Change::Started(_)))
}

fn stopped(event: &DomainEvent) -> bool {
    matches!(event.change(), Some(Change::Stopped(_)))
}

fn asked(event: &DomainEvent) -> bool {
    matches!(event, DomainEvent::Other(_))
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn a_domain_is_told_from_its_start_to_its_end() {
    let daemon = Xenstored::start().await.unwrap();
    let mut told = Told::by(&client(&daemon)).await;
    let xl = daemon.toolstack();
    let web = xl.introduce("web").unwrap();
    told.expect(&["web[1] started"]).await;
    xl.rename(web, "www").unwrap();
    told.expect(&["web[1] undefined (renamed)", "www[1] defined (renamed)"]).await;
    xl.request(web, Power::PowerOff).unwrap();
    told.expect(&["www[1] shutting_down (host)"]).await;
    told.expect(&["www[1] event control/shutdown {\"request\":\"poweroff\"}"]).await;
    xl.acknowledge(web).unwrap();
    xl.shut_down(web).unwrap();
    told.expect(&["www[1] shutting_down (finished)"]).await;
    xl.destroy(web).unwrap();
    told.expect(&["www[1] stopped (shutdown)"]).await;
    told.nothing().await;
    told.check(&daemon);
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn a_reboot_is_a_stop_and_a_start_under_another_id() {
    let daemon = Xenstored::start().await.unwrap();
    let mut told = Told::by(&client(&daemon)).await;
    let xl = daemon.toolstack();
    let web = xl.introduce("web").unwrap();
    told.expect(&["web[1] started"]).await;
    xl.reboot(web).unwrap();
    // The guest took note at once: whether the request was seen is a matter of luck.
    told.until(1, stopped).await;
    told.expect(&["web[2] started"]).await;
    told.nothing().await;
    told.check(&daemon);
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn an_id_that_another_domain_has_got_is_a_stop_and_a_start_and_no_rename() {
    let daemon = Xenstored::start().await.unwrap();
    let mut told = Told::by(&client(&daemon)).await;
    let xl = daemon.toolstack();
    let web = xl.introduce("web").unwrap();
    told.expect(&["web[1] started"]).await;
    xl.reuse(web, "db").unwrap();
    told.expect(&["web[1] stopped", "db[1] started"]).await;
    told.nothing().await;
    told.check(&daemon);
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn a_partly_written_domain_is_told_once_it_is_whole() {
    let daemon = Xenstored::start().await.unwrap();
    let mut told = Told::by(&client(&daemon)).await;
    let xl = daemon.toolstack();
    let web = xl.introduce(Blueprint::named("web").without_name().without_vm()).unwrap();
    told.nothing().await;
    xl.complete(web).unwrap();
    told.expect(&["web[1] started"]).await;
    // And one that is introduced before there is anything of it.
    xl.forget(web).unwrap();
    told.expect(&["web[1] stopped"]).await;
    xl.set_run_state(7, Some(RunState::Running)).unwrap();
    xl.announce(7).unwrap();
    xl.remove("/local/domain/7").unwrap();
    told.nothing().await;
    xl.prepare(Blueprint::named("late").domid(7)).unwrap();
    told.expect(&["late[7] started"]).await;
    told.nothing().await;
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn a_domain_that_nobody_completes_is_told_after_5_s_with_what_is_known() {
    let daemon = Xenstored::start().await.unwrap();
    let mut told = Told::by(&client(&daemon)).await;
    daemon.toolstack().introduce(Blueprint::named("web").without_name().without_vm()).unwrap();
    let begun = std::time::Instant::now();
    told.expect(&["Domain-1[1] started"]).await;
    let waited = begun.elapsed();
    assert!((4_500..7_000).contains(&waited.as_millis()), "{waited:?}");
    daemon.toolstack().complete(1).unwrap();
    told.expect(&["Domain-1[1] stopped", "web[1] started"]).await;
    told.check(&daemon);
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn what_shut_down_is_told_where_there_is_only_one_that_it_can_be() {
    let daemon = Xenstored::start().await.unwrap();
    let mut told = Told::by(&client(&daemon)).await;
    let xl = daemon.toolstack();
    let (web, db) = (xl.introduce("web").unwrap(), xl.introduce("db").unwrap());
    told.until(2, started).await;
    xl.crash(web).unwrap();
    told.nothing().await;
    // The event of the one's end is not taken for the other's.
    xl.destroy(web).unwrap();
    told.expect(&["web[1] stopped"]).await;
    told.nothing().await;
    xl.crash(db).unwrap();
    told.expect(&["db[2] shutting_down (finished)"]).await;
    xl.destroy(db).unwrap();
    told.expect(&["db[2] stopped"]).await;
    told.nothing().await;
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn domain_0_is_told_where_it_is_asked_for() {
    let daemon = Xenstored::start().await.unwrap();
    let source = XenStore::new(&format!("{}?dom0=1", daemon.uri())).unwrap().source();
    let told = Told::by(&source).await;
    let dom0 = &told.fold.active()[&Uuid::nil()];
    assert_eq!(dom0.domain.to_string(), "Domain-0[0]");
    let told = Told::by(&client(&daemon)).await;
    assert!(told.fold.active().is_empty());
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn a_daemon_that_was_killed_and_kept_its_store_has_changed_nothing() {
    let mut daemon = Xenstored::start().await.unwrap();
    let mut told = Told::by(&client(&daemon)).await;
    let web = daemon.toolstack().introduce("web").unwrap();
    daemon.toolstack().introduce("db").unwrap();
    told.until(2, started).await;
    daemon.toolstack().request(web, Power::PowerOff).unwrap();
    told.until(1, asked).await;
    daemon.toolstack().acknowledge(web).unwrap();
    daemon.kill9().await.unwrap();
    assert!(told.next().await.starts_with("lost sight of "));
    daemon.start_again(Store::Kept).await.unwrap();
    assert!(told.next().await.starts_with("synced with "));
    told.nothing().await;
    told.check(&daemon);
    // It was asked before, which the store does not tell any more.
    daemon.toolstack().destroy(web).unwrap();
    told.expect(&["web[1] stopped (shutdown)"]).await;
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn a_daemon_that_lost_its_store_has_no_domains() {
    let mut daemon = Xenstored::start().await.unwrap();
    daemon.toolstack().introduce("web").unwrap();
    let mut told = Told::by(&client(&daemon)).await;
    daemon.kill9().await.unwrap();
    assert!(told.next().await.starts_with("lost sight of "));
    told.nothing().await;
    daemon.start_again(Store::Lost).await.unwrap();
    told.expect(&["web[1] stopped [inferred]"]).await;
    assert!(told.next().await.starts_with("synced with "));
    daemon.toolstack().introduce("db").unwrap();
    told.expect(&["db[2] started"]).await;
    told.check(&daemon);
    let lifecycle = told.all.last().unwrap().lifecycle().unwrap();
    assert_eq!(lifecycle.origin, Origin::Observed);
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn the_daemon_holds_none_of_our_watches_once_nobody_listens() {
    let daemon = Xenstored::start().await.unwrap();
    let source = client(&daemon);
    let mut told = Told::by(&source).await;
    assert_eq!(daemon.watches().unwrap().len(), 2);
    let xl = daemon.toolstack();
    let web = xl.introduce("web").unwrap();
    xl.introduce("db").unwrap();
    told.until(2, started).await;
    let other = Told::by(&source).await;
    assert_eq!(daemon.watches().unwrap().len(), 8, "{:?}", daemon.watches());
    xl.destroy(web).unwrap();
    told.until(1, stopped).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(daemon.watches().unwrap().len(), 5, "those of one that ended are gone");
    drop(other);
    told.nothing().await;
    assert_eq!(daemon.watches().unwrap().len(), 5);
    told.events.close().await;
    assert_eq!(daemon.watches().unwrap(), []);

    let mut told = Told::by(&source).await;
    assert_eq!(daemon.watches().unwrap().len(), 5);
    told.nothing().await;
    drop(told);
    while !daemon.watches().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What is to be told of each uuid: starts and stops in order, each with its id, and the cause of a stop.
type Story = BTreeMap<Uuid, Vec<String>>;

#[tokio::test]
#[ignore = "needs xenstored"]
async fn of_200_domains_every_start_and_stop_is_told_once_with_its_cause() {
    let daemon = Xenstored::start().await.unwrap();
    let mut told = Told::by(&client(&daemon)).await;
    let (xl, mut random, mut story) = (daemon.toolstack(), Rng::with_seed(4), Story::new());
    let blueprint = |name: &str| Blueprint::named(name).uuid(uuid_of(name));
    let begun = |story: &mut Story, name: &str, domid: u32| {
        story.entry(uuid_of(name)).or_default().push(format!("started {domid}"));
    };
    let ended = |story: &mut Story, name: &str, line: String| {
        story.entry(uuid_of(name)).or_default().push(line);
    };

    let mut domains: Vec<(String, u32)> = Vec::new();
    for n in 0..200 {
        let name = format!("vm{n}");
        let domid = match n % 3 {
            0 => {
                let domid = xl.prepare(blueprint(&name)).unwrap();
                xl.announce(domid).unwrap();
                domid
            }
            1 => {
                let domid = xl.introduce(blueprint(&name).without_name()).unwrap();
                xl.complete(domid).unwrap();
                domid
            }
            _ => xl.introduce(blueprint(&name)).unwrap(),
        };
        begun(&mut story, &name, domid);
        domains.push((name, domid));
        if random.u8(0..10) == 0 {
            told.next().await;
        }
    }
    told.until(200, started).await;
    told.check(&daemon);

    for (name, domid) in domains.iter().step_by(2) {
        xl.rename(*domid, &format!("{name}-renamed")).unwrap();
    }
    let mut asked_so_far = 0;
    for batch in domains.chunks(20) {
        let mut after: Vec<(&str, u32, bool)> = Vec::new();
        for (place, (name, domid)) in batch.iter().enumerate() {
            match place {
                0..10 => {
                    xl.request(*domid, Power::ALL[place % 5]).unwrap();
                    asked_so_far += 1;
                    after.push((name, *domid, true));
                }
                10..12 => {
                    xl.crash(*domid).unwrap();
                    after.push((name, *domid, false));
                }
                12..14 => {
                    xl.release(*domid).unwrap();
                    xl.forget(*domid).unwrap();
                    ended(&mut story, name, format!("stopped {domid}"));
                }
                14..16 => {
                    let other = format!("{name}-reused");
                    xl.reuse(*domid, blueprint(&other)).unwrap();
                    ended(&mut story, name, format!("stopped {domid}"));
                    begun(&mut story, &other, *domid);
                }
                16..18 => {
                    xl.vanish(*domid).unwrap();
                    ended(&mut story, name, format!("stopped {domid}"));
                }
                _ => {}
            }
        }
        // A guest that takes note before anybody has looked was not asked.
        told.until(asked_so_far, asked).await;
        random.shuffle(&mut after);
        for (name, domid, was_asked) in after {
            if was_asked {
                xl.acknowledge(domid).unwrap();
                xl.shut_down(domid).unwrap();
            }
            xl.destroy(domid).unwrap();
            let cause = if was_asked { " (shutdown)" } else { "" };
            ended(&mut story, name, format!("stopped {domid}{cause}"));
            if domid % 2 == 0 && was_asked {
                let anew = xl.introduce(blueprint(name)).unwrap();
                begun(&mut story, name, anew);
            }
        }
    }
    let count = |of: &str| story.values().flatten().filter(|line| line.starts_with(of)).count();
    let (starts, stops) = (count("started"), count("stopped"));
    told.until(starts, started).await;
    told.until(stops, stopped).await;
    told.nothing().await;
    told.check(&daemon);

    let mut heard = Story::new();
    for event in told.all.iter().filter(|event| started(event) || stopped(event)) {
        let (domain, change) = (event.domain().unwrap(), event.change().unwrap());
        let cause = match change.cause() {
            "" => String::new(),
            cause => format!(" ({cause})"),
        };
        let line = format!("{} {}{cause}", change.as_str(), domain.id().unwrap());
        heard.entry(domain.uuid()).or_default().push(line);
    }
    assert_eq!(heard, story);
    assert_eq!(told.all.iter().filter(|event| asked(event)).count(), asked_so_far);
    assert!(told.all.iter().all(|event| !event.is_marker()));
}

fn uuid_of(name: &str) -> Uuid {
    let hash = |hash: u128, byte: u8| (hash ^ u128::from(byte)).wrapping_mul(0x1_0000_0000_01b3);
    Uuid::from_u128(name.bytes().fold(0x1234_5678_9abc_def0_0000_0001_0000_0001, hash))
}
