//! The client's side of one SASL exchange, without I/O: rsasl, with limits.

use std::fmt;
use std::sync::Arc;

use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::config::SASLConfig;
use rsasl::mechanisms::{plain, scram};
use rsasl::mechname::Mechname;
use rsasl::prelude::{Mechanism as Registered, Registry, SASLClient, SessionError};
use rsasl::property::{AuthId, Password};
use zeroize::Zeroizing;

use super::mechanism::Mechanism;
use crate::auth::Credentials;

/// The most iterations of SCRAM's hash. Each costs the client time, and the server chooses the
/// number: Cyrus SASL has 4,096, and a million takes most of a second.
const MAX_ITERATIONS: u32 = 1_000_000;

/// Neither EXTERNAL nor ANONYMOUS, nor LOGIN.
static MECHANISMS: [Registered; 3] = [scram::SCRAM_SHA256, scram::SCRAM_SHA1, plain::PLAIN];

/// Why an exchange failed on the client's side.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// SASL does not allow these characters in the user or the password.
    Credentials,
    /// The server broke the rules of the mechanism.
    Protocol(String),
    /// The server accepted the client without a proof that it knows the password.
    Unproven,
}

/// One exchange.
pub(super) struct Exchange {
    session: rsasl::prelude::Session,
    mechanism: Mechanism,
    /// The size of the one message with a password in it, PLAIN's. A buffer that grows would leave
    /// a copy of it behind.
    secret_size: usize,
    /// Whether the client has nothing more to say.
    done: bool,
}

/// What the callback of rsasl gives.
struct Supplier(Credentials);

impl SessionCallback for Supplier {
    fn callback(
        &self,
        _: &SessionData,
        _: &Context<'_>,
        request: &mut Request<'_>,
    ) -> Result<(), SessionError> {
        // What else a mechanism may ask for (an identity to act as, cached keys) it goes without.
        request
            .satisfy::<AuthId>(self.0.user())?
            .satisfy::<Password>(self.0.password().as_bytes())?;
        Ok(())
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

impl Exchange {
    pub(super) fn new(mechanism: Mechanism, credentials: Credentials) -> Result<Self, Failure> {
        let secret_size = credentials.size() + 2;
        let unavailable = |error: &dyn fmt::Display| Failure::Protocol(error.to_string());
        let config: Arc<SASLConfig> = SASLConfig::builder()
            .with_registry(Registry::with_mechanisms(&MECHANISMS))
            .with_callback(Supplier(credentials))
            .map_err(|error| unavailable(&error))?;
        let name = Mechname::parse(mechanism.name().as_bytes()).map_err(|e| unavailable(&e))?;
        let session =
            SASLClient::new(config).start_suggested(&[name]).map_err(|e| unavailable(&e))?;
        Ok(Self { session, mechanism, secret_size, done: false })
    }

    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Whether the step with this input takes so long that it must not hold up other tasks.
    pub(super) fn is_slow(&self, input: Option<&[u8]>) -> bool {
        self.mechanism != Mechanism::Plain && input.is_some_and(|input| input.starts_with(b"r="))
    }

    /// Takes the data of the server, and returns what to send; `None` for no data. After an error
    /// the exchange is over.
    pub(super) fn step(
        &mut self,
        input: Option<&[u8]>,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        if self.mechanism != Mechanism::Plain {
            if let Some(input) = input {
                check_scram(input)?;
            }
        }
        let mut out = Zeroizing::new(Vec::with_capacity(self.secret_size));
        let state = self.session.step(input, &mut *out).map_err(|error| failure(&error))?;
        self.done = state.is_finished();
        Ok(state.has_sent_message().then_some(out))
    }
}

/// Checks a SCRAM message of the server before rsasl reads it.
///
/// rsasl 2.3.1 panics where an attribute has less than two bytes, and computes as many iterations as
/// the server says.
fn check_scram(input: &[u8]) -> Result<(), Failure> {
    for attribute in input.split(|byte| *byte == b',') {
        // RFC 5802: a letter, an equals sign, and a value without a comma.
        let [b'a'..=b'z' | b'A'..=b'Z', b'=', value @ ..] = attribute else {
            return Err(Failure::Protocol("a message is not made of attributes".into()));
        };
        if attribute[0] != b'i' {
            continue;
        }
        let count = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u32>().ok());
        if !count.is_some_and(|count| (1..=MAX_ITERATIONS).contains(&count)) {
            return Err(Failure::Protocol(format!(
                "the number of its hash's iterations is not between 1 and {MAX_ITERATIONS}"
            )));
        }
    }
    Ok(())
}

fn failure(error: &SessionError) -> Failure {
    match error {
        SessionError::MutualAuthenticationFailed => Failure::Unproven,
        SessionError::InputDataRequired => Failure::Protocol("data is missing".into()),
        SessionError::MechanismError(error) => {
            // Texts of rsasl alone: they repeat neither data nor credentials.
            Failure::Protocol(error.to_string())
        }
        _ => Failure::Credentials,
    }
}

#[cfg(test)]
mod tests;
