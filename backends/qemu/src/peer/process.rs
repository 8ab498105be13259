//! The process at the other end of a socket, and when it ends.
//!
//! The pid is that of the socket's owner, the process that made it (`SO_PEERCRED`), which is not
//! always QEMU: a manager may make the socket and pass it to the QEMU that it starts; the owner may
//! have ended, and its pid be reused; across pid namespaces the pid is 0. A wrong pid would report
//! a running domain as stopped, so a pid is used only if it is proved to be QEMU's:
//!
//! | QEMU's answer about its virtual CPUs | the process is QEMU if |
//! |---|---|
//! | the first is this thread | it is a thread of the process, by the number in the process's own pid namespace (`NSpid` in `/proc/PID/task/TID/status`); in another namespace than ours the condition of the next line holds as well |
//! | there are none (`-machine none`) | it holds the other end of a connection to the socket, by `/proc/PID/net/unix` and `/proc/PID/fd`: a manager that keeps what it made holds the end that listens |
//! | nothing (before 2.12) | never |
//!
//! The process is opened before QEMU is asked, and proved after QEMU has answered: else the pid
//! could be reused in between. Without a proof no process is watched, and the end of QEMU is
//! detected by connecting again. (A proxy that listens in place of QEMU fails the first proof. It
//! would pass the second, so that one is used only for a machine without a guest.)
//!
//! Without open files left nothing is proved, and that is an error: an outage that people can fix
//! is better than a QEMU whose end is seen late.
//!
//! A pidfd becomes readable when its process ends, even before its parent waits for it. Where there
//! are no pidfds (other systems than Linux, before 5.3) no process is watched.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::task::{Context, Poll};

use tokio::io::unix::AsyncFd;

use crate::peer::advice::is_out_of_files;

/// A process that is watched.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    ended: AsyncFd<OwnedFd>,
}

impl Process {
    /// Watches a process without a proof.
    #[cfg(test)]
    pub(crate) fn watch(pid: u32) -> Self {
        let pidfd = pidfd(pid as i32).unwrap().unwrap();
        #[allow(deprecated)]
        let ended = AsyncFd::new(pidfd).unwrap();
        Self { pid, ended }
    }

    /// Ready once the process has ended, and from then on.
    pub(crate) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        // Readiness is not cleared, for the process stays dead. An error means that the runtime
        // shuts down.
        match self.ended.poll_read_ready(cx) {
            Poll::Ready(Ok(_)) => Poll::Ready(()),
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

/// The process that made a socket. It may not be QEMU.
#[derive(Debug)]
pub(crate) struct SocketOwner {
    pid: u32,
    pidfd: OwnedFd,
}

impl SocketOwner {
    /// The process with this pid; `None` where it cannot be watched.
    ///
    /// # Errors
    /// The limit of open files is reached. The caller reports it, since without the descriptor the
    /// end of the process would go unnoticed.
    pub(crate) fn new(pid: i32) -> io::Result<Option<Self>> {
        let own = std::process::id();
        let number = u32::try_from(pid).ok().filter(|pid| *pid != own && *pid != 0);
        let Some(number) = number else { return Ok(None) };
        // The owner may have ended already, and then there is nothing to watch.
        let pidfd = unless_out_of_files(pidfd(pid))?;
        Ok(pidfd.flatten().map(|pidfd| Self { pid: number, pidfd }))
    }

    /// It is the QEMU that serves the socket bound to this path and whose first virtual CPU is this
    /// thread, or `None`. May take its time.
    ///
    /// # Errors
    /// The limit of open files is reached.
    pub(crate) fn with_thread(self, thread: u32, socket: &Path) -> io::Result<Option<Process>> {
        let found = unless_out_of_files(find(self.pid, thread))?.unwrap_or(ThreadPlace::Nowhere);
        let is_proved = match found {
            ThreadPlace::Nowhere => false,
            ThreadPlace::Here => true,
            // A thread of another process may have the same number in another namespace.
            ThreadPlace::Elsewhere => {
                unless_out_of_files(serves(self.pid, socket))?.unwrap_or(false)
            }
        };
        Ok(self.proved(is_proved))
    }

    /// It is the QEMU without a virtual CPU that serves the socket bound to this path, or `None`.
    /// Reads a table of all sockets that there are, and may take its time.
    ///
    /// # Errors
    /// There are as many open files as there may be.
    pub(crate) fn with_connection(self, socket: &Path) -> io::Result<Option<Process>> {
        let serves = unless_out_of_files(serves(self.pid, socket))?;
        Ok(self.proved(serves.unwrap_or(false)))
    }

    fn proved(self, is_proved: bool) -> Option<Process> {
        if !is_proved {
            tracing::debug!(pid = self.pid, "the owner of the socket is not proved to be QEMU");
            return None;
        }
        // `register`, its replacement, is newer than the oldest tokio that we build with, and an
        // OwnedFd is as safe as it asks for.
        #[allow(deprecated)]
        let ended = AsyncFd::new(self.pidfd).ok()?;
        Some(Process { pid: self.pid, ended })
    }
}

/// The most threads of a process that are examined.
const MAX_THREADS: usize = 4096;

/// Where the thread with a certain number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ThreadPlace {
    /// Not in the process.
    Nowhere,
    /// In the process, by its number in our pid namespace.
    Here,
    /// In the process, by its number in a pid namespace below ours: that of a container.
    Elsewhere,
}

/// Finds the thread that has this number in the process's own pid namespace.
fn find(pid: u32, thread: u32) -> io::Result<ThreadPlace> {
    let directory = format!("/proc/{pid}/task");
    let status = |thread: &str| fs::read_to_string(format!("{directory}/{thread}/status"));
    if let Ok(text) = status(&thread.to_string()) {
        match numbers(&text).as_slice() {
            // Linux before 4.1 has no NSpid.
            [] => return Ok(ThreadPlace::Here),
            [number] if *number == thread => return Ok(ThreadPlace::Here),
            _ => {}
        }
    }
    for entry in fs::read_dir(&directory)?.take(MAX_THREADS) {
        let name = entry?.file_name();
        // Fails for a thread that has ended meanwhile, which is not the one.
        let Ok(text) = status(&name.to_string_lossy()) else { continue };
        let numbers = numbers(&text);
        if numbers.len() > 1 && numbers.last() == Some(&thread) {
            return Ok(ThreadPlace::Elsewhere);
        }
    }
    Ok(ThreadPlace::Nowhere)
}

/// The numbers of a thread in each pid namespace, from ours down to its own (`NSpid` in
/// `proc_pid_status(5)`).
fn numbers(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    line.into_iter().flat_map(str::split_whitespace).filter_map(|id| id.parse().ok()).collect()
}

/// Whether the process holds a connection that was accepted at the socket bound to this path.
fn serves(pid: u32, socket: &Path) -> io::Result<bool> {
    let table = fs::read(format!("/proc/{pid}/net/unix"))?;
    let accepted: HashSet<OsString> = table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| accepted(line, socket))
        .map(|inode| format!("socket:[{inode}]").into())
        .collect();
    let mut descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?
        .filter_map(|descriptor| fs::read_link(descriptor.ok()?.path()).ok());
    Ok(descriptors.any(|target| accepted.contains(target.as_os_str())))
}

