//! What a store answers: refusals, lists in parts, bytes that are no text.

use super::*;

#[tokio::test]
async fn a_refusal_fails_the_first_subscription_with_advice() {
    let rig = Rig::with(|faults| faults.refuse(Operation::WATCH, None, "EACCES"));
    let error = rig.refusal().await;
    assert!(error.is_refusal());
    let line = error.to_line();
    assert!(
        line.contains("EACCES to a WATCH of @") && line.contains("domain 0, as root"),
        "{line}"
    );

    let rig = Rig::with(|faults| faults.refuse(Operation::DIRECTORY, None, "EACCES"));
    let line = rig.refusal().await.to_line();
    assert!(line.contains("DIRECTORY of /local/domain"), "{line}");
}

#[tokio::test]
async fn a_long_list_in_parts_begins_again_when_it_changes() {
    let rig = Rig::with(|faults| (faults.longest_list, faults.part_changes) = (40, 3));
    for n in 0..50 {
        rig.fake.toolstack().introduce(&*format!("vm{n}")).unwrap();
    }
    let mut told = Told(rig.subscribe().await.unwrap());
    assert_eq!(until_synced(&mut told.0).await.unwrap().len(), 50);
    rig.fake.toolstack().introduce("web").unwrap();
    told.expect(&["web[51] started"]).await;

    let rig = Rig::with(|faults| {
        faults.longest_list = 3;
        faults.lacks.insert(Operation::DIRECTORY_PART);
    });
    rig.fake.toolstack().introduce("web").unwrap();
    rig.fake.toolstack().introduce("db").unwrap();
    let line = rig.refusal().await.to_line();
    assert!(line.contains("Xen 4.9 is needed"), "{line}");
}

/// oxenstored lists 1,200 domains in one reply of some 4,900 bytes.
#[tokio::test]
async fn a_list_longer_than_a_packet_is_read_at_once() {
    let rig = Rig::with(Faults::list_like_oxenstored);
    for n in 0..1_200 {
        let _ = rig.fake.toolstack().introduce(&*format!("vm{n}")).unwrap();
    }
    let mut told = Told(rig.subscribe().await.unwrap());
    assert_eq!(until_synced(&mut told.0).await.unwrap().len(), 1_200);
    assert_eq!(rig.fake.calls(Operation::DIRECTORY_PART), 0);
    let _ = rig.fake.toolstack().introduce("web").unwrap();
    told.expect(&["web[1201] started"]).await;
}

/// No list of domains is so long: it is refused before it is taken in.
#[tokio::test]
async fn a_list_beyond_the_bound_is_a_broken_protocol() {
    let rig = Rig::with(|faults| {
        faults.list_like_oxenstored();
        faults.bodies.insert(Operation::DIRECTORY, b"7\0".repeat(200_000));
    });
    let _ = rig.fake.toolstack().introduce("web").unwrap();
    let line = rig.refusal().await.to_line();
    assert!(line.contains("a payload of 400000 bytes"), "{line}");
}

#[tokio::test]
async fn a_named_release_asks_only_for_that_domain() {
    let rig = Rig::with(|faults| faults.features = Some(4));
    let xl = rig.fake.toolstack();
    for name in ["web", "db"] {
        xl.introduce(name).unwrap();
    }
    let mut told = rig.synced().await;
    xl.crash(1).unwrap();
    told.expect(&["web[1] shutting_down (finished)"]).await;
    xl.destroy(1).unwrap();
    told.expect(&["web[1] stopped"]).await;
    // What gets its place only after it was introduced.
    xl.set_run_state(7, Some(RunState::Running)).unwrap();
    xl.announce(7).unwrap();
    xl.remove("/local/domain/7").unwrap();
    xl.prepare(Blueprint::named("late").domid(7)).unwrap();
    told.expect(&["late[7] started"]).await;
    xl.vanish(2).unwrap();
    told.expect(&["db[2] stopped"]).await;
    told.nothing().await;

    // One that offers depths and has none is taken at its word, and then not.
    let rig = Rig::with(|faults| {
        faults.bodies.insert(Operation::GET_FEATURE, b"4\0".into());
    });
    let mut told = rig.synced().await;
    a_life(&rig, &mut told).await;
}

