//! A store that does wrong, or does right in an awkward way.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use virevent::driver::{Driver, Reconnect};
use virevent::{DomainEvent, Error, EventSource, EventStream, Kind, Options};
use virevent_testkit::assert::{next_within, nothing_within, until_synced};
use virevent_testkit::xen::{Blueprint, Power, RunState};
use virevent_testkit::xenstored::{FakeXenstored, Faults};
use virevent_xen::XenStore;
use virevent_xen::wire::Operation;

struct Rig {
    fake: FakeXenstored,
    source: Driver,
}

impl Rig {
    fn new() -> Self {
        let fake = FakeXenstored::start().unwrap();
        let quick = Reconnect::local().max(Duration::from_millis(100));
        let store = XenStore::new(&fake.uri()).unwrap().reconnect(quick);
        let source = store.call_timeout(Duration::from_millis(500)).source();
        Self { fake, source }
    }

    fn with(change: impl FnOnce(&mut Faults)) -> Self {
        let rig = Self::new();
        rig.fake.change(change);
        rig
    }

    async fn subscribe(&self) -> Result<EventStream, Error> {
        let options = Options::default().kind(Kind::Lifecycle).kind(Kind::Other);
        self.source.subscribe_with(options).await
    }

    /// With the patience of every day.
    fn patient() -> Self {
        let mut rig = Self::new();
        rig.source = XenStore::new(&rig.fake.uri()).unwrap().source();
        rig
    }

    async fn synced(&self) -> Told {
        let mut told = Told(self.subscribe().await.unwrap());
        until_synced(&mut told.0).await.unwrap();
        told
    }

    /// What a client that comes now is told.
    async fn refusal_to_list(&self) -> String {
        let store = XenStore::new(&self.fake.uri()).unwrap();
        store.source().subscribe_with(Options::default()).await.unwrap_err().to_line()
    }

    async fn refusal(&self) -> Error {
        self.subscribe().await.unwrap_err()
    }
}

/// Nothing that any of these tests does may have written to the store.
impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.fake.meddling(), 0);
        }
    }
}

struct Told(EventStream);

impl Told {
    async fn next(&mut self) -> String {
        let event = next_within(&mut self.0, Duration::from_secs(10)).await.unwrap();
        event.to_string()
    }

    async fn expect(&mut self, lines: &[&str]) {
        for line in lines {
            assert_eq!(self.next().await, *line);
        }
    }

    async fn nothing(&mut self) {
        nothing_within(&mut self.0, Duration::from_millis(100)).await.unwrap();
    }

    /// The stream breaks for this reason, and is whole again.
    async fn gap(&mut self, reason: &str) {
        let event = next_within(&mut self.0, Duration::from_secs(10)).await.unwrap();
        let DomainEvent::Gap(gap) = &event else { panic!("{event}") };
        let said = format!("{gap:?}");
        assert!(said.contains(reason), "{said}");
    }
}

/// A life, told as on any other store.
async fn a_life(rig: &Rig, told: &mut Told) {
    let xl = rig.fake.toolstack();
    let web = xl.introduce("web").unwrap();
    told.expect(&["web[1] started"]).await;
    xl.rename(web, "www").unwrap();
    told.expect(&["web[1] undefined (renamed)", "www[1] defined (renamed)"]).await;
    xl.request(web, Power::Halt).unwrap();
    told.expect(&["www[1] shutting_down (host)"]).await;
    told.expect(&["www[1] event control/shutdown {\"request\":\"halt\"}"]).await;
    xl.acknowledge(web).unwrap();
    xl.destroy(web).unwrap();
    told.expect(&["www[1] stopped (shutdown)"]).await;
    told.nothing().await;
}

#[tokio::test]
async fn a_byte_at_a_time_is_as_good_as_any() {
    let rig = Rig::with(|faults| faults.piece = Some(1));
    let mut told = rig.synced().await;
    a_life(&rig, &mut told).await;
}

#[tokio::test]
async fn events_between_a_request_and_its_reply_and_events_over_and_over_change_nothing() {
    let rig = Rig::with(|faults| {
        for operation in [Operation::WATCH, Operation::READ, Operation::DIRECTORY] {
            faults.events_before.insert(operation, 3);
        }
        faults.repeat = 2;
    });
    let mut told = rig.synced().await;
    // Each read brings events, which ask for reads: only when that has an end is there an end.
    rig.fake.toolstack().introduce("web").unwrap();
    told.expect(&["web[1] started"]).await;
    rig.fake.change(|faults| *faults = Faults::default());
    rig.fake.toolstack().destroy(1).unwrap();
    told.expect(&["web[1] stopped"]).await;
    told.nothing().await;
}

