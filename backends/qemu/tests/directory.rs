//! A directory of fake QEMUs: how their sockets come and go, and what is told of it.
//!
//! The QEMUs are the testkit's fakes on real sockets, so that time is real too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use virevent::{EventSource, EventStream, Options, Status};
use virevent_qemu::QmpDir;
use virevent_testkit::assert::{Fold, next_within, nothing_within, until_synced};
use virevent_testkit::qmp::FakeQemu;

/// Far longer than anything here takes, and shorter than the directory is looked at without a notice.
const PATIENCE: Duration = Duration::from_secs(20);

/// Longer than anything that is noticed takes.
const SILENCE: Duration = Duration::from_millis(300);

/// A directory `d`, which is not there yet.
struct Place(TempDir);

impl Place {
    fn absent() -> Self {
        Self(tempfile::Builder::new().prefix("vd").tempdir().unwrap())
    }

    fn new() -> Self {
        let place = Self::absent();
        place.make("");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        let directory = self.0.path().join("d");
        if name.is_empty() { directory } else { directory.join(name) }
    }

    fn make(&self, name: &str) {
        fs::create_dir(self.path(name)).unwrap();
    }

    fn uri(&self) -> String {
        format!("qmp-dir:{}", self.path("").display())
    }

    /// A running QEMU, whose socket is `NAME.sock`.
    fn qemu(&self, name: &str) -> FakeQemu {
        FakeQemu::at(&self.path(&format!("{name}.sock")), name).unwrap()
    }

    /// A stream, and what it told until it was synced.
    async fn watch(&self) -> (EventStream, Vec<String>) {
        watch(&QmpDir::new(&self.uri()).unwrap().source()).await
    }
}

async fn watch(source: &dyn EventSource) -> (EventStream, Vec<String>) {
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    let mut told: Vec<_> = until_synced(&mut events).await.unwrap().iter().map(in_short).collect();
    told.sort();
    (events, told)
}

/// An event without the id of its run.
fn in_short(event: &virevent::DomainEvent) -> String {
    let line = event.to_string();
    let line = line.split(" on qmp-dir").next().unwrap_or_default();
    match event.domain().and_then(virevent::Domain::id) {
        Some(id) => line.replace(&format!("[{id}]"), ""),
        None => line.split(" qmp-dir").next().unwrap_or_default().to_owned(),
    }
}

async fn next(events: &mut EventStream) -> String {
    in_short(&next_within(events, PATIENCE).await.unwrap())
}

/// The next so many events, in the order of the alphabet.
async fn some(events: &mut EventStream, count: usize) -> Vec<String> {
    let mut told = Vec::new();
    for _ in 0..count {
        told.push(next(events).await);
    }
    told.sort();
    told
}

/// That the stream goes on: a pause is the next that is told.
async fn goes_on(qemu: &FakeQemu, name: &str, events: &mut EventStream) {
    qemu.stop();
    assert_eq!(next(events).await, format!("{name} suspended (paused)"));
    qemu.cont();
    assert_eq!(next(events).await, format!("{name} resumed (unpaused)"));
}

#[tokio::test]
async fn qemus_that_are_there_exist_and_others_start_and_stop() {
    let place = Place::new();
    let (web, _db) = (place.qemu("web"), place.qemu("db"));
    let (mut events, existing) = place.watch().await;
    assert_eq!(existing, ["db existing (running)", "web existing (running)"]);
    let mail = place.qemu("mail");
    assert_eq!(next(&mut events).await, "mail started (booted)");
    web.end(Some("guest-shutdown"));
    assert_eq!(next(&mut events).await, "web shutting_down (guest)");
    assert_eq!(next(&mut events).await, "web stopped (shutdown)");
    mail.end(None);
    assert_eq!(next(&mut events).await, "mail stopped (failed)");
    web.boot("web").unwrap();
    assert_eq!(next(&mut events).await, "web started (booted)");
}

#[tokio::test]
async fn names_that_match_a_pattern_are_taken_and_no_others() {
    let place = Place::new();
    place.make("sub");
    place.make("sub/deeper");
    let at = |file: &str| FakeQemu::at(&place.path(file), file).unwrap();
    let _qemus =
        ["a.sock", "b.monitor", "c.qmp", "sub/d.sock", "sub/deeper/e.sock", ".f.sock"].map(at);
    fs::write(place.path("file.sock"), "").unwrap();
    symlink(place.path("c.qmp"), place.path("link.sock")).unwrap();
    let (_, existing) = place.watch().await;
    let names = ["a.sock", "b.monitor", "c.qmp", "sub/d.sock"];
    assert_eq!(existing, names.map(|name| format!("{name} existing (running)")));
    let other = format!("{}?pattern=?.qmp&pattern=link*", place.uri());
    let source = QmpDir::new(&other).unwrap().source();
    assert_eq!(watch(&source).await.1, ["c.qmp existing (running)"]);
}

