//! The hook script that libvirtd runs at each step of a QEMU guest's life.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Libvirtd;
use crate::servers::LaunchError;

/// The behaviour of the hook script at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// It succeeds at once.
    Pass,
    /// It runs until another hook is set. libvirtd holds the domain's lock meanwhile.
    Hang,
    /// It fails, so that libvirtd fails the start.
    Refuse,
}

/// Its first two arguments are the guest's name and the step. `@` stands for a directory with a
/// file for each step at which it does not pass.
const SCRIPT: &str = r#"#!/bin/sh
while [ "$(cat "@/$1-$2" 2>/dev/null)" = hang ]; do sleep 0.05; done
[ ! -e "@/$1-$2" ]
"#;

/// Writes the script to where libvirtd looks for it when it starts.
pub(super) fn install(etc: &Path, steps: &Path) -> std::io::Result<()> {
    // libvirtd looks for hooks only when it starts, so this comes before.
    let directory = etc.join("hooks");
    fs::create_dir_all(&directory)?;
    let file = directory.join("qemu");
    fs::write(&file, SCRIPT.replace('@', &steps.display().to_string()))?;
    fs::set_permissions(file, Permissions::from_mode(0o755))
}

impl Libvirtd {
    /// Sets the hook for a QEMU guest at one step: `prepare`, `start`, `started`, `stopped` or
    /// `release`. A hook that hangs there follows it at once. The daemon needs
    /// [`Config::hook`](super::Config::hook).
    ///
    /// # Errors
    /// Its file cannot be written.
    pub fn set_hook(&self, guest: &str, step: &str, hook: Hook) -> Result<(), LaunchError> {
        let file = self.home.path("steps").join(format!("{guest}-{step}"));
        let draft = file.with_extension("draft");
        let done = match hook {
            Hook::Pass => {
                // The file is missing if the hook passed before.
                let _ = fs::remove_file(&file);
                Ok(())
            }
            // By rename: the script may read the file at any time, and must not see half of it.
            Hook::Hang => fs::write(&draft, "hang").and_then(|()| fs::rename(&draft, &file)),
            Hook::Refuse => fs::write(&draft, "refuse").and_then(|()| fs::rename(&draft, &file)),
        };
        done.map_err(LaunchError::io("write the hook's file"))
    }
}
