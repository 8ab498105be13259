//! `virsh`: the other client, which makes things happen.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::LaunchError;

/// Runs `virsh` against one URI.
#[derive(Clone, Debug)]
pub struct Virsh {
    uri: String,
}

impl Virsh {
    /// Against this URI.
    pub fn to(uri: &str) -> Self {
        Self { uri: uri.into() }
    }

    /// Runs one command: `run(&["suspend", "web"])`. Returns what it wrote.
    ///
    /// # Errors
    /// That the command failed, with its message.
    ///
    /// # Cancel safety
    /// Dropped midway the command is killed; the daemon may have carried it out.
    pub async fn run(&self, command: &[&str]) -> Result<String, LaunchError> {
        self.feed(command, "").await
    }

    /// Defines a domain from its XML.
    ///
    /// # Errors
    /// That libvirt refuses it.
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn define(&self, xml: &str) -> Result<String, LaunchError> {
        self.feed(&["define", "/dev/stdin"], xml).await
    }

    /// Starts a transient domain from its XML.
    ///
    /// # Errors
    /// That libvirt refuses it.
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn create(&self, xml: &str) -> Result<String, LaunchError> {
        self.feed(&["create", "/dev/stdin"], xml).await
    }

    /// Runs many commands over one connection: `batch("suspend web\nresume web\n")`. It goes on after
    /// one that fails.
    ///
    /// # Errors
    /// That the last command failed, or that there was no connection.
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn batch(&self, commands: &str) -> Result<String, LaunchError> {
        self.feed(&[], commands).await
    }

    /// Every domain, sorted by name, with its state as virsh calls it: `("web", "shut off")`.
    ///
    /// # Errors
    /// That the command failed.
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn list(&self) -> Result<Vec<(String, String)>, LaunchError> {
        let table = self.run(&["list", "--all"]).await?;
        // Id, name, and a state that may be of two words.
        let row = |line: &str| {
            let mut words = line.split_whitespace().skip(1);
            let name = words.next()?.to_owned();
            Some((name, words.collect::<Vec<_>>().join(" ")))
        };
        let mut domains: Vec<_> = table.lines().filter_map(row).collect();
        domains.sort();
        Ok(domains)
    }

    /// A virsh that is connected and does nothing until it is dropped. libvirt's test driver forgets
    /// its domains when its last client leaves.
    ///
    /// # Errors
    /// That virsh cannot connect.
    ///
    /// # Cancel safety
    /// Dropped midway it is killed.
    pub async fn session(&self) -> Result<VirshSession, LaunchError> {
        let mut child = Command::new("virsh")
            .args(["--quiet", "--connect", &self.uri])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(LaunchError::spawn("virsh", "libvirt-clients"))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        // An answer says that the connection is there.
        if let (Some(mut stdin), Some(stdout)) = (stdin, stdout) {
            let mut lines = BufReader::new(stdout).lines();
            stdin.write_all(b"uri\n").await.map_err(LaunchError::io("write to virsh"))?;
            while let Ok(Some(line)) = lines.next_line().await {
                if line.contains("://") && !line.contains("uri") {
                    return Ok(VirshSession { _child: child, _stdin: stdin, _stdout: lines });
                }
            }
        }
        Err(LaunchError::Command {
            command: format!("virsh --connect {}", self.uri),
            message: "it ended instead of waiting for commands".into(),
        })
    }

    /// A `virsh event --all --loop`, to compare a stream with. It has registered for each event once it
    /// has printed the first of a later id.
    ///
    /// # Errors
    /// That virsh cannot be started.
    pub fn events(&self) -> Result<VirshEvents, LaunchError> {
        // Into a pipe virsh writes when a block is full.
        let mut child = Command::new("stdbuf")
            .args(["-oL", "virsh", "--quiet", "--connect", &self.uri, "event", "--all", "--loop"])
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(LaunchError::spawn("stdbuf", "coreutils"))?;
        let stdout = child.stdout.take();
        Ok(VirshEvents { _child: child, lines: stdout.map(|out| BufReader::new(out).lines()) })
    }

    async fn feed(&self, command: &[&str], input: &str) -> Result<String, LaunchError> {
        let mut child = Command::new("virsh")
            .args(["--quiet", "--connect", &self.uri])
            .args(command)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(LaunchError::spawn("virsh", "libvirt-clients"))?;
        let stdin = child.stdin.take();
        let write = async {
            if let Some(mut stdin) = stdin {
                // One that does not read its input to the end says why in its exit status.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        let ((), output) = tokio::join!(write, child.wait_with_output());
        let output = output.map_err(LaunchError::io("run virsh"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(LaunchError::Command {
            command: format!("virsh {}", command.join(" ")),
            message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }
}

/// A virsh that is connected: see [`Virsh::session`]. Dropping it disconnects.
#[derive(Debug)]
pub struct VirshSession {
    _child: Child,
    _stdin: ChildStdin,
    /// It prompts; closed, this would kill it.
    _stdout: Lines<BufReader<ChildStdout>>,
}

/// A virsh that prints events: see [`Virsh::events`]. Dropping it kills it.
#[derive(Debug)]
pub struct VirshEvents {
    _child: Child,
    lines: Option<Lines<BufReader<ChildStdout>>>,
}

impl VirshEvents {
    /// The next line: an event, or what belongs to the event before it. `None` when virsh has ended.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next_line(&mut self) -> Option<String> {
        self.lines.as_mut()?.next_line().await.ok().flatten()
    }
}
