//! TLS sockets against a server of rustls.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use tokio_rustls::server::TlsStream;
use virevent_testkit::tls::{KeyForm, Leaf, Pki, Validity};
use virevent_transport::tls::{FileProblem, TlsFailure};
use virevent_transport::{Outbox, Socket, TlsError, TlsFiles, deadline_after};

const PATIENCE: Duration = Duration::from_secs(20);

/// A server of TLS connections.
struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Server {
    async fn start(directory: &Path) -> Self {
        Self::with(directory, &[&version::TLS13, &version::TLS12], false).await
    }

    async fn with(
        directory: &Path,
        versions: &[&'static SupportedProtocolVersion],
        wants_client: bool,
    ) -> Self {
        let certificates = |file: &str| {
            let certificates = CertificateDer::pem_file_iter(directory.join(file)).unwrap();
            certificates.map(Result::unwrap).collect::<Vec<_>>()
        };
        let key = PrivateKeyDer::from_pem_file(directory.join("serverkey.pem")).unwrap();
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .unwrap();
        let builder = if wants_client {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates("cacert.pem"));
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let config = builder.with_single_cert(certificates("servercert.pem"), key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    async fn accept(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let (tcp, _) = self.listener.accept().await?;
        self.acceptor.accept(tcp).await
    }
}

fn trusting(directory: &Path) -> TlsFiles {
    TlsFiles { ca: Some(directory.join("cacert.pem")), ..TlsFiles::default() }
}

async fn connect(host: &str, port: u16, files: &TlsFiles) -> Result<Socket, TlsError> {
    let client = files.load().unwrap();
    Socket::connect_tls(host, port, &client, deadline_after(PATIENCE)).await
}

/// A connection of both, by the certificate of `localhost`.
async fn pair(pki: &Pki) -> (Socket, TlsStream<TcpStream>) {
    let directory = pki.server_directory("server", &Leaf::server(&["localhost"])).unwrap();
    let server = Server::start(&directory).await;
    let files = trusting(&directory);
    let (socket, peer) = tokio::join!(connect("localhost", server.port(), &files), server.accept());
    (socket.unwrap(), peer.unwrap())
}

async fn read(socket: &mut Socket, spare: &mut [u8]) -> std::io::Result<usize> {
    let mut outbox = Outbox::default();
    poll_fn(|cx| socket.poll_io(cx, &mut outbox, spare)).await
}

#[tokio::test]
async fn a_tls_socket_carries_bytes_both_ways() {
    let pki = Pki::new().unwrap();
    let (mut socket, mut peer) = pair(&pki).await;
    assert!(socket.as_unix().is_none());
    let mut outbox = Outbox::default();
    outbox.appending().extend_from_slice(b"hello");
    peer.write_all(b"welcome").await.unwrap();
    let mut spare = [0; 64];
    let count = poll_fn(|cx| socket.poll_io(cx, &mut outbox, &mut spare)).await.unwrap();
    assert_eq!(&spare[..count], b"welcome");
    let mut got = [0; 5];
    peer.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"hello");
    peer.shutdown().await.unwrap();
    assert_eq!(read(&mut socket, &mut spare).await.unwrap(), 0);
}

#[tokio::test]
async fn an_end_without_close_notify_is_an_end() {
    let pki = Pki::new().unwrap();
    let (mut socket, peer) = pair(&pki).await;
    drop(peer);
    assert_eq!(read(&mut socket, &mut [0; 64]).await.unwrap(), 0);
}

#[tokio::test]
async fn the_peer_gets_close_notify_when_a_socket_is_dropped() {
    let pki = Pki::new().unwrap();
    let (socket, mut peer) = pair(&pki).await;
    drop(socket);
    // Without close_notify this is UnexpectedEof.
    assert_eq!(peer.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn records_that_came_together_are_read_together() {
    let pki = Pki::new().unwrap();
    let (mut socket, mut peer) = pair(&pki).await;
    for event in 0..20_u8 {
        peer.write_all(&[event; 100]).await.unwrap();
        peer.flush().await.unwrap();
    }
    let mut spare = vec![0; 65_536];
    let mut received = 0;
    let mut reads = 0;
    while received < 2_000 {
        received += read(&mut socket, &mut spare[received..]).await.unwrap();
        reads += 1;
    }
    let expected: Vec<u8> = (0..20).flat_map(|event| [event; 100]).collect();
    assert_eq!(spare[..received], expected);
    assert!(reads <= 2, "{reads} reads for 20 records");
}

/// More than rustls and the system buffer, to a peer that reads late: what rustls has encrypted
/// must reach it without another write.
#[tokio::test]
async fn what_was_written_is_flushed_when_the_peer_reads_late() {
    let pki = Pki::new().unwrap();
    let (mut socket, mut peer) = pair(&pki).await;
    let bytes: Vec<u8> = (0..8_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut outbox = Outbox::default();
    outbox.appending().extend_from_slice(&bytes);
    let expected = bytes.len();
    let reading = tokio::spawn(async move {
        let mut got = vec![0; expected];
        peer.read_exact(&mut got).await.unwrap();
        peer.write_all(b"all").await.unwrap();
        got
    });
    let mut spare = [0; 8];
    let count = poll_fn(|cx| socket.poll_io(cx, &mut outbox, &mut spare)).await.unwrap();
    assert_eq!(&spare[..count], b"all");
    assert!(outbox.unwritten().is_empty());
    assert!(reading.await.unwrap() == bytes);
}

/// The failure of connecting to `host` with the certificate that `leaf` describes.
async fn failure(host: &str, pki: &Pki, leaf: &Leaf, files: &TlsFiles) -> TlsFailure {
    let name = format!("server{}", fastrand::u64(..));
    let server = Server::start(&pki.server_directory(&name, leaf).unwrap()).await;
    // A server that waits for a client which refused it.
    let (outcome, _) = tokio::join!(connect(host, server.port(), files), server.accept());
    match outcome {
        Err(TlsError::Handshake(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_certificate_of_another_host_is_refused_with_its_names() {
    let pki = Pki::new().unwrap();
    let files = trusting(&pki.directory("ca").unwrap());
    let leaf = Leaf::server(&["vmhost.example", "10.0.0.1"]);
    for host in ["localhost", "127.0.0.1"] {
        let failure = failure(host, &pki, &leaf, &files).await;
        assert_eq!(failure.to_string(), "the certificate is for vmhost.example, 10.0.0.1");
    }
    let failure = failure("127.0.0.1", &pki, &Leaf::server(&["localhost"]), &files).await;
    assert!(matches!(failure, TlsFailure::WrongHost { .. }), "{failure:?}");
}

#[tokio::test]
async fn a_certificate_with_a_common_name_only_is_refused() {
    let pki = Pki::new().unwrap();
    let files = trusting(&pki.directory("ca").unwrap());
    let failure = failure("localhost", &pki, &Leaf::server(&[]), &files).await;
    assert!(matches!(failure, TlsFailure::NoNames), "{failure:?}");
}

#[tokio::test]
async fn a_certificate_is_refused_outside_its_validity() {
    let pki = Pki::new().unwrap();
    let files = trusting(&pki.directory("ca").unwrap());
    let leaf = Leaf::server(&["localhost"]);
    let past = failure("localhost", &pki, &leaf.clone().validity(Validity::Past), &files).await;
    assert!(matches!(past, TlsFailure::Expired { seconds: 86_400.. }), "{past:?}");
    let future = failure("localhost", &pki, &leaf.validity(Validity::Future), &files).await;
    assert!(matches!(future, TlsFailure::NotYetValid { seconds: 86_400.. }), "{future:?}");
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused() {
    let pki = Pki::new().unwrap();
    let other = Pki::new().unwrap();
    let files = trusting(&other.directory("ca").unwrap());
    let failure = failure("localhost", &pki, &Leaf::server(&["localhost"]), &files).await;
    // Both CAs have the same name, so that only the signature tells them apart.
    assert!(matches!(failure, TlsFailure::UnknownIssuer), "{failure:?}");
}

#[tokio::test]
async fn a_revoked_certificate_and_an_old_list_are_refused() {
    let pki = Pki::new().unwrap();
    let directory = pki.directory("server").unwrap();
    let certificate = pki.issue(&Leaf::server(&["localhost"])).unwrap();
    certificate.write(&directory, "server").unwrap();
    let server = Server::start(&directory).await;
    let mut files = trusting(&directory);
    files.crl = Some(directory.join("cacrl.pem"));
    let attempt = async |is_revoked: bool, validity| {
        let revoked: Vec<_> = is_revoked.then_some(&certificate).into_iter().collect();
        pki.revoke(&directory, &revoked, validity).unwrap();
        tokio::join!(connect("localhost", server.port(), &files), server.accept()).0
    };
    attempt(false, Validity::Now).await.unwrap();
    let revoked = attempt(true, Validity::Now).await.unwrap_err();
    assert!(matches!(revoked, TlsError::Handshake(TlsFailure::Revoked)), "{revoked:?}");
    let old = attempt(false, Validity::Past).await.unwrap_err();
    let is_old = matches!(old, TlsError::Handshake(TlsFailure::ExpiredRevocationList));
    assert!(is_old, "{old:?}");
}

#[tokio::test]
async fn without_a_ca_every_certificate_is_accepted() {
    let pki = Pki::new().unwrap();
    for (number, leaf) in
        [Leaf::server(&[]), Leaf::server(&["other"]).validity(Validity::Past)].iter().enumerate()
    {
        let directory = pki.server_directory(&format!("server{number}"), leaf).unwrap();
        for versions in [&version::TLS13, &version::TLS12] {
            let server = Server::with(&directory, &[versions], false).await;
            let files = TlsFiles::default();
            let (socket, peer) =
                tokio::join!(connect("localhost", server.port(), &files), server.accept());
            socket.unwrap();
            peer.unwrap();
        }
    }
}

/// A client directory with a key in this form.
fn client(pki: &Pki, form: KeyForm) -> TlsFiles {
    let certificate = pki.issue(&Leaf::client("fred").key(form)).unwrap();
    let directory = pki.client_directory(&format!("{form:?}"), Some(&certificate)).unwrap();
    let client = Some((directory.join("clientcert.pem"), directory.join("clientkey.pem")));
    TlsFiles { client, ..trusting(&directory) }
}

#[tokio::test]
async fn a_client_certificate_has_a_key_in_any_of_three_forms() {
    let pki = Pki::new().unwrap();
    let directory = pki.server_directory("server", &Leaf::server(&["127.0.0.1"])).unwrap();
    for form in [KeyForm::Pkcs8, KeyForm::Sec1, KeyForm::Pkcs1] {
        let files = client(&pki, form);
        for versions in [&version::TLS13, &version::TLS12] {
            let server = Server::with(&directory, &[versions], true).await;
            let (socket, peer) =
                tokio::join!(connect("127.0.0.1", server.port(), &files), server.accept());
            peer.unwrap();
            socket.unwrap();
        }
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_gets_the_servers_alert() {
    let pki = Pki::new().unwrap();
    let directory = pki.server_directory("server", &Leaf::server(&["localhost"])).unwrap();
    let files = trusting(&directory);
    // With TLS 1.3 the alert comes after the handshake, to the first read.
    let server = Server::with(&directory, &[&version::TLS13], true).await;
    let (socket, _) = tokio::join!(connect("localhost", server.port(), &files), server.accept());
    let error = read(&mut socket.unwrap(), &mut [0; 8]).await.unwrap_err();
    let failure = TlsFailure::of(error);
    assert!(matches!(failure, TlsFailure::ClientRefused(_)), "{failure:?}");
    let server = Server::with(&directory, &[&version::TLS12], true).await;
    let (socket, _) = tokio::join!(connect("localhost", server.port(), &files), server.accept());
    // In TLS 1.2 an alert in the handshake has no more precise number for it.
    assert!(matches!(socket, Err(TlsError::Handshake(_))), "{socket:?}");
}

#[tokio::test]
async fn a_port_without_tls_is_told_apart() {
    let pki = Pki::new().unwrap();
    let files = trusting(&pki.directory("ca").unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (outcome, peer) = tokio::join!(connect("localhost", port, &files), async {
        let mut peer = listener.accept().await.unwrap().0;
        peer.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n").await.unwrap();
        peer
    });
    drop(peer);
    assert!(matches!(outcome, Err(TlsError::Handshake(TlsFailure::NotTls))), "{outcome:?}");
    let (outcome, ()) = tokio::join!(connect("localhost", port, &files), async {
        drop(listener.accept().await.unwrap());
    });
    assert!(matches!(outcome, Err(TlsError::Handshake(TlsFailure::Closed))), "{outcome:?}");
}

#[tokio::test]
async fn a_silent_port_ends_the_handshake_at_the_deadline() {
    let pki = Pki::new().unwrap();
    let client = trusting(&pki.directory("ca").unwrap()).load().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let deadline = deadline_after(Duration::from_millis(50));
    let outcome = Socket::connect_tls("localhost", port, &client, deadline).await;
    assert!(matches!(outcome, Err(TlsError::TimedOut)), "{outcome:?}");
}

#[tokio::test]
async fn a_host_that_no_certificate_can_name_is_refused() {
    let pki = Pki::new().unwrap();
    let files = trusting(&pki.directory("ca").unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let outcome = connect("127.0.0.1%lo", port, &files).await;
    assert!(outcome.is_err(), "{outcome:?}");
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_its_problem() {
    let pki = Pki::new().unwrap();
    let good = client(&pki, KeyForm::Pkcs8);
    let (certificate, key) = good.client.clone().unwrap();
    let write = |name: &str, text: &str| -> PathBuf {
        let path = key.with_file_name(name);
        fs::write(&path, text).unwrap();
        path
    };
    let problem = |files: &TlsFiles| {
        let error = files.load().unwrap_err();
        (error.path, error.problem)
    };
    let with_key = |key: &Path| {
        let client = Some((certificate.clone(), key.into()));
        TlsFiles { client, ..good.clone() }
    };

    let empty = write("empty", "nothing here\n");
    let (path, found) = problem(&trusting(&empty.join("..")));
    assert!(matches!(found, FileProblem::Unreadable(_)), "{path:?}: {found}");
    let (path, found) = problem(&TlsFiles { ca: Some(empty.clone()), ..TlsFiles::default() });
    assert!(path == empty && matches!(found, FileProblem::Without("certificate")), "{found}");
    let (path, found) =
        problem(&TlsFiles { crl: Some(empty.clone()), ..trusting(key.parent().unwrap()) });
    assert!(path == empty && matches!(found, FileProblem::Without("revocation list")), "{found}");
    let (_, found) = problem(&with_key(&empty));
    assert!(matches!(found, FileProblem::Without("private key")), "{found}");
    let encrypted = write(
        "encrypted",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n\
                                        -----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let (_, found) = problem(&with_key(&encrypted));
    assert!(matches!(found, FileProblem::Encrypted), "{found}");
    let other = write("other", &pki.issue(&Leaf::client("other")).unwrap().key);
    let (path, found) = problem(&with_key(&other));
    assert!(path == other && matches!(found, FileProblem::OtherCertificate), "{found}");
    let damaged =
        write("damaged", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let (path, found) = problem(&TlsFiles { ca: Some(damaged.clone()), ..TlsFiles::default() });
    assert!(path == damaged && matches!(found, FileProblem::Unusable(_)), "{found}");
}

#[test]
fn a_client_shows_nothing_of_its_key() {
    let pki = Pki::new().unwrap();
    let files = client(&pki, KeyForm::Pkcs8);
    let key = fs::read_to_string(&files.client.as_ref().unwrap().1).unwrap();
    let shown = format!("{files:?} {:?}", files.load().unwrap());
    let line = key.lines().nth(1).unwrap();
    assert!(!shown.contains(line) && shown.len() < 20_000, "{shown}");
}
