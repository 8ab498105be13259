//! A CA of one's own, and what it issues.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256,
    RevocationReason, RevokedCertParams, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

/// An RSA key of 2,048 bits, for tests only: ring makes none.
const RSA_KEY: &str = include_str!("rsa-2048-for-tests.pem");

/// Where the key itself begins in ring's PKCS#8 form of it, for P-256 and for RSA with 2,048 bits.
const EC_KEY: usize = 29;
const RSA_KEY_START: usize = 26;

/// A certificate authority, and directories for what it issues.
pub struct Pki {
    directory: TempDir,
    ca: rcgen::Certificate,
    key: KeyPair,
    serial: AtomicU64,
}

/// What a certificate is to say. By value: `Leaf::server(&["localhost"]).validity(Validity::Past)`.
#[derive(Clone, Debug)]
pub struct Leaf {
    name: String,
    alt_names: Vec<String>,
    usage: ExtendedKeyUsagePurpose,
    validity: Validity,
    form: KeyForm,
}

/// When a certificate, or a revocation list, is valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Validity {
    /// Until 2001.
    Past,
    /// From 2001 to 2090.
    #[default]
    Now,
    /// From 2090 on.
    Future,
}

/// How a key is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyForm {
    /// An EC key in PKCS#8: `BEGIN PRIVATE KEY`.
    #[default]
    Pkcs8,
    /// An EC key as SEC1 has it: `BEGIN EC PRIVATE KEY`.
    Sec1,
    /// An RSA key in PKCS#1: `BEGIN RSA PRIVATE KEY`.
    Pkcs1,
}

/// A certificate and its key.
#[derive(Debug)]
pub struct Certificate {
    /// In PEM.
    pub certificate: String,
    /// In PEM.
    pub key: String,
    serial: u64,
}

impl Leaf {
    /// The certificate of a server, which has these names and addresses in its subjectAltName. With
    /// none it has a common name only: `localhost`.
    #[must_use]
    pub fn server(alt_names: &[&str]) -> Self {
        Self {
            name: "localhost".into(),
            alt_names: alt_names.iter().map(|name| (*name).into()).collect(),
            usage: ExtendedKeyUsagePurpose::ServerAuth,
            validity: Validity::Now,
            form: KeyForm::Pkcs8,
        }
    }

    /// The certificate of a client with this common name.
    #[must_use]
    pub fn client(name: &str) -> Self {
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        Self { name: name.into(), usage, ..Self::server(&[]) }
    }

    /// Sets when it is valid.
    #[must_use]
    pub fn validity(mut self, validity: Validity) -> Self {
        self.validity = validity;
        self
    }

    /// Sets how its key is written.
    #[must_use]
    pub fn key(mut self, form: KeyForm) -> Self {
        self.form = form;
        self
    }
}

impl Validity {
    /// The first and the last year.
    fn years(self) -> (i32, i32) {
        match self {
            Self::Past => (2000, 2001),
            Self::Now => (2001, 2090),
            Self::Future => (2090, 2091),
        }
    }
}

