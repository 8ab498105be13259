//! Connecting by TLS: libvirt's files, the handshake, and the server's verdict on the client.
//!
//! ```text
//!   files ─▶ TCP ─▶ handshake ─▶ one byte ─▶ the RPC
//!                                   └─ EOF: refused ─▶ once more ─▶ EOF: Authentication
//! ```
//!
//! After the handshake the server sends the byte 1 if it accepts the client's certificate
//! (`virNetServerClientCheckTLS`), and closes the connection if not, without an alert. A server
//! that stops closes it as well, so that only two such ends in a row count as a refusal.

mod advice;
mod places;

use std::future::poll_fn;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout_at};
use virevent::Error;
use virevent_transport::tls::TlsFailure;
use virevent_transport::{Endpoint, Outbox, Socket, TlsClient, TlsError, TlsFiles};

use self::places::Places;
use super::Opener;
use crate::uri::TlsParams;

/// How long to wait before the second attempt. A server that stops has closed its port by then.
const SECOND_ATTEMPT: Duration = Duration::from_millis(200);

/// What the server said to the client's certificate.
enum Verdict {
    Accepted(Socket),
    /// It closed the connection instead.
    Closed,
}

impl Opener {
    /// Connects, does the handshake, and waits for the server's verdict.
    pub(super) async fn tls_socket(
        &self,
        endpoint: &Endpoint,
        address: (&str, u16),
        params: &TlsParams,
        deadline: Instant,
    ) -> Result<Socket, Error> {
        // For each connection, so that a new certificate is used without a restart.
        let (files, client) = self.load(params, deadline).await?;
        for _ in 0..2 {
            match self.attempt(endpoint, address, &client, &files, deadline).await? {
                Verdict::Accepted(socket) => return Ok(socket),
                Verdict::Closed => sleep(SECOND_ATTEMPT).await,
            }
        }
        Err(advice::refused_client(endpoint, &files, None))
    }

    async fn load(
        &self,
        params: &TlsParams,
        deadline: Instant,
    ) -> Result<(TlsFiles, TlsClient), Error> {
        let params = params.clone();
        // A file system that hangs must not hang the runtime.
        let loading = spawn_blocking(move || {
            let files = Places::of(&params).files(&params)?;
            let client = files.load().map_err(|error| places::unusable(&error))?;
            Ok((files, client))
        });
        match timeout_at(deadline, loading).await {
            Ok(Ok(loaded)) => {
                loaded.map_err(|reason: String| Error::invalid_uri(&*self.uri.shown, reason))
            }
            Ok(Err(_ended)) => Err(Error::DriverEnded),
            Err(_) => Err(self.timed_out("reading the certificate files")),
        }
    }

    async fn attempt(
        &self,
        endpoint: &Endpoint,
        (host, port): (&str, u16),
        client: &TlsClient,
        files: &TlsFiles,
        deadline: Instant,
    ) -> Result<Verdict, Error> {
        let failed = |failure| advice::failed(endpoint, host, files, failure);
        let mut socket = match Socket::connect_tls(host, port, client, deadline).await {
            Ok(socket) => socket,
            Err(TlsError::Connect(error)) => return Err(self.unconnected(endpoint, error)),
            Err(TlsError::Handshake(failure)) => return Err(failed(failure)),
            Err(TlsError::TimedOut) => return Err(self.timed_out(advice::HANDSHAKE)),
            Err(TlsError::HostName(_)) => {
                let reason = format!("{host:?} is neither a DNS name nor an IP address");
                return Err(Error::invalid_uri(&*self.uri.shown, reason));
            }
        };
        let mut verdict = [0];
        let mut outbox = Outbox::default();
        let reading = poll_fn(|cx| socket.poll_io(cx, &mut outbox, &mut verdict));
        match timeout_at(deadline, reading).await {
            Err(_) => Err(self.timed_out(advice::VERDICT)),
            Ok(Ok(0)) => Ok(Verdict::Closed),
            Ok(Ok(_)) if verdict == [1] => {
                socket.write_in_pieces(message_length);
                Ok(Verdict::Accepted(socket))
            }
            Ok(Ok(_)) => Err(Error::protocol(format!(
                "after the TLS handshake the byte 1 is expected, not {}; check that a libvirt \
                 daemon listens on {endpoint}",
                verdict[0]
            ))),
            Ok(Err(error)) => match TlsFailure::of(error) {
                TlsFailure::Closed => Ok(Verdict::Closed),
                failure => Err(failed(failure)),
            },
        }
    }
}

/// The length of the message that the bytes begin with: its first word.
///
/// libvirtd takes one message from a record of TLS, waits until the socket is readable, and only
/// then takes the next one, also if GnuTLS has that decrypted already (`virNetSocketHasCachedData`
/// knows of SASL only). Two calls in one record would leave the second without a reply.
fn message_length(bytes: &[u8]) -> usize {
    match bytes.first_chunk() {
        Some(word) => u32::from_be_bytes(*word) as usize,
        None => bytes.len(),
    }
}
