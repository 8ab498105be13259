//! The address of a socket.

use std::fmt;
use std::path::PathBuf;

use crate::child::Program;

/// The most bytes that the path of a unix socket can have: `sun_path` of `sockaddr_un` has 108, and
/// the last is a NUL.
pub const MAX_SOCKET_PATH: usize = 107;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// The path of a unix socket.
    Unix(PathBuf),
    /// Host and port. An IPv6 address has no brackets here.
    Tcp(String, u16),
    /// A program to connect through.
    Child(Program),
}

/// The path, `host:port`, `[address]:port` or the program's label.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Child(program) => f.write_str(&program.label),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_shown_as_people_write_it() {
        let shown = |endpoint: Endpoint| endpoint.to_string();
        assert_eq!(shown(Endpoint::Unix("/run/vm.sock".into())), "/run/vm.sock");
        assert_eq!(shown(Endpoint::Tcp("vmhost".into(), 4444)), "vmhost:4444");
        assert_eq!(shown(Endpoint::Tcp("::1".into(), 4444)), "[::1]:4444");
    }

    #[test]
    fn a_path_of_107_bytes_can_be_bound_and_a_longer_one_not() {
        use std::os::unix::net::UnixListener;

        let home = tempfile::tempdir().unwrap();
        let length = MAX_SOCKET_PATH - home.path().as_os_str().len() - 1;
        UnixListener::bind(home.path().join("x".repeat(length))).unwrap();
        let error = UnixListener::bind(home.path().join("x".repeat(length + 1))).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
}
