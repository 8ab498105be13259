//! What each event means: a table. Pure; which run it belongs to says [`vm`](crate).
//!
//! Facts, in Cloud Hypervisor's sources:
//!
//! | source/event | sent by |
//! |---|---|
//! | `vm/booting`, `booted`, `shutdown`, `rebooting`, `rebooted`, `deleted` | `vm_boot` ... in `vmm/src/lib.rs`; there is none for `vm.create` |
//! | `vm/pausing`, `paused`, `resuming`, `resumed`, `restoring`, `restored` | `pause` ... in `vmm/src/vm.rs` |
//! | `vm/migration-receive-started`, `-finished`, `-failed` | `vm_receive_migration` in `vmm/src/lib.rs`; `restored` and `resumed` come in between |
//! | `vm/migration-finished` | `vmm/src/migration/worker.rs`; the VM then ends without `shutdown` |
//! | `vm/migration-memory-iteration` | `vmm/src/lib.rs`, at the end of each pass |
//! | `vm/device-removed` | `vmm/src/device_manager.rs`, with the device's `id` |
//! | `guest/panic` | `devices/src/pvpanic.rs`: also for `crash_loaded`, by its `event` |

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use virevent::{CrashCause, NoticeBody};

/// An event, as it is written.
#[derive(Debug, Deserialize)]
pub struct Event<'a> {
    /// The part that reports it: `vmm`, `vm`, `guest`, `virtio-device` ...
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    /// What happened.
    #[serde(borrow)]
    pub event: Cow<'a, str>,
    /// An object of strings, or null.
    #[serde(borrow, default)]
    pub properties: Option<&'a RawValue>,
    // `timestamp` is the time since the start of the process, which is not known: the driver's time
    // of receipt is as good.
}

/// What an event means for the VM.
#[derive(Clone, Debug, PartialEq)]
pub enum Meaning {
    /// The VM exists. It may not come to run.
    Prepared,
    /// It runs.
    Booted,
    /// It was restored, and is paused.
    Restored,
    /// It is being migrated in.
    Receiving,
    /// It was migrated in.
    Received,
    /// It was not, and exists no more.
    ReceiveFailed,
    /// It was migrated away, and is about to end.
    SentAway,
    /// Its guest is paused.
    Paused,
    /// Its guest goes on.
    Resumed,
    /// Its guest rebooted within its run.
    Rebooted,
    /// Its guest crashed. The VM goes on.
    Crashed(CrashCause),
    /// Its run ended. It still exists.
    ShutDown,
    /// It exists no more, and its run has ended.
    Deleted,
    /// What has a type, and leaves the run as it is.
    Notice(NoticeBody),
    /// Anything else.
    Other,
}

impl Event<'_> {
    /// What it means.
    #[must_use]
    pub fn meaning(&self) -> Meaning {
        match (&*self.source, &*self.event) {
            ("vm", "booting" | "restoring") => Meaning::Prepared,
            ("vm", "booted") => Meaning::Booted,
            ("vm", "restored") => Meaning::Restored,
            ("vm", "migration-receive-started") => Meaning::Receiving,
            ("vm", "migration-receive-finished") => Meaning::Received,
            ("vm", "migration-receive-failed") => Meaning::ReceiveFailed,
            ("vm", "migration-finished") => Meaning::SentAway,
            ("vm", "paused") => Meaning::Paused,
            ("vm", "resumed") => Meaning::Resumed,
            ("vm", "rebooted") => Meaning::Rebooted,
            ("vm", "shutdown") => Meaning::ShutDown,
            ("vm", "deleted") => Meaning::Deleted,
            ("guest", "panic") => match self.property("event").as_deref() {
                Some("panic") => Meaning::Crashed(CrashCause::Panicked),
                Some("crash_loaded") => Meaning::Crashed(CrashCause::Crashloaded),
                _ => Meaning::Other,
            },
            // A property that is missing makes it an event that is not known, and not a wrong one.
            ("vm", "device-removed") => self.property("id").map_or(Meaning::Other, |id| {
                Meaning::Notice(NoticeBody::DeviceRemoved { alias: id.into() })
            }),
            ("vm", "migration-memory-iteration") => {
                let iteration = self.property("id").and_then(|id| id.parse::<i32>().ok());
                // Cloud Hypervisor counts from 0, libvirt from 1.
                let iteration = iteration.and_then(|iteration| iteration.checked_add(1));
                iteration.map_or(Meaning::Other, |iteration| {
                    Meaning::Notice(NoticeBody::MigrationIteration { iteration })
                })
            }
            _ => Meaning::Other,
        }
    }

    fn property(&self, name: &str) -> Option<String> {
        let properties: HashMap<Cow<'_, str>, Cow<'_, str>> =
            serde_json::from_str(self.properties?.get()).ok()?;
        properties.get(name).map(|value| value.clone().into_owned())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn meaning(source: &str, event: &str, properties: &str) -> Meaning {
        let text = format!(
            r#"{{"timestamp":{{"secs":0,"nanos":1}},"source":"{source}","event":"{event}","properties":{properties}}}"#
        );
        serde_json::from_str::<Event<'_>>(&text).unwrap().meaning()
    }

    #[test]
    fn properties_are_part_of_the_meaning() {
        let panicked = Meaning::Crashed(CrashCause::Panicked);
        let loaded = Meaning::Crashed(CrashCause::Crashloaded);
        assert_eq!(meaning("guest", "panic", r#"{"event":"panic"}"#), panicked);
        assert_eq!(meaning("guest", "panic", r#"{"event":"crash_loaded"}"#), loaded);
        let removed = NoticeBody::DeviceRemoved { alias: "_disk0".into() };
        let properties = r#"{"bdf":"0000:00:04.0","id":"_disk0"}"#;
        assert_eq!(meaning("vm", "device-removed", properties), Meaning::Notice(removed));
        let pass = Meaning::Notice(NoticeBody::MigrationIteration { iteration: 1 });
        assert_eq!(meaning("vm", "migration-memory-iteration", r#"{"id":"0"}"#), pass);
    }

    #[test]
    fn what_is_not_known_is_other() {
        for (source, event, properties) in [
            ("vmm", "starting", "null"),
            ("vm", "frobnicated", "null"),
            ("device", "booted", "null"),
            ("guest", "panic", r#"{"event":"unknown_event"}"#),
            ("guest", "panic", "null"),
            ("vm", "device-removed", "[1]"),
            ("vm", "migration-memory-iteration", r#"{"id":"2147483647"}"#),
        ] {
            assert_eq!(meaning(source, event, properties), Meaning::Other, "{source}/{event}");
        }
    }
}
