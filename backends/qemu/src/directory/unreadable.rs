//! Directories that cannot be read: which QEMUs are in them is not known.
//!
//! A sub-directory that cannot be read is a gap of a domain that stands for whatever is there, of the
//! sub-directory's name: QEMUs that were known before go on. So is the directory itself, by its path, as
//! long as it has not been there: it may be about to come, or its path may be wrong, and a source that only
//! looks empty says nothing of that. One that was there and is removed is an empty host.

use std::collections::HashMap;
use std::path::PathBuf;

use virevent::driver::Batch;
use virevent::{Domain, Error, Fault, Scope};

use super::socket_pattern::SocketPattern;
use crate::ADVICE;
use crate::peer::identity::{self, ClaimedUuids};
use crate::uri::Endpoint;

/// The gaps that there are.
#[derive(Debug, Default)]
pub(crate) struct UnreadableDirectories {
    unread: HashMap<PathBuf, UnreadableDirectory>,
    /// Those that are over.
    over: Vec<Domain>,
    is_news: bool,
}

#[derive(Debug)]
struct UnreadableDirectory {
    fault: Fault,
    /// The domain that stands for whoever is there, once that was told.
    told: Option<Domain>,
}

impl UnreadableDirectories {
    /// These cannot be read, and all others can.
    pub(crate) fn see<'a>(&mut self, unread: impl Iterator<Item = &'a (PathBuf, Error)>) {
        let mut left = std::mem::take(&mut self.unread);
        for (directory, error) in unread {
            let gap = left.remove(directory).unwrap_or_else(|| {
                tracing::warn!(target: ADVICE, "{}", error.to_line());
                self.is_news = true;
                UnreadableDirectory { fault: error.to_fault(), told: None }
            });
            self.unread.insert(directory.clone(), gap);
        }
        self.over.extend(left.into_values().filter_map(|gap| gap.told));
        self.is_news |= !self.over.is_empty();
    }

    /// Tells what is new. True if something was.
    pub(crate) fn tell(
        &mut self,
        place: &SocketPattern,
        host: &str,
        uuids: &mut ClaimedUuids,
        out: &mut Batch,
    ) -> bool {
        if !std::mem::take(&mut self.is_news) {
            return false;
        }
        for domain in self.over.drain(..) {
            uuids.release(domain.uuid());
            out.restored(Scope::Domain(domain));
        }
        for (directory, gap) in &mut self.unread {
            gap.told.get_or_insert_with(|| {
                let at = Endpoint::Unix(directory.clone());
                let uuid = uuids.claim(identity::uuid(None, host, &at), host, &at);
                let domain = out.domain(uuid, &place.name_of_directory(directory), None);
                out.outage(Scope::Domain(domain.clone()), gap.fault.clone());
                domain
            });
        }
        true
    }
}
