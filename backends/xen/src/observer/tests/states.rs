//! The main states: what each input leads to, and what is then requested and reported.

use super::*;
use crate::wire::{Header, Operation, Packet, strings};

/// An observer and a store with domain 5, whose replies come when the test says so.
struct Machine {
    observer: Observer,
    batch: Batch,
    /// The requests without a reply: header and path.
    pending: Vec<(Header, String)>,
}

/// What happens to the observer.
#[derive(Clone, Copy, Debug)]
enum Input {
    /// The first subscriber comes.
    Subscribe,
    /// The last subscriber goes.
    Unsubscribe,
    /// The driver requests the list.
    List,
    /// The driver probes the server.
    Probe,
    /// Every pending request gets its reply.
    Answer,
    /// Every pending request gets this error.
    Refuse(&'static str),
    /// A watch event, with its path and its token.
    Event(&'static str, &'static str),
}

use Input::{Answer, Event, List, Probe, Refuse, Subscribe, Unsubscribe};

impl Machine {
    fn new(is_device: bool) -> Self {
        let observer = Observer::new("h".into(), false, is_device, PreviousRuns::default());
        Self { observer, batch: Batch::new("xenstore:", "h"), pending: Vec::new() }
    }

    /// A machine in this state.
    fn at(state: &str) -> Self {
        let is_device = state == "unwatching";
        let mut machine = Self::new(is_device);
        let registered: &[Input] = &[
            Subscribe,
            Answer,
            Answer,
            Answer,
            Event("@introduceDomain", "I"),
            Event("@releaseDomain", "R"),
        ];
        let path: &[&[Input]] = match state {
            "idle" => &[],
            "features" => &[&[Subscribe]],
            "watching" => &[&[Subscribe, Answer]],
            "registered" => &[registered],
            "first look" => &[registered, &[List]],
            "live" => &[registered, &[List], LOOK],
            "verifying" => &[registered, &[List], LOOK, &[List]],
            "closing" => &[registered, &[Unsubscribe]],
            "unwatching" => &[registered, &[Unsubscribe]],
            _ => panic!("{state}"),
        };
        for input in path.iter().copied().flatten() {
            machine.apply(*input);
        }
        assert_eq!(machine.observer.state(), state);
        machine
    }

    /// Applies an input. Returns the new requests, and what is reported to the driver.
    fn apply(&mut self, input: Input) -> (String, String) {
        self.batch = Batch::new("xenstore:", "h");
        match input {
            Subscribe => self.observer.set_interest(&[Kind::Lifecycle].into_iter().collect(), 1),
            Unsubscribe => self.observer.set_interest(&Interest::default(), 2),
            List => self.observer.request_list(3),
            Probe => self.observer.ping(),
            Answer => self.reply(answer),
            Refuse(name) => self.reply(|_, _| Err(name)),
            Event(path, token) => {
                self.receive(Header::watch_event(), &format!("{path}\0{token}\0"));
            }
        }
        // One pump may end a state, and the next one begins another.
        let mut requests = Vec::new();
        for _ in 0..3 {
            self.observer.pump(Instant::now(), &mut self.batch);
            requests.extend(self.written());
        }
        (requests.join(", "), self.reported())
    }

    fn reply(&mut self, answer: impl Fn(Operation, &str) -> Result<&'static str, &'static str>) {
        for (header, path) in std::mem::take(&mut self.pending) {
            match answer(header.operation, &path) {
                Ok(text) => self.receive(header, text),
                Err(name) => self.receive(header.error(), &format!("{name}\0")),
            }
        }
    }

    fn receive(&mut self, header: Header, payload: &str) {
        let packet = Packet { header, payload: payload.as_bytes() };
        self.observer.receive(&packet, Instant::now(), &mut self.batch).unwrap();
    }

    /// The requests that the observer has written since the last call.
    fn written(&mut self) -> Vec<String> {
        let unwritten = self.observer.pipeline.unwritten();
        let bytes = unwritten.len();
        let mut decoder = Decoder::new();
        decoder.push(unwritten);
        let mut lines = Vec::new();
        while let Some(packet) = decoder.next_packet().unwrap() {
            let path = strings(packet.payload).next().unwrap_or_default();
            let path = String::from_utf8_lossy(path).into_owned();
            let line = format!("{} {path}", packet.header.operation);
            lines.push(line.replace("/local/domain", "~").trim_end().to_owned());
            self.pending.push((packet.header, path));
        }
        self.observer.pipeline.wrote(bytes);
        lines
    }

