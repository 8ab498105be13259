//! The cost of typed events beside that of lifecycle events, over a unix socket, in turns.
//!
//! The figure is the CPU time of the client's thread for each event; the server has a thread of its
//! own. Run it with `cargo bench -p virevent-libvirt --bench kinds`.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

mod client;
mod daemon;

use std::os::unix::net::UnixListener;
use std::path::Path;

use virevent::Kind;

use self::client::{BLOCK, EVENTS, cost, serve};

const RUNS: usize = 7;

fn main() {
    let blocks = [
        (Kind::Lifecycle, daemon::events(BLOCK)),
        (
            Kind::BlockJob,
            daemon::notices(339, BLOCK, |body| {
                body.string("vda");
                body.i32(2);
                body.i32(3);
            }),
        ),
        (Kind::BalloonChange, daemon::notices(331, BLOCK, |body| body.u64(524_288))),
    ];
    let directory = tempfile::tempdir().unwrap();
    let mut runs: Vec<Vec<f64>> = (0..RUNS)
        .map(|run| {
            let path = |kind: &Kind| directory.path().join(format!("{run}{kind}"));
            blocks.iter().map(|(kind, block)| over_unix(&path(kind), kind.clone(), block)).collect()
        })
        .collect();
    // Other load on the machine changes single runs, so the one with the median ratio counts.
    runs.sort_by(|a, b| (a[1] / a[0]).total_cmp(&(b[1] / b[0])));
    let costs = &runs[RUNS / 2];
    println!("| over {EVENTS} events | CPU, ns/event | times *lifecycle* |");
    println!("|---|---:|---:|");
    for ((kind, _), cost) in blocks.iter().zip(costs) {
        println!("| {kind} | {cost:.0} | {:.2} |", cost / costs[0]);
    }
}

fn over_unix(path: &Path, kind: Kind, block: &[u8]) -> f64 {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| serve(listener.accept().unwrap().0, block, block.len()));
        cost(&format!("test+unix:///default?socket={}", path.display()), kind)
    })
}
