//! The inventory of a directory of pid files: `NAME.pid`, with the process id of the guest NAME.
//!
//! | the file | the process | the guest |
//! |---|---|---|
//! | names it | lives | runs, or is paused if the process is stopped (SIGSTOP) |
//! | names it | has ended, or is a zombie | is gone: a process that is killed leaves its file |
//! | names it | is younger than the file | is gone: the pid is another process's by now |
//! | is empty, as while it is written | | is as before |
//! | is removed | lives, and was known | runs on: only the end of the process is the end |

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use virevent::{Error, Uuid};

use crate::poll::{Guest, Guests, Inventory};
use crate::process::{Process, process};

/// The namespace of derived uuids: chosen once, at random. Choose your own.
const NAMESPACE: Uuid = Uuid::from_u128(0x91d3_5c07_66ab_4f0e_b1c2_4d7e_08f5_3a96);

/// The longest pid file, in bytes.
const MAX_FILE: u64 = 64;

/// The most guests.
const MAX_GUESTS: usize = 10_000;

/// How much younger than its pid file a process may seem to be: the two times come from two clocks.
const CLOCKS_DIFFER: Duration = Duration::from_secs(1);

/// A directory of pid files.
#[derive(Clone, Debug)]
pub struct PidFiles {
    dir: PathBuf,
    /// What a guest's uuid is derived from beside its name: there is nothing else to go by.
    origin: String,
}

impl PidFiles {
    /// The files of this directory, on this host.
    #[must_use]
    pub fn new(dir: PathBuf, host: &str) -> Self {
        let origin = format!("{host}\n{}\n", dir.display());
        Self { dir, origin }
    }

    /// The uuid of the guest of this name: the same whenever it runs.
    fn uuid(&self, name: &str) -> Uuid {
        Uuid::new_v5(&NAMESPACE, format!("{}{name}", self.origin).as_bytes())
    }
}

impl Inventory for PidFiles {
    fn look(&self, known: &Guests) -> Result<Guests, Error> {
        let mut guests = Guests::new();
        // Guests that were known and still live are there, whatever their file says.
        for (uuid, guest) in known {
            match process(guest.id)? {
                Some(process) if process.began == guest.began => {
                    guests.insert(*uuid, Guest { state: process.state, ..guest.clone() });
                }
                _ => {}
            }
        }
        let failed = |error| unreachable(&self.dir, error);
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".pid"));
            let Some(name) = name else { continue };
            let Some((pid, written)) = read(&path).map_err(|error| unreachable(&path, error))?
            else {
                continue;
            };
            let uuid = self.uuid(name);
            if guests.get(&uuid).is_some_and(|guest| guest.id == pid) {
                continue;
            }
            if let Some(Process { began, started, state }) = process(pid)? {
                if started > written + CLOCKS_DIFFER {
                    tracing::debug!(pid, file = %path.display(), "the process is another's");
                    continue;
                }
                guests.insert(uuid, Guest { name: name.into(), id: pid, began, state });
            }
            if guests.len() > MAX_GUESTS {
                return Err(Error::limit_exceeded("guests", MAX_GUESTS));
            }
        }
        Ok(guests)
    }
}

/// The pid in a file, and when it was written; `None` if it has none, or is no more.
fn read(path: &Path) -> io::Result<Option<(u32, SystemTime)>> {
    let read = || -> io::Result<(Vec<u8>, SystemTime)> {
        // Opening a FIFO would wait for its writer.
        let metadata = fs::metadata(path)?;
        let is_small = metadata.is_file() && metadata.len() <= MAX_FILE;
        let text = if is_small { fs::read(path)? } else { Vec::new() };
        Ok((text, metadata.modified()?))
    };
    match read() {
        Ok((text, written)) => {
            let pid = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
            Ok(pid.filter(|pid| *pid > 0).map(|pid| (pid, written)))
        }
        // Removed since the directory was read.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn unreachable(path: &Path, error: io::Error) -> Error {
    let advice = match error.kind() {
        io::ErrorKind::PermissionDenied => "run as the user of the guests, or as root",
        _ => "make the directory, and start each guest with -pidfile DIR/NAME.pid",
    };
    Error::unreachable(path.display().to_string(), advice, error)
}

#[cfg(test)]
mod tests;
