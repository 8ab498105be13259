//! A TLS server before a unix socket.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Which clients a [`TlsFront`] accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// All.
    Any,
    /// Those with a certificate, whatever it says.
    WithCertificate,
}

/// A TLS server on a port of the loopback address. It sends the byte 1 to each client that it
/// accepts, as libvirtd does, and passes what comes after it on to a unix socket. To others it
/// closes the connection after the handshake. Dropping it closes all connections.
#[derive(Debug)]
pub struct TlsFront {
    port: u16,
    refusals: Arc<AtomicU32>,
    greeting: Arc<AtomicU8>,
    accepting: AbortHandle,
}

impl TlsFront {
    /// Listens, with `servercert.pem` and `serverkey.pem` of this directory.
    ///
    /// # Errors
    /// The files cannot be used, or there is no port.
    ///
    /// # Cancel safety
    /// Dropped midway it leaves nothing behind.
    pub async fn before(socket: &Path, directory: &Path, clients: Clients) -> io::Result<Self> {
        let chain = CertificateDer::pem_file_iter(directory.join("servercert.pem"))
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(io::Error::other)?;
        let key = PrivateKeyDer::from_pem_file(directory.join("serverkey.pem"))
            .map_err(io::Error::other)?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_client_cert_verifier(Arc::new(AskOnly))
            .with_single_cert(chain, key)
            .map_err(io::Error::other)?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let refusals = Arc::new(AtomicU32::new(0));
        let greeting = Arc::new(AtomicU8::new(1));
        let server = Server {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            socket: socket.into(),
            clients,
            refusals: Arc::clone(&refusals),
            greeting: Arc::clone(&greeting),
        };
        let accepting = tokio::spawn(accept(listener, Arc::new(server))).abort_handle();
        Ok(Self { port, refusals, greeting, accepting })
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Refuses so many of the next connections, after the handshake, whatever their certificate.
    pub fn refuse(&self, connections: u32) {
        self.refusals.store(connections, Ordering::Relaxed);
    }

    /// How many connections it will still refuse because of [`refuse`](Self::refuse).
    #[must_use]
    pub fn refusals_left(&self) -> u32 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// Sends this byte to each client that it accepts, in place of 1.
    pub fn greet_with(&self, byte: u8) {
        self.greeting.store(byte, Ordering::Relaxed);
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

struct Server {
    acceptor: TlsAcceptor,
    socket: PathBuf,
    clients: Clients,
    refusals: Arc<AtomicU32>,
    greeting: Arc<AtomicU8>,
}

async fn accept(listener: TcpListener, server: Arc<Server>) {
    // Dropped with this task, and its tasks with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { return };
                let server = Arc::clone(&server);
                connections.spawn(async move { server.serve(client).await });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

impl Server {
    async fn serve(&self, client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let mut client = self.acceptor.accept(client).await?;
        let has_certificate = client.get_ref().1.peer_certificates().is_some();
        let take_one = |left: u32| left.checked_sub(1);
        let is_refused =
            self.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one).is_ok();
        if is_refused || (self.clients == Clients::WithCertificate && !has_certificate) {
            return Ok(());
        }
        let mut daemon = UnixStream::connect(&self.socket).await?;
        client.write_all(&[self.greeting.load(Ordering::Relaxed)]).await?;
        client.flush().await?;
        relay(&mut client, &mut daemon).await
    }
}

/// Passes on what each side sends, until either closes its connection.
///
/// libvirtd reads one message, and then waits until the socket is readable, also when GnuTLS has
/// more of the record (seen with 9.0). So one message a record is passed on, and what else was in
/// the record only with the next one.
async fn relay(client: &mut TlsStream<TcpStream>, daemon: &mut UnixStream) -> io::Result<()> {
    let mut calls = Vec::new();
    let mut replies = vec![0; 65_536];
    loop {
        tokio::select! {
            record = client.fill_buf() => {
                let record = record?;
                let count = record.len();
                if count == 0 {
                    return Ok(());
                }
                calls.extend_from_slice(record);
                client.consume(count);
                if let Some(length) = first_message(&calls) {
                    daemon.write_all(&calls[..length]).await?;
                    calls.drain(..length);
                }
            }
            count = daemon.read(&mut replies) => {
                let count = count?;
                if count == 0 {
                    return client.shutdown().await;
                }
                client.write_all(&replies[..count]).await?;
                client.flush().await?;
            }
        }
    }
}

/// The length of the message that the bytes begin with, if it is whole.
fn first_message(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
    (4..=bytes.len()).contains(&length).then_some(length)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Asks for a certificate and takes any, as libvirtd's handshake does: it looks at it afterwards.
#[derive(Debug)]
struct AskOnly;

impl ClientCertVerifier for AskOnly {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
