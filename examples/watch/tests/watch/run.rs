//! Runs of the built program.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::NamedTempFile;
use virevent::{DomainEvent, GapKind};

/// The time limit of a run.
const PATIENCE: Duration = Duration::from_secs(20);

/// A run of the program. Dropping it kills the program.
pub(crate) struct Run {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: Option<JoinHandle<String>>,
}

/// The outcome of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Starts `watch` with these arguments.
pub(crate) fn start(args: &[&str]) -> Run {
    start_into(args, Stdio::piped())
}

/// Starts `watch` with this standard output in place of a pipe.
pub(crate) fn start_into(args: &[&str], stdout: impl Into<Stdio>) -> Run {
    spawn(&[], args, Stdio::null(), stdout.into())
}

/// Starts `watch` with a pipe as its standard input.
pub(crate) fn start_reading(args: &[&str]) -> Run {
    spawn(&[], args, Stdio::piped(), Stdio::piped())
}

/// Starts `watch` with these variables in its environment.
pub(crate) fn start_with(variables: &[(&str, &str)], args: &[&str]) -> Run {
    spawn(variables, args, Stdio::null(), Stdio::piped())
}

fn spawn(variables: &[(&str, &str)], args: &[&str], stdin: Stdio, stdout: Stdio) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_virevent-watch"))
        .args(args)
        .env_remove("VIREVENT_LOG")
        .env_remove("VIREVENT_LIBVIRT_USER")
        .env_remove("VIREVENT_LIBVIRT_PASSWORD")
        .env_remove("LIBVIRT_AUTH_FILE")
        // A group of its own, as a shell gives it, so that a test can send what a terminal sends.
        .process_group(0)
        .envs(variables.iter().copied())
        .stdin(stdin)
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().map(BufReader::new);
    let stderr = child.stderr.take().map(|pipe| thread::spawn(move || read(pipe)));
    Run { child, stdout, stderr }
}

/// Runs `watch` with these arguments to its end.
pub(crate) fn run(args: &[&str]) -> Outcome {
    start(args).end()
}

impl Run {
    /// Writes its whole standard input.
    pub(crate) fn write(&mut self, text: &str) {
        self.child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// The next line of its output.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.as_mut().unwrap().read_line(&mut line).unwrap();
        line
    }

    /// The next event, [in short](Outcome::in_short).
    pub(crate) fn next(&mut self) -> String {
        let line = self.line();
        assert!(!line.is_empty(), "the output has ended");
        in_short(&serde_json::from_str(&line).unwrap())
    }

    /// Reads up to the first `synced`.
    pub(crate) fn until_synced(&mut self) {
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "the output has ended");
            if line.contains("synced") {
                break;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its process id.
    #[cfg(feature = "sasl")]
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What a terminal does on Ctrl-C: the signal goes to the program and to what it has started.
    pub(crate) fn signal_group(&self, signal: Signal) {
        kill_process_group(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn close_stdout(&mut self) {
        self.stdout = None;
    }

    /// Waits for its end without reading its output.
    pub(crate) fn status(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().expect("killed by a signal");
            }
            assert!(start.elapsed() < PATIENCE, "the program does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Reads its output to the end.
    pub(crate) fn end(mut self) -> Outcome {
        let stdout = self.stdout.take().map(|pipe| thread::spawn(move || read(pipe)));
        let status = self.status();
        let text = |thread: Option<JoinHandle<String>>| {
            thread.map(|thread| thread.join().unwrap()).unwrap_or_default()
        };
        Outcome { status, stdout: text(stdout), stderr: text(self.stderr.take()) }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Outcome {
    /// The lines of its output, as events.
    pub(crate) fn events(&self) -> Vec<DomainEvent> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The events in short: `started booted`, `gap`, `synced`.
    pub(crate) fn in_short(&self) -> Vec<String> {
        self.events().iter().map(in_short).collect()
    }

    /// Asserts that it failed with this status and a message of one line, and printed nothing else.
    pub(crate) fn assert_failed(&self, status: i32, expected: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert!(
            self.stderr.starts_with("virevent-watch: ") && self.stderr.contains(expected),
            "{self:?}"
        );
        assert_eq!(self.stdout, "", "{self:?}");
    }
}

fn in_short(event: &DomainEvent) -> String {
    match event {
        DomainEvent::Lifecycle(event) => {
            format!("{} {}", event.change.as_str(), event.change.cause())
        }
        DomainEvent::Gap(gap) if matches!(gap.kind, GapKind::Disconnected { .. }) => "gap".into(),
        DomainEvent::Synced(_) => "synced".into(),
        other => other.to_string(),
    }
}

/// A file with a script: each step is a line of TOML.
pub(crate) fn script(ends: bool, steps: &[&str]) -> NamedTempFile {
    let mut text = format!("ends = {ends}\n");
    for step in steps {
        let _ = write!(text, "[[step]]\n{step}\n");
    }
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// The path of a script, as an argument.
pub(crate) fn path(file: &NamedTempFile) -> &str {
    file.path().to_str().unwrap()
}

pub(crate) fn read(mut pipe: impl Read) -> String {
    let mut text = String::new();
    pipe.read_to_string(&mut text).unwrap();
    text
}
