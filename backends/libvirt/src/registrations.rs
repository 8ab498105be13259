//! The registrations for events: which exist at the server, and which calls lead to those that are
//! wanted.
//!
//! libvirt has one registration for each event id of a connection. The server gives each a callback
//! id, except servers before 1.2.1 (the legacy procedures).
//!
//! While anything is wanted the session also registers the events that it needs itself: [`OWN`].
//!
//! A kind is one event id, but for these:
//!
//! | kind | event ids |
//! |---|---|
//! | io-error | 6, which has a reason; 4 if the server refuses 6 |
//! | block-job | 16, which names the disk by its target; 8 if the server refuses 16 |
//! | pm-suspend | 12 (memory) and 14 (disk) |
//! | other | every id from 30 to [`LAST_PROBED`] that the server accepts |
//!
//! libvirt sends both events of a pair to a client that registered for both, so only one of them is
//! registered. No call returns which ids there are, so each is tried, and one that was refused is
//! not tried again on the same connection.

use std::collections::{BTreeMap, BTreeSet};

use virevent::driver::Interest;
use virevent::{EventName, Kind};

use crate::calls::{Calls, Purpose};
use crate::wire::{Register, procs};

/// The last event id that is tried for [`Kind::Other`]. The last one that libvirt 12.8 has is 29.
const LAST_PROBED: u32 = 33;

/// The last event id of servers before 1.2.1.
const LAST_LEGACY: u32 = 15;

const REBOOT: u32 = 1;
const CONTROL_ERROR: u32 = 7;

/// The events that the session needs itself. A reboot can give a run another id and can end a
/// crash; a control error can be the only event at the end of a run. A server need not have them.
const OWN: [u32; 2] = [REBOOT, CONTROL_ERROR];

/// The registrations of one connection.
#[derive(Debug, Default)]
pub(crate) struct Registrations {
    /// Whether the server has no callback ids.
    pub(crate) legacy: bool,
    /// Event id to callback id.
    registered: BTreeMap<u32, i32>,
    /// Event ids that the server refused.
    lacking: BTreeSet<u32>,
    /// The change that the server has not confirmed yet.
    change: Option<InterestChange>,
}

/// A change from what is registered to what is wanted.
#[derive(Debug)]
struct InterestChange {
    tag: u64,
    interest: Interest,
    /// How many calls have no reply yet.
    pending: usize,
}

impl Registrations {
    /// Makes the calls that lead from what is registered to what is wanted.
    pub(crate) fn change(&mut self, interest: &Interest, tag: u64, calls: &mut Calls) {
        let mut wanted: BTreeSet<u32> = BTreeSet::new();
        for kind in interest.kinds().iter() {
            let ids = event_ids(kind).into_iter().filter(|id| self.may_have(*id));
            wanted.extend(ids.take(if is_one_of_two(kind) { 1 } else { usize::MAX }));
        }
        if !wanted.is_empty() {
            wanted.extend(OWN);
        }
        wanted.retain(|id| self.may_have(*id));

        // libvirt refuses a second registration of an event id on one connection (error 8, "already
        // tracked"), so only the difference is sent.

        let new = wanted.iter().filter(|id| !self.registered.contains_key(id));
        let old = self.registered.iter().filter(|(id, _)| !wanted.contains(id));
        let mut pending = 0;
        for id in new {
            self.register(*id, calls);
            pending += 1;
        }
        for (id, callback) in old {
            self.deregister(*id, *callback, calls);
            pending += 1;
        }
        self.change = Some(InterestChange { tag, interest: interest.clone(), pending });
    }

    /// Whether the server has the event id, as far as is known.
    fn may_have(&self, id: u32) -> bool {
        (!self.legacy || id <= LAST_LEGACY) && !self.lacking.contains(&id)
    }

