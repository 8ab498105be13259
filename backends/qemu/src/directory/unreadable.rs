//! Directories that are unreadable: which QEMUs are in them is not known.
//!
//! An unreadable sub-directory is a gap of a placeholder domain with the sub-directory's name,
//! which stands for whatever is in it; QEMUs that were known before go on. The directory itself is
//! a gap as well, named by its path, until it has existed: it may be about to come, or its path may
//! be wrong, and a source that only looks empty would not say so. A directory that has existed and
//! is removed is an empty host.

use std::collections::HashMap;
use std::path::PathBuf;

use virevent::driver::Batch;
use virevent::{Domain, Error, Fault, Scope};

use super::socket_pattern::SocketPattern;
use crate::ADVICE;
use crate::peer::identity::{self, ClaimedUuids};
use crate::uri::Endpoint;

/// The unreadable directories, and what of them is to be reported.
#[derive(Debug, Default)]
pub(crate) struct UnreadableDirectories {
    unread: HashMap<PathBuf, UnreadableDirectory>,
    /// The placeholders of those that are readable again.
    recovered: Vec<Domain>,
    has_changed: bool,
}

#[derive(Debug)]
struct UnreadableDirectory {
    fault: Fault,
    /// The domain that stands for what is in it, once that was reported.
    placeholder: Option<Domain>,
}

impl UnreadableDirectories {
    /// Sets which directories are unreadable: these, and no others.
    pub(crate) fn update<'a>(&mut self, unread: impl Iterator<Item = &'a (PathBuf, Error)>) {
        let mut left = std::mem::take(&mut self.unread);
        for (directory, error) in unread {
            let entry = left.remove(directory).unwrap_or_else(|| {
                tracing::warn!(target: ADVICE, "{}", error.to_line());
                self.has_changed = true;
                UnreadableDirectory { fault: error.to_fault(), placeholder: None }
            });
            self.unread.insert(directory.clone(), entry);
        }
        self.recovered.extend(left.into_values().filter_map(|entry| entry.placeholder));
        self.has_changed |= !self.recovered.is_empty();
    }

    /// Reports what has changed. True if something has.
    pub(crate) fn report(
        &mut self,
        pattern: &SocketPattern,
        host: &str,
        uuids: &mut ClaimedUuids,
        out: &mut Batch,
    ) -> bool {
        if !std::mem::take(&mut self.has_changed) {
            return false;
        }
        for domain in self.recovered.drain(..) {
            uuids.release(domain.uuid());
            out.restored(Scope::Domain(domain));
        }
        for (directory, entry) in &mut self.unread {
            entry.placeholder.get_or_insert_with(|| {
                let endpoint = Endpoint::Unix(directory.clone());
                let uuid = identity::uuid(None, host, &endpoint);
                let uuid = uuids.claim(uuid, host, &endpoint);
                let domain = out.domain(uuid, &pattern.name_of_directory(directory), None);
                out.outage(Scope::Domain(domain.clone()), entry.fault.clone());
                domain
            });
        }
        true
    }
}
