//! One source, many subscribers: the driver beside `tokio::sync::broadcast`.
//!
//! Both run on one thread in the same process, in turns, and hand the same events to the same
//! number of reading tasks. What is compared is CPU time per event that the source emits; the ratio
//! is what counts. Run it with `cargo bench -p virevent --bench fanout`.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use tokio::sync::{Notify, broadcast, mpsc};
use virevent::driver::{Batch, Connect, Driver, Interest, Listed, Session};
use virevent::{
    Change, Domain, DomainEvent, Error, EventSource, Lifecycle, Options, ResumeCause, State,
    SuspendCause, Uuid,
};

const DOMAINS: u128 = 1000;
/// Events between two waits for the readers: fewer than a mailbox holds, so that no reader lags.
const ROUND: usize = 512;
/// Rounds that are not measured.
const WARM_UP: usize = 2;
/// Events that one read brings.
const READ: usize = 64;

fn main() {
    println!("| subscribers | each wants | broadcast, ns/event | virevent, ns/event | ratio |");
    println!("|---:|---|---:|---:|---:|");
    // `cargo bench ... -- 100` measures just that many subscribers.
    let only: Option<usize> = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    for subscribers in [1, 10, 100, 1000].into_iter().filter(|n| only.is_none_or(|only| *n == only))
    {
        for one_domain in [false, true] {
            let rounds = (4000 / (subscribers + 3)).max(20);
            // In turns, and the median of the ratios: the machine is noisy.
            let mut runs: Vec<(f64, f64)> = (0..5)
                .map(|_| {
                    let other = measure(with_broadcast(subscribers, one_domain, rounds));
                    (other, measure(with_driver(subscribers, one_domain, rounds)))
                })
                .collect();
            runs.sort_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
            let (other, ours) = runs[runs.len() / 2];
            let wants = if one_domain { "one domain" } else { "everything" };
            println!("| {subscribers} | {wants} | {other:.0} | {ours:.0} | {:.2} |", ours / other);
        }
    }
}

/// The CPU time an event takes: the future returns the time it spent and the number of events.
fn measure(run: impl Future<Output = (Duration, usize)>) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (cpu, events) = runtime.block_on(run);
    cpu.as_nanos() as f64 / events as f64
}

/// The CPU time of this thread so far.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(n % DOMAINS + 1)
}

/// The nth event: every domain is suspended in turn, then resumed, and so on.
fn event(n: usize, domain: Domain, at: SystemTime) -> DomainEvent {
    let change = match n / DOMAINS as usize % 2 {
        0 => Change::Suspended(SuspendCause::Paused),
        _ => Change::Resumed(ResumeCause::Unpaused),
    };
    Lifecycle::new(domain, change, at).into()
}

/// Counts down to the end of a round.
#[derive(Default)]
struct Round {
    left: AtomicU64,
    over: Notify,
}

impl Round {
    fn begin(&self, readers: u64) {
        self.left.store(readers, Ordering::Relaxed);
    }

    fn reader_done(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.over.notify_one();
        }
    }
}

/// How many events of a round the reader with this number gets.
fn share(reader: usize, one_domain: bool, round: usize) -> usize {
    if !one_domain {
        return ROUND;
    }
    let first = round * ROUND;
    (first..first + ROUND).filter(|n| uuid(*n as u128) == uuid(reader as u128)).count()
}

/// The shares of every reader, by reader and round: computed before the clock runs.
fn shares(readers: usize, one_domain: bool, rounds: usize) -> Vec<Vec<usize>> {
    (0..readers).map(|r| (0..rounds).map(|n| share(r, one_domain, n)).collect()).collect()
}

/// How many readers get anything in a round.
fn served(shares: &[Vec<usize>], round: usize) -> u64 {
    shares.iter().filter(|shares| shares[round] > 0).count() as u64
}

