//! The program over TLS: on a real libvirtd, and what it says where it cannot connect.

use std::path::Path;

use virevent_testkit::servers::{Config, Libvirtd};
use virevent_testkit::tls::{Leaf, Pki};

use super::run::{run, start};

fn uri(daemon: &Libvirtd, pkipath: &Path) -> String {
    let port = daemon.tls_port().unwrap();
    format!("test+tls://localhost:{port}/default?pkipath={}", pkipath.display())
}

/// A daemon whose certificate is for these names.
async fn daemon(pki: &Pki, names: &[&str]) -> Libvirtd {
    let directory = pki.server_directory("server", &Leaf::server(names)).unwrap();
    Libvirtd::start_with(Config::default().tls(&directory)).await.unwrap()
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn events_are_printed_over_tls_and_after_a_daemons_death() {
    let pki = Pki::new().unwrap();
    let mut daemon = daemon(&pki, &["localhost"]).await;
    let certificate = pki.issue(&Leaf::client("fred")).unwrap();
    let client = pki.client_directory("client", Some(&certificate)).unwrap();
    let mut run = start(&["--json", "--count", "3", &uri(&daemon, &client)]);
    run.until_synced();
    daemon.virsh("test:///default").run(&["suspend", "test"]).await.unwrap();
    assert_eq!(run.next(), "suspended paused");
    daemon.kill9().await;
    assert_eq!(run.next(), "gap");
    daemon.start_again().await.unwrap();
    // The test driver has its domains as they were at first.
    assert_eq!(run.next(), "resumed ");
    assert_eq!(run.next(), "synced");
    daemon.virsh("test:///default").run(&["destroy", "test"]).await.unwrap();
    let outcome = run.end();
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    assert_eq!(outcome.in_short(), ["stopped destroyed"]);
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn each_refusal_of_tls_is_one_line() {
    let pki = Pki::new().unwrap();
    let daemon = daemon(&pki, &["vmhost.example"]).await;
    let client = pki.directory("client").unwrap();
    let here = uri(&daemon, &client);
    run(&[&here]).assert_failed(1, "is for vmhost.example, not for localhost");
    run(&[&format!("{here}&no_verify=1")]).assert_failed(1, "it wants a client certificate");
    let other = Pki::new().unwrap();
    let foreign = other.directory("foreign").unwrap();
    run(&[&uri(&daemon, &foreign)]).assert_failed(1, "the certificate's issuer is not trusted");
    let certificate = other.issue(&Leaf::client("fred")).unwrap();
    certificate.write(&foreign, "client").unwrap();
    run(&[&format!("{}&no_verify=1", uri(&daemon, &foreign))])
        .assert_failed(1, "refused the client certificate");
}

#[test]
fn a_directory_without_a_ca_is_one_line() {
    let empty = tempfile::tempdir().unwrap();
    let uri = format!("qemu://localhost:1/system?pkipath={}", empty.path().display());
    run(&[&uri]).assert_failed(1, "cacert.pem: put the certificate of the CA");
    run(&["qemu+tls://localhost/system?tls_priority=NORMAL"]).assert_failed(2, "leave it out");
}
