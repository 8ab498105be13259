//! SASL, by way of libvirt's calls.

use virevent::Error;
use zeroize::Zeroizing;

use super::exchange::{Exchange, Failure};
use super::mechanism::{self, Mechanism};
use crate::auth::{self, Callback, Candidate, CredentialsRequest, Places};
use crate::client::malformed;
use crate::session::{Opener, Session};
use crate::wire::xdr::{Reader, Writer};
use crate::wire::{SaslReply, SaslStart, SaslStep, code, procs};

/// How often the callback is asked on one connection.
const MAX_ATTEMPTS: u32 = 3;

/// The most replies of the server in one exchange: SCRAM has two, and one more where the server
/// sends its proof before it says that the exchange is complete.
const MAX_REPLIES: usize = 8;

impl Session {
    pub(super) async fn authenticate_by_sasl(&mut self, opener: &Opener) -> Result<(), Error> {
        let mut attempt = 1;
        let mut refused: Option<(Candidate, String)> = None;
        loop {
            // Also after a refusal: without it libvirtd refuses even the right password.
            let mechanism = self.choose_mechanism(opener).await?;
            let message = refused.as_ref().map(|(_, message)| message.clone());
            let candidate = match &opener.credentials {
                Some(callback) => {
                    let request = request(opener, mechanism, attempt, message);
                    self.ask(callback, &request).await?
                }
                None => None,
            };
            let is_asked = candidate.is_some();
            let candidate = match (candidate, refused.take()) {
                (Some(candidate), _) => candidate,
                (None, Some((candidate, message))) => {
                    return Err(refusal(&candidate, mechanism, &message));
                }
                (None, None) => self.stored(opener, mechanism)?,
            };
            tracing::debug!(mechanism = mechanism.name(), candidate.origin, "SASL");
            let Some(message) = self.exchange_sasl(mechanism, &candidate).await? else {
                return Ok(());
            };
            if !is_asked || attempt == MAX_ATTEMPTS {
                return Err(refusal(&candidate, mechanism, &message));
            }
            refused = Some((candidate, message));
            attempt += 1;
        }
    }

    async fn choose_mechanism(&mut self, opener: &Opener) -> Result<Mechanism, Error> {
        let reply = self.call(procs::AUTH_SASL_INIT, |_| {}).await?;
        let offer = Reader::new(&reply).string();
        let offer = offer.map_err(|error| malformed(&error, procs::AUTH_SASL_INIT))?;
        mechanism::choose(offer, opener.uri.is_private()).map_err(|reason| {
            Error::authentication(format!("SASL, on {}, by {reason}", self.endpoint))
        })
    }

    async fn ask(
        &mut self,
        callback: &Callback,
        request: &CredentialsRequest,
    ) -> Result<Option<Candidate>, Error> {
        // For the error at the deadline.
        self.awaits_credentials = true;
        let credentials = callback.0.credentials(request).await;
        self.awaits_credentials = false;
        credentials.map(|found| Candidate::new(found, "the credentials callback")).transpose()
    }

    fn stored(&self, opener: &Opener, mechanism: Mechanism) -> Result<Candidate, Error> {
        let places = Places::now()?;
        let host = opener.uri.host();
        auth::find(&places, opener.uri.authfile.as_deref(), host)?.ok_or_else(|| {
            Error::authentication(format!(
                "SASL ({}), on {}, and there are no credentials: write [auth-libvirt-{host}] into \
                 libvirt's auth file (LIBVIRT_AUTH_FILE, authfile=, ~/.config/libvirt/auth.conf), \
                 set {} and {}, or call Libvirt::credentials()",
                mechanism.name(),
                self.endpoint,
                auth::USER_VARIABLE,
                auth::PASSWORD_VARIABLE,
            ))
        })
    }

