//! What to do when no connection comes about: the words of the errors.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

use virevent::Error;
use virevent_transport::Endpoint;

use crate::uri::LibvirtUri;
use crate::wire::procs;

/// The error of a connection that cannot be made.
pub(super) fn unreachable(uri: &LibvirtUri, endpoint: &Endpoint, error: io::Error) -> Error {
    let reason = match endpoint {
        Endpoint::Unix(path) => of_socket(error.kind(), path, uri.means_session_daemon()),
        Endpoint::Tcp(..) if error.kind() == io::ErrorKind::ConnectionRefused => {
            "no process listens there: start libvirtd with --listen and listen_tcp = 1, or \
             libvirtd-tcp.socket or virtproxyd-tcp.socket"
        }
        Endpoint::Tcp(..) => "check the host's name and port, and the way to it",
    };
    Error::Unreachable {
        endpoint: endpoint.to_string(),
        reason: reason.into(),
        source: Arc::new(error),
    }
}

fn of_socket(kind: io::ErrorKind, path: &Path, own_daemon: bool) -> &'static str {
    use io::ErrorKind as E;
    match kind {
        E::NotFound | E::NotADirectory => {
            "there is no such socket: start libvirtd, or the driver's own daemon such as \
             virtqemud, or give its path as ?socket=PATH"
        }
        // Linux says the same of a socket without a listener and of a file that is no socket.
        E::ConnectionRefused if is_other_file(path) => {
            "it is not a socket: give the daemon's socket as ?socket=PATH"
        }
        E::ConnectionRefused => {
            "no process listens on the socket: the daemon died or was stopped; start it again"
        }
        E::PermissionDenied if own_daemon => {
            "this user may not open the socket: a user's own daemon serves that user alone; run as \
             the one whose it is"
        }
        E::PermissionDenied => {
            "this user may not open the socket: run as a member of the group libvirt, or as root"
        }
        // All that can be wrong with a path without a NUL in it.
        E::InvalidInput => {
            "the path is longer than 107 bytes, the most for a unix socket: give a shorter one as \
             ?socket=PATH, such as that of a symbolic link"
        }
        E::WouldBlock => {
            "too many clients wait for the daemon to accept them: is it busy, or hung?"
        }
        _ => "check the path of the socket, and the daemon's log",
    }
}

fn is_other_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| !file.file_type().is_socket())
}

/// Why the daemon may have closed the connection.
pub(super) fn closed(open: bool) -> &'static str {
    if open {
        "it stopped or was restarted, or heard nothing from us for too long"
    } else {
        "before it let us in: it may be stopping, or serve as many clients as it may \
         (max_clients in its configuration)"
    }
}

/// The call that had no reply in time, with what its silence means.
///
/// A client beyond max_clients waits in the backlog of libvirtd's socket: its connection is there, and
/// nothing that it sends is read. One without credentials, beyond max_anonymous_clients, likewise.
pub(super) fn unanswered(procedure: Option<i32>) -> &'static str {
    match procedure {
        None | Some(procs::AUTH_LIST) => {
            "AUTH_LIST on a connection that was made (libvirtd is silent to clients beyond max_clients \
             and max_anonymous_clients)"
        }
        Some(procs::AUTH_POLKIT) => "AUTH_POLKIT (polkit may be asking a user)",
        Some(procedure) => procs::name(procedure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_cannot_be_opened_says_what_to_do() {
        use io::ErrorKind as E;
        let system = LibvirtUri::parse("qemu:///system").unwrap();
        let own = LibvirtUri::parse("qemu:///session").unwrap();
        let unix = Endpoint::Unix("/run/x-sock".into());
        let file = Endpoint::Unix("/proc/self/stat".into());
        let directory = Endpoint::Unix("/".into());
        let tcp = Endpoint::Tcp("::1".into(), 7);
        let table = [
            (&system, &unix, E::NotFound, "start libvirtd", false),
            (&system, &unix, E::ConnectionRefused, "start it again", false),
            (&system, &file, E::ConnectionRefused, "is not a socket", false),
            (&system, &directory, E::ConnectionRefused, "is not a socket", false),
            (&system, &unix, E::PermissionDenied, "group libvirt", true),
            (&own, &unix, E::PermissionDenied, "serves that user alone", true),
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
