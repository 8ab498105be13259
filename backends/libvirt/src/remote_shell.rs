//! The ssh command, and what the shell of the other host is to run.
//!
//! ```text
//!   ssh [-p PORT] [-l USER] [-i KEY] -T -e none [-o ...] -- HOST SCRIPT
//!                    SCRIPT: sh -c 'virt-ssh-helper URI, or else nc -U SOCKET'
//! ```
//!
//! The arguments and the script are libvirt's own, so that wrappers of ssh and forced commands that
//! were made for libvirt work here, too.

use std::ffi::OsString;

use virevent_transport::child::Program;

use crate::uri::{Netcat, Proxy, Ssh};

/// Where libvirtd and virtproxyd listen on the other host.
const SYSTEM_SOCKET: &str = "/var/run/libvirt/libvirt-sock";

/// libvirt's helper, which knows where the daemon listens.
const HELPER: &str = "virt-ssh-helper";

/// What ssh is to connect with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    /// The URI that the daemon is to open.
    pub(crate) name: &'a str,
    pub(crate) read_only: bool,
    /// Whether it is the daemon of the other host's user, whose place only that host knows.
    pub(crate) is_session: bool,
}

/// The ssh command.
///
/// # Errors
/// Netcat cannot reach the daemon: what to do.
pub(crate) fn ssh(ssh: &Ssh, target: Target<'_>) -> Result<Program, String> {
    let script = script(&ssh.proxy, target)?;
    let mut args: Vec<OsString> = Vec::new();
    let mut add = |words: &[&str]| args.extend(words.iter().map(OsString::from));
    if let Some(port) = ssh.port {
        add(&["-p", &port.to_string()]);
    }
    if let Some(user) = &ssh.user {
        add(&["-l", user]);
    }
    if let Some(key) = &ssh.keyfile {
        add(&["-i", key]);
    }
    // Without a terminal on the other host, and without an escape character in the stream.
    add(&["-T", "-e", "none"]);
    // libvirt lets ssh ask at the terminal unless it is told not to. In a service no user answers,
    // and the connection would hang until the deadline.
    if !ssh.terminal {
        add(&["-o", "BatchMode=yes"]);
    }
    if ssh.no_verify {
        add(&["-o", "StrictHostKeyChecking=no"]);
    }
    add(&["--", &ssh.host, &script]);
    Ok(Program {
        label: ssh.label(),
        program: ssh.command.as_deref().unwrap_or("ssh").into(),
        args,
        terminal: ssh.terminal,
    })
}

/// The last argument: what the other host's shell runs. Blanks and quotes are as libvirt 9.0 has
/// them, since a forced command may compare the text.
fn script(proxy: &Proxy, target: Target<'_>) -> Result<String, String> {
    let flag = if target.read_only { "-r " } else { "" };
    let helper = format!("{HELPER} {flag}{}", inner_word(target.name));
    let script = match proxy {
        Proxy::Native => helper,
        // Netcat would have to be given the socket of the other host's user.
        Proxy::Auto if target.is_session => helper,
        Proxy::Auto => {
            let netcat = netcat(&Netcat::default(), target)?;
            format!(
                "which {HELPER} 1>/dev/null 2>&1; if test $? = 0; then     {helper}; \
                 else    {netcat}; fi"
            )
        }
        Proxy::Netcat(options) => netcat(options, target)?,
    };
    Ok(format!("sh -c '{script}'"))
}

fn netcat(options: &Netcat, target: Target<'_>) -> Result<String, String> {
    let socket = match &options.socket {
        // libvirt does not quote it at all.
        Some(socket) if is_plain(socket) => socket.clone(),
        Some(socket) => inner_word(socket),
        None if target.is_session => {
            return Err("netcat needs the socket of the other host's session daemon: give \
                        socket=PATH, or leave the choice to virt-ssh-helper by proxy=native"
                .into());
        }
        None if target.read_only => format!("{SYSTEM_SOCKET}-ro"),
        None => SYSTEM_SOCKET.into(),
    };
    let program = inner_word(options.program.as_deref().unwrap_or("nc"));
    // With -q0 Debian's netcat ends when its stdin does; others end without, and do not know it.
    Ok(format!(
        "if {program} -q 2>&1 | grep \"requires an argument\" >/dev/null 2>&1; then ARG=-q0;\
         else ARG=;fi;{program} $ARG -U {socket}"
    ))
}

/// The text as one word of the shell that runs the script, for a place within the quotes around the
/// script. It is quoted for that shell, and that once more for the login shell.
fn inner_word(text: &str) -> String {
    format!("'{}'", quoted(&quoted(text)))
}

