//! The byte by which the server accepts the client.

use tokio::net::UnixListener;

use super::*;

#[tokio::test]
async fn a_server_that_wants_a_certificate_refuses_a_client_without() {
    let leaf = Leaf::server(&["localhost"]);
    let secured = Secured::start_with(&leaf, Clients::WithCertificate).await;
    let error = error(&secured.uri()).await;
    assert_refusal(&error, &["requires authentication", "it wants a client certificate"]);
    let certificate = secured.pki.issue(&Leaf::client("fred")).unwrap();
    certificate.write(&secured.client, "client").unwrap();
    synced_stream(&secured.uri()).await;
}

#[tokio::test]
async fn one_end_in_place_of_the_byte_is_no_refusal() {
    let secured = Secured::start().await;
    secured.front.refuse(1);
    synced_stream(&secured.uri()).await;
}

#[tokio::test]
async fn two_ends_in_place_of_the_byte_are_a_refusal() {
    let secured = Secured::start().await;
    let certificate = secured.pki.issue(&Leaf::client("fred")).unwrap();
    certificate.write(&secured.client, "client").unwrap();
    secured.front.refuse(2);
    let error = error(&secured.uri()).await;
    assert_refusal(&error, &["refused the client certificate", "client/clientcert.pem"]);
    synced_stream(&secured.uri()).await;
}

/// A daemon that stops closes its connections, and then its port.
#[tokio::test]
async fn a_server_that_stops_is_no_refusal() {
    let secured = Secured::start().await;
    let uri = secured.uri();
    secured.front.refuse(1);
    let front = secured.front;
    let refused = tokio::spawn(async move { error(&uri).await });
    while front.refusals_left() > 0 {
        tokio::task::yield_now().await;
    }
    drop(front);
    let refused = refused.await.unwrap();
    assert!(!refused.is_refusal(), "{refused:?}");
}

/// What follows the handshake is a libvirtd's byte, or it is no libvirtd.
#[tokio::test]
async fn another_byte_than_1_is_a_broken_protocol() {
    let pki = Pki::new().unwrap();
    let directory = pki.server_directory("server", &Leaf::server(&["localhost"])).unwrap();
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("s");
    let _listener = UnixListener::bind(&socket).unwrap();
    let front = TlsFront::before(&socket, &directory, Clients::Any).await.unwrap();
    front.greet_with(b'S');
    let error = error(&uri(front.port(), &directory)).await;
    assert_no_refusal(&error, &["the byte 1 is expected, not 83", "a libvirt daemon listens"]);
}
