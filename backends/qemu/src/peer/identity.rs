//! Who a QEMU is: its name, its uuid, and which run of it this is.
//!
//! A QEMU that was started without `-uuid` says that its uuid is all zero. So that it still is the
//! same domain each time it runs, its uuid is then derived from the host and the socket (UUIDv5 of
//! RFC 9562).

use std::collections::HashSet;

use virevent::Uuid;

use crate::ADVICE;
use crate::uri::Endpoint;

/// The namespace of derived uuids: made up once, at random.
const NAMESPACE: Uuid = Uuid::from_u128(0x6b1d_9f0e_52c3_4c0a_9d1e_7a35_c8f2_4e61);

/// Who a QEMU says it is. `None` is what it did not say this time: it may lack the question, or not
/// answer it yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RunIdentity {
    pub(crate) name: Option<String>,
    pub(crate) uuid: Option<Uuid>,
    /// Where the process is watched.
    pub(crate) pid: Option<u32>,
    /// That of the first virtual CPU, where there is one.
    pub(crate) thread: Option<u32>,
}

impl RunIdentity {
    /// What tells one run from the next; `None` where nothing does.
    pub(crate) fn id(&self) -> Option<u32> {
        self.pid.or(self.thread)
    }

    /// Whether both are of one run. A process that is watched is the same as long as it lives, whatever
    /// it says. Else they are of one run unless they contradict each other: what was not said says
    /// nothing.
    pub(crate) fn is_same_run(&self, other: &Self) -> bool {
        fn agree<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
            one.is_none() || other.is_none() || one == other
        }
        if self.pid.is_some() && other.pid.is_some() {
            return self.pid == other.pid;
        }
        agree(self.thread.as_ref(), other.thread.as_ref())
            && agree(self.name.as_ref(), other.name.as_ref())
            && agree(self.uuid.as_ref(), other.uuid.as_ref())
    }

    /// Adds what the same run has said later, and did not say before.
    pub(crate) fn learn(&mut self, later: Self) {
        self.name = self.name.take().or(later.name);
        self.uuid = self.uuid.or(later.uuid);
        self.pid = self.pid.or(later.pid);
        self.thread = self.thread.or(later.thread);
    }
}

/// The uuid that QEMU says, or one of its own for a QEMU that says none.
pub(crate) fn uuid(said: Option<&str>, host: &str, endpoint: &Endpoint) -> Uuid {
    match said.and_then(|text| Uuid::try_parse(text).ok()) {
        Some(uuid) if !uuid.is_nil() => uuid,
        _ => derived(&format!("{host}\n{endpoint}")),
    }
}

/// The uuids that are taken, so that no two QEMUs of a source pass for one domain.
#[derive(Debug, Default)]
pub(crate) struct ClaimedUuids(HashSet<Uuid>);

impl ClaimedUuids {
    /// The uuid itself, or if another has it one derived from it and the socket. It is taken until it
    /// is [released](Self::release).
    pub(crate) fn claim(&mut self, uuid: Uuid, host: &str, endpoint: &Endpoint) -> Uuid {
        let mut mine = uuid;
        // The path of a socket may be another's by now, with the uuid that was derived from it.
        for number in 0u32.. {
            if self.0.insert(mine) {
                break;
            }
            mine = derived(&format!("{host}\n{endpoint}\n{uuid}\n{number}"));
        }
        if mine != uuid {
            tracing::warn!(
                target: ADVICE,
                "{endpoint} has the uuid {uuid} that another QEMU has already, and is known by {mine}: \
                 give each a -uuid of its own",
            );
        }
        mine
    }

    pub(crate) fn release(&mut self, uuid: Uuid) {
        self.0.remove(&uuid);
    }
}

/// A uuid that is always the same for this text.
fn derived(text: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_uuid_is_the_same_in_each_version() {
        // Python's uuid.uuid5(uuid.UUID("6b1d9f0e-52c3-4c0a-9d1e-7a35c8f24e61"), "h\n/a").
        assert_eq!(derived("h\n/a").to_string(), "0b56cf24-1b90-5ff2-aac0-32770942be89");
    }

    #[test]
    fn a_run_is_the_same_unless_what_it_says_is_another() {
        let said = |name: &str, pid, thread| RunIdentity {
            name: (!name.is_empty()).then(|| name.into()),
            uuid: None,
            pid,
            thread,
        };
        let table = [
            (said("web", Some(1), Some(2)), said("", Some(1), None), true),
            (said("web", Some(1), Some(2)), said("web", Some(3), Some(4)), false),
            (said("web", Some(1), Some(2)), said("web", None, Some(2)), true),
            (said("web", Some(1), Some(2)), said("web", None, Some(4)), false),
            (said("web", None, Some(2)), said("", None, Some(2)), true),
            (said("web", None, Some(2)), said("db", None, Some(2)), false),
            (said("web", None, None), said("", None, None), true),
            (said("web", None, None), said("db", None, None), false),
        ];
        for (one, other, same) in table {
            assert_eq!(one.is_same_run(&other), same, "{one:?} {other:?}");
            assert_eq!(other.is_same_run(&one), same, "{other:?} {one:?}");
        }
        let (mut first, db) = (said("", None, Some(2)), said("db", None, Some(2)));
        first.learn(said("web", None, None));
        assert!(!first.is_same_run(&db), "what it said once still counts");
    }

    #[test]
    fn a_uuid_is_kept_once_and_the_second_to_come_with_it_gets_another() {
        let (one, two) = (Endpoint::Unix("/a".into()), Endpoint::Unix("/b".into()));
        let (mut uuids, own) = (ClaimedUuids::default(), Uuid::from_u128(7));
        assert_eq!(uuids.claim(own, "h", &one), own);
        let second = uuids.claim(own, "h", &two);
        assert_ne!(second, own);
        assert!(![own, second].contains(&uuids.claim(own, "h", &two)));
        uuids.release(second);
        assert_eq!(uuids.claim(own, "h", &two), second, "it is the same each time");
        uuids.release(own);
        assert_eq!(uuids.claim(own, "h", &two), own);
    }

    #[test]
    fn a_qemu_without_a_uuid_is_the_same_domain_each_time_and_another_elsewhere() {
        let zero = Some("00000000-0000-0000-0000-000000000000");
        let (one, two) = (Endpoint::Unix("/a".into()), Endpoint::Unix("/b".into()));
        assert_eq!(uuid(zero, "h", &one), uuid(None, "h", &one));
        assert_ne!(uuid(zero, "h", &one), uuid(zero, "h", &two));
        assert_ne!(uuid(zero, "h", &one), uuid(zero, "other", &one));
        let own = "11111111-2222-4333-8444-555555555555";
        assert_eq!(uuid(Some(own), "h", &one).to_string(), own);
    }
}
