//! The script that libvirtd runs at each step of a QEMU guest's life, and what it does there.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Libvirtd;
use crate::servers::LaunchError;

/// What libvirtd's hook does at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// It succeeds at once.
    Pass,
    /// It does not end until another is set. libvirtd holds the domain's lock meanwhile.
    Hang,
    /// It fails, and the start with it.
    Refuse,
}

/// The name of the guest and the step are its first two arguments; `@` is a directory with a file for each
/// step at which it does not pass.
const SCRIPT: &str = r#"#!/bin/sh
while [ "$(cat "@/$1-$2" 2>/dev/null)" = hang ]; do sleep 0.05; done
[ ! -e "@/$1-$2" ]
"#;

/// Writes the script to where libvirtd looks for it when it starts.
pub(super) fn install(etc: &Path, steps: &Path) -> std::io::Result<()> {
    let directory = etc.join("hooks");
    fs::create_dir_all(&directory)?;
    let file = directory.join("qemu");
    fs::write(&file, SCRIPT.replace('@', &steps.display().to_string()))?;
    fs::set_permissions(file, Permissions::from_mode(0o755))
}

impl Libvirtd {
    /// Says what the hook does from now on when the QEMU guest of that name is at this step: `prepare`,
    /// `start`, `started`, `stopped` or `release`. One that hangs there goes on with it. The daemon needs
    /// [`Config::hook`](super::Config::hook).
    ///
    /// # Errors
    /// That its file cannot be written.
    pub fn set_hook(&self, guest: &str, step: &str, hook: Hook) -> Result<(), LaunchError> {
        let file = self.home.path("steps").join(format!("{guest}-{step}"));
        let draft = file.with_extension("draft");
        let done = match hook {
            // Gone already is as good.
            Hook::Pass => {
                let _ = fs::remove_file(&file);
                Ok(())
            }
            // In one step: it looks at any time.
            Hook::Hang => fs::write(&draft, "hang").and_then(|()| fs::rename(&draft, &file)),
            Hook::Refuse => fs::write(&draft, "refuse").and_then(|()| fs::rename(&draft, &file)),
        };
        done.map_err(LaunchError::io("tell the hook"))
    }
}
