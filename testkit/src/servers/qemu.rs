//! A real QEMU without a daemon, with a monitor for the test's subject and one for the test.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::{Guest, LaunchError, check_socket_path, process};

/// How long QEMU may take to greet, or to answer. It takes 0.1 s on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a QEMU that has greeted may take to answer before it is given up, and another started.
const ANSWER: Duration = Duration::from_secs(5);

/// How many are started at most.
///
/// QEMU 7.2 now and then (one start of some 500) never answers on any of its monitors again, if two
/// clients give it commands in the same instant of its start: here, the test's subject and we.
const STARTS: usize = 3;

/// What QEMU is started with. By default a machine without anything in it, which needs no guest to be
/// started, paused, reset and powered down.
#[derive(Clone, Debug, Default)]
#[must_use = "call start()"]
pub struct QemuConfig {
    name: Option<String>,
    uuid: Option<String>,
    socket: Option<PathBuf>,
    tcp: Option<u16>,
    guest: Option<Guest>,
    running: bool,
    in_namespace: bool,
    args: Vec<String>,
}

impl QemuConfig {
    /// Its name (`-name`). Default: none.
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Its uuid (`-uuid`). Default: none.
    pub fn uuid(mut self, uuid: &str) -> Self {
        self.uuid = Some(uuid.into());
        self
    }

    /// Where the monitor for the test's subject is to listen. Default: in a directory of its own. The
    /// socket of a QEMU before it that is left there is removed.
    pub fn socket(mut self, path: &Path) -> Self {
        self.socket = Some(path.into());
        self
    }

    /// A port of the loopback where that monitor is to listen instead.
    pub fn tcp(mut self, port: u16) -> Self {
        self.tcp = Some(port);
        self
    }

    /// A machine that boots this guest.
    pub fn guest(mut self, guest: Guest) -> Self {
        self.guest = Some(guest);
        self
    }

    /// Runs at once, instead of waiting for `cont` (`-S`). What happens before the subject has
    /// connected is then lost.
    pub fn running(mut self) -> Self {
        self.running = true;
        self
    }

    /// Runs in a pid namespace of its own, as in a container: processes and threads have other numbers
    /// there. [`Qemu::pid`] is then that of `unshare`, whose end ends QEMU. Needs root.
    pub fn in_pid_namespace(mut self) -> Self {
        self.in_namespace = true;
        self
    }

    /// More arguments.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(ToString::to_string));
        self
    }

    /// Starts it, and waits until it listens.
    ///
    /// # Errors
    /// It is not installed, or ended at once: with what it said.
    pub async fn start(self) -> Result<Qemu, LaunchError> {
        let home = tempfile::Builder::new().prefix("vq").tempdir();
        let home = home.map_err(LaunchError::io("make a temporary directory"))?;
        let socket = self.socket.clone().unwrap_or_else(|| home.path().join("vm.sock"));
        let control = home.path().join("control");
        check_socket_path(&socket)?;
        check_socket_path(&control)?;
        for _ in 0..STARTS {
            for left_behind in [&socket, &control] {
                let _ = std::fs::remove_file(left_behind);
            }
            let mut command = Command::new("qemu-system-x86_64");
            if self.in_namespace {
                command = Command::new("unshare");
                command.args(["--pid", "--fork", "--kill-child", "qemu-system-x86_64"]);
            }
            let mut child = command
                .args(self.arguments(&socket, &control, home.path())?)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .map_err(LaunchError::spawn("qemu-system-x86_64", "qemu-system-x86"))?;
            if let Some(control) = connect(&mut child, &control).await? {
                return Ok(Qemu { child, socket, tcp: self.tcp, control, home });
            }
            let _ = child.kill().await;
        }
        Err(LaunchError::NotReady {
            server: "qemu-system-x86_64",
            trouble: format!("was started {STARTS} times, and greeted, but never answered"),
            log: String::new(),
        })
    }

    fn arguments(
        &self,
        socket: &Path,
        control: &Path,
        home: &Path,
    ) -> Result<Vec<OsString>, LaunchError> {
        let mut args: Vec<OsString> = Vec::new();
        let mut add = |some: &[&str]| args.extend(some.iter().map(OsString::from));
        add(&["-nodefaults", "-display", "none"]);
        match self.tcp {
            Some(port) => add(&["-qmp", &format!("tcp:127.0.0.1:{port},server=on,wait=off")]),
            None => add(&["-qmp", &format!("unix:{},server=on,wait=off", socket.display())]),
        }
        add(&["-qmp", &format!("unix:{},server=on,wait=off", control.display())]);
        if let Some(name) = &self.name {
            // In an option a comma is doubled.
            add(&["-name", &format!("guest={}", name.replace(',', ",,"))]);
        }
        if let Some(uuid) = &self.uuid {
            add(&["-uuid", uuid]);
        }
        if !self.running {
            add(&["-S"]);
        }
        match &self.guest {
            None => add(&["-machine", "none"]),
            Some(guest) => {
                let disk = home.join("disk");
                std::fs::write(&disk, guest.disk()).map_err(LaunchError::io("write a disk"))?;
                args.extend(guest.to_args(&disk).into_iter().map(OsString::from));
            }
        }
        args.extend(self.args.iter().map(OsString::from));
        Ok(args)
    }
}

