//! An sshd on the loopback address, which runs where a libvirtd runs.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::launch::{Trouble, spawn_logged, until_listening};
use super::process::{children, kill_all};
use super::{LaunchError, Libvirtd};

/// sshd runs itself again for each connection, so it must be started by its whole path.
const PROGRAM: &str = "/usr/sbin/sshd";

/// A real sshd for one test, which lets root in with one key. What it runs sees the directories of
/// a [`Libvirtd`], so that `virt-ssh-helper` and a netcat without `socket=` find that daemon.
/// Dropping it kills it and its connections.
///
/// Nothing of the user's own ssh is read or written: [`command`](Self::command) is an ssh with a
/// `known_hosts` and a key of its own.
#[derive(Debug)]
pub struct Sshd {
    child: Option<Child>,
    directory: TempDir,
    port: u16,
}

impl Sshd {
    /// Starts sshd beside `daemon` and waits until it listens.
    ///
    /// # Errors
    /// It is not installed, we are not root, or it does not start.
    ///
    /// # Cancel safety
    /// Dropping the future kills sshd and removes its files.
    pub async fn beside(daemon: &Libvirtd) -> Result<Self, LaunchError> {
        let mut tries = 1..=3;
        loop {
            match Self::start_once(daemon).await {
                // Another process may take the port between the look for a free one and the bind.
                Err(LaunchError::NotReady { .. }) if tries.next().is_some() => {}
                outcome => return outcome,
            }
        }
    }

    async fn start_once(daemon: &Libvirtd) -> Result<Self, LaunchError> {
        if !daemon.has_namespace() {
            return Err(LaunchError::NeedsRoot { what: "an sshd" });
        }
        let directory = tempfile::Builder::new()
            .prefix("vs")
            .tempdir()
            .map_err(LaunchError::io("make a temporary directory"))?;
        let mut sshd = Self { child: None, directory, port: super::libvirtd::free_port()? };
        for key in ["host", "key", "foreign", "bare"] {
            sshd.make_key(key).await?;
        }
        sshd.write_files().map_err(LaunchError::io("write the files of sshd"))?;
        sshd.furnish(daemon).map_err(LaunchError::io("make the directories of sshd"))?;
        sshd.start_again(daemon).await?;
        Ok(sshd)
    }

    /// Starts sshd again after [`kill`](Self::kill), at the same port. Does nothing while it runs.
    ///
    /// # Errors
    /// It does not start.
    ///
    /// # Cancel safety
    /// After the future is dropped sshd does not run.
    pub async fn start_again(&mut self, daemon: &Libvirtd) -> Result<(), LaunchError> {
        if self.child.is_some() {
            return Ok(());
        }
        let mut command = daemon.command(PROGRAM);
        command.arg("-D").arg("-e").arg("-f").arg(self.path("sshd_config"));
        let missing = LaunchError::spawn(PROGRAM, "openssh-server");
        let mut child = spawn_logged(&mut command, &self.path("log"), missing)?;
        let port = self.port;
        let listens = async || TcpStream::connect(("127.0.0.1", port)).await.is_ok();
        until_listening(&mut child, listens).await.map_err(|trouble| match trouble {
            Trouble::Ended(status) if status.code() == Some(127) => {
                LaunchError::Missing { program: PROGRAM, package: "openssh-server" }
            }
            _ => LaunchError::NotReady {
                server: "sshd",
                trouble: trouble.to_text(),
                log: self.log(),
            },
        })?;
        self.child = Some(child);
        Ok(())
    }

