//! SASL: which mechanisms a libvirtd offers, and its users.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::Libvirtd;
use crate::servers::LaunchError;
use crate::servers::home::Home;

/// Demands SASL on both unix sockets, and on the TCP port if there is one. By value:
/// `Sasl::new("scram-sha-256").user("fred", "sekrit")`.
///
/// It needs `saslpasswd2` (`sasl2-bin`) and the mechanisms (`libsasl2-modules`).
#[derive(Clone, Debug)]
pub struct Sasl {
    mechanisms: String,
    users: Vec<(String, String)>,
}

impl Sasl {
    /// With these mechanisms, as Cyrus SASL writes them: `scram-sha-256 plain`.
    #[must_use]
    pub fn new(mechanisms: &str) -> Self {
        Self { mechanisms: mechanisms.into(), users: Vec::new() }
    }

    /// Adds a user.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.users.push((name.into(), password.into()));
        self
    }

    /// Writes the configuration, and the users.
    pub(super) async fn install(&self, home: &Home) -> Result<(), LaunchError> {
        let directory = directory(home);
        fs::create_dir_all(&directory).map_err(LaunchError::io("make a directory"))?;
        let text = format!(
            "mech_list: {}\npwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {}\n",
            self.mechanisms,
            database(home).display()
        );
        fs::write(directory.join("libvirt.conf"), text)
            .map_err(LaunchError::io("write the configuration of SASL"))?;
        for (name, password) in &self.users {
            set_password(home, name, password).await?;
        }
        home.hand_over(&directory).map_err(LaunchError::io("give a directory to its user"))
    }
}

/// Where `SASL_CONF_PATH` leads.
pub(super) fn directory(home: &Home) -> PathBuf {
    home.path("sasl")
}

fn database(home: &Home) -> PathBuf {
    directory(home).join("passwd.db")
}

async fn set_password(home: &Home, user: &str, password: &str) -> Result<(), LaunchError> {
    let database = database(home);
    // The realm that a user without one belongs to is the name of the daemon's host.
    let machine = fs::read_to_string("/proc/sys/kernel/hostname")
        .map_err(LaunchError::io("read the machine's name"))?;
    let realm = home.host.as_deref().unwrap_or(machine.trim_end());
    let mut command = Command::new("saslpasswd2");
    command.args(["-p", "-c", "-a", "libvirt", "-u", realm, "-f"]).arg(&database).arg(user);
    // It is where only root looks.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(LaunchError::spawn("saslpasswd2", "sasl2-bin"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // The end of its input ends the password.
        stdin
            .write_all(password.as_bytes())
            .await
            .map_err(LaunchError::io("give saslpasswd2 a password"))?;
    }
    let output = child.wait_with_output().await.map_err(LaunchError::io("wait for saslpasswd2"))?;
    if !output.status.success() {
        return Err(LaunchError::Command {
            command: format!("saslpasswd2 -u {realm} {user}"),
            message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    hand_over(home, &database)
}

fn hand_over(home: &Home, path: &Path) -> Result<(), LaunchError> {
    home.hand_over(path).map_err(LaunchError::io("give a file to its user"))
}

impl Libvirtd {
    /// Adds a user of SASL, or gives one another password. The daemon sees it at once.
    ///
    /// # Errors
    /// That `saslpasswd2` is not installed, or fails.
    ///
    /// # Cancel safety
    /// Dropped midway the user is as before, or not.
    pub async fn set_password(&self, user: &str, password: &str) -> Result<(), LaunchError> {
        set_password(&self.home, user, password).await
    }
}