#[tokio::test]
async fn a_socket_that_is_there_before_qemu_listens_is_started_when_it_does() {
    let place = Place::new();
    let early = FakeQemu::absent_at(&place.path("web.sock"));
    early.bind().unwrap();
    let (mut events, existing) = place.watch().await;
    assert!(existing.is_empty(), "{existing:?}");
    early.boot("web").unwrap();
    assert_eq!(next(&mut events).await, "web started (booted)");
    let late = FakeQemu::absent_at(&place.path("db.sock"));
    late.bind().unwrap();
    nothing_within(&mut events, SILENCE).await.unwrap();
    late.boot("db").unwrap();
    assert_eq!(next(&mut events).await, "db started (booted)");
}

#[tokio::test]
async fn a_socket_that_is_left_behind_is_no_domain_and_its_name_is_taken_again() {
    let place = Place::new();
    drop(UnixListener::bind(place.path("web.sock")).unwrap());
    let (mut events, existing) = place.watch().await;
    assert!(existing.is_empty(), "{existing:?}");
    fs::remove_file(place.path("web.sock")).unwrap();
    let web = place.qemu("web");
    assert_eq!(next(&mut events).await, "web started (booted)");
    web.kill();
    assert_eq!(next(&mut events).await, "web stopped (failed)");
    nothing_within(&mut events, SILENCE).await.unwrap();
    fs::remove_file(place.path("web.sock")).unwrap();
    web.boot("web").unwrap();
    assert_eq!(next(&mut events).await, "web started (booted)");
}

#[tokio::test]
async fn a_qemu_goes_on_when_another_takes_the_name_of_its_socket() {
    let place = Place::new();
    let old = place.qemu("old");
    let (mut events, _) = place.watch().await;
    let path = place.path("old.sock");
    fs::remove_file(&path).unwrap();
    let new = FakeQemu::at(&path, "new").unwrap();
    assert_eq!(next(&mut events).await, "new started (booted)");
    goes_on(&old, "old", &mut events).await;
    goes_on(&new, "new", &mut events).await;
    old.end(None);
    assert_eq!(next(&mut events).await, "old stopped (failed)");
    goes_on(&new, "new", &mut events).await;
    assert_eq!(new.accepted(), 1);
}

#[tokio::test]
async fn one_of_the_same_name_that_comes_at_once_is_another_run() {
    let place = Place::new();
    let mut web = place.qemu("web");
    let (mut events, _) = place.watch().await;
    for _ in 0..5 {
        // After this long a connection that breaks is made anew at once.
        tokio::time::sleep(SILENCE).await;
        web.kill();
        fs::remove_file(place.path("web.sock")).unwrap();
        let next_one = place.qemu("web");
        let told = some(&mut events, 2).await;
        assert_eq!(told, ["web started (booted)", "web stopped (failed)"]);
        web = next_one;
        goes_on(&web, "web", &mut events).await;
        assert_eq!(web.accepted(), 1);
    }
}

#[tokio::test]
async fn a_socket_that_is_renamed_is_the_same_qemu_and_its_last_name_counts() {
    let place = Place::new();
    let web = place.qemu("web");
    let (mut events, _) = place.watch().await;
    fs::rename(place.path("web.sock"), place.path("db.sock")).unwrap();
    nothing_within(&mut events, SILENCE).await.unwrap();
    goes_on(&web, "web", &mut events).await;
    web.cut();
    // It could not be reached under its old name.
    assert_eq!(next(&mut events).await, "web stopped (failed)");
    assert_eq!(next(&mut events).await, "web started (booted)");
}

#[tokio::test]
async fn a_directory_may_come_late_and_level_by_level() {
    let place = Place::absent();
    let uri = format!("{}/e/f", place.uri());
    let source = QmpDir::new(&uri).unwrap().source();
    let (mut events, existing) = watch(&source).await;
    assert!(existing.is_empty(), "{existing:?}");
    for directory in ["", "e", "e/f", "e/f/g"] {
        nothing_within(&mut events, Duration::from_millis(50)).await.unwrap();
        place.make(directory);
    }
    let _web = place.qemu("e/f/web");
    assert_eq!(next(&mut events).await, "e/f/web started (booted)");
    let _db = place.qemu("e/f/g/db");
    assert_eq!(next(&mut events).await, "e/f/g/db started (booted)");
}

