//! Where libvirt keeps the certificates of a client.
//!
//! The rules are libvirt's (`virNetTLSContextLocateCredentials`). `pkipath` is the one directory
//! of all files. Without it a user's files are in `~/.pki/libvirt`, and each that is not there is
//! taken from the system's places, certificate and key as a pair. Root has the system's places
//! only.
//!
//! libvirt ignores a key whose certificate is missing, and connects without either. Here that is
//! an error: it would end as a refusal for another reason.

use std::path::{Path, PathBuf};

use virevent_transport::TlsFiles;
use virevent_transport::tls::{FileProblem, TlsFileError};

use crate::uri::TlsParams;

#[derive(Debug)]
pub(super) struct Places {
    /// The first is tried first.
    candidates: Vec<Candidate>,
    /// Whether a path exists, or cannot be looked at.
    exists: fn(&Path) -> bool,
}

#[derive(Debug)]
struct Candidate {
    ca: PathBuf,
    crl: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Places {
    pub(super) fn of(params: &TlsParams) -> Self {
        let exists = |path: &Path| path.try_exists().unwrap_or(true);
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let home = home.filter(|_| !rustix::process::geteuid().is_root());
        Self::new(params, home.as_deref(), exists)
    }

    /// `home`: the user's, if it counts.
    fn new(params: &TlsParams, home: Option<&Path>, exists: fn(&Path) -> bool) -> Self {
        let candidates = match &params.pkipath {
            Some(directory) => vec![Candidate::within(Path::new(directory))],
            None => {
                let user = home.map(|home| Candidate::within(&home.join(".pki/libvirt")));
                user.into_iter().chain([Candidate::of_system()]).collect()
            }
        };
        Self { candidates, exists }
    }

    /// The files that there are.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub(super) fn files(&self, params: &TlsParams) -> Result<TlsFiles, String> {
        let mut files = TlsFiles::default();
        // Without verification nothing is verified against it.
        if !params.no_verify {
            files.ca = Some(self.ca()?);
            files.crl = self.first(|place| &place.crl);
        }
        files.client = self.client()?;
        Ok(files)
    }

    fn ca(&self) -> Result<PathBuf, String> {
        self.first(|place| &place.ca).ok_or_else(|| {
            let places: Vec<_> =
                self.candidates.iter().map(|place| place.ca.display().to_string()).collect();
            format!(
                "there is no {}: put the certificate of the CA of the daemon's host there, or give \
                 its directory as pkipath=",
                places.join(" and no ")
            )
        })
    }

    fn client(&self) -> Result<Option<(PathBuf, PathBuf)>, String> {
        for Candidate { certificate, key, .. } in &self.candidates {
            let lone = |present: &Path, missing: &Path| {
                format!(
                    "there is {}, but no {}: the two belong together; add the one, or remove the \
                     other to connect without a client certificate",
                    present.display(),
                    missing.display()
                )
            };
            match ((self.exists)(certificate), (self.exists)(key)) {
                (true, true) => return Ok(Some((certificate.clone(), key.clone()))),
                (true, false) => return Err(lone(certificate, key)),
                (false, true) => return Err(lone(key, certificate)),
                (false, false) => {}
            }
        }
        Ok(None)
    }

    fn first(&self, file: impl Fn(&Candidate) -> &PathBuf) -> Option<PathBuf> {
        self.candidates.iter().map(file).find(|path| (self.exists)(path)).cloned()
    }
}

impl Candidate {
    fn within(directory: &Path) -> Self {
        Self {
            ca: directory.join("cacert.pem"),
            crl: directory.join("cacrl.pem"),
            certificate: directory.join("clientcert.pem"),
            key: directory.join("clientkey.pem"),
        }
    }

    fn of_system() -> Self {
        Self {
            ca: "/etc/pki/CA/cacert.pem".into(),
            crl: "/etc/pki/CA/cacrl.pem".into(),
            certificate: "/etc/pki/libvirt/clientcert.pem".into(),
            key: "/etc/pki/libvirt/private/clientkey.pem".into(),
        }
    }
}

/// A file that cannot be used, and what to do.
pub(super) fn unusable(error: &TlsFileError) -> String {
    match &error.problem {
        FileProblem::Unreadable(cause) if cause.kind() == std::io::ErrorKind::PermissionDenied => {
            format!("{error}: allow this user to read it, or give pkipath=DIRECTORY")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(uri: (Option<&str>, bool), home: Option<&str>, exists: fn(&Path) -> bool) -> Outcome {
        let (pkipath, no_verify) = uri;
        let params = TlsParams { pkipath: pkipath.map(Into::into), no_verify };
        Places::new(&params, home.map(Path::new), exists).files(&params)
    }

    type Outcome = Result<TlsFiles, String>;

    fn pair(certificate: &str, key: &str) -> Option<(PathBuf, PathBuf)> {
        Some((certificate.into(), key.into()))
    }

    #[test]
    fn root_has_the_systems_files() {
        let all = files((None, false), None, |_| true).unwrap();
        let client =
            pair("/etc/pki/libvirt/clientcert.pem", "/etc/pki/libvirt/private/clientkey.pem");
        let expected = TlsFiles {
            ca: Some("/etc/pki/CA/cacert.pem".into()),
            crl: Some("/etc/pki/CA/cacrl.pem".into()),
            client,
        };
        assert_eq!(all, expected);
    }

    #[test]
    fn a_users_files_come_before_the_systems() {
        let all = files((None, false), Some("/home/u"), |path| {
            path.starts_with("/etc") || path.ends_with("cacert.pem")
        });
        let all = all.unwrap();
        assert_eq!(all.ca, Some("/home/u/.pki/libvirt/cacert.pem".into()));
        assert_eq!(all.crl, Some("/etc/pki/CA/cacrl.pem".into()));
        let system =
            pair("/etc/pki/libvirt/clientcert.pem", "/etc/pki/libvirt/private/clientkey.pem");
        assert_eq!(all.client, system);
        let all = files((None, false), Some("/home/u"), |_| true).unwrap();
        let user =
            pair("/home/u/.pki/libvirt/clientcert.pem", "/home/u/.pki/libvirt/clientkey.pem");
        assert_eq!(all.client, user);
    }

    #[test]
    fn pkipath_is_the_only_place_if_it_is_given() {
        let all = files((Some("/pki"), false), Some("/home/u"), |path| {
            path == Path::new("/pki/cacert.pem") || !path.starts_with("/pki")
        });
        let ca = Some("/pki/cacert.pem".into());
        assert_eq!(all.unwrap(), TlsFiles { ca, crl: None, client: None });
    }

    #[test]
    fn without_verification_no_ca_is_needed() {
        assert_eq!(files((None, true), None, |_| false).unwrap(), TlsFiles::default());
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = files((None, false), Some("/home/u"), |_| false).unwrap_err();
        assert!(error.contains("/home/u/.pki/libvirt/cacert.pem and no /etc/pki/CA/cacert.pem"));
        let without_key = |path: &Path| !path.ends_with("clientkey.pem");
        let error = files((Some("/pki"), false), None, without_key).unwrap_err();
        assert!(error.contains("there is /pki/clientcert.pem, but no /pki/clientkey.pem"));
        let without_certificate = |path: &Path| !path.ends_with("clientcert.pem");
        let error = files((Some("/pki"), false), None, without_certificate).unwrap_err();
        assert!(error.contains("there is /pki/clientkey.pem, but no /pki/clientcert.pem"));
    }
}
