//! Lists and looks, asked of the sessions themselves: each answer is to come from QEMU.

use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::time::timeout;
use virevent::driver::{Batch, Connect, Interest, Session};
use virevent::{Kind, Uuid};
use virevent_testkit::qmp::FakeQemu;

use super::SocketConnector;
use crate::directory::QmpDir;
use crate::{MonitorConfig, Qmp};

const PATIENCE: Duration = Duration::from_secs(20);

/// A session on which lifecycle events are registered, and what it has said so far.
struct SessionRig<S> {
    session: S,
    out: Batch,
}

impl<S: Session> SessionRig<S> {
    async fn new<C: Connect<Session = S>>(connect: &C) -> Self {
        let mut session = connect.connect().await.unwrap();
        let out = Batch::new(connect.uri(), session.host());
        session.set_interest(&Interest::from_iter([Kind::Lifecycle]), 1);
        let mut asked = Self { session, out };
        asked.list(2).await;
        asked
    }

    /// Goes on until this was said; returns all from there.
    async fn until(&mut self, said: &str) -> String {
        let waiting = async {
            loop {
                let all = format!("{:?}", self.out);
                if let Some(at) = all.find(said) {
                    return all[at..].to_owned();
                }
                self.session.advance(&mut self.out).await.unwrap();
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("no {said}"))
    }

    async fn list(&mut self, tag: u64) -> String {
        self.session.request_list(tag);
        self.until(&format!("Listed({tag}, ")).await
    }

    /// QEMU is asked for its run state, pauses, is asked again for the cause, and answers the first of
    /// the two questions alone. `answer` comes after the pause, and not at once.
    async fn waits_for_the_cause_of_a_pause(&mut self, qemu: &FakeQemu, answer: &str) {
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
        // On a machine that is this slow the cause is not waited for any more.
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

    async fn look(&mut self, name: &str, tag: u64) -> String {
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
    // SessionRig by nobody but the test.
    let day = Duration::from_secs(24 * 60 * 60);
    Qmp::new(&qemu.uri()).unwrap().keepalive(day, day).config
}

/// A directory of `web` and `db`, in which a QEMU that hangs is out of reach soon.
fn two() -> (TempDir, FakeQemu, FakeQemu, crate::directory::DirectoryConnector) {
    let home = tempfile::Builder::new().prefix("vl").tempdir().unwrap();
    let qemu = |name: &str| FakeQemu::at(&home.path().join(format!("{name}.sock")), name).unwrap();
    let web = qemu("web");
    let db = qemu("db");
    let day = Duration::from_secs(24 * 60 * 60);
    let soon = Duration::from_millis(300);
    let opener = QmpDir::at(Path::new(home.path())).unwrap().keepalive(day, soon).opener;
    (home, web, db, opener)
}

#[tokio::test]
async fn a_list_is_what_qemu_says_when_it_is_asked() {
    let qemu = FakeQemu::start("web").unwrap();
    let mut asked = SessionRig::new(&SocketConnector(config(&qemu).into())).await;
    assert!(asked.session.is_ordered());
    qemu.set_status("paused");
    let list = asked.list(3).await;
    assert!(list.contains("Paused(User)"), "{list}");
    let list = asked.list(4).await;
    assert!(list.contains("Paused(User)"), "{list}");
}

#[tokio::test]
async fn a_list_waits_for_the_cause_of_a_pause() {
    let qemu = FakeQemu::start("web").unwrap();
    let mut asked = SessionRig::new(&SocketConnector(config(&qemu).into())).await;
    asked.session.request_list(3);
    asked.waits_for_the_cause_of_a_pause(&qemu, "Listed(3, ").await;
}

#[tokio::test]
async fn a_look_at_one_domain_waits_for_the_cause_of_a_pause() {
    let (_home, web, _db, opener) = two();
    let mut asked = SessionRig::new(&opener).await;
    let domain = asked.out.domain(uuid("web"), "web", Some(1));
    assert!(asked.session.request_state(&domain, 13));
    asked.waits_for_the_cause_of_a_pause(&web, "Looked(13, ").await;
}

#[tokio::test]
async fn a_list_of_a_directory_is_what_each_qemu_says() {
    let (_home, web, db, opener) = two();
    let mut asked = SessionRig::new(&opener).await;
    assert!(asked.session.is_ordered());
    web.set_status("paused");
    db.set_status("io-error");
    let list = asked.list(3).await;
    assert!(list.contains("Paused(User)") && list.contains("Paused(IoError)"), "{list}");
}

#[tokio::test]
async fn a_qemu_that_hangs_is_left_out_of_the_list_as_an_outage() {
    let (_home, web, db, opener) = two();
    let mut asked = SessionRig::new(&opener).await;
    db.change(|faults| faults.unanswered = vec!["query-status".into()]);
    web.set_status("paused");
    asked.session.request_list(3);
    // Events go on meanwhile.
    web.emit("RESUME", "");
    asked.until("Resumed").await;
    assert!(!format!("{:?}", asked.out).contains("Listed(3"));
    let list = asked.until("Listed(3, ").await;
    assert!(list.contains("Paused(User)") && !list.contains(r#"name: "db""#), "{list}");
    assert!(format!("{:?}", asked.out).contains("Outage(Domain("));
    // It is left out from then on, without a wait.
    let list = asked.list(4).await;
    assert!(!list.contains(r#"name: "db""#), "{list}");
}

#[tokio::test]
async fn a_look_at_one_domain_is_what_its_qemu_says() {
    let (_home, web, db, opener) = two();
    let mut asked = SessionRig::new(&opener).await;
    let before = db.calls("query-status");
    web.set_status("paused");
    let looked = asked.look("web", 13).await;
    assert!(looked.contains("Paused(User)"), "{looked}");
    assert_eq!(db.calls("query-status"), before, "nobody else is asked");
    let looked = asked.look("nobody", 14).await;
    assert!(looked.starts_with("(14, None)"), "{looked}");
    web.change(|faults| faults.unanswered = vec!["query-status".into()]);
    asked.look("web", 15).await;
    assert!(format!("{:?}", asked.out).contains("LookFailed(15"));
}