#[tokio::test]
async fn a_directory_that_vanishes_stops_nobody_and_is_watched_when_it_is_back() {
    let place = Place::new();
    place.make("sub");
    let (web, db) = (place.qemu("web"), place.qemu("sub/db"));
    let (mut events, _) = place.watch().await;
    fs::remove_dir_all(place.path("")).unwrap();
    nothing_within(&mut events, SILENCE).await.unwrap();
    goes_on(&web, "web", &mut events).await;
    db.end(None);
    assert_eq!(next(&mut events).await, "sub/db stopped (failed)");
    place.make("");
    let _mail = place.qemu("mail");
    assert_eq!(next(&mut events).await, "mail started (booted)");
    goes_on(&web, "web", &mut events).await;
}

#[tokio::test]
async fn a_directory_that_is_renamed_away_and_back_stops_nobody() {
    let place = Place::new();
    let web = place.qemu("web");
    let (mut events, _) = place.watch().await;
    let away = place.0.path().join("away");
    fs::rename(place.path(""), &away).unwrap();
    nothing_within(&mut events, SILENCE).await.unwrap();
    // What happens in it elsewhere is not ours.
    let _elsewhere = FakeQemu::at(&away.join("db.sock"), "db").unwrap();
    nothing_within(&mut events, SILENCE).await.unwrap();
    goes_on(&web, "web", &mut events).await;
    fs::rename(&away, place.path("")).unwrap();
    assert_eq!(next(&mut events).await, "db started (booted)");
    goes_on(&web, "web", &mut events).await;
    assert_eq!(web.accepted(), 1);
    // And it is found again where it is.
    web.cut();
    assert_eq!(next(&mut events).await, "lost sight of domain web");
    assert_eq!(next(&mut events).await, "synced with domain web");
}

#[tokio::test]
async fn a_monitor_that_is_held_holds_up_no_other_and_is_told_as_a_gap_of_its_own() {
    let place = Place::new();
    let (_web, held) = (place.qemu("web"), place.qemu("held"));
    held.change(|faults| faults.deaf = true);
    let began = Instant::now();
    let (mut events, existing) = place.watch().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(existing, ["web existing (running)"]);
    let gap = next_within(&mut events, SILENCE).await.unwrap();
    assert_eq!(in_short(&gap), "lost sight of domain held");
    let _db = place.qemu("db");
    assert_eq!(next(&mut events).await, "db started (booted)");
    held.change(|faults| faults.deaf = false);
    held.cut();
    assert_eq!(next(&mut events).await, "held started (booted) [inferred]");
    assert_eq!(next(&mut events).await, "synced with domain held");
    goes_on(&held, "held", &mut events).await;
}

#[tokio::test]
async fn a_held_monitor_whose_qemu_goes_leaves_no_gap_behind() {
    let place = Place::new();
    let held = place.qemu("held");
    held.change(|faults| faults.deaf = true);
    let (mut events, existing) = place.watch().await;
    assert!(existing.is_empty(), "{existing:?}");
    assert_eq!(next(&mut events).await, "lost sight of domain held");
    held.end(None);
    assert_eq!(next(&mut events).await, "synced with domain held");
}

#[tokio::test]
async fn a_gap_in_one_delays_no_other() {
    let place = Place::new();
    let (web, db) = (place.qemu("web"), place.qemu("db"));
    let (mut events, _) = place.watch().await;
    db.change(|faults| faults.hang_up = true);
    db.cut();
    goes_on(&web, "web", &mut events).await;
    assert_eq!(next(&mut events).await, "lost sight of domain db");
    goes_on(&web, "web", &mut events).await;
    db.set_status("paused");
    db.change(|faults| faults.hang_up = false);
    assert_eq!(next(&mut events).await, "db suspended (paused) [inferred]");
    assert_eq!(next(&mut events).await, "synced with domain db");
}

