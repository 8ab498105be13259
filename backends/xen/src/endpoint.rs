//! Where the store of this host is, and what to do when it cannot be opened.
//!
//! As libxenstore does it: `$XENSTORED_PATH`, else `$XENSTORED_RUNDIR/socket`, else the socket in
//! `/run/xenstored` or `/var/run/xenstored`. Where there is none, because the daemon runs in a domain of
//! its own, the kernel leads to it: `/dev/xen/xenbus`, in old ones `/proc/xen/xenbus`.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use virevent::Error;

const SOCKETS: [&str; 2] = ["/run/xenstored/socket", "/var/run/xenstored/socket"];
const DEVICES: [&str; 2] = ["/dev/xen/xenbus", "/proc/xen/xenbus"];

/// What leads to a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Socket(PathBuf),
    Device(PathBuf),
}

/// What the choice depends on besides the URI.
pub(crate) struct Surroundings {
    pub(crate) variable: fn(&str) -> Option<OsString>,
    /// Whether there is something at a path.
    pub(crate) exists: fn(&Path) -> bool,
}

impl Surroundings {
    pub(crate) fn now() -> Self {
        Self {
            variable: |name| std::env::var_os(name).filter(|value| !value.is_empty()),
            // What may not be looked at is there, or may be: opening it tells.
            exists: |path| path.try_exists().unwrap_or(true),
        }
    }
}

impl Endpoint {
    /// What `path` leads to.
    ///
    /// # Errors
    /// [`Error::Unreachable`]: there is nothing, or nothing that leads to a store.
    pub(crate) fn at(path: &Path) -> Result<Self, Error> {
        let failed = |error| unreachable(path, error);
        let file = path.metadata().map_err(failed)?.file_type();
        // The one in /proc is a plain file.
        if file.is_char_device() || (file.is_file() && path.starts_with("/proc")) {
            Ok(Self::Device(path.into()))
        } else if file.is_socket() {
            Ok(Self::Socket(path.into()))
        } else {
            Err(failed(io::ErrorKind::InvalidInput.into()))
        }
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Socket(path) | Self::Device(path) => path,
        }
    }
}

/// Where the store of this host is.
pub(crate) fn of_this_host(around: &Surroundings) -> PathBuf {
    if let Some(path) = (around.variable)("XENSTORED_PATH") {
        return path.into();
    }
    if let Some(dir) = (around.variable)("XENSTORED_RUNDIR") {
        return PathBuf::from(dir).join("socket");
    }
    let mut places = SOCKETS.iter().chain(&DEVICES).map(Path::new);
    places.find(|path| (around.exists)(path)).unwrap_or(Path::new(SOCKETS[0])).into()
}

pub(crate) fn unreachable(path: &Path, error: io::Error) -> Error {
    use io::ErrorKind as E;
    let reason = match error.kind() {
        E::NotFound | E::NotADirectory => {
            "there is no such socket: is this domain 0 of a Xen host, and does xenstored run? Else give \
             the socket, as in xenstore:/run/xenstored/socket"
        }
        E::ConnectionRefused => "nobody listens on the socket: xenstored died, or was stopped",
        E::PermissionDenied => "this user may not open it: run as root, in domain 0",
        // A path that is too long, too.
        E::InvalidInput => {
            "it is neither a socket nor a device, or longer than the 107 bytes that a socket's path \
             may have: give xenstored's socket, as in xenstore:/run/xenstored/socket"
        }
        E::WouldBlock => "too many clients wait for xenstored to let them in: is it busy, or hung?",
        _ => "check the path, and xenstored's log",
    };
    Error::Unreachable {
        endpoint: path.display().to_string(),
        reason: reason.into(),
        source: Arc::new(error),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path().display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Surroundings = Surroundings { variable: |_| None, exists: |_| false };

    fn place(around: &Surroundings) -> String {
        of_this_host(around).display().to_string()
    }

    #[test]
    fn the_store_of_this_host_is_where_libxenstore_would_look() {
        assert_eq!(place(&NONE), "/run/xenstored/socket");
        let both = |name: &str| Some(OsString::from(format!("/{name}")));
        assert_eq!(place(&Surroundings { variable: both, ..NONE }), "/XENSTORED_PATH");
        let rundir = |name: &str| (name == "XENSTORED_RUNDIR").then(|| OsString::from("/x"));
        assert_eq!(place(&Surroundings { variable: rundir, ..NONE }), "/x/socket");
        let old: fn(&Path) -> bool = |path| path.starts_with("/var") || path.starts_with("/dev");
        assert_eq!(place(&Surroundings { exists: old, ..NONE }), "/var/run/xenstored/socket");
        let device: fn(&Path) -> bool = |path| path.starts_with("/dev");
        assert_eq!(place(&Surroundings { exists: device, ..NONE }), "/dev/xen/xenbus");
    }

    #[test]
    fn what_is_at_a_path_decides_how_it_is_spoken_to() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(Endpoint::at(&socket).unwrap(), Endpoint::Socket(socket));
        assert!(matches!(Endpoint::at(Path::new("/dev/null")), Ok(Endpoint::Device(_))));
        for path in [dir.path(), Path::new("/etc/passwd")] {
            let said = Endpoint::at(path).unwrap_err().to_line();
            assert!(said.contains("neither a socket nor a device"), "{said}");
        }
        let said = Endpoint::at(&dir.path().join("nothing")).unwrap_err().to_line();
        assert!(said.contains("does xenstored run"), "{said}");
    }

    #[test]
    fn a_lack_of_permission_is_a_refusal_and_says_who_may() {
        let error = unreachable(Path::new("/run/x"), io::ErrorKind::PermissionDenied.into());
        assert!(error.is_refusal() && error.to_line().contains("run as root, in domain 0"));
        assert!(
            !unreachable(Path::new("/run/x"), io::ErrorKind::ConnectionRefused.into()).is_refusal()
        );
    }
}
