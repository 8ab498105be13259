//! Tests of filters by domain.

#![allow(clippy::unwrap_used)]

use virevent::{EventSource, Options};
use virevent_testkit::FakeHypervisor;
use virevent_testkit::assert::{expect_sequence, until_synced};

#[tokio::test(start_paused = true)]
async fn a_domain_named_twice_is_delivered_once() {
    let fake = FakeHypervisor::new();
    let web = fake.create("web").unwrap();
    fake.create("db").unwrap();
    let options = Options::default().domain("web").domain(&web).domain("web").domain("db");
    let mut events = fake.subscribe_with(options).await.unwrap();
    assert_eq!(until_synced(&mut events).await.unwrap().len(), 2);
    // In one batch, so that the domains alternate in what is picked of it.
    for name in ["web", "db", "web"] {
        fake.suspend(name).unwrap();
        fake.resume(name).unwrap();
    }
    let expected = [
        "web[1] suspended *",
        "web[1] resumed *",
        "db[2] suspended *",
        "db[2] resumed *",
        "web[1] suspended *",
        "web[1] resumed *",
    ];
    expect_sequence(&mut events, &expected).await.unwrap();
    fake.stop("db").unwrap();
    expect_sequence(&mut events, &["db[2] stopped *"]).await.unwrap();
}
