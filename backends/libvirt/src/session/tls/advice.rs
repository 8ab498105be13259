//! The texts of TLS errors: what is wrong, and what to do.

use std::path::Path;

use virevent::Error;
use virevent_transport::tls::TlsFailure;
use virevent_transport::{Endpoint, TlsFiles};

/// What had no reply, for the text of a timeout.
pub(super) const HANDSHAKE: &str = "the TLS handshake (does this port speak TLS?)";
pub(super) const VERDICT: &str = "the TLS handshake (the server has not yet accepted the client)";

/// A libvirtd that is asked for TLS on its plain port closes the connection, and so does one that
/// stops.
const CLOSED: &str = "during the TLS handshake: does this port speak TLS? libvirtd does with \
                      listen_tls = 1, on port 16514";

/// The error for a handshake that failed. It is a refusal where only a new certificate or a change
/// of the configuration can help.
pub(super) fn failed(
    endpoint: &Endpoint,
    host: &str,
    files: &TlsFiles,
    failure: TlsFailure,
) -> Error {
    use TlsFailure as F;
    let what = failure.to_string();
    let detail = match failure {
        F::WrongHost { .. } => format!(
            "{what}, not for {host}: connect by a name that it has, or reissue it with \
             subjectAltName = {}",
            alt_name(host)
        ),
        F::NoNames => format!(
            "{what}, and its common name does not count: reissue it with subjectAltName = {}",
            alt_name(host)
        ),
        F::Expired { .. } => format!("{what}: renew it on that host, and restart the daemon"),
        F::NotYetValid { .. } => format!("{what}: check the clocks of both hosts"),
        F::UnknownIssuer => format!(
            "{what}: put the certificate of its CA into {}, or give its directory as pkipath=",
            shown(files.ca.as_deref())
        ),
        F::Revoked => {
            format!("{what} by {}: issue a new one for that host", shown(files.crl.as_deref()))
        }
        F::ExpiredRevocationList => {
            format!("{what}: get a new {} from the CA", shown(files.crl.as_deref()))
        }
        F::BadCertificate(_) => format!("{what}: reissue it"),
        F::Incompatible(_) => {
            format!("{what}: this client has TLS 1.3 and 1.2; update the daemon's host")
        }
        F::ClientRefused(why) => return refused_client(endpoint, files, Some(&why)),
        F::Closed => return Error::closed(endpoint.to_string(), CLOSED),
        F::Io(error) => {
            return Error::unreachable(endpoint.to_string(), "the TLS handshake failed", error);
        }
        // NotTls, and failures that are new.
        _ => {
            return Error::protocol(format!(
                "{what}; check that {endpoint} is the TLS port of a libvirt daemon"
            ));
        }
    };
    Error::untrusted(endpoint.to_string(), detail)
}

fn shown(file: Option<&Path>) -> String {
    file.map(|path| path.display().to_string()).unwrap_or_default()
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
