//! Against real QEMUs: `cargo test -- --ignored`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod guests;
mod migration;
mod notices;
mod resume;

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixStream;
use virevent::{EventSource, EventStream, Kind, Options};
use virevent_qemu::Qmp;
use virevent_testkit::assert::{in_short, next_within, until_synced};
use virevent_testkit::servers::{Guest, Qemu, QemuConfig};

/// Far longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn quick(uri: &str) -> Qmp {
    let short = Duration::from_millis(300);
    Qmp::new(uri)
        .unwrap()
        .look_every(Duration::from_millis(20))
        .greeting_timeout(short)
        .keepalive(short, short)
}

fn all() -> Options {
    Options::default().kind(Kind::Lifecycle).kind(Kind::Reboot).kind(Kind::Other)
}

/// A stream that is synced, and the events until then.
async fn watch(uri: &str, options: Options) -> (EventStream, Vec<String>) {
    // The keepalive is too slow to find a state: the events are delivered for another reason.
    let source = Qmp::new(uri)
        .unwrap()
        .look_every(Duration::from_millis(20))
        .keepalive(10 * PATIENCE, PATIENCE)
        .source();
    let mut events = source.subscribe_with(options).await.unwrap();
    let delivered = until_synced(&mut events).await.unwrap();
    (events, delivered.iter().map(in_short).collect())
}