#[tokio::test]
async fn who_subscribes_later_is_told_what_is_out_of_reach() {
    let place = Place::new();
    let (_web, db) = (place.qemu("web"), place.qemu("db"));
    let source = QmpDir::new(&place.uri()).unwrap().source();
    let (mut events, _) = watch(&source).await;
    db.change(|faults| faults.hang_up = true);
    db.cut();
    assert_eq!(next(&mut events).await, "lost sight of domain db");
    let (mut later, existing) = watch(&source).await;
    assert_eq!(existing, ["db existing (running)", "web existing (running)"]);
    assert_eq!(next(&mut later).await, "lost sight of domain db");
}

#[tokio::test]
async fn of_two_qemus_with_one_uuid_the_second_gets_one_of_its_own() {
    let place = Place::new();
    let one = place.qemu("web");
    let (mut events, _) = place.watch().await;
    let two = FakeQemu::at(&place.path("copy.sock"), "web").unwrap();
    let started = next_within(&mut events, PATIENCE).await.unwrap();
    assert_eq!(in_short(&started), "web started (booted)");
    one.end(None);
    let stopped = next_within(&mut events, PATIENCE).await.unwrap();
    assert_eq!(in_short(&stopped), "web stopped (failed)");
    assert!(!started.domain().unwrap().is_same(stopped.domain().unwrap()));
    goes_on(&two, "web", &mut events).await;
}

#[tokio::test]
async fn what_is_no_directory_is_a_clear_error_and_later_an_outage() {
    let place = Place::absent();
    fs::write(place.path(""), "").unwrap();
    let source = QmpDir::new(&place.uri()).unwrap().source();
    let error = source.subscribe_with(Options::default()).await.unwrap_err().to_line();
    assert!(error.contains("no directory") && error.contains("qmp:"), "{error}");
    fs::remove_file(place.path("")).unwrap();
    place.make("");
    let web = place.qemu("web");
    let (mut events, existing) = watch(&source).await;
    assert_eq!(existing, ["web existing (running)"]);
    let away = place.0.path().join("away");
    fs::rename(place.path(""), &away).unwrap();
    fs::write(place.path(""), "").unwrap();
    assert_eq!(next(&mut events).await, "lost sight of");
    assert!(matches!(source.health().status(), Status::Disconnected(_)));
    let _db = FakeQemu::at(&away.join("db.sock"), "db").unwrap();
    fs::remove_file(place.path("")).unwrap();
    fs::rename(&away, place.path("")).unwrap();
    let told = some(&mut events, 2).await;
    assert_eq!(told, ["db started [inferred]", "synced with"]);
    goes_on(&web, "web", &mut events).await;
    assert_eq!(web.accepted(), 1);
}

#[tokio::test]
async fn while_the_directory_cannot_be_read_that_is_the_only_outage() {
    let place = Place::new();
    let web = place.qemu("web");
    drop(UnixListener::bind(place.path("stale.sock")).unwrap());
    let (mut events, _) = place.watch().await;
    let away = place.0.path().join("away");
    fs::rename(place.path(""), &away).unwrap();
    fs::write(place.path(""), "").unwrap();
    assert_eq!(next(&mut events).await, "lost sight of");
    // Longer than one that cannot be connected to is given.
    nothing_within(&mut events, Duration::from_secs(1)).await.unwrap();
    fs::remove_file(place.path("")).unwrap();
    fs::rename(&away, place.path("")).unwrap();
    assert_eq!(next(&mut events).await, "synced with");
    goes_on(&web, "web", &mut events).await;
}

#[tokio::test]
async fn a_storm_of_notices_that_overflows_their_queue_loses_nothing() {
    let place = Place::new();
    let (mut events, _) = place.watch().await;
    let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let most: usize = most.trim().parse().unwrap();
    // Nobody reads the notices meanwhile: there is one thread.
    for _ in 0..most / 2 + 10 {
        fs::create_dir(place.path("x")).unwrap();
        fs::remove_dir(place.path("x")).unwrap();
    }
    let web = place.qemu("web");
    assert_eq!(next(&mut events).await, "web started (booted)");
    web.end(None);
    assert_eq!(next(&mut events).await, "web stopped (failed)");
}

#[tokio::test]
async fn what_nobody_notices_is_found_by_looking_once_in_a_while() {
    let (place, elsewhere) = (Place::new(), tempfile::tempdir().unwrap());
    let target = elsewhere.path().join("web");
    symlink(&target, place.path("web.sock")).unwrap();
    let seldom = QmpDir::new(&place.uri()).unwrap().source();
    let often = QmpDir::new(&place.uri()).unwrap().look_every(Duration::from_millis(50)).source();
    let ((mut seldom, _), (mut often, _)) = (watch(&seldom).await, watch(&often).await);
    let _web = FakeQemu::at(&target, "web").unwrap();
    assert_eq!(next(&mut often).await, "web started (booted)");
    nothing_within(&mut seldom, SILENCE).await.unwrap();
}

