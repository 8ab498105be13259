//! XenStore frames to items of a stream, through the real driver over a unix socket.
//!
//! Two loads:
//!
//! - *flood*: watch events of nodes that have not changed, as a busy store sends them. The client takes
//!   each in, reads the nodes again, and has nothing to tell until the last.
//! - *items*: 64 domains at a time are asked to shut down; each watch event is answered by a read, and
//!   each of its replies is an item.
//!
//! Beside it, in the same process, in turns and over the same bytes of the server's:
//!
//! - *read*: a loop that only reads;
//! - *decode*: a loop that finds the frames and the strings in them, and does nothing else.
//!
//! What is compared is the CPU time of the client's one thread per watch event; the server is another
//! thread. Run it with `cargo bench -p virevent-xen --bench frames`.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use tokio::io::AsyncReadExt;
use virevent::{DomainEvent, EventSource, Options};
use virevent_xen::XenStore;
use virevent_xen::wire::{Decoder, Header, Operation, packet, strings};

const DOMAINS: usize = 64;
const EVENTS: usize = 512_000;
/// Events that the server writes at once in the flood: as much as a read takes in.
const BLOCK: usize = 1_280;
const RUNS: usize = 7;

#[derive(Clone, Copy, PartialEq)]
enum Load {
    Flood,
    Items,
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    println!("| over {EVENTS} watch events | CPU, ns/event | times *decode* |");
    println!("|---|---:|---:|");
    for (load, name) in [(Load::Flood, "flood"), (Load::Items, "items")] {
        let mut runs: Vec<[f64; 3]> = (0..RUNS)
            .map(|run| {
                let path = |what: &str| dir.path().join(format!("{name}{what}{run}"));
                [
                    measure(&path("a"), load, false, read_only),
                    measure(&path("b"), load, false, decode),
                    measure(&path("c"), load, true, |path| virevent(path, load)),
                ]
            })
            .collect();
        // The run with the median ratio: the machine is noisy.
        runs.sort_by(|a, b| (a[2] / a[1]).total_cmp(&(b[2] / b[1])));
        let [read, plain, ours] = runs[RUNS / 2];
        for (what, cost) in [("read", read), ("decode", plain), ("virevent", ours)] {
            println!("| {name}: {what} | {cost:.0} | {:.2} |", cost / plain);
        }
    }
}

/// Runs a client against a server of its own.
fn measure<F: Future<Output = Duration>>(
    path: &Path,
    load: Load,
    serves: bool,
    client: impl FnOnce(PathBuf) -> F,
) -> f64 {
    let listener = UnixListener::bind(path).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut server = Server::new(listener.accept().unwrap().0);
            if serves { server.serve(load) } else { server.recite(load) }
        });
        let cpu = runtime.block_on(client(path.into()));
        drop(runtime);
        cpu.as_nanos() as f64 / EVENTS as f64
    })
}

/// The CPU time of this thread so far.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

async fn read_only(path: PathBuf) -> Duration {
    let mut socket = tokio::net::UnixStream::connect(path).await.unwrap();
    let (mut buffer, before) = (vec![0; 64 * 1024], cpu());
    while socket.read(&mut buffer).await.unwrap() > 0 {}
    cpu() - before
}

