//! QEMUs that are out of reach, or that cannot be told apart.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use virevent::driver::Settings;
use virevent::{EventSource, Options};
use virevent_qemu::QmpDir;
use virevent_testkit::assert::{next_within, nothing_within};
use virevent_testkit::qmp::FakeQemu;

use super::{PATIENCE, SILENCE, TestDirectory, goes_on, in_short, next, watch};

#[tokio::test]
async fn a_held_monitor_is_a_gap_and_delays_no_other() {
    let place = TestDirectory::new();
    let (_web, held) = (place.qemu("web"), place.qemu("held"));
    held.change(|faults| faults.deaf = true);
    let began = Instant::now();
    let (mut events, existing) = place.watch().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(existing, ["web existing (running)"]);
    let gap = next_within(&mut events, SILENCE).await.unwrap();
    assert_eq!(in_short(&gap), "disconnected from domain held");
    let _db = place.qemu("db");
    assert_eq!(next(&mut events).await, "db started (booted)");
    held.change(|faults| faults.deaf = false);
    held.cut();
    assert_eq!(next(&mut events).await, "held started (booted) [inferred]");
    assert_eq!(next(&mut events).await, "synced with domain held");
    goes_on(&held, "held", &mut events).await;
}

#[tokio::test]
async fn a_held_monitor_whose_qemu_ends_leaves_no_gap() {
    let place = TestDirectory::new();
    let held = place.qemu("held");
    held.change(|faults| faults.deaf = true);
    let (mut events, existing) = place.watch().await;
    assert!(existing.is_empty(), "{existing:?}");
    assert_eq!(next(&mut events).await, "disconnected from domain held");
    held.end(None);
    assert_eq!(next(&mut events).await, "synced with domain held");
}

#[tokio::test]
async fn a_gap_in_one_delays_no_other() {
    let place = TestDirectory::new();
    let (web, db) = (place.qemu("web"), place.qemu("db"));
    let (mut events, _) = place.watch().await;
    db.change(|faults| faults.hang_up = true);
    db.cut();
    goes_on(&web, "web", &mut events).await;
    assert_eq!(next(&mut events).await, "disconnected from domain db");
    goes_on(&web, "web", &mut events).await;
    db.set_status("paused");
    db.change(|faults| faults.hang_up = false);
    assert_eq!(next(&mut events).await, "db suspended (paused) [inferred]");
    assert_eq!(next(&mut events).await, "synced with domain db");
}

#[tokio::test]
async fn a_later_subscriber_receives_the_gaps() {
    let place = TestDirectory::new();
    let (_web, db) = (place.qemu("web"), place.qemu("db"));
    let source = QmpDir::new(&place.uri()).unwrap().source();
    let (mut events, _) = watch(&source).await;
    db.change(|faults| faults.hang_up = true);
    db.cut();
    assert_eq!(next(&mut events).await, "disconnected from domain db");
    let (mut later, existing) = watch(&source).await;
    assert_eq!(existing, ["db existing (running)", "web existing (running)"]);
    assert_eq!(next(&mut later).await, "disconnected from domain db");
}

#[tokio::test]
async fn a_second_qemu_with_the_same_uuid_gets_another() {
    let place = TestDirectory::new();
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

/// A socket at which everybody who comes is told this, and then nothing more. How many came.
fn other(place: &TestDirectory, name: &str, says: &'static [u8]) -> Arc<AtomicU64> {
    let listener = UnixListener::bind(place.path(name)).unwrap();
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            counted.fetch_add(1, Ordering::SeqCst);
            // They may have gone.
            let _ = client.write_all(says);
            let _ = client.read(&mut [0; 16]);
        }
    });
    count
}

#[tokio::test]
async fn a_foreign_socket_is_ignored_until_its_file_changes() {
    let place = TestDirectory::new();
    let others = [
        other(&place, "hmp.sock", b"QEMU 7.2.22 monitor - type 'help' for more information\r\n"),
        other(&place, "vnc.sock", b"RFB 003.008\n"),
        other(&place, "serial.sock", b"\r\nweb login: "),
    ];
    let _datagrams = UnixDatagram::bind(place.path("log.sock")).unwrap();
    let (mut events, existing) = place.watch().await;
    assert!(existing.is_empty(), "{existing:?}");
    nothing_within(&mut events, 5 * SILENCE).await.unwrap();
    for other in &others {
        assert_eq!(other.load(Ordering::SeqCst), 1);
    }
    let file = place.path("serial.sock");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    nothing_within(&mut events, SILENCE).await.unwrap();
    assert_eq!(others[2].load(Ordering::SeqCst), 2);
    fs::remove_file(&file).unwrap();
    let _serial = place.qemu("serial");
    assert_eq!(next(&mut events).await, "serial started (booted)");
}

