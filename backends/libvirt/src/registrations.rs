//! What is registered at the server, and the way to what is wanted.
//!
//! libvirt keeps one registration an event id and connection. Each has a number of the server's own,
//! the callback id, except on servers before 1.2.1 (the legacy way).
//!
//! While anything is wanted the session also registers what it needs itself: [`OWN`].
//!
//! [`Kind::Other`] means every event id from 2 to [`LAST_PROBED`] that the server accepts: each is
//! tried, since no call tells which there are, and what was refused is not tried again on the same
//! connection.

use std::collections::{BTreeMap, BTreeSet};

use virevent::driver::Interest;
use virevent::{EventName, Kind};

use crate::calls::{Calls, Purpose};
use crate::wire::{Register, procs};

/// The last event id that is tried for [`Kind::Other`]: libvirt 12.4 has up to 29.
const LAST_PROBED: u32 = 31;

/// The last event id of servers before 1.2.1.
const LAST_LEGACY: u32 = 15;

/// The event ids that have a type, and so are not for [`Kind::Other`].
const LIFECYCLE: u32 = 0;
const REBOOT: u32 = 1;

/// libvirt failed to talk to a run's hypervisor.
pub(crate) const CONTROL_ERROR: u32 = 7;

/// What the session needs itself: a reboot can give a run another id, and can end a crash, and a control
/// error can be the only event at the end of a run. A server may lack them.
const OWN: [u32; 2] = [REBOOT, CONTROL_ERROR];

#[derive(Debug, Default)]
pub(crate) struct Registrations {
    /// Whether the server knows no callback ids.
    pub(crate) legacy: bool,
    /// Event id to callback id.
    registered: BTreeMap<u32, i32>,
    /// Event ids that the server turned out to lack.
    lacking: BTreeSet<u32>,
    change: Option<Change>,
}

/// A change under way.
#[derive(Debug)]
struct Change {
    tag: u64,
    interest: Interest,
    /// Calls without a reply.
    open: usize,
}

impl Registrations {
    /// Queues the calls that lead from what is registered to what is wanted.
    pub(crate) fn change(&mut self, interest: &Interest, tag: u64, calls: &mut Calls) {
        let last = if self.legacy { LAST_LEGACY } else { i32::MAX as u32 };
        let mut wanted: BTreeSet<u32> = BTreeSet::new();
        for kind in interest.kinds().iter() {
            match kind {
                Kind::Other => wanted.extend(REBOOT + 1..=LAST_PROBED.min(last)),
                kind => wanted.extend(event_id(kind).filter(|id| *id <= last)),
            }
        }
        if !wanted.is_empty() {
            wanted.extend(OWN);
        }
        wanted.retain(|id| !self.lacking.contains(id));

        let new = wanted.iter().filter(|id| !self.registered.contains_key(id));
        let old = self.registered.iter().filter(|(id, _)| !wanted.contains(id));
        let mut open = 0;
        for id in new {
            self.register(*id, calls);
            open += 1;
        }
        for (id, callback) in old {
            self.deregister(*id, *callback, calls);
            open += 1;
        }
        self.change = Some(Change { tag, interest: interest.clone(), open });
    }

    fn register(&self, id: u32, calls: &mut Calls) {
        let (event, purpose) = (id as i32, Purpose::Register(id));
        if self.legacy {
            let procedure = procs::CONNECT_DOMAIN_EVENT_REGISTER_ANY;
            calls.call(procedure, purpose, |args| args.i32(event));
        } else {
            let procedure = procs::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY;
            calls.call(procedure, purpose, |args| Register { event, domain: None }.write(args));
        }
    }

    fn deregister(&self, id: u32, callback: i32, calls: &mut Calls) {
        let (procedure, argument) = if self.legacy {
            (procs::CONNECT_DOMAIN_EVENT_DEREGISTER_ANY, id as i32)
        } else {
            (procs::CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY, callback)
        };
        calls.call(procedure, Purpose::Deregister(id), |args| args.i32(argument));
    }

    /// The server has registered the event id; `None` if it lacks it.
    pub(crate) fn registered(&mut self, id: u32, callback: Option<i32>) {
        match callback {
            Some(callback) => {
                self.registered.insert(id, callback);
            }
            None => {
                self.lacking.insert(id);
            }
        }
        self.answered();
    }

    /// The server has deregistered the event id.
    pub(crate) fn deregistered(&mut self, id: u32) {
        self.registered.remove(&id);
        self.answered();
    }

    fn answered(&mut self) {
        if let Some(change) = &mut self.change {
            change.open = change.open.saturating_sub(1);
        }
    }

    /// The tag of the change that the server has confirmed, once, and the kinds that it lacks.
    pub(crate) fn take_done(&mut self) -> Option<(u64, Vec<Kind>)> {
        let Change { tag, interest, .. } = self.change.take_if(|change| change.open == 0)?;
        let lacks = |kind: &&Kind| match kind {
            Kind::Other => self.registered.keys().all(|id| *id <= REBOOT),
            kind => event_id(kind).is_none_or(|id| !self.registered.contains_key(&id)),
        };
        Some((tag, interest.kinds().iter().filter(lacks).cloned().collect()))
    }

    /// Whether the session alone wants the event id.
    pub(crate) fn is_own(&self, id: u32) -> bool {
        let asked = |change: &Change| {
            let kind = if id == REBOOT { Kind::Reboot } else { Kind::Named(EventName::Number(id)) };
            change.interest.contains(&kind)
        };
        OWN.contains(&id) && !self.change.as_ref().is_some_and(asked)
    }

