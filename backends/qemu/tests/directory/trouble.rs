//! QEMUs that are unreachable, indistinguishable, or no QEMUs.

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
use virevent_testkit::fakes::qemu::FakeQemu;

use super::{PATIENCE, SILENCE, TestDirectory, goes_on, in_short, next, watch};

#[tokio::test]
async fn a_held_monitor_is_a_gap_and_delays_no_other() {
    let directory = TestDirectory::new();
    let _web = directory.qemu("web");
    let held = directory.qemu("held");
    held.change(|faults| faults.deaf = true);
    let began = Instant::now();
    let (mut events, existing) = directory.watch().await;
    // A first list waits a second for answers, and not for the greeting's deadline of 5 s.
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(existing, ["web existing (running)"]);
    let gap = next_within(&mut events, SILENCE).await.unwrap();
    assert_eq!(in_short(&gap), "disconnected from domain held");
    let _db = directory.qemu("db");
    assert_eq!(next(&mut events).await, "db started (booted)");
    held.change(|faults| faults.deaf = false);
    held.cut();
    assert_eq!(next(&mut events).await, "held started (booted) [inferred]");
    assert_eq!(next(&mut events).await, "synced with domain held");
    goes_on(&held, "held", &mut events).await;
}

#[tokio::test]
async fn a_held_monitor_whose_qemu_ends_leaves_no_gap() {
    let directory = TestDirectory::new();
    let held = directory.qemu("held");
    held.change(|faults| faults.deaf = true);
    let (mut events, existing) = directory.watch().await;
    assert!(existing.is_empty(), "{existing:?}");
    assert_eq!(next(&mut events).await, "disconnected from domain held");
    held.end(None);
    assert_eq!(next(&mut events).await, "synced with domain held");
}

#[tokio::test]
async fn a_gap_in_one_delays_no_other() {
    let directory = TestDirectory::new();
    let web = directory.qemu("web");
    let db = directory.qemu("db");
    let (mut events, _) = directory.watch().await;
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
    let directory = TestDirectory::new();
    let _web = directory.qemu("web");
    let db = directory.qemu("db");
    let source = QmpDir::new(&directory.uri()).unwrap().source();
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
    let directory = TestDirectory::new();
    let one = directory.qemu("web");
    let (mut events, _) = directory.watch().await;
    let two = FakeQemu::at(&directory.path("copy.sock"), "web").unwrap();
    let started = next_within(&mut events, PATIENCE).await.unwrap();
    assert_eq!(in_short(&started), "web started (booted)");
    one.end(None);
    let stopped = next_within(&mut events, PATIENCE).await.unwrap();
    assert_eq!(in_short(&stopped), "web stopped (failed)");
    assert!(!started.domain().unwrap().is_same(stopped.domain().unwrap()));
    goes_on(&two, "web", &mut events).await;
}

/// Makes a socket that sends this to each client, and nothing more. Returns the number of clients.
fn other(directory: &TestDirectory, name: &str, says: &'static [u8]) -> Arc<AtomicU64> {
    let listener = UnixListener::bind(directory.path(name)).unwrap();
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            counted.fetch_add(1, Ordering::SeqCst);
            // The client may have disconnected.
            let _ = client.write_all(says);
            let _ = client.read(&mut [0; 16]);
        }
    });
    count
}

#[tokio::test]
async fn a_foreign_socket_is_ignored_until_its_file_changes() {
    let directory = TestDirectory::new();
    let others = [
        other(
            &directory,
            "hmp.sock",
            b"QEMU 7.2.22 monitor - type 'help' for more information\r\n",
        ),
        other(&directory, "vnc.sock", b"RFB 003.008\n"),
        other(&directory, "serial.sock", b"\r\nweb login: "),
    ];
    let _datagrams = UnixDatagram::bind(directory.path("log.sock")).unwrap();
    let (mut events, existing) = directory.watch().await;
    assert!(existing.is_empty(), "{existing:?}");
    nothing_within(&mut events, 5 * SILENCE).await.unwrap();
    for other in &others {
        assert_eq!(other.load(Ordering::SeqCst), 1);
    }
    let file = directory.path("serial.sock");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    nothing_within(&mut events, SILENCE).await.unwrap();
    assert_eq!(others[2].load(Ordering::SeqCst), 2);
    fs::remove_file(&file).unwrap();
    let _serial = directory.qemu("serial");
    assert_eq!(next(&mut events).await, "serial started (booted)");
}

