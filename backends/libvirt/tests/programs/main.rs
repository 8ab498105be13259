//! Connections through programs, without a server: what the programs get, and how they fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use virevent::driver::{Driver, Reconnect};
use virevent::{Error, EventSource, Options};
use virevent_libvirt::Libvirt;

struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(TempDir::with_prefix("lp").unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// Writes a program, and returns its path. Another process writes it: this one may start
    /// programs in another thread, which would have the file open for writing until they execute,
    /// and a file that is open for writing cannot be executed.
    fn program(&self, text: &str) -> String {
        let path = self.path("program");
        let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$2\" && chmod 700 \"$2\"";
        let status = Command::new("sh").args(["-c", write, "sh", text, &path]).status();
        assert!(status.unwrap().success());
        path
    }
}

fn client(uri: &str, timeout: Duration) -> Driver {
    let quick = Reconnect::local().base(Duration::from_millis(10)).max(Duration::from_millis(10));
    Libvirt::new(uri).unwrap().reconnect(quick).connect_timeout(timeout).source()
}

async fn failure(uri: &str) -> Error {
    let source = client(uri, Duration::from_secs(20));
    source.subscribe_with(Options::default()).await.unwrap_err()
}

#[tokio::test]
async fn a_command_that_exits_at_once_has_its_status_and_words() {
    let home = Home::new();
    let program = home.program("echo first >&2; printf 'no\\033[31m daemon' >&2; exit 3");
    let error = failure(&format!("test+ext:///default?command={program}")).await;
    assert!(!error.is_refusal());
    assert_eq!(
        error.to_line(),
        format!(
            "cannot reach {program}: the program ended before the daemon answered: check that it \
             connects its stdin and stdout with a libvirt daemon: it ended with exit status 3: \
             no[31m daemon"
        )
    );
}

#[tokio::test]
async fn ext_runs_its_command_without_arguments() {
    let home = Home::new();
    let program = home.program(&format!("echo \"$#\" >{}", home.path("arguments")));
    let error = failure(&format!("test+ext:///default?command={program}")).await;
    assert_eq!(home.read("arguments"), "0\n");
    assert!(error.to_line().contains("during the handshake"), "{error}");
}

#[tokio::test]
async fn ssh_gets_the_script_as_its_last_argument() {
    let home = Home::new();
    let arguments = home.path("arguments");
    let program = home.program(&format!("printf '%s\\n' \"$@\" >{arguments}; exit 255"));
    failure(&format!("test+ssh://fred@host:7/default?command={program}&proxy=native")).await;
    let expected = "-p\n7\n-l\nfred\n-T\n-e\nnone\n-o\nBatchMode=yes\n--\nhost\n\
                    sh -c 'virt-ssh-helper -r 'test:///default''\n";
    assert_eq!(home.read("arguments"), expected);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_refused() {
    for (uri, program) in [
        ("test+ssh://host/default?command=/nowhere/ssh", "/nowhere/ssh"),
        ("test+ext:///default?command=virevent-no-such", "virevent-no-such"),
    ] {
        let error = failure(uri).await;
        assert!(error.is_refusal());
        assert!(error.to_line().contains(&format!("there is no program {program:?}")), "{error}");
    }
}

#[tokio::test]
async fn a_program_that_may_not_be_executed_is_refused() {
    let error = failure("test+ext:///default?command=/etc/passwd").await;
    assert!(error.is_refusal());
    assert!(error.to_line().contains("cannot be started"), "{error}");
}

#[tokio::test]
async fn a_greeting_of_the_remote_shell_has_advice() {
    let home = Home::new();
    let program = home.program("echo 'Welcome to this host, which is no libvirt'; cat >/dev/null");
    let error = failure(&format!("test+ssh://host/default?command={program}")).await;
    assert!(error.to_line().contains("a start-up file of the shell"), "{error}");
}

#[tokio::test]
async fn a_silent_program_is_an_error_at_the_deadline() {
    let home = Home::new();
    let program = home.program("echo thinking >&2; exec sleep 600");
    let uri = format!("test+ssh://host/default?command={program}");
    let source = client(&uri, Duration::from_secs(1));
    let error = source.subscribe_with(Options::default()).await.unwrap_err();
    assert!(!error.is_refusal());
    let expected = "cannot reach ssh host: no answer within 1s: the host may be unreachable, or \
                    its daemon hangs: thinking";
    assert_eq!(error.to_line(), expected);
}

/// Whether the command line of a process contains the text.
fn has_process_with(text: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).any(|entry| {
        std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
    })
}

async fn until(done: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_secs(20), async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it happens in time");
}

#[tokio::test]
async fn a_subscription_dropped_midway_ends_its_program() {
    let home = Home::new();
    let program = home.program("trap '' HUP INT TERM; sleep 600; sleep 600");
    let uri = format!("test+ext:///default?command={program}");
    let source = client(&uri, Duration::from_secs(60));
    let subscriber = source.clone();
    let subscribing =
        tokio::spawn(async move { subscriber.subscribe_with(Options::default()).await });
    until(|| has_process_with(&program)).await;
    subscribing.abort();
    source.shutdown().await;
    until(|| !has_process_with(&program)).await;
}

#[test]
fn the_end_of_the_runtime_ends_the_program() {
    let home = Home::new();
    let program = home.program("trap '' HUP INT TERM; sleep 600; sleep 600");
    let uri = format!("test+ext:///default?command={program}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let source = client(&uri, Duration::from_secs(60));
    runtime.spawn(async move { source.subscribe_with(Options::default()).await });
    runtime.block_on(until(|| has_process_with(&program)));
    drop(runtime);
    let waiting = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    waiting.block_on(until(|| !has_process_with(&program)));
}
