//! The children of `/local/domain`: the domains that the store has a place for.
//!
//! They come in one packet as long as they fit, which is up to some 700; else in parts, each cut
//! between names. A change of the directory between two parts is told by its generation, and the list
//! begins again.

use std::collections::HashSet;

use virevent::Error;

use crate::client::{Outcome, protocol, server_error};
use crate::decode::domid;
use crate::request::Ask;
use crate::wire::{DirectoryPart, Header, Packet, error, strings};

/// More bytes of names than that are not of domains.
const MOST: usize = 1 << 20;

#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// It did not fit in one packet once.
    in_parts: bool,
    generation: Vec<u8>,
    names: Vec<u8>,
}

/// What an answer leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is more to ask.
    Ask(Ask),
    /// These are the domains, in the order of the store and each once.
    Done(Vec<u16>),
}

impl Listing {
    /// The first question.
    pub(crate) fn begin(&mut self) -> Ask {
        self.names.clear();
        if self.in_parts { Ask::ListPart(0) } else { Ask::List }
    }

    /// Takes in an answer.
    ///
    /// # Errors
    /// The server cannot tell them, or breaks the protocol.
    pub(crate) fn answer(&mut self, ask: Ask, outcome: Outcome<'_>) -> Result<Step, Error> {
        match (ask, outcome) {
            // No domain was ever made.
            (_, Err(name)) if name == error::ENOENT.as_bytes() => Ok(Step::Done(Vec::new())),
            (Ask::List, Err(name)) if name == error::E2BIG.as_bytes() => {
                self.in_parts = true;
                Ok(Step::Ask(self.begin()))
            }
            (_, Err(name)) => Err(server_error(ask, name)),
            (Ask::ListPart(offset), Ok(payload)) => self.part(ask, offset, payload),
            (_, Ok(payload)) => domids(payload).map(Step::Done),
        }
    }

    fn part(&mut self, ask: Ask, offset: usize, payload: &[u8]) -> Result<Step, Error> {
        let packet = Packet { header: Header::request(ask.operation(), 0), payload };
        let part = DirectoryPart::read(&packet).map_err(|error| protocol(error.to_string()))?;
        if !part.generation.iter().all(u8::is_ascii_digit) {
            return Err(protocol("a part of a directory without its generation".into()));
        }
        if offset == 0 {
            self.generation = part.generation.to_vec();
        } else if part.generation != self.generation {
            return Ok(Step::Ask(self.begin()));
        }
        if !part.is_last && part.names.is_empty() {
            return Err(protocol("a part of a directory without a name".into()));
        }
        self.names.extend_from_slice(part.names);
        if self.names.len() > MOST {
            return Err(protocol(format!("/local/domain has more than {MOST} bytes of names")));
        }
        if part.is_last {
            return domids(&std::mem::take(&mut self.names)).map(Step::Done);
        }
        Ok(Step::Ask(Ask::ListPart(self.names.len())))
    }
}

/// The domains among names of children, each of which has an end and no slash: else it is no directory
/// that was sent, and must not pass for one without domains.
fn domids(names: &[u8]) -> Result<Vec<u16>, Error> {
    let is_ended = names.last().is_none_or(|byte| *byte == 0);
    if !is_ended || strings(names).any(|name| name.is_empty() || name.contains(&b'/')) {
        return Err(protocol("no names of children to a DIRECTORY of /local/domain".into()));
    }
    let mut known = HashSet::new();
    Ok(strings(names).filter_map(domid).filter(|domid| known.insert(*domid)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(answers: &[Outcome<'_>]) -> Result<Vec<u16>, String> {
        let mut listing = Listing::default();
        let mut ask = listing.begin();
        let mut answers = answers.iter();
        loop {
            let answer = answers.next().expect("an answer for each question");
            match listing.answer(ask, *answer).map_err(|error| error.to_line())? {
                Step::Done(domids) => {
                    assert!(answers.next().is_none());
                    return Ok(domids);
                }
                Step::Ask(next) => ask = next,
            }
        }
    }

    #[test]
    fn names_that_are_no_domains_are_passed_over_and_doubles_count_once() {
        assert_eq!(parts(&[Ok(b"5\x000\x00x\x005\x0040000\x00\xff\x00")]), Ok(vec![5, 0]));
        assert_eq!(parts(&[Ok(b"")]), Ok(vec![]));
        assert_eq!(parts(&[Err(b"ENOENT")]), Ok(vec![]));
    }

    #[test]
    fn what_is_no_directory_does_not_pass_for_one_without_domains() {
        for payload in [&b"/local/domain\0"[..], b"OK", b"5\0\0", b"\0"] {
            let said = parts(&[Ok(payload)]).unwrap_err();
            assert!(said.contains("no names of children"), "{payload:?} {said}");
        }
        assert!(parts(&[Err(b"E2BIG"), Ok(b"/local/domain\x000\x00")]).is_err());
    }

    #[test]
    fn a_big_directory_comes_in_parts_and_begins_again_when_it_changes() {
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
        let mut listing = Listing { in_parts: true, ..Listing::default() };
        assert_eq!(listing.begin(), Ask::ListPart(0));
        let next = listing.answer(Ask::ListPart(0), Ok(b"712\x0010\x002\x00")).unwrap();
        assert_eq!(next, Step::Ask(Ask::ListPart(5)));
    }

    #[test]
    fn what_cannot_be_listed_is_an_error_and_never_a_loop() {
        let said = parts(&[Err(b"E2BIG"), Err(b"ENOSYS")]).unwrap_err();
        assert!(said.contains("DIRECTORY_PART") && said.contains("4.9"), "{said}");
        assert!(parts(&[Err(b"E2BIG"), Ok(b"7\x00")]).unwrap_err().contains("end of the list"));
        assert!(parts(&[Err(b"EACCES")]).unwrap_err().contains("domain 0"));
        let mut listing = Listing { in_parts: true, ..Listing::default() };
        let (mut ask, part) =
            (listing.begin(), [&b"1\x00"[..], &b"12345\x00".repeat(600)].concat());
        let error = loop {
            match listing.answer(ask, Ok(&part)) {
                Ok(Step::Ask(next)) => ask = next,
                Ok(done) => panic!("{done:?}"),
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("bytes of names"));
    }
}
