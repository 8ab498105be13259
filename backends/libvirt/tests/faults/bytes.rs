//! Faults in the bytes that the daemon sends.

use std::time::Duration;

use virevent::{Change, FaultKind, Options, StopCause};
use virevent_libvirt::wire::{Header, MAX_LENGTH, RemoteError, message, procs};
use virevent_testkit::assert::expect_sequence;

use super::*;

#[tokio::test]
async fn bytes_that_arrive_one_by_one_are_understood() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.change(|faults| faults.piece = Some(1));
    daemon.host().create("web").unwrap();
    assert_new_stream_is_true(&client(&daemon).source(), daemon.host()).await;
}

#[tokio::test]
async fn messages_cut_anywhere_are_delivered_in_order() {
    let (daemon, mut events) = synced_stream().await;
    for size in [2, 27, 29, 61, 100_000] {
        daemon.change(|faults| {
            faults.gather = Duration::from_millis(2);
            faults.piece = Some(size);
        });
        for _ in 0..40 {
            daemon.host().suspend("web").unwrap();
            daemon.host().resume("web").unwrap();
        }
        let round = ["web[1] suspended (paused)", "web[1] resumed (unpaused)"];
        expect_sequence(&mut events, &round.repeat(40)).await.unwrap();
    }
}

#[tokio::test]
async fn an_impossible_length_is_a_gap_and_a_recovery() {
    for length in [0, 4, 27, MAX_LENGTH as u32 + 1, i32::MAX as u32, u32::MAX] {
        let (daemon, mut events) = synced_stream().await;
        daemon.send(&length.to_be_bytes());
        assert_eq!(next_gap(&mut events).await, FaultKind::Protocol, "length {length}");
        assert_recovers(&mut events, daemon.host()).await;
    }
}

#[tokio::test]
async fn garbage_is_a_gap_and_a_recovery() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..50 {
        let (daemon, mut events) = synced_stream().await;
        let garbage: Vec<u8> = (0..random.usize(64..4096)).map(|_| random.u8(1..)).collect();
        daemon.send(&garbage);
        assert_eq!(next_gap(&mut events).await, FaultKind::Protocol);
        assert_recovers(&mut events, daemon.host()).await;
    }
}

#[tokio::test]
async fn a_truncated_message_is_a_gap_and_is_not_delivered() {
    let (daemon, mut events) = synced_stream().await;
    let mut event = Vec::new();
    message(&mut event, &Header::event(procs::EVENT_REBOOT), |body| body.raw(&[0; 64]));
    daemon.send(&event[..event.len() - 7]);
    daemon.cut();
    assert_eq!(next_gap(&mut events).await, FaultKind::Closed);
    assert_recovers(&mut events, daemon.host()).await;
}

#[tokio::test]
async fn a_message_of_an_unknown_program_is_a_gap_and_a_recovery() {
    let (daemon, mut events) = synced_stream().await;
    let mut bytes = Vec::new();
    message(&mut bytes, &Header { program: 0x4854_5450, ..Header::event(1) }, |_| {});
    daemon.send(&bytes);
    assert_eq!(next_gap(&mut events).await, FaultKind::Protocol);
    assert_recovers(&mut events, daemon.host()).await;
}

#[tokio::test]
async fn a_reply_to_no_call_breaks_the_connection() {
    let error =
        RemoteError { code: 1, domain: 0, message: "x".into(), format: "%s".into(), int1: 0 };
    let mut reply = Vec::new();
    message(&mut reply, &Header::reply(procs::CONNECT_LIST_ALL_DOMAINS, 4711), |_| {});
    let mut refusal = Vec::new();
    message(&mut refusal, &Header::error(procs::CONNECT_OPEN, u32::MAX), |body| error.write(body));
    for bytes in [reply, refusal] {
        let (daemon, mut events) = synced_stream().await;
        daemon.send(&bytes);
        assert_eq!(next_gap(&mut events).await, FaultKind::Protocol);
        until_synced(&mut events).await.unwrap();
        assert_delivers(&mut events, daemon.host()).await;
    }
}

#[tokio::test]
async fn an_event_newer_than_the_table_is_ignored() {
    let (daemon, mut events) = synced_stream().await;
    let mut bytes = Vec::new();
    message(&mut bytes, &Header::event(9_999), |body| body.raw(&[0; 40]));
    daemon.send(&bytes);
    assert_delivers(&mut events, daemon.host()).await;
}

