//! Packets: cut, queued, repeated, broken.

use super::*;

#[tokio::test]
async fn replies_may_arrive_byte_by_byte() {
    let faulty = FaultyStore::with(|faults| faults.piece = Some(1));
    let mut events = faulty.synced().await;
    a_life(&faulty, &mut events).await;
}

#[tokio::test]
async fn events_before_replies_and_repeated_events_change_nothing() {
    let faulty = FaultyStore::with(|faults| {
        for operation in [Operation::WATCH, Operation::READ, Operation::DIRECTORY] {
            faults.events_before.insert(operation, 3);
        }
        faults.repeat = 2;
    });
    let mut events = faulty.synced().await;
    // Each reply brings events, which mark facts as due again: it settles nevertheless.
    faulty.fake.toolstack().introduce("web").unwrap();
    events.expect(&["web[1] started"]).await;
    faulty.fake.change(|faults| *faults = Faults::default());
    faulty.fake.toolstack().destroy(1).unwrap();
    events.expect(&["web[1] stopped"]).await;
    events.nothing().await;
}

#[tokio::test]
async fn a_reply_behind_100_000_events_arrives() {
    let faulty = FaultyStore::patient();
    faulty.fake.toolstack().introduce("web").unwrap();
    let mut events = faulty.synced().await;
    faulty.fake.change(|faults| {
        faults.events_before.insert(Operation::READ, 100_000);
    });
    faulty.fake.toolstack().rename(1, "www").unwrap();
    events.expect(&["web[1] undefined (renamed)", "www[1] defined (renamed)"]).await;
    faulty.fake.change(|faults| *faults = Faults::default());
    faulty.fake.flood(100_000);
    faulty.fake.toolstack().rename(1, "web").unwrap();
    events.expect(&["www[1] undefined (renamed)", "web[1] defined (renamed)"]).await;
    events.nothing().await;
}

#[tokio::test]
async fn events_of_unknown_watches_are_ignored() {
    let faulty = FaultyStore::new();
    faulty.fake.toolstack().introduce("web").unwrap();
    let mut events = faulty.synced().await;
    faulty.fake.flood(1_000);
    for token in ["", "x", "n77", "s99999", "\u{fffd}"] {
        faulty.fake.emit("/nowhere", token);
    }
    events.nothing().await;
    a_rename(&faulty, &mut events).await;
}

async fn a_rename(faulty: &FaultyStore, events: &mut EventLines) {
    faulty.fake.toolstack().rename(1, "www").unwrap();
    events.expect(&["web[1] undefined (renamed)", "www[1] defined (renamed)"]).await;
}

#[tokio::test]
async fn a_broken_protocol_is_a_gap_with_its_reason() {
    type Change = fn(&mut Faults);
    let table: [(Change, &str); 7] = [
        (|faults| faults.oversize = [Operation::READ].into(), "a payload of 4097 bytes"),
        (|faults| faults.wrong_request = [Operation::READ].into(), "which is not pending"),
        (|faults| faults.wrong_operation = [Operation::READ].into(), "as the reply to a READ of"),
        (|faults| faults.truncated = [Operation::READ].into(), "xenstored stopped"),
        (|faults| faults.hang_up = [Operation::READ].into(), "xenstored stopped"),
        (|faults| faults.unanswered = [Operation::READ].into(), "no answer to READ"),
        (
            |faults| faults.bodies = [(Operation::IS_DOMAIN_INTRODUCED, b"maybe\0".into())].into(),
            "neither T nor F",
        ),
    ];
    for (change, reason) in table {
        let faulty = FaultyStore::new();
        faulty.fake.toolstack().introduce("web").unwrap();
        let mut events = faulty.synced().await;
        faulty.fake.change(change);
        faulty.fake.toolstack().introduce("db").unwrap();
        events.gap(reason).await;
        faulty.fake.toolstack().rename(1, "www").unwrap();
        faulty.fake.change(|faults| *faults = Faults::default());
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line: &String| !line.starts_with("synced")) {
            lines.push(events.next().await);
        }
        let renamed =
            ["web[1] undefined (renamed) [inferred]", "www[1] defined (renamed) [inferred]"];
        assert!(lines.iter().any(|line| line == "db[2] started [inferred]"), "{lines:?}");
        assert!(lines.windows(2).any(|pair| pair == renamed), "{lines:?}");
        assert_eq!(lines.len(), 4, "{lines:?}");
        events.nothing().await;
    }
}

#[tokio::test]
async fn an_echo_server_is_no_empty_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("echo");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut from, mut to) = stream.split();
        tokio::io::copy(&mut from, &mut to).await
    });
    let store = XenStore::new(&format!("xenstore:{}", path.display())).unwrap();
    let refused = store.source().subscribe_with(Options::default()).await;
    let line = refused.unwrap_err().to_line();
    assert!(line.contains("a WATCH of @introduceDomain was not answered by OK"), "{line}");
    assert!(line.contains("check that a xenstored listens on"), "{line}");
    server.abort();
}

#[tokio::test]
async fn random_bytes_are_a_gap_and_nothing_else() {
    let mut random = fastrand::Rng::with_seed(6);
    for _ in 0..30 {
        let faulty = FaultyStore::new();
        faulty.fake.toolstack().introduce("web").unwrap();
        let mut events = faulty.synced().await;
        let bytes: Vec<u8> = match random.u8(0..3) {
            0 => (0..random.usize(20..5_000)).map(|_| random.u8(..)).collect(),
            // An event with an impossible payload, or an unknown operation.
            1 => [15, 0, 0, 4, 0x6162_6364].map(u32::to_ne_bytes).concat(),
            _ => [random.u32(16..99), random.u32(..), 0, 0].map(u32::to_ne_bytes).concat(),
        };
        faulty.fake.send(&bytes);
        events.gap("broken protocol").await;
        assert!(events.next().await.starts_with("synced"));
        a_rename(&faulty, &mut events).await;
    }
}