/// The events up to the first that contains this.
async fn delivered_until(events: &mut EventStream, last: &str) -> Vec<String> {
    let mut delivered: Vec<String> = Vec::new();
    while !delivered.last().is_some_and(|line| line.contains(last)) {
        match next_within(events, PATIENCE).await {
            Ok(event) => delivered.push(in_short(&event)),
            Err(failure) => panic!("{failure}, after {delivered:#?}"),
        }
    }
    delivered
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_machine_is_delivered_from_its_start_to_its_end() {
    let mut qemu = QemuConfig::default().name("web, or so").start().await.unwrap();
    let (mut events, existing) = watch(&qemu.uri(), all()).await;
    assert_eq!(existing, ["web, or so existing (paused (starting_up))"]);
    for (command, delivered) in [
        ("cont", "web, or so resumed (unpaused)"),
        ("stop", "web, or so suspended (paused)"),
        ("cont", "web, or so resumed (unpaused)"),
        ("system_reset", "web, or so rebooted"),
        ("system_powerdown", "web, or so event POWERDOWN {}"),
    ] {
        qemu.run(command).await.unwrap();
        // Before the next command: it would change the run state that gives the cause of a pause.
        assert_eq!(in_short(&next_within(&mut events, PATIENCE).await.unwrap()), delivered);
    }
    qemu.run("quit").await.unwrap();
    let delivered = delivered_until(&mut events, "stopped").await;
    assert_eq!(delivered, ["web, or so shutting_down (host)", "web, or so stopped (destroyed)"]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn the_next_qemu_at_a_socket_is_started_with_the_same_uuid() {
    let mut first = QemuConfig::default().running().start().await.unwrap();
    let socket = first.socket().to_owned();
    let (mut events, existing) = watch(&first.uri(), Options::default()).await;
    assert_eq!(existing, ["vm existing (running)"]);
    let pid = first.pid();
    first.signal("KILL");
    first.wait().await.unwrap();
    let stopped = next_within(&mut events, PATIENCE).await.unwrap();
    assert_eq!(in_short(&stopped), "vm stopped (failed)");
    assert_eq!(stopped.domain().unwrap().id(), pid);
    let second = QemuConfig::default().socket(&socket).start().await.unwrap();
    let started = next_within(&mut events, PATIENCE).await.unwrap();
    assert_eq!(in_short(&started), "vm started (booted)");
    let old = stopped.domain().unwrap();
    let new = started.domain().unwrap();
    assert!(old.is_same(new) && new.id() == second.pid());
    assert_eq!(delivered_until(&mut events, "suspended").await, ["vm suspended (paused)"]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_qemu_ended_by_a_signal_is_destroyed() {
    let qemu = QemuConfig::default().running().start().await.unwrap();
    let (mut events, _) = watch(&qemu.uri(), Options::default()).await;
    qemu.signal("TERM");
    let delivered = delivered_until(&mut events, "stopped").await;
    assert_eq!(delivered, ["vm shutting_down (host)", "vm stopped (destroyed)"]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_frozen_qemu_is_a_gap_and_never_stopped() {
    let mut qemu = QemuConfig::default().running().start().await.unwrap();
    let source = quick(&qemu.uri()).source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    qemu.signal("STOP");
    let delivered = delivered_until(&mut events, "disconnected").await;
    assert_eq!(delivered.len(), 1, "{delivered:?}");
    assert!(next_within(&mut events, Duration::from_secs(3)).await.is_err());
    assert!(matches!(source.health().status(), virevent::Status::Disconnected(_)));
    qemu.signal("CONT");
    assert_eq!(delivered_until(&mut events, "synced").await.len(), 1);
    qemu.run("stop").await.unwrap();
    assert_eq!(delivered_until(&mut events, "susp").await, ["vm suspended (paused)"]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_frozen_qemu_that_is_killed_is_stopped_at_once() {
    let qemu = QemuConfig::default().running().start().await.unwrap();
    let mut events = quick(&qemu.uri()).source().subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    qemu.signal("STOP");
    delivered_until(&mut events, "disconnected").await;
    qemu.signal("KILL");
    let delivered = delivered_until(&mut events, "synced").await;
    assert_eq!(delivered[0], "vm stopped (failed) [inferred]");
    assert!(delivered[1].contains("(0 domains)"), "{delivered:?}");
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_held_monitor_is_an_error_until_it_is_released() {
    let qemu = QemuConfig::default().running().start().await.unwrap();
    let mut holder = BufReader::new(UnixStream::connect(qemu.socket()).await.unwrap());
    holder.read_line(&mut String::new()).await.unwrap();
    let source = quick(&qemu.uri()).source();
    let error = source.subscribe_with(Options::default()).await.unwrap_err().to_line();
    assert!(error.contains("another client holds"), "{error}");
    let mut events = source.subscribe_with(Options::default().wait(true)).await.unwrap();
    delivered_until(&mut events, "disconnected").await;
    drop(holder);
    let delivered = delivered_until(&mut events, "synced").await;
    assert_eq!(delivered[0], "vm existing (running)");
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn subscribers_share_a_monitor_and_the_last_releases_it() {
    let mut qemu = QemuConfig::default().running().start().await.unwrap();
    let source = quick(&qemu.uri()).source();
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(source.subscribe_with(Options::default()).await.unwrap());
    }
    assert!(qemu.is_held().await.unwrap());
    for stream in streams {
        stream.close().await;
    }
    qemu.until_free().await.unwrap();
    source.subscribe_with(Options::default()).await.unwrap();
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn the_end_of_a_qemu_on_a_tcp_port_is_no_gap() {
    for command in ["quit", "quit", "quit", "KILL", "KILL", "KILL"] {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut qemu = QemuConfig::default().name("web").tcp(free).running().start().await.unwrap();
        // The default interval over TCP.
        let source = Qmp::new(&qemu.uri()).unwrap().source();
        let mut events = source.subscribe_with(all()).await.unwrap();
        until_synced(&mut events).await.unwrap();
        // A connection older than the interval is replaced at once when it breaks.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let expected = if command == "quit" {
            qemu.run("quit").await.unwrap();
            vec!["web shutting_down (host)", "web stopped (destroyed)"]
        } else {
            qemu.signal(command);
            vec!["web stopped (failed)"]
        };
        assert_eq!(delivered_until(&mut events, "stopped").await, expected);
    }
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_real_storage_daemon_is_no_virtual_machine() {
    let home = tempfile::Builder::new().prefix("vq").tempdir().unwrap();
    let socket = home.path().join("vm.sock");
    let chardev = format!("socket,id=m,path={},server=on,wait=off", socket.display());
    let mut daemon = tokio::process::Command::new("qemu-storage-daemon")
        .args(["--chardev", &chardev, "--monitor", "chardev=m"])
        // The test may fail before it ends the daemon.
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let uri = format!("qmp:{}", socket.display());
    let source = Qmp::new(&uri).unwrap().source();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let error = loop {
        let error = source.subscribe_with(Options::default()).await.unwrap_err().to_line();
        if !error.contains("no such socket") {
            break error;
        }
        assert!(tokio::time::Instant::now() < deadline, "it does not listen");
    };
    assert!(error.contains("no virtual machine"), "{error}");
    daemon.kill().await.unwrap();
}

#[tokio::test]
#[ignore = "needs qemu and root"]
async fn a_qemu_in_a_pid_namespace_is_distinguished_from_the_next() {
    let guest = || QemuConfig::default().name("web").guest(Guest::idle("web")).running();
    let home = tempfile::Builder::new().prefix("vq").tempdir().unwrap();
    let socket = home.path().join("vm.sock");
    let mut first = guest().in_pid_namespace().socket(&socket).start().await.unwrap();
    let (mut events, existing) = watch(&first.uri(), Options::default()).await;
    assert_eq!(existing, ["web existing (running)"]);
    for _ in 0..5 {
        // The successor listens before the first has ended, and its threads have the same numbers.
        let second = guest().in_pid_namespace().socket(&socket).start().await.unwrap();
        first.signal("KILL");
        let delivered = delivered_until(&mut events, "started").await;
        assert_eq!(delivered, ["web stopped (failed)", "web started (booted)"]);
        first = second;
    }
}

/// Kills a QEMU that is not our child.
struct Orphan(rustix::process::Pid);

impl Orphan {
    fn kill(&self) {
        // Fails if it has ended already.
        let _ = rustix::process::kill_process(self.0, rustix::process::Signal::KILL);
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The variable with the path at which the manager of the test below makes a socket.
const MANAGED: &str = "VIREVENT_MANAGED_SOCKET";

/// Not a test, but the manager of the test below, which runs it as a process of its own. Without
/// the variable it does nothing.
#[test]
#[ignore = "a helper of the test below"]
fn helper_that_is_the_manager() {
    let Ok(socket) = std::env::var(MANAGED) else { return };
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let handed_on = std::os::fd::OwnedFd::from(listener.try_clone().unwrap());
    let args = "-nodefaults -display none -machine none -chardev \
                socket,id=mon,fd=0,server=on,wait=off -mon chardev=mon,mode=control";
    // Not killed on drop: it must outlive its manager.
    #[allow(clippy::zombie_processes)]
    let qemu = std::process::Command::new("qemu-system-x86_64")
        .args(args.split_whitespace())
        .stdin(handed_on)
        .spawn()
        .unwrap();
    std::fs::write(format!("{socket}.part"), qemu.id().to_string()).unwrap();
    std::fs::rename(format!("{socket}.part"), format!("{socket}.pid")).unwrap();
    // Runs until the test closes its standard input.
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn the_end_of_the_socket_owner_is_not_the_end_of_qemu() {
    let home = tempfile::Builder::new().prefix("vq").tempdir().unwrap();
    let socket = home.path().join("vm.sock");
    let mut manager = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper_that_is_the_manager", "--ignored"])
        .env(MANAGED, &socket)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let pid = loop {
        if let Ok(pid) = std::fs::read_to_string(home.path().join("vm.sock.pid")) {
            break pid.parse().unwrap();
        }
        assert!(tokio::time::Instant::now() < deadline, "the manager does not start a QEMU");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let qemu = Orphan(rustix::process::Pid::from_raw(pid).unwrap());
    let (mut events, existing) = watch(&format!("qmp:{}", socket.display()), all()).await;
    assert_eq!(existing, ["vm existing (running)"]);
    drop(manager.stdin.take());
    manager.wait().unwrap();
    assert!(next_within(&mut events, Duration::from_secs(2)).await.is_err());
    qemu.kill();
    assert_eq!(delivered_until(&mut events, "stopped").await, ["vm stopped (failed)"]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn an_absent_or_deserted_socket_is_an_error_with_advice() {
    let qemu = Qemu::start().await.unwrap();
    let socket = qemu.socket().with_file_name("none.sock");
    let refusal = async |path: &std::path::Path| {
        let source = quick(&format!("qmp:{}", path.display())).source();
        source.subscribe_with(Options::default()).await.unwrap_err().to_line()
    };
    let error = refusal(&socket).await;
    assert!(error.contains("no such socket") && error.contains("-qmp unix:"), "{error}");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let error = refusal(&socket).await;
    assert!(error.contains("its QEMU has ended"), "{error}");
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn the_monitor_of_the_launcher_survives_a_garbled_command() {
    let mut qemu = Qemu::start().await.unwrap();
    let error = qemu.run_with("stop", "}").await.unwrap_err().to_string();
    assert!(error.contains("JSON parse error"), "{error}");
    assert!(qemu.run("query-status").await.unwrap().contains("prelaunch"));
}
