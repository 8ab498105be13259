//! `virsh`: a second client, which acts on the domains.

use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::sleep;

use super::LaunchError;

/// A `virsh` that runs commands on one URI.
#[derive(Clone, Debug)]
pub struct Virsh {
    uri: String,
}

impl Virsh {
    /// A `virsh` for this URI.
    #[must_use]
    pub fn to(uri: &str) -> Self {
        Self { uri: uri.into() }
    }

    /// Runs one command, `run(&["suspend", "web"])`, and returns its output.
    ///
    /// # Errors
    /// The command fails: with its message.
    ///
    /// # Cancel safety
    /// Dropping the future kills the command; the daemon may have executed it.
    pub async fn run(&self, command: &[&str]) -> Result<String, LaunchError> {
        self.feed(command, "").await
    }

    /// Defines a domain from its XML.
    ///
    /// # Errors
    /// libvirt refuses it.
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn define(&self, xml: &str) -> Result<String, LaunchError> {
        self.feed(&["define", "/dev/stdin"], xml).await
    }

    /// Starts a transient domain from its XML.
    ///
    /// # Errors
    /// libvirt refuses it.
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn create(&self, xml: &str) -> Result<String, LaunchError> {
        self.feed(&["create", "/dev/stdin"], xml).await
    }

    /// Runs many commands over one connection: `batch("suspend web\nresume web\n")`. A command that
    /// fails does not end the batch.
    ///
    /// # Errors
    /// The last command fails, or virsh cannot connect.
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn batch(&self, commands: &str) -> Result<String, LaunchError> {
        self.feed(&[], commands).await
    }

    /// Every domain, sorted by name, with virsh's name of its state: `("web", "shut off")`.
    ///
    /// # Errors
    /// The command fails.
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn list(&self) -> Result<Vec<(String, String)>, LaunchError> {
        let table = self.run(&["list", "--all"]).await?;
        // Id, name, and a state of one word or more.
        let row = |line: &str| {
            let mut words = line.split_whitespace().skip(1);
            let name = words.next()?.to_owned();
            Some((name, words.collect::<Vec<_>>().join(" ")))
        };
        let mut domains: Vec<_> = table.lines().filter_map(row).collect();
        domains.sort();
        Ok(domains)
    }

    /// Waits until a domain is in a state that virsh calls so: `"shut off"`. For what a guest does by
    /// itself.
    ///
    /// # Errors
    /// It is not within 60 s, or the command fails.
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn until_state(&self, domain: &str, state: &str) -> Result<(), LaunchError> {
        let since = Instant::now();
        loop {
            let now = self.run(&["domstate", domain]).await?;
            if now.trim() == state {
                return Ok(());
            }
            if since.elapsed() > Duration::from_secs(60) {
                return Err(LaunchError::Command {
                    command: format!("virsh domstate {domain}"),
                    message: format!("it is {} and not {state}", now.trim()),
                });
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Connects a virsh that stays idle until it is dropped. It keeps the domains of libvirt's test
    /// driver, which resets them when its last client leaves.
    ///
    /// # Errors
    /// virsh cannot connect.
    ///
    /// # Cancel safety
    /// Dropping the future kills virsh.
    pub async fn session(&self) -> Result<VirshSession, LaunchError> {
        let mut child = self.spawn(&[], Stdio::null())?;
        // virsh answers only when it is connected.
        if let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) {
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
            message: "it ended and did not wait for commands".into(),
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

    fn spawn(&self, command: &[&str], stderr: Stdio) -> Result<Child, LaunchError> {
        Command::new("virsh")
            .args(["--quiet", "--connect", &self.uri])
            .args(command)
            // States and messages are translated in other locales.
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .map_err(LaunchError::spawn("virsh", "libvirt-clients"))
    }

    async fn feed(&self, command: &[&str], input: &str) -> Result<String, LaunchError> {
        let mut child = self.spawn(command, Stdio::piped())?;
        let stdin = child.stdin.take();
        let write = async {
            if let Some(mut stdin) = stdin {
                // A virsh that does not read all of it reports why in its exit status.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        // Together: virsh may write more than a pipe holds before it has read all of its input.
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

/// A connected virsh, from [`Virsh::session`]. Dropping it disconnects.
#[derive(Debug)]
pub struct VirshSession {
    _child: Child,
    _stdin: ChildStdin,
    /// Kept open, since virsh writes prompts: a closed pipe would end it.
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
