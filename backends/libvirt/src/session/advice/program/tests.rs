use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::*;

fn error(uri: &str, status: Option<i32>, line: &str, is_open: bool) -> Error {
    let uri = LibvirtUri::parse(uri).unwrap();
    let status = status.map(|code| match code {
        0.. => ExitStatus::from_raw(code << 8),
        signal => ExitStatus::from_raw(-signal),
    });
    ended(&uri, "ssh host", &Ended { status, last_line: line.into() }, is_open)
}

#[test]
fn each_end_has_its_advice_and_the_last_line() {
    const AUTO: &str = "qemu+ssh://host/system";
    const KEY: &str = "qemu+ssh://host/system?keyfile=/k";
    const NATIVE: &str = "qemu+ssh://host/system?proxy=native";
    const NETCAT: &str = "qemu+ssh://host/system?proxy=netcat";
    const EXT: &str = "qemu+ext:///system?command=/c";
    let table = [
        (AUTO, 255, "root@host: Permission denied (publickey).", "keyfile=PATH", true),
        (KEY, 255, "root@host: Permission denied (publickey).", "check keyfile=", true),
        (AUTO, 255, "ssh: Could not resolve hostname x: Name or ...", "host's name", false),
        (AUTO, 255, "ssh: connect to host x port 22: Connection refused", "sshd runs", false),
        (AUTO, 255, "ssh: connect to host x port 22: No route to host", "network", false),
        (AUTO, 255, "ssh: connect to host x port 22: Connection timed out", "network", false),
        (AUTO, 255, "Bad configuration option: x", "works for this user", false),
        (AUTO, 127, "sh: 1: nc: not found", "neither virt-ssh-helper nor netcat", true),
        (AUTO, 1, "nc: Command not found", "neither virt-ssh-helper nor netcat", true),
        (AUTO, 127, "sh: 1: virt-ssh-helper: not found", "socket as socket=PATH", true),
        (NATIVE, 127, "sh: 1: virt-ssh-helper: not found", "no virt-ssh-helper", true),
        (NETCAT, 127, "sh: 1: /x/nc: not found", "no such netcat", true),
        (NETCAT, 1, "nc: invalid option -- 'U'", "knows no unix sockets", true),
        (NETCAT, 1, "nc: /s: No such file or directory", "start libvirtd", false),
        (NETCAT, 1, "nc: unix connect failed: Connection refused", "start libvirtd", false),
        (NETCAT, 1, "nc: unix connect failed: Permission denied", "group libvirt", true),
        (EXT, 3, "no way", "connects its stdin and stdout", false),
        (EXT, -9, "", "connects its stdin and stdout", false),
    ];
    for (uri, code, last_line, advice, is_refusal) in table {
        let error = error(uri, Some(code), last_line, false);
        let line = error.to_line();
        assert!(line.contains(advice) && line.contains(last_line), "{line}");
        assert_eq!(error.is_refusal(), is_refusal, "{line}");
        assert!(line.starts_with("cannot reach ssh host: ") && !line.contains('\n'), "{line}");
    }
}

#[test]
fn an_unknown_host_key_is_a_lack_of_trust() {
    let error = error("qemu+ssh://host/system", Some(255), "Host key verification failed.", false);
    assert!(matches!(error, Error::Untrusted { .. }) && error.is_refusal());
    let line = error.to_line();
    assert!(line.starts_with("cannot trust ssh host: ") && line.contains("known_hosts"), "{line}");
    assert!(line.ends_with("status 255: Host key verification failed."), "{line}");
}

#[test]
fn after_the_handshake_every_end_is_a_lost_connection() {
    for (code, text) in [(255, "exit status 255: bye"), (-15, "signal 15 (SIGTERM): bye")] {
        let error = error("qemu+ssh://host/system", Some(code), "bye", true);
        assert!(!error.is_refusal());
        let expected = format!("ssh host closed the connection: it ended with {text}");
        assert_eq!(error.to_line(), expected);
    }
}

#[test]
fn a_program_that_ends_well_leaves_the_blame_to_the_daemon() {
    let line = error("qemu+ssh://host/system", Some(0), "", false).to_line();
    assert!(line.contains("max_clients"), "{line}");
}

#[test]
fn a_program_that_cannot_be_started_is_named() {
    let table = [
        ("qemu+ssh://host/system", io::ErrorKind::NotFound, "install OpenSSH's client"),
        ("qemu+ssh://host/system?command=/s", io::ErrorKind::NotFound, "no program \"/s\""),
        ("qemu+ext:///system?command=/c", io::ErrorKind::NotFound, "no program \"/c\""),
        ("qemu+ext:///system?command=/c", io::ErrorKind::PermissionDenied, "cannot be started"),
    ];
    for (uri, kind, expected) in table {
        let error = not_started(&LibvirtUri::parse(uri).unwrap(), kind.into());
        let line = error.to_line();
        assert!(line.contains(expected), "{line}");
        assert!(error.is_refusal(), "{line}");
    }
}

#[test]
fn a_silent_program_has_its_last_line_and_advice() {
    let silent = |uri: &str, line: &str| {
        let uri = LibvirtUri::parse(uri).unwrap();
        silent(&uri, "ssh host", Duration::from_secs(10), line).to_line()
    };
    let line = silent("qemu+ssh://host/system", "debug: waiting");
    assert!(line.contains("within 10s: the host may be") && line.ends_with("waiting"), "{line}");
    let line = silent("qemu+ssh://host/system?no_tty=0", "");
    assert!(line.contains("at the terminal") && line.ends_with("wrote no error"), "{line}");
    assert!(silent("qemu+ext:///system?command=/c", "").contains("stdin and stdout"));
}
