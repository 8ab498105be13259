//! The fake xenstored answers as a real one: as recorded, and side by side.

use std::fmt::Debug;

use fastrand::Rng;
use virevent_testkit::fakes::xenstored::FakeXenstored;
use virevent_testkit::servers::Xenstored;
use virevent_testkit::toolstack::{Power, RunState, Toolstack, ToolstackError};

use crate::raw::{Frame, IS_DOMAIN_INTRODUCED, Raw, WATCH};

const DIRECTORY_PART: u32 = 22;

/// The frames of a recorded session, in one direction.
fn recorded(name: &str, direction: &str) -> Vec<Frame> {
    let file = format!("{}/tests/vectors/xenstore-{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let lines = std::fs::read_to_string(file).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap());
    lines
        .filter(|line: &serde_json::Value| line["dir"] == direction)
        .map(|line| {
            let hex = line["hex"].as_str().unwrap().as_bytes();
            let byte =
                |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
            Frame::parse(&hex.chunks(2).map(byte).collect::<Vec<_>>())
        })
        .collect()
}

/// The requests of a recorded session, without those that the fake does not support or answer.
fn requests(name: &str) -> Vec<Frame> {
    let mut requests = recorded(name, "c2s");
    requests.retain(|frame| frame.payload != b"help\0" && frame.payload.len() <= 4_096);
    requests
}

/// The packets without what differs by design: the generation of a list in parts, and `CONTROL`.
fn comparable(mut frames: Vec<Frame>) -> Vec<Frame> {
    for frame in &mut frames {
        if frame.operation == DIRECTORY_PART {
            let end = frame.payload.iter().position(|byte| *byte == 0).unwrap();
            frame.payload.drain(..end);
        }
    }
    frames.retain(|frame| frame.operation != 0);
    frames
}

#[tokio::test]
async fn the_fake_answers_as_recorded() {
    for (session, domains) in [("basics", &[5, 6, 7][..]), ("lifecycle-toolstack", &[5, 6])] {
        let fake = FakeXenstored::start().unwrap();
        for domid in domains {
            fake.toolstack().set_run_state(*domid, Some(RunState::Running)).unwrap();
        }
        let mut client = Raw::connect(&fake.socket()).await;
        for request in requests(session) {
            client.call(&request).await;
        }
        let expected = recorded(session, "s2c");
        let received = comparable(client.received);
        let expected = comparable(expected);
        for (received, expected) in received.iter().zip(&expected) {
            assert_eq!(received, expected, "in {session}");
        }
        assert_eq!(received.len(), expected.len());
    }
}

/// A real daemon and a fake, each with two clients: one that acts and one that only watches.
struct Both {
    real: Xenstored,
    fake: FakeXenstored,
    clients: [[Raw; 2]; 2],
}

impl Both {
    async fn start() -> Self {
        let real = Xenstored::start().await.unwrap();
        let fake = FakeXenstored::start().unwrap();
        let clients = [
            [Raw::connect(&real.socket()).await, Raw::connect(&real.socket()).await],
            [Raw::connect(&fake.socket()).await, Raw::connect(&fake.socket()).await],
        ];
        Self { real, fake, clients }
    }

    /// Runs an operation of the toolstack on both, and compares the outcomes.
    fn both<T: PartialEq + Debug>(
        &self,
        act: impl Fn(&Toolstack) -> Result<T, ToolstackError>,
    ) -> T {
        let real = act(self.real.toolstack()).unwrap();
        let fake = act(self.fake.toolstack()).unwrap();
        assert_eq!(real, fake);
        fake
    }

    /// Sends a request to both, by the client with this number.
    async fn call(&mut self, client: usize, request: &Frame) {
        for side in &mut self.clients {
            side[client].call(request).await;
        }
    }

    /// Compares the packets that both sides sent to each client since the last call.
    async fn compare(&mut self, after: &str) {
        for client in 0..2 {
            let mut received = Vec::new();
            for side in &mut self.clients {
                // A request whose reply comes behind all events that are queued now.
                side[client].call(&Frame::new(IS_DOMAIN_INTRODUCED, "0\0")).await;
                received.push(comparable(std::mem::take(&mut side[client].received)));
            }
            assert_eq!(
                received[1], received[0],
                "the fake's and the real one's packets to client {client} {after}"
            );
        }
    }
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn the_fake_and_a_real_one_answer_recorded_requests_alike() {
    for session in ["basics", "watches", "transactions", "lifecycle-toolstack", "directory-part"] {
        let mut both = Both::start().await;
        for domid in [5, 6, 7] {
            both.both(|xl| xl.set_run_state(domid, Some(RunState::Running)));
        }
        if session == "directory-part" {
            for child in 0..900 {
                let path = format!("/t/child-{child:04}\0");
                both.call(0, &Frame::new(12, path)).await;
            }
        }
        // The second client watches everything: so events are compared too.
        both.call(1, &Frame::new(WATCH, "/\0observer\0")).await;
        for request in requests(session) {
            both.call(0, &request).await;
            both.compare(&format!("after {request:?} of {session}")).await;
        }
    }
}

/// A valid or nearly valid request.
///
/// Left out are requests to which the real daemon gives an undefined answer or crashes: a path
/// without its NUL, permissions of an unknown special path or of the root; and `SET_TARGET`, after
/// which it does not free the target.
fn any_request(random: &mut Rng) -> Frame {
    let paths = [
        "/",
        "/a",
        "/a/b",
        "/a/b/c",
        "/a/d",
        "/e",
        "relative",
        "data/x",
        "/local/domain/1",
        "/local/domain/1/data",
        "/local/domain/1/data/y",
        "/local/domain/2",
        "@introduceDomain",
        "@releaseDomain",
        "@else",
        "",
        "/a/",
        "//",
        "/sp ace",
    ];
    let path = |random: &mut Rng| paths[random.usize(..paths.len())].to_owned() + "\0";
    let token = |random: &mut Rng| ["one\0", "two\0", "\0"][random.usize(..3)];
    let domid = |random: &mut Rng| ["0\0", "1\0", "2\0", "3\0"][random.usize(..4)];
    let operation = *[
        1, 2, 2, 3, 4, 4, 5, 6, 7, 7, 8, 9, 10, 11, 11, 11, 11, 12, 12, 13, 13, 14, 14, 17, 18, 18,
        21, 22, 23, 24, 25, 40,
    ]
    .get(random.usize(..32))
    .unwrap();
    let payload = match operation {
        4 | 5 => path(random) + token(random),
        6 => "\0".into(),
        7 => ["T\0", "T\0", "F\0", "X\0"][random.usize(..4)].into(),
        8 => domid(random).to_owned() + ["1\x002\0", "1\x000\0", "1\0"][random.usize(..3)],
        9 | 10 | 17 | 18 => domid(random).into(),
        11 => path(random) + ["", "value", "other"][random.usize(..3)],
        14 => {
            path(random) + ["n0\0", "n1\0", "n0\0r1\0", "n2\0b1\0", "x1\0", ""][random.usize(..6)]
        }
        22 => path(random) + ["0\0", "2\0", "99\0"][random.usize(..3)],
        _ => path(random),
    };
    let mut frame = Frame::new(operation, payload);
    frame.request = random.u32(..100);
    let root_or_else = |path: &[u8]| path.starts_with(b"/\0") || path.starts_with(b"@else");
    if operation == 14 && root_or_else(&frame.payload) {
        frame.payload.splice(..1, *b"/a/");
    }
    // Sometimes in a transaction, which may have been started.
    if random.u8(..3) == 0 {
        frame.transaction = random.u32(..8);
    }
    frame
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn the_fake_and_a_real_one_answer_random_requests_alike() {
    for seed in 0..8 {
        let mut random = Rng::with_seed(seed);
        let mut both = Both::start().await;
        let mut done = Vec::new();
        for _ in 0..500 {
            if random.u8(..8) == 0 {
                let states = [
                    None,
                    Some(RunState::Running),
                    Some(RunState::Shutdown),
                    Some(RunState::Crashed),
                    Some(RunState::Dying),
                ];
                let domid = random.u32(1..4);
                let state = states[random.usize(..5)];
                let virq = random.bool();
                done.push(format!("{domid} is {state:?}, {virq}"));
                both.both(|xl| xl.set_run_state(domid, state));
                if virq {
                    both.both(Toolstack::raise_virq);
                }
            } else {
                let client = random.usize(..2);
                let request = any_request(&mut random);
                done.push(format!("{client}: {request:?}"));
                both.call(client, &request).await;
            }
            let latest = done[done.len().saturating_sub(30)..].join("\n");
            both.compare(&format!("with seed {seed} after\n{latest}\n")).await;
        }
    }
}

#[tokio::test]
#[ignore = "needs xenstored"]
async fn random_operations_have_the_same_outcome_on_both() {
    let mut random = Rng::with_seed(1);
    let mut both = Both::start().await;
    for path in ["@introduceDomain", "@releaseDomain"] {
        both.call(0, &Frame::new(WATCH, format!("{path}\0it\0"))).await;
    }
    let mut domids: Vec<u32> = Vec::new();
    for step in 0..300 {
        let domid = domids.get(random.usize(..=domids.len())).copied();
        let kind = random.u8(..12);
        let name = ["web", "db", "mail"][random.usize(..3)];
        let power = Power::ALL[random.usize(..5)];
        let made = both.both(|xl| {
            let Some(domid) = domid else { return xl.introduce(name).map(Some) };
            match kind {
                0 => xl.rename(domid, "renamed"),
                1 => xl.request(domid, power),
                2 => xl.acknowledge(domid),
                3 => xl.shut_down(domid),
                4 => xl.crash(domid),
                5 => xl.resume(domid),
                6 => xl.announce(domid),
                7 => xl.reuse(domid, name),
                8 => return xl.reboot(domid).map(Some),
                9 => xl.set_run_state(domid, Some(RunState::Crashed)),
                10 => xl.vanish(domid).and_then(|()| xl.forget(domid)),
                _ => xl.destroy(domid),
            }
            .map(|()| None)
        });
        if let Some(domid) = domid.filter(|_| [8, 10, 11].contains(&kind)) {
            domids.retain(|known| *known != domid);
        }
        domids.extend(made);
        both.compare(&format!("after step {step}: {kind} to {domid:?}")).await;
        let [real, fake] = [both.real.toolstack(), both.fake.toolstack()];
        assert_eq!(fake.domains().unwrap(), real.domains().unwrap());
    }
}
