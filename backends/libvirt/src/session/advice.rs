//! The texts of connection errors: why there is no connection, and what to do.

pub(super) mod program;

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use virevent::Error;
use virevent_transport::Endpoint;

use crate::uri::{LibvirtUri, Transport};
use crate::wire::procs;

/// The error for an endpoint that cannot be connected to.
pub(super) fn unreachable(uri: &LibvirtUri, endpoint: &Endpoint, error: io::Error) -> Error {
    let reason = match endpoint {
        Endpoint::Unix(path) if is_missing_session_daemon(uri, path, error.kind()) => {
            "your session daemon does not run: virsh would start it, this client does not; start \
             it as this user: virtqemud --daemon, or libvirtd --daemon"
        }
        Endpoint::Unix(path) => unix_advice(error.kind(), path, uri.means_session_daemon()),
        Endpoint::Tcp(..)
            if error.kind() == io::ErrorKind::ConnectionRefused
                && matches!(uri.transport, Transport::Tls { .. }) =>
        {
            "no process listens there: start libvirtd with --listen and listen_tls = 1, or \
             libvirtd-tls.socket or virtproxyd-tls.socket"
        }
        Endpoint::Tcp(..) if error.kind() == io::ErrorKind::ConnectionRefused => {
            "no process listens there: start libvirtd with --listen and listen_tcp = 1, or \
             libvirtd-tcp.socket or virtproxyd-tcp.socket"
        }
        Endpoint::Tcp(..) => "check the host's name and port, and the network between",
        Endpoint::Child(_) => return program::not_started(uri, error),
    };
    Error::unreachable(endpoint.to_string(), reason, error)
}

/// Whether the URI means a daemon that libvirt's own client would have started.
fn is_missing_session_daemon(uri: &LibvirtUri, path: &Path, kind: io::ErrorKind) -> bool {
    // For root it is the system's daemon.
    uri.means_session_daemon()
        && matches!(uri.transport, Transport::Unix { socket: None, .. })
        && !path.starts_with("/var/run/libvirt")
        && matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
        && !is_no_socket(path)
}

fn unix_advice(kind: io::ErrorKind, path: &Path, is_session: bool) -> &'static str {
    use io::ErrorKind as E;
    match kind {
        E::NotFound | E::NotADirectory => {
            "there is no such socket: start libvirtd, or the driver's own daemon such as \
             virtqemud, or give its path as ?socket=PATH"
        }
        // Linux reports the same error for a socket without a listener and for a file that is no
        // socket.
        E::ConnectionRefused if is_no_socket(path) => {
            "it is not a socket: give the daemon's socket as ?socket=PATH"
        }
        E::ConnectionRefused => {
            "no process listens on the socket: the daemon died or was stopped; start it again"
        }
        E::PermissionDenied if is_session => {
            "this user may not open the socket: a session daemon serves its own user only; run \
             as that user"
        }
        E::PermissionDenied => {
            "this user may not open the socket: run as a member of the group libvirt, or as root"
        }
        // A path can be invalid for its length or for a NUL, and URIs with a NUL are refused.
        E::InvalidInput => {
            "the path is longer than 107 bytes, the most for a unix socket: give a shorter one as \
             ?socket=PATH, such as that of a symbolic link"
        }
        E::WouldBlock => {
            "too many clients wait for the daemon to accept them: check whether it is busy or hangs"
        }
        _ => "check the path of the socket, and the daemon's log",
    }
}

fn is_no_socket(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| !file.file_type().is_socket())
}

/// What to check where the other end breaks libvirt's protocol.
pub(super) fn foreign(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Child(program) => format!(
            "check that a libvirt daemon is behind {program}, and that nothing else there writes \
             to stdout, such as a start-up file of the shell",
            program = program.label
        ),
        _ => format!("check that a libvirt daemon listens on {endpoint}"),
    }
}

/// Why the daemon may have closed the connection.
pub(super) fn closed(is_open: bool) -> &'static str {
    if is_open {
        "it stopped or was restarted, or got no reply to its keepalive for too long"
    } else {
        "during the handshake: it is stopping, or has as many clients as max_clients in its \
         configuration allows"
    }
}

/// The call that had no reply in time, with the likely reason.
///
/// A client beyond max_clients stays in the backlog of libvirtd's socket: connecting succeeds, and
/// nothing that the client sends is read. The same happens beyond max_anonymous_clients until the
/// client is authenticated.
pub(super) fn unanswered(procedure: Option<i32>) -> &'static str {
    match procedure {
        // AUTH_LIST needs no authentication and no hypervisor: any daemon that reads answers it.
        None | Some(procs::AUTH_LIST) => {
            "AUTH_LIST although the connection was made (libvirtd does not answer clients beyond \
             max_clients and max_anonymous_clients)"
        }
        Some(procs::AUTH_POLKIT) => "AUTH_POLKIT (polkit may be waiting for a user's password)",
        Some(procedure) => procs::name(procedure),
    }
}

/// The error when the callback for credentials does not return before the deadline.
pub(super) fn no_credentials(endpoint: &Endpoint, timeout: Duration) -> Error {
    Error::authentication(format!(
        "SASL, on {endpoint}, and the credentials callback gave none within {timeout:?}: raise \
         connect_timeout if a person is asked"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_without_a_connection_has_advice() {
        use io::ErrorKind as E;
        let system = LibvirtUri::parse("qemu:///system").unwrap();
        let session = LibvirtUri::parse("qemu:///session").unwrap();
        let unix = Endpoint::Unix("/run/x-sock".into());
        let of_the_system = Endpoint::Unix("/var/run/libvirt/x-sock".into());
        let file = Endpoint::Unix("/proc/self/stat".into());
        let directory = Endpoint::Unix("/".into());
        let tcp = Endpoint::Tcp("::1".into(), 7);
        let table = [
            (&system, &unix, E::NotFound, "start libvirtd", false),
            (&system, &unix, E::ConnectionRefused, "start it again", false),
            (&system, &file, E::ConnectionRefused, "is not a socket", false),
            (&system, &directory, E::ConnectionRefused, "is not a socket", false),
            (&system, &unix, E::PermissionDenied, "group libvirt", true),
            (&session, &unix, E::PermissionDenied, "serves its own user only", true),
            (&session, &unix, E::NotFound, "your session daemon does not run: virsh would", false),
            (&session, &unix, E::ConnectionRefused, "virtqemud --daemon", false),
            (&session, &of_the_system, E::NotFound, "start libvirtd", false),
            (&session, &file, E::ConnectionRefused, "is not a socket", false),
            (&system, &unix, E::Other, "path of the socket", false),
            (&system, &tcp, E::ConnectionRefused, "listen_tcp", false),
            (&system, &tcp, E::TimedOut, "host's name and port", false),
        ];
        for (uri, endpoint, kind, advice, refusal) in table {
            let error = unreachable(uri, endpoint, kind.into());
            let line = error.to_line();
            assert!(line.contains(advice) && line.contains(&endpoint.to_string()), "{line}");
            assert_eq!(error.is_refusal(), refusal, "{line}");
        }
    }
}