    fn reported(&self) -> String {
        let batch = format!("{:?}", self.batch);
        let names = ["InterestDone(1", "InterestDone(2", "Listed(3", " State(", " Gone("];
        let found: Vec<_> = names.into_iter().filter(|name| batch.contains(name)).collect();
        found.join(", ").replace('(', " ").trim().to_owned()
    }
}

/// From the list to the values of the one domain in it.
const LOOK: &[Input] = &[
    Answer,
    Answer,
    Answer,
    Event("/local/domain/5/vm", "v5"),
    Event("/local/domain/5/name", "n5"),
    Event("/local/domain/5/control/shutdown", "s5"),
    Answer,
    Answer,
];

fn answer(operation: Operation, path: &str) -> Result<&'static str, &'static str> {
    match operation {
        Operation::GET_FEATURE => Err("ENOSYS"),
        Operation::DIRECTORY => Ok("5\0"),
        Operation::IS_DOMAIN_INTRODUCED => Ok("T\0"),
        Operation::READ if path.ends_with("vm") => Ok("/vm/00000000-0000-0000-0000-000000000005"),
        Operation::READ if path.ends_with("name") => Ok("web"),
        Operation::READ => Ok(""),
        _ => Ok("OK\0"),
    }
}

#[test]
fn each_input_of_each_state_has_one_outcome() {
    let table = [
        ("idle", Subscribe, "features", "GET_FEATURE", ""),
        ("idle", Unsubscribe, "idle", "", "InterestDone 2"),
        ("features", Answer, "watching", "WATCH @introduceDomain, WATCH @releaseDomain", ""),
        ("features", Unsubscribe, "closing", "", ""),
        ("watching", Answer, "registered", "", "InterestDone 1"),
        ("watching", Unsubscribe, "closing", "", ""),
        ("registered", List, "first look", "DIRECTORY ~", ""),
        ("registered", Unsubscribe, "closing", "RESET_WATCHES", ""),
        ("registered", Event("@introduceDomain", "I"), "registered", "", ""),
        ("first look", Refuse("ENOENT"), "live", "", "Listed 3"),
        ("first look", Answer, "first look", "IS_DOMAIN_INTRODUCED 5", ""),
        ("first look", Unsubscribe, "closing", "", ""),
        (
            "live",
            List,
            "verifying",
            "DIRECTORY ~, READ ~/5/control/shutdown, IS_DOMAIN_INTRODUCED 5, READ ~/5/vm, READ ~/5/name",
            "",
        ),
        ("live", Event("@introduceDomain", "I"), "live", "DIRECTORY ~", ""),
        ("live", Event("@releaseDomain", "R"), "live", "DIRECTORY ~, IS_DOMAIN_INTRODUCED 5", ""),
        ("live", Event("/local/domain/5/name", "n5"), "live", "READ ~/5/name", ""),
        ("live", Event("/local/domain/5/name", "x"), "live", "", ""),
        ("live", Probe, "live", "IS_DOMAIN_INTRODUCED 0", ""),
        ("live", Unsubscribe, "closing", "RESET_WATCHES", ""),
        ("verifying", Answer, "live", "", "Listed 3"),
        ("verifying", Event("/local/domain/5/name", "n5"), "verifying", "", ""),
        ("verifying", Unsubscribe, "closing", "", ""),
        ("closing", Answer, "idle", "", "InterestDone 2"),
        (
            "closing",
            Refuse("ENOSYS"),
            "unwatching",
            "UNWATCH @introduceDomain, UNWATCH @releaseDomain",
            "",
        ),
        ("unwatching", Answer, "unwatching", "UNWATCH @releaseDomain", ""),
    ];
    for (before, input, after, requests, reported) in table {
        let mut machine = Machine::at(before);
        let output = machine.apply(input);
        let is = machine.observer.state();
        assert_eq!(is, after, "{before}, {input:?}");
        assert_eq!(output, (requests.into(), reported.into()), "{before}, {input:?}");
    }
}