#[tokio::test]
async fn a_read_is_answered_however_many_events_are_queued_before_its_reply() {
    let rig = Rig::patient();
    rig.fake.toolstack().introduce("web").unwrap();
    let mut told = rig.synced().await;
    rig.fake.change(|faults| {
        faults.events_before.insert(Operation::READ, 100_000);
    });
    rig.fake.toolstack().rename(1, "www").unwrap();
    told.expect(&["web[1] undefined (renamed)", "www[1] defined (renamed)"]).await;
    rig.fake.change(|faults| *faults = Faults::default());
    rig.fake.flood(100_000);
    rig.fake.toolstack().rename(1, "web").unwrap();
    told.expect(&["www[1] undefined (renamed)", "web[1] defined (renamed)"]).await;
    told.nothing().await;
}

#[tokio::test]
async fn spurious_events_and_events_of_nobody_are_passed_over() {
    let rig = Rig::new();
    rig.fake.toolstack().introduce("web").unwrap();
    let mut told = rig.synced().await;
    rig.fake.flood(1_000);
    for token in ["", "x", "n77", "s99999", "\u{fffd}"] {
        rig.fake.emit("/nowhere", token);
    }
    told.nothing().await;
    a_rename(&rig, &mut told).await;
}

async fn a_rename(rig: &Rig, told: &mut Told) {
    rig.fake.toolstack().rename(1, "www").unwrap();
    told.expect(&["web[1] undefined (renamed)", "www[1] defined (renamed)"]).await;
}

#[tokio::test]
async fn a_refusal_fails_the_first_subscription_and_says_what_to_do() {
    let rig = Rig::with(|faults| faults.refuse(Operation::WATCH, None, "EACCES"));
    let error = rig.refusal().await;
    assert!(error.is_refusal());
    let line = error.to_line();
    assert!(
        line.contains("EACCES to a WATCH of @") && line.contains("domain 0, as root"),
        "{line}"
    );

    let rig = Rig::with(|faults| faults.refuse(Operation::DIRECTORY, None, "EACCES"));
    let line = rig.refusal().await.to_line();
    assert!(line.contains("DIRECTORY of /local/domain"), "{line}");
}

#[tokio::test]
async fn what_breaks_the_protocol_is_a_gap_that_says_what_was_wrong() {
    type Change = fn(&mut Faults);
    let table: [(Change, &str); 7] = [
        (|faults| faults.oversize = [Operation::READ].into(), "a payload of 4097 bytes"),
        (|faults| faults.wrong_request = [Operation::READ].into(), "which was not asked"),
        (|faults| faults.wrong_operation = [Operation::READ].into(), "as the answer to a READ of"),
        (|faults| faults.truncated = [Operation::READ].into(), "xenstored stopped"),
        (|faults| faults.hang_up = [Operation::READ].into(), "xenstored stopped"),
        (|faults| faults.unanswered = [Operation::READ].into(), "no answer to READ"),
        (
            |faults| faults.bodies = [(Operation::IS_DOMAIN_INTRODUCED, b"maybe\0".into())].into(),
            "neither T nor F",
        ),
    ];
    for (change, reason) in table {
        let rig = Rig::new();
        rig.fake.toolstack().introduce("web").unwrap();
        let mut told = rig.synced().await;
        rig.fake.change(change);
        rig.fake.toolstack().introduce("db").unwrap();
        told.gap(reason).await;
        rig.fake.toolstack().rename(1, "www").unwrap();
        rig.fake.change(|faults| *faults = Faults::default());
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line: &String| !line.starts_with("synced")) {
            lines.push(told.next().await);
        }
        let renamed =
            ["web[1] undefined (renamed) [inferred]", "www[1] defined (renamed) [inferred]"];
        assert!(lines.iter().any(|line| line == "db[2] started [inferred]"), "{lines:?}");
        assert!(lines.windows(2).any(|pair| pair == renamed), "{lines:?}");
        assert_eq!(lines.len(), 4, "{lines:?}");
        told.nothing().await;
    }
}

