//! A monitor that is driven by inputs, one at a time.
//!
//! The connection is one half of a socket pair, an attempt to connect ends when an input says how,
//! the process is a child that an input kills, and the clock moves by [`Input::Wait`] alone.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use rustix::io::Errno;
use tokio::time::Instant;
use virevent::driver::Batch;
use virevent::{Error, Uuid};

use super::output::{contents, state};
use crate::config::MonitorConfig;
use crate::link::QmpLink;
use crate::monitor::{Monitor, Role, SourceContext, Turn};
use crate::peer::advice::unreachable;
use crate::peer::handshake::{Opened, Opening, Progress};
use crate::peer::identity::RunIdentity;
use crate::peer::pinned_socket::PinnedSocket;
use crate::peer::process::Process;
use crate::uri::Endpoint;

/// From where a row starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    New,
    Vacant,
    Connecting,
    Connected,
    Tcp,
    /// The process is watched.
    Watched,
    /// The connection broke, and that is no outage yet.
    Lost,
    /// The connection broke, and that is an outage.
    Out,
    /// The outage of a process that is watched.
    WatchedOut,
    /// A socket that never was a QEMU's is silent, and that is an outage.
    Strange,
    Foreign,
    Parked,
}

/// What happens to the monitor.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input {
    /// Nothing: it is polled.
    Poll,
    /// An attempt finds the QEMU `web`, in this run state.
    Connects(&'static str),
    /// An attempt finds another QEMU.
    FindsOther,
    /// An attempt finds a socket at which no process listens.
    Refused,
    /// An attempt finds no socket.
    Absent,
    /// An attempt finds a socket that may not be opened.
    Denied,
    /// An attempt finds a socket that is not QMP.
    NotQmp,
    /// An attempt is greeted, and no more.
    Greeted,
    /// QEMU sends a line.
    Line(&'static str),
    /// QEMU answers all that it was asked, and that it is in this run state.
    Answers(&'static str),
    /// QEMU answers what it was asked with an error.
    Refuses,
    /// QEMU closes the connection.
    Eof,
    ProcessEnds,
    /// Milliseconds go by.
    Wait(u64),
    Park,
    Unpark,
    Verify,
    FileChanges,
    /// The path no longer leads to the socket.
    Unlink,
    Relink,
    /// The list of the source cannot wait any longer.
    Overdue,
    /// The directory of the socket is unreadable.
    Shut,
    Reopen,
    /// The driver waits for a first list.
    Listing,
    /// The list is made.
    List,
}

thread_local! {
    static SCRIPT: RefCell<Script> = RefCell::default();
}

/// How the attempt that is under way goes on.
#[derive(Default)]
struct Script {
    outcome: Option<Result<Opened, Error>>,
    is_foreign: bool,
    progress: Arc<Progress>,
}

fn scripted(
    _: Arc<MonitorConfig>,
    _: Option<Arc<PinnedSocket>>,
    progress: Arc<Progress>,
) -> Opening {
    progress.is_connected.store(true, Ordering::Relaxed);
    SCRIPT.with_borrow_mut(|script| script.progress = progress);
    Box::pin(poll_fn(|_| SCRIPT.with_borrow_mut(Script::poll)))
}

impl Script {
    fn poll(&mut self) -> Poll<Result<Opened, Error>> {
        let Some(outcome) = self.outcome.take() else { return Poll::Pending };
        self.progress.is_foreign.store(self.is_foreign, Ordering::Relaxed);
        Poll::Ready(outcome)
    }
}

use Input::{
    Absent, Answers, Connects, Denied, Eof, FileChanges, FindsOther, Greeted, Line, List, Listing,
    NotQmp, Overdue, Park, ProcessEnds, Refused, Refuses, Relink, Reopen, Shut, Unlink, Unpark,
    Verify, Wait,
};

pub(super) struct Rig {
    monitor: Monitor,
    shared: SourceContext,
    out: Batch,
    /// The other half of the connection.
    peer: Option<UnixStream>,
    questions: VecDeque<(String, u64)>,
    child: Option<Child>,
    /// The id of the process, which no row can know.
    pid: String,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Rig {
    fn new(role: Role, endpoint: Endpoint) -> Self {
        let config = MonitorConfig::at("qmp:/run/web.sock", endpoint);
        let mut monitor = Monitor::new(Arc::new(config), role);
        monitor.dial = scripted;
        SCRIPT.take();
        let out = Batch::new("qmp:/run/web.sock", "host");
        let questions = VecDeque::new();
        Self {
            monitor,
            shared: SourceContext::default(),
            out,
            peer: None,
            questions,
            child: None,
            pid: String::new(),
        }
    }

    /// A monitor that was brought to its start by inputs.
    pub(super) async fn start(role: Role, start: Start) -> Self {
        let mut rig = Self::new(
            role,
            match start {
                Start::Tcp => Endpoint::Tcp("vmhost".into(), 4444),
                _ => Endpoint::Unix("/run/web.sock".into()),
            },
        );
        if matches!(start, Start::Watched | Start::WatchedOut) {
            let child = Command::new("sleep").arg("1000").spawn().unwrap();
            rig.pid = format!("[{}]", child.id());
            rig.child = Some(child);
        }
        let inputs: &[Input] = match start {
            Start::New => &[],
            Start::Vacant if role == Role::Member => &[Refused],
            Start::Vacant => &[Connects("running"), Eof, Wait(20), Refused],
            Start::Connecting => &[Input::Poll],
            Start::Connected | Start::Tcp | Start::Watched => &[Connects("running")],
            Start::Lost => &[Connects("running"), Eof],
            Start::Out | Start::WatchedOut => &[Connects("running"), Eof, Wait(500)],
            Start::Strange => &[Input::Poll, Wait(5000)],
            Start::Foreign => &[NotQmp],
            Start::Parked => &[Connects("running"), Park],
        };
        for input in inputs {
            rig.apply(*input).await;
        }
        rig.shared.is_listing = false;
        rig
    }

    pub(super) fn state(&self) -> String {
        state(&self.monitor)
    }

    /// Applies an input; returns what the monitor puts out.
    pub(super) async fn apply(&mut self, input: Input) -> Vec<String> {
        self.out = Batch::new("qmp:/run/web.sock", "host");
        let mut said = Vec::new();
        match input {
            Input::Poll => {}
            Connects(status) => self.opens(status, 1),
            FindsOther => self.opens("running", 2),
            Refused => self.fails(Errno::CONNREFUSED),
            Absent => self.fails(Errno::NOENT),
            Denied => self.fails(Errno::ACCESS),
            NotQmp => {
                self.fails(Errno::PROTOTYPE);
                SCRIPT.with_borrow_mut(|script| script.is_foreign = true);
            }
            Greeted => SCRIPT.with_borrow(|script| {
                script.progress.greeted.get_or_init(Instant::now);
            }),
            Line(line) => self.say(&format!("{line}\r\n")),
            Answers(status) => {
                let answers: Vec<String> = self.questions.drain(..).map(answer(status)).collect();
                self.say(&answers.concat());
            }
            Refuses => {
                let errors = self.questions.drain(..);
                let errors: Vec<String> = errors
                    .map(|(_, id)| format!("{{\"error\": {{}}, \"id\": {id}}}\r\n"))
                    .collect();
                self.say(&errors.concat());
            }
            Eof => self.peer = None,
            ProcessEnds => self.kill(),
            Wait(milliseconds) => {
                tokio::time::advance(Duration::from_millis(milliseconds)).await;
            }
            Park => self.monitor.park(&mut self.shared),
            Unpark => self.monitor.unpark(),
            Verify => self.monitor.verify(),
            FileChanges => self.monitor.connect_now(),
            Unlink => {
                self.monitor.unlink(&mut Turn { shared: &mut self.shared, out: &mut self.out });
            }
            Relink => self.monitor.relink(),
            Overdue => {
                self.monitor.overdue(&mut Turn { shared: &mut self.shared, out: &mut self.out });
            }
            Shut => self.shared.is_unreadable = true,
            Reopen => {
                self.shared.is_unreadable = false;
                self.monitor.reopen();
            }
            Listing => self.shared.is_listing = true,
            List => {
                let listed = self.monitor.listed(&mut self.out);
                self.shared.is_listing = false;
                said.push(
                    listed.map_or("lists nothing".into(), |it| format!("lists {}", it.state)),
                );
            }
        }
        if let Err(error) = self.settle().await {
            said.push(format!("error: {:?}", error.to_fault().kind()));
        }
        said.extend(contents(&self.out).iter().map(|line| match &*self.pid {
            "" => line.clone(),
            pid => line.replace(pid, "[pid]"),
        }));
        said.extend(self.asked().into_iter().map(|name| format!("asks {name}")));
        said
    }

    /// Polls until nothing is left to do, also by what the sockets have brought meanwhile.
    async fn settle(&mut self) -> Result<(), Error> {
        // A read becomes ready when the runtime has polled the sockets, and may lead to another.
        for _ in 0..3 {
            // Bounded: a monitor that is always ready fails the row instead of hanging the test.
            for _ in 0..100 {
                let mut turn = Turn { shared: &mut self.shared, out: &mut self.out };
                match poll_fn(|cx| Poll::Ready(self.monitor.poll(cx, &mut turn))).await {
                    Poll::Ready(outcome) => outcome?,
                    Poll::Pending => break,
                }
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn fails(&mut self, error: Errno) {
        let endpoint = Endpoint::Unix("/run/web.sock".into());
        SCRIPT.with_borrow_mut(|script| {
            script.outcome = Some(Err(unreachable(&endpoint, error.into())));
        });
    }

    fn opens(&mut self, status: &str, run: u32) {
        let (ours, peer) = UnixStream::pair().unwrap();
        for half in [&ours, &peer] {
            half.set_nonblocking(true).unwrap();
        }
        self.peer = Some(peer);
        self.questions.clear();
        let ours = tokio::net::UnixStream::from_std(ours).unwrap();
        let child = self.child.as_ref().filter(|_| run == 1);
        let process = child.map(|child| Process::watch(child.id()));
        let opened = Opened {
            link: QmpLink::over(ours, Endpoint::Unix("/run/web.sock".into())),
            identity: RunIdentity {
                name: Some("web".into()),
                uuid: Some(Uuid::from_u128(7)),
                pid: process.as_ref().map(|process| process.pid),
                thread: Some(run),
            },
            process,
            status: status.into(),
            early: Vec::new(),
            pinned: None,
        };
        SCRIPT.with_borrow_mut(|script| script.outcome = Some(Ok(opened)));
    }

    fn say(&mut self, text: &str) {
        self.peer.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// The questions that QEMU was asked since the last call.
    fn asked(&mut self) -> Vec<String> {
        let mut text = Vec::new();
        if let Some(peer) = &mut self.peer {
            match peer.read_to_end(&mut text) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => panic!("{error}"),
                _ => {}
            }
        }
        let commands = String::from_utf8(text).unwrap();
        let mut names = Vec::new();
        for line in commands.lines() {
            let command: serde_json::Value = serde_json::from_str(line).unwrap();
            let name = command["execute"].as_str().unwrap().to_owned();
            self.questions.push_back((name.clone(), command["id"].as_u64().unwrap()));
            names.push(name);
        }
        names
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

fn answer(status: &str) -> impl Fn((String, u64)) -> String {
    move |(name, id)| {
        let value = match &*name {
            "query-status" => format!("{{\"status\": \"{status}\"}}"),
            "query-name" => r#"{"name": "web"}"#.into(),
            "query-uuid" => format!("{{\"UUID\": \"{}\"}}", Uuid::from_u128(7)),
            // A thread id would be proved on another thread, which a row does not wait for.
            "query-cpus-fast" => return format!("{{\"error\": {{}}, \"id\": {id}}}\r\n"),
            _ => "{}".into(),
        };
        format!("{{\"return\": {value}, \"id\": {id}}}\r\n")
    }
}
