//! Subscriptions that fail with advice.

use virevent::{EventSource, Options};
use virevent_qemu::Qmp;
use virevent_testkit::fakes::qemu::FakeQemu;

use super::refusal;

#[tokio::test]
async fn a_socket_that_is_no_monitor_is_an_error_with_advice() {
    let qemu = FakeQemu::start("web").unwrap();
    qemu.change(|faults| faults.before_greeting = b"QEMU 7.2.22 monitor\r\n".to_vec());
    let error = refusal(&qemu).await;
    assert!(error.contains("no QMP greeting") && error.contains("-monitor"), "{error}");
}

#[tokio::test]
async fn a_silent_monitor_is_an_error_within_the_deadline() {
    let qemu = FakeQemu::start("web").unwrap();
    qemu.change(|faults| faults.deaf = true);
    let error = refusal(&qemu).await;
    assert!(error.contains("another client holds this monitor"), "{error}");
}

#[tokio::test]
async fn a_monitor_that_greets_without_answers_is_not_held() {
    let qemu = FakeQemu::start("web").unwrap();
    qemu.change(|faults| faults.unanswered = vec!["qmp_capabilities".into()]);
    let error = refusal(&qemu).await;
    assert!(error.contains("does not answer") && error.contains("SIGSTOP"), "{error}");
    assert!(!error.contains("holds"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_an_error_with_advice() {
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
async fn a_qemu_that_hangs_up_before_its_answers_is_an_error() {
    for question in ["qmp_capabilities", "query-name", "query-status"] {
        let qemu = FakeQemu::start("web").unwrap();
        qemu.change(|faults| faults.hang_up_at = vec![question.into()]);
        let error = refusal(&qemu).await;
        assert!(error.contains("hung up before it answered"), "{error}");
    }
}

#[tokio::test]
async fn a_storage_daemon_is_no_virtual_machine() {
    let qemu = FakeQemu::start("web").unwrap();
    let lacks = ["query-name", "query-uuid", "query-cpus-fast", "query-status"];
    qemu.change(|faults| faults.lacks = lacks.map(String::from).to_vec());
    let error = refusal(&qemu).await;
    assert!(error.contains("no virtual machine") && error.contains("storage daemon"), "{error}");
    assert!(!error.contains("broken protocol"), "{error}");
}
