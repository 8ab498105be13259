//! A libvirtd of its own for one test.

mod config;
mod hook;
mod sasl;
mod tap;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use rustix::process::Signal;
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::time::timeout;

pub use self::config::Config;
pub use self::hook::Hook;
pub use self::sasl::Sasl;
pub use self::tap::{Seen, Tap};
use super::container::thaw;
use super::home::Home;
use super::launch::{PATIENCE, Trouble, spawn_logged, until_listening};
use super::process::{children, kill_all, pids_in, rss_kib, signal};
use super::{Container, Guest, LaunchError, Order, Virsh};

/// A real libvirtd for one test. Dropping it kills the daemon and its guests.
#[derive(Debug)]
pub struct Libvirtd {
    child: Option<Child>,
    home: Home,
    ports: Ports,
    /// The address of the message bus that it uses.
    bus: Option<String>,
}

/// Its ports of the loopback address.
#[derive(Clone, Copy, Debug)]
struct Ports {
    tcp: Option<u16>,
    tls: Option<u16>,
}

impl Ports {
    fn free(config: &Config) -> Result<Self, LaunchError> {
        let tcp = config.tcp.then(free_port).transpose()?;
        let tls = config.tls.as_ref().map(|_| free_port()).transpose()?;
        Ok(Self { tcp, tls })
    }

    fn listens(self) -> bool {
        self.tcp.is_some() || self.tls.is_some()
    }
}

impl Libvirtd {
    /// Starts a daemon with the default [`Config`] and waits until it listens.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    ///
    /// # Cancel safety
    /// Dropping the future kills the daemon and removes its files.
    pub async fn start() -> Result<Self, LaunchError> {
        Self::start_with(Config::default()).await
    }

    /// Starts a daemon and waits until it listens.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    ///
    /// # Cancel safety
    /// Dropping the future kills the daemon and removes its files.
    pub async fn start_with(config: Config) -> Result<Self, LaunchError> {
        let mut tries = 1..=3;
        loop {
            match Self::start_once(&config).await {
                // Another process may take a port between the look for a free one and the bind.
                Err(LaunchError::NotReady { .. })
                    if (config.tcp || config.tls.is_some()) && tries.next().is_some() => {}
                outcome => return outcome,
            }
        }
    }

    async fn start_once(config: &Config) -> Result<Self, LaunchError> {
        let home = Home::new(config.lxc, config.host.as_deref()).await?;
        // libvirtd cannot report a port that the system has chosen, so it must be given one.
        let ports = Ports::free(config)?;
        fs::write(home.path("libvirtd.conf"), config.to_text(&home, ports))
            .map_err(LaunchError::io("write libvirtd.conf"))?;
        if config.hook {
            hook::install(&home.path("etc"), &home.path("steps"))
                .map_err(LaunchError::io("write the hook"))?;
        }
        if let Some(sasl) = &config.sasl {
            sasl.install(&home).await?;
        }
        if config.polkit.is_some() {
            home.open_to_every_user().map_err(LaunchError::io("open the temporary directory"))?;
        }
        let mut daemon = Self { child: None, home, ports, bus: config.polkit.clone() };
        daemon.start_again().await?;
        Ok(daemon)
    }

    /// Starts the daemon again after [`kill9`](Self::kill9) or [`terminate`](Self::terminate), with
    /// the same directories and guests. Does nothing while it runs.
    ///
    /// # Errors
    /// It does not start.
    ///
    /// # Cancel safety
    /// After the future is dropped the daemon may have been started or not.
    pub async fn start_again(&mut self) -> Result<(), LaunchError> {
        if self.child.is_some() {
            return Ok(());
        }

        let mut command = self.home.command("libvirtd");
        command.arg("-f").arg(self.home.path("libvirtd.conf"));
        command.arg("-p").arg(self.home.path("run/libvirtd.pid"));
        // Without it libvirtd ignores the ports in its configuration.
        if self.ports.listens() {
            command.arg("--listen");
        }
        if let Some(bus) = &self.bus {
            command.env("DBUS_SYSTEM_BUS_ADDRESS", bus);
        }
        // Without that directory it reads the host's own configuration.
        if sasl::directory(&self.home).is_dir() {
            command.env("SASL_CONF_PATH", sasl::directory(&self.home));
        }
        let missing = LaunchError::spawn("libvirtd", "libvirt-daemon-system");
        let mut child = spawn_logged(&mut command, &self.home.path("log/output"), missing)?;
        let socket = self.socket();
        let ports = self.ports;
        let listens = async || {
            // The socket file exists before the daemon listens on it, and it binds the ports last.
            let mut listens = UnixStream::connect(&socket).await.is_ok();
            for port in [ports.tcp, ports.tls].into_iter().flatten() {
                listens = listens && TcpStream::connect(("127.0.0.1", port)).await.is_ok();
            }
            listens
        };
        let outcome = until_listening(&mut child, listens).await;
        // One that is late is kept, so that dropping this also kills what it has started.
        if !matches!(outcome, Err(Trouble::Ended(_))) {
            self.child = Some(child);
        }
        outcome.map_err(|trouble| match trouble {
            // The exit status of a shell that finds no such program.
            Trouble::Ended(status) if status.code() == Some(127) => {
                LaunchError::Missing { program: "libvirtd", package: "libvirt-daemon-system" }
            }
            _ => LaunchError::NotReady {
                server: "libvirtd",
                trouble: trouble.to_text(),
                log: self.log(),
            },
        })
    }

