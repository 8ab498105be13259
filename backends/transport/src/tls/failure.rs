//! Why a TLS connection failed.

use std::io;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error};

/// Why a TLS handshake failed, or the connection after it.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum TlsFailure {
    /// The server's certificate has names or addresses, but not that of the host.
    #[error("the certificate is for {}", .presented.join(", "))]
    WrongHost {
        /// What the certificate's subjectAltName has, as people write it.
        presented: Vec<String>,
    },
    /// The server's certificate has no subjectAltName; a common name does not count.
    #[error("the certificate has no subjectAltName")]
    NoNames,
    /// The server's certificate, or one of its issuers, has expired.
    #[error("the certificate expired {} ago", days(*.seconds))]
    Expired {
        /// How many seconds ago.
        seconds: u64,
    },
    /// The server's certificate, or one of its issuers, is valid from a later time on.
    #[error("the certificate is not valid for another {}", days(*.seconds))]
    NotYetValid {
        /// In how many seconds it will be.
        seconds: u64,
    },
    /// The server's certificate was issued by a CA that is not in the CA file.
    #[error("the certificate's issuer is not trusted")]
    UnknownIssuer,
    /// The revocation list has the server's certificate.
    #[error("the certificate is revoked")]
    Revoked,
    /// The revocation list is too old to rely on.
    #[error("the revocation list has expired")]
    ExpiredRevocationList,
    /// Something else is wrong with the server's certificate.
    #[error("the certificate cannot be used: {0}")]
    BadCertificate(String),
    /// The server refused the client's certificate, or requires one.
    #[error("the server refused the client's certificate: {0}")]
    ClientRefused(String),
    /// The two have no version or cipher in common.
    #[error("no TLS version and cipher in common: {0}")]
    Incompatible(String),
    /// What the peer sent is no TLS.
    #[error("the reply is not TLS")]
    NotTls,
    /// The peer closed the connection.
    #[error("the peer closed the connection")]
    Closed,
    /// The system reported an error, or the peer broke the protocol.
    #[error(transparent)]
    Io(io::Error),
}

impl TlsFailure {
    /// The failure in an error of a handshake, or of [`Socket::poll_io`](crate::Socket::poll_io):
    /// with TLS 1.3 a server refuses the client's certificate after the handshake.
    #[must_use]
    pub fn of(error: io::Error) -> Self {
        use io::ErrorKind as E;
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match (tls, error.kind()) {
            (Some(Error::InvalidCertificate(error)), _) => Self::of_certificate(error),
            (Some(Error::AlertReceived(alert)), _) => Self::of_alert(*alert),
            (Some(Error::PeerIncompatible(why)), _) => Self::Incompatible(format!("{why:?}")),
            (Some(Error::NoCertificatesPresented), _) => {
                Self::BadCertificate("the server sent none".into())
            }
            (Some(Error::InvalidMessage(_)), _) => Self::NotTls,
            (None, E::UnexpectedEof | E::ConnectionReset | E::BrokenPipe) => Self::Closed,
            _ => Self::Io(error),
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        use CertificateError as C;
        match error {
            C::NotValidForNameContext { presented, .. } if presented.is_empty() => Self::NoNames,
            C::NotValidForNameContext { presented, .. } => {
                Self::WrongHost { presented: presented.iter().map(|name| plain(name)).collect() }
            }
            C::NotValidForName => Self::WrongHost { presented: vec!["another host".into()] },
            C::ExpiredContext { time, not_after } => {
                Self::Expired { seconds: time.as_secs().saturating_sub(not_after.as_secs()) }
            }
            C::Expired => Self::Expired { seconds: 0 },
            C::NotValidYetContext { time, not_before } => {
                Self::NotYetValid { seconds: not_before.as_secs().saturating_sub(time.as_secs()) }
            }
            C::NotValidYet => Self::NotYetValid { seconds: 0 },
            // A CA that was made again has the old one's name, but another key.
            C::UnknownIssuer | C::BadSignature => Self::UnknownIssuer,
            C::Revoked => Self::Revoked,
            C::ExpiredRevocationList | C::ExpiredRevocationListContext { .. } => {
                Self::ExpiredRevocationList
            }
            other => Self::BadCertificate(other.to_string()),
        }
    }

    fn of_alert(alert: AlertDescription) -> Self {
        use AlertDescription as A;
        match alert {
            A::NoCertificate
            | A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::AccessDenied
            | A::CertificateRequired => Self::ClientRefused(format!("{alert:?}")),
            A::HandshakeFailure | A::ProtocolVersion | A::InsufficientSecurity => {
                Self::Incompatible(format!("{alert:?}"))
            }
            _ => {
                let error = Error::AlertReceived(alert);
                Self::Io(io::Error::new(io::ErrorKind::InvalidData, error))
            }
        }
    }
}

/// A name of a certificate. rustls writes them as `DnsName("host")` and `IpAddress(127.0.0.1)`.
fn plain(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"').into()
}

fn days(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} seconds"),
        120..7_200 => format!("{} minutes", seconds / 60),
        7_200..172_800 => format!("{} hours", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}