async fn with_broadcast(readers: usize, one_domain: bool, rounds: usize) -> (Duration, usize) {
    let (sender, _) = broadcast::channel::<DomainEvent>(1024);
    let shares = shares(readers, one_domain, rounds);
    let served: Vec<_> = (0..rounds).map(|n| served(&shares, n)).collect();
    let round = Arc::new(Round::default());
    for (reader, shares) in shares.into_iter().enumerate() {
        let mut events = sender.subscribe();
        let round = Arc::clone(&round);
        tokio::spawn(async move {
            for share in shares {
                // A broadcast has no filters: the reader receives every event and drops what it
                // does not want.
                for _ in 0..ROUND {
                    let event = events.recv().await.unwrap();
                    let wanted =
                        !one_domain || event.domain().unwrap().uuid() == uuid(reader as u128);
                    std::hint::black_box(wanted.then_some(event));
                }
                if share > 0 {
                    round.reader_done();
                }
            }
            // Leaving is not what is measured.
            std::future::pending::<()>().await;
        });
    }
    let domains: Vec<_> =
        (0..DOMAINS).map(|n| Domain::new("bench:", "h", uuid(n), "domain", Some(1))).collect();
    tokio::task::yield_now().await;
    let mut before = cpu();
    for (n, served) in served.into_iter().enumerate() {
        // The first rounds warm up: each domain has its first event.
        if n == WARM_UP {
            before = cpu();
        }
        round.begin(served);
        for read in 0..ROUND / READ {
            let at = SystemTime::now();
            for i in 0..READ {
                let n = n * ROUND + read * READ + i;
                let domain = domains[n % DOMAINS as usize].clone();
                let _ = sender.send(event(n, domain, at));
            }
            tokio::task::yield_now().await;
        }
        if served > 0 {
            round.over.notified().await;
        }
    }
    (cpu() - before, (rounds - WARM_UP) * ROUND)
}

async fn with_driver(readers: usize, one_domain: bool, rounds: usize) -> (Duration, usize) {
    let (go, reads) = mpsc::unbounded_channel();
    let source = Driver::builder(Bench { reads: std::sync::Mutex::new(Some(reads)) }).build();
    let shares = shares(readers, one_domain, rounds);
    let served: Vec<_> = (0..rounds).map(|n| served(&shares, n)).collect();
    let round = Arc::new(Round::default());
    for (reader, shares) in shares.into_iter().enumerate() {
        let mut options = Options::default().existing(false);
        if one_domain {
            options = options.domain(uuid(reader as u128));
        }
        let mut events = source.subscribe_with(options).await.unwrap();
        let round = Arc::clone(&round);
        tokio::spawn(async move {
            let synced = events.next().await;
            assert!(matches!(synced, Some(DomainEvent::Synced(_))), "{synced:?}");
            for share in shares {
                for _ in 0..share {
                    let event = events.next().await.unwrap();
                    assert!(!event.is_marker(), "{event}");
                    std::hint::black_box(event);
                }
                if share > 0 {
                    round.reader_done();
                }
            }
            // Leaving is not what is measured.
            std::future::pending::<()>().await;
        });
    }
    tokio::task::yield_now().await;
    let mut before = cpu();
    for (n, served) in served.into_iter().enumerate() {
        // The first rounds warm up: each domain has its first event.
        if n == WARM_UP {
            before = cpu();
        }
        round.begin(served);
        for read in 0..ROUND / READ {
            go.send(n * ROUND + read * READ).unwrap();
        }
        if served > 0 {
            round.over.notified().await;
        } else {
            tokio::task::yield_now().await;
        }
    }
    (cpu() - before, (rounds - WARM_UP) * ROUND)
}

/// A hypervisor that sends what the benchmark asks for, a read at a time.
#[derive(Debug)]
struct Bench {
    reads: std::sync::Mutex<Option<mpsc::UnboundedReceiver<usize>>>,
}

impl Connect for Bench {
    type Session = Reads;

    fn uri(&self) -> &str {
        "bench:"
    }

    async fn connect(&self) -> Result<Reads, Error> {
        let reads = self.reads.lock().unwrap().take().unwrap();
        Ok(Reads { reads, interest: None, list: None })
    }
}

struct Reads {
    reads: mpsc::UnboundedReceiver<usize>,
    interest: Option<u64>,
    list: Option<u64>,
}

impl Session for Reads {
    fn host(&self) -> &str {
        "h"
    }

    fn set_interest(&mut self, _: &Interest, tag: u64) {
        self.interest = Some(tag);
    }

    fn request_list(&mut self, tag: u64) {
        self.list = Some(tag);
    }

    async fn advance(&mut self, out: &mut Batch) -> Result<(), Error> {
        if let Some(tag) = self.interest.take() {
            out.interest_done(tag, &[]);
        } else if let Some(tag) = self.list.take() {
            let running = State::Running(virevent::RunningReason::Booted);
            let domain = |n| Domain::new("bench:", "h", uuid(n), "domain", Some(1));
            let listed = |n| Listed::new(domain(n), running, Some(true));
            out.listed(tag, (0..DOMAINS).map(listed).collect());
        } else if let Some(first) = self.reads.recv().await {
            let at = out.received();
            for n in first..first + READ {
                let domain = out.domain(uuid(n as u128), "domain", Some(1));
                out.event(event(n, domain, at));
            }
        } else {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}
