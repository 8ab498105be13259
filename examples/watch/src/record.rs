//! `--record FILE`: every event that the sources deliver, with the time of its receipt.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use virevent::DomainEvent;
use virevent_testkit::Recording;

use crate::Failure;

/// A recording that is being written.
pub(crate) struct Record {
    path: PathBuf,
    file: File,
    start: Instant,
    /// What is not written yet.
    lines: Vec<u8>,
}

impl Record {
    /// Creates the file, in place of an older one. Its header is written with the first events.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let file = File::create(path)
            .map_err(|error| Failure(1, format!("cannot record to {}: {error}", path.display())))?;
        let lines = Recording::header().into_bytes();
        Ok(Self { path: path.to_owned(), file, start: Instant::now(), lines })
    }

    /// Writes these events as whole lines, in one write, so that a kill leaves at most the last line
    /// torn.
    ///
    /// # Errors
    /// They cannot be written; the recording cannot go on.
    pub(crate) fn write(&mut self, events: &[DomainEvent]) -> Result<(), String> {
        let after = self.start.elapsed();
        let mut write = || -> io::Result<()> {
            for event in events {
                Recording::write_line(&mut self.lines, after, event)?;
            }
            self.file.write_all(&self.lines)
        };
        let written = write();
        self.lines.clear();
        written.map_err(|error| {
            let path = self.path.display();
            format!("cannot record to {path}: {error}; the recording ends here, watching goes on")
        })
    }
}
