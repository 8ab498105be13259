//! The path of this host's store, and advice for when it cannot be opened.
//!
//! The order is that of libxenstore: `$XENSTORED_PATH`, else `$XENSTORED_RUNDIR/socket`, else the socket in
//! `/run/xenstored` or `/var/run/xenstored`. There is no socket where the daemon runs in a domain of its own:
//! then it is the kernel's device, `/dev/xen/xenbus`, with old kernels `/proc/xen/xenbus`.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use virevent::Error;
use virevent_transport::MAX_SOCKET_PATH;

const SOCKETS: [&str; 2] = ["/run/xenstored/socket", "/var/run/xenstored/socket"];
const DEVICES: [&str; 2] = ["/dev/xen/xenbus", "/proc/xen/xenbus"];

/// The path of a store, and where it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StorePath {
    pub(crate) path: PathBuf,
    /// The environment variable that gives it.
    pub(crate) variable: Option<&'static str>,
}

/// A path that can be opened, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreEndpoint {
    Socket(PathBuf),
    Device(PathBuf),
}

/// What the path depends on besides the URI.
pub(crate) struct HostEnvironment {
    pub(crate) variable: fn(&str) -> Option<OsString>,
    /// Whether there is a file at a path.
    pub(crate) exists: fn(&Path) -> bool,
}

impl HostEnvironment {
    pub(crate) fn of_this_process() -> Self {
        Self {
            variable: |name| std::env::var_os(name).filter(|value| !value.is_empty()),
            // A path that this user may not look at may exist: opening it shows.
            exists: |path| path.try_exists().unwrap_or(true),
        }
    }
}

/// The path of this host's store.
pub(crate) fn of_this_host(environment: &HostEnvironment) -> StorePath {
    let given = |variable| Some(((environment.variable)(variable)?, Some(variable)));
    if let Some((path, variable)) = given("XENSTORED_PATH") {
        return StorePath { path: path.into(), variable };
    }
    if let Some((dir, variable)) = given("XENSTORED_RUNDIR") {
        return StorePath { path: PathBuf::from(dir).join("socket"), variable };
    }
    let mut paths = SOCKETS.iter().chain(&DEVICES).map(Path::new);
    let path =
        paths.find(|path| (environment.exists)(path)).unwrap_or(Path::new(SOCKETS[0])).into();
    StorePath { path, variable: None }
}

impl StorePath {
    pub(crate) fn given(path: &Path) -> Self {
        Self { path: path.into(), variable: None }
    }

