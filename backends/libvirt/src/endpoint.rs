//! Where a daemon listens: which socket a URI means on this machine, now.
//!
//! As libvirt does it. The sockets of the system's daemons are in `/var/run/libvirt`, those of a
//! user's own in `$XDG_RUNTIME_DIR/libvirt`; the latter are meant when the path is `/session` or the
//! driver is `test`, unless the user is root. `mode=auto` takes the socket of the driver's own daemon
//! (`virtqemud-sock` and the like) where it exists, else libvirtd's. A read-only connection takes the
//! socket of the same name that ends in `-ro`, of which a user's own daemon has none.

use std::path::{Path, PathBuf};

use virevent_transport::Endpoint;

use crate::uri::{LibvirtUri, Mode, Transport};

/// What the choice depends on besides the URI.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) is_root: bool,
    /// `$XDG_RUNTIME_DIR`, or what stands in for it.
    pub(crate) runtime_dir: Option<PathBuf>,
    /// Whether a path exists.
    pub(crate) exists: fn(&Path) -> bool,
}

impl Surroundings {
    pub(crate) fn now() -> Self {
        let dir = |name| std::env::var_os(name).filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let runtime_dir = dir("XDG_RUNTIME_DIR")
            .or_else(|| dir("XDG_CACHE_HOME"))
            .or_else(|| dir("HOME").map(|home| home.join(".cache")));
        let is_root = rustix::process::geteuid().is_root();
        Self { is_root, runtime_dir, exists: |path| path.exists() }
    }
}

/// Where the daemon that `uri` means listens.
///
/// # Errors
/// There is no such place: what to do.
pub(crate) fn endpoint(
    uri: &LibvirtUri,
    read_only: bool,
    around: &Surroundings,
) -> Result<Endpoint, String> {
    let (daemon, mode) = match &uri.transport {
        Transport::Tcp { host, port } => return Ok(Endpoint::Tcp(host.clone(), *port)),
        Transport::Unix { socket: Some(path), .. } => return Ok(Endpoint::Unix(path.into())),
        Transport::Unix { socket: None, mode } => (driver_daemon(&uri.driver), *mode),
    };
    let session = uri.means_session_daemon() && !around.is_root;
    let dir = match (session, &around.runtime_dir) {
        (false, _) => PathBuf::from("/var/run/libvirt"),
        (true, Some(dir)) => dir.join("libvirt"),
        (true, None) => {
            return Err("set XDG_RUNTIME_DIR, where your own libvirt daemon listens, or give \
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
                "the driver {} has no daemon of its own: take out mode=direct",
                uri.driver
            ));
        }
        (Mode::Auto, Some(modular)) if (around.exists)(&modular) => modular,
        (Mode::Auto | Mode::Legacy, _) => path("libvirt"),
    }))
}

/// The daemon that serves one driver alone.
fn driver_daemon(driver: &str) -> Option<&'static str> {
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

    const ROOT: Surroundings = Surroundings { is_root: true, runtime_dir: None, exists: |_| false };
    const MODULAR: Surroundings = Surroundings {
        is_root: true,
        runtime_dir: None,
        exists: |path| path.to_string_lossy().contains("virtqemud"),
    };

    fn user() -> Surroundings {
        Surroundings { is_root: false, runtime_dir: Some("/run/user/7".into()), exists: |_| false }
    }

    fn place(uri: &str, read_only: bool, around: &Surroundings) -> String {
        match endpoint(&LibvirtUri::parse(uri).unwrap(), read_only, around) {
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
        for (uri, read_only, around, expected) in table {
            assert_eq!(place(uri, read_only, around), expected, "{uri}");
        }
    }

    #[test]
    fn where_there_is_no_socket_it_says_what_to_do() {
        let lost = Surroundings { runtime_dir: None, ..user() };
        assert!(place("qemu:///session", true, &lost).contains("XDG_RUNTIME_DIR"));
        assert!(place("test:///default?mode=direct", true, &ROOT).contains("take out mode=direct"));
    }
}
