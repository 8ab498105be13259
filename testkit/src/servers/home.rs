//! The directories of a libvirtd: a temporary one replaces `/etc`, `/run` and `/var`.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::process::Command;

use super::{LaunchError, check_socket_path, target_directory};

/// The user `nobody`. It runs the session daemon where root may not make namespaces.
const NOBODY: u32 = 65534;

/// Binds the directories of `$1` over the system's, and runs the rest of its arguments.
///
/// Covering all of `/run` also hides the system's message bus, which a daemon under test must not
/// use. Where both versions of control groups are mounted, libvirt uses version 2 although the
/// controllers belong to version 1, and fails to start containers: so version 2 is hidden.
const IN_NAMESPACE: &str = r#"
set -e
for part in lib cache log; do mount --bind "$1/$part" "/var/$part/libvirt"; done
mount --bind "$1/etc" /etc/libvirt
mount --bind "$1/run" /run
if [ "$2" = lxc ] && [ -d /sys/fs/cgroup/unified ]; then umount /sys/fs/cgroup/unified; fi
if [ "$3" ]; then hostname "$3"; fi
shift 3
exec "$@"
"#;

/// QEMU runs as root: under another user libvirtd takes its cached capabilities for stale and
/// probes QEMU again, for seconds, at each use. QEMU writes its own log, since there is no
/// virtlogd.
const QEMU_CONF: &str = "stdio_handler = \"file\"\nuser = \"root\"\ngroup = \"root\"\n";

#[derive(Debug)]
pub(super) struct Home {
    directory: TempDir,
    mode: Mode,
    lxc: bool,
    /// The name of the host, if it is not the machine's.
    pub(super) host: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// A system daemon in a mount namespace.
    System,
    /// A session daemon of our own user, or of the one with this id.
    Session(Option<u32>),
}

impl Home {
    /// Makes the directories of a daemon that runs containers if `lxc`, under the host name `host`.
    pub(super) async fn new(lxc: bool, host: Option<&str>) -> Result<Self, LaunchError> {
        let mode = Mode::detect().await?;
        if lxc {
            check_containers(mode)?;
        }
        if host.is_some() && mode != Mode::System {
            return Err(LaunchError::NeedsRoot { what: "another host name" });
        }
        let host = host.map(ToOwned::to_owned);
        let directory = tempfile::Builder::new()
            .prefix("vd")
            .tempdir()
            .map_err(LaunchError::io("make a temporary directory"))?;
        let home = Self { directory, mode, lxc, host };
        home.fill().map_err(LaunchError::io("fill the temporary directory"))?;
        // The longest of the daemon's socket paths in either mode.
        check_socket_path(&home.path("sockets/libvirt-admin-sock"))?;
        check_socket_path(&home.path("run/libvirt/libvirt-admin-sock"))?;
        Ok(home)
    }

    fn fill(&self) -> std::io::Result<()> {
        for part in [
            "etc",
            "run",
            "run/libvirt",
            "lib",
            "cache",
            "log",
            "sockets",
            "disks",
            "orders",
            "steps",
        ] {
            fs::create_dir(self.path(part))?;
        }
        match self.mode {
            Mode::System => {
                fs::write(self.path("etc/qemu.conf"), QEMU_CONF)?;
                if let Some(kept) = kept_capabilities().filter(|kept| kept.is_dir()) {
                    copy_files(&kept, &self.capabilities())?;
                }
            }
            Mode::Session(_) => {
                // What XDG_RUNTIME_DIR must have.
                fs::set_permissions(self.path("run"), Permissions::from_mode(0o700))?;
                for part in ["", "etc", "run", "run/libvirt", "lib", "cache", "log"] {
                    self.hand_over(&self.path(part))?;
                }
            }
        }
        Ok(())
    }

    /// Lets every user reach the sockets.
    pub(super) fn open_to_every_user(&self) -> std::io::Result<()> {
        fs::set_permissions(self.root(), Permissions::from_mode(0o755))
    }

    /// Makes the daemon's user the owner of a file.
    pub(super) fn hand_over(&self, path: &Path) -> std::io::Result<()> {
        match self.mode {
            Mode::Session(Some(user)) => chown(path, Some(user), Some(user)),
            Mode::System | Mode::Session(None) => Ok(()),
        }
    }

    /// Whether processes of [`command`](Self::command) see these directories in place of the
    /// machine's.
    pub(super) fn has_namespace(&self) -> bool {
        self.mode == Mode::System
    }

    pub(super) fn path(&self, inside: &str) -> PathBuf {
        self.directory.path().join(inside)
    }

