//! The API's connection.

use std::io;
use std::path::Path;

use serde::Deserialize;
use tokio::io::Interest;
use tokio::net::UnixStream;
use virevent::Error;

use crate::wire::http::{Replies, Reply, get};

/// How much one read takes in, in bytes.
const READ: usize = 16 * 1024;

/// The connection to the API, which stays open: its end is the first sign of the process's.
// Cloud Hypervisor serves 10 connections at once (`MAX_CONNECTIONS` in micro_http); this is one.
#[derive(Debug)]
pub(super) struct Api {
    path: String,
    stream: UnixStream,
    unsent: Vec<u8>,
    replies: Replies,
    /// A call has no reply yet.
    is_busy: bool,
}

/// The answer of `vmm.ping` (`VmmPingResponse` in Cloud Hypervisor's `vmm/src/api/mod.rs`).
#[derive(Deserialize)]
struct Ping {
    version: String,
    pid: u32,
}

impl Api {
    pub(super) async fn connect(socket: &Path) -> Result<Self, Error> {
        let path = socket.display().to_string();
        let stream = UnixStream::connect(socket).await.map_err(|error| {
            let advice = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "run as the user of cloud-hypervisor, or as root"
                }
                _ => "start cloud-hypervisor with --api-socket path=SOCKET",
            };
            Error::unreachable(path.clone(), advice, error)
        })?;
        let replies = Replies::default();
        Ok(Self { path, stream, unsent: Vec::new(), replies, is_busy: false })
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The process that made the socket.
    pub(super) fn peer(&self) -> Option<u32> {
        u32::try_from(self.stream.peer_cred().ok()?.pid()?).ok()
    }

    /// Asks whether this is a Cloud Hypervisor; returns its process id.
    pub(super) async fn ping(&mut self) -> Result<u32, Error> {
        self.call("vmm.ping");
        let reply = loop {
            if let Some(reply) = self.next_reply()? {
                break reply;
            }
            self.transfer().await?;
        };
        let ping: Ping = serde_json::from_slice(&reply.body).map_err(|_| {
            Error::protocol(format!("{} is no socket of cloud-hypervisor's API", self.path))
        })?;
        tracing::debug!(ping.version, ping.pid, "this is Cloud Hypervisor");
        Ok(ping.pid)
    }

    /// Queues a call. One at a time.
    pub(super) fn call(&mut self, endpoint: &str) {
        self.unsent.extend(get(endpoint));
        self.is_busy = true;
    }

    pub(super) fn is_busy(&self) -> bool {
        self.is_busy
    }

    pub(super) fn next_reply(&mut self) -> Result<Option<Reply>, Error> {
        let reply = self.replies.next_reply().map_err(|bad| Error::protocol(bad.to_string()))?;
        self.is_busy &= reply.is_none();
        Ok(reply)
    }

    /// Writes what is queued and reads, each once if it is possible.
    ///
    /// # Errors
    /// The connection has ended.
    ///
    /// # Cancel safety
    /// Cancel safe: it waits for readiness; reading and writing do not wait.
    pub(super) async fn transfer(&mut self) -> Result<(), Error> {
        let closed = |error: io::Error| Error::closed(&self.path, error.to_string());
        let wanted = match self.unsent.is_empty() {
            true => Interest::READABLE,
            false => Interest::READABLE | Interest::WRITABLE,
        };
        let ready = self.stream.ready(wanted).await.map_err(closed)?;
        if ready.is_writable() && !self.unsent.is_empty() {
            match self.stream.try_write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // What the peer said before it closed is still to be read, and may say why.
                Err(_) => self.unsent.clear(),
            }
        }
        if ready.is_readable() {
            let mut bytes = [0; READ];
            match self.stream.try_read(&mut bytes) {
                Ok(0) => return Err(Error::closed(&self.path, "")),
                Ok(count) => self.replies.push(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(closed(error)),
            }
        }
        Ok(())
    }
}
