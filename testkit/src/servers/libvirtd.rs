//! A libvirtd.

mod config;
mod hook;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

pub use self::config::Config;
pub use self::hook::Hook;
use super::container::thaw;
use super::home::Home;
use super::process::{children, kill_all, pids_in, rss_kib, signal};
use super::{Container, Guest, LaunchError, Order, Virsh};

/// How long a start or an orderly end may take. Either takes a tenth of a second when the machine
/// has nothing else to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// A libvirtd of one's own. Dropping it kills it, and its guests.
#[derive(Debug)]
pub struct Libvirtd {
    child: Option<Child>,
    home: Home,
    ports: Ports,
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
    /// Starts one as it comes, and waits until it answers.
    ///
    /// # Errors
    /// That it is not installed, or does not start.
    ///
    /// # Cancel safety
    /// Dropped midway it leaves nothing behind.
    pub async fn start() -> Result<Self, LaunchError> {
        Self::start_with(Config::default()).await
    }

    /// Starts one, and waits until it answers.
    ///
    /// # Errors
    /// That it is not installed, or does not start.
    ///
    /// # Cancel safety
    /// Dropped midway it leaves nothing behind.
    pub async fn start_with(config: Config) -> Result<Self, LaunchError> {
        let mut tries = 1..=3;
        loop {
            match Self::start_once(&config).await {
                // Somebody else may have taken the port that was free when we looked.
                Err(LaunchError::NotReady { .. })
                    if (config.tcp || config.tls.is_some()) && tries.next().is_some() => {}
                outcome => return outcome,
            }
        }
    }

    async fn start_once(config: &Config) -> Result<Self, LaunchError> {
        let home = Home::new(config.lxc, config.host.as_deref()).await?;
        let ports = Ports::free(config)?;
        fs::write(home.path("libvirtd.conf"), config.to_text(&home, ports))
            .map_err(LaunchError::io("write libvirtd.conf"))?;
        if config.hook {
            hook::install(&home.path("etc"), &home.path("steps"))
                .map_err(LaunchError::io("write the hook"))?;
        }
        let mut daemon = Self { child: None, home, ports };
        daemon.start_again().await?;
        Ok(daemon)
    }

    /// Starts it again after [`kill9`](Self::kill9) or [`terminate`](Self::terminate), in the same
    /// place: what it had stored, and its guests, are still there. Does nothing while it runs.
    ///
    /// # Errors
    /// That it does not start.
    ///
    /// # Cancel safety
    /// Dropped midway it has been started, or not.
    pub async fn start_again(&mut self) -> Result<(), LaunchError> {
        if self.child.is_some() {
            return Ok(());
        }
        let output = fs::File::create(self.home.path("log/output"))
            .map_err(LaunchError::io("make a log file"))?;
        let errors = output.try_clone().map_err(LaunchError::io("make a log file"))?;
        let mut command = self.home.command("libvirtd");
        command.arg("-f").arg(self.home.path("libvirtd.conf"));
        command.arg("-p").arg(self.home.path("run/libvirtd.pid"));
        if self.ports.listens() {
            command.arg("--listen");
        }
        command.stdin(Stdio::null()).stdout(output).stderr(errors).kill_on_drop(true);
        let child =
            command.spawn().map_err(LaunchError::spawn("libvirtd", "libvirt-daemon-system"))?;
        self.child = Some(child);
        self.ready().await
    }

    /// Whether somebody listens wherever it is to.
    async fn listens(&self) -> bool {
        // The file is there before anybody listens, and the port comes after the file.
        let mut listens = UnixStream::connect(self.socket()).await.is_ok();
        for port in [self.ports.tcp, self.ports.tls].into_iter().flatten() {
            listens = listens && TcpStream::connect(("127.0.0.1", port)).await.is_ok();
        }
        listens
    }