    /// For which event id a callback is registered.
    pub(crate) fn id_of(&self, callback: i32) -> Option<u32> {
        let mut all = self.registered.iter();
        all.find_map(|(id, known)| (*known == callback).then_some(*id))
    }
}

/// The one event id of a kind. None for names, which libvirt does not use, and for numbers that come
/// as another kind.
fn event_id(kind: &Kind) -> Option<u32> {
    match kind {
        Kind::Lifecycle => Some(LIFECYCLE),
        Kind::Reboot => Some(REBOOT),
        Kind::Named(EventName::Number(id)) if *id > REBOOT => Some(*id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::xdr::Reader;
    use crate::wire::{Frames, kind};

    struct Peer {
        registrations: Registrations,
        calls: Calls,
        /// The ids that the server has: those below.
        knows: u32,
        callback: i32,
    }

    impl Peer {
        fn new(knows: u32, legacy: bool) -> Self {
            let registrations = Registrations { legacy, ..Registrations::default() };
            Self { registrations, calls: Calls::default(), knows, callback: 220 }
        }

        /// What was asked of the server for this interest, and what it lacks.
        fn change(&mut self, kinds: &str) -> (Vec<String>, String) {
            let interest = kinds.split_whitespace().map(|kind| kind.parse().unwrap()).collect();
            self.registrations.change(&interest, 5, &mut self.calls);
            let mut asked = Vec::new();
            loop {
                let mut frames = Frames::new();
                frames.push(self.calls.outbox().unwritten());
                let unwritten = self.calls.outbox().unwritten().len();
                self.calls.outbox().wrote(unwritten);
                let before = asked.len();
                while let Some(frame) = frames.next_frame().unwrap() {
                    assert_eq!(frame.header.kind, kind::CALL);
                    let argument = Reader::new(frame.body).i32().unwrap();
                    asked.push(format!("{}({argument})", frame.header.procedure));
                    self.answer(frame.header.serial);
                }
                if asked.len() == before {
                    break;
                }
            }
            let (tag, refused) = self.registrations.take_done().expect("all is answered");
            assert_eq!(tag, 5);
            assert_eq!(self.registrations.take_done(), None, "it is said once");
            (asked, refused.iter().map(|kind| format!("{kind} ")).collect())
        }

        fn answer(&mut self, serial: u32) {
            match self.calls.answered(serial).unwrap().purpose {
                Purpose::Register(id) => {
                    self.callback += 1;
                    let callback = (id < self.knows).then_some(self.callback);
                    self.registrations.registered(id, callback);
                }
                Purpose::Deregister(id) => self.registrations.deregistered(id),
                purpose => panic!("{purpose:?}"),
            }
        }
    }

    #[test]
    fn only_the_difference_is_asked_for() {
        let mut peer = Peer::new(27, false);
        assert_eq!(peer.change("lifecycle other:7").0, ["316(0)", "316(1)", "316(7)"]);
        assert_eq!(peer.change("lifecycle reboot other:8").0, ["316(8)"]);
        assert_eq!(peer.change("lifecycle other:9").0, ["316(9)", "317(224)"]);
        assert_eq!(peer.change("lifecycle other:9").0.len(), 0);
        assert_eq!(peer.change("").0, ["317(221)", "317(222)", "317(223)", "317(225)"]);
    }

    #[test]
    fn what_the_session_needs_itself_may_be_lacking() {
        let mut peer = Peer::new(1, false);
        let asked = ["316(0)", "316(1)", "316(7)"].map(Into::into).to_vec();
        assert_eq!(peer.change("lifecycle"), (asked, String::new()));
        assert_eq!(peer.change("lifecycle other:7"), (vec![], "other:7 ".into()));
    }

    #[test]
    fn other_is_every_id_that_the_server_has_and_what_it_lacks_is_asked_for_once() {
        let mut peer = Peer::new(27, false);
        let (asked, refused) = peer.change("lifecycle other");
        assert_eq!((asked.len(), &*refused), (32, ""));
        assert_eq!(peer.change("lifecycle").0.len(), 24);
        assert_eq!(peer.change("lifecycle other").0.len(), 24);
        assert_eq!(peer.registrations.registered.len(), 27);
    }

    #[test]
    fn what_the_server_lacks_is_refused() {
        let mut peer = Peer::new(27, false);
        let kinds = "lifecycle other:0 other:1 other:27 other:26 other:RTC_CHANGE other:4294967295";
        let (asked, refused) = peer.change(kinds);
        assert_eq!(asked, ["316(0)", "316(1)", "316(7)", "316(26)", "316(27)"]);
        assert_eq!(refused, "other:0 other:1 other:27 other:4294967295 other:RTC_CHANGE ");

        let mut bare = Peer::new(1, false);
        assert_eq!(bare.change("lifecycle reboot other").1, "reboot other ");
    }

    #[test]
    fn an_old_server_is_asked_in_the_old_way() {
        let mut peer = Peer::new(16, true);
        let (asked, refused) = peer.change("lifecycle other other:16");
        assert_eq!((asked.len(), &*refused), (16, "other:16 "));
        assert_eq!(asked[..3], ["167(0)", "167(1)", "167(2)"]);
        assert_eq!(peer.change("lifecycle other:2").0[0], "168(3)");
    }
}