async fn decode(path: PathBuf) -> Duration {
    let mut socket = tokio::net::UnixStream::connect(path).await.unwrap();
    let (mut buffer, mut filled, mut events) = (vec![0; 64 * 1024], 0, 0);
    let before = cpu();
    loop {
        let read = socket.read(&mut buffer[filled..]).await.unwrap();
        if read == 0 {
            assert_eq!(events, EVENTS);
            return cpu() - before;
        }
        filled += read;
        let mut start = 0;
        while let Some(header) = buffer[start..filled].first_chunk::<16>() {
            let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
            let length = word(12) as usize;
            let Some(payload) = buffer[start..filled].get(16..16 + length) else { break };
            if word(0) == 15 {
                let path = payload.iter().position(|byte| *byte == 0).unwrap();
                let token = payload[path + 1..].iter().position(|byte| *byte == 0).unwrap();
                std::hint::black_box((&payload[..path], &payload[path + 1..path + 1 + token]));
                events += 1;
            } else {
                std::hint::black_box((word(4), payload));
            }
            start += 16 + length;
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
    }
}

async fn virevent(path: PathBuf, load: Load) -> Duration {
    let source = XenStore::new(&format!("xenstore:{}", path.display())).unwrap().source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    while !matches!(events.next().await.unwrap(), DomainEvent::Synced(_)) {}
    let before = cpu();
    let items = if load == Load::Flood { 1 } else { EVENTS };
    for _ in 0..items {
        let event = events.next().await.unwrap();
        assert!(!event.is_marker(), "{event}");
        std::hint::black_box(event);
    }
    let spent = cpu() - before;
    assert_eq!(source.counters().missed, 0);
    spent
}

/// A store of 64 domains that are never anything but introduced.
struct Server {
    socket: UnixStream,
    decoder: Decoder,
    out: Vec<u8>,
    /// The value of every `control/shutdown`.
    request: &'static [u8],
    /// How many of them were read since the last events.
    asked: usize,
}

impl Server {
    fn new(socket: UnixStream) -> Self {
        Self { socket, decoder: Decoder::new(), out: Vec::new(), request: b"", asked: 0 }
    }

    /// Answers, and sends the load once the client has looked at everything.
    fn serve(&mut self, load: Load) {
        // Three nodes each, of which `control/shutdown` is the last that is read.
        while self.asked < DOMAINS {
            self.answer();
        }
        std::thread::sleep(Duration::from_millis(50));
        self.socket.set_nonblocking(load == Load::Flood).unwrap();
        let mut sent = 0;
        while sent < EVENTS {
            match load {
                Load::Flood => {
                    (0..BLOCK).for_each(|n| event(&mut self.out, n % DOMAINS + 1));
                    sent += BLOCK;
                    self.write();
                    self.answer();
                }
                Load::Items => {
                    self.request = if self.request == b"halt" { b"poweroff" } else { b"halt" };
                    (1..=DOMAINS).for_each(|domid| event(&mut self.out, domid));
                    (self.asked, sent) = (0, sent + DOMAINS);
                    self.write();
                    while self.asked < DOMAINS {
                        self.answer();
                    }
                }
            }
        }
        self.request = b"reboot";
        (1..=DOMAINS).for_each(|domid| event(&mut self.out, domid));
        self.write();
        self.socket.set_nonblocking(false).unwrap();
        // It closes when it has everything.
        while self.answer() {}
    }

    /// Sends what it would say, to a client that asks nothing.
    fn recite(&mut self, load: Load) {
        let step = if load == Load::Flood { BLOCK } else { DOMAINS };
        for sent in (0..EVENTS).step_by(step) {
            let all = step.min(EVENTS - sent);
            (0..all).for_each(|n| event(&mut self.out, n % DOMAINS + 1));
            // What a client that asks is answered besides.
            for n in 0..DOMAINS.min(all) {
                let header = Header::request(Operation::READ, (sent + n) as u32);
                packet(&mut self.out, &header, &[b"poweroff"]).unwrap();
            }
            self.write();
        }
        self.socket.shutdown(std::net::Shutdown::Both).unwrap();
    }

    fn write(&mut self) {
        let mut rest = &self.out[..];
        while !rest.is_empty() {
            match self.socket.write(rest) {
                Ok(bytes) => rest = &rest[bytes..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.out.clear();
    }

    /// Reads once, and answers what there is. False at the end.
    fn answer(&mut self) -> bool {
        match self.socket.read(self.decoder.spare()) {
            Ok(0) => return false,
            Ok(bytes) => self.decoder.filled(bytes),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(_) => return false,
        }
        while let Some(request) = self.decoder.next_packet().unwrap() {
            let header = request.header;
            let arguments: Vec<_> = strings(request.payload).collect();
            let path = arguments.first().copied().unwrap_or_default();
            let out = &mut self.out;
            let reply = match header.operation {
                Operation::WATCH => {
                    packet(out, &header, &[b"OK\0"]).unwrap();
                    let event = [path, b"\0", arguments[1], b"\0"];
                    packet(out, &Header::watch_event(), &event).unwrap();
                    continue;
                }
                Operation::DIRECTORY => (1..=DOMAINS).map(|n| format!("{n}\0")).collect(),
                Operation::IS_DOMAIN_INTRODUCED => "T\0".to_owned(),
                Operation::READ if path.ends_with(b"/vm") => {
                    let domid = std::str::from_utf8(path).unwrap().split('/').nth(3).unwrap();
                    format!("/vm/00000000-0000-4000-8000-{domid:0>12}")
                }
                Operation::READ if path.ends_with(b"/shutdown") => {
                    self.asked += 1;
                    std::str::from_utf8(self.request).unwrap().to_owned()
                }
                Operation::READ => "web".to_owned(),
                _ => {
                    packet(out, &header.error(), &[b"ENOSYS\0"]).unwrap();
                    continue;
                }
            };
            packet(out, &header, &[reply.as_bytes()]).unwrap();
        }
        self.write();
        true
    }
}

fn event(out: &mut Vec<u8>, domid: usize) {
    let (path, token) =
        (format!("/local/domain/{domid}/control/shutdown\0"), format!("s{domid}\0"));
    packet(out, &Header::watch_event(), &[path.as_bytes(), token.as_bytes()]).unwrap();
}
