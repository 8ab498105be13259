//! Real servers, each started for one test and gone after it.
//!
//! ```text
//!   test ──▶ Tap (optional: counts what passes) ──▶ Libvirtd ──▶ QEMU guests, LXC containers
//!     └────▶ Virsh: the other client, which makes things happen
//!
//!   test ──▶ StoreTap (optional) ──▶ Xenstored
//!     └────▶ Toolstack: makes things happen
//! ```
//!
//! A [`Libvirtd`] sees nothing of the machine's own: its directories are a temporary one, so that
//! any number run side by side, and its sockets are there too. Run as root it is a system daemon in
//! a mount namespace of its own; run as another user (or where namespaces are not allowed) it is a
//! session daemon.
//!
//! Dropping it kills what it started, guests too. A [`Qemu`] is one that no daemon knows of. A
//! [`Xenstored`] is the store daemon of a Xen host, on a machine without Xen.
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
mod libvirtd;
mod network;
mod process;
mod qemu;
mod relay;
mod tap;
mod virsh;
mod xenstored;

use std::io;
use std::path::{Path, PathBuf};

pub use self::container::{Container, Order};
pub use self::guest::{Deed, Guest};
pub use self::libvirtd::{Config, Hook, Libvirtd};
pub use self::network::NetworkPath;
pub use self::process::rss_kib;
pub use self::qemu::{Qemu, QemuConfig};
pub use self::tap::{Seen, Tap};
pub use self::virsh::{Virsh, VirshSession};
pub use self::xenstored::{Store, StoreSeen, StoreTap, Watch, Xenstored};

/// A server, or a program that drives it, could not be started or failed.
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
    /// There is no xenstored. It need not be installed.
    #[error(
        "there is no xenstored: in the workspace, `mkdir -p target/xen && cd target/xen && apt-get \
         download xen-utils-4.17 && dpkg -x xen-utils-4.17_*.deb .`, or set VIREVENT_XENSTORED to the \
         path of one of Xen 4.17"
    )]
    NoXenstored,
    /// Something needs namespaces, which only root may make, and not everywhere.
    #[error("{what} needs root, in a place where it may make namespaces")]
    NeedsRoot {
        /// What was asked for.
        what: &'static str,
    },
    /// The operating system refused something.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The server ended, or did not answer in time.
    #[error("{server} {trouble}; its log says:\n{log}")]
    NotReady {
        /// The server.
        server: &'static str,
        /// What it did instead.
        trouble: String,
        /// The end of what it wrote.
        log: String,
    },
    /// A command said no.
    #[error("`{command}` failed: {message}")]
    Command {
        /// The command line.
        command: String,
        /// What it wrote to stderr.
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

    /// For the error of starting `program`.
    fn spawn(program: &'static str, package: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { program, package },
            _ => Self::Io { what: format!("start {program}"), source },
        }
    }
}

/// Cargo's target directory, which the running test is in.
fn target_directory() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    // The tag is missing where somebody else made the directory before cargo.
    let is_target = |directory: &&Path| {
        ["CACHEDIR.TAG", ".rustc_info.json"].iter().any(|file| directory.join(file).exists())
    };
    Some(program.ancestors().find(is_target)?.into())
}

/// The longest path that fits into a Unix socket's address (`sun_path`, less its final NUL).
const LONGEST_SOCKET_PATH: usize = 107;

fn check_socket_path(path: &Path) -> Result<(), LaunchError> {
    match path.as_os_str().len() {
        0..=LONGEST_SOCKET_PATH => Ok(()),
        _ => Err(LaunchError::PathTooLong { path: path.display().to_string() }),
    }
}