#[tokio::test]
async fn verification_goes_on_beside_a_qemu_that_hangs() {
    let place = TestDirectory::new();
    let web = place.qemu("web");
    let db = place.qemu("db");
    let source = QmpDir::new(&place.uri())
        .unwrap()
        .keepalive(10 * PATIENCE, SILENCE)
        .settings(Settings::default().verify(Some(SILENCE)))
        .source();
    let (mut events, existing) = watch(&source).await;
    assert_eq!(existing, ["db existing (running)", "web existing (running)"]);
    db.change(|faults| faults.unanswered = vec!["query-status".into()]);
    assert_eq!(next(&mut events).await, "disconnected from domain db");
    for (status, told) in [("suspended", "web pm_suspended"), ("running", "web started (wakeup)")] {
        web.set_status(status);
        assert!(next(&mut events).await.starts_with(told));
    }
    // It was left out of each list, and is still there.
    db.change(|faults| faults.unanswered.clear());
    db.cut();
    assert_eq!(next(&mut events).await, "synced with domain db");
    goes_on(&db, "db", &mut events).await;
    let health = source.health();
    assert!(health.verified().is_some());
}

#[tokio::test]
async fn a_storage_daemon_is_no_domain_of_a_directory() {
    let place = TestDirectory::new();
    let _web = place.qemu("web");
    let daemon = place.qemu("daemon");
    let lacks = ["query-name", "query-uuid", "query-cpus-fast", "query-status"];
    daemon.change(|faults| faults.lacks = lacks.map(String::from).to_vec());
    let (mut events, existing) = place.watch().await;
    assert_eq!(existing, ["web existing (running)"]);
    nothing_within(&mut events, SILENCE).await.unwrap();
    assert_eq!(daemon.accepted(), 1, "it is left alone");
}

#[tokio::test]
async fn a_silent_socket_is_released_and_retried_later() {
    let place = TestDirectory::new();
    let listener = UnixListener::bind(place.path("console.sock")).unwrap();
    let source = QmpDir::new(&place.uri()).unwrap().greeting_timeout(SILENCE).source();
    let (mut events, existing) = watch(&source).await;
    assert!(existing.is_empty(), "{existing:?}");
    assert_eq!(next(&mut events).await, "disconnected from domain console");
    let (mut first, _) = listener.accept().unwrap();
    first.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(first.read(&mut [0]).unwrap(), 0);
    listener.set_nonblocking(true).unwrap();
    let left = Instant::now();
    while listener.accept().is_err() {
        assert!(left.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(left.elapsed() > Duration::from_secs(4), "{:?}", left.elapsed());
    nothing_within(&mut events, SILENCE).await.unwrap();
    fs::remove_file(place.path("console.sock")).unwrap();
    assert_eq!(next(&mut events).await, "synced with domain console");
}

/// Runs the test on a thread that must obey the modes of files, even if the process is root's.
///
/// Linux keeps capabilities a thread, and a thread that it makes inherits them: the runtime's own
/// are bound by the modes as well. The process stays what it is, so it does not matter who runs the
/// test, nor where its executable or the temporary directory is.
fn bound_by_modes<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    let thread = std::thread::spawn(|| {
        let mut sets = capabilities(None).unwrap();
        let beyond_modes = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        sets.effective.remove(beyond_modes);
        set_capabilities(None, sets).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn an_unreadable_sub_directory_is_a_gap_and_no_stop() {
    bound_by_modes(|| async {
        let place = TestDirectory::new();
        place.make("sub");
        let (web, db) = (place.qemu("sub/web"), place.qemu("db"));
        let (mut events, _) = place.watch().await;
        let chmod = |mode| {
            fs::set_permissions(place.path("sub"), fs::Permissions::from_mode(mode)).unwrap();
        };
        for mode in [0o000, 0o600] {
            chmod(mode);
            let gap = next_within(&mut events, PATIENCE).await.unwrap();
            assert_eq!(in_short(&gap), "disconnected from domain sub");
            assert!(gap.to_string().contains("r-x on") || mode != 0, "{gap}");
            goes_on(&web, "sub/web", &mut events).await;
            web.cut();
            assert_eq!(next(&mut events).await, "disconnected from domain sub/web");
            assert_eq!(next(&mut events).await, "synced with domain sub/web");
            goes_on(&web, "sub/web", &mut events).await;
            goes_on(&db, "db", &mut events).await;
            let below = QmpDir::new(&format!("{}/sub/xyz", place.uri())).unwrap().source();
            let error = below.subscribe_with(Options::default()).await.unwrap_err().to_line();
            let forbidden = format!("go through {}: run as", place.path("sub").display());
            assert!(error.contains(&forbidden), "{error}");
            // Who comes now is told it too. The monitors have a client.
            let source = QmpDir::new(&place.uri()).unwrap().source();
            let (mut later, existing) = watch(&source).await;
            assert!(existing.is_empty(), "{existing:?}");
            let mut gaps = super::some(&mut later, 2).await;
            gaps.sort();
            assert_eq!(gaps, ["disconnected from domain db", "disconnected from domain sub"]);
            drop(later);
            chmod(0o755);
            assert_eq!(next(&mut events).await, "synced with domain sub");
            goes_on(&web, "sub/web", &mut events).await;
        }
    });
}
