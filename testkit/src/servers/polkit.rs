//! A polkitd on a message bus of its own, without an init system.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::LaunchError;
use super::launch::{Trouble, spawn_logged, until_listening};

/// Where Debian has it: it is in no user's `PATH`.
const PROGRAM: &str = "/usr/lib/polkit-1/polkitd";

/// Every user may connect and own every name: the bus has no other clients than those of the test.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow send_type="method_call"/>
    <allow receive_sender="*"/>
  </policy>
"#;

/// A real polkitd, with the machine's actions and with rules of its own in place of those in
/// `/etc/polkit-1/rules.d`. No agent runs. Dropping it kills it and its bus.
#[derive(Debug)]
pub struct Polkit {
    /// The bus, and polkitd on it.
    _children: [Child; 2],
    directory: TempDir,
}

impl Polkit {
    /// Starts it with these rules, in JavaScript, and waits until it is on the bus.
    ///
    /// # Errors
    /// It is not installed, we are not root, or it does not start.
    ///
    /// # Cancel safety
    /// Dropping the future kills both daemons and removes their files.
    pub async fn start(rules: &str) -> Result<Self, LaunchError> {
        if !rustix::process::geteuid().is_root() {
            return Err(LaunchError::NeedsRoot { what: "a polkitd" });
        }
        let directory = tempfile::Builder::new()
            .prefix("vp")
            .tempdir()
            .map_err(LaunchError::io("make a temporary directory"))?;
        fill(directory.path(), rules).map_err(LaunchError::io("write the files of polkitd"))?;
        let path = |inside: &str| directory.path().join(inside);
        let bus_path = path("bus");

        let mut command = Command::new("dbus-daemon");
        command.arg("--nofork").arg("--nosyslog").arg("--config-file").arg(path("bus.conf"));
        let missing = LaunchError::spawn("dbus-daemon", "dbus-daemon");
        let mut bus = spawn_logged(&mut command, &path("bus.log"), missing)?;
        until_listening(&mut bus, async || bus_path.exists())
            .await
            .map_err(|trouble| not_ready("dbus-daemon", trouble, &path("bus.log")))?;

        // polkitd has no option for the directory of its rules.
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg("mount --bind \"$1\" /etc/polkit-1/rules.d && exec \"$2\"")
            .arg("sh")
            .arg(path("rules"))
            .arg(PROGRAM)
            .env("DBUS_SYSTEM_BUS_ADDRESS", address(&bus_path));
        let missing = LaunchError::spawn("unshare", "util-linux");
        let mut polkitd = spawn_logged(&mut command, &path("polkitd.log"), missing)?;
        let is_on_the_bus = async || has_owner(&bus_path).await;
        until_listening(&mut polkitd, is_on_the_bus).await.map_err(|trouble| match trouble {
            // The exit statuses of a shell that finds no such program.
            Trouble::Ended(status) if matches!(status.code(), Some(126 | 127)) => {
                LaunchError::Missing { program: PROGRAM, package: "polkitd" }
            }
            _ => not_ready("polkitd", trouble, &path("polkitd.log")),
        })?;
        Ok(Self { _children: [bus, polkitd], directory })
    }

    /// The address of its bus, for `DBUS_SYSTEM_BUS_ADDRESS`.
    pub fn bus(&self) -> String {
        address(&self.directory.path().join("bus"))
    }
}

fn address(bus: &Path) -> String {
    format!("unix:path={}", bus.display())
}

fn not_ready(server: &'static str, trouble: Trouble, log: &PathBuf) -> LaunchError {
    let log = fs::read_to_string(log).unwrap_or_default();
    LaunchError::NotReady { server, trouble: trouble.to_text(), log }
}

fn fill(directory: &Path, rules: &str) -> std::io::Result<()> {
    // polkitd runs as a user of its own, and the clients of the bus as any.
    fs::set_permissions(directory, Permissions::from_mode(0o755))?;
    let listen = address(&directory.join("bus"));
    fs::write(
        directory.join("bus.conf"),
        format!("{BUS}  <listen>{listen}</listen>\n</busconfig>\n"),
    )?;
    fs::create_dir(directory.join("rules"))?;
    fs::write(directory.join("rules/10-test.rules"), rules)?;
    for file in ["rules", "rules/10-test.rules"] {
        fs::set_permissions(directory.join(file), Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Whether polkitd has its name on the bus.
async fn has_owner(bus: &Path) -> bool {
    let output = Command::new("dbus-send")
        .arg(format!("--bus={}", address(bus)))
        .args(["--print-reply=literal", "--dest=org.freedesktop.DBus", "/org/freedesktop/DBus"])
        .args(["org.freedesktop.DBus.NameHasOwner", "string:org.freedesktop.PolicyKit1"])
        .stdin(Stdio::null())
        .output()
        .await;
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("true"))
}
