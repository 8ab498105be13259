//! Processes that are not children of the test: found by pid files, read through `/proc`.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The resident memory of a process in KiB, or `None` if there is no such process.
///
/// From `VmRSS` in `/proc/PID/status`.
#[must_use]
pub fn rss_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Sends a signal. It is no error if the process is gone.
pub(super) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// The pids in the files `*.pid` of `directory` whose process runs a program with `program` in its
/// name: a pid may have been reused since the file was written.
pub(super) fn pids_in(directory: &Path, program: &str) -> Vec<u32> {
    let Ok(files) = fs::read_dir(directory) else { return Vec::new() };
    files
        .filter_map(|file| Some(file.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "pid"))
        .filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok())
        // Never kill a process that only has the number of one that is gone.
        .filter(|pid| runs(*pid, program))
        .collect()
}

/// The pids of a process's children.
pub(super) fn children(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    children.unwrap_or_default().split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Kills the processes and waits at most 2 s until they are gone. Blocks the thread: for `Drop`
/// only.
pub(super) fn kill_all(pids: &[u32]) {
    for pid in pids {
        signal(*pid, Signal::KILL);
    }
    // Bounded: a process in an uninterruptible wait must not block the test that drops it.
    let deadline = Instant::now() + Duration::from_secs(2);
    while pids.iter().any(|pid| is_alive(*pid)) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
}

fn runs(pid: u32, program: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| line.split('\0').next().is_some_and(|arg| arg.contains(program)))
}

/// Whether the process runs. A zombie does not: its parent has only not reaped it yet.
fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        // The state follows the program's name, which may itself contain spaces and brackets.
        stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with('Z'))
    })
}
