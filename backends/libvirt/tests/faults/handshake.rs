//! What can go wrong before the first event.

use std::path::Path;

use virevent::Error;
use virevent_libvirt::wire::code;
use virevent_libvirt::wire::procs::{self, auth, feature};

use super::*;

/// The calls that every connection begins with.
const HANDSHAKE: [i32; 4] = [
    procs::AUTH_LIST,
    procs::CONNECT_SUPPORTS_FEATURE,
    procs::CONNECT_OPEN,
    procs::CONNECT_GET_HOSTNAME,
];

/// And those that follow before a stream is synced.
const SYNC: [i32; 3] = [
    procs::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY,
    procs::CONNECT_GET_ALL_DOMAIN_STATS,
    procs::CONNECT_LIST_ALL_DOMAINS,
];

#[tokio::test]
async fn a_daemon_that_hangs_up_upon_any_call_is_a_clear_error_and_the_next_try_succeeds() {
    for procedure in HANDSHAKE.into_iter().chain(SYNC) {
        let daemon = FakeLibvirtd::start().unwrap();
        let source = client(&daemon).source();
        daemon.change(|faults| faults.hang_up.extend([procedure]));
        let (error, line) = refusal(&source).await;
        assert!(matches!(error, Error::Closed { .. }), "upon {procedure}: {line}");
        daemon.change(|faults| faults.hang_up.clear());
        tells_the_truth(&source, daemon.host()).await;
    }
}

#[tokio::test]
async fn a_reply_that_breaks_off_is_a_clear_error_and_the_next_try_succeeds() {
    for procedure in HANDSHAKE.into_iter().chain(SYNC) {
        let daemon = FakeLibvirtd::start().unwrap();
        let source = client(&daemon).source();
        daemon.change(|faults| faults.truncated.extend([procedure]));
        let (error, line) = refusal(&source).await;
        assert!(matches!(error, Error::Closed { .. }), "upon {procedure}: {line}");
        daemon.change(|faults| faults.truncated.clear());
        tells_the_truth(&source, daemon.host()).await;
    }
}

#[tokio::test]
async fn a_reply_to_no_call_is_a_broken_protocol() {
    for procedure in HANDSHAKE.into_iter().chain(SYNC) {
        let daemon = FakeLibvirtd::start().unwrap();
        let source = hasty_client(&daemon);
        daemon.change(|faults| faults.wrong_serial.extend([procedure]));
        let (error, line) = refusal(&source).await;
        assert!(matches!(error, Error::Protocol { .. }), "to {procedure}: {line}");
        assert!(line.contains("which is none"), "to {procedure}: {line}");
        daemon.change(|faults| faults.wrong_serial.clear());
        tells_the_truth(&source, daemon.host()).await;
    }
}

#[tokio::test]
async fn a_handshake_without_a_reply_names_the_call_that_waits() {
    for procedure in HANDSHAKE {
        let daemon = FakeLibvirtd::start().unwrap();
        let source = hasty_client(&daemon);
        daemon.change(|faults| faults.held.extend([procedure]));
        let (error, line) = refusal(&source).await;
        assert!(matches!(error, Error::Timeout { .. }), "to {procedure}: {line}");
        assert!(line.contains(procs::name(procedure)), "to {procedure}: {line}");
        daemon.change(|faults| faults.held.clear());
        tells_the_truth(&source, daemon.host()).await;
    }
}

#[tokio::test]
async fn a_reply_whose_body_is_nonsense_is_a_clear_error() {
    let nonsense: [&[u8]; 4] = [b"", b"\0", &[0xff; 24], &[0, 0, 0, 9, 0, 0, 0, 1]];
    for procedure in HANDSHAKE.into_iter().chain(SYNC) {
        for body in nonsense {
            let daemon = FakeLibvirtd::start().unwrap();
            let source = client(&daemon).source();
            daemon.change(|faults| faults.bodies.extend([(procedure, body.to_vec())]));
            // Some replies have nothing in them that matters, and some nonsense makes sense.
            match source.subscribe_with(Options::default()).await {
                Ok(_) => {}
                Err(Error::Protocol { .. } | Error::Authentication { .. }) => {}
                Err(error) => panic!("{procedure} with {body:?}: {error}"),
            }
            daemon.change(|faults| faults.bodies.clear());
            source.shutdown().await;
            tells_the_truth(&client(&daemon).source(), daemon.host()).await;
        }
    }
}

