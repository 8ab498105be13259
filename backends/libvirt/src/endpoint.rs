//! Which socket a URI means on this host, now.
//!
//! The rules are libvirt's (`remote_sockets.c`). The system daemons have their sockets in
//! `/var/run/libvirt`, a session daemon in `$XDG_RUNTIME_DIR/libvirt`. The path `/session` and the
//! driver `test` mean the session daemon, unless the user is root. `mode=auto` takes the socket of
//! the modular daemon of the driver (such as `virtqemud-sock`) where it exists, else libvirtd's. A
//! read-only connection takes the socket of the same name that ends in `-ro`; a session daemon has
//! none. Where the URI has no `mode=`, `remote_mode` of `libvirt.conf` holds.

use std::path::{Path, PathBuf};

use virevent_transport::Endpoint;
use virevent_transport::child::Program;

use crate::remote_shell::{self, Target};
use crate::uri::{LibvirtUri, Mode, Ssh, Transport};

/// What the choice depends on besides the URI.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) is_root: bool,
    /// `$XDG_RUNTIME_DIR`, or libvirt's substitute for it.
    pub(crate) runtime_dir: Option<PathBuf>,
    /// Where `libvirt.conf` is; `None` if the user has no such place.
    pub(crate) config_file: Option<PathBuf>,
    /// `$LIBVIRT_DEFAULT_URI`.
    pub(crate) default_uri: Option<String>,
    /// Whether a path exists.
    pub(crate) exists: fn(&Path) -> bool,
}

impl Environment {
    pub(crate) fn now() -> Self {
        let dir = |name| std::env::var_os(name).filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let runtime_dir = dir("XDG_RUNTIME_DIR")
            .or_else(|| dir("XDG_CACHE_HOME"))
            .or_else(|| dir("HOME").map(|home| home.join(".cache")));
        // As in libvirt the effective user decides, also for sudo and setuid programs.
        let is_root = rustix::process::geteuid().is_root();
        let config_dir = match is_root {
            true => Some(PathBuf::from("/etc")),
            false => {
                dir("XDG_CONFIG_HOME").or_else(|| dir("HOME").map(|home| home.join(".config")))
            }
        };
        // As in libvirt an empty one is as good as none.
        let default_uri = std::env::var("LIBVIRT_DEFAULT_URI").ok().filter(|uri| !uri.is_empty());
        Self {
            is_root,
            runtime_dir,
            config_file: config_dir.map(|dir| dir.join("libvirt/libvirt.conf")),
            default_uri,
            exists: |path| path.exists(),
        }
    }
}

/// Where the daemon that `uri` means listens. `default_mode` holds where the URI has no `mode=`.
///
/// # Errors
/// It means no socket: what to do.
pub(crate) fn endpoint(
    uri: &LibvirtUri,
    read_only: bool,
    environment: &Environment,
    default_mode: Option<Mode>,
) -> Result<Endpoint, String> {
    let (daemon, mode) = match &uri.transport {
        Transport::Ssh(ssh) => {
            return ssh_endpoint(uri, ssh, read_only, environment).map(Endpoint::Child);
        }
        Transport::Ext { command } => return Ok(Endpoint::Child(ext_endpoint(command))),
        Transport::Tcp { host, port } | Transport::Tls { host, port, .. } => {
            return Ok(Endpoint::Tcp(host.clone(), *port));
        }
        Transport::Unix { socket: Some(path), .. } => return Ok(Endpoint::Unix(path.into())),
        Transport::Unix { socket: None, mode } => {
            (modular_daemon(&uri.driver), mode.or(default_mode).unwrap_or(Mode::Auto))
        }
    };
    // libvirt has no session daemon for root: `qemu:///session` means the system's there.
    let session = uri.means_session_daemon() && !environment.is_root;
    let dir = match (session, &environment.runtime_dir) {
        (false, _) => PathBuf::from("/var/run/libvirt"),
        (true, Some(dir)) => dir.join("libvirt"),
        (true, None) => {
            return Err("set XDG_RUNTIME_DIR, below which your session daemon listens, or give \
                        socket=PATH"
                .into());
        }
    };
    let suffix = if read_only && !session { "-sock-ro" } else { "-sock" };
    let path = |daemon: &str| dir.join(format!("{daemon}{suffix}"));
    Ok(Endpoint::Unix(match (mode, daemon.map(path)) {
        (Mode::Direct, Some(modular)) => modular,
        (Mode::Direct, None) => {
            return Err(format!(
                "the driver {} has no modular daemon: leave out mode=direct, or give mode=legacy \
                 if remote_mode in libvirt.conf is direct",
                uri.driver
            ));
        }
        (Mode::Auto, Some(modular)) if (environment.exists)(&modular) => modular,
        (Mode::Auto | Mode::Legacy, _) => path("libvirt"),
    }))
}

fn ssh_endpoint(
    uri: &LibvirtUri,
    ssh: &Ssh,
    read_only: bool,
    environment: &Environment,
) -> Result<Program, String> {
    // ssh logs in as the user of the same name, unless the URI or ssh's configuration says more.
    let is_root = ssh.user.as_ref().map_or(environment.is_root, |user| user == "root");
    let is_session = uri.means_session_daemon() && !is_root;
    remote_shell::ssh(ssh, Target { name: &uri.name, read_only, is_session })
}

/// The program gets no arguments, as in libvirt: the user's program knows its daemon.
fn ext_endpoint(command: &str) -> Program {
    Program { label: command.into(), program: command.into(), args: Vec::new(), terminal: false }
}