/// The text as one word of a shell.
fn quoted(text: &str) -> String {
    if is_plain(text) { text.into() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Whether no shell sees anything in the text but a word.
fn is_plain(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+=,".contains(c);
    !text.is_empty() && text.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::uri::{LibvirtUri, Transport};

    fn target(name: &str) -> Target<'_> {
        Target { name, read_only: true, is_session: false }
    }

    fn program(uri: &str, read_only: bool, is_session: bool) -> Result<Program, String> {
        let uri = LibvirtUri::parse(uri).unwrap();
        let Transport::Ssh(options) = &uri.transport else { panic!("{uri:?}") };
        ssh(options, Target { name: &uri.name, read_only, is_session })
    }

    fn words(program: &Program) -> Vec<&str> {
        program.args.iter().map(|word| word.to_str().unwrap()).collect()
    }

    /// What `virsh` 9.0.0 gave to a program that `command=` named, but for `BatchMode`.
    #[test]
    fn the_arguments_are_those_of_virsh_in_batch_mode() {
        let table = [
            (
                "qemu+ssh://host/system",
                r#"-T|-e|none|-o|BatchMode=yes|--|host|sh -c 'which virt-ssh-helper 1>/dev/null 2>&1; if test $? = 0; then     virt-ssh-helper -r 'qemu:///system'; else    if 'nc' -q 2>&1 | grep "requires an argument" >/dev/null 2>&1; then ARG=-q0;else ARG=;fi;'nc' $ARG -U /var/run/libvirt/libvirt-sock-ro; fi'"#,
            ),
            (
                "qemu+ssh://host/system?proxy=netcat&no_tty=0",
                r#"-T|-e|none|--|host|sh -c 'if 'nc' -q 2>&1 | grep "requires an argument" >/dev/null 2>&1; then ARG=-q0;else ARG=;fi;'nc' $ARG -U /var/run/libvirt/libvirt-sock-ro'"#,
            ),
            (
                "qemu+ssh://fred@host:2222/system?keyfile=/k&no_verify=1&no_tty=0&proxy=native",
                "-p|2222|-l|fred|-i|/k|-T|-e|none|-o|StrictHostKeyChecking=no|--|host|\
                 sh -c 'virt-ssh-helper -r 'qemu:///system''",
            ),
            (
                "qemu+ssh://[::1]/system?proxy=native&a=1&b=%20",
                r"-T|-e|none|-o|BatchMode=yes|--|::1|sh -c 'virt-ssh-helper -r '''\''qemu:///system?a=1&b=%20'\'''''",
            ),
            (
                "qemu+ssh://host/system?netcat=/opt/my%20nc&socket=/s",
                r#"-T|-e|none|-o|BatchMode=yes|--|host|sh -c 'if '''\''/opt/my nc'\'''' -q 2>&1 | grep "requires an argument" >/dev/null 2>&1; then ARG=-q0;else ARG=;fi;'''\''/opt/my nc'\'''' $ARG -U /s'"#,
            ),
        ];
        for (uri, expected) in table {
            let program = program(uri, true, false).unwrap();
            assert_eq!(words(&program).join("|"), expected, "{uri}");
            assert_eq!(program.program, "ssh");
            assert_eq!(program.terminal, uri.contains("no_tty=0"));
        }
    }

    #[test]
    fn the_helper_alone_serves_native_and_sessions() {
        for (uri, is_session) in
            [("qemu+ssh://h/system?proxy=native", false), ("qemu+ssh://h/session", true)]
        {
            let program = program(uri, false, is_session).unwrap();
            let script = words(&program).pop().unwrap();
            assert!(script.starts_with("sh -c 'virt-ssh-helper 'qemu:///s"), "{script}");
        }
    }

    #[test]
    fn netcat_for_a_session_needs_its_socket() {
        let uri = "qemu+ssh://h/session?proxy=netcat";
        assert!(program(uri, false, true).unwrap_err().contains("socket=PATH"));
        program(&format!("{uri}&socket=/s"), false, true).unwrap();
    }

    /// As sshd does it: the user's shell runs the argument.
    #[test]
    fn a_shell_reads_each_word_as_it_was_meant() {
        let home = tempfile::tempdir().unwrap();
        let helper = home.path().join(HELPER);
        std::fs::write(&helper, "#!/bin/sh\nprintf '%s|' \"$@\"\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&helper, mode).unwrap();
        let path = format!("{}:{}", home.path().display(), std::env::var("PATH").unwrap());
        for name in ["qemu:///system", "a b", "'", "$(echo x);`id`", "a\\'\"b", "", "*~#!&\nx"] {
            let command = script(&Proxy::Native, target(name)).unwrap();
            let output = Command::new("sh").arg("-c").arg(command).env("PATH", &path).output();
            let output = String::from_utf8(output.unwrap().stdout).unwrap();
            assert_eq!(output, format!("-r|{name}|"));
        }
    }
}
