//! What is wrong, and what the source says of it.

use virevent::EventSourceExt;
use virevent_testkit::assert::{expect_sequence, until_synced};

use crate::fake::{Fake, event, source};

#[tokio::test]
async fn a_torn_event_is_a_gap_and_its_change_is_inferred() {
    let fake = Fake::start("web");
    fake.boot();
    let mut events = fake.source().subscribe().await.unwrap();
    until_synced(&mut events).await.unwrap();
    fake.vm().state = Some("Created");
    let torn = event("vm", "shutdown");
    fake.write(&torn[..60]);
    fake.write(b"\n");
    fake.write(&event("vm", "resizing"));
    let expected = [
        "disconnected from chv:* (broken protocol: an event is cut off by the next)",
        "web[*] stopped [inferred]",
        "synced with chv:*",
    ];
    expect_sequence(&mut events, &expected).await.unwrap();
    // The torn event is history now, and no reason to connect again.
    fake.boot();
    expect_sequence(&mut events, &["web[*] started (booted)"]).await.unwrap();
}

#[tokio::test]
async fn an_object_that_is_no_event_is_a_gap_with_the_reason() {
    let fake = Fake::start("web");
    let mut events = fake.source().subscribe().await.unwrap();
    until_synced(&mut events).await.unwrap();
    for bytes in ["{\n  \"event\": \"paused\"\n}\n", "{\n  \"source\": vm\n}\n"] {
        fake.write(bytes.as_bytes());
        let expected =
            ["disconnected from chv:* (broken protocol: this is no event: *)", "synced *"];
        expect_sequence(&mut events, &expected).await.unwrap();
    }
}

/// The error of the first subscription.
async fn refused(fake: &Fake) -> String {
    source(&fake.socket()).subscribe().await.unwrap_err().to_line()
}

#[tokio::test]
async fn a_missing_file_or_socket_is_an_error_with_advice() {
    let fake = Fake::start("web");
    fake.go_down();
    let error = refused(&fake).await;
    assert!(error.contains("web.sock") && error.contains("--api-socket"), "{error}");
    fake.come_back();
    std::fs::remove_file(fake.file()).unwrap();
    let error = refused(&fake).await;
    assert!(error.contains("web.events") && error.contains("--event-monitor"), "{error}");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        fake.file(),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let error = refused(&fake).await;
    assert!(error.contains("a FIFO loses events"), "{error}");
}

#[tokio::test]
async fn a_socket_of_another_server_is_named_as_such() {
    let fake = Fake::start("web");
    fake.go_down();
    let listener = tokio::net::UnixListener::bind(fake.socket()).unwrap();
    let other = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            use tokio::io::AsyncWriteExt;
            let mut stream = stream;
            stream.write_all(b"{\"QMP\": {\"version\": {}}}\r\n\r\n").await.unwrap();
        }
    });
    let error = refused(&fake).await;
    other.abort();
    assert!(error.contains("this is no HTTP server"), "{error}");
    std::fs::remove_file(fake.socket()).unwrap();
}