/// A running QEMU. Dropping it kills it.
pub struct Qemu {
    child: Child,
    socket: PathBuf,
    tcp: Option<u16>,
    /// The test's own monitor.
    control: BufReader<UnixStream>,
    home: TempDir,
}

impl Qemu {
    /// Starts one in which there is nothing, paused.
    ///
    /// # Errors
    /// As [`QemuConfig::start`].
    pub async fn start() -> Result<Self, LaunchError> {
        QemuConfig::default().start().await
    }

    /// Its process; `None` when it was seen to have ended.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Where the monitor for the subject listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The URI of that monitor.
    pub fn uri(&self) -> String {
        match self.tcp {
            Some(port) => format!("qmp+tcp://127.0.0.1:{port}"),
            None => format!("qmp:{}", self.socket.display()),
        }
    }

    /// Whether a client is connected to the monitor for the subject.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn is_held(&mut self) -> Result<bool, LaunchError> {
        let free = match self.tcp {
            Some(port) => format!("disconnected:tcp:127.0.0.1:{port}"),
            None => format!("disconnected:unix:{},", self.socket.display()),
        };
        Ok(!self.run("query-chardev").await?.contains(&free))
    }

    /// Waits until no client is connected to it.
    ///
    /// # Errors
    /// One still is after a minute; else as [`run`](Self::run).
    pub async fn until_free(&mut self) -> Result<(), LaunchError> {
        let deadline = Instant::now() + PATIENCE;
        while self.is_held().await? {
            if Instant::now() >= deadline {
                return Err(trouble(&mut self.child, "is still held by a client").await);
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Has QEMU do something: a command without arguments, such as `stop`. Returns its answer; an empty
    /// one where it ended before it answered.
    ///
    /// # Errors
    /// QEMU says no, does not answer, or has ended.
    pub async fn run(&mut self, command: &str) -> Result<String, LaunchError> {
        self.run_with(command, "{}").await
    }

    /// The same with a command that takes arguments, a JSON object.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_with(
        &mut self,
        command: &str,
        arguments: &str,
    ) -> Result<String, LaunchError> {
        let line = match arguments {
            "{}" => format!("{{\"execute\":\"{command}\"}}\n"),
            _ => format!("{{\"execute\":\"{command}\",\"arguments\":{arguments}}}\n"),
        };
        let path = self.home.path().join("control");
        let failed = |message: String| LaunchError::Command { command: command.into(), message };
        let control = &mut self.control;
        let answer = async {
            let mut attempts = 0;
            loop {
                control.write_all(line.as_bytes()).await?;
                let answer = answer(control).await?;
                attempts += 1;
                // QEMU 7.2 now and then garbles good commands of a client that came at its start, for as
                // long as that is connected. Nothing was done then.
                let garbled = ["JSON parse error", "capabilities negotiation"];
                if attempts == 3 || !garbled.iter().any(|sign| answer.contains(sign)) {
                    return io::Result::Ok(answer);
                }
                control.shutdown().await?;
                *control = BufReader::new(UnixStream::connect(&path).await?);
                control.read_line(&mut String::new()).await?;
                negotiate(control).await?;
            }
        };
        match timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) if !answer.contains("\"error\"") => Ok(answer),
            Ok(Ok(answer)) => Err(failed(answer)),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed("no answer".into())),
        }
    }

    /// Sends it a signal: `SIGKILL`, and the like, by the names of `kill(1)` without SIG.
    ///
    /// # Panics
    /// The signal is none of KILL, TERM, STOP and CONT.
    #[allow(clippy::panic)]
    pub fn signal(&self, name: &str) {
        let signal = match name {
            "KILL" => Signal::KILL,
            "TERM" => Signal::TERM,
            "STOP" => Signal::STOP,
            "CONT" => Signal::CONT,
            _ => panic!("no signal of that name is sent here: {name}"),
        };
        if let Some(pid) = self.child.id() {
            process::signal(pid, signal);
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It does not end in a minute.
    pub async fn wait(&mut self) -> Result<(), LaunchError> {
        match timeout(PATIENCE, self.child.wait()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(trouble(&mut self.child, "does not end").await),
        }
    }
}

/// The test's own monitor of a QEMU that has just been started; `None` if it greets there, but does not
/// answer.
async fn connect(
    child: &mut Child,
    control: &Path,
) -> Result<Option<BufReader<UnixStream>>, LaunchError> {
    let greeted = async {
        loop {
            if let Ok(stream) = UnixStream::connect(control).await {
                let mut stream = BufReader::new(stream);
                stream.read_line(&mut String::new()).await?;
                return io::Result::Ok(stream);
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    let ready = async {
        let Ok(Ok(mut stream)) = timeout(PATIENCE, greeted).await else { return Err(()) };
        match timeout(ANSWER, negotiate(&mut stream)).await {
            Ok(Ok(1..)) => Ok(Some(stream)),
            Ok(_) => Err(()),
            Err(_) => Ok(None),
        }
    };
    let outcome = tokio::select! {
        outcome = ready => outcome,
        _ = child.wait() => Err(()),
    };
    match outcome {
        Ok(stream) => Ok(stream),
        Err(()) => Err(trouble(child, "did not start").await),
    }
}

/// What QEMU wants to hear after its greeting. How much it answered, in bytes.
async fn negotiate(stream: &mut BufReader<UnixStream>) -> io::Result<usize> {
    stream.write_all(b"{\"execute\":\"qmp_capabilities\"}\n").await?;
    stream.read_line(&mut String::new()).await
}

/// Kills it, and tells what it said.
async fn trouble(child: &mut Child, trouble: &str) -> LaunchError {
    let _ = child.start_kill();
    let mut log = String::new();
    if let Some(stderr) = child.stderr.take() {
        let mut stderr = BufReader::new(stderr);
        let _ = timeout(Duration::from_secs(1), stderr.read_to_string(&mut log)).await;
    }
    LaunchError::NotReady { server: "qemu-system-x86_64", trouble: trouble.into(), log }
}

/// The next answer; an empty one where QEMU ended before, as a command that ends it may have it.
async fn answer(control: &mut BufReader<UnixStream>) -> std::io::Result<String> {
    loop {
        let mut line = String::new();
        let read = control.read_line(&mut line).await?;
        if read == 0 || line.starts_with("{\"return\"") || line.contains("\"error\"") {
            return Ok(line);
        }
    }
}

impl fmt::Debug for Qemu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Qemu").field("pid", &self.pid()).field("uri", &self.uri()).finish()
    }
}
