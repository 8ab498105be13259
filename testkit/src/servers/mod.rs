//! Real servers, each started for one test and ended with it.
//!
//! ```text
//!   test ──▶ Tap (optional: counts what passes) ──▶ Libvirtd ──▶ QEMU guests, LXC containers
//!     └────▶ Virsh: a second client, which acts on the domains
//!
//!   test ──▶ StoreTap (optional) ──▶ Xenstored
//!     └────▶ Toolstack: acts on the domains
//! ```
//!
//! A [`Libvirtd`] keeps its files and sockets in a temporary directory and does not touch the
//! machine's own, so that any number run side by side. Started by root it is a system daemon in a
//! mount namespace of its own; started by another user, or where namespaces are not allowed, it is
//! a session daemon.
//!
//! Dropping it kills all processes that it started, guests included. A [`Qemu`] runs without a
//! daemon. A [`Xenstored`] is the store daemon of a Xen host, on a machine without Xen. A
//! [`NatsServer`] is a broker, for relays and the fleet that reads them.
//!
//! ```no_run
//! # async fn test() -> Result<(), Box<dyn std::error::Error>> {
//! use virevent_testkit::servers::Libvirtd;
//!
//! let daemon = Libvirtd::start().await?;
//! let uri = daemon.uri("test:///default"); // test+unix:///default?socket=...
//! daemon.virsh("test:///default").run(&["suspend", "test"]).await?;
//! # Ok(())
//! # }
//! ```

mod container;
mod guest;
mod home;
mod launch;
mod libvirtd;
mod messages;
mod nats;
mod network;
mod polkit;
mod process;
mod proxy;
mod qemu;
mod sshd;
mod virsh;
mod xenstored;

use std::io;
use std::path::{Path, PathBuf};

pub use self::container::{Container, Order};
pub use self::guest::{Deed, Guest};
pub use self::libvirtd::{Config, Hook, Libvirtd, Sasl, Seen, Tap};
pub use self::nats::NatsServer;
pub use self::network::NetworkPath;
pub use self::polkit::Polkit;
pub use self::process::rss_kib;
pub use self::proxy::Proxy;
pub use self::qemu::{Qemu, QemuConfig};
pub use self::sshd::Sshd;
pub use self::virsh::{Virsh, VirshEvents, VirshSession};
pub use self::xenstored::{Store, StoreSeen, StoreTap, Watch, Xenstored};

/// The failure of a server, or of a program that acts on it.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A program is not installed.
    #[error("{program} is not installed: on Debian, apt-get install {package}")]
    Missing {
        /// The program.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// There is no xenstored. Unpacking the package is enough; it need not be installed.
    #[error(
        "no xenstored found: in the workspace, run `mkdir -p target/xen && cd target/xen && apt-get \
         download xen-utils-4.17 && dpkg -x xen-utils-4.17_*.deb .`, or set VIREVENT_XENSTORED to the \
         path of the xenstored of Xen 4.17"
    )]
    NoXenstored,
    /// A configuration needs namespaces, which only root may make, and not in every container.
    #[error("{what} needs root and the right to make namespaces")]
    NeedsRoot {
        /// The configuration.
        what: &'static str,
    },
    /// The operating system refused an operation.
    #[error("cannot {what}")]
    Io {
        /// The operation.
        what: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The server ended, or did not answer in time.
    #[error("{server} {trouble}; its log:\n{log}")]
    NotReady {
        /// The server.
        server: &'static str,
        /// The behaviour of the server.
        trouble: String,
        /// The end of its log.
        log: String,
    },
    /// A command failed.
    #[error("`{command}` failed: {message}")]
    Command {
        /// The command line.
        command: String,
        /// Its error message.
        message: String,
    },
    /// A socket's path does not fit into the 107 bytes that a Unix socket address has.
    #[error("the socket path {path} is too long: set TMPDIR to a shorter directory")]
    PathTooLong {
        /// The path.
        path: String,
    },
}

impl LaunchError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |source| Self::Io { what, source }
    }

    /// The error of starting `program` from the Debian package `package`.
    fn spawn(program: &'static str, package: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { program, package },
            _ => Self::Io { what: format!("start {program}"), source },
        }
    }
}

/// Cargo's target directory, above the running test.
fn target_directory() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    // Cargo writes no CACHEDIR.TAG into a directory that existed before.
    let is_target = |directory: &&Path| {
        ["CACHEDIR.TAG", ".rustc_info.json"].iter().any(|file| directory.join(file).exists())
    };
    Some(program.ancestors().find(is_target)?.into())
}

/// The longest path that fits into a Unix socket's address (`sun_path` without its final NUL).
const LONGEST_SOCKET_PATH: usize = 107;

fn check_socket_path(path: &Path) -> Result<(), LaunchError> {
    match path.as_os_str().len() {
        0..=LONGEST_SOCKET_PATH => Ok(()),
        _ => Err(LaunchError::PathTooLong { path: path.display().to_string() }),
    }
}
