//! Replies: refusals, lists in parts, bytes that are no text.

use super::*;

#[tokio::test]
async fn a_refusal_fails_the_first_subscription_with_advice() {
    let faulty = FaultyStore::with(|faults| faults.refuse(Operation::WATCH, None, "EACCES"));
    let error = faulty.refusal().await;
    assert!(error.is_refusal());
    let line = error.to_line();
    assert!(
        line.contains("EACCES to a WATCH of @") && line.contains("domain 0, as root"),
        "{line}"
    );

    let faulty = FaultyStore::with(|faults| faults.refuse(Operation::DIRECTORY, None, "EACCES"));
    let line = faulty.refusal().await.to_line();
    assert!(line.contains("DIRECTORY of /local/domain"), "{line}");
}

#[tokio::test]
async fn a_long_list_in_parts_begins_again_when_it_changes() {
    let faulty = FaultyStore::with(|faults| (faults.longest_list, faults.part_changes) = (40, 3));
    for n in 0..50 {
        faulty.fake.toolstack().introduce(&*format!("vm{n}")).unwrap();
    }
    let mut events = EventLines(faulty.subscribe().await.unwrap());
    assert_eq!(until_synced(&mut events.0).await.unwrap().len(), 50);
    faulty.fake.toolstack().introduce("web").unwrap();
    events.expect(&["web[51] started"]).await;

    let faulty = FaultyStore::with(|faults| {
        faults.longest_list = 3;
        faults.lacks.insert(Operation::DIRECTORY_PART);
    });
    faulty.fake.toolstack().introduce("web").unwrap();
    faulty.fake.toolstack().introduce("db").unwrap();
    let line = faulty.refusal().await.to_line();
    assert!(line.contains("Xen 4.9 is needed"), "{line}");
}

/// oxenstored lists 1,200 domains in one reply of some 4,900 bytes.
#[tokio::test]
async fn a_list_longer_than_a_packet_is_read_at_once() {
    let faulty = FaultyStore::with(Faults::list_like_oxenstored);
    for n in 0..1_200 {
        let _ = faulty.fake.toolstack().introduce(&*format!("vm{n}")).unwrap();
    }
    let mut events = EventLines(faulty.subscribe().await.unwrap());
    assert_eq!(until_synced(&mut events.0).await.unwrap().len(), 1_200);
    assert_eq!(faulty.fake.calls(Operation::DIRECTORY_PART), 0);
    let _ = faulty.fake.toolstack().introduce("web").unwrap();
    events.expect(&["web[1201] started"]).await;
}

/// No list of domains is so long: it is refused before it is buffered.
#[tokio::test]
async fn a_list_beyond_the_bound_is_a_broken_protocol() {
    let faulty = FaultyStore::with(|faults| {
        faults.list_like_oxenstored();
        faults.bodies.insert(Operation::DIRECTORY, b"7\0".repeat(200_000));
    });
    let _ = faulty.fake.toolstack().introduce("web").unwrap();
    let line = faulty.refusal().await.to_line();
    assert!(line.contains("a payload of 400000 bytes"), "{line}");
}

#[tokio::test]
async fn a_named_release_asks_only_for_that_domain() {
    let faulty = FaultyStore::with(|faults| faults.features = Some(4));
    let xl = faulty.fake.toolstack();
    for name in ["web", "db"] {
        xl.introduce(name).unwrap();
    }
    let mut events = faulty.synced().await;
    xl.crash(1).unwrap();
    events.expect(&["web[1] shutting_down (finished)"]).await;
    xl.destroy(1).unwrap();
    events.expect(&["web[1] stopped"]).await;
    // A domain that gets its directory after its introduction.
    xl.set_run_state(7, Some(RunState::Running)).unwrap();
    xl.announce(7).unwrap();
    xl.remove("/local/domain/7").unwrap();
    xl.prepare(Blueprint::named("late").domid(7)).unwrap();
    events.expect(&["late[7] started"]).await;
    xl.vanish(2).unwrap();
    events.expect(&["db[2] stopped"]).await;
    events.nothing().await;

    // A daemon that offers depths and refuses them is used without.
    let faulty = FaultyStore::with(|faults| {
        faults.bodies.insert(Operation::GET_FEATURE, b"4\0".into());
    });
    let mut events = faulty.synced().await;
    a_life(&faulty, &mut events).await;
}

