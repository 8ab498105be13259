//! A daemon that demands authentication, and what goes wrong with it.

use std::path::Path;

use virevent_libvirt::wire::code;
use virevent_libvirt::wire::procs::{self, auth};

use super::*;

#[tokio::test]
async fn a_daemon_with_polkit_accepts_the_client() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.change(|faults| faults.auth = auth::POLKIT);
    let source = client(&daemon).source();
    assert_new_stream_is_true(&source, daemon.host()).await;
}

#[tokio::test]
async fn each_refusal_by_polkit_says_which_and_what_to_do() {
    let table = [
        (code::AUTH_UNAVAILABLE, "no polkit agent available", "polkit has no agent"),
        (code::AUTH_FAILED, "access denied by policy", "a polkit rule denies it"),
        (code::AUTH_CANCELLED, "user cancelled", "the user dismissed polkit's question"),
        (code::INTERNAL_ERROR, "no system bus", "check that D-Bus and polkitd run"),
    ];
    for (code, message, why) in table {
        let daemon = FakeLibvirtd::start().unwrap();
        daemon.change(|faults| {
            faults.auth = auth::POLKIT;
            faults.refuse(procs::AUTH_POLKIT, code, message);
        });
        let source = client(&daemon).source();
        let (error, line) = subscribe_error(&source).await;
        assert!(matches!(error, Error::Authentication { .. }) && error.is_refusal(), "{line}");
        assert!(line.contains(why) && line.contains(message), "{line}");
        assert!(line.contains("org.libvirt.unix."), "{line}");
        // The rule is changed.
        daemon.change(|faults| faults.errors.clear());
        assert_new_stream_is_true(&source, daemon.host()).await;
    }
}

/// The read-only socket asks polkit for less, so the advice differs.
#[tokio::test]
async fn the_advice_about_polkit_names_the_action_of_the_socket() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.change(|faults| {
        faults.auth = auth::POLKIT;
        faults.refuse(procs::AUTH_POLKIT, code::AUTH_UNAVAILABLE, "no agent");
    });
    let uri = daemon.uri();
    let (_, path) = uri.split_once("socket=").unwrap();
    let directory = tempfile::tempdir().unwrap();
    for (name, action, advice) in [
        ("libvirt-sock", "org.libvirt.unix.manage", "connect read-only, which needs none"),
        ("libvirt-sock-ro", "org.libvirt.unix.monitor", "a rule of this host demands it"),
    ] {
        let link = directory.path().join(name);
        std::os::unix::fs::symlink(Path::new(path), &link).unwrap();
        let uri = format!("test+unix:///default?socket={}", link.display());
        let (_, line) = subscribe_error(&Libvirt::new(&uri).unwrap().source()).await;
        assert!(line.contains(action) && line.contains(advice), "{line}");
    }
}

#[cfg(not(feature = "sasl"))]
#[tokio::test]
async fn sasl_without_the_feature_is_a_clear_error() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.change(|faults| faults.auth = auth::SASL);
    let (error, line) = subscribe_error(&client(&daemon).source()).await;
    assert!(matches!(error, Error::Authentication { .. }) && error.is_refusal());
    assert!(line.contains("SASL") && line.contains("its feature \"sasl\""), "{line}");
}

#[cfg(feature = "sasl")]
mod sasl {
    use virevent_libvirt::Credentials;

    use super::*;

    /// A daemon with the user `fred`.
    fn daemon() -> FakeLibvirtd {
        let daemon = FakeLibvirtd::start().unwrap();
        daemon.change(|faults| {
            faults.auth = auth::SASL;
            faults.users.insert("fred".into(), "sekrit".into());
        });
        daemon
    }

    fn with(daemon: &FakeLibvirtd, user: &str, password: &str) -> Driver {
        client(daemon).credentials(Credentials::new(user, password)).source()
    }

    #[tokio::test]
    async fn plain_lets_the_right_password_in() {
        let daemon = daemon();
        assert_new_stream_is_true(&with(&daemon, "fred", "sekrit"), daemon.host()).await;
        for (user, password) in [("fred", "wrong"), ("ann", "sekrit")] {
            let (error, line) = subscribe_error(&with(&daemon, user, password)).await;
            assert!(matches!(error, Error::Credentials { .. }) && error.is_refusal(), "{line}");
        }
    }

    #[tokio::test]
    async fn a_reconnect_authenticates_again() {
        let daemon = daemon();
        let source = with(&daemon, "fred", "sekrit");
        let mut events = source.subscribe_with(Options::default()).await.unwrap();
        until_synced(&mut events).await.unwrap();
        for round in 2..5 {
            daemon.cut();
            assert_eq!(next_gap(&mut events).await, FaultKind::Closed);
            until_synced(&mut events).await.unwrap();
            assert_eq!(daemon.calls(procs::AUTH_SASL_START), round);
        }
        assert_delivers(&mut events, daemon.host()).await;
    }

    /// The user was removed while the stream was open.
    #[tokio::test]
    async fn a_refusal_after_an_outage_is_in_the_gap() {
        let daemon = daemon();
        let source = with(&daemon, "fred", "sekrit");
        let mut events = source.subscribe_with(Options::default()).await.unwrap();
        until_synced(&mut events).await.unwrap();
        daemon.change(|faults| faults.users.clear());
        daemon.cut();
        next_gap(&mut events).await;
        let calls = daemon.calls(procs::AUTH_SASL_START);
        daemon.until(|daemon| daemon.calls(procs::AUTH_SASL_START) > calls + 2).await;
        daemon.change(|faults| {
            faults.users.insert("fred".into(), "sekrit".into());
        });
        assert_recovers(&mut events, daemon.host()).await;
    }

    #[tokio::test]
    async fn a_connection_closed_at_any_sasl_call_is_a_clear_error() {
        for procedure in [procs::AUTH_SASL_INIT, procs::AUTH_SASL_START] {
            let daemon = daemon();
            let source = with(&daemon, "fred", "sekrit");
            daemon.change(|faults| faults.hang_up.extend([procedure]));
            let (error, line) = subscribe_error(&source).await;
            assert!(matches!(error, Error::Closed { .. }), "upon {procedure}: {line}");
            daemon.change(|faults| faults.hang_up.clear());
            assert_new_stream_is_true(&source, daemon.host()).await;
        }
    }
}