    /// Waits until it answers.
    async fn ready(&mut self) -> Result<(), LaunchError> {
        let deadline = Instant::now() + PATIENCE;
        while !self.listens().await {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                self.child = None;
                return Err(match status.code() {
                    // What a shell says when there is no such program.
                    Some(127) => LaunchError::Missing {
                        program: "libvirtd",
                        package: "libvirt-daemon-system",
                    },
                    _ => self.not_ready(format!("ended with {status}")),
                });
            }
            if Instant::now() > deadline {
                return Err(self.not_ready(format!("did not answer within {PATIENCE:?}")));
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    fn not_ready(&self, trouble: String) -> LaunchError {
        LaunchError::NotReady { server: "libvirtd", trouble, log: self.log() }
    }

    /// What it has logged: warnings and errors.
    pub fn log(&self) -> String {
        let read = |file| fs::read_to_string(self.home.path(file)).unwrap_or_default();
        let log = read("log/output") + &read("log/daemon");
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Gives the host another name, for the next start of the daemon. It needs a
    /// [`Config::host`] to begin with.
    pub fn rename_host(&mut self, name: &str) {
        if let Some(host) = &mut self.home.host {
            *host = name.into();
        }
    }

    /// Kills it with SIGKILL, and waits until it is gone. Its guests run on; its socket file stays.
    ///
    /// # Cancel safety
    /// Killed at the first poll.
    pub async fn kill9(&mut self) {
        self.end(Signal::KILL).await;
    }

    /// Stops it with SIGTERM, and waits until it is gone. Its guests run on.
    ///
    /// # Cancel safety
    /// Told to stop at the first poll.
    pub async fn terminate(&mut self) {
        self.end(Signal::TERM).await;
    }

    async fn end(&mut self, with: Signal) {
        if let Some(child) = &mut self.child {
            if let Some(pid) = child.id() {
                signal(pid, with);
            }
            if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
            self.child = None;
        }
    }

    /// Stops the process where it stands, as a host that hangs: sockets stay open and silent.
    pub fn freeze(&self) {
        if let Some(pid) = self.pid() {
            signal(pid, Signal::STOP);
        }
    }

    /// Lets a frozen process go on.
    pub fn thaw(&self) {
        if let Some(pid) = self.pid() {
            signal(pid, Signal::CONT);
        }
    }

    /// Its process id; `None` when it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    /// Its resident memory in KiB; `None` when it does not run.
    pub fn rss_kib(&self) -> Option<u64> {
        rss_kib(self.pid()?)
    }

    /// How many of its workers are busy: serving calls, or waiting for a domain's lock in one. From its
    /// admin socket, by `virt-admin`.
    ///
    /// # Errors
    /// That the command failed.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn busy_workers(&self) -> Result<usize, LaunchError> {
        let socket = self.socket().with_file_name("libvirt-admin-sock");
        let uri = format!("libvirtd+unix:///system?socket={}", socket.display());
        let output = Command::new("virt-admin")
            .args(["--quiet", "--connect", &uri, "server-threadpool-info", "libvirtd"])
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

    /// Kills a running guest's QEMU, or a container's `libvirt_lxc`, with SIGKILL, behind the daemon's
    /// back. False when it does not run.
    pub fn kill_guest(&self, name: &str) -> bool {
        let pid = self.guest_pid(name);
        kill_all(pid.as_slice());
        pid.is_some()
    }

    /// Stops a running guest's QEMU where it stands: it answers nothing, and does not end. False when it
    /// does not run.
    pub fn freeze_guest(&self, name: &str) -> bool {
        let pid = self.guest_pid(name);
        pid.into_iter().for_each(|pid| signal(pid, Signal::STOP));
        pid.is_some()
    }

    /// The path of its socket.
    pub fn socket(&self) -> PathBuf {
        self.home.socket()
    }

    /// `uri` (`test:///default`) by way of this daemon: `test+unix:///default?socket=...`
    pub fn uri(&self, uri: &str) -> String {
        with_socket(uri, &self.socket().display().to_string())
    }

    /// `uri` by way of its TCP port; `None` when it was not told to listen there.
    pub fn tcp_uri(&self, uri: &str) -> Option<String> {
        let (driver, path) = uri.split_once("://")?;
        Some(format!("{driver}+tcp://127.0.0.1:{}{path}", self.ports.tcp?))
    }

    /// Its port for TLS; `None` when it was not told to listen there.
    pub fn tls_port(&self) -> Option<u16> {
        self.ports.tls
    }

    /// The URI of its QEMU driver: `qemu:///system`, or `qemu:///session` where we are not root.
    pub fn qemu(&self) -> &'static str {
        self.home.qemu_uri()
    }

    /// Another client of this daemon, for `uri` (`test:///default`).
    pub fn virsh(&self, uri: &str) -> Virsh {
        Virsh::to(&self.uri(uri))
    }

    /// Writes the guest's disk, and returns its domain XML, to be defined or created.
    ///
    /// # Errors
    /// That the disk cannot be written.
    pub fn furnish(&self, guest: &Guest) -> Result<String, LaunchError> {
        let disk = self.home.path(&format!("disks/{}.img", guest.name()));
        fs::write(&disk, guest.disk())
            .and_then(|()| self.home.hand_over(&disk))
            .map_err(LaunchError::io("write a guest's disk"))?;
        Ok(guest.to_xml(&disk))
    }

    /// The domain XML of a container, to be defined or created.
    pub fn furnish_container(&self, container: &Container) -> String {
        container.to_xml(&self.orders(container.name()))
    }

    /// Tells the init of a running container what to do.
    ///
    /// # Errors
    /// That the order cannot be written.
    pub fn order(&self, container: &str, order: Order) -> Result<(), LaunchError> {
        let file = self.orders(container);
        // In one step: it looks at any time.
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
        // The daemon first: it would tell of its guests' end, and may start others.
        let daemon = self.child.as_ref().and_then(Child::id);
        kill_all(daemon.as_slice());
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
            // A group may have been listed twice, or have a process left that ends this moment.
            let _ = fs::remove_dir(directory);
        }
    }
}

pub(super) fn with_socket(uri: &str, socket: &str) -> String {
    match uri.split_once("://") {
        Some((driver, path)) => {
            let separator = if path.contains('?') { '&' } else { '?' };
            format!("{driver}+unix://{path}{separator}socket={socket}")
        }
        None => uri.into(),
    }
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16, LaunchError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(LaunchError::io("find a free port"))
}
