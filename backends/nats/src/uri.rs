//! `nats://[user[:password]@]server[:port][/stream]`. Parsing does no I/O.

use std::str::FromStr;

use async_nats::ServerAddr;
use virevent::Error;
use virevent_transport::uri::mask_password;

/// The stream of a URI that names none.
const DEFAULT_STREAM: &str = "virevent";

/// A parsed URI.
#[derive(Clone)]
pub(crate) struct NatsUri {
    /// The URI without the password.
    pub(crate) shown: String,
    pub(crate) server: ServerAddr,
    /// Host and port, for messages.
    pub(crate) endpoint: String,
    pub(crate) stream: String,
}

// Not derived: the server's address has the password.
impl std::fmt::Debug for NatsUri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("NatsUri").field(&self.shown).finish()
    }
}

impl NatsUri {
    /// # Errors
    /// [`Error::InvalidUri`]: what is wrong, and what to do.
    pub(crate) fn parse(uri: &str) -> Result<Self, Error> {
        parse(uri).map_err(|reason| Error::invalid_uri(mask_password(uri), reason))
    }

    /// The name of the bucket of states that belongs to the stream.
    pub(crate) fn bucket(&self) -> String {
        format!("{}_state", self.stream)
    }
}

fn parse(uri: &str) -> Result<NatsUri, String> {
    if uri.chars().any(|character| character.is_control() || character == ' ') {
        return Err(
            "it has a blank or a control character in it: write it as %20 and the like".into()
        );
    }
    let Some(rest) = uri.strip_prefix("nats://") else {
        return Err("give the server, as in nats://server:4222/stream".into());
    };
    if let Some(start) = rest.find(['?', '#']) {
        return Err(format!("it takes no {:?}: give nats://server/stream", &rest[start..]));
    }
    let (authority, stream) = rest.split_once('/').unwrap_or((rest, ""));
    let stream = if stream.is_empty() { DEFAULT_STREAM } else { stream };
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if stream.len() > 64 || !stream.bytes().all(is_valid) {
        return Err(format!(
            "{stream:?} is no stream: give 1 to 64 letters, digits, '-' and '_', as in \
             nats://server/virevent"
        ));
    }
    if authority.is_empty() {
        return Err("it names no server: give nats://server:4222/stream".into());
    }
    let server = ServerAddr::from_str(&format!("nats://{authority}"))
        .map_err(|error| format!("it names no server ({error}): give nats://server:4222/stream"))?;
    let endpoint = format!("{}:{}", server.host(), server.port());
    Ok(NatsUri { shown: mask_password(uri), server, endpoint, stream: stream.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_server_and_stream() {
        for (uri, endpoint, stream) in [
            ("nats://h", "h:4222", "virevent"),
            ("nats://h:1/", "h:1", "virevent"),
            ("nats://joe:x@h:1/fleet_2", "h:1", "fleet_2"),
        ] {
            let parsed = NatsUri::parse(uri).unwrap();
            assert_eq!(parsed.endpoint, endpoint);
            assert_eq!(parsed.stream, stream);
        }
    }

    #[test]
    fn a_password_is_shown_nowhere() {
        let parsed = NatsUri::parse("nats://joe:sesame@h/fleet").unwrap();
        assert_eq!(parsed.shown, "nats://joe:***@h/fleet");
        assert!(!format!("{parsed:?}").contains("sesame"));
        let error = NatsUri::parse("nats://joe:sesame@h/a.b").unwrap_err();
        assert!(!error.to_string().contains("sesame"), "{error}");
    }

    #[test]
    fn an_invalid_uri_is_refused_with_advice() {
        for uri in [
            "nats:",
            "nats:h",
            "nats://",
            "nats:///s",
            "nats://h/a.b",
            "nats://h/a/b",
            "nats://h:x",
            "nats://h/s?durable=x",
            "nats://h/s#x",
            "nats://h /s",
        ] {
            let error = NatsUri::parse(uri).unwrap_err().to_string();
            assert!(error.contains("nats://server") || error.contains("%20"), "{error}");
        }
    }
}