    fn register(&self, id: u32, calls: &mut Calls) {
        let event = id as i32;
        let purpose = Purpose::Register(id);
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

    /// The server replied to a registration: with a callback id, or without one if it has no such
    /// event. Then its older form is registered, where there is one.
    pub(crate) fn on_registered(&mut self, id: u32, callback: Option<i32>, calls: &mut Calls) {
        match callback {
            Some(callback) => {
                self.registered.insert(id, callback);
            }
            None => {
                self.lacking.insert(id);
                if let Some(older) = older_form(id).filter(|id| self.may_have(*id)) {
                    self.register(older, calls);
                    // In place of the registration that was refused: as many replies are pending.
                    return;
                }
            }
        }
        self.on_reply();
    }

    /// The server replied to a deregistration.
    pub(crate) fn on_deregistered(&mut self, id: u32) {
        self.registered.remove(&id);
        self.on_reply();
    }

    fn on_reply(&mut self) {
        if let Some(change) = &mut self.change {
            change.pending = change.pending.saturating_sub(1);
        }
    }

    /// The tag of a change that the server has confirmed, and the kinds that it does not have.
    /// Returns each change once.
    pub(crate) fn take_confirmed(&mut self) -> Option<(u64, Vec<Kind>)> {
        let confirmed = self.change.take_if(|change| change.pending == 0)?;
        let InterestChange { tag, interest, .. } = confirmed;
        // A server without events that have no type lacks nothing.
        let lacks = |kind: &&Kind| {
            **kind != Kind::Other
                && !event_ids(kind).iter().any(|id| self.registered.contains_key(id))
        };
        Some((tag, interest.kinds().iter().filter(lacks).cloned().collect()))
    }

    /// Whether no subscriber wants the event id, only the session.
    pub(crate) fn is_own(&self, id: u32) -> bool {
        let kind = Kind::of_libvirt(id);
        let is_wanted = |change: &InterestChange| {
            kind.as_ref().is_some_and(|kind| change.interest.contains(kind))
        };
        // Without a pending change no subscriber waits for the reply.
        OWN.contains(&id) && !self.change.as_ref().is_some_and(is_wanted)
    }

    /// The event id for which a callback is registered.
    pub(crate) fn event_of(&self, callback: i32) -> Option<u32> {
        // A daemon counts callback ids for all its clients: they are neither small nor consecutive.
        let mut all = self.registered.iter();
        all.find_map(|(id, known)| (*known == callback).then_some(*id))
    }
}

/// The event ids of a kind, the newest first. None for names, which libvirt does not use, and for
/// numbers that have a kind of their own.
fn event_ids(kind: &Kind) -> Vec<u32> {
    let typed = 0..procs::EVENTS.len() as u32;
    match kind {
        Kind::Other => (typed.end..=LAST_PROBED).collect(),
        Kind::Named(EventName::Number(id)) if !typed.contains(id) => vec![*id],
        Kind::Named(_) => Vec::new(),
        kind => typed.rev().filter(|id| Kind::of_libvirt(*id).as_ref() == Some(kind)).collect(),
    }
}

/// Whether the event ids of a kind are two forms of the same event, of which one is registered.
fn is_one_of_two(kind: &Kind) -> bool {
    matches!(kind, Kind::IoError | Kind::BlockJob)
}

/// The id under which an older server sends an event, if it is another one.
fn older_form(id: u32) -> Option<u32> {
    let kind = Kind::of_libvirt(id).filter(is_one_of_two)?;
    event_ids(&kind).into_iter().find(|older| *older < id)
}

#[cfg(test)]
mod tests {
    use virevent::Kinds;

    use super::*;
    use crate::wire::xdr::Reader;
    use crate::wire::{Frames, kind};

    struct Peer {
        registrations: Registrations,
        calls: Calls,
        /// The server has the event ids below this one.
        knows: u32,
        callback: i32,
    }

    impl Peer {
        fn new(knows: u32, legacy: bool) -> Self {
            let registrations = Registrations { legacy, ..Registrations::default() };
            Self { registrations, calls: Calls::default(), knows, callback: 220 }
        }

        /// The calls for this interest, and the kinds that the server does not have.
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
            let (tag, refused) =
                self.registrations.take_confirmed().expect("all calls have replies");
            assert_eq!(tag, 5);
            assert_eq!(self.registrations.take_confirmed(), None, "a change is reported once");
            (asked, refused.iter().map(|kind| format!("{kind} ")).collect())
        }

        fn answer(&mut self, serial: u32) {
            match self.calls.complete(serial).unwrap().purpose {
                Purpose::Register(id) => {
                    self.callback += 1;
                    let callback = (id < self.knows).then_some(self.callback);
                    self.registrations.on_registered(id, callback, &mut self.calls);
                }
                Purpose::Deregister(id) => self.registrations.on_deregistered(id),
                purpose => panic!("{purpose:?}"),
            }
        }
    }

    #[test]
    fn only_the_difference_is_registered_or_deregistered() {
        let mut peer = Peer::new(27, false);
        assert_eq!(peer.change("lifecycle control-error").0, ["316(0)", "316(1)", "316(7)"]);
        assert_eq!(peer.change("lifecycle reboot watchdog").0, ["316(3)"]);
        assert_eq!(peer.change("lifecycle disk-change").0, ["316(9)", "317(224)"]);
        assert_eq!(peer.change("lifecycle disk-change").0.len(), 0);
        assert_eq!(peer.change("").0, ["317(221)", "317(222)", "317(223)", "317(225)"]);
    }

