//! Lists and questions about one domain, asked of the sessions themselves: QEMU makes each answer.

use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::time::timeout;
use virevent::driver::{Batch, Connect, Interest, Session};
use virevent::{Kind, Uuid};
use virevent_testkit::fakes::qemu::FakeQemu;

use super::SocketConnector;
use crate::directory::QmpDir;
use crate::{MonitorConfig, Qmp};

const PATIENCE: Duration = Duration::from_secs(20);

/// A session on which lifecycle events are registered, and all that it has put out.
struct SessionRig<S> {
    session: S,
    out: Batch,
}

impl<S: Session> SessionRig<S> {
    async fn new<C: Connect<Session = S>>(connect: &C) -> Self {
        let mut session = connect.connect().await.unwrap();
        let out = Batch::new(connect.uri(), session.host());
        session.set_interest(&Interest::from_iter([Kind::Lifecycle]), 1);
        let mut rig = Self { session, out };
        rig.list(2).await;
        rig
    }

    /// Advances until the output contains this; returns the output from there.
    async fn until(&mut self, text: &str) -> String {
        let waiting = async {
            loop {
                let all = format!("{:?}", self.out);
                if let Some(at) = all.find(text) {
                    return all[at..].to_owned();
                }
                self.session.advance(&mut self.out).await.unwrap();
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("no {text}"))
    }

    async fn list(&mut self, tag: u64) -> String {
        self.session.request_list(tag);
        self.until(&format!("Listed({tag}, ")).await
    }

    /// Asserts that `answer` waits for the cause of a pause: QEMU is asked for its run state,
    /// pauses, is asked again for the cause, and answers the first of the two questions alone.
    async fn assert_waits_for_pause_cause(&mut self, qemu: &FakeQemu, answer: &str) {
        let before = qemu.calls("query-status");
        qemu.change(|faults| faults.unanswered = vec!["query-status".into()]);
        self.until_asked(qemu, before + 1).await;
        let commands =
            ["qmp_capabilities", "query-name", "query-uuid", "query-cpus-fast", "query-status"];
        let id: u64 = commands.iter().map(|command| qemu.calls(command)).sum();
        let since = Instant::now();
        qemu.emit("STOP", "");
        self.until_asked(qemu, before + 2).await;
        let value = r#"{"status": "paused", "running": false}"#;
        qemu.send(format!("{{\"return\": {value}, \"id\": {id}}}\r\n").as_bytes());
        let is_early = timeout(Duration::from_millis(50), self.until(answer)).await.is_ok();
        // On a machine that is this slow the deadline of the cause has passed.
        assert!(!is_early || since.elapsed() > Duration::from_millis(200), "it does not wait");
        self.until(answer).await;
        assert!(format!("{:?}", self.out).contains("Suspended("), "the pause comes first");
    }

    async fn until_asked(&mut self, qemu: &FakeQemu, questions: u64) {
        tokio::select! {
            () = qemu.until(|qemu| qemu.calls("query-status") >= questions) => {}
            () = async { while self.session.advance(&mut self.out).await.is_ok() {} } => {
                panic!("the session ended")
            }
        }
    }

    async fn domain(&mut self, name: &str, tag: u64) -> String {
        let domain = self.out.domain(uuid(name), name, Some(1));
        assert!(self.session.request_state(&domain, tag));
        self.until(&format!("({tag}")).await
    }
}

/// The uuid of a fake QEMU of this name.
fn uuid(name: &str) -> Uuid {
    let number = name.bytes().fold(1u128, |sum, byte| sum * 257 + u128::from(byte));
    Uuid::from_u128(0x4000_8000_0000_0000_0000 | (number & 0xffff_ffff_ffff))
}

fn config(qemu: &FakeQemu) -> MonitorConfig {
    // Only the test asks questions.
    let day = Duration::from_secs(24 * 60 * 60);
    Qmp::new(&qemu.uri()).unwrap().keepalive(day, day).config
}

/// A directory of `web` and `db`, in which a QEMU that hangs is unreachable soon.
fn two() -> (TempDir, FakeQemu, FakeQemu, crate::directory::DirectoryConnector) {
    let home = tempfile::Builder::new().prefix("vl").tempdir().unwrap();
    let qemu = |name: &str| FakeQemu::at(&home.path().join(format!("{name}.sock")), name).unwrap();
    let web = qemu("web");
    let db = qemu("db");
    let day = Duration::from_secs(24 * 60 * 60);
    let soon = Duration::from_millis(300);
    let connector = QmpDir::at(Path::new(home.path())).unwrap().keepalive(day, soon).connector;
    (home, web, db, connector)
}

#[tokio::test]
async fn a_list_contains_the_run_state_that_qemu_answers() {
    let qemu = FakeQemu::start("web").unwrap();
    let mut rig = SessionRig::new(&SocketConnector(config(&qemu).into())).await;
    assert!(rig.session.is_ordered());
    qemu.set_status("paused");
    let list = rig.list(3).await;
    assert!(list.contains("Paused(User)"), "{list}");
    let list = rig.list(4).await;
    assert!(list.contains("Paused(User)"), "{list}");
}

#[tokio::test]
async fn a_list_waits_for_the_cause_of_a_pause() {
    let qemu = FakeQemu::start("web").unwrap();
    let mut rig = SessionRig::new(&SocketConnector(config(&qemu).into())).await;
    rig.session.request_list(3);
    rig.assert_waits_for_pause_cause(&qemu, "Listed(3, ").await;
}

#[tokio::test]
async fn a_question_about_a_domain_waits_for_a_pause_cause() {
    let (_home, web, _db, connector) = two();
    let mut rig = SessionRig::new(&connector).await;
    let domain = rig.out.domain(uuid("web"), "web", Some(1));
    assert!(rig.session.request_state(&domain, 13));
    rig.assert_waits_for_pause_cause(&web, "Looked(13, ").await;
}

#[tokio::test]
async fn a_directory_list_contains_the_run_state_of_each_qemu() {
    let (_home, web, db, connector) = two();
    let mut rig = SessionRig::new(&connector).await;
    assert!(rig.session.is_ordered());
    web.set_status("paused");
    db.set_status("io-error");
    let list = rig.list(3).await;
    assert!(list.contains("Paused(User)") && list.contains("Paused(IoError)"), "{list}");
}

#[tokio::test]
async fn a_qemu_that_hangs_is_an_outage_and_not_in_the_list() {
    let (_home, web, db, connector) = two();
    let mut rig = SessionRig::new(&connector).await;
    db.change(|faults| faults.unanswered = vec!["query-status".into()]);
    web.set_status("paused");
    rig.session.request_list(3);
    // Events are delivered meanwhile.
    web.emit("RESUME", "");
    rig.until("Resumed").await;
    assert!(!format!("{:?}", rig.out).contains("Listed(3"));
    let list = rig.until("Listed(3, ").await;
    assert!(list.contains("Paused(User)") && !list.contains(r#"name: "db""#), "{list}");
    assert!(format!("{:?}", rig.out).contains("Outage(Domain("));
    // The next list does not wait for it.
    let list = rig.list(4).await;
    assert!(!list.contains(r#"name: "db""#), "{list}");
}

#[tokio::test]
async fn a_question_about_a_domain_is_answered_by_its_qemu() {
    let (_home, web, db, connector) = two();
    let mut rig = SessionRig::new(&connector).await;
    let before = db.calls("query-status");
    web.set_status("paused");
    let answer = rig.domain("web", 13).await;
    assert!(answer.contains("Paused(User)"), "{answer}");
    assert_eq!(db.calls("query-status"), before, "no other QEMU is asked");
    let answer = rig.domain("unknown", 14).await;
    assert!(answer.starts_with("(14, None)"), "{answer}");
    web.change(|faults| faults.unanswered = vec!["query-status".into()]);
    rig.domain("web", 15).await;
    assert!(format!("{:?}", rig.out).contains("LookFailed(15"));
}
