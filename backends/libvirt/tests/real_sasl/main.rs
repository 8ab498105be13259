//! SASL at real libvirtds, each private to its test: `cargo test --features sasl -- --ignored`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod accepted;
mod auth_files;
mod callbacks;
mod outages;
mod refused;
#[cfg(feature = "tls")]
mod tls;

use std::path::{Path, PathBuf};
use std::time::Duration;

use virevent::driver::{Driver, Reconnect};
use virevent::{Error, EventSource, Options};
use virevent_libvirt::Libvirt;
use virevent_testkit::assert::{next_within, until_synced};
use virevent_testkit::servers::{Config, Libvirtd, Sasl};

const TEST: &str = "test:///default";
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon with these mechanisms, and the user `fred` whose password is `sekrit`.
async fn daemon(mechanisms: &str) -> Libvirtd {
    let sasl = Sasl::new(mechanisms).user("fred", "sekrit");
    Libvirtd::start_with(Config::default().sasl(sasl)).await.unwrap()
}

/// A source whose reconnects are quick.
fn client(uri: &str) -> Libvirt {
    let quick = Reconnect::local().base(Duration::from_millis(10)).max(Duration::from_millis(100));
    Libvirt::new(uri).unwrap().reconnect(quick)
}

/// The URI of the daemon's test driver, with an auth file.
fn uri_with(daemon: &Libvirtd, auth_file: &Path) -> String {
    format!("{}&authfile={}", daemon.uri(TEST), auth_file.display())
}

/// An auth file for `localhost`; its directory is removed with the first value.
fn auth_file(user: &str, password: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("auth.conf");
    let text = format!(
        "[auth-libvirt-localhost]\ncredentials=x\n[credentials-x]\nauthname={user}\n\
         password={password}\n"
    );
    std::fs::write(&path, text).unwrap();
    (directory, path)
}

/// Asserts that the source gets the daemon's domains and an event, and ends.
async fn assert_works(source: Driver) {
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    let existing = until_synced(&mut events).await.unwrap();
    assert!(existing[0].to_string().starts_with("test[1] existing (running"), "{existing:?}");
    source.shutdown().await;
}

/// The error of a subscription, and the line that people see.
async fn refusal(source: &Driver) -> (Error, String) {
    let outcome = tokio::time::timeout(PATIENCE, source.subscribe_with(Options::default())).await;
    let error = outcome.expect("subscribe does not return").unwrap_err();
    let line = error.to_line();
    assert!(!line.contains("sekrit") && !line.contains('\n'), "{line}");
    (error, line)
}
