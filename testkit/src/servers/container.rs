//! Containers for libvirt's LXC driver: the host's own files, and a shell as their init.

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
    /// It ends, and the container with it.
    Exit,
    /// It asks its kernel for a reboot, as `reboot -f` does. It waits for orders again afterwards.
    Reboot,
}

impl Container {
    /// A container that does nothing by itself.
    pub fn idle(name: &str) -> Self {
        Self { name: name.into() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its domain XML; orders come as a file at `orders`.
    pub(super) fn to_xml(&self, orders: &Path) -> String {
        // In a pid namespace the kernel turns reboot(2) into the end of its init, by a signal that says
        // so to libvirt_lxc. Debian has Perl everywhere; a program `reboot` it has not.
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

/// Lets the processes of a container go on whose control group is frozen: even SIGKILL waits for that.
/// Returns the directories of its control groups.
pub(super) fn thaw(pid: u32) -> Vec<PathBuf> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let directories: Vec<_> = groups.lines().filter_map(control_group).collect();
    for directory in &directories {
        // Of the first version, and of the second. Where the file is missing nothing is frozen.
        for (file, value) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
            let file = directory.join(file);
            if file.exists() {
                let _ = fs::write(file, value);
            }
        }
    }
    directories
}

/// The directory of a line of `/proc/PID/cgroup`, `7:freezer:/machine/lxc-11-web.libvirt-lxc`, if it is of
/// a container.
fn control_group(line: &str) -> Option<PathBuf> {
    let mut parts = line.splitn(3, ':').skip(1);
    let controllers = parts.next()?;
    let path = parts.next()?.strip_prefix('/')?;
    let mount = controllers.strip_prefix("name=").unwrap_or(controllers);
    path.contains("lxc-").then(|| Path::new("/sys/fs/cgroup").join(mount).join(path))
}
