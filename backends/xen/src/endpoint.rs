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

/// How long a socket's path may be, in bytes: `sun_path` of `sockaddr_un`, without its NUL.
const LONGEST: usize = 107;

/// Where a store is to be, and whose word that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    /// The variable of the environment that says so.
    pub(crate) variable: Option<&'static str>,
}

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

/// Where the store of this host is.
pub(crate) fn of_this_host(around: &Surroundings) -> Place {
    let said = |variable| Some(((around.variable)(variable)?, Some(variable)));
    if let Some((path, variable)) = said("XENSTORED_PATH") {
        return Place { path: path.into(), variable };
    }
    if let Some((dir, variable)) = said("XENSTORED_RUNDIR") {
        return Place { path: PathBuf::from(dir).join("socket"), variable };
    }
    let mut places = SOCKETS.iter().chain(&DEVICES).map(Path::new);
    let path = places.find(|path| (around.exists)(path)).unwrap_or(Path::new(SOCKETS[0])).into();
    Place { path, variable: None }
}

impl Place {
    pub(crate) fn given(path: &Path) -> Self {
        Self { path: path.into(), variable: None }
    }

    /// What is there. Only what can be a store's is ever opened: whatever a request is written to else
    /// would take it for something, a terminal or a watchdog.
    ///
    /// # Errors
    /// [`Error::Unreachable`]: there is nothing, or nothing that leads to a store.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, Error> {
        let path = &self.path;
        if path.is_relative() {
            return Err(self.unfit("it is relative: give the whole path of xenstored's socket"));
        }
        let failed = |error| self.unreachable(error);
        // A link may have any name: what counts is what it leads to.
        let real = path.canonicalize().map_err(failed)?;
        let file = real.metadata().map_err(failed)?.file_type();
        let is_device = if file.is_char_device() {
            real.file_name().is_some_and(|name| name == "xenbus")
        } else {
            file.is_file() && real == Path::new(DEVICES[1])
        };
        if is_device {
            return Ok(Endpoint::Device(path.clone()));
        }
        if !file.is_socket() {
            let what = if file.is_dir() {
                "a directory"
            } else if file.is_file() {
                "a plain file"
            } else if file.is_char_device() || file.is_block_device() {
                "a device, and not a store's, which are called xenbus"
            } else {
                "a pipe"
            };
            let advice = "give xenstored's socket, as in xenstore:/run/xenstored/socket";
            return Err(self.unfit(&format!("it is {what}: {advice}")));
        }
        if path.as_os_str().len() > LONGEST {
            return Err(self.unfit(&format!(
                "its path is longer than the {LONGEST} bytes that a socket's may have: give a link to \
                 it that is shorter"
            )));
        }
        Ok(Endpoint::Socket(path.clone()))
    }

    /// The path is no store's, whatever is there.
    fn unfit(&self, reason: &str) -> Error {
        self.error(reason, io::ErrorKind::InvalidInput.into())
    }

    /// It could not be opened.
    pub(crate) fn unreachable(&self, error: io::Error) -> Error {
        use io::ErrorKind as E;
        let reason = match error.kind() {
            E::NotFound | E::NotADirectory => {
                "there is no such socket: is this domain 0 of a Xen host, and does xenstored run? Else \
                 give the socket, as in xenstore:/run/xenstored/socket"
            }
            E::ConnectionRefused => {
                "no process listens on the socket: start xenstored again, or see why it ended in its log"
            }
            E::PermissionDenied => "this user may not open it: run as root, in domain 0",
            E::WouldBlock => {
                "too many clients wait for xenstored to let them in: is it busy, or hung?"
            }
            _ if error.raw_os_error() == Some(rustix::io::Errno::PROTOTYPE.raw_os_error()) => {
                "it is a socket for datagrams, and xenstored's is not: give xenstored's socket, as in \
                 xenstore:/run/xenstored/socket"
            }
            _ => "check the path, and xenstored's log",
        };
        self.error(reason, error)
    }

    fn error(&self, reason: &str, source: io::Error) -> Error {
        let reason = match self.variable {
            Some(variable) => format!("{reason} (the path is that of ${variable})"),
            None => reason.into(),
        };
        let endpoint = self.path.display().to_string();
        Error::Unreachable { endpoint, reason, source: Arc::new(source) }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) | Self::Device(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Surroundings = Surroundings { variable: |_| None, exists: |_| false };

    fn place(around: &Surroundings) -> String {
        of_this_host(around).path.display().to_string()
    }

    fn refusal(path: &Path) -> String {
        Place::given(path).endpoint().unwrap_err().to_line()
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
    fn a_path_from_the_environment_is_an_error_that_names_the_variable() {
        let rundir = |name: &str| (name == "XENSTORED_RUNDIR").then(|| OsString::from("/no/such"));
        let place = of_this_host(&Surroundings { variable: rundir, ..NONE });
        let said = place.endpoint().unwrap_err().to_line();
        assert!(said.contains("/no/such/socket") && said.contains("$XENSTORED_RUNDIR"), "{said}");
        let relative = |name: &str| (name == "XENSTORED_PATH").then(|| OsString::from("here"));
        let place = of_this_host(&Surroundings { variable: relative, ..NONE });
        let said = place.endpoint().unwrap_err().to_line();
        assert!(said.contains("give the whole path") && said.contains("$XENSTORED_PATH"), "{said}");
    }

    #[test]
    fn what_is_at_a_path_decides_how_it_is_spoken_to() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&socket, &link).unwrap();
        for path in [socket, link] {
            assert_eq!(Place::given(&path).endpoint().unwrap(), Endpoint::Socket(path));
        }
        let said = refusal(&dir.path().join("nothing"));
        assert!(said.contains("does xenstored run"), "{said}");
        for (path, what) in
            [(dir.path(), "a directory"), (Path::new("/etc/passwd"), "a plain file")]
        {
            let said = refusal(path);
            assert!(said.contains(what) && said.contains("xenstore:/run/"), "{said}");
        }
    }

    #[test]
    fn no_device_and_no_file_in_proc_is_taken_for_a_store_but_a_stores() {
        let dir = tempfile::tempdir().unwrap();
        // A link's name makes no store of what it leads to.
        let link = dir.path().join("xenbus");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        for path in [Path::new("/dev/null"), &link] {
            assert!(refusal(path).contains("a device, and not a store's"));
        }
        assert!(refusal(Path::new("/proc/self/comm")).contains("a plain file"));
    }

    #[test]
    fn a_path_that_is_too_long_for_a_socket_is_not_even_tried() {
        let dir = tempfile::tempdir().unwrap();
        let (short, long) = (dir.path().join("s"), dir.path().join("d".repeat(120)));
        let _listener = std::os::unix::net::UnixListener::bind(&short).unwrap();
        std::fs::rename(&short, &long).unwrap();
        assert!(refusal(&long).contains("longer than the 107 bytes"));
    }

    #[test]
    fn a_lack_of_permission_is_a_refusal_and_says_who_may() {
        let place = Place::given(Path::new("/run/x"));
        let error = place.unreachable(io::ErrorKind::PermissionDenied.into());
        assert!(error.is_refusal() && error.to_line().contains("run as root, in domain 0"));
        assert!(!place.unreachable(io::ErrorKind::ConnectionRefused.into()).is_refusal());
    }
}
