//! The toolstack's own connection to a daemon.
//!
//! It shares nothing with the client under test, so that it does not share a mistake with it.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;

use crate::servers::process::signal;
use crate::xen::{Answer, Hands, RunState};

/// How long the daemon may take to answer: a frozen one never does.
const PATIENCE: Duration = Duration::from_secs(10);

const ERROR: u32 = 16;

#[derive(Debug)]
pub(super) struct Client {
    socket: PathBuf,
    oracle: PathBuf,
    daemon: Arc<AtomicU32>,
    /// The connection, when there is one, and to which daemon.
    stream: Mutex<Option<(u32, UnixStream)>>,
}

impl Client {
    /// Of the daemon in this directory, on the socket of this name.
    pub(super) fn new(home: &Path, socket: &str, daemon: Arc<AtomicU32>) -> Self {
        let (socket, oracle) = (home.join(socket), home.join("oracle"));
        Self { socket, oracle, daemon, stream: Mutex::default() }
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

impl Hands for Client {
    fn request(&self, operation: u32, transaction: u32, payload: &[u8]) -> io::Result<Answer> {
        let mut kept = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let daemon = self.daemon.load(Ordering::Relaxed);
        // After any error it is out of step: the next request has another connection.
        let mut stream = match kept.take() {
            Some((to, stream)) if to == daemon => stream,
            _ => self.connect()?,
        };
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let words = [operation, 0, transaction, length];
        let header: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        stream.write_all(&[&header, payload].concat())?;
        let mut header = [0; 16];
        stream.read_exact(&mut header)?;
        let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|byte| header[4 * at + byte]));
        // It has one request at a time and no watches: what comes is the reply.
        let mut body = vec![0; usize::try_from(word(3)).map_err(io::Error::other)?];
        stream.read_exact(&mut body)?;
        *kept = Some((daemon, stream));
        Ok(match word(0) {
            ERROR => Err(String::from_utf8_lossy(&body).trim_end_matches('\0').into()),
            _ => Ok(body),
        })
    }

    fn set_state(&self, domid: u32, state: Option<RunState>) -> io::Result<()> {
        let file = self.oracle.join(domid.to_string());
        match state {
            // In one step: the daemon may look at any time.
            Some(state) => {
                let whole = self.oracle.join(format!("next-{domid}"));
                fs::write(&whole, state.as_str())?;
                fs::rename(whole, file)
            }
            None => match fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        }
    }

    fn raise_virq(&self) -> io::Result<()> {
        match self.daemon.load(Ordering::Relaxed) {
            0 => Err(io::ErrorKind::NotConnected.into()),
            pid => {
                signal(pid, Signal::USR1);
                Ok(())
            }
        }
    }
}
