//! A real QEMU without a daemon, with one monitor for the client under test and one for the test.

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

/// The timeout of a greeting or an answer. QEMU takes 0.1 s on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The timeout of the first answer after the greeting, before another QEMU is started in its place.
const ANSWER: Duration = Duration::from_secs(5);

/// The number of starts before the launcher gives up.
///
/// In about one of 500 starts QEMU 7.2 stops answering on all monitors, if two clients send
/// commands in the same instant of its start: here the client under test and the test itself.
const STARTS: usize = 3;

/// The configuration of a [`Qemu`]. By default an empty machine, which can be started, paused,
/// reset and powered down without a guest.
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

    /// The path of the monitor for the client under test. Default: in a directory of its own. A
    /// socket file that an earlier QEMU left there is removed.
    pub fn socket(mut self, path: &Path) -> Self {
        self.socket = Some(path.into());
        self
    }

    /// A port of the loopback address for that monitor, in place of a socket file.
    pub fn tcp(mut self, port: u16) -> Self {
        self.tcp = Some(port);
        self
    }

    /// The guest that the machine boots. Default: none.
    pub fn guest(mut self, guest: Guest) -> Self {
        self.guest = Some(guest);
        self
    }

    /// Runs the guest at once, without waiting for `cont` (`-S`). Events before the client under
    /// test has connected are lost then.
    pub fn running(mut self) -> Self {
        self.running = true;
        self
    }

    /// Runs QEMU in a pid namespace of its own, as in a container, where processes and threads have
    /// other numbers. [`Qemu::pid`] is then that of `unshare`, whose end ends QEMU. Needs root.
    pub fn in_pid_namespace(mut self) -> Self {
        self.in_namespace = true;
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(ToString::to_string));
        self
    }

    /// Starts QEMU and waits until it listens.
    ///
    /// # Errors
    /// It is not installed, or it ended: with its own message.
    pub async fn start(self) -> Result<Qemu, LaunchError> {
        let home = tempfile::Builder::new().prefix("vq").tempdir();
        let home = home.map_err(LaunchError::io("make a temporary directory"))?;
        let socket = self.socket.clone().unwrap_or_else(|| home.path().join("vm.sock"));
        let control = home.path().join("control");
        check_socket_path(&socket)?;
        check_socket_path(&control)?;
        for _ in 0..STARTS {
            // A file that a killed QEMU has left must not pass for the socket of the new one.
            for left_behind in [&socket, &control] {
                let _ = std::fs::remove_file(left_behind);
            }
            let mut command = Command::new("qemu-system-x86_64");
            if self.in_namespace {
                command = Command::new("unshare");
                // unshare itself stays outside: only its child is in the new namespace.
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
            trouble: format!("greeted and did not answer in {STARTS} starts"),
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
        // Without default devices, so that a machine has only those that a test gives it.
        add(&["-nodefaults", "-display", "none"]);
        // With wait=on QEMU would not start the machine before a client connects.
        match self.tcp {
            Some(port) => add(&["-qmp", &format!("tcp:127.0.0.1:{port},server=on,wait=off")]),
            None => add(&["-qmp", &format!("unix:{},server=on,wait=off", socket.display())]),
        }
        add(&["-qmp", &format!("unix:{},server=on,wait=off", control.display())]);
        if let Some(name) = &self.name {
            // QEMU reads a doubled comma as one within a value.
            add(&["-name", &format!("guest={}", name.replace(',', ",,"))]);
        }
        if let Some(uuid) = &self.uuid {
            add(&["-uuid", uuid]);
        }
        // A guest may power itself off within 50 ms, before any client has negotiated, and QEMU
        // keeps no events for later.
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
    /// Starts an empty machine, paused.
    ///
    /// # Errors
    /// As [`QemuConfig::start`].
    pub async fn start() -> Result<Self, LaunchError> {
        QemuConfig::default().start().await
    }

    /// Its process id, or `None` after [`wait`](Self::wait) has seen its end.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// The path of the monitor for the client under test.
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

    /// Whether a client is connected to the monitor for the client under test.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn is_held(&mut self) -> Result<bool, LaunchError> {
        let free = match self.tcp {
            Some(port) => format!("disconnected:tcp:127.0.0.1:{port}"),
            None => format!("disconnected:unix:{},", self.socket.display()),
        };
        // QEMU names a socket without a client "disconnected:".
        Ok(!self.run("query-chardev").await?.contains(&free))
    }

    /// Waits until no client is connected to that monitor.
    ///
    /// # Errors
    /// A client is still connected after a minute; otherwise as [`run`](Self::run).
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

    /// Runs a command without arguments, such as `stop`, and returns QEMU's answer: an empty one if
    /// QEMU ended before it.
    ///
    /// # Errors
    /// QEMU refuses the command, does not answer, or has ended.
    pub async fn run(&mut self, command: &str) -> Result<String, LaunchError> {
        self.run_with(command, "{}").await
    }

    /// Runs a command with arguments, a JSON object: see [`run`](Self::run).
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
                // QEMU 7.2 sometimes misreads valid commands of a client that connected while it
                // started, until that disconnects. It has done nothing then, so connect again.
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

    /// Sends a signal, by its name without SIG: KILL, TERM, STOP or CONT.
    ///
    /// # Panics
    /// The signal is none of these four.
    #[allow(clippy::panic)]
    pub fn signal(&self, name: &str) {
        let signal = match name {
            "KILL" => Signal::KILL,
            "TERM" => Signal::TERM,
            "STOP" => Signal::STOP,
            "CONT" => Signal::CONT,
            _ => panic!("cannot send {name}: give KILL, TERM, STOP or CONT"),
        };
        if let Some(pid) = self.child.id() {
            process::signal(pid, signal);
        }
    }

    /// Waits until QEMU has ended.
    ///
    /// # Errors
    /// It does not end within a minute.
    pub async fn wait(&mut self) -> Result<(), LaunchError> {
        match timeout(PATIENCE, self.child.wait()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(trouble(&mut self.child, "does not end").await),
        }
    }
}

/// Connects to the test's own monitor of a QEMU that has just been started. `None` if QEMU greets
/// but does not answer.
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

/// Negotiates capabilities, as QEMU demands after its greeting. Returns the length of the answer.
async fn negotiate(stream: &mut BufReader<UnixStream>) -> io::Result<usize> {
    stream.write_all(b"{\"execute\":\"qmp_capabilities\"}\n").await?;
    stream.read_line(&mut String::new()).await
}

/// Kills QEMU and returns an error with its message.
async fn trouble(child: &mut Child, trouble: &str) -> LaunchError {
    let _ = child.start_kill();
    let mut log = String::new();
    if let Some(stderr) = child.stderr.take() {
        let mut stderr = BufReader::new(stderr);
        let _ = timeout(Duration::from_secs(1), stderr.read_to_string(&mut log)).await;
    }
    LaunchError::NotReady { server: "qemu-system-x86_64", trouble: trouble.into(), log }
}

/// The next answer: an empty one if QEMU ended before it, as after `quit`.
async fn answer(control: &mut BufReader<UnixStream>) -> std::io::Result<String> {
    loop {
        let mut line = String::new();
        let read = control.read_line(&mut line).await?;
        // Events of the command come before its answer.
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
