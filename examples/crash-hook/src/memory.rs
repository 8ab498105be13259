//! What the service knows of the domains, kept in a file while it does not run.

use std::fs::File;
use std::future::pending;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use virevent::{DomainEvent, DomainStore, Options, Snapshot, Transition};

/// How long after a change the file is written, so that a storm of changes is one write.
const PAUSE: Duration = Duration::from_secs(1);

/// The store of the service, and the file that keeps it.
#[derive(Debug, Default)]
pub struct Memory {
    store: DomainStore,
    /// What was known when the service started.
    known: Option<Snapshot>,
    file: Option<PathBuf>,
    due: Option<Instant>,
}

impl Memory {
    /// What the file keeps of these sources; nothing if there is no file yet.
    ///
    /// # Errors
    /// The file cannot be read, or is no snapshot that this version reads.
    pub fn open(file: PathBuf, sources: &[&str]) -> io::Result<Self> {
        let mut known: Snapshot = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { file: Some(file), ..Self::default() });
            }
            Err(error) => return Err(error),
        };
        known.retain(|source| sources.contains(&source));
        let store = DomainStore::resumed(known.clone());
        Ok(Self { store, known: Some(known), file: Some(file), due: None })
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

    /// Applies an event; what changes by it is to be written.
    pub(crate) fn apply(&mut self, event: &DomainEvent) -> Vec<Transition> {
        let transitions = self.store.apply(event);
        let is_synced = matches!(event, DomainEvent::Synced(_));
        if self.file.is_some() && (is_synced || !transitions.is_empty()) {
            self.due.get_or_insert_with(|| Instant::now() + PAUSE);
        }
        transitions
    }

    /// Resolves when the file is to be written.
    pub(crate) async fn is_due(&self) {
        match self.due {
            Some(due) => sleep_until(due).await,
            None => pending().await,
        }
    }

    /// Writes the file, if anything has changed. If that fails it is due again later.
    pub(crate) fn save(&mut self) {
        let (Some(file), Some(_)) = (&self.file, self.due.take()) else { return };
        if let Err(error) = write(file, &self.store.snapshot()) {
            tracing::error!("cannot write {}: {error}", file.display());
            self.due = Some(Instant::now() + 10 * PAUSE);
        }
    }
}

/// Writes the file whole and then renames it: a crash of the machine leaves the old one or the new.
fn write(file: &Path, known: &Snapshot) -> io::Result<()> {
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    let mut output = File::create(&new)?;
    output.write_all(&serde_json::to_vec(known)?)?;
    output.sync_all()?;
    std::fs::rename(new, file)
}