#[tokio::test]
async fn a_name_and_a_request_may_be_any_bytes() {
    let rig = Rig::new();
    let mut told = rig.synced().await;
    let xl = rig.fake.toolstack();
    xl.introduce("web").unwrap();
    told.expect(&["web[1] started"]).await;
    xl.write("/local/domain/1/name", b"w\xffb\n").unwrap();
    told.next().await;
    assert_eq!(told.next().await, "w\u{fffd}b\n[1] defined (renamed)");
    xl.write("/local/domain/1/control/shutdown", b"\xff\"\0").unwrap();
    let event = "event control/shutdown {\"request\":\"\u{fffd}\\\"\\u0000\"}";
    assert!(told.next().await.ends_with(event));
    xl.write("/local/domain/1/vm", b"/vm/\xff").unwrap();
    told.nothing().await;
    xl.vanish(1).unwrap();
    assert!(told.next().await.ends_with("[1] stopped"));
}

#[tokio::test]
async fn without_subscribers_nothing_is_watched() {
    for lacks_reset in [false, true] {
        let rig = Rig::with(|faults| {
            if lacks_reset {
                faults.lacks.insert(Operation::RESET_WATCHES);
            }
        });
        rig.fake.toolstack().introduce("web").unwrap();
        let told = rig.synced().await;
        assert_eq!(rig.fake.watches().len(), 5);
        told.0.close().await;
        assert_eq!(rig.fake.watches(), []);
        let told = rig.synced().await;
        assert_eq!(rig.fake.watches().len(), 5);
        drop(told);
        rig.fake.until(|fake| fake.watches().is_empty()).await;
        assert_eq!(rig.fake.accepted(), 1, "by its request, not by hanging up");
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
        let rig = Rig::with(|faults| faults.refuse(Operation::READ, Some(path), "EACCES"));
        rig.fake.toolstack().introduce("web").unwrap();
        rig.fake.toolstack().introduce("db").unwrap();
        let mut told = Told(rig.subscribe().await.unwrap());
        let mut lines = vec![told.next().await, told.next().await];
        lines.sort();
        let existing = [first, "db[2]"].map(|domain| format!("{domain} existing (running)"));
        assert!(existing.iter().all(|line| lines.contains(line)), "{path}: {lines:?}");
        assert!(told.next().await.ends_with("(2 domains)"), "{path}");
        rig.fake.toolstack().rename(2, "db2").unwrap();
        told.expect(&["db[2] undefined (renamed)", "db2[2] defined (renamed)"]).await;
        rig.fake.toolstack().destroy(1).unwrap();
        assert_eq!(told.next().await, format!("{first} stopped"));
        told.nothing().await;
    }
}

#[tokio::test]
async fn a_node_unreadable_for_a_while_keeps_its_value() {
    let rig = Rig::new();
    rig.fake.toolstack().introduce("web").unwrap();
    let mut told = rig.synced().await;
    rig.fake.change(|faults| faults.refuse(Operation::READ, None, "EIO"));
    rig.fake.toolstack().rename(1, "www").unwrap();
    rig.fake.flood(1_000);
    told.nothing().await;
    rig.fake.change(|faults| *faults = Faults::default());
    rig.fake.flood(1_000);
    told.expect(&["web[1] undefined (renamed)", "www[1] defined (renamed)"]).await;
    told.nothing().await;
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
        let rig = Rig::with(|faults| faults.refuse(Operation::WATCH, Some(path), "EEXIST"));
        rig.fake.toolstack().introduce("web").unwrap();
        let mut told = Told(rig.subscribe().await.unwrap());
        assert_eq!(told.next().await, "web[1] existing (running)", "{path}");
    }
}
