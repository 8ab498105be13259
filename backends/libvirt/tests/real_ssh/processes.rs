//! The children and descriptors of the test's own process, and of sshd.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::PATIENCE;

/// The pids of the children of this process whose command line contains `part`. Each test runs a
/// program at a path of its own, so that tests beside it do not count.
pub(crate) fn children(part: &str) -> Vec<u32> {
    let mut pids = Vec::new();
    for thread in fs::read_dir("/proc/self/task").unwrap() {
        let children = thread.unwrap().path().join("children");
        let children = fs::read_to_string(children).unwrap_or_default();
        pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    // A process that has just been started has the command line of this one until it executes its
    // program.
    pids.retain(|pid| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(part))
    });
    pids
}

/// The only child whose command line contains `part`.
pub(crate) fn only_child(part: &str) -> u32 {
    let children = children(part);
    assert_eq!(children.len(), 1, "{children:?}");
    children[0]
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

/// Waits until `done`.
pub(crate) async fn until(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "still no {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
