//! What a store knows.

use std::time::SystemTime;

use serde_json::json;
use virevent::{
    Change, Domain, DomainEvent, DomainStore, Gap, GapKind, Lifecycle, Scope, ShutoffReason,
    Snapshot, StartCause, State, Synced, Transition, Uuid,
};

use crate::{error, is, reads_back};

fn domain() -> Domain {
    Domain::new("test:///default", "h", Uuid::from_u128(7), "vm1", Some(3))
}

#[test]
fn a_snapshot_reads_back_and_names_its_version() {
    let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_micros(1_500_000);
    let store = DomainStore::new();
    let mut booted = Lifecycle::new(domain(), Change::Started(StartCause::Booted), at);
    booted.persistent = Some(true);
    store.apply(&booted.into());
    let off = State::Shutoff(ShutoffReason::Crashed);
    let db = Domain::new("qmp-dir:/run", "h", Uuid::from_u128(8), "db", None);
    store.apply(&Lifecycle::new(db, Change::Existing(off), at).into());
    store.apply(&Synced::new(Scope::source_wide("test:///default"), 1).into());
    is(
        &store.snapshot(),
        json!({
            "version": 1,
            "sources": ["test:///default"],
            "uncertain": [{"source": "qmp-dir:/run"}],
            "domains": [
                {
                    "domain": {
                        "source": "qmp-dir:/run", "host": "h",
                        "uuid": "00000000-0000-0000-0000-000000000008", "name": "db"
                    },
                    "state": {"state": "shutoff", "reason": "crashed"},
                    "change": {"change": "existing", "state": "shutoff", "reason": "crashed"},
                    "origin": "observed", "certain": false
                },
                {
                    "domain": {
                        "source": "test:///default", "host": "h",
                        "uuid": "00000000-0000-0000-0000-000000000007", "name": "vm1", "id": 3
                    },
                    "state": {"state": "running", "reason": "booted"},
                    "change": {"change": "started", "cause": "booted"},
                    "origin": "observed", "since": "1970-01-01T00:00:01.500000Z",
                    "persistent": true, "certain": true
                }
            ]
        }),
    );
    store.snapshot().iter().for_each(|stored| reads_back(&**stored));
    is(&Snapshot::default(), json!({"version": 1, "sources": [], "uncertain": [], "domains": []}));
}

#[test]
fn a_snapshot_that_cannot_be_read_is_a_clear_error() {
    let read = |json| error::<Snapshot>(json);
    let newer = r#"{"version":2,"domains":"another form"}"#;
    let newer = serde_json::from_str::<Snapshot>(newer).unwrap_err().to_string();
    assert!(newer.contains("of version 2, from a newer virevent: this one reads version 1"));
    let older = read(json!({"version": 0, "domains": []}));
    assert!(older.contains("of version 0, which this virevent no longer reads: begin without it"));
    assert!(read(json!({"domains": []})).contains("missing field `version`"));
    assert!(read(json!({"version": 1})).contains("missing field `domains`"));
    assert!(read(json!([1])).contains("expected a snapshot of a store"));
    assert!(read(json!({"version": 1, "domains": [{"domain": 1}]})).contains("invalid type"));
}

#[test]
fn a_transition_has_the_domain_before_and_after_and_the_event() {
    let at = SystemTime::UNIX_EPOCH;
    let store = DomainStore::new();
    let started: DomainEvent =
        Lifecycle::new(domain(), Change::Started(StartCause::Booted), at).into();
    let transitions = store.apply(&started);
    let after = json!({
        "domain": domain(), "state": {"state": "running", "reason": "booted"},
        "change": {"change": "started", "cause": "booted"},
        "origin": "observed", "since": "1970-01-01T00:00:00.000000Z", "certain": false
    });
    is(&transitions[0], json!({"after": after, "event": started, "origin": "observed"}));
    let synced = Synced::new(Scope::source_wide("test:///default"), 1);
    let transitions = store.apply(&synced.into());
    let mut certain = after.clone();
    certain["certain"] = json!(true);
    is(&transitions[0], json!({"before": after, "after": certain, "origin": "observed"}));
    let removed = Gap::new(Scope::source_wide("test:///default"), GapKind::Removed);
    let transitions = store.apply(&removed.into());
    is(&transitions[0], json!({"before": certain, "origin": "inferred", "forgotten": true}));
    let error = error::<Transition>(json!({"origin": "observed"}));
    assert!(error.contains("needs \"before\" or \"after\""), "{error}");
}