    /// One exchange. The server's message if it refuses the credentials.
    async fn exchange_sasl(
        &mut self,
        mechanism: Mechanism,
        candidate: &Candidate,
    ) -> Result<Option<String>, Error> {
        let wrong = |failure| explain(failure, mechanism, candidate);
        let exchange = Exchange::new(mechanism, candidate.credentials.clone()).map_err(wrong)?;
        let (mut exchange, mut data) = step(exchange, None).await.map_err(wrong)?;
        let mut procedure = procs::AUTH_SASL_START;
        for _ in 0..MAX_REPLIES {
            let reply = {
                let data = data.as_deref().map(|data| &**data);
                let start = SaslStart { mechanism: mechanism.name().as_bytes(), data };
                let next = SaslStep { data };
                match procedure {
                    procs::AUTH_SASL_START => {
                        self.call_secret(procedure, start.size(), |args| start.write(args)).await
                    }
                    _ => self.call_secret(procedure, next.size(), |args| next.write(args)).await,
                }
            };
            let reply = match reply {
                Ok(reply) => reply,
                Err(Error::Server(error)) if error.code == code::AUTH_FAILED => {
                    return Ok(Some(error.message.clone()));
                }
                Err(error) => return Err(error),
            };
            let reply = SaslReply::read(&mut Reader::new(&reply))
                .map_err(|error| malformed(&error, procedure))?;
            data = None;
            if !exchange.is_done() {
                (exchange, data) = step(exchange, reply.data).await.map_err(wrong)?;
            }
            match (reply.complete, exchange.is_done()) {
                (true, true) => return Ok(None),
                // The server lets the client in before its own proof was seen.
                (true, false) => return Err(wrong(Failure::Unproven)),
                (false, _) => procedure = procs::AUTH_SASL_STEP,
            }
        }
        Err(Error::protocol(format!("SASL is not complete after {MAX_REPLIES} replies")))
    }

    /// Makes a call of the handshake whose arguments are a secret.
    async fn call_secret(
        &mut self,
        procedure: i32,
        size: usize,
        args: impl FnOnce(&mut Writer<'_>),
    ) -> Result<Vec<u8>, Error> {
        self.client.call_secret(procedure, size, args);
        let reply = self.handshake_reply().await;
        self.client.calls.wipe_written();
        reply
    }
}

/// One step of the exchange; what to send.
async fn step(
    mut exchange: Exchange,
    input: Option<Vec<u8>>,
) -> Result<(Exchange, Option<Zeroizing<Vec<u8>>>), Failure> {
    let is_slow = exchange.is_slow(input.as_deref());
    let run = move || {
        let out = exchange.step(input.as_deref())?;
        Ok((exchange, out))
    };
    if !is_slow {
        return run();
    }
    // The server chooses how long the hash takes; other tasks of this thread must not wait for it.
    match tokio::task::spawn_blocking(run).await {
        Ok(outcome) => outcome,
        Err(error) => Err(Failure::Protocol(format!("the client's step failed: {error}"))),
    }
}

fn request(
    opener: &Opener,
    mechanism: Mechanism,
    attempt: u32,
    refusal: Option<String>,
) -> CredentialsRequest {
    CredentialsRequest {
        uri: opener.uri.shown.clone(),
        host: opener.uri.host().to_owned(),
        mechanism: mechanism.name(),
        attempt,
        refusal,
    }
}

fn refusal(candidate: &Candidate, mechanism: Mechanism, message: &str) -> Error {
    // Every refusal has this code, whatever the reason.
    Error::credentials(
        &*candidate.origin,
        format!(
            "{message} ({}, code {}); check both, and that the daemon's SASL database has the user",
            mechanism.name(),
            code::AUTH_FAILED
        ),
    )
}

fn explain(failure: Failure, mechanism: Mechanism, candidate: &Candidate) -> Error {
    let name = mechanism.name();
    match failure {
        Failure::Credentials => Error::authentication(format!(
            "SASL, and the user or the password of {} has characters that {name} does not allow",
            candidate.origin
        )),
        Failure::Protocol(what) => Error::protocol(format!("{name}: {what}")),
        Failure::Unproven => Error::authentication(format!(
            "SASL, and the server did not prove that it knows the password ({name}): it may be \
             another server that pretends to be the daemon"
        )),
    }
}
