//! Which socket a URI means on this host, now.
//!
//! The rules are libvirt's (`remote_sockets.c`). The system daemons have their sockets in
//! `/var/run/libvirt`, a session daemon in `$XDG_RUNTIME_DIR/libvirt`. The path `/session` and the
//! driver `test` mean the session daemon, unless the user is root. `mode=auto` takes the socket of
//! the modular daemon of the driver (such as `virtqemud-sock`) where it exists, else libvirtd's. A
//! read-only connection takes the socket of the same name that ends in `-ro`; a session daemon has
//! none.

use std::path::{Path, PathBuf};

use virevent_transport::Endpoint;

use crate::uri::{LibvirtUri, Mode, Transport};

/// What the choice depends on besides the URI.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) is_root: bool,
    /// `$XDG_RUNTIME_DIR`, or libvirt's substitute for it.
    pub(crate) runtime_dir: Option<PathBuf>,
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
        Self { is_root, runtime_dir, exists: |path| path.exists() }
    }
}

/// Where the daemon that `uri` means listens.
///
/// # Errors
/// It means no socket: what to do.
pub(crate) fn endpoint(
    uri: &LibvirtUri,
    read_only: bool,
    environment: &Environment,
) -> Result<Endpoint, String> {
    let (daemon, mode) = match &uri.transport {
        Transport::Tcp { host, port } | Transport::Tls { host, port, .. } => {
            return Ok(Endpoint::Tcp(host.clone(), *port));
        }
        Transport::Unix { socket: Some(path), .. } => return Ok(Endpoint::Unix(path.into())),
        Transport::Unix { socket: None, mode } => (modular_daemon(&uri.driver), *mode),
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
                "the driver {} has no modular daemon: leave out mode=direct",
                uri.driver
            ));
        }
        (Mode::Auto, Some(modular)) if (environment.exists)(&modular) => modular,
        (Mode::Auto | Mode::Legacy, _) => path("libvirt"),
    }))
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

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Environment = Environment { is_root: true, runtime_dir: None, exists: |_| false };
    const MODULAR: Environment = Environment {
        is_root: true,
        runtime_dir: None,
        exists: |path| path.to_string_lossy().contains("virtqemud"),
    };

    fn user() -> Environment {
        Environment { is_root: false, runtime_dir: Some("/run/user/7".into()), exists: |_| false }
    }

    fn socket(uri: &str, read_only: bool, environment: &Environment) -> String {
        match endpoint(&LibvirtUri::parse(uri).unwrap(), read_only, environment) {
            Ok(endpoint) => endpoint.to_string(),
            Err(reason) => reason,
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