#[tokio::test]
async fn a_name_and_a_request_may_be_any_bytes() {
    let faulty = FaultyStore::new();
    let mut events = faulty.synced().await;
    let xl = faulty.fake.toolstack();
    xl.introduce("web").unwrap();
    events.expect(&["web[1] started"]).await;
    xl.write("/local/domain/1/name", b"w\xffb\n").unwrap();
    events.next().await;
    assert_eq!(events.next().await, "w\u{fffd}b\n[1] defined (renamed)");
    xl.write("/local/domain/1/control/shutdown", b"\xff\"\0").unwrap();
    let event = "event control/shutdown {\"request\":\"\u{fffd}\\\"\\u0000\"}";
    assert!(events.next().await.ends_with(event));
    xl.write("/local/domain/1/vm", b"/vm/\xff").unwrap();
    events.nothing().await;
    xl.vanish(1).unwrap();
    assert!(events.next().await.ends_with("[1] stopped"));
}

#[tokio::test]
async fn without_subscribers_nothing_is_watched() {
    for lacks_reset in [false, true] {
        let faulty = FaultyStore::with(|faults| {
            if lacks_reset {
                faults.lacks.insert(Operation::RESET_WATCHES);
            }
        });
        faulty.fake.toolstack().introduce("web").unwrap();
        let events = faulty.synced().await;
        assert_eq!(faulty.fake.watches().len(), 5);
        events.0.close().await;
        assert_eq!(faulty.fake.watches(), []);
        let events = faulty.synced().await;
        assert_eq!(faulty.fake.watches().len(), 5);
        drop(events);
        faulty.fake.until(|fake| fake.watches().is_empty()).await;
        assert_eq!(
            faulty.fake.accepted(),
            1,
            "the watches are dropped by a request, not by a disconnect"
        );
    }
}

#[tokio::test]
async fn an_unreadable_node_affects_only_its_domain() {
    let table = [
        ("/local/domain/1/control/shutdown", "web[1]"),
        ("/local/domain/1/name", "Domain-1[1]"),
        ("/local/domain/1/vm", "web[1]"),
        ("/local/domain/1", "web[1]"),
    ];
    for (path, first) in table {
        let faulty =
            FaultyStore::with(|faults| faults.refuse(Operation::READ, Some(path), "EACCES"));
        faulty.fake.toolstack().introduce("web").unwrap();
        faulty.fake.toolstack().introduce("db").unwrap();
        let mut events = EventLines(faulty.subscribe().await.unwrap());
        let mut lines = vec![events.next().await, events.next().await];
        lines.sort();
        let existing = [first, "db[2]"].map(|domain| format!("{domain} existing (running)"));
        assert!(existing.iter().all(|line| lines.contains(line)), "{path}: {lines:?}");
        assert!(events.next().await.ends_with("(2 domains)"), "{path}");
        faulty.fake.toolstack().rename(2, "db2").unwrap();
        events.expect(&["db[2] undefined (renamed)", "db2[2] defined (renamed)"]).await;
        faulty.fake.toolstack().destroy(1).unwrap();
        assert_eq!(events.next().await, format!("{first} stopped"));
        events.nothing().await;
    }
}

#[tokio::test]
async fn a_node_unreadable_for_a_while_keeps_its_value() {
    let faulty = FaultyStore::new();
    faulty.fake.toolstack().introduce("web").unwrap();
    let mut events = faulty.synced().await;
    faulty.fake.change(|faults| faults.refuse(Operation::READ, None, "EIO"));
    faulty.fake.toolstack().rename(1, "www").unwrap();
    faulty.fake.flood(1_000);
    events.nothing().await;
    faulty.fake.change(|faults| *faults = Faults::default());
    faulty.fake.flood(1_000);
    events.expect(&["web[1] undefined (renamed)", "www[1] defined (renamed)"]).await;
    events.nothing().await;
}

#[tokio::test]
async fn a_watch_that_exists_already_counts_as_set() {
    let watches = [
        "@introduceDomain",
        "@releaseDomain",
        "/local/domain/1/vm",
        "/local/domain/1/name",
        "/local/domain/1/control/shutdown",
    ];
    for path in watches {
        let faulty =
            FaultyStore::with(|faults| faults.refuse(Operation::WATCH, Some(path), "EEXIST"));
        faulty.fake.toolstack().introduce("web").unwrap();
        let mut events = EventLines(faulty.subscribe().await.unwrap());
        assert_eq!(events.next().await, "web[1] existing (running)", "{path}");
    }
}
