//! The exit status and the messages of the built program.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

fn program(uri: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_select-loop"));
    command.arg(uri).stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The exit status and the standard error.
fn end(mut child: Child) -> (Option<i32>, String) {
    let since = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status.code(),
            None if since.elapsed() > Duration::from_secs(20) => {
                child.kill().unwrap();
                panic!("the program does not end");
            }
            None => sleep(Duration::from_millis(5)),
        }
    };
    let mut stderr = String::new();
    child.stderr.unwrap().read_to_string(&mut stderr).unwrap();
    (status, stderr)
}

#[test]
fn wrong_uri_exits_with_2_and_unreachable_hypervisor_with_1() {
    let table = [
        (OsStr::new("foo:"), 2, "use one of qemu:"),
        (OsStr::from_bytes(b"fake:\xff"), 2, "UTF-8"),
        (OsStr::new("test:///default?socket=/nonexistent/sock"), 1, "/nonexistent/sock"),
    ];
    for (uri, status, expected) in table {
        let (code, stderr) = end(program(uri).stdout(Stdio::null()).spawn().unwrap());
        assert_eq!(code, Some(status), "{stderr}");
        assert!(stderr.starts_with("select-loop: ") && stderr.contains(expected), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn a_closed_output_ends_the_program_without_a_message() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(ours);
    let child = program("fake:").stdout(OwnedFd::from(theirs)).spawn().unwrap();
    assert_eq!(end(child), (Some(0), String::new()));
}

#[test]
fn a_full_disk_ends_the_program_with_a_message() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (status, stderr) = end(program("fake:").stdout(full).spawn().unwrap());
    assert_eq!(status, Some(1));
    assert!(stderr.contains("cannot write to standard output: No space left"), "{stderr}");
}

#[test]
fn ctrl_c_and_sigterm_end_the_program_despite_blocked_output() {
    let (_ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    while theirs.write(&[b'x'; 4096]).is_ok() {}
    theirs.set_nonblocking(false).unwrap();
    for signal in [Signal::INT, Signal::TERM] {
        let blocked = OwnedFd::from(theirs.try_clone().unwrap());
        let child = program("fake:").stdout(blocked).spawn().unwrap();
        let pid = Pid::from_child(&child);
        while !catches(pid, signal) {
            sleep(Duration::from_millis(5));
        }
        kill_process(pid, signal).unwrap();
        assert_eq!(end(child), (Some(0), String::new()));
    }
}

/// Whether the process has a handler for the signal.
fn catches(pid: Pid, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(caught.trim(), 16).unwrap() >> (signal.as_raw() - 1) & 1 != 0
}
