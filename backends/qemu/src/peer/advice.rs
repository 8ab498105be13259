//! What the errors of connecting mean, and the advice that they carry.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use virevent::Error;
use virevent_transport::MAX_SOCKET_PATH;

use crate::config::MonitorConfig;
use crate::uri::Endpoint;

/// Whether there is no socket, or no process listens on it.
pub(crate) fn is_absent_or_refused(error: &Error) -> bool {
    let is_absent = |source: &io::Error| {
        source.kind() == io::ErrorKind::NotFound
            || Errno::from_io_error(source) == Some(Errno::NOTSOCK)
    };
    is_refused(error) || matches!(error, Error::Unreachable { source, .. } if is_absent(source))
}

/// Whether there is a socket, and no process listens on it.
pub(crate) fn is_refused(error: &Error) -> bool {
    let refused = io::ErrorKind::ConnectionRefused;
    matches!(error, Error::Unreachable { source, .. } if source.kind() == refused)
}

/// Whether the socket is one of datagrams or packets.
pub(crate) fn is_other_kind(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::PROTOTYPE)
}

/// The advice when [`is_out_of_files`].
pub(crate) const OUT_OF_FILES: &str = "this process has as many files open as its limit allows, \
                                       and a QEMU takes two: raise the limit (ulimit -n, \
                                       LimitNOFILE=)";

/// Whether the limit of open files is reached, that of the process or of the system.
pub(crate) fn is_out_of_files(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// The error that the endpoint cannot be connected to, with advice.
pub(crate) fn unreachable(endpoint: &Endpoint, error: io::Error) -> Error {
    let reason = match endpoint {
        _ if is_out_of_files(&error) => OUT_OF_FILES.into(),
        Endpoint::Unix(path) => unix(path, &error),
        Endpoint::Tcp(..) => tcp(endpoint, &error),
    };
    let endpoint = endpoint.to_string();
    Error::unreachable(endpoint, reason, error)
}

fn unix(path: &Path, error: &io::Error) -> String {
    let shown = path.display();
    match Errno::from_io_error(error) {
        Some(Errno::NOTSOCK) => {
            return format!(
                "it is not a socket: give the PATH of QEMU's -qmp unix:PATH,server=on,wait=off, \
                 and qmp-dir:{shown} only for a directory of them"
            );
        }
        Some(Errno::PROTOTYPE) => {
            return "it is a socket of datagrams or packets, and so no monitor: leave it out, in a \
                    directory by a pattern (?pattern=*.qmp)"
                .into();
        }
        _ => {}
    }
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!("there is no such socket: start QEMU with -qmp unix:{shown},server=on,wait=off")
        }
        io::ErrorKind::ConnectionRefused => format!(
            "no process listens on the socket: its QEMU has ended and left the file; start QEMU \
             with -qmp unix:{shown},server=on,wait=off"
        ),
        io::ErrorKind::WouldBlock => {
            "too many clients wait for the socket already, which serves one at a time: find the \
             client that holds it (ss -xp), or give QEMU a second -qmp"
                .into()
        }
        io::ErrorKind::PermissionDenied => {
            "this user may not open the socket: run as the user that runs QEMU, or as root".into()
        }
        io::ErrorKind::InvalidInput => format!(
            "a socket's path has at most {MAX_SOCKET_PATH} bytes, and this has {}: move it up, or \
             give its directories shorter names",
            path.as_os_str().len()
        ),
        _ => "check the path".into(),
    }
}

fn tcp(endpoint: &Endpoint, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            format!(
                "no process listens on {endpoint}: is QEMU running with -qmp \
                 tcp:{endpoint},server=on,wait=off?"
            )
        }
        io::ErrorKind::PermissionDenied => {
            "this user may not connect to it: a firewall on this host forbids it".into()
        }
        _ => "check the host's name and port".into(),
    }
}

/// What silence means, and what to do.
impl MonitorConfig {
    /// The error that QEMU greeted and has not answered a question since.
    pub(crate) fn no_answer(&self, waited: Duration) -> Error {
        let or_unreachable = match self.may_be_half_open() {
            true => ". Or its host or the network to it is down",
            false => "",
        };
        self.timed_out(format!(
            "QEMU has greeted us, but does not answer for {waited:?}: it hangs, or its process is \
             stopped (SIGSTOP); look at what it does{or_unreachable}"
        ))
    }

    /// The error that a process listens, and does not greet.
    pub(crate) fn no_greeting(&self, waited: Duration) -> Error {
        self.timed_out(format!(
            "it accepts the connection but sends nothing for {waited:?}: most likely another \
             client holds this monitor (libvirt, a management tool, another watch), for QEMU \
             serves one at a time; give QEMU one more -qmp for us. Or its process is stopped \
             (SIGSTOP), or it is no QMP socket"
        ))
    }

    /// The error that what a process sends in place of a greeting does not end.
    pub(crate) fn endless_greeting(&self, waited: Duration, bytes: usize) -> Error {
        self.timed_out(format!(
            "it has sent {bytes} bytes within {waited:?}, and no QMP greeting: check that it is a \
             socket of -qmp (not of -monitor or -serial)"
        ))
    }

    /// The error that the attempt to connect neither succeeds nor fails.
    pub(crate) fn no_connection(&self, waited: Duration) -> Error {
        let reason = match &self.endpoint {
            Endpoint::Unix(_) => format!(
                "the file system of the socket does not answer for {waited:?}: look at what it is \
                 mounted from"
            ),
            Endpoint::Tcp(..) => format!(
                "no reply to the connection attempt for {waited:?}: the host is down, a firewall \
                 drops the packets, or too many clients wait; check host and port"
            ),
        };
        self.timed_out(reason)
    }

    fn timed_out(&self, reason: String) -> Error {
        let source = Arc::new(io::Error::from(io::ErrorKind::TimedOut));
        Error::unreachable(self.endpoint.to_string(), reason, source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_endpoint_is_an_error_with_advice() {
        let path = format!("/run/{}", "x".repeat(120));
        let endpoint = Endpoint::Unix(path.clone().into());
        let table: [(io::Error, &str); 5] = [
            (Errno::MFILE.into(), "ulimit -n"),
            (Errno::PROTOTYPE.into(), "?pattern="),
            (Errno::NOTSOCK.into(), "not a socket"),
            (io::ErrorKind::InvalidInput.into(), "this has 125"),
            (Errno::CONNREFUSED.into(), "has ended"),
        ];
        for (error, advice) in table {
            let error = unreachable(&endpoint, error).to_line();
            assert!(error.contains(advice) && error.contains(&path), "{error}");
        }
        let endpoint = Endpoint::Tcp("vmhost".into(), 4444);
        let error = unreachable(&endpoint, Errno::HOSTUNREACH.into()).to_line();
        assert!(error.contains("vmhost:4444") && error.contains("name and port"), "{error}");
    }
}
