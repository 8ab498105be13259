//! The identity of a QEMU: its name, its uuid, and which run this is.
//!
//! A QEMU that was started without `-uuid` reports a uuid of zeros. Its domain then has a uuid that
//! is derived from the host and the socket (UUIDv5 of RFC 9562), which is the same each time it
//! runs.

use std::collections::HashSet;

use virevent::Uuid;

use crate::ADVICE;
use crate::uri::Endpoint;

/// The namespace of derived uuids: chosen once, at random.
const NAMESPACE: Uuid = Uuid::from_u128(0x6b1d_9f0e_52c3_4c0a_9d1e_7a35_c8f2_4e61);

/// What a QEMU reported of itself. `None` is what it did not report this time: it may not know the
/// question, or not answer it yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RunIdentity {
    pub(crate) name: Option<String>,
    pub(crate) uuid: Option<Uuid>,
    /// The process id, where the process is watched.
    pub(crate) pid: Option<u32>,
    /// The thread id of the first virtual CPU, where there is one.
    pub(crate) thread: Option<u32>,
}

impl RunIdentity {
    /// The id of the run; `None` where nothing distinguishes it from the next.
    pub(crate) fn id(&self) -> Option<u32> {
        self.pid.or(self.thread)
    }

    /// Whether both are of one run. A watched process is one run as long as it lives, whatever it
    /// reports. Else they are of one run unless they contradict each other: what was not reported
    /// contradicts nothing.
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

    /// Adds what the same run has reported later, and not before.
    pub(crate) fn learn(&mut self, later: Self) {
        self.name = self.name.take().or(later.name);
        self.uuid = self.uuid.or(later.uuid);
        self.pid = self.pid.or(later.pid);
        self.thread = self.thread.or(later.thread);
    }
}

/// The uuid that QEMU reports, or the derived one of a QEMU that reports none.
pub(crate) fn uuid(reported: Option<&str>, host: &str, endpoint: &Endpoint) -> Uuid {
    match reported.and_then(|text| Uuid::try_parse(text).ok()) {
        Some(uuid) if !uuid.is_nil() => uuid,
        _ => derived(&format!("{host}\n{endpoint}")),
    }
}

/// The uuids in use, so that no two QEMUs of a source are delivered as one domain.
#[derive(Debug, Default)]
pub(crate) struct ClaimedUuids(HashSet<Uuid>);

impl ClaimedUuids {
    /// Claims the uuid, or if it is in use one that is derived from it and the socket, until it is
    /// [released](Self::release).
    pub(crate) fn claim(&mut self, uuid: Uuid, host: &str, endpoint: &Endpoint) -> Uuid {
        let mut claimed = uuid;
        // The derived one may be in use as well: another socket may have taken the path that it was
        // derived from.
        for number in 0u32.. {
            if self.0.insert(claimed) {
                break;
            }
            claimed = derived(&format!("{host}\n{endpoint}\n{uuid}\n{number}"));
        }
        if claimed != uuid {
            tracing::warn!(
                target: ADVICE,
                "{endpoint} has the uuid {uuid} of another QEMU, and is delivered with {claimed}: \
                 give each a -uuid of its own",
            );
        }
        claimed
    }

    pub(crate) fn release(&mut self, uuid: Uuid) {
        self.0.remove(&uuid);
    }
}

/// The derived uuid of a text.
fn derived(text: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_uuid_never_changes() {
        // Python's uuid.uuid5(uuid.UUID("6b1d9f0e-52c3-4c0a-9d1e-7a35c8f24e61"), "h\n/a").
        assert_eq!(derived("h\n/a").to_string(), "0b56cf24-1b90-5ff2-aac0-32770942be89");
    }

    #[test]
    fn a_run_is_the_same_unless_its_answers_contradict() {
        let reported = |name: &str, pid, thread| RunIdentity {
            name: (!name.is_empty()).then(|| name.into()),
            uuid: None,
            pid,
            thread,
        };
        let table = [
            (reported("web", Some(1), Some(2)), reported("", Some(1), None), true),
            (reported("web", Some(1), Some(2)), reported("web", Some(3), Some(4)), false),
            (reported("web", Some(1), Some(2)), reported("web", None, Some(2)), true),
            (reported("web", Some(1), Some(2)), reported("web", None, Some(4)), false),
            (reported("web", None, Some(2)), reported("", None, Some(2)), true),
            (reported("web", None, Some(2)), reported("db", None, Some(2)), false),
            (reported("web", None, None), reported("", None, None), true),
            (reported("web", None, None), reported("db", None, None), false),
        ];
        for (one, other, same) in table {
            assert_eq!(one.is_same_run(&other), same, "{one:?} {other:?}");
            assert_eq!(other.is_same_run(&one), same, "{other:?} {one:?}");
        }
        let mut first = reported("", None, Some(2));
        let db = reported("db", None, Some(2));
        first.learn(reported("web", None, None));
        assert!(!first.is_same_run(&db), "an earlier answer still counts");
    }

    #[test]
    fn a_second_qemu_with_a_uuid_in_use_gets_a_derived_one() {
        let one = Endpoint::Unix("/a".into());
        let two = Endpoint::Unix("/b".into());
        let mut uuids = ClaimedUuids::default();
        let own = Uuid::from_u128(7);
        assert_eq!(uuids.claim(own, "h", &one), own);
        let second = uuids.claim(own, "h", &two);
        assert_ne!(second, own);
        assert!(![own, second].contains(&uuids.claim(own, "h", &two)));
        uuids.release(second);
        assert_eq!(uuids.claim(own, "h", &two), second, "the derived uuid is the same each time");
        uuids.release(own);
        assert_eq!(uuids.claim(own, "h", &two), own);
    }

    #[test]
    fn a_qemu_without_a_uuid_has_one_by_host_and_socket() {
        let zero = Some("00000000-0000-0000-0000-000000000000");
        let one = Endpoint::Unix("/a".into());
        let two = Endpoint::Unix("/b".into());
        assert_eq!(uuid(zero, "h", &one), uuid(None, "h", &one));
        assert_ne!(uuid(zero, "h", &one), uuid(zero, "h", &two));
        assert_ne!(uuid(zero, "h", &one), uuid(zero, "other", &one));
        let own = "11111111-2222-4333-8444-555555555555";
        assert_eq!(uuid(Some(own), "h", &one).to_string(), own);
    }
}
