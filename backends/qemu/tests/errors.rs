//! What is said of what cannot be watched: what it is, and what to do; and what can be asked of the
//! clock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::process::{Resource, Rlimit};
use tokio::io::AsyncWriteExt;
use virevent::{Break, DomainEvent, EventSource, Gap, Options};
use virevent_qemu::{Qmp, QmpDir};
use virevent_testkit::assert::{next_within, until_synced};
use virevent_testkit::qmp::FakeQemu;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

const SHORT: Duration = Duration::from_millis(200);

async fn refusal(source: &dyn EventSource) -> String {
    let outcome = tokio::time::timeout(PATIENCE, source.subscribe_with(Options::default())).await;
    outcome.expect("subscribing hangs").unwrap_err().to_line()
}

#[tokio::test]
async fn no_time_is_too_short_or_too_long_to_be_waited_for() {
    for time in [Duration::ZERO, Duration::MAX] {
        let (qemu, place) = (FakeQemu::start("web").unwrap(), tempfile::tempdir().unwrap());
        let _db = FakeQemu::at(&place.path().join("db.sock"), "db").unwrap();
        let all_of_it = |qmp: Qmp| qmp.keepalive(time, time).look_every(time);
        let one = all_of_it(Qmp::new(&qemu.uri()).unwrap());
        let one = if time.is_zero() { one } else { one.greeting_timeout(time) };
        let uri = format!("qmp-dir:{}", place.path().display());
        let many = QmpDir::new(&uri).unwrap().keepalive(time, time).look_every(time);
        let many = if time.is_zero() { many } else { many.greeting_timeout(time) };
        for source in [one.source(), many.source()] {
            let mut events = source.subscribe_with(Options::default()).await.unwrap();
            let told = until_synced(&mut events).await.unwrap();
            assert_eq!(told.len(), 1, "{told:?}");
        }
        // The interval at which it is asked for a sign of life is never.
        assert_eq!(qemu.calls("query-status"), 1);
    }
}

#[tokio::test]
async fn what_goes_on_without_an_end_is_not_said_to_say_nothing() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("vm.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let endless = [b"{\"", &[b'x'; 3 * 1024 * 1024][..]].concat();
        client.write_all(&endless).await.unwrap();
        std::future::pending::<()>().await;
    });
    let qmp = Qmp::new(&format!("qmp:{}", path.display())).unwrap();
    let source = qmp.greeting_timeout(Duration::from_secs(1)).source();
    let error = refusal(&source).await;
    assert!(error.contains("bytes within") && !error.contains("says nothing"), "{error}");
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_not_taken_for_a_monitor_that_is_held() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    // Nobody accepts, and so from some number on nobody is answered.
    let mut line = Vec::new();
    loop {
        let stream = tokio::net::TcpStream::connect(address);
        let Ok(stream) = tokio::time::timeout(SHORT, stream).await else { break };
        line.push(stream);
    }
    let qmp = Qmp::new(&format!("qmp+tcp://{address}")).unwrap();
    let source = qmp.greeting_timeout(SHORT).source();
    let error = refusal(&source).await;
    assert!(error.contains("nothing answers") && !error.contains("lets us in"), "{error}");
}

#[tokio::test]
async fn what_ends_before_it_began_is_told_with_what_to_look_at() {
    let qemu = FakeQemu::start("web").unwrap();
    let source = Qmp::new(&qemu.uri()).unwrap().greeting_timeout(SHORT).source();
    qemu.change(|faults| faults.hang_up = true);
    let error = refusal(&source).await;
    assert!(error.contains("before its greeting") && error.contains("ss -xlp"), "{error}");
    qemu.change(|faults| (faults.hang_up, faults.deaf) = (false, true));
    let error = refusal(&source).await;
    assert!(error.contains("or it is no QMP socket"), "{error}");
}

#[tokio::test]
async fn a_socket_of_datagrams_is_a_clear_error() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("vm.sock");
    let _socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let source = Qmp::new(&format!("qmp:{}", path.display())).unwrap().source();
    let error = refusal(&source).await;
    assert!(error.contains("datagrams") && error.contains("no monitor"), "{error}");
}

#[tokio::test]
async fn a_qemu_that_freezes_is_told_as_one_and_not_as_a_server_with_too_many_clients() {
    let qemu = FakeQemu::start("web").unwrap();
    let source = Qmp::new(&qemu.uri()).unwrap().keepalive(SHORT, SHORT).source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    qemu.change(|faults| faults.unanswered = vec!["query-status".into()]);
    let DomainEvent::Gap(Gap { kind: Break::Disconnected { fault }, .. }) =
        next_within(&mut events, PATIENCE).await.unwrap()
    else {
        panic!("expected a gap");
    };
    let message = fault.message();
    assert!(message.contains("vm.sock") && message.contains("SIGSTOP"), "{message}");
    assert!(!message.contains("as many clients"), "{message}");
}

/// In a process of its own, which may open no more files than the connection.
#[test]
fn a_qemu_that_cannot_be_watched_for_want_of_files_is_not_watched_in_part() {
    const URI: &str = "VIREVENT_TEST_URI";

    let name = "a_qemu_that_cannot_be_watched_for_want_of_files_is_not_watched_in_part";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let Ok(uri) = std::env::var(URI) else {
            let qemu = FakeQemu::start("web").unwrap();
            let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", name]).env(URI, qemu.uri()).kill_on_drop(true);
            let output = tokio::time::timeout(PATIENCE, command.output()).await.unwrap().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
            return;
        };
        let next_one = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
        let limit = rustix::process::getrlimit(Resource::Nofile);
        let current = Some(u64::try_from(next_one).unwrap() + 1);
        rustix::process::setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
        let source = Qmp::new(&uri).unwrap().source();
        let outcome = source.subscribe_with(Options::default()).await;
        rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
        let error = outcome.map(|_| ()).unwrap_err().to_line();
        assert!(error.contains("ulimit -n"), "{error}");
    });
}