    /// Kills sshd and its connections, and waits until it is gone.
    ///
    /// # Cancel safety
    /// It is killed at the first poll.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            kill_all(&tree(&child));
            let _ = child.wait().await;
        }
    }

    /// What sshd has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Its process id; `None` when it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    /// The port, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path of an ssh that knows the host's key, for the URI's `command=`. It reads no
    /// configuration and uses no agent; a key must come from `keyfile=`.
    pub fn command(&self) -> PathBuf {
        self.path("ssh")
    }

    /// The same, but it does not know the host's key.
    pub fn command_without_known_hosts(&self) -> PathBuf {
        self.path("ssh-unknown")
    }

    /// The path of a private key that sshd accepts.
    pub fn key(&self) -> PathBuf {
        self.path("key")
    }

    /// The path of a private key whose user finds neither netcat nor `virt-ssh-helper`.
    pub fn bare_key(&self) -> PathBuf {
        self.path("bare")
    }

    /// The path of a private key that sshd does not accept.
    pub fn foreign_key(&self) -> PathBuf {
        self.path("foreign")
    }

    /// `uri` (`test:///default`) through this sshd, with the command and the key that work:
    /// `test+ssh://root@127.0.0.1:PORT/default?command=...&keyfile=...`
    pub fn uri(&self, uri: &str) -> String {
        self.uri_with(uri, &self.command(), &self.key())
    }

    /// `uri` through this sshd with this command and this key.
    pub fn uri_with(&self, uri: &str, command: &Path, key: &Path) -> String {
        let (driver, path) = uri.split_once("://").unwrap_or((uri, "/"));
        let separator = if path.contains('?') { '&' } else { '?' };
        format!(
            "{driver}+ssh://root@127.0.0.1:{}{path}{separator}command={}&keyfile={}",
            self.port,
            command.display(),
            key.display()
        )
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.directory.path().join(inside)
    }

    async fn make_key(&self, name: &str) -> Result<(), LaunchError> {
        let output = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
            .arg(self.path(name))
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(LaunchError::spawn("ssh-keygen", "openssh-client"))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(LaunchError::Command {
                command: "ssh-keygen".into(),
                message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            }),
        }
    }

    fn write_files(&self) -> std::io::Result<()> {
        let directory = self.directory.path().display();
        let port = self.port;
        // What the script of libvirt's clients needs besides a netcat or libvirt's helper.
        fs::create_dir(self.path("bin"))?;
        for program in ["sh", "which", "grep"] {
            symlink(Path::new("/usr/bin").join(program), self.path("bin").join(program))?;
        }
        let key = fs::read_to_string(self.path("key.pub"))?;
        let bare = fs::read_to_string(self.path("bare.pub"))?;
        let command = format!(r#"PATH={directory}/bin; eval \"$SSH_ORIGINAL_COMMAND\""#);
        let keys = format!("{key}command=\"{command}\" {bare}");
        fs::write(self.path("authorized_keys"), keys)?;
        // StrictModes would refuse a key below /tmp.
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {directory}/host\nPidFile none\n\
             AuthorizedKeysFile {directory}/authorized_keys\nPermitRootLogin yes\nUsePAM no\n\
             StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             UseDNS no\nPermitUserRC no\nMaxStartups 100\n"
        );
        fs::write(self.path("sshd_config"), config)?;
        let host_key = fs::read_to_string(self.path("host.pub"))?;
        fs::write(self.path("known_hosts"), format!("[127.0.0.1]:{port} {host_key}"))?;
        self.write_ssh("ssh", "known_hosts")?;
        self.write_ssh("ssh-unknown", "no_known_hosts")
    }

    /// An ssh that touches nothing of the user's.
    fn write_ssh(&self, name: &str, known_hosts: &str) -> std::io::Result<()> {
        let known_hosts = self.path(known_hosts);
        let text = format!(
            "#!/bin/sh\nexec ssh -F none -o IdentityAgent=none -o IdentitiesOnly=yes \
             -o GlobalKnownHostsFile=none -o UserKnownHostsFile={} \"$@\"\n",
            known_hosts.display()
        );
        fs::write(self.path(name), text)?;
        fs::set_permissions(self.path(name), Permissions::from_mode(0o700))
    }

    /// The directories of the daemon that replace `/run`.
    fn furnish(&self, daemon: &Libvirtd) -> std::io::Result<()> {
        let ignore_existing = |outcome: std::io::Result<()>| match outcome {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            outcome => outcome,
        };
        // Where sshd shuts its unprivileged process in.
        ignore_existing(fs::create_dir(daemon.run_directory().join("sshd")))?;
        // The testkit's daemon listens elsewhere, because nothing outside of its namespace sees
        // this directory.
        for suffix in ["", "-ro"] {
            let name = format!("libvirt-sock{suffix}");
            let link = daemon.run_directory().join("libvirt").join(&name);
            ignore_existing(symlink(daemon.socket().with_file_name(name), link))?;
        }
        Ok(())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            kill_all(&tree(child));
        }
    }
}

/// The pids of sshd and of all that its connections run.
fn tree(child: &Child) -> Vec<u32> {
    let mut pids: Vec<u32> = child.id().into_iter().collect();
    let mut looked = 0;
    while let Some(pid) = pids.get(looked).copied() {
        pids.extend(children(pid));
        looked += 1;
    }
    pids
}