#[tokio::test]
async fn a_server_that_sends_back_what_it_gets_is_no_empty_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("echo");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut from, mut to) = stream.split();
        tokio::io::copy(&mut from, &mut to).await
    });
    let store = XenStore::new(&format!("xenstore:{}", path.display())).unwrap();
    let refused = store.source().subscribe_with(Options::default()).await;
    let line = refused.unwrap_err().to_line();
    assert!(line.contains("not OK to a WATCH of @introduceDomain"), "{line}");
    assert!(line.contains("check that a xenstored listens on"), "{line}");
    server.abort();
}

#[tokio::test]
async fn after_an_outage_too_only_a_store_may_say_that_there_are_no_domains() {
    let wrong = [(Operation::WATCH, "not OK"), (Operation::DIRECTORY, "no names of children")];
    for (operation, reason) in wrong {
        let rig = Rig::new();
        rig.fake.toolstack().introduce("web").unwrap();
        let mut told = rig.synced().await;
        rig.fake.go_down();
        told.gap("Closed").await;
        rig.fake.change(|faults| faults.bodies = [(operation, b"/local/domain\0".into())].into());
        rig.fake.come_back().unwrap();
        told.nothing().await;
        let line = rig.refusal_to_list().await;
        assert!(line.contains(reason), "{line}");
        rig.fake.change(|faults| *faults = Faults::default());
        assert!(told.next().await.starts_with("synced"));
        told.nothing().await;
    }
}

#[tokio::test]
async fn bytes_that_are_no_packets_are_a_gap_and_never_more() {
    let mut random = fastrand::Rng::with_seed(6);
    for _ in 0..30 {
        let rig = Rig::new();
        rig.fake.toolstack().introduce("web").unwrap();
        let mut told = rig.synced().await;
        let bytes: Vec<u8> = match random.u8(0..3) {
            0 => (0..random.usize(20..5_000)).map(|_| random.u8(..)).collect(),
            // An answer to nothing, an event without an end, an operation that there is not.
            1 => [15, 0, 0, 4, 0x6162_6364].map(u32::to_ne_bytes).concat(),
            _ => [random.u32(16..99), random.u32(..), 0, 0].map(u32::to_ne_bytes).concat(),
        };
        rig.fake.send(&bytes);
        told.gap("broken protocol").await;
        assert!(told.next().await.starts_with("synced"));
        a_rename(&rig, &mut told).await;
    }
}

#[tokio::test]
async fn a_daemon_that_says_nothing_any_more_is_out_of_reach() {
    let rig = Rig::new();
    rig.fake.toolstack().introduce("web").unwrap();
    let store = XenStore::new(&rig.fake.uri()).unwrap();
    let source = store.keepalive(Duration::from_millis(50), 2).source();
    let mut told = Told(source.subscribe_with(Options::default()).await.unwrap());
    until_synced(&mut told.0).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    told.nothing().await;
    rig.fake.change(|faults| faults.silent = true);
    told.gap("a keepalive").await;
    rig.fake.change(|faults| faults.silent = false);
    assert!(told.next().await.starts_with("synced"));
}

#[tokio::test]
async fn a_daemon_that_comes_back_and_has_forgotten_all_watches_is_watched_again() {
    let rig = Rig::new();
    let xl = rig.fake.toolstack();
    for name in ["web", "db", "mail"] {
        xl.introduce(name).unwrap();
    }
    let mut told = rig.synced().await;
    xl.request(3, Power::Reboot).unwrap();
    told.expect(&["mail[3] shutting_down (host)"]).await;
    told.expect(&["mail[3] event control/shutdown {\"request\":\"reboot\"}"]).await;
    xl.acknowledge(3).unwrap();
    rig.fake.go_down();
    told.gap("Closed").await;
    xl.destroy(1).unwrap();
    xl.reuse(2, "other").unwrap();
    rig.fake.come_back().unwrap();
    told.expect(&["db[2] stopped [inferred]", "web[1] stopped [inferred]"]).await;
    told.expect(&["other[2] started [inferred]"]).await;
    assert!(told.next().await.starts_with("synced"));
    told.nothing().await;
    xl.destroy(3).unwrap();
    told.expect(&["mail[3] stopped (shutdown)"]).await;
    rig.fake.go_down();
    told.gap("Closed").await;
    rig.fake.lose_store();
    rig.fake.come_back().unwrap();
    told.expect(&["other[2] stopped [inferred]"]).await;
}

