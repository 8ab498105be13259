//! A TLS server before a unix socket.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};

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
        let server = Server {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            socket: socket.into(),
            clients,
            refusals: Arc::clone(&refusals),
        };
        let accepting = tokio::spawn(accept(listener, Arc::new(server))).abort_handle();
        Ok(Self { port, refusals, accepting })
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
        client.write_all(&[1]).await?;
        client.flush().await?;
        copy_bidirectional(&mut client, &mut daemon).await.map(drop)
    }
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
    ) -> Result<tokio_rustls::rustls::client::danger::HandshakeSignatureValid, Error> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<tokio_rustls::rustls::client::danger::HandshakeSignatureValid, Error> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