    pub(super) fn root(&self) -> &Path {
        self.directory.path()
    }

    /// The daemon's socket.
    pub(super) fn socket(&self) -> PathBuf {
        match self.mode {
            Mode::System => self.path("sockets/libvirt-sock"),
            // A session daemon listens in its runtime directory.
            Mode::Session(_) => self.path("run/libvirt/libvirt-sock"),
        }
    }

    /// The lines of the configuration about sockets.
    pub(super) fn socket_config(&self) -> String {
        match self.mode {
            Mode::System => format!("unix_sock_dir = \"{}\"\n", self.path("sockets").display()),
            Mode::Session(_) => String::new(),
        }
    }

    /// The URI of its QEMU driver.
    pub(super) fn qemu_uri(&self) -> &'static str {
        match self.mode {
            Mode::System => "qemu:///system",
            Mode::Session(_) => "qemu:///session",
        }
    }

    /// Directories with pid files of processes that outlive the daemon, with their program's name.
    pub(super) fn pid_directories(&self) -> [(PathBuf, &'static str); 4] {
        [
            (self.path("run/libvirt/lxc"), "libvirt_lxc"),
            (self.path("run/libvirt/qemu"), "qemu"),
            (self.path("run/libvirt/qemu/run"), "qemu"),
            (self.path("run/libvirt"), "virtlogd"),
        ]
    }

    /// The command that runs `program` on these directories. Wrappers exec it, so the pid is its
    /// own.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command;
        match self.mode {
            Mode::System => {
                command = Command::new("unshare");
                command
                    .args(["--mount", "--uts", "--propagation", "private"])
                    .args(["sh", "-c", IN_NAMESPACE, "sh"])
                    .arg(self.root())
                    .arg(if self.lxc { "lxc" } else { "" })
                    .arg(self.host.as_deref().unwrap_or_default())
                    .arg(program);
            }
            Mode::Session(None) => command = Command::new(program),
            Mode::Session(Some(user)) => {
                command = Command::new("setpriv");
                command.args(["--reuid", &user.to_string(), "--regid", &user.to_string()]).args([
                    "--clear-groups",
                    "--",
                    program,
                ]);
            }
        }
        // A session daemon derives all its paths from these variables.
        if self.mode != Mode::System {
            command
                .env("HOME", self.path("lib"))
                .env("XDG_RUNTIME_DIR", self.path("run"))
                .env("XDG_CONFIG_HOME", self.path("etc"))
                .env("XDG_CACHE_HOME", self.path("cache"));
        }
        // Debian has daemons in directories that only root's PATH contains.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
        // Core files belong into the temporary directory too.
        command.current_dir(self.root());
        command
    }

    /// Saves the daemon's probe of QEMU for the next daemon: it takes seconds.
    pub(super) fn keep_capabilities(&self) {
        let Some(kept) = kept_capabilities() else { return };
        if self.mode == Mode::System && self.capabilities().is_dir() {
            // Without the copy the next start is only slower.
            let _ = copy_files(&self.capabilities(), &kept);
        }
    }

    fn capabilities(&self) -> PathBuf {
        self.path("cache/qemu/capabilities")
    }
}

impl Mode {
    async fn detect() -> Result<Self, LaunchError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Session(None));
        }
        let allowed = Command::new("unshare")
            .args(["--mount", "--uts", "--propagation", "private", "true"])
            .output()
            .await
            .map_err(LaunchError::spawn("unshare", "util-linux"))?;
        Ok(if allowed.status.success() { Self::System } else { Self::Session(Some(NOBODY)) })
    }
}

/// Checks that a daemon can run containers here.
fn check_containers(mode: Mode) -> Result<(), LaunchError> {
    if mode != Mode::System {
        return Err(LaunchError::NeedsRoot { what: "a container" });
    }
    match Path::new("/usr/lib/libvirt/libvirt_lxc").exists() {
        true => Ok(()),
        false => Err(LaunchError::Missing {
            program: "libvirt_lxc",
            package: "libvirt-daemon-driver-lxc",
        }),
    }
}

fn kept_capabilities() -> Option<PathBuf> {
    Some(target_directory()?.join("tmp/libvirt-capabilities"))
}

/// Copies the files, each by rename: another test may read the directory meanwhile.
fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for file in fs::read_dir(from)? {
        let file = file?.path();
        if let Some(name) = file.extension().and(file.file_name()).filter(|_| file.is_file()) {
            let whole = tempfile::Builder::new().suffix("").tempfile_in(to)?;
            fs::copy(&file, whole.path())?;
            whole.persist(to.join(name))?;
        }
    }
    Ok(())
}