#[tokio::test]
async fn a_domain_without_a_name_or_a_uuid_is_the_same_after_an_outage() {
    let rig = Rig::new();
    let xl = rig.fake.toolstack();
    xl.introduce("web").unwrap();
    xl.introduce(Blueprint::named("db").without_vm()).unwrap();
    let mut told = rig.synced().await;
    assert_eq!(told.next().await, "db[2] started");
    xl.remove("/local/domain/1/name").unwrap();
    told.nothing().await;
    rig.fake.cut();
    told.gap("Closed").await;
    assert_eq!(told.next().await, format!("synced with {} (2 domains)", rig.fake.uri()));
    told.nothing().await;
    // Another that has the number by then is another.
    rig.fake.go_down();
    told.gap("Closed").await;
    xl.reuse(1, "mail").unwrap();
    rig.fake.come_back().unwrap();
    told.expect(&["web[1] stopped [inferred]", "mail[1] started [inferred]"]).await;
}

#[tokio::test]
async fn a_big_list_comes_in_parts_and_begins_again_when_it_changes() {
    let rig = Rig::with(|faults| (faults.longest_list, faults.part_changes) = (40, 3));
    for n in 0..50 {
        rig.fake.toolstack().introduce(&*format!("vm{n}")).unwrap();
    }
    let mut told = Told(rig.subscribe().await.unwrap());
    assert_eq!(until_synced(&mut told.0).await.unwrap().len(), 50);
    rig.fake.toolstack().introduce("web").unwrap();
    told.expect(&["web[51] started"]).await;

    let rig = Rig::with(|faults| {
        faults.longest_list = 3;
        faults.lacks.insert(Operation::DIRECTORY_PART);
    });
    rig.fake.toolstack().introduce("web").unwrap();
    rig.fake.toolstack().introduce("db").unwrap();
    let line = rig.refusal().await.to_line();
    assert!(line.contains("Xen 4.9 is needed"), "{line}");
}

#[tokio::test]
async fn a_daemon_that_names_the_domain_is_asked_for_that_one_only() {
    let rig = Rig::with(|faults| faults.features = Some(4));
    let xl = rig.fake.toolstack();
    for name in ["web", "db"] {
        xl.introduce(name).unwrap();
    }
    let mut told = rig.synced().await;
    xl.crash(1).unwrap();
    told.expect(&["web[1] shutting_down (finished)"]).await;
    xl.destroy(1).unwrap();
    told.expect(&["web[1] stopped"]).await;
    // What gets its place only after it was introduced.
    xl.set_run_state(7, Some(RunState::Running)).unwrap();
    xl.announce(7).unwrap();
    xl.remove("/local/domain/7").unwrap();
    xl.prepare(Blueprint::named("late").domid(7)).unwrap();
    told.expect(&["late[7] started"]).await;
    xl.vanish(2).unwrap();
    told.expect(&["db[2] stopped"]).await;
    told.nothing().await;

    // One that offers depths and has none is taken at its word, and then not.
    let rig = Rig::with(|faults| {
        faults.bodies.insert(Operation::GET_FEATURE, b"4\0".into());
    });
    let mut told = rig.synced().await;
    a_life(&rig, &mut told).await;
}

#[tokio::test]
async fn a_name_and_a_request_may_be_any_bytes() {
    let rig = Rig::new();
    let mut told = rig.synced().await;
    let xl = rig.fake.toolstack();
    xl.introduce("web").unwrap();
    told.expect(&["web[1] started"]).await;
    xl.write("/local/domain/1/name", b"w\xffb\n").unwrap();
    told.next().await;
    assert_eq!(told.next().await, "w\u{fffd}b\n[1] defined (renamed)");
    xl.write("/local/domain/1/control/shutdown", b"\xff\"\0").unwrap();
    let event = "event control/shutdown {\"request\":\"\u{fffd}\\\"\\u0000\"}";
    assert!(told.next().await.ends_with(event));
    xl.write("/local/domain/1/vm", b"/vm/\xff").unwrap();
    told.nothing().await;
    xl.vanish(1).unwrap();
    assert!(told.next().await.ends_with("[1] stopped"));
}

