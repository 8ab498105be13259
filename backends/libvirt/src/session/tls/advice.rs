//! The texts of TLS errors: what is wrong, and what to do.

use virevent::Error;
use virevent_transport::tls::TlsFailure;
use virevent_transport::{Endpoint, TlsFiles};

/// What had no reply, for the text of a timeout.
pub(super) const HANDSHAKE: &str = "the TLS handshake (does this port speak TLS?)";
pub(super) const VERDICT: &str = "the TLS handshake (the server has not yet accepted the client)";

/// The error for a handshake that failed. It is a refusal where only a new certificate or a change
/// of the configuration can help.
pub(super) fn failed(
    endpoint: &Endpoint,
    host: &str,
    files: &TlsFiles,
    failure: TlsFailure,
) -> Error {
    use TlsFailure as F;
    let shown = |file: &Option<std::path::PathBuf>| {
        file.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    };
    let advice = match &failure {
        F::WrongHost { .. } => format!(
            "not for {host:?}: connect by a name that it has, or reissue it with {host} in \
             subjectAltName"
        ),
        F::NoNames => format!(
            "and its common name does not count: reissue it with subjectAltName = {}",
            alt_name(host)
        ),
        F::Expired { .. } => "renew it on that host, and restart its daemon".into(),
        F::NotYetValid { .. } => "check the clocks of both hosts".into(),
        F::UnknownIssuer => format!(
            "put the certificate of its CA into {}, or give its directory as pkipath=",
            shown(&files.ca)
        ),
        F::Revoked => format!("by {}: issue a new one for that host", shown(&files.crl)),
        F::ExpiredRevocationList => {
            format!("get a new {} from the CA", shown(&files.crl))
        }
        F::BadCertificate(_) => "reissue it".into(),
        F::Incompatible(_) => "this client has TLS 1.3 and 1.2: update the daemon's host".into(),
        F::ClientRefused(why) => return refused_client(endpoint, files, Some(why)),
        F::NotTls => {
            return Error::protocol(format!(
                "{failure}; check that {endpoint} is the TLS port of a libvirt daemon"
            ));
        }
        F::Closed => {
            return Error::closed(
                endpoint.to_string(),
                "during the TLS handshake: does this port speak TLS? libvirtd does with listen_tls \
                 = 1, on port 16514",
            );
        }
        _ => {
            let Some(source) = std::error::Error::source(&failure).is_none().then_some(failure)
            else {
                return Error::protocol("the TLS handshake failed".to_owned());
            };
            return Error::unreachable(
                endpoint.to_string(),
                "the TLS handshake failed",
                std::io::Error::other(source),
            );
        }
    };
    let separator = match &failure {
        F::WrongHost { .. } | F::NoNames | F::Revoked => " ",
        _ => "; ",
    };
    let comma = if matches!(failure, F::WrongHost { .. } | F::NoNames) { "," } else { "" };
    Error::untrusted(endpoint.to_string(), format!("{failure}{comma}{separator}{advice}"))
}

/// The error for a server that accepts no client without a certificate, or not this certificate.
pub(super) fn refused_client(endpoint: &Endpoint, files: &TlsFiles, why: Option<&str>) -> Error {
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    let detail = match &files.client {
        None => format!(
            "{endpoint} closed the connection{why} after the TLS handshake: it wants a client \
             certificate; put clientcert.pem and clientkey.pem into libvirt's places, or into the \
             directory that pkipath= names"
        ),
        Some((certificate, _)) => format!(
            "{endpoint} refused the client certificate {}{why}: check that its issuer is in the \
             CA file of the daemon, that it is valid and not revoked, and that tls_allowed_dn_list \
             has its name; the daemon's log has the reason",
            certificate.display()
        ),
    };
    Error::authentication(detail)
}

/// The host as an entry of subjectAltName.
fn alt_name(host: &str) -> String {
    let sort = if host.parse::<std::net::IpAddr>().is_ok() { "IP" } else { "DNS" };
    format!("{sort}:{host}")
}
