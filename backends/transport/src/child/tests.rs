use std::fs;
use std::future::poll_fn;
use std::path::Path;
use std::time::Instant as StdInstant;

use super::*;
use crate::{Endpoint, Outbox, Socket, deadline_after};

const PATIENCE: Duration = Duration::from_secs(20);

fn sh(script: &str) -> Program {
    Program {
        label: "sh".into(),
        program: "sh".into(),
        args: vec!["-c".into(), script.into()],
        terminal: false,
    }
}

async fn read(child: &mut Child, buffer: &mut [u8]) -> usize {
    let mut buffer = ReadBuf::new(buffer);
    poll_fn(|cx| child.poll_read(cx, &mut buffer)).await.unwrap();
    buffer.filled().len()
}

async fn read_line(child: &mut Child) -> String {
    let mut text = String::new();
    let mut buffer = [0; 256];
    while !text.ends_with('\n') {
        let count = read(child, &mut buffer).await;
        assert!(count > 0, "{text:?}");
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    text
}

/// Waits until there is no such process, not even a zombie.
fn until_gone(pid: u32) {
    let begun = StdInstant::now();
    while Path::new(&format!("/proc/{pid}")).exists() {
        assert!(begun.elapsed() < PATIENCE, "{pid} is still there");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[tokio::test]
async fn a_program_carries_bytes_both_ways() {
    let endpoint = Endpoint::Child(sh("cat"));
    let mut socket = Socket::connect(&endpoint, deadline_after(PATIENCE)).await.unwrap();
    assert!(socket.as_unix().is_none());
    let mut outbox = Outbox::default();
    outbox.appending().extend_from_slice(b"hello");
    let mut spare = [0; 64];
    let count = poll_fn(|cx| socket.poll_io(cx, &mut outbox, &mut spare)).await.unwrap();
    assert_eq!(&spare[..count], b"hello");
}

#[tokio::test]
async fn the_end_of_a_program_has_its_status_and_last_line() {
    let mut child = Child::spawn(&sh("echo one >&2; echo two >&2; exit 7")).unwrap();
    assert_eq!(read(&mut child, &mut [0; 8]).await, 0);
    let ended = child.ended().await;
    assert_eq!(ended.to_string(), "it ended with exit status 7: two");
    assert_eq!(child.ended().await.status, ended.status);
    until_gone(child.id());
}

#[tokio::test]
async fn a_program_killed_by_a_signal_is_described() {
    let mut child = Child::spawn(&sh("kill -9 $$")).unwrap();
    assert_eq!(read(&mut child, &mut [0; 8]).await, 0);
    let ended = child.ended().await.to_string();
    assert_eq!(ended, "it ended with signal 9 (SIGKILL) and wrote no error");
}

#[tokio::test]
async fn a_program_that_closes_stdout_and_stays_has_no_status() {
    let mut child = Child::spawn(&sh("exec >&- <&-; echo busy >&2; sleep 60")).unwrap();
    assert_eq!(read(&mut child, &mut [0; 8]).await, 0);
    assert_eq!(child.ended().await.to_string(), "it closed its output: busy");
    let pid = child.id();
    drop(child);
    until_gone(pid);
}

#[tokio::test]
async fn stderr_beyond_a_pipe_blocks_no_program() {
    let script = "head -c 1000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo last >&2; echo done";
    let mut child = Child::spawn(&sh(script)).unwrap();
    assert_eq!(read_line(&mut child).await, "done\n");
    assert_eq!(read(&mut child, &mut [0; 8]).await, 0);
    assert_eq!(child.ended().await.last_line, "last");
}

#[tokio::test]
async fn stderr_behind_a_closed_stdout_blocks_no_program() {
    let script = "exec >&- <&-; head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 3";
    let mut child = Child::spawn(&sh(script)).unwrap();
    assert_eq!(read(&mut child, &mut [0; 8]).await, 0);
    assert_eq!(child.ended().await.status.unwrap().code(), Some(3));
}

#[tokio::test]
async fn a_program_gets_no_more_than_the_cut_environment() {
    let mut child = Child::spawn(&sh("env | tr '\\n' ' '; echo")).unwrap();
    let environment = read_line(&mut child).await;
    assert!(environment.contains("LC_ALL=C ") && environment.contains("PATH="));
    // What the shell adds itself.
    let own = ["LC_ALL", "PWD", "OLDPWD", "SHLVL", "_"];
    for variable in environment.split_whitespace().filter_map(|line| line.split_once('=')) {
        assert!(own.contains(&variable.0) || PASSED.contains(&variable.0), "{}", variable.0);
    }
    assert!(!environment.contains("CARGO"), "{environment}");
}

#[tokio::test]
async fn a_dropped_program_that_reads_its_stdin_ends_by_itself() {
    let home = tempfile::tempdir().unwrap();
    let mark = home.path().join("mark");
    let script = format!("echo up; cat >/dev/null; echo end >{}", mark.display());
    let mut child = Child::spawn(&sh(&script)).unwrap();
    read_line(&mut child).await;
    let pid = child.id();
    drop(child);
    until_gone(pid);
    assert_eq!(fs::read_to_string(mark).unwrap(), "end\n");
}

#[tokio::test]
async fn a_dropped_program_that_stays_is_killed_with_its_group() {
    let script = "trap '' HUP TERM INT; sleep 600 & echo $!; sleep 600; sleep 600";
    let mut child = Child::spawn(&sh(script)).unwrap();
    let grandchild: u32 = read_line(&mut child).await.trim().parse().unwrap();
    let pid = child.id();
    drop(child);
    until_gone(pid);
    // It is a child of init now, which waits for it.
    let begun = StdInstant::now();
    let is_alive = || {
        fs::read_to_string(format!("/proc/{grandchild}/stat"))
            .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap().starts_with('Z'))
    };
    while is_alive() {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn the_end_of_the_runtime_ends_the_program() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let pid = runtime.block_on(async {
        let mut child = Child::spawn(&sh("echo up; sleep 600")).unwrap();
        read_line(&mut child).await;
        let pid = child.id();
        tokio::spawn(async move { read(&mut child, &mut [0; 8]).await });
        tokio::task::yield_now().await;
        pid
    });
    drop(runtime);
    until_gone(pid);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_not_found() {
    let mut program = sh("");
    program.program = "/nowhere/ssh".into();
    assert_eq!(Child::spawn(&program).unwrap_err().kind(), io::ErrorKind::NotFound);
    program.program = "virevent-no-such-program".into();
    assert_eq!(Child::spawn(&program).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_program_without_terminal_leads_its_own_group() {
    let mut program = sh("ps -o pgid= -p $$ 2>/dev/null || cut -d' ' -f5 /proc/$$/stat");
    let mut child = Child::spawn(&program).unwrap();
    assert_eq!(read_line(&mut child).await.trim(), child.id().to_string());
    program.terminal = true;
    let mut child = Child::spawn(&program).unwrap();
    assert_ne!(read_line(&mut child).await.trim(), child.id().to_string());
}
