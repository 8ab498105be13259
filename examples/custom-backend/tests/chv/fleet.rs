//! A host with several processes is a fleet.

use std::sync::Arc;

use virevent::{EventSource, EventSourceExt, Fleet};
use virevent_testkit::assert::{PATIENCE, expect_sequence, next_within};

use crate::fake::Fake;

#[tokio::test]
async fn a_host_is_a_fleet_and_an_outage_concerns_one_vm() {
    let processes = ["web", "db"].map(Fake::start);
    let fleet = Fleet::new("fleet:host");
    for process in &processes {
        process.boot();
        fleet.add(Arc::new(process.source())).unwrap();
    }
    let [web, db] = processes;
    let mut events = fleet.subscribe().await.unwrap();
    // Their order is that of their answers; the fleet's own marker is last.
    for _ in 0..4 {
        next_within(&mut events, PATIENCE).await.unwrap();
    }
    expect_sequence(&mut events, &["synced with fleet:host* (2 domains)"]).await.unwrap();
    web.go_down();
    expect_sequence(&mut events, &["disconnected from chv:*/web.sock *"]).await.unwrap();
    db.shut_down();
    expect_sequence(&mut events, &["db[*] stopped (shutdown)"]).await.unwrap();
    web.come_back();
    expect_sequence(&mut events, &["synced with chv:*/web.sock (1 domain)"]).await.unwrap();
    fleet.remove(web.source().uri());
    expect_sequence(&mut events, &["*web.sock*"]).await.unwrap();
}