    /// The end of its log: warnings and errors.
    pub fn log(&self) -> String {
        let read = |file| fs::read_to_string(self.home.path(file)).unwrap_or_default();
        let log = read("log/output") + &read("log/daemon");
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Gives the host another name for the next start of the daemon, which needs a
    /// [`Config::host`].
    pub fn rename_host(&mut self, name: &str) {
        if let Some(host) = &mut self.home.host {
            *host = name.into();
        }
    }

    /// Kills the daemon with SIGKILL and waits until it is gone. Its guests and its socket file
    /// stay.
    ///
    /// # Cancel safety
    /// The signal is sent at the first poll.
    pub async fn kill9(&mut self) {
        self.end(Signal::KILL).await;
    }

    /// Ends the daemon with SIGTERM and waits until it is gone. Its guests stay.
    ///
    /// # Cancel safety
    /// The signal is sent at the first poll.
    pub async fn terminate(&mut self) {
        self.end(Signal::TERM).await;
    }

    async fn end(&mut self, with: Signal) {
        if let Some(child) = &mut self.child {
            if let Some(pid) = child.id() {
                signal(pid, with);
            }
            if timeout(PATIENCE, child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
            self.child = None;
        }
    }

    /// Suspends the process with SIGSTOP, as on a host that hangs: its sockets stay open and
    /// silent.
    pub fn freeze(&self) {
        if let Some(pid) = self.pid() {
            signal(pid, Signal::STOP);
        }
    }

    /// Resumes the process after [`freeze`](Self::freeze).
    pub fn thaw(&self) {
        if let Some(pid) = self.pid() {
            signal(pid, Signal::CONT);
        }
    }

    /// Its process id, or `None` while it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    /// Its resident memory in KiB, or `None` while it does not run.
    pub fn rss_kib(&self) -> Option<u64> {
        rss_kib(self.pid()?)
    }

    /// The number of its workers that serve calls or wait in one for a domain's lock, as
    /// `virt-admin` says.
    ///
    /// # Errors
    /// The command fails.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn busy_workers(&self) -> Result<usize, LaunchError> {
        let socket = self.socket().with_file_name("libvirt-admin-sock");
        let uri = format!("libvirtd+unix:///system?socket={}", socket.display());
        let output = Command::new("virt-admin")
            .args(["--quiet", "--connect", &uri, "server-threadpool-info", "libvirtd"])
            // The names of the figures are translated in other locales.
            .env("LC_ALL", "C")
            .output()
            .await
            .map_err(LaunchError::spawn("virt-admin", "libvirt-clients"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let number = |name: &str| -> Option<usize> {
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.rsplit(' ').next()?.parse().ok()
        };
        match (number("nWorkers"), number("freeWorkers")) {
            (Some(all), Some(free)) => Ok(all.saturating_sub(free)),
            _ => Err(LaunchError::Command {
                command: "virt-admin server-threadpool-info libvirtd".into(),
                message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            }),
        }
    }

    /// The process id of a running guest's QEMU, or of a container's `libvirt_lxc`.
    pub fn guest_pid(&self, name: &str) -> Option<u32> {
        self.home.pid_directories().iter().find_map(|(directory, _)| {
            let file = directory.join(name).with_extension("pid");
            fs::read_to_string(file).ok()?.trim().parse().ok()
        })
    }

    /// Kills a running guest's QEMU, or a container's `libvirt_lxc`, with SIGKILL. The daemon is
    /// not asked. False if the guest does not run.
    pub fn kill_guest(&self, name: &str) -> bool {
        let pid = self.guest_pid(name);
        kill_all(pid.as_slice());
        pid.is_some()
    }

    /// Suspends a running guest's QEMU with SIGSTOP: it answers nothing and does not end. False if
    /// the guest does not run.
    pub fn freeze_guest(&self, name: &str) -> bool {
        let pid = self.guest_pid(name);
        pid.into_iter().for_each(|pid| signal(pid, Signal::STOP));
        pid.is_some()
    }

    /// Whether it sees its own directories in place of the machine's.
    pub(super) fn has_namespace(&self) -> bool {
        self.home.has_namespace()
    }

    /// The command that runs `program` with the directories of the daemon in place.
    pub(super) fn command(&self, program: &str) -> Command {
        self.home.command(program)
    }

    /// The directory that replaces `/run`.
    pub(super) fn run_directory(&self) -> PathBuf {
        self.home.path("run")
    }

    /// The path of its socket.
    pub fn socket(&self) -> PathBuf {
        self.home.socket()
    }

    /// `uri` (`test:///default`) through this daemon: `test+unix:///default?socket=...`
    pub fn uri(&self, uri: &str) -> String {
        with_socket(uri, &self.socket().display().to_string())
    }

    /// `uri` through its TCP port, or `None` without [`Config::tcp`].
    pub fn tcp_uri(&self, uri: &str) -> Option<String> {
        let (driver, path) = uri.split_once("://")?;
        Some(format!("{driver}+tcp://127.0.0.1:{}{path}", self.ports.tcp?))
    }

    /// Its port for TLS; `None` when it was not told to listen there.
    pub fn tls_port(&self) -> Option<u16> {
        self.ports.tls
    }

    /// The URI of its QEMU driver: `qemu:///system`, or `qemu:///session` if the test is not root.
    pub fn qemu(&self) -> &'static str {
        self.home.qemu_uri()
    }

    /// A second client of this daemon, for `uri` (`test:///default`).
    pub fn virsh(&self, uri: &str) -> Virsh {
        Virsh::to(&self.uri(uri))
    }

    /// Writes the guest's disk and returns its domain XML, for `define` or `create`.
    ///
    /// # Errors
    /// The disk cannot be written.
    pub fn furnish(&self, guest: &Guest) -> Result<String, LaunchError> {
        let disk = self.home.path(&format!("disks/{}.img", guest.name()));
        fs::write(&disk, guest.disk())
            .and_then(|()| self.home.hand_over(&disk))
            .map_err(LaunchError::io("write a guest's disk"))?;
        Ok(guest.to_xml(&disk))
    }

    /// The domain XML of a container, for `define` or `create`.
    pub fn furnish_container(&self, container: &Container) -> String {
        container.to_xml(&self.orders(container.name()))
    }

    /// Gives an order to the init of a running container.
    ///
    /// # Errors
    /// The order cannot be written.
    pub fn order(&self, container: &str, order: Order) -> Result<(), LaunchError> {
        let file = self.orders(container);
        // By rename: init may read the file at any time, and must not see half of it.
        let draft = file.with_extension("draft");
        fs::write(&draft, order.word())
            .and_then(|()| fs::rename(&draft, &file))
            .map_err(LaunchError::io("write an order"))
    }

    fn orders(&self, container: &str) -> PathBuf {
        self.home.path("orders").join(container)
    }
}

impl Drop for Libvirtd {
    fn drop(&mut self) {
        // The daemon first: otherwise it reports its guests' ends and may start others.
        let daemon = self.child.as_ref().and_then(Child::id);
        kill_all(daemon.as_slice());
        // While the directory still exists, and when the daemon no longer writes into it.
        self.home.keep_capabilities();
        let guests: Vec<u32> = self
            .home
            .pid_directories()
            .iter()
            .flat_map(|(directory, program)| pids_in(directory, program))
            // A container outlives its libvirt_lxc; its init is the only child of that.
            .flat_map(|pid| [pid].into_iter().chain(children(pid)))
            .collect();
        let groups: Vec<_> = guests.iter().flat_map(|pid| thaw(*pid)).collect();
        kill_all(&guests);
        for directory in groups {
            // A group may be listed twice, or a process in it may still be ending.
            let _ = fs::remove_dir(directory);
        }
    }
}

fn with_socket(uri: &str, socket: &str) -> String {
    match uri.split_once("://") {
        Some((driver, path)) => {
            let separator = if path.contains('?') { '&' } else { '?' };
            format!("{driver}+unix://{path}{separator}socket={socket}")
        }
        None => uri.into(),
    }
}

/// A port that is free at this moment.
pub(super) fn free_port() -> Result<u16, LaunchError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(LaunchError::io("find a free port"))
}