#[tokio::test]
async fn an_event_of_an_unknown_registration_is_ignored() {
    let (daemon, mut events) = synced_stream().await;
    let mut bytes = Vec::new();
    message(&mut bytes, &Header::event(328), |body| {
        body.i32(4711); // an unknown callback id
        body.string("web");
        body.raw(&[1; 16]);
        body.i32(1);
        body.string("ide0");
        body.i32(0);
    });
    daemon.send(&bytes);
    assert_delivers(&mut events, daemon.host()).await;
}

#[tokio::test]
async fn unknown_lifecycle_numbers_are_delivered_unchanged() {
    let (daemon, mut events) = synced_stream().await;
    daemon.host().lifecycle("web", Change::Unknown { event: 77, detail: 5 }).unwrap();
    daemon.host().lifecycle("web", Change::Unknown { event: -1, detail: i32::MIN }).unwrap();
    daemon.host().stop_as("web", StopCause::Unknown(42)).unwrap();
    let expected = [
        "web[1] unknown(77, 5)",
        "web[1] unknown(-1, -2147483648)",
        "web[1] stopped (unknown: 42)",
    ];
    expect_sequence(&mut events, &expected).await.unwrap();
}

#[tokio::test]
async fn an_event_whose_body_is_too_short_is_a_gap_and_a_recovery() {
    for procedure in [procs::EVENT_LIFECYCLE, procs::EVENT_REBOOT] {
        let (daemon, mut events) = synced_stream().await;
        let mut bytes = Vec::new();
        message(&mut bytes, &Header::event(procedure), |body| body.raw(&[0, 0, 0, 0, 0, 0, 1]));
        daemon.send(&bytes);
        assert_eq!(next_gap(&mut events).await, FaultKind::Protocol);
        assert_recovers(&mut events, daemon.host()).await;
    }
}

#[tokio::test]
async fn names_without_utf8_and_of_maximal_length_are_delivered() {
    let (daemon, mut events) = synced_stream().await;
    for name in [&b"\xff\xfe web"[..], &[b'x'; 4 * 1024 * 1024]] {
        let mut bytes = Vec::new();
        message(&mut bytes, &Header::event(procs::EVENT_LIFECYCLE), |body| {
            body.i32(0);
            body.string(name);
            body.raw(&[1; 16]);
            body.i32(7);
            body.i32(0);
            body.i32(0);
        });
        daemon.send(&bytes);
        let event = next_within(&mut events, PATIENCE).await.unwrap();
        assert!(event.to_string().ends_with("[7] defined (added)"));
    }
    assert_delivers(&mut events, daemon.host()).await;
}

#[tokio::test]
async fn a_peer_that_speaks_another_protocol_is_a_clear_error() {
    for greeting in ["SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n", "\0\0\0\0"] {
        let daemon = FakeLibvirtd::start().unwrap();
        daemon.change(|faults| faults.held.extend([procs::AUTH_LIST]));
        let source = client(&daemon).source();
        let send = async {
            daemon.until(|daemon| daemon.calls(procs::AUTH_LIST) == 1).await;
            daemon.send(greeting.as_bytes());
        };
        let ((_, line), ()) = tokio::join!(subscribe_error(&source), send);
        let advice =
            format!("check that a libvirt daemon listens on {}", daemon.socket().display());
        assert!(line.contains("broken protocol") && line.ends_with(&advice), "{line}");
    }
}

#[tokio::test]
async fn an_untyped_event_is_delivered_whole() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.host().create("web").unwrap();
    let source = client(&daemon).source();
    daemon.change(|faults| faults.last_event = 99);
    let other = "other:99".parse().unwrap();
    let mut events = source.subscribe_with(Options::default().kind(other)).await.unwrap();
    until_synced(&mut events).await.unwrap();
    let domain = daemon.host().domain("web");
    let data = virevent::EventData::Bytes([0, 0, 0, 1, b'h', b'd', b'a', 0].into());
    let at = std::time::SystemTime::now();
    daemon.host().emit(virevent::RawEvent::new("", domain, "99".into(), data.clone(), at));
    match next_within(&mut events, PATIENCE).await.unwrap() {
        DomainEvent::Other(event) => assert_eq!(*event.data(), data),
        event => panic!("{event}"),
    }
}