#[tokio::test]
async fn all_is_let_go_with_the_last_subscriber() {
    let place = Place::new();
    let qemus = [place.qemu("web"), place.qemu("db")];
    let source = QmpDir::new(&place.uri()).unwrap().source();
    for round in 1..=3 {
        let (events, existing) = watch(&source).await;
        assert_eq!(existing.len(), 2);
        assert!(is_watched(&place.path("")));
        events.close().await;
        // A look that is under way ends first.
        while is_watched(&place.path("")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for qemu in &qemus {
            assert_eq!(qemu.accepted(), round);
            qemu.until(|qemu| !qemu.is_held()).await;
        }
    }
}

/// Whether this process has an inotify watch on a directory.
fn is_watched(directory: &Path) -> bool {
    let inode = format!("ino:{:x} ", fs::metadata(directory).unwrap().ino());
    let files = fs::read_dir("/proc/self/fdinfo").unwrap();
    files
        .filter_map(|file| fs::read_to_string(file.ok()?.path()).ok())
        .any(|info| info.contains(&inode))
}

/// What happens to a directory and its QEMUs by chance adds up to the truth whenever it is quiet.
#[tokio::test]
async fn whatever_happens_what_was_told_adds_up_to_the_truth() {
    for seed in 0..8 {
        chaos(seed).await;
    }
}

async fn chaos(seed: u64) {
    let (mut random, place) = (fastrand::Rng::with_seed(seed), Place::new());
    let (mut events, _) = place.watch().await;
    let (mut qemus, mut fold, mut runs) = (BTreeMap::new(), Fold::default(), 0);
    for round in 0..6 {
        for _ in 0..20 {
            happen(&place, &mut qemus, &mut runs, &mut random).await;
        }
        for (qemu, _) in qemus.values() {
            qemu.change(|faults| faults.hang_up = false);
        }
        let truth: Vec<_> = qemus
            .iter()
            .map(|(name, (qemu, run))| (name.as_str(), Some(*run), qemu.is_running()))
            .collect();
        loop {
            let mut belief: Vec<_> = fold
                .active()
                .values()
                .map(|run| (run.domain.name(), run.domain.id(), run.state.is_running()))
                .collect();
            belief.sort();
            if belief == truth {
                break;
            }
            match next_within(&mut events, PATIENCE).await {
                Ok(event) => fold.apply(&event),
                Err(failure) => {
                    panic!("seed {seed}, round {round}: {failure}: {belief:?}, not {truth:?}")
                }
            }
        }
    }
}

/// Something happens. Each QEMU has the name of its socket, and each run a number of its own.
async fn happen(
    place: &Place,
    qemus: &mut BTreeMap<String, (FakeQemu, u32)>,
    runs: &mut u32,
    random: &mut fastrand::Rng,
) {
    let name = format!("vm{}", random.usize(..6));
    let path = place.path(&format!("{name}.sock"));
    match (random.usize(..9), qemus.get(&name).map(|(qemu, _)| qemu)) {
        (0..=3, None) => {
            // One that was left behind.
            let _ = fs::remove_file(&path);
            let qemu = FakeQemu::absent_at(&path);
            qemu.skip_runs(*runs);
            qemu.boot(&name).unwrap();
            *runs += 1;
            qemus.insert(name, (qemu, *runs));
        }
        (0, Some(qemu)) => {
            qemu.end(random.bool().then_some("host-qmp-quit"));
            qemus.remove(&name);
        }
        (1, Some(qemu)) => {
            qemu.kill();
            qemus.remove(&name);
        }
        (2, Some(qemu)) => qemu.cut(),
        (3, Some(qemu)) => qemu.stop(),
        (4, Some(qemu)) => qemu.cont(),
        (5, Some(qemu)) => qemu.change(|faults| faults.hang_up = random.bool()),
        (6, _) => {
            let away = place.0.path().join("away");
            fs::rename(place.path(""), &away).unwrap();
            tokio::time::sleep(Duration::from_millis(random.u64(..20))).await;
            fs::rename(&away, place.path("")).unwrap();
        }
        _ => tokio::time::sleep(Duration::from_millis(random.u64(..20))).await,
    }
}
