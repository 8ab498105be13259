//! Faults before the first event.

use std::path::Path;

use virevent::Error;
use virevent_libvirt::wire::code;
use virevent_libvirt::wire::procs::{self, feature};

use super::*;

/// The calls of the handshake.
const HANDSHAKE: [i32; 4] = [
    procs::AUTH_LIST,
    procs::CONNECT_SUPPORTS_FEATURE,
    procs::CONNECT_OPEN,
    procs::CONNECT_GET_HOSTNAME,
];

/// The calls between the handshake and `Synced`.
const SYNC: [i32; 3] = [
    procs::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY,
    procs::CONNECT_GET_ALL_DOMAIN_STATS,
    procs::CONNECT_LIST_ALL_DOMAINS,
];

#[tokio::test]
async fn a_connection_closed_at_any_call_is_a_clear_error() {
    for procedure in HANDSHAKE.into_iter().chain(SYNC) {
        let daemon = FakeLibvirtd::start().unwrap();
        let source = client(&daemon).source();
        daemon.change(|faults| faults.hang_up.extend([procedure]));
        let (error, line) = subscribe_error(&source).await;
        assert!(matches!(error, Error::Closed { .. }), "upon {procedure}: {line}");
        daemon.change(|faults| faults.hang_up.clear());
        assert_new_stream_is_true(&source, daemon.host()).await;
    }
}

#[tokio::test]
async fn a_truncated_reply_is_a_clear_error() {
    for procedure in HANDSHAKE.into_iter().chain(SYNC) {
        let daemon = FakeLibvirtd::start().unwrap();
        let source = client(&daemon).source();
        daemon.change(|faults| faults.truncated.extend([procedure]));
        let (error, line) = subscribe_error(&source).await;
        assert!(matches!(error, Error::Closed { .. }), "upon {procedure}: {line}");
        daemon.change(|faults| faults.truncated.clear());
        assert_new_stream_is_true(&source, daemon.host()).await;
    }
}

#[tokio::test]
async fn a_reply_to_no_call_is_a_broken_protocol() {
    for procedure in HANDSHAKE.into_iter().chain(SYNC) {
        let daemon = FakeLibvirtd::start().unwrap();
        let source = hasty_client(&daemon);
        daemon.change(|faults| faults.wrong_serial.extend([procedure]));
        let (error, line) = subscribe_error(&source).await;
        assert!(matches!(error, Error::Protocol { .. }), "to {procedure}: {line}");
        assert!(line.contains("no call is pending"), "to {procedure}: {line}");
        daemon.change(|faults| faults.wrong_serial.clear());
        assert_new_stream_is_true(&source, daemon.host()).await;
    }
}

#[tokio::test]
async fn a_handshake_timeout_names_the_call_without_a_reply() {
    for procedure in HANDSHAKE {
        let daemon = FakeLibvirtd::start().unwrap();
        let source = hasty_client(&daemon);
        daemon.change(|faults| faults.held.extend([procedure]));
        let (error, line) = subscribe_error(&source).await;
        assert!(matches!(error, Error::Timeout { .. }), "to {procedure}: {line}");
        assert!(line.contains(procs::name(procedure)), "to {procedure}: {line}");
        daemon.change(|faults| faults.held.clear());
        assert_new_stream_is_true(&source, daemon.host()).await;
    }
}

#[tokio::test]
async fn a_reply_whose_body_is_nonsense_is_a_clear_error() {
    let bodies: [&[u8]; 4] = [b"", b"\0", &[0xff; 24], &[0, 0, 0, 9, 0, 0, 0, 1]];
    for procedure in HANDSHAKE.into_iter().chain(SYNC) {
        for body in bodies {
            let daemon = FakeLibvirtd::start().unwrap();
            let source = client(&daemon).source();
            daemon.change(|faults| faults.bodies.extend([(procedure, body.to_vec())]));
            // The body of some replies is not used, and some of these bodies are valid by chance.
            match source.subscribe_with(Options::default()).await {
                Ok(_) => {}
                Err(Error::Protocol { .. } | Error::Authentication { .. }) => {}
                Err(error) => panic!("{procedure} with {body:?}: {error}"),
            }
            daemon.change(|faults| faults.bodies.clear());
            source.shutdown().await;
            assert_new_stream_is_true(&client(&daemon).source(), daemon.host()).await;
        }
    }
}

