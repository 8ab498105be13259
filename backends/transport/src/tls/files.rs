//! The files of a client: PEM, as libvirt and most others keep them.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
};
use tokio_rustls::rustls::{Error, InconsistentKeys, RootCertStore};

use super::TlsClient;
use super::client::{AcceptAny, Identity, provider};

/// The most bytes of a file: a revocation list of a large CA has some megabytes.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// Where the certificates and the key of a client are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates of the CAs that are trusted. Without it every server is trusted, whatever
    /// its certificate says.
    pub ca: Option<PathBuf>,
    /// Certificates that the CAs have revoked. Only with [`ca`](Self::ca).
    pub crl: Option<PathBuf>,
    /// The client's certificate, followed by those between it and its CA, and its key: PKCS#8,
    /// PKCS#1 or SEC1, without a password.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// A file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct TlsFileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: FileProblem,
}

/// What is wrong with a file.
#[non_exhaustive]
#[derive(Debug)]
pub enum FileProblem {
    /// It cannot be read.
    Unreadable(io::Error),
    /// It is longer than any such file should be.
    TooLong,
    /// It contains nothing of this sort in PEM.
    Without(&'static str),
    /// Its key has a password.
    Encrypted,
    /// Its key belongs to another certificate.
    OtherCertificate,
    /// It is damaged, or of a sort that ring cannot use.
    Unusable(String),
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => error.fmt(f),
            Self::TooLong => write!(f, "it has more than {} MiB", MAX_FILE >> 20),
            Self::Without(what) => write!(f, "it has no {what} in PEM"),
            Self::Encrypted => f.write_str(
                "its key has a password: store the key without one, as `openssl pkey` writes it",
            ),
            Self::OtherCertificate => f.write_str("its key belongs to another certificate"),
            Self::Unusable(why) => f.write_str(why),
        }
    }
}

impl TlsFiles {
    /// Reads the files. This blocks while the file system does.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn load(&self) -> Result<TlsClient, TlsFileError> {
        let verifier: Arc<dyn ServerCertVerifier> = match &self.ca {
            Some(ca) => verifier(ca, self.crl.as_deref())?,
            None => Arc::new(AcceptAny),
        };
        let Some((certificate, key)) = &self.client else {
            return TlsClient::new(verifier, None).map_err(|error| unusable(Path::new(""), &error));
        };
        let identity = identity(certificate, key)?;
        TlsClient::new(verifier, Some(identity)).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsFileError { path: key.clone(), problem: FileProblem::OtherCertificate }
            }
            Error::InvalidCertificate(_) => unusable(certificate, &error),
            error => unusable(key, &error),
        })
    }
}

fn verifier(ca: &Path, crl: Option<&Path>) -> Result<Arc<WebPkiServerVerifier>, TlsFileError> {
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(certificates(ca)?);
    if usable == 0 {
        return Err(unusable(ca, &"no certificate in it can be parsed"));
    }
    let mut builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    if let Some(crl) = crl {
        let lists: Vec<_> = items::<CertificateRevocationListDer<'static>>(crl)?;
        if lists.is_empty() {
            return Err(problem(crl, FileProblem::Without("revocation list")));
        }
        // As GnuTLS has it: a CA need not have a list, but a list that it has must be recent.
        builder = builder
            .with_crls(lists)
            .allow_unknown_revocation_status()
            .enforce_revocation_expiration();
    }
    builder.build().map_err(|error| unusable(crl.unwrap_or(ca), &error))
}

fn identity(certificate: &Path, key: &Path) -> Result<Identity, TlsFileError> {
    let chain = certificates(certificate)?;
    let bytes = read(key)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        let is_encrypted = contains(&bytes, b"BEGIN ENCRYPTED") || contains(&bytes, b",ENCRYPTED");
        match error {
            _ if is_encrypted => problem(key, FileProblem::Encrypted),
            pem::Error::NoItemsFound => problem(key, FileProblem::Without("private key")),
            error => unusable(key, &error),
        }
    })?;
    Ok((chain, key))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    match items(path)? {
        none if none.is_empty() => Err(problem(path, FileProblem::Without("certificate"))),
        certificates => Ok(certificates),
    }
}

fn items<T: PemObject>(path: &Path) -> Result<Vec<T>, TlsFileError> {
    let bytes = read(path)?;
    T::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(|error| unusable(path, &error))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsFileError> {
    let unreadable = |error| problem(path, FileProblem::Unreadable(error));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    match bytes.len() as u64 {
        0..=MAX_FILE => Ok(bytes),
        _ => Err(problem(path, FileProblem::TooLong)),
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn problem(path: &Path, problem: FileProblem) -> TlsFileError {
    TlsFileError { path: path.into(), problem }
}

fn unusable(path: &Path, why: &impl fmt::Display) -> TlsFileError {
    problem(path, FileProblem::Unusable(format!("it cannot be used ({why})")))
}