#[tokio::test]
async fn nothing_of_ours_is_watched_once_nobody_listens() {
    for lacks_reset in [false, true] {
        let rig = Rig::with(|faults| {
            if lacks_reset {
                faults.lacks.insert(Operation::RESET_WATCHES);
            }
        });
        rig.fake.toolstack().introduce("web").unwrap();
        let told = rig.synced().await;
        assert_eq!(rig.fake.watches().len(), 5);
        told.0.close().await;
        assert_eq!(rig.fake.watches(), []);
        let told = rig.synced().await;
        assert_eq!(rig.fake.watches().len(), 5);
        drop(told);
        rig.fake.until(|fake| fake.watches().is_empty()).await;
        assert_eq!(rig.fake.accepted(), 1, "by its request, not by hanging up");
    }
}

#[tokio::test]
async fn a_server_that_is_slow_but_answers_all_the_time_is_not_overdue() {
    // 64 questions of 20 ms each take longer than the half second that each may take.
    let rig = Rig::new();
    for n in 0..80 {
        rig.fake.toolstack().introduce(&*format!("vm{n}")).unwrap();
    }
    let mut told = rig.synced().await;
    let slow = Duration::from_millis(20);
    rig.fake.change(|faults| faults.delays = [(Operation::IS_DOMAIN_INTRODUCED, slow)].into());
    rig.fake.toolstack().destroy(1).unwrap();
    told.expect(&["vm0[1] stopped"]).await;
    told.nothing().await;
}

#[tokio::test]
async fn what_cannot_be_read_of_one_domain_is_not_known_and_no_concern_of_the_others() {
    let table = [
        ("/local/domain/1/control/shutdown", "web[1]"),
        ("/local/domain/1/name", "Domain-1[1]"),
        ("/local/domain/1/vm", "web[1]"),
        ("/local/domain/1", "web[1]"),
    ];
    for (path, first) in table {
        let rig = Rig::with(|faults| faults.refuse(Operation::READ, Some(path), "EACCES"));
        rig.fake.toolstack().introduce("web").unwrap();
        rig.fake.toolstack().introduce("db").unwrap();
        let mut told = Told(rig.subscribe().await.unwrap());
        let mut lines = vec![told.next().await, told.next().await];
        lines.sort();
        let existing = [first, "db[2]"].map(|domain| format!("{domain} existing (running)"));
        assert!(existing.iter().all(|line| lines.contains(line)), "{path}: {lines:?}");
        assert!(told.next().await.ends_with("(2 domains)"), "{path}");
        rig.fake.toolstack().rename(2, "db2").unwrap();
        told.expect(&["db[2] undefined (renamed)", "db2[2] defined (renamed)"]).await;
        rig.fake.toolstack().destroy(1).unwrap();
        assert_eq!(told.next().await, format!("{first} stopped"));
        told.nothing().await;
    }
}

#[tokio::test]
async fn what_cannot_be_read_any_more_is_as_it_was() {
    let rig = Rig::new();
    rig.fake.toolstack().introduce("web").unwrap();
    let mut told = rig.synced().await;
    rig.fake.change(|faults| faults.refuse(Operation::READ, None, "EIO"));
    rig.fake.toolstack().rename(1, "www").unwrap();
    rig.fake.flood(1_000);
    told.nothing().await;
    rig.fake.change(|faults| *faults = Faults::default());
    rig.fake.flood(1_000);
    told.expect(&["web[1] undefined (renamed)", "www[1] defined (renamed)"]).await;
    told.nothing().await;
}

#[tokio::test]
async fn a_watch_that_is_there_already_is_as_good_as_one_that_is_set() {
    let watches = [
        "@introduceDomain",
        "@releaseDomain",
        "/local/domain/1/vm",
        "/local/domain/1/name",
        "/local/domain/1/control/shutdown",
    ];
    for path in watches {
        let rig = Rig::with(|faults| faults.refuse(Operation::WATCH, Some(path), "EEXIST"));
        rig.fake.toolstack().introduce("web").unwrap();
        let mut told = Told(rig.subscribe().await.unwrap());
        assert_eq!(told.next().await, "web[1] existing (running)", "{path}");
    }
}

#[tokio::test]
async fn a_first_look_may_take_longer_than_a_request() {
    let rig = Rig::with(|faults| {
        faults.delays.insert(Operation::READ, Duration::from_millis(20));
    });
    for n in 0..20 {
        rig.fake.toolstack().introduce(&*format!("vm{n}")).unwrap();
    }
    let mut told = Told(rig.subscribe().await.unwrap());
    assert_eq!(until_synced(&mut told.0).await.unwrap().len(), 20);
}
