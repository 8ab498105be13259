//! The server's certificate.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use virevent_testkit::assert::expect_sequence;
use virevent_testkit::tls::Validity;

use super::*;

#[tokio::test]
async fn events_arrive_over_tls_and_after_an_outage() {
    let secured = Secured::start().await;
    let mut events = synced_stream(&secured.uri()).await;
    secured.daemon.host().stop("web").unwrap();
    expect_sequence(&mut events, &["web[1] stopped*"]).await.unwrap();
    secured.daemon.go_down();
    secured.daemon.host().create("db").unwrap();
    secured.daemon.come_back().unwrap();
    until_synced(&mut events).await.unwrap();
}

async fn with_server(leaf: &Leaf) -> Error {
    error(&Secured::start_with(leaf, Clients::Any).await.uri()).await
}

#[tokio::test]
async fn a_certificate_of_another_host_is_a_refusal() {
    let error = with_server(&Leaf::server(&["vmhost.example", "10.0.0.1"])).await;
    let parts = ["cannot trust localhost:", "is for vmhost.example, 10.0.0.1, not for localhost"];
    assert_refusal(&error, &parts);
}

#[tokio::test]
async fn an_address_must_be_in_the_certificate_too() {
    let secured = Secured::start().await;
    let port = secured.front.port();
    let uri = format!("test://127.0.0.1:{port}/default?pkipath={}", secured.client.display());
    assert_refusal(&error(&uri).await, &["is for localhost", "subjectAltName = IP:127.0.0.1"]);
}

#[tokio::test]
async fn a_certificate_with_a_common_name_only_is_a_refusal() {
    let error = with_server(&Leaf::server(&[])).await;
    let parts = ["no subjectAltName", "common name", "reissue it with subjectAltName = DNS:local"];
    assert_refusal(&error, &parts);
}

#[tokio::test]
async fn a_certificate_outside_its_validity_is_a_refusal() {
    let leaf = Leaf::server(&["localhost"]);
    let error = with_server(&leaf.clone().validity(Validity::Past)).await;
    assert_refusal(&error, &["the certificate expired", "days ago: renew it"]);
    let error = with_server(&leaf.validity(Validity::Future)).await;
    assert_refusal(&error, &["not valid for another", "days: check the clocks"]);
}

#[tokio::test]
async fn a_certificate_of_an_unknown_ca_is_a_refusal() {
    let secured = Secured::start().await;
    let other = Pki::new().unwrap();
    let directory = other.directory("other").unwrap();
    let error = error(&uri(secured.front.port(), &directory)).await;
    assert_refusal(&error, &["issuer is not trusted", "other/cacert.pem"]);
}

#[tokio::test]
async fn a_revoked_certificate_and_an_old_list_are_refusals() {
    let pki = Pki::new().unwrap();
    let directory = pki.directory("server").unwrap();
    let certificate = pki.issue(&Leaf::server(&["localhost"])).unwrap();
    certificate.write(&directory, "server").unwrap();
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.host().create("web").unwrap();
    let front = TlsFront::before(&daemon.socket(), &directory, Clients::Any).await.unwrap();
    let uri = uri(front.port(), &directory.with_file_name("client"));
    let client = pki.directory("client").unwrap();
    pki.revoke(&client, &[&certificate], Validity::Now).unwrap();
    assert_refusal(&error(&uri).await, &["the certificate is revoked by", "client/cacrl.pem"]);
    pki.revoke(&client, &[], Validity::Past).unwrap();
    assert_refusal(&error(&uri).await, &["revocation list has expired: get a new", "cacrl.pem"]);
    pki.revoke(&client, &[], Validity::Now).unwrap();
    synced_stream(&uri).await;
}

#[tokio::test]
async fn no_verify_trusts_every_server_without_a_ca() {
    let secured = Secured::start_with(&Leaf::server(&[]), Clients::Any).await;
    let empty = tempfile::tempdir().unwrap();
    let uri = uri(secured.front.port(), empty.path());
    synced_stream(&format!("{uri}&no_verify=1")).await;
    assert_refusal(&error(&format!("{uri}&no_verify=0")).await, &["there is no", "cacert.pem"]);
}

#[tokio::test]
async fn a_port_without_tls_is_no_refusal() {
    let pki = Pki::new().unwrap();
    let client = pki.directory("client").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let greet = async {
        let mut peer = listener.accept().await.unwrap().0;
        peer.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n").await.unwrap();
        peer
    };
    let uri = uri(port, &client);
    let (refused, _peer) = tokio::join!(error(&uri), greet);
    assert_no_refusal(&refused, &["the reply is not TLS; check that localhost:"]);
    let close = async { drop(listener.accept().await.unwrap()) };
    let (refused, ()) = tokio::join!(error(&uri), close);
    assert_no_refusal(&refused, &["during the TLS handshake: does this port speak TLS?"]);
}

#[tokio::test]
async fn a_port_that_is_silent_or_closed_is_no_refusal() {
    let pki = Pki::new().unwrap();
    let client = pki.directory("client").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = uri(listener.local_addr().unwrap().port(), &client);
    let silent = Libvirt::new(&uri).unwrap().connect_timeout(Duration::from_millis(100)).source();
    let refused = silent.subscribe().await.map(drop).unwrap_err();
    assert_no_refusal(&refused, &["no answer to the TLS handshake (does this port speak TLS?)"]);
    drop(listener);
    assert_no_refusal(&error(&uri).await, &["no process listens there", "listen_tls = 1"]);
}
