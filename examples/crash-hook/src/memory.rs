//! What the service knows of the domains, kept in a file while it does not run.

use std::fs::File;
use std::future::pending;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use virevent::{DomainEvent, DomainStore, Options, Snapshot};

use crate::Crash;

/// How long after a change the file is written, so that a storm of changes is one write.
const PAUSE: Duration = Duration::from_secs(1);

/// The store of the service, the crashes whose hooks have not ended, and the file that keeps both.
#[derive(Debug, Default)]
pub struct Memory {
    store: DomainStore,
    unhandled: Vec<Crash>,
    /// What was known when the service started.
    known: Option<Snapshot>,
    file: Option<PathBuf>,
    due: Option<Instant>,
}

/// What the file has.
#[derive(Serialize, Deserialize)]
struct Kept {
    known: Snapshot,
    unhandled: Vec<Crash>,
}

impl Memory {
    /// What the file keeps of these sources; nothing if there is no file yet.
    ///
    /// # Errors
    /// The file cannot be read, or has nothing that this version reads.
    pub fn open(file: PathBuf, sources: &[&str]) -> io::Result<Self> {
        let kept: Kept = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { file: Some(file), ..Self::default() });
            }
            Err(error) => return Err(error),
        };
        let Kept { mut known, unhandled } = kept;
        known.retain(|source| sources.contains(&source));
        let store = DomainStore::resumed(known.clone());
        Ok(Self { store, unhandled, known: Some(known), file: Some(file), due: None })
    }

    /// How to subscribe to a source: from what is known of it on.
    #[must_use]
    pub fn options(&self, source: &str) -> Options {
        match &self.known {
            Some(known) if known.sources().any(|one| one == source) => {
                Options::default().resume(known.clone())
            }
            _ => Options::default(),
        }
    }

    /// The crashes whose hooks were cut off.
    pub(crate) fn unhandled(&mut self) -> Vec<Crash> {
        // The streams have begun.
        self.known = None;
        self.unhandled.clone()
    }

    /// Applies an event, and returns the crashes that it shows.
    pub(crate) fn apply(&mut self, event: &DomainEvent) -> Vec<Crash> {
        let transitions = self.store.apply(event);
        let crashes: Vec<_> = transitions.iter().filter_map(Crash::of).collect();
        if !crashes.is_empty() {
            self.unhandled.extend(crashes.iter().cloned());
            // At once: from now on the hypervisor may forget it.
            self.due_in(Duration::ZERO);
        } else if !transitions.is_empty() || matches!(event, DomainEvent::Synced(_)) {
            self.due_in(PAUSE);
        }
        crashes
    }

    /// The hook of a crash has ended.
    pub(crate) fn ended(&mut self, hook: Result<Crash, JoinError>) {
        match hook {
            Ok(crash) => {
                let handled = self.unhandled.iter().position(|one| *one == crash);
                handled.map(|place| self.unhandled.remove(place));
                self.due_in(PAUSE);
            }
            // Which crash it was for is not known: it stays, and is tried again at the next start.
            Err(error) => tracing::error!("a hook failed: {error}"),
        }
    }

    fn due_in(&mut self, pause: Duration) {
        let due = Instant::now() + pause;
        if self.file.is_some() && self.due.is_none_or(|earlier| due < earlier) {
            self.due = Some(due);
        }
    }

    /// Resolves when the file is to be written.
    pub(crate) async fn is_due(&self) {
        match self.due {
            Some(due) => sleep_until(due).await,
            None => pending().await,
        }
    }

    /// Writes the file, if anything has changed. If that fails it is due again later.
    pub(crate) async fn save(&mut self) {
        let (Some(file), Some(_)) = (self.file.clone(), self.due.take()) else { return };
        let kept = Kept { known: self.store.snapshot(), unhandled: self.unhandled.clone() };
        let written = spawn_blocking(move || write(&file, &kept)).await;
        if let Err(error) = written.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            tracing::error!("cannot write the state: {error}");
            self.due = Some(Instant::now() + 10 * PAUSE);
        }
    }
}

/// Writes the file whole and then renames it: a crash of the machine leaves the old one or the new.
fn write(file: &Path, kept: &Kept) -> io::Result<()> {
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    let mut output = File::create(&new)?;
    output.write_all(&serde_json::to_vec(kept)?)?;
    output.sync_all()?;
    std::fs::rename(new, file)
}