#[tokio::test]
async fn verification_goes_on_beside_a_qemu_that_hangs() {
    let directory = TestDirectory::new();
    let web = directory.qemu("web");
    let db = directory.qemu("db");
    let source = QmpDir::new(&directory.uri())
        .unwrap()
        .keepalive(10 * PATIENCE, SILENCE)
        .settings(Settings::default().verify(Some(SILENCE)))
        .source();
    let (mut events, existing) = watch(&source).await;
    assert_eq!(existing, ["db existing (running)", "web existing (running)"]);
    db.change(|faults| faults.unanswered = vec!["query-status".into()]);
    assert_eq!(next(&mut events).await, "disconnected from domain db");
    for (status, delivered) in
        [("suspended", "web pm_suspended"), ("running", "web started (wakeup)")]
    {
        web.set_status(status);
        assert!(next(&mut events).await.starts_with(delivered));
    }
    // The lists left it out, and still it is a domain.
    db.change(|faults| faults.unanswered.clear());
    db.cut();
    assert_eq!(next(&mut events).await, "synced with domain db");
    goes_on(&db, "db", &mut events).await;
    let health = source.health();
    assert!(health.verified().is_some());
}

#[tokio::test]
async fn a_storage_daemon_is_no_domain_of_a_directory() {
    let directory = TestDirectory::new();
    let _web = directory.qemu("web");
    let daemon = directory.qemu("daemon");
    let lacks = ["query-name", "query-uuid", "query-cpus-fast", "query-status"];
    daemon.change(|faults| faults.lacks = lacks.map(String::from).to_vec());
    let (mut events, existing) = directory.watch().await;
    assert_eq!(existing, ["web existing (running)"]);
    nothing_within(&mut events, SILENCE).await.unwrap();
    assert_eq!(daemon.accepted(), 1, "it is not connected to again");
}

#[tokio::test]
async fn a_silent_socket_is_released_and_retried_later() {
    let directory = TestDirectory::new();
    let listener = UnixListener::bind(directory.path("console.sock")).unwrap();
    let source = QmpDir::new(&directory.uri()).unwrap().greeting_timeout(SILENCE).source();
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
    fs::remove_file(directory.path("console.sock")).unwrap();
    assert_eq!(next(&mut events).await, "synced with domain console");
}

/// Runs the test on a thread that must obey the modes of files, even if root runs it.
///
/// Linux keeps capabilities by thread, and new threads inherit them: the threads of the runtime
/// must obey the modes as well. The process keeps its user, so the test does not depend on who runs
/// it, nor on where its executable or the temporary directory is.
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
        let directory = TestDirectory::new();
        directory.make("sub");
        let web = directory.qemu("sub/web");
        let db = directory.qemu("db");
        let (mut events, _) = directory.watch().await;
        let chmod = |mode| {
            fs::set_permissions(directory.path("sub"), fs::Permissions::from_mode(mode)).unwrap();
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
            let below = QmpDir::new(&format!("{}/sub/xyz", directory.uri())).unwrap().source();
            let error = below.subscribe_with(Options::default()).await.unwrap_err().to_line();
            let forbidden = format!("go through {}: run as", directory.path("sub").display());
            assert!(error.contains(&forbidden), "{error}");
            // A later subscriber receives the gaps, too. The other source holds the monitors.
            let source = QmpDir::new(&directory.uri()).unwrap().source();
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