    #[test]
    fn of_two_forms_of_an_event_the_newer_is_registered() {
        let mut peer = Peer::new(27, false);
        let (asked, refused) = peer.change("lifecycle io-error block-job pm-suspend");
        let ids = [0, 1, 6, 7, 12, 14, 16].map(|id| format!("316({id})"));
        assert_eq!(asked, ids);
        assert_eq!(refused, "");
    }

    #[test]
    fn the_older_form_is_registered_where_the_newer_is_refused() {
        let mut peer = Peer::new(13, false);
        let (asked, refused) = peer.change("lifecycle io-error block-job pm-suspend");
        let ids = [0, 1, 6, 7, 12, 14, 16, 8].map(|id| format!("316({id})"));
        assert_eq!(asked, ids);
        assert_eq!(refused, "", "of pm-suspend it has one of two");
        assert!(!peer.registrations.registered.contains_key(&4));
        // Deregistered under the id that was accepted; and the refused id is not tried again.
        assert_eq!(peer.change("lifecycle").0.len(), 3);
        assert_eq!(peer.change("lifecycle block-job").0, ["316(8)"]);

        let mut bare = Peer::new(5, false);
        let (asked, refused) = bare.change("lifecycle io-error block-job pm-suspend");
        let ids = [0, 1, 6, 7, 12, 14, 16, 4, 8].map(|id| format!("316({id})"));
        assert_eq!(asked, ids);
        assert_eq!(refused, "block-job pm-suspend ");
    }

    #[test]
    fn the_server_need_not_have_what_the_session_needs() {
        let mut peer = Peer::new(1, false);
        let asked = ["316(0)", "316(1)", "316(7)"].map(Into::into).to_vec();
        assert_eq!(peer.change("lifecycle"), (asked, String::new()));
        assert_eq!(peer.change("lifecycle control-error"), (vec![], "control-error ".into()));
    }

    #[test]
    fn other_means_every_id_without_a_type_that_the_server_has() {
        let mut peer = Peer::new(32, false);
        let (asked, refused) = peer.change("lifecycle other");
        assert_eq!(asked[3..], ["316(30)", "316(31)", "316(32)", "316(33)"]);
        assert_eq!(refused, "");
        assert_eq!(peer.change("lifecycle").0, ["317(224)", "317(225)"]);
        assert_eq!(peer.change("lifecycle other").0, ["316(30)", "316(31)"]);
        let lacks_none = Peer::new(27, false).change("lifecycle other").1;
        assert_eq!(lacks_none, "", "a server may have a type for each of its events");
    }

    #[test]
    fn every_kind_together_registers_each_id_once() {
        let mut peer = Peer::new(27, false);
        let kinds: Vec<_> = Kinds::all().iter().map(Kind::to_string).collect();
        let (asked, refused) = peer.change(&kinds.join(" "));
        let both = ["316(4)", "316(8)"].map(String::from);
        let ids = (0..=33).map(|id| format!("316({id})")).filter(|call| !both.contains(call));
        assert_eq!(asked, ids.collect::<Vec<_>>());
        assert_eq!(refused, "nic-mac-change vcpu-removed channel-lifecycle ");
    }

    #[test]
    fn kinds_that_the_server_does_not_have_are_refused() {
        let mut peer = Peer::new(27, false);
        let kinds = "lifecycle nic-mac-change memory-device-size-change other:99 \
                     other:POWERDOWN other:4294967295";
        let (asked, refused) = peer.change(kinds);
        assert_eq!(
            asked,
            ["316(0)", "316(1)", "316(7)", "316(26)", "316(27)", "316(99)", "316(-1)"]
        );
        assert_eq!(refused, "nic-mac-change other:99 other:4294967295 other:POWERDOWN ");

        let mut bare = Peer::new(1, false);
        assert_eq!(bare.change("lifecycle reboot other").1, "reboot ");
    }

    #[test]
    fn a_number_that_has_a_type_is_refused_as_a_number() {
        let eight = Kind::Named(EventName::Number(8));
        let mut peer = Peer::new(27, false);
        let interest = [Kind::Lifecycle, eight.clone()].into_iter().collect();
        peer.registrations.change(&interest, 5, &mut peer.calls);
        (1..=3).for_each(|serial| peer.answer(serial));
        assert_eq!(peer.registrations.take_confirmed(), Some((5, vec![eight])));
    }

    #[test]
    fn a_server_before_1_2_1_gets_the_legacy_procedures() {
        let mut peer = Peer::new(16, true);
        let (asked, refused) =
            peer.change("lifecycle io-error block-job device-removed tunable other other:99");
        let ids = ["167(0)", "167(1)", "167(6)", "167(7)", "167(8)", "167(15)"];
        assert_eq!((asked, &*refused), (ids.map(Into::into).to_vec(), "tunable other:99 "));
        assert_eq!(peer.change("lifecycle io-error device-removed").0, ["168(8)"]);
    }
}
