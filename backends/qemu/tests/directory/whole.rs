//! Changes of the directory as a whole.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use virevent::{DomainEvent, EventSource, Gap, GapKind, Options, Status};
use virevent_qemu::QmpDir;
use virevent_testkit::assert::{next_within, nothing_within, until_synced};
use virevent_testkit::fakes::qemu::FakeQemu;

use super::{PATIENCE, SILENCE, TestDirectory, goes_on, next, some, watch};

#[tokio::test]
async fn a_directory_that_appears_level_by_level_is_watched() {
    let directory = TestDirectory::absent();
    let uri = format!("{}/e/f", directory.uri());
    let source = QmpDir::new(&uri).unwrap().source();
    let (mut events, existing) = watch(&source).await;
    // A placeholder domain with its path stands for what may be there.
    assert!(existing.is_empty(), "{existing:?}");
    assert!(next(&mut events).await.starts_with("disconnected from domain /"));
    for level in ["", "e", "e/f"] {
        nothing_within(&mut events, Duration::from_millis(50)).await.unwrap();
        directory.make(level);
    }
    assert!(next(&mut events).await.starts_with("synced with domain /"));
    directory.make("e/f/g");
    let _web = directory.qemu("e/f/web");
    assert_eq!(next(&mut events).await, "e/f/web started (booted)");
    let _db = directory.qemu("e/f/g/db");
    assert_eq!(next(&mut events).await, "e/f/g/db started (booted)");
}

#[tokio::test]
async fn an_absent_directory_is_a_gap_with_a_reason() {
    let directory = TestDirectory::absent();
    let source = QmpDir::new(&directory.uri()).unwrap().source();
    for _ in 0..2 {
        // The second subscriber receives the gap as well.
        let mut events = source.subscribe_with(Options::default()).await.unwrap();
        let delivered = until_synced(&mut events).await.unwrap();
        assert!(delivered.is_empty(), "{delivered:?}");
        let event = next_within(&mut events, PATIENCE).await.unwrap();
        let DomainEvent::Gap(Gap { kind: GapKind::Disconnected { fault, .. }, .. }) = event else {
            panic!("{event}");
        };
        assert!(fault.to_string().contains("the directory does not exist yet"), "{fault}");
        assert!(fault.to_string().contains(&directory.path("").display().to_string()), "{fault}");
    }
}

#[tokio::test]
async fn a_removed_directory_stops_no_domain_and_is_watched_again() {
    let directory = TestDirectory::new();
    directory.make("sub");
    let web = directory.qemu("web");
    let db = directory.qemu("sub/db");
    let (mut events, _) = directory.watch().await;
    fs::remove_dir_all(directory.path("")).unwrap();
    nothing_within(&mut events, SILENCE).await.unwrap();
    goes_on(&web, "web", &mut events).await;
    db.end(None);
    assert_eq!(next(&mut events).await, "sub/db stopped (failed)");
    directory.make("");
    let _mail = directory.qemu("mail");
    assert_eq!(next(&mut events).await, "mail started (booted)");
    goes_on(&web, "web", &mut events).await;
}

#[tokio::test]
async fn a_directory_renamed_away_and_back_stops_no_domain() {
    let directory = TestDirectory::new();
    let web = directory.qemu("web");
    let (mut events, _) = directory.watch().await;
    let away = directory.0.path().join("away");
    fs::rename(directory.path(""), &away).unwrap();
    nothing_within(&mut events, SILENCE).await.unwrap();
    // A change in the directory under its other name is not delivered.
    let _elsewhere = FakeQemu::at(&away.join("db.sock"), "db").unwrap();
    nothing_within(&mut events, SILENCE).await.unwrap();
    goes_on(&web, "web", &mut events).await;
    fs::rename(&away, directory.path("")).unwrap();
    assert_eq!(next(&mut events).await, "db started (booted)");
    goes_on(&web, "web", &mut events).await;
    assert_eq!(web.accepted(), 1);
    // The QEMU is connected to again at its new path.
    web.cut();
    assert_eq!(next(&mut events).await, "disconnected from domain web");
    assert_eq!(next(&mut events).await, "synced with domain web");
}

