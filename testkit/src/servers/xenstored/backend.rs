//! The toolstack's own connection to a daemon.
//!
//! It shares no code with the client under test, so that it does not share a mistake with it.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;

use crate::servers::process::signal;
use crate::toolstack::{Answer, RunState, ToolstackBackend};

/// The timeout of a request: a frozen daemon never answers.
const PATIENCE: Duration = Duration::from_secs(10);

const ERROR: u32 = 16;

/// A toolstack's access to a real daemon and to its simulated hypervisor.
#[derive(Debug)]
pub(super) struct DaemonBackend {
    socket: PathBuf,
    oracle: PathBuf,
    daemon: Arc<AtomicU32>,
    /// The open connection, with the process id of the daemon that it leads to.
    stream: Mutex<Option<(u32, UnixStream)>>,
}

impl DaemonBackend {
    /// Uses the daemon in the directory `home`, on the socket of this name.
    pub(super) fn new(home: &Path, socket: &str, daemon: Arc<AtomicU32>) -> Self {
        Self {
            socket: home.join(socket),
            oracle: home.join("oracle"),
            daemon,
            stream: Mutex::default(),
        }
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

impl ToolstackBackend for DaemonBackend {
    fn request(&self, operation: u32, transaction: u32, payload: &[u8]) -> io::Result<Answer> {
        // Held for the whole request: this client gives all the same number, and knows a reply by
        // order.
        let mut kept = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        // Compared with the daemon of the stream: one that was restarted has a new socket.
        let daemon = self.daemon.load(Ordering::Relaxed);
        // Taken out: after any error the stream is out of step, and the next request connects
        // again.
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
        // There is one request at a time and no watch: the next packet is the reply.
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
            // By rename: the daemon may read the file at any time.
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