#[tokio::test]
async fn a_daemon_that_refuses_to_open_is_a_clear_error() {
    let daemon = FakeLibvirtd::start().unwrap();
    let message = "no connection driver available for test:///default";
    daemon.change(|faults| faults.refuse(procs::CONNECT_OPEN, code::NO_CONNECT, message));
    let (error, line) = subscribe_error(&client(&daemon).source()).await;
    assert!(error.is_refusal());
    assert!(line.contains(message) && line.contains("check the URI"), "{line}");
}

#[tokio::test]
async fn a_daemon_at_max_clients_is_a_clear_error() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.change(|faults| faults.max_clients = Some(0));
    let source = client(&daemon).source();
    let (error, line) = subscribe_error(&source).await;
    assert!(!error.is_refusal(), "another client may leave");
    assert!(line.contains("max_clients"), "{line}");
    daemon.change(|faults| faults.max_clients = None);
    assert_new_stream_is_true(&source, daemon.host()).await;
}

#[tokio::test]
async fn a_daemon_without_the_bulk_list_is_asked_domain_by_domain() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.change(|faults| faults.lacks.extend([procs::CONNECT_GET_ALL_DOMAIN_STATS]));
    daemon.host().define("off").unwrap();
    daemon.host().create("web").unwrap();
    daemon.host().create("db").unwrap();
    daemon.host().suspend("db").unwrap();
    assert_new_stream_is_true(&client(&daemon).source(), daemon.host()).await;
    assert_eq!(daemon.calls(procs::DOMAIN_GET_STATE), 3);
}

#[tokio::test]
async fn a_daemon_without_callback_ids_gets_legacy_calls() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.change(|faults| {
        faults.features.remove(&feature::EVENT_CALLBACK);
        faults.features.remove(&feature::KEEPALIVE);
        faults.lacks.insert(procs::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY);
        faults.lacks.insert(procs::CONNECT_GET_ALL_DOMAIN_STATS);
    });
    daemon.host().create("web").unwrap();
    let source = client(&daemon).source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    assert_delivers(&mut events, daemon.host()).await;
    daemon.host().reboot("web").unwrap();
    let event = next_within(&mut events, PATIENCE).await.unwrap();
    assert_eq!(event.to_string(), "web[1] rebooted");
    events.close().await;
    assert!(daemon.registered().is_empty());
}

#[tokio::test]
async fn a_missing_daemon_is_a_clear_error_at_once() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.go_down();
    let source = client(&daemon).source();
    let (error, line) = subscribe_error(&source).await;
    assert!(matches!(error, Error::Unreachable { .. }), "{line}");
    assert!(line.contains("start libvirtd"), "{line}");
    daemon.come_back().unwrap();
    assert_new_stream_is_true(&source, daemon.host()).await;
}

#[tokio::test]
async fn a_path_that_is_no_socket_is_a_clear_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let table = [
        (file.clone(), "is not a socket: give the daemon's socket as ?socket="),
        (directory.path().to_owned(), "is not a socket"),
        (file.join("sock"), "there is no such socket"),
        (directory.path().join("x".repeat(120)), "longer than 107 bytes"),
    ];
    for (path, advice) in table {
        let (_, line) = subscribe_error(&at(&path).source()).await;
        assert!(line.contains(advice), "{line}");
    }
}

fn at(socket: &Path) -> Libvirt {
    Libvirt::new(&format!("test+unix:///default?socket={}", socket.display())).unwrap()
}
