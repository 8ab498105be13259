//! The command of the user.

use std::ffi::OsString;

use tokio::process::Command;

/// Runs a program with its arguments, which share the terminal, until it ends.
///
/// # Errors
/// It cannot be run, or does not succeed: a line that says so.
///
/// # Cancel safety
/// Dropping the future kills the program.
pub async fn run(command: Vec<OsString>) -> Result<(), String> {
    let [program, arguments @ ..] = &command[..] else { return Err("no command".into()) };
    let status = Command::new(program).args(arguments).kill_on_drop(true).status().await;
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program:?}: {status}")),
        Err(error) => Err(format!("{program:?}: {error}")),
    }
}
