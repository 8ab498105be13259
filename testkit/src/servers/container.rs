//! Containers for libvirt's LXC driver: they share the host's files, and their init is a shell.

use std::fs;
use std::path::{Path, PathBuf};

/// A container whose init waits for an [`Order`].
#[derive(Clone, Debug)]
pub struct Container {
    name: String,
}

/// An order for the init of a [`Container`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Exit, which ends the container.
    Exit,
    /// Ask the kernel for a reboot, as `reboot -f` does. After it init waits for orders again.
    Reboot,
}

impl Container {
    /// A container that only waits for orders.
    #[must_use]
    pub fn idle(name: &str) -> Self {
        Self { name: name.into() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its domain XML. Its init reads orders from the file `orders`.
    pub(super) fn to_xml(&self, orders: &Path) -> String {
        // In a pid namespace reboot(2) ends init by a signal that libvirt_lxc takes for a reboot.
        // Perl makes the call, since every Debian has it, but not every one has the program
        // `reboot`.
        let script = format!(
            "while ! read -r word 2>/dev/null &lt; '{file}'; do sleep 0.02; done\n\
             rm '{file}'\n\
             [ $word = exit ] || exec perl -e 'syscall(169, 0xfee1dead, 0x28121969, 0x1234567, 0)'",
            file = orders.display(),
        );
        format!(
            "<domain type='lxc'>
  <name>{}</name>
  <memory unit='MiB'>32</memory>
  <os>
    <type arch='x86_64'>exe</type>
    <init>/bin/sh</init>
    <initarg>-c</initarg>
    <initarg>{script}</initarg>
  </os>
  <devices>
    <emulator>/usr/lib/libvirt/libvirt_lxc</emulator>
    <console type='pty'/>
  </devices>
</domain>",
            self.name,
        )
    }
}

impl Order {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Exit => "exit\n",
            Self::Reboot => "reboot\n",
        }
    }
}

/// Thaws the control groups of a container and returns their directories: a frozen process does not
/// take even SIGKILL.
pub(super) fn thaw(pid: u32) -> Vec<PathBuf> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let directories: Vec<_> = groups.lines().filter_map(control_group).collect();
    for directory in &directories {
        // Version 1 and version 2 of control groups. A group without the file cannot be frozen.
        for (file, value) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
            let file = directory.join(file);
            if file.exists() {
                let _ = fs::write(file, value);
            }
        }
    }
    directories
}

/// The directory of the control group in a line of `/proc/PID/cgroup`, if it belongs to a
/// container: `7:freezer:/machine/lxc-11-web.libvirt-lxc`.
fn control_group(line: &str) -> Option<PathBuf> {
    let mut parts = line.splitn(3, ':').skip(1);
    let controllers = parts.next()?;
    let path = parts.next()?.strip_prefix('/')?;
    let mount = controllers.strip_prefix("name=").unwrap_or(controllers);
    path.contains("lxc-").then(|| Path::new("/sys/fs/cgroup").join(mount).join(path))
}