#[tokio::test]
async fn a_file_in_place_of_the_directory_is_an_error_then_an_outage() {
    let directory = TestDirectory::absent();
    fs::write(directory.path(""), "").unwrap();
    let source = QmpDir::new(&directory.uri()).unwrap().source();
    let error = source.subscribe_with(Options::default()).await.unwrap_err().to_line();
    assert!(error.contains("not a directory") && error.contains("qmp:"), "{error}");
    fs::remove_file(directory.path("")).unwrap();
    directory.make("");
    let web = directory.qemu("web");
    let (mut events, existing) = watch(&source).await;
    assert_eq!(existing, ["web existing (running)"]);
    let away = directory.0.path().join("away");
    fs::rename(directory.path(""), &away).unwrap();
    fs::write(directory.path(""), "").unwrap();
    assert_eq!(next(&mut events).await, "disconnected from");
    assert!(matches!(source.health().status(), Status::Disconnected(_)));
    let _db = FakeQemu::at(&away.join("db.sock"), "db").unwrap();
    fs::remove_file(directory.path("")).unwrap();
    fs::rename(&away, directory.path("")).unwrap();
    let delivered = some(&mut events, 2).await;
    assert_eq!(delivered, ["db started [inferred]", "synced with"]);
    goes_on(&web, "web", &mut events).await;
    assert_eq!(web.accepted(), 1);
}

#[tokio::test]
async fn an_unreadable_directory_is_the_only_outage() {
    let directory = TestDirectory::new();
    let web = directory.qemu("web");
    drop(UnixListener::bind(directory.path("stale.sock")).unwrap());
    let (mut events, _) = directory.watch().await;
    let away = directory.0.path().join("away");
    fs::rename(directory.path(""), &away).unwrap();
    fs::write(directory.path(""), "").unwrap();
    assert_eq!(next(&mut events).await, "disconnected from");
    // Longer than the grace of a socket that cannot be connected to: it is no outage of its own.
    nothing_within(&mut events, Duration::from_secs(1)).await.unwrap();
    fs::remove_file(directory.path("")).unwrap();
    fs::rename(&away, directory.path("")).unwrap();
    assert_eq!(next(&mut events).await, "synced with");
    goes_on(&web, "web", &mut events).await;
}

#[tokio::test]
async fn an_overflow_of_notifications_loses_nothing() {
    let directory = TestDirectory::new();
    let (mut events, _) = directory.watch().await;
    let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let most: usize = most.trim().parse().unwrap();
    // The runtime has one thread, so that no notification is read meanwhile and the queue
    // overflows.
    for _ in 0..most / 2 + 10 {
        fs::create_dir(directory.path("x")).unwrap();
        fs::remove_dir(directory.path("x")).unwrap();
    }
    let web = directory.qemu("web");
    assert_eq!(next(&mut events).await, "web started (booted)");
    web.end(None);
    assert_eq!(next(&mut events).await, "web stopped (failed)");
}

#[tokio::test]
async fn a_change_without_a_notification_is_found_by_a_rescan() {
    let directory = TestDirectory::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("web");
    symlink(&target, directory.path("web.sock")).unwrap();
    let seldom = QmpDir::new(&directory.uri()).unwrap().source();
    let often =
        QmpDir::new(&directory.uri()).unwrap().look_every(Duration::from_millis(50)).source();
    let ((mut seldom, _), (mut often, _)) = (watch(&seldom).await, watch(&often).await);
    let _web = FakeQemu::at(&target, "web").unwrap();
    assert_eq!(next(&mut often).await, "web started (booted)");
    nothing_within(&mut seldom, SILENCE).await.unwrap();
}

#[tokio::test]
async fn all_monitors_are_released_with_the_last_subscriber() {
    let directory = TestDirectory::new();
    let qemus = [directory.qemu("web"), directory.qemu("db")];
    let source = QmpDir::new(&directory.uri()).unwrap().source();
    for round in 1..=3 {
        let (events, existing) = watch(&source).await;
        assert_eq!(existing.len(), 2);
        assert!(is_watched(&directory.path("")));
        events.close().await;
        // A scan that is under way ends before the watch does.
        while is_watched(&directory.path("")) {
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
