//! SASL over TLS, with a certificate of the client and without one.

use virevent_libvirt::Credentials;
use virevent_testkit::tls::{Leaf, Pki};

use super::*;

/// A daemon with these mechanisms that listens with TLS, and its CA.
async fn secured(mechanisms: &str, lines: &str) -> (Libvirtd, Pki) {
    let pki = Pki::new().unwrap();
    let leaf = Leaf::server(&["localhost", "127.0.0.1"]);
    let directory = pki.server_directory("server", &leaf).unwrap();
    let sasl = Sasl::new(mechanisms).user("fred", "sekrit");
    let config = Config::default().sasl(sasl).tls(&directory).extra(lines);
    (Libvirtd::start_with(config).await.unwrap(), pki)
}

fn with(daemon: &Libvirtd, pkipath: &Path, password: &str) -> Libvirt {
    let port = daemon.tls_port().unwrap();
    let uri = format!("test+tls://localhost:{port}/default?pkipath={}", pkipath.display());
    client(&uri).credentials(Credentials::new("fred", password))
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn each_mechanism_works_over_tls() {
    for mechanism in ["scram-sha-256", "scram-sha-1", "plain"] {
        let (daemon, pki) = secured(mechanism, "").await;
        let certificate = pki.issue(&Leaf::client("fred")).unwrap();
        let pkipath = pki.client_directory("fred", Some(&certificate)).unwrap();
        assert_works(with(&daemon, &pkipath, "sekrit").source()).await;
        let (error, line) = refusal(&with(&daemon, &pkipath, "wrong").source()).await;
        assert!(matches!(error, Error::Credentials { .. }), "{mechanism}: {line}");
    }
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn sasl_over_tls_needs_no_client_certificate() {
    let (daemon, pki) = secured("scram-sha-256", "tls_no_verify_certificate = 1\n").await;
    let pkipath = pki.client_directory("nobody", None).unwrap();
    assert_works(with(&daemon, &pkipath, "sekrit").source()).await;
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn plain_goes_to_no_server_that_was_not_verified() {
    let (daemon, pki) = secured("plain", "tls_no_verify_certificate = 1\n").await;
    let pkipath = pki.client_directory("nobody", None).unwrap();
    let port = daemon.tls_port().unwrap();
    let uri =
        format!("test+tls://localhost:{port}/default?no_verify=1&pkipath={}", pkipath.display());
    let source = client(&uri).credentials(Credentials::new("fred", "sekrit")).source();
    let (error, line) = refusal(&source).await;
    assert!(error.is_refusal() && line.contains("tls without no_verify"), "{line}");
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_reconnect_over_tls_authenticates_again() {
    let (mut daemon, pki) = secured("scram-sha-256", "").await;
    let certificate = pki.issue(&Leaf::client("fred")).unwrap();
    let pkipath = pki.client_directory("fred", Some(&certificate)).unwrap();
    let source = with(&daemon, &pkipath, "sekrit").source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    daemon.kill9().await;
    daemon.start_again().await.unwrap();
    until_synced(&mut events).await.unwrap();
    source.shutdown().await;
}
