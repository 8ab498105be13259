//! Why a program through which the connection goes ended, and what to do.
//!
//! ssh ends with 255 for its own failures, and otherwise with the status of what it ran on the
//! other host: 127 where there is no such program, 1 for a failure of netcat or the helper. Which
//! failure it was is only in what it wrote to stderr, which is English because the program's
//! environment says `LC_ALL=C`.

use std::io;
use std::time::Duration;

use virevent::Error;
use virevent_transport::child::Ended;

use super::closed;
use crate::uri::{LibvirtUri, Proxy, Ssh, Transport};

/// Whether a retry can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    Helps,
    /// Something has to be changed by hand.
    IsUseless,
}

/// The error for a program that could not be started.
pub(in crate::session) fn not_started(uri: &LibvirtUri, error: io::Error) -> Error {
    let (program, install) = match &uri.transport {
        Transport::Ssh(Ssh { command: Some(command), .. }) | Transport::Ext { command } => {
            (&**command, "correct command=")
        }
        _ => ("ssh", "install OpenSSH's client, or give the path of ssh as command="),
    };
    match error.kind() {
        io::ErrorKind::NotFound => {
            let reason = format!("there is no program {program:?}: {install}");
            Error::invalid_uri(&*uri.shown, reason)
        }
        _ => Error::unreachable(program, "the program cannot be started: check command=", error),
    }
}

/// The error for a program that has ended. `is_open`: whether the daemon has answered by then.
pub(in crate::session) fn ended(
    uri: &LibvirtUri,
    label: &str,
    ended: &Ended,
    is_open: bool,
) -> Error {
    if is_open {
        return Error::closed(label, ended.to_string());
    }
    let code = ended.status.and_then(|status| status.code());
    if code == Some(255) && ended.last_line.contains("Host key verification failed") {
        let detail = format!(
            "the host's key is not known, or has changed: add it to known_hosts by one ssh by \
             hand; no_verify=1 accepts unknown keys: {ended}"
        );
        return Error::untrusted(label, detail);
    }
    let (reason, retry) = match (&uri.transport, code) {
        // Whatever it ran says that all is well: it was the daemon that hung up.
        (_, Some(0)) if ended.last_line.is_empty() => {
            return Error::closed(label, closed(false));
        }
        (Transport::Ssh(ssh), Some(255)) => ssh_failed(ssh, &ended.last_line),
        (Transport::Ssh(ssh), Some(code)) => remote_failed(ssh, code, &ended.last_line),
        _ => (
            "the program ended before the daemon answered: check that it connects its stdin and \
             stdout with a libvirt daemon",
            Retry::Helps,
        ),
    };
    // The kind that makes the error a refusal; the text is the program's.
    let kind = match retry {
        Retry::Helps => io::ErrorKind::Other,
        Retry::IsUseless => io::ErrorKind::PermissionDenied,
    };
    Error::unreachable(label, reason, io::Error::new(kind, ended.to_string()))
}

/// ssh's own failures.
fn ssh_failed(ssh: &Ssh, line: &str) -> (&'static str, Retry) {
    let says = |text: &str| line.contains(text);
    // As in "Permission denied (publickey,password)."
    if says("Permission denied (") || says("Too many authentication failures") {
        return match ssh.keyfile {
            None => (
                "it accepts none of this user's keys: load one into the agent, or give \
                 keyfile=PATH",
                Retry::IsUseless,
            ),
            Some(_) => (
                "it does not accept the key: check keyfile=, and that the key has no passphrase \
                 or is in the agent",
                Retry::IsUseless,
            ),
        };
    }
    let is_network = [
        "Could not resolve hostname",
        "Connection refused",
        "No route to host",
        "Network is unreachable",
        "timed out",
    ];
    if is_network.into_iter().any(says) {
        return (
            "ssh cannot connect: check the host's name and port, that sshd runs there, and the \
             network between",
            Retry::Helps,
        );
    }
    ("ssh failed: check that ssh to this host works for this user", Retry::Helps)
}

/// Failures of what ssh ran on the other host.
fn remote_failed(ssh: &Ssh, code: i32, line: &str) -> (&'static str, Retry) {
    let is_missing = code == 127 || line.to_ascii_lowercase().ends_with("not found");
    match &ssh.proxy {
        // Of a user's own daemon only the helper knows the place: see `remote_shell`.
        Proxy::Auto if is_missing && line.contains("virt-ssh-helper") => (
            "that host has no virt-ssh-helper: install libvirt's daemon there, or give the \
             daemon's socket as socket=PATH",
            Retry::IsUseless,
        ),
        Proxy::Auto if is_missing => (
            "that host has neither virt-ssh-helper nor netcat: install libvirt's daemon or \
             netcat-openbsd there, or give netcat=PATH",
            Retry::IsUseless,
        ),
        Proxy::Native if is_missing => (
            "that host has no virt-ssh-helper: install libvirt's daemon there, or give \
             proxy=netcat",
            Retry::IsUseless,
        ),
        Proxy::Netcat(_) if is_missing => (
            "that host has no such netcat: install netcat-openbsd there, or give netcat=PATH",
            Retry::IsUseless,
        ),
        // Of the netcats only OpenBSD's connects to unix sockets.
        _ if line.contains("invalid option") => (
            "its netcat knows no unix sockets: install netcat-openbsd there, or give netcat=PATH",
            Retry::IsUseless,
        ),
        _ if line.contains("Permission denied") => (
            "that host's user may not open the daemon's socket: log in as root, or as a member of \
             the group libvirt there",
            Retry::IsUseless,
        ),
        _ => (
            "no daemon answers on that host: start libvirtd or virtproxyd there, or give its \
             socket as socket=PATH",
            Retry::Helps,
        ),
    }
}

/// The error for a program through which nothing came before the deadline.
pub(in crate::session) fn silent(
    uri: &LibvirtUri,
    label: &str,
    after: Duration,
    last_line: &str,
) -> Error {
    let advice = match &uri.transport {
        Transport::Ssh(Ssh { terminal: true, .. }) => {
            "ssh may be asking for something at the terminal, the host may be unreachable, or its \
             daemon hangs"
        }
        Transport::Ssh(_) => "the host may be unreachable, or its daemon hangs",
        _ => "check that the program connects its stdin and stdout with a libvirt daemon",
    };
    let text = match last_line {
        "" => "the program wrote no error",
        line => line,
    };
    let source = io::Error::new(io::ErrorKind::TimedOut, text);
    Error::unreachable(label, format!("no answer within {after:?}: {advice}"), source)
}

#[cfg(test)]
mod tests;
