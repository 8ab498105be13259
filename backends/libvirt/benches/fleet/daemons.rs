//! Many fake libvirtds, in a thread of their own, and the orders that they obey.
//!
//! An order is a line on a unix socket; its answer is lines, and an empty one.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Builder;
use tokio::time::{interval, sleep};
use virevent::State;
use virevent_libvirt::wire::procs;
use virevent_testkit::Host;
use virevent_testkit::fakes::libvirtd::{FakeLibvirtd, SyncCount};

/// How long each reply takes while clients are synced: the round trip of a network.
const ROUND_TRIP: Duration = Duration::from_millis(5);

/// Events are sent so many times a second, each time by as many daemons as there are events.
const TICKS: usize = 100;

/// The thread of the daemons. It ends with the connection of the one that gives orders.
pub(crate) struct Daemons {
    home: TempDir,
    thread: JoinHandle<()>,
}

impl Daemons {
    pub(crate) fn start(hosts: usize, domains: usize) -> Self {
        let home = tempfile::Builder::new().prefix("vo").tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(control(home.path())).unwrap();
        listener.set_nonblocking(true).unwrap();
        let thread = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let fakes = Fakes::new(hosts, domains);
                let listener = UnixListener::from_std(listener).unwrap();
                fakes.obey(listener.accept().await.unwrap().0).await;
            });
        });
        Self { home, thread }
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn join(self) {
        self.thread.join().unwrap();
    }
}

fn control(home: &Path) -> PathBuf {
    home.join("control")
}

fn now() -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().unwrap()
}

/// What gives orders to the daemons.
pub(crate) struct Orders {
    answers: Lines<BufReader<OwnedReadHalf>>,
    orders: OwnedWriteHalf,
}

impl Orders {
    pub(crate) async fn connect(home: &Path) -> Self {
        let (answers, orders) = UnixStream::connect(control(home)).await.unwrap().into_split();
        Self { answers: BufReader::new(answers).lines(), orders }
    }

    pub(crate) async fn give(&mut self, order: &str) -> Vec<String> {
        self.orders.write_all(format!("{order}\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        loop {
            match self.answers.next_line().await.unwrap().unwrap() {
                line if line.is_empty() => return answer,
                line => answer.push(line),
            }
        }
    }

    /// An order whose answer is a number.
    pub(crate) async fn ask(&mut self, order: &str) -> u64 {
        self.give(order).await[0].parse().unwrap()
    }
}

/// The time since the answer to `restart`, which is that of the daemons' return.
pub(crate) fn since(returned: u64) -> Duration {
    now() - Duration::from_nanos(returned)
}

struct Fakes {
    fakes: Vec<FakeLibvirtd>,
    syncs: SyncCount,
    domains: usize,
}

impl Fakes {
    fn new(hosts: usize, domains: usize) -> Self {
        let syncs = SyncCount::default();
        let start = |number| {
            let host = Host::new(&format!("host{number:04}"));
            (0..domains).for_each(|domain| drop(host.create(&name(&host, domain)).unwrap()));
            let fake = FakeLibvirtd::serve(host).unwrap();
            fake.count_syncs(&syncs);
            fake
        };
        Self { fakes: (0..hosts).map(start).collect(), syncs, domains }
    }

    async fn obey(&self, socket: UnixStream) {
        let (orders, mut answers) = socket.into_split();
        let mut orders = BufReader::new(orders).lines();
        while let Some(order) = orders.next_line().await.unwrap() {
            let mut words = order.split(' ');
            let order = words.next().unwrap();
            let mut number = || words.next().unwrap().parse().unwrap();
            let lines = match order {
                "uris" => self.fakes.iter().map(FakeLibvirtd::uri).collect(),
                "delay" => vec![self.delay(number() == 1)],
                "events" => vec![self.send_events(number(), number(), number()).await],
                "restart" => vec![self.restart(Duration::from_millis(number() as u64)).await],
                "lists" => vec![self.lists().to_string()],
                "syncs" => vec![self.syncs.take_most().to_string()],
                "domains" => self.fakes.iter().flat_map(described).collect(),
                order => vec![format!("no such order: {order}")],
            };
            let answer = lines.into_iter().chain([String::new()]).map(|line| line + "\n");
            answers.write_all(answer.collect::<String>().as_bytes()).await.unwrap();
        }
    }

    fn delay(&self, is_delayed: bool) -> String {
        let delay = if is_delayed { ROUND_TRIP } else { Duration::ZERO };
        self.fakes.iter().for_each(|fake| fake.change(|faults| faults.gather = delay));
        "0".into()
    }

    /// Sends `count` events, `rate` a second, evenly over all domains. Each daemon in turn sends
    /// `burst` events.
    async fn send_events(&self, count: usize, rate: usize, burst: usize) -> String {
        let mut ticks = interval(Duration::from_secs(1) / TICKS as u32);
        for number in 0..count {
            if number % (rate / TICKS) == 0 {
                ticks.tick().await;
            }
            let turn = number / burst;
            let host = self.fakes[turn % self.fakes.len()].host();
            toggle(host, (turn / self.fakes.len() * burst + number % burst) % self.domains);
        }
        count.to_string()
    }

    /// Ends all daemons at once, and starts them again after this time. Meanwhile a domain of each
    /// is suspended or resumed, and one is new; none stops.
    async fn restart(&self, after: Duration) -> String {
        self.fakes.iter().for_each(FakeLibvirtd::go_down);
        for fake in &self.fakes {
            toggle(fake.host(), 0);
            fake.host().create(&name(fake.host(), self.domains)).unwrap();
        }
        sleep(after).await;
        let returned = now();
        self.fakes.iter().for_each(|fake| fake.come_back().unwrap());
        returned.as_nanos().to_string()
    }

    /// How many lists the daemons have been asked for.
    fn lists(&self) -> u64 {
        self.fakes.iter().map(|fake| fake.calls(procs::CONNECT_LIST_ALL_DOMAINS)).sum()
    }
}

fn name(host: &Host, number: usize) -> String {
    format!("{}-domain{number:04}", host.name())
}

fn toggle(host: &Host, number: usize) {
    let name = name(host, number);
    match host.find(&name).unwrap().state {
        State::Running(_) => host.suspend(&name).unwrap(),
        _ => host.resume(&name).unwrap(),
    };
}

/// A line for each domain: URI, host, uuid, name, id, state and reason as libvirt's numbers.
fn described(fake: &FakeLibvirtd) -> Vec<String> {
    let uri = fake.uri();
    let host = fake.host().name();
    let line = |entry: &virevent::driver::Listed| {
        let (state, reason) = entry.state.codes();
        let domain = &entry.domain;
        let id = domain.id().unwrap();
        format!("{uri} {host} {} {} {id} {state} {reason}", domain.uuid(), domain.name())
    };
    fake.host().domains().iter().map(line).collect()
}
