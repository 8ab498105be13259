//! The daemon's program, and the library that replaces the hypervisor's.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::servers::{LaunchError, target_directory};

/// The environment variable with the path of the program.
const VARIABLE: &str = "VIREVENT_XENSTORED";

/// The path of the program in Debian's package.
const PLACE: &str = "usr/lib/xen-4.17/bin/xenstored";

/// The libraries that [`SHIM`] replaces.
const LIBRARIES: [&str; 3] = ["libxenctrl.so.4.17", "libxenevtchn.so.1", "libxengnttab.so.1"];

const SHIM: &str = include_str!("shim.c");

/// The program: the one that the environment names, else one unpacked in cargo's target directory,
/// else an installed one.
pub(super) fn find() -> Result<PathBuf, LaunchError> {
    if let Some(program) = std::env::var_os(VARIABLE) {
        return Ok(program.into());
    }
    let unpacked = target_directory().map(|target| target.join("xen").join(PLACE));
    let installed = Some(Path::new("/").join(PLACE));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|directory| directory.join("xenstored"));
    let mut places = unpacked.into_iter().chain(installed).chain(in_path);
    places.find(|place| place.is_file()).ok_or(LaunchError::NoXenstored)
}

/// Makes a directory with the replaced libraries in it.
pub(super) async fn lay_libraries(directory: &Path) -> Result<(), LaunchError> {
    fs::create_dir(directory).map_err(LaunchError::io("make a directory"))?;
    let mut hasher = DefaultHasher::new();
    // In the name, so that a changed source is compiled again.
    SHIM.hash(&mut hasher);
    let name = format!("xenstored-shim-{:016x}.so", hasher.finish());
    // Compiling takes 0.2 s, so the library is kept for later tests.
    let kept = target_directory().map_or_else(|| directory.into(), |target| target.join("tmp"));
    let library = kept.join(name);
    if !library.exists() {
        compile(&kept, &library).await?;
    }
    for name in LIBRARIES {
        symlink(&library, directory.join(name)).map_err(LaunchError::io("link a library"))?;
    }
    Ok(())
}

async fn compile(directory: &Path, library: &Path) -> Result<(), LaunchError> {
    fs::create_dir_all(directory).map_err(LaunchError::io("make a directory"))?;
    let work = tempfile::Builder::new().prefix("shim").tempdir_in(directory);
    let work = work.map_err(LaunchError::io("make a temporary directory"))?;
    let source = work.path().join("shim.c");
    let made = work.path().join("shim.so");
    fs::write(&source, SHIM).map_err(LaunchError::io("write the library's source"))?;
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&made, &source])
        .output()
        .await
        .map_err(LaunchError::spawn("cc", "gcc libc6-dev"))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(LaunchError::Command { command: "cc -shared shim.c".into(), message });
    }
    // By rename, since another test may be about to load it.
    fs::rename(&made, library).map_err(LaunchError::io("move the library to its place"))
}