#[tokio::test]
async fn a_daemon_that_refuses_to_open_is_a_clear_error() {
    let daemon = FakeLibvirtd::start().unwrap();
    let message = "no connection driver available for test:///default";
    daemon.change(|faults| faults.refuse(procs::CONNECT_OPEN, code::NO_CONNECT, message));
    let (error, line) = refusal(&client(&daemon).source()).await;
    assert!(error.is_refusal());
    assert!(line.contains(message) && line.contains("check the URI"), "{line}");
}

#[tokio::test]
async fn a_daemon_that_has_enough_clients_is_a_clear_error() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.change(|faults| faults.max_clients = Some(0));
    let source = client(&daemon).source();
    let (error, line) = refusal(&source).await;
    assert!(!error.is_refusal(), "a client may leave");
    assert!(line.contains("max_clients"), "{line}");
    daemon.change(|faults| faults.max_clients = None);
    tells_the_truth(&source, daemon.host()).await;
}

#[tokio::test]
async fn a_daemon_that_demands_sasl_is_a_clear_error() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.change(|faults| faults.auth = auth::SASL);
    let (error, line) = refusal(&client(&daemon).source()).await;
    assert!(matches!(error, Error::Authentication { .. }) && error.is_refusal());
    assert!(line.contains("SASL"), "{line}");
}

#[tokio::test]
async fn a_daemon_that_asks_polkit_is_answered() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.change(|faults| faults.auth = auth::POLKIT);
    let source = client(&daemon).source();
    tells_the_truth(&source, daemon.host()).await;
}

#[tokio::test]
async fn a_no_of_polkit_is_a_clear_error() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.change(|faults| {
        faults.auth = auth::POLKIT;
        faults.refuse(procs::AUTH_POLKIT, code::AUTH_UNAVAILABLE, "no polkit agent available");
    });
    let (error, line) = refusal(&client(&daemon).source()).await;
    assert!(error.is_refusal() && line.contains("polkit"), "{line}");
}

#[tokio::test]
async fn a_daemon_without_the_bulk_list_is_asked_domain_by_domain() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.change(|faults| faults.lacks.extend([procs::CONNECT_GET_ALL_DOMAIN_STATS]));
    daemon.host().define("off").unwrap();
    daemon.host().create("web").unwrap();
    daemon.host().create("db").unwrap();
    daemon.host().suspend("db").unwrap();
    tells_the_truth(&client(&daemon).source(), daemon.host()).await;
    assert_eq!(daemon.calls(procs::DOMAIN_GET_STATE), 3);
}

#[tokio::test]
async fn a_daemon_of_before_callback_ids_is_registered_with_in_the_old_way() {
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
    goes_on(&mut events, daemon.host()).await;
    daemon.host().reboot("web").unwrap();
    let event = next_within(&mut events, PATIENCE).await.unwrap();
    assert_eq!(event.to_string(), "web[1] rebooted");
    events.close().await;
    assert!(daemon.registered().is_empty());
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_a_clear_error_at_once() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.go_down();
    let source = client(&daemon).source();
    let (error, line) = refusal(&source).await;
    assert!(matches!(error, Error::Unreachable { .. }), "{line}");
    assert!(line.contains("start libvirtd"), "{line}");
    daemon.come_back().unwrap();
    tells_the_truth(&source, daemon.host()).await;
}

#[tokio::test]
async fn a_path_that_can_be_no_socket_is_a_clear_error() {
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
        let (_, line) = refusal(&at(&path).source()).await;
        assert!(line.contains(advice), "{line}");
    }
}

fn at(socket: &Path) -> Libvirt {
    Libvirt::new(&format!("test+unix:///default?socket={}", socket.display())).unwrap()
}
