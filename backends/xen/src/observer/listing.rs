//! The children of `/local/domain`: the domains that the store has a directory for.
//!
//! They come in one packet as long as they fit, which is up to some 700; else in parts, each cut between names.
//! Each part has the generation of the directory. If it differs from that of the part before, the directory
//! has changed in between, and the list begins again.

use std::collections::HashSet;

use virevent::Error;

use crate::decode::domid;
use crate::pipeline::{Outcome, protocol, server_error};
use crate::request::StoreRequest;
use crate::wire::{DirectoryPart, Header, Packet, error, strings};

/// The most bytes of names that are accepted: all domain ids there are take a fifth of it.
const MAX_NAMES: usize = 1 << 20;

#[derive(Debug, Default)]
pub(crate) struct DirectoryListing {
    /// Whether it did not fit in one packet once.
    in_parts: bool,
    generation: Vec<u8>,
    names: Vec<u8>,
}

/// What a reply leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ListStep {
    /// The next request.
    Send(StoreRequest),
    /// These are the domains, in the order of the store and each once.
    Done(Vec<u16>),
}

impl DirectoryListing {
    /// The first request.
    pub(crate) fn begin(&mut self) -> StoreRequest {
        self.names.clear();
        if self.in_parts { StoreRequest::ListPart(0) } else { StoreRequest::List }
    }

    /// Takes in a reply.
    ///
    /// # Errors
    /// The server cannot list the domains, or breaks the protocol.
    pub(crate) fn answer(
        &mut self,
        request: StoreRequest,
        outcome: Outcome<'_>,
    ) -> Result<ListStep, Error> {
        match (request, outcome) {
            // No domain was ever made.
            (_, Err(name)) if name == error::ENOENT.as_bytes() => Ok(ListStep::Done(Vec::new())),
            (StoreRequest::List, Err(name)) if name == error::E2BIG.as_bytes() => {
                self.in_parts = true;
                Ok(ListStep::Send(self.begin()))
            }
            (_, Err(name)) => Err(server_error(request, name)),
            (StoreRequest::ListPart(offset), Ok(payload)) => self.part(request, offset, payload),
            (_, Ok(payload)) => domids(payload).map(ListStep::Done),
        }
    }

    fn part(
        &mut self,
        request: StoreRequest,
        offset: usize,
        payload: &[u8],
    ) -> Result<ListStep, Error> {
        let packet = Packet { header: Header::request(request.operation(), 0), payload };
        let part = DirectoryPart::read(&packet).map_err(|error| protocol(error.to_string()))?;
        if !part.generation.iter().all(u8::is_ascii_digit) {
            return Err(protocol("a part of a directory without its generation".into()));
        }
        if offset == 0 {
            self.generation = part.generation.to_vec();
        } else if part.generation != self.generation {
            // Parts of two states of the directory could miss a domain that existed in both.
            return Ok(ListStep::Send(self.begin()));
        }
        // The next offset would be the same, for ever.
        if !part.is_last && part.names.is_empty() {
            return Err(protocol("a part of a directory without a name".into()));
        }
        self.names.extend_from_slice(part.names);
        if self.names.len() > MAX_NAMES {
            return Err(protocol(format!(
                "/local/domain has more than {MAX_NAMES} bytes of names"
            )));
        }
        if part.is_last {
            return domids(&std::mem::take(&mut self.names)).map(ListStep::Done);
        }
        Ok(ListStep::Send(StoreRequest::ListPart(self.names.len())))
    }
}

/// The domains among the names of children. Each name ends with a NUL and has no slash: else the payload is not a
/// directory, and must not pass for one without domains.
fn domids(names: &[u8]) -> Result<Vec<u16>, Error> {
    let is_ended = names.last().is_none_or(|byte| *byte == 0);
    if !is_ended || strings(names).any(|name| name.is_empty() || name.contains(&b'/')) {
        return Err(protocol(
            "no names of children in the reply to a DIRECTORY of /local/domain".into(),
        ));
    }
    let mut known = HashSet::new();
    Ok(strings(names).filter_map(domid).filter(|domid| known.insert(*domid)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(answers: &[Outcome<'_>]) -> Result<Vec<u16>, String> {
        let mut listing = DirectoryListing::default();
        let mut request = listing.begin();
        let mut answers = answers.iter();
        loop {
            let answer = answers.next().expect("a reply for each request");
            match listing.answer(request, *answer).map_err(|error| error.to_line())? {
                ListStep::Done(domids) => {
                    assert!(answers.next().is_none());
                    return Ok(domids);
                }
                ListStep::Send(next) => request = next,
            }
        }
    }

    #[test]
    fn other_names_are_ignored_and_duplicates_count_once() {
        assert_eq!(parts(&[Ok(b"5\x000\x00x\x005\x0040000\x00\xff\x00")]), Ok(vec![5, 0]));
        assert_eq!(parts(&[Ok(b"")]), Ok(vec![]));
        assert_eq!(parts(&[Err(b"ENOENT")]), Ok(vec![]));
    }

    #[test]
    fn a_payload_that_is_no_directory_is_refused() {
        for payload in [&b"/local/domain\0"[..], b"OK", b"5\0\0", b"\0"] {
            let message = parts(&[Ok(payload)]).unwrap_err();
            assert!(message.contains("no names of children"), "{payload:?} {message}");
        }
        assert!(parts(&[Err(b"E2BIG"), Ok(b"/local/domain\x000\x00")]).is_err());
    }

    #[test]
    fn a_list_in_parts_begins_again_when_it_changes() {
        let answers: [Outcome<'_>; 6] = [
            Err(b"E2BIG"),
            Ok(b"7\x001\x002\x00"),
            Ok(b"8\x004\x00\x00"),
            Ok(b"8\x002\x003\x00"),
            Ok(b"8\x004\x00"),
            Ok(b"8\x00\x00"),
        ];
        assert_eq!(parts(&answers), Ok(vec![2, 3, 4]));
    }

    #[test]
    fn the_offset_counts_the_names_and_their_nuls() {
        let mut listing = DirectoryListing { in_parts: true, ..DirectoryListing::default() };
        assert_eq!(listing.begin(), StoreRequest::ListPart(0));
        let next = listing.answer(StoreRequest::ListPart(0), Ok(b"712\x0010\x002\x00")).unwrap();
        assert_eq!(next, ListStep::Send(StoreRequest::ListPart(5)));
    }

    #[test]
    fn an_impossible_list_is_an_error_and_never_a_loop() {
        let message = parts(&[Err(b"E2BIG"), Err(b"ENOSYS")]).unwrap_err();
        assert!(message.contains("DIRECTORY_PART") && message.contains("4.9"), "{message}");
        assert!(parts(&[Err(b"E2BIG"), Ok(b"7\x00")]).unwrap_err().contains("end of the list"));
        assert!(parts(&[Err(b"EACCES")]).unwrap_err().contains("domain 0"));
        let mut listing = DirectoryListing { in_parts: true, ..DirectoryListing::default() };
        let mut request = listing.begin();
        let part = [&b"1\x00"[..], &b"12345\x00".repeat(600)].concat();
        let error = loop {
            match listing.answer(request, Ok(&part)) {
                Ok(ListStep::Send(next)) => request = next,
                Ok(done) => panic!("{done:?}"),
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("bytes of names"));
    }
}
