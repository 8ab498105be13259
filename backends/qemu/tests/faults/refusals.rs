//! What ends in a clear error.

use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::process::{Resource, Rlimit};
use tokio::io::AsyncWriteExt;
use virevent::{EventSource, Options};
use virevent_qemu::Qmp;
use virevent_testkit::qmp::FakeQemu;

use super::{PATIENCE, SHORT, refusal};

#[tokio::test]
async fn what_is_no_monitor_is_a_clear_error() {
    let qemu = FakeQemu::start("web").unwrap();
    qemu.change(|faults| faults.before_greeting = b"QEMU 7.2.22 monitor\r\n".to_vec());
    let error = refusal(&qemu).await;
    assert!(error.contains("no QMP greeting") && error.contains("-monitor"), "{error}");
}

#[tokio::test]
async fn a_monitor_that_says_nothing_is_a_clear_error_within_the_deadline() {
    let qemu = FakeQemu::start("web").unwrap();
    qemu.change(|faults| faults.deaf = true);
    let error = refusal(&qemu).await;
    assert!(error.contains("another client holds this monitor"), "{error}");
}

#[tokio::test]
async fn a_monitor_that_greets_and_answers_nothing_is_not_taken_for_one_that_is_held() {
    let qemu = FakeQemu::start("web").unwrap();
    qemu.change(|faults| faults.unanswered = vec!["qmp_capabilities".into()]);
    let error = refusal(&qemu).await;
    assert!(error.contains("does not answer") && error.contains("SIGSTOP"), "{error}");
    assert!(!error.contains("holds"), "{error}");
}

#[tokio::test]
async fn what_is_no_socket_is_a_clear_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    for path in [directory.path(), &file] {
        let source = Qmp::new(&format!("qmp:{}", path.display())).unwrap().source();
        let error = source.subscribe_with(Options::default()).await.unwrap_err().to_line();
        assert!(error.contains("not a socket") && error.contains("-qmp unix:"), "{error}");
        assert!(!error.contains("has ended"), "{error}");
    }
}

#[tokio::test]
async fn a_socket_of_datagrams_is_a_clear_error() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("vm.sock");
    let _socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let source = Qmp::new(&format!("qmp:{}", path.display())).unwrap().source();
    let error = source.subscribe_with(Options::default()).await.unwrap_err().to_line();
    assert!(error.contains("datagrams") && error.contains("no monitor"), "{error}");
}

#[tokio::test]
async fn a_qemu_that_hangs_up_midway_through_the_questions_is_a_clear_error() {
    for question in ["qmp_capabilities", "query-name", "query-status"] {
        let qemu = FakeQemu::start("web").unwrap();
        qemu.change(|faults| faults.hang_up_at = vec![question.into()]);
        let error = refusal(&qemu).await;
        assert!(error.contains("hung up in the midst"), "{error}");
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
    let error = source.subscribe_with(Options::default()).await.unwrap_err().to_line();
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
    let error = source.subscribe_with(Options::default()).await.unwrap_err().to_line();
    assert!(error.contains("nothing answers") && !error.contains("lets us in"), "{error}");
}

#[tokio::test]
async fn what_ends_before_it_began_is_told_with_what_to_look_at() {
    let qemu = FakeQemu::start("web").unwrap();
    qemu.change(|faults| faults.hang_up = true);
    let error = refusal(&qemu).await;
    assert!(error.contains("before its greeting") && error.contains("ss -xlp"), "{error}");
    qemu.change(|faults| (faults.hang_up, faults.deaf) = (false, true));
    let error = refusal(&qemu).await;
    assert!(error.contains("or it is no QMP socket"), "{error}");
}

#[test]
fn a_qemu_that_cannot_be_watched_for_want_of_files_is_not_watched_in_part() {
    const URI: &str = "VIREVENT_TEST_URI";

    // In a process of its own, which may open no more files than the connection.
    let name = "refusals::a_qemu_that_cannot_be_watched_for_want_of_files_is_not_watched_in_part";
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
