//! `--resume FILE`: what one run leaves for the next.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use virevent::{DomainEvent, DomainStore, EventSource, Options, Snapshot};

use crate::Failure;

/// What is known of the domains, from the file and from the events since.
pub(crate) struct Resume {
    file: PathBuf,
    store: DomainStore,
    /// What the file said; nothing at the first run.
    known: Option<Snapshot>,
}

impl Resume {
    /// Reads what the file says of these sources. No file: nothing is known yet.
    pub(crate) fn open(file: &Path, sources: &[Arc<dyn EventSource>]) -> Result<Self, Failure> {
        let wrong = |error: io::Error| {
            let file = file.display();
            Failure(1, format!("cannot resume from {file}: {error}; remove it to begin without it"))
        };
        let known = match std::fs::read(file) {
            Ok(text) => {
                let known = serde_json::from_slice::<Snapshot>(&text);
                Some(known.map_err(|error| wrong(error.into()))?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(wrong(error)),
        };
        let known = known.map(|mut known| {
            known.retain(|uri| sources.iter().any(|source| source.uri() == uri));
            known
        });
        let store = known.clone().map_or_else(DomainStore::new, DomainStore::resumed);
        Ok(Self { file: file.to_owned(), store, known })
    }

    /// The options for this source: where the file knows it, it begins with what changed.
    pub(crate) fn options(&self, uri: &str, options: &Options) -> Options {
        match &self.known {
            Some(known) if known.sources().any(|source| source == uri) => {
                options.clone().resume(known.clone())
            }
            _ => options.clone(),
        }
    }

    pub(crate) fn apply(&self, event: &DomainEvent) {
        self.store.apply(event);
    }

    /// Writes the file: whole, and then renamed, so that a crash leaves the old one or the new.
    pub(crate) fn save(&self) -> Result<(), String> {
        let write = || {
            let mut new = self.file.as_os_str().to_owned();
            new.push(".new");
            let mut output = File::create(&new)?;
            output.write_all(&serde_json::to_vec(&self.store.snapshot())?)?;
            output.sync_all()?;
            std::fs::rename(new, &self.file)
        };
        write().map_err(|error: io::Error| format!("cannot write {}: {error}", self.file.display()))
    }
}
