//! What a real libvirtd refuses, and what of it is not trusted: one line each.

use virevent_testkit::tls::{Certificate, Validity};

use super::*;

/// Asserts what the line says, and that a retry cannot help.
fn assert_refusal(error: &Error, parts: &[&str]) {
    let line = error.to_line();
    assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    assert!(error.is_refusal() && !line.contains('\n'), "{line}");
}

/// The error of a client with this certificate.
async fn with_certificate(secured: &Secured, name: &str, certificate: &Certificate) -> Error {
    let directory = secured.pki.client_directory(name, Some(certificate)).unwrap();
    error(&secured.uri(&directory)).await
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_daemon_refuses_a_client_without_a_certificate() {
    let secured = Secured::start().await;
    let error = error(&secured.uri(&secured.pki.directory("client").unwrap())).await;
    assert_refusal(
        &error,
        &["requires authentication", "wants a client certificate", "clientcert"],
    );
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_daemon_refuses_a_certificate_of_another_ca() {
    let secured = Secured::start().await;
    let certificate = Pki::new().unwrap().issue(&Leaf::client("fred")).unwrap();
    let error = with_certificate(&secured, "foreign", &certificate).await;
    assert_refusal(&error, &["refused the client certificate", "foreign/clientcert.pem", "issuer"]);
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_daemon_refuses_an_expired_client_certificate() {
    let secured = Secured::start().await;
    let leaf = Leaf::client("fred").validity(Validity::Past);
    let certificate = secured.pki.issue(&leaf).unwrap();
    let error = with_certificate(&secured, "expired", &certificate).await;
    assert_refusal(&error, &["refused the client certificate", "expired/clientcert.pem", "valid"]);
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_daemon_refuses_a_revoked_client_certificate() {
    let pki = Pki::new().unwrap();
    let directory = pki.server_directory("server", &Leaf::server(&["localhost"])).unwrap();
    let revoked = pki.issue(&Leaf::client("fred")).unwrap();
    pki.revoke(&directory, &[&revoked], Validity::Now).unwrap();
    let daemon = Libvirtd::start_with(Config::default().tls(&directory)).await.unwrap();
    let secured = Secured { daemon, pki };
    let error = with_certificate(&secured, "revoked", &revoked).await;
    assert_refusal(&error, &["refused the client certificate", "revoked/clientcert.pem"]);
    synced_stream(&client(&secured.uri(&secured.client("other")))).await;
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_daemon_refuses_a_name_that_it_does_not_allow() {
    let secured = Secured::start_with("tls_allowed_dn_list = [\"CN=fred\"]\n").await;
    let error = error(&secured.uri(&secured.client("joe"))).await;
    assert_refusal(&error, &["refused the client certificate", "tls_allowed_dn_list"]);
    synced_stream(&client(&secured.uri(&secured.client("fred")))).await;
}

/// The error of a daemon whose certificate says this.
async fn with_server(leaf: &Leaf) -> Error {
    let pki = Pki::new().unwrap();
    let directory = pki.server_directory("server", leaf).unwrap();
    let lines = "tls_no_verify_certificate = 1\ntls_no_sanity_certificate = 1\n";
    let config = Config::default().tls(&directory).extra(lines);
    let secured = Secured { daemon: Libvirtd::start_with(config).await.unwrap(), pki };
    error(&secured.uri(&secured.pki.directory("client").unwrap())).await
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_daemon_that_is_not_the_one_that_is_meant_is_not_trusted() {
    let error = with_server(&Leaf::server(&["vmhost.example"])).await;
    let parts = ["cannot trust localhost:", "is for vmhost.example, not for localhost", "reissue"];
    assert_refusal(&error, &parts);
    let error = with_server(&Leaf::server(&[])).await;
    assert_refusal(
        &error,
        &["no subjectAltName", "reissue it with subjectAltName = DNS:localhost"],
    );
    let error = with_server(&Leaf::server(&["localhost"]).validity(Validity::Past)).await;
    assert_refusal(&error, &["expired", "renew it"]);
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_daemon_of_an_unknown_ca_is_not_trusted() {
    let secured = Secured::start().await;
    let other = Pki::new().unwrap();
    let directory = other.directory("client").unwrap();
    let error = error(&secured.uri(&directory)).await;
    assert_refusal(&error, &["issuer is not trusted", "client/cacert.pem", "pkipath="]);
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn the_plain_port_of_a_daemon_is_no_tls_port() {
    let daemon = Libvirtd::start_with(Config::default().tcp(true)).await.unwrap();
    let tcp = daemon.tcp_uri(TEST).unwrap();
    let port = tcp.trim_end_matches("/default").rsplit(':').next().unwrap().parse().unwrap();
    let pki = Pki::new().unwrap();
    let error = error(&uri(port, &pki.directory("client").unwrap())).await;
    let line = error.to_line();
    assert!(line.contains("does this port speak TLS?"), "{line}");
    assert!(!error.is_refusal(), "a daemon that stops does the same: {line}");
}

/// virsh trusts the same daemons with the same files.
#[tokio::test]
#[ignore = "needs libvirtd"]
async fn virsh_connects_with_the_same_uri() {
    let secured = Secured::start().await;
    let uri = secured.uri(&secured.client("fred"));
    let listed = Virsh::to(&uri).list().await.unwrap();
    assert_eq!(listed, [("test".into(), "running".into())]);
    synced_stream(&client(&uri)).await;
}