/// The modular daemon, which serves one driver only.
fn modular_daemon(driver: &str) -> Option<&'static str> {
    Some(match driver {
        "qemu" => "virtqemud",
        "lxc" => "virtlxcd",
        "xen" => "virtxend",
        "vbox" => "virtvboxd",
        "vz" | "parallels" => "virtvzd",
        "bhyve" => "virtbhyved",
        "ch" => "virtchd",
        _ => return None,
    })
}

/// An environment without directories and sockets.
#[cfg(test)]
pub(crate) const fn environment_for_tests(is_root: bool) -> Environment {
    Environment {
        is_root,
        runtime_dir: None,
        config_file: None,
        default_uri: None,
        exists: |_| false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Environment = environment_for_tests(true);
    const MODULAR: Environment = Environment {
        is_root: true,
        runtime_dir: None,
        config_file: None,
        default_uri: None,
        exists: |path| path.to_string_lossy().contains("virtqemud"),
    };

    fn user() -> Environment {
        Environment { runtime_dir: Some("/run/user/7".into()), ..environment_for_tests(false) }
    }

    fn socket(uri: &str, read_only: bool, environment: &Environment) -> String {
        socket_in_mode(uri, read_only, environment, None)
    }

    fn socket_in_mode(
        uri: &str,
        read_only: bool,
        environment: &Environment,
        mode: Option<Mode>,
    ) -> String {
        match endpoint(&LibvirtUri::parse(uri).unwrap(), read_only, environment, mode) {
            Ok(endpoint) => endpoint.to_string(),
            Err(reason) => reason,
        }
    }

    #[test]
    fn remote_mode_holds_where_the_uri_has_no_mode() {
        let table = [
            ("qemu:///system", &MODULAR, Mode::Legacy, "/var/run/libvirt/libvirt-sock"),
            ("qemu:///system", &ROOT, Mode::Direct, "/var/run/libvirt/virtqemud-sock"),
            ("qemu:///system", &MODULAR, Mode::Auto, "/var/run/libvirt/virtqemud-sock"),
            ("qemu:///system?mode=auto", &ROOT, Mode::Direct, "/var/run/libvirt/libvirt-sock"),
            ("qemu:///system?socket=/s", &ROOT, Mode::Direct, "/s"),
            ("qemu+tcp://h/system", &ROOT, Mode::Direct, "h:16509"),
            ("qemu+ssh://h/system", &ROOT, Mode::Direct, "ssh h"),
        ];
        for (uri, environment, mode, expected) in table {
            assert_eq!(socket_in_mode(uri, false, environment, Some(mode)), expected, "{uri}");
        }
        let refused = socket_in_mode("test:///default", false, &ROOT, Some(Mode::Direct));
        assert!(refused.contains("remote_mode"), "{refused}");
    }

    /// The last argument of ssh.
    fn script(uri: &str, environment: &Environment) -> String {
        match endpoint(&LibvirtUri::parse(uri).unwrap(), true, environment, None).unwrap() {
            Endpoint::Child(mut program) => program.args.pop().unwrap().into_string().unwrap(),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn only_the_helper_finds_the_daemon_of_a_user_of_another_host() {
        let user = user();
        let table = [
            ("qemu+ssh://h/system", &user, true),
            ("qemu+ssh://h/session", &user, false),
            ("qemu+ssh://root@h/session", &user, true),
            ("qemu+ssh://h/session", &ROOT, true),
            ("qemu+ssh://fred@h/session", &ROOT, false),
            ("test+ssh://h/default", &user, false),
            ("test+ssh://root@h/default", &user, true),
        ];
        for (uri, environment, may_use_netcat) in table {
            assert_eq!(script(uri, environment).contains("$ARG"), may_use_netcat, "{uri}");
        }
    }

    #[test]
    fn a_uri_leads_to_the_socket_that_libvirt_would_take() {
        let user = user();
        let table = [
            ("qemu:///system", true, &ROOT, "/var/run/libvirt/libvirt-sock-ro"),
            ("qemu:///system", false, &ROOT, "/var/run/libvirt/libvirt-sock"),
            ("qemu:///system", true, &user, "/var/run/libvirt/libvirt-sock-ro"),
            ("qemu:///system", true, &MODULAR, "/var/run/libvirt/virtqemud-sock-ro"),
            ("xen:///system", true, &MODULAR, "/var/run/libvirt/libvirt-sock-ro"),
            ("qemu:///system?mode=legacy", true, &MODULAR, "/var/run/libvirt/libvirt-sock-ro"),
            ("xen:///?mode=direct", false, &ROOT, "/var/run/libvirt/virtxend-sock"),
            ("qemu:///session", true, &user, "/run/user/7/libvirt/libvirt-sock"),
            ("qemu:///session", true, &ROOT, "/var/run/libvirt/libvirt-sock-ro"),
            ("test:///default", true, &user, "/run/user/7/libvirt/libvirt-sock"),
            ("test:///default?socket=/tmp/s", true, &user, "/tmp/s"),
            ("test+tcp://[::1]/default", true, &user, "[::1]:16509"),
        ];
        for (uri, read_only, environment, expected) in table {
            assert_eq!(socket(uri, read_only, environment), expected, "{uri}");
        }
    }

    #[test]
    fn a_uri_that_means_no_socket_has_advice() {
        let without_dirs = Environment { runtime_dir: None, ..user() };
        assert!(socket("qemu:///session", true, &without_dirs).contains("XDG_RUNTIME_DIR"));
        assert!(
            socket("test:///default?mode=direct", true, &ROOT).contains("leave out mode=direct")
        );
    }
}
