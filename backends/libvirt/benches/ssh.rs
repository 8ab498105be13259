//! The cost of an event over ssh beside that over a unix socket, in turns, over the same events.
//!
//! An sshd on the loopback address connects ssh with the server's socket by netcat. The figures are
//! the CPU time for each event of the client's thread, and of the ssh that it runs; the server has a
//! thread of its own. It needs root, libvirtd, sshd and netcat. Run it with
//! `cargo bench -p virevent-libvirt --bench ssh`.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

mod client;
mod daemon;

use std::os::unix::net::UnixListener;
use std::path::Path;

use tokio::runtime::Builder;
use virevent::Kind;
use virevent_testkit::servers::{Libvirtd, Sshd};

use self::client::{BLOCK, EVENTS, cost_and, serve};

const RUNS: usize = 7;

fn main() {
    let servers = Builder::new_current_thread().enable_all().build().unwrap();
    let libvirtd = servers.block_on(Libvirtd::start()).unwrap();
    let sshd = servers.block_on(Sshd::beside(&libvirtd)).unwrap();
    let block = daemon::events(BLOCK);
    let directory = tempfile::tempdir().unwrap();
    let mut runs: Vec<[f64; 3]> = (0..RUNS)
        .map(|run| {
            let path = directory.path().join(run.to_string());
            let unix = format!("test+unix:///default?socket={}", path.display());
            let [unix, _] = over(&path, &unix, &block, || 0.0);
            let ssh = format!("{}&socket={}", sshd.uri("test:///default"), path.display());
            let [client, child] = over(&path, &ssh, &block, || cpu_of_ssh(&sshd));
            [unix, client, child]
        })
        .collect();
    // Other load on the machine changes single runs, so the one with the median ratio counts.
    runs.sort_by(|a, b| (a[1] / a[0]).total_cmp(&(b[1] / b[0])));
    let [unix, client, child] = runs[RUNS / 2];
    println!("| over {EVENTS} lifecycle events | CPU, ns/event | times *unix* |");
    println!("|---|---:|---:|");
    for (what, cost) in [("unix", unix), ("ssh: client", client), ("ssh: ssh itself", child)] {
        println!("| {what} | {cost:.0} | {:.2} |", cost / unix);
    }
}

/// The cost for the client, and for its ssh.
fn over(path: &Path, uri: &str, block: &[u8], cpu_of_ssh: impl FnOnce() -> f64) -> [f64; 2] {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).unwrap();
    let mut of_ssh = 0.0;
    let of_client = std::thread::scope(|scope| {
        scope.spawn(|| serve(listener.accept().unwrap().0, block, block.len()));
        cost_and(uri, Kind::Lifecycle, || of_ssh = cpu_of_ssh())
    });
    [of_client, of_ssh]
}

/// The CPU time for each event of the child that is the ssh to this sshd, its start included.
fn cpu_of_ssh(sshd: &Sshd) -> f64 {
    let key = sshd.key().display().to_string();
    for thread in std::fs::read_dir("/proc/self/task").unwrap() {
        let children = thread.unwrap().path().join("children");
        for pid in std::fs::read_to_string(children).unwrap_or_default().split_whitespace() {
            let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
            if read("cmdline").is_ok_and(|line| line.contains(&key)) {
                let stat = read("stat").unwrap();
                // After the name in parentheses: the 12th and 13th are the time as user and system.
                let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
                let ticks = fields[11..13].iter().map(|field| field.parse::<f64>().unwrap());
                return ticks.sum::<f64>() / TICKS * 1e9 / EVENTS as f64;
            }
        }
    }
    unreachable!("ssh runs as long as the connection")
}

/// `USER_HZ`, the same on every Linux that Rust knows.
const TICKS: f64 = 100.0;