/// `None` for an error other than a lack of open files.
fn unless_out_of_files<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_out_of_files(&error) => Err(error),
        Err(error) => {
            tracing::debug!(%error, "the owner of the socket cannot be examined");
            Ok(None)
        }
    }
}

/// The inode of a socket in a line of `/proc/net/unix`, if it was accepted at the one bound to
/// `path`: `Num: RefCount Protocol Flags Type St Inode Path`. An accepted socket has the path of
/// the listening one.
fn accepted<'a>(line: &'a [u8], path: &Path) -> Option<&'a str> {
    const CONNECTED: &str = "03";

    let line = line.strip_suffix(path.as_os_str().as_bytes())?.strip_suffix(b" ")?;
    let fields: Vec<&str> = std::str::from_utf8(line).ok()?.split_ascii_whitespace().collect();
    match fields[..] {
        [_, _, _, _, _, CONNECTED, inode] => Some(inode),
        _ => None,
    }
}

#[cfg(target_os = "linux")]
fn pidfd(pid: i32) -> io::Result<Option<OwnedFd>> {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    let Some(pid) = Pid::from_raw(pid) else { return Ok(None) };
    Ok(Some(pidfd_open(pid, PidfdFlags::empty())?))
}

#[cfg(not(target_os = "linux"))]
fn pidfd(_pid: i32) -> io::Result<Option<OwnedFd>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_thread_is_found_by_its_number_in_its_own_namespace() {
        let own = std::process::id();
        assert_eq!(find(own, own).unwrap(), ThreadPlace::Here);
        assert_eq!(find(own, u32::MAX).unwrap(), ThreadPlace::Nowhere);
        assert_eq!(numbers("Name:\tq\nNSpid:\t4711\t12\t7\nNSpgid:\t1\n"), [4711, 12, 7]);
        assert!(numbers("Name:\tq\n").is_empty());
    }

    #[test]
    fn a_process_serves_a_socket_once_it_has_accepted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a socket");
        let serves = |pid, path: &Path| serves(pid, path).unwrap();
        let own = std::process::id();
        let parent = std::os::unix::process::parent_id();
        let listener = UnixListener::bind(&path).unwrap();
        assert!(!serves(own, &path), "a manager that keeps the listening socket");
        let _client = UnixStream::connect(&path).unwrap();
        assert!(!serves(own, &path), "a client that is not accepted yet");
        let (accepted, _) = listener.accept().unwrap();
        assert!(serves(own, &path));
        assert!(!serves(own, &directory.path().join("socket")) && !serves(parent, &path));
        drop(accepted);
        assert!(!serves(own, &path));
    }

    #[test]
    fn only_a_connected_socket_of_the_path_is_accepted() {
        let listens = b"0000000000000000: 00000002 00000000 00010000 0001 01 4711 /run/vm";
        assert_eq!(accepted(listens, Path::new("/run/vm")), None);
        let served = b"0000000000000000: 00000003 00000000 00000000 0001 03  815 /run/vm";
        assert_eq!(accepted(served, Path::new("/run/vm")), Some("815"));
        for path in ["/run/v", "vm", "n/vm", "/run/vm2", ""] {
            assert_eq!(accepted(served, Path::new(path)), None, "{path}");
        }
        assert_eq!(accepted(b"\xff\xfe 03 1 /run/vm", Path::new("/run/vm")), None);
    }

    #[test]
    fn a_path_with_a_line_break_proves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("two\nlines");
        let listener = UnixListener::bind(&path).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        let _accepted = listener.accept().unwrap();
        assert!(!serves(std::process::id(), &path).unwrap());
    }
}
