//! What to do when polkit does not let a client in.

use virevent::{Error, ServerError};
use virevent_transport::Endpoint;

use crate::wire::code;

/// The error for a refused `AUTH_POLKIT`.
///
/// The read-only socket asks for `org.libvirt.unix.monitor`, which polkit allows to every user
/// unless a rule says otherwise; the other one asks for `org.libvirt.unix.manage`, for which an
/// agent asks the user for a password. A socket's path says which it is; behind a program it is the
/// one that this client asks for.
pub(super) fn refused(refusal: &ServerError, endpoint: &Endpoint, read_only: bool) -> Error {
    let is_read_only = match endpoint {
        Endpoint::Unix(path) => path.to_string_lossy().ends_with("-ro"),
        _ => read_only,
    };
    let action = match is_read_only {
        true => "org.libvirt.unix.monitor",
        false => "org.libvirt.unix.manage",
    };
    let rule = format!("allow {action} to this user in a polkit rule, or run as root");
    let why = match refusal.code {
        code::AUTH_UNAVAILABLE if is_read_only => format!(
            "polkit has no agent to ask the user for a password, although a read-only socket \
             needs none by default: a rule of this host demands it; {rule}"
        ),
        code::AUTH_UNAVAILABLE => format!(
            "polkit has no agent to ask the user for a password: connect read-only, which needs \
             none, start an agent such as pkttyagent, or {rule}"
        ),
        code::AUTH_FAILED => format!("a polkit rule denies it: {rule}"),
        code::AUTH_CANCELLED => {
            format!("the user dismissed polkit's question: try again, or {rule}")
        }
        _ => format!(
            "polkit does not work on this host: check that D-Bus and polkitd run, or {rule}"
        ),
    };
    let ServerError { message, code, .. } = refusal;
    Error::authentication(format!("polkit, on {endpoint}, and {why} ({message}, code {code})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_of_polkit_says_why_and_what_to_do() {
        let table = [
            (94, "s-ro", "no agent", "unix.monitor"),
            (94, "s", "connect read-only, which needs none", "unix.manage"),
            (45, "s-ro", "a polkit rule denies it", "unix.monitor"),
            (45, "s", "a polkit rule denies it", "unix.manage"),
            (79, "s", "dismissed", "unix.manage"),
            (1, "s-ro", "check that D-Bus and polkitd run", "unix.monitor"),
        ];
        for (code, socket, why, action) in table {
            let refusal = ServerError::new("AUTH_POLKIT", code, "the message");
            // The path counts, not what was asked for: `socket=` may name either socket.
            let error = refused(&refusal, &Endpoint::Unix(socket.into()), socket == "s");
            let line = error.to_line();
            assert!(error.is_refusal() && line.contains(why) && line.contains(action), "{line}");
            assert!(line.contains(&format!("(the message, code {code})")), "{line}");
        }
    }
}