impl Pki {
    /// Makes a CA.
    ///
    /// # Errors
    /// No key can be made, or no directory.
    pub fn new() -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("vp").tempdir()?;
        // A daemon may run as another user.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "CA for tests");
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2090, 1, 1);
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let ca = params.self_signed(&key).map_err(io::Error::other)?;
        Ok(Self { directory, ca, key, serial: AtomicU64::new(1) })
    }

    /// Issues a certificate.
    ///
    /// # Errors
    /// A name is none.
    pub fn issue(&self, leaf: &Leaf) -> io::Result<Certificate> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let mut params =
            CertificateParams::new(leaf.alt_names.clone()).map_err(io::Error::other)?;
        params.serial_number = Some(SerialNumber::from(serial));
        params.distinguished_name.push(DnType::CommonName, &leaf.name);
        // libvirtd 9.0 does not start with a certificate that lacks either, although an EC key
        // cannot encipher.
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![leaf.usage.clone()];
        let (first, last) = leaf.validity.years();
        params.not_before = date_time_ymd(first, 1, 1);
        params.not_after = date_time_ymd(last, 1, 1);
        let key = match leaf.form {
            KeyForm::Pkcs8 | KeyForm::Sec1 => KeyPair::generate(),
            KeyForm::Pkcs1 => KeyPair::from_pkcs8_pem_and_sign_algo(RSA_KEY, &PKCS_RSA_SHA256),
        };
        let key = key.map_err(io::Error::other)?;
        let certificate = params.signed_by(&key, &self.ca, &self.key).map_err(io::Error::other)?;
        let der = key.serialize_der();
        let key = match leaf.form {
            KeyForm::Pkcs8 => key.serialize_pem(),
            KeyForm::Sec1 => pem("EC PRIVATE KEY", der.get(EC_KEY..)),
            KeyForm::Pkcs1 => pem("RSA PRIVATE KEY", der.get(RSA_KEY_START..)),
        };
        Ok(Certificate { certificate: certificate.pem(), key, serial })
    }

    /// A new directory with the CA's certificate (`cacert.pem`).
    ///
    /// # Errors
    /// It cannot be made.
    pub fn directory(&self, name: &str) -> io::Result<PathBuf> {
        let directory = self.directory.path().join(name);
        fs::create_dir(&directory)?;
        fs::write(directory.join("cacert.pem"), self.ca.pem())?;
        Ok(directory)
    }

    /// A new directory for a client, its `pkipath`: the CA's certificate, and, if there is one, the
    /// client's and its key.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn client_directory(
        &self,
        name: &str,
        certificate: Option<&Certificate>,
    ) -> io::Result<PathBuf> {
        let directory = self.directory(name)?;
        certificate.map(|it| it.write(&directory, "client")).transpose()?;
        Ok(directory)
    }

    /// A new directory for a server: the CA's certificate, the server's and its key.
    ///
    /// # Errors
    /// It cannot be made, or the certificate cannot be issued.
    pub fn server_directory(&self, name: &str, leaf: &Leaf) -> io::Result<PathBuf> {
        let directory = self.directory(name)?;
        self.issue(leaf)?.write(&directory, "server")?;
        Ok(directory)
    }

    /// Writes the list of the certificates that are revoked into the directory (`cacrl.pem`).
    ///
    /// # Errors
    /// It cannot be written.
    pub fn revoke(
        &self,
        directory: &Path,
        revoked: &[&Certificate],
        validity: Validity,
    ) -> io::Result<()> {
        let (first, last) = validity.years();
        let revoked_certs = revoked.iter().map(|certificate| RevokedCertParams {
            serial_number: SerialNumber::from(certificate.serial),
            revocation_time: date_time_ymd(2001, 2, 1),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(first, 1, 1),
            next_update: date_time_ymd(last, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.ca, &self.key).map_err(io::Error::other)?;
        fs::write(directory.join("cacrl.pem"), list.pem().map_err(io::Error::other)?)
    }
}

impl Certificate {
    /// Writes it and its key into the directory: `clientcert.pem` and `clientkey.pem` for the role
    /// `client`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, directory: &Path, role: &str) -> io::Result<()> {
        fs::write(directory.join(format!("{role}cert.pem")), &self.certificate)?;
        fs::write(directory.join(format!("{role}key.pem")), &self.key)
    }
}

impl fmt::Debug for Pki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pki").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// rcgen writes no other form of keys than PKCS#8.
fn pem(tag: &str, der: Option<&[u8]>) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {tag}-----\n");
    for line in der.unwrap_or_default().chunks(48) {
        for three in line.chunks(3) {
            let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            for digit in 0..4 {
                let value = (bits >> (18 - 6 * digit) & 63) as usize;
                text.push(if digit > three.len() { '=' } else { DIGITS[value].into() });
            }
        }
        text.push('\n');
    }
    text + &format!("-----END {tag}-----\n")
}