    /// The endpoint at this path. Only a socket or a store's device is ever opened: a write to another device, such as
    /// a terminal or a watchdog, could have side effects.
    ///
    /// # Errors
    /// [`Error::Unreachable`]: there is no file, or one that cannot be a store's.
    pub(crate) fn endpoint(&self) -> Result<StoreEndpoint, Error> {
        let path = &self.path;
        if path.is_relative() {
            return Err(self.unfit("it is relative: give the whole path of xenstored's socket"));
        }
        let failed = |error| self.unreachable(error);
        // A link may have any name: the name of its target decides.
        let real = path.canonicalize().map_err(failed)?;
        let file = real.metadata().map_err(failed)?.file_type();
        let is_device = if file.is_char_device() {
            real.file_name().is_some_and(|name| name == "xenbus")
        } else {
            file.is_file() && real == Path::new(DEVICES[1])
        };
        if is_device {
            return Ok(StoreEndpoint::Device(path.clone()));
        }
        if !file.is_socket() {
            let what = if file.is_dir() {
                "a directory"
            } else if file.is_file() {
                "a plain file"
            } else if file.is_char_device() || file.is_block_device() {
                "a device, and not a store's, which is called xenbus"
            } else {
                "a pipe"
            };
            let advice = "give xenstored's socket, as in xenstore:/run/xenstored/socket";
            return Err(self.unfit(&format!("it is {what}: {advice}")));
        }
        if path.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(self.unfit(&format!(
                "its path is longer than the {MAX_SOCKET_PATH} bytes that a socket's may have: make a shorter \
                 link to it, and give that"
            )));
        }
        Ok(StoreEndpoint::Socket(path.clone()))
    }

    /// The path cannot be a store's.
    fn unfit(&self, reason: &str) -> Error {
        self.error(reason, io::ErrorKind::InvalidInput.into())
    }

    /// The store could not be opened.
    pub(crate) fn unreachable(&self, error: io::Error) -> Error {
        use io::ErrorKind as E;
        let reason = match error.kind() {
            E::NotFound | E::NotADirectory => {
                "there is no such socket: check that this is domain 0 of a Xen host and that xenstored runs, or \
                 give the socket, as in xenstore:/run/xenstored/socket"
            }
            E::ConnectionRefused => {
                "no process listens on the socket: start xenstored again, or see why it ended in its log"
            }
            E::PermissionDenied => "this user may not open it: run as root, in domain 0",
            E::WouldBlock => {
                "too many clients wait for xenstored to accept them: see whether it is busy or hung"
            }
            _ if error.raw_os_error() == Some(rustix::io::Errno::PROTOTYPE.raw_os_error()) => {
                "it is a datagram socket, and xenstored's is not: give xenstored's socket, as in \
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
        Error::unreachable(endpoint, reason, source)
    }
}

impl fmt::Display for StoreEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) | Self::Device(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: HostEnvironment = HostEnvironment { variable: |_| None, exists: |_| false };

    fn path(environment: &HostEnvironment) -> String {
        of_this_host(environment).path.display().to_string()
    }

    fn refusal(path: &Path) -> String {
        StorePath::given(path).endpoint().unwrap_err().to_line()
    }

    #[test]
    fn the_default_path_is_that_of_libxenstore() {
        assert_eq!(path(&NONE), "/run/xenstored/socket");
        let both = |name: &str| Some(OsString::from(format!("/{name}")));
        assert_eq!(path(&HostEnvironment { variable: both, ..NONE }), "/XENSTORED_PATH");
        let rundir = |name: &str| (name == "XENSTORED_RUNDIR").then(|| OsString::from("/x"));
        assert_eq!(path(&HostEnvironment { variable: rundir, ..NONE }), "/x/socket");
        let old: fn(&Path) -> bool = |path| path.starts_with("/var") || path.starts_with("/dev");
        assert_eq!(path(&HostEnvironment { exists: old, ..NONE }), "/var/run/xenstored/socket");
        let device: fn(&Path) -> bool = |path| path.starts_with("/dev");
        assert_eq!(path(&HostEnvironment { exists: device, ..NONE }), "/dev/xen/xenbus");
    }

    #[test]
    fn an_error_names_the_variable_that_gave_the_path() {
        let rundir = |name: &str| (name == "XENSTORED_RUNDIR").then(|| OsString::from("/no/such"));
        let place = of_this_host(&HostEnvironment { variable: rundir, ..NONE });
        let message = place.endpoint().unwrap_err().to_line();
        assert!(
            message.contains("/no/such/socket") && message.contains("$XENSTORED_RUNDIR"),
            "{message}"
        );
        let relative = |name: &str| (name == "XENSTORED_PATH").then(|| OsString::from("here"));
        let place = of_this_host(&HostEnvironment { variable: relative, ..NONE });
        let message = place.endpoint().unwrap_err().to_line();
        assert!(
            message.contains("give the whole path") && message.contains("$XENSTORED_PATH"),
            "{message}"
        );
    }

    #[test]
    fn the_file_at_a_path_decides_the_endpoint() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&socket, &link).unwrap();
        for path in [socket, link] {
            assert_eq!(StorePath::given(&path).endpoint().unwrap(), StoreEndpoint::Socket(path));
        }
        let message = refusal(&dir.path().join("nothing"));
        assert!(message.contains("that xenstored runs"), "{message}");
        for (path, what) in
            [(dir.path(), "a directory"), (Path::new("/etc/passwd"), "a plain file")]
        {
            let message = refusal(path);
            assert!(message.contains(what) && message.contains("xenstore:/run/"), "{message}");
        }
    }

    #[test]
    fn other_devices_and_files_in_proc_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        // The name of a link is not that of its target.
        let link = dir.path().join("xenbus");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        for path in [Path::new("/dev/null"), &link] {
            assert!(refusal(path).contains("a device, and not a store's"));
        }
        assert!(refusal(Path::new("/proc/self/comm")).contains("a plain file"));
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let short = dir.path().join("s");
        let long = dir.path().join("d".repeat(120));
        let _listener = std::os::unix::net::UnixListener::bind(&short).unwrap();
        std::fs::rename(&short, &long).unwrap();
        assert!(refusal(&long).contains("longer than the 107 bytes"));
    }

    #[test]
    fn a_lack_of_permission_is_a_refusal_with_advice() {
        let place = StorePath::given(Path::new("/run/x"));
        let error = place.unreachable(io::ErrorKind::PermissionDenied.into());
        assert!(error.is_refusal() && error.to_line().contains("run as root, in domain 0"));
        assert!(!place.unreachable(io::ErrorKind::ConnectionRefused.into()).is_refusal());
    }
}
