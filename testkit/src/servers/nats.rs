//! A real nats-server with JetStream on the loopback address.

use std::fs;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::LaunchError;
use super::launch::{spawn_logged, until_listening};

const PROGRAM: &str = "nats-server";

/// A real nats-server for one test, with JetStream's store in a temporary directory. Dropping it
/// kills the process and removes the store.
///
/// A restart after [`kill9`](Self::kill9) listens at the same port, and finds the same store.
#[derive(Debug)]
pub struct NatsServer {
    child: Option<Child>,
    directory: TempDir,
    port: u16,
}

impl NatsServer {
    /// Starts a server, and waits until it listens.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    ///
    /// # Cancel safety
    /// Dropping the future kills the server and removes its files.
    pub async fn start() -> Result<Self, LaunchError> {
        let mut tries = 1..=3;
        loop {
            let directory = tempfile::Builder::new()
                .prefix("vn")
                .tempdir()
                .map_err(LaunchError::io("make a temporary directory"))?;
            let port = super::libvirtd::free_port()?;
            let mut server = Self { child: None, directory, port };
            match server.restart().await {
                Ok(()) => return Ok(server),
                // Another process may take the port between the look for a free one and the bind.
                Err(LaunchError::NotReady { .. }) if tries.next().is_some() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Starts the server again after [`kill9`](Self::kill9), and waits until it listens. Does
    /// nothing while it runs.
    ///
    /// # Errors
    /// It does not start.
    ///
    /// # Cancel safety
    /// After the future is dropped the server does not run.
    pub async fn restart(&mut self) -> Result<(), LaunchError> {
        if self.child.is_some() {
            return Ok(());
        }
        let mut command = Command::new(PROGRAM);
        command
            .args(["--addr", "127.0.0.1", "--jetstream", "--port", &self.port.to_string()])
            .arg("--store_dir")
            .arg(self.directory.path().join("store"))
            .current_dir(self.directory.path());
        let missing = LaunchError::spawn(PROGRAM, "nats-server");
        let mut child = spawn_logged(&mut command, &self.directory.path().join("log"), missing)?;
        let port = self.port;
        // It listens only after JetStream has recovered its store.
        let listens = async || TcpStream::connect(("127.0.0.1", port)).await.is_ok();
        until_listening(&mut child, listens).await.map_err(|trouble| LaunchError::NotReady {
            server: PROGRAM,
            trouble: trouble.to_text(),
            log: self.log(),
        })?;
        self.child = Some(child);
        Ok(())
    }

    /// Kills the server with SIGKILL, and waits until it is gone. Its store stays.
    ///
    /// # Cancel safety
    /// It is killed at the first poll.
    pub async fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error says that it has ended already.
            let _ = child.start_kill();
            let _ = child.wait().await;
        }
    }

    /// Its URI: `nats://127.0.0.1:port`.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its process id; `None` when it does not run.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    /// What the running server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}
