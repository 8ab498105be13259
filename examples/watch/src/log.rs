//! What the libraries log, on standard error: unless more is asked for, only what the user should act
//! upon, such as a directory that is not there.

use std::ffi::OsStr;
use std::io::{self, Write};

use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::prelude::*;

/// The variable of the environment that asks for it.
pub(crate) const VARIABLE: &str = "VIREVENT_LOG";

/// Logs from now on what `wanted` says: `warn`, `info` or `debug`.
///
/// # Errors
/// It says something else: in one line.
pub(crate) fn start(wanted: Option<&OsStr>) -> Result<(), String> {
    let subscriber = tracing_subscriber::fmt();
    match level(wanted.unwrap_or_default())? {
        Some(level) => subscriber.with_max_level(level).with_writer(io::stderr).init(),
        None => subscriber
            .with_max_level(LevelFilter::WARN)
            .without_time()
            .with_level(false)
            .with_target(false)
            .with_writer(Complaint::default)
            .finish()
            .with(filter_fn(|record| record.target() == ADVICE))
            .init(),
    }
    Ok(())
}

/// The target of records that a user should act upon.
const ADVICE: &str = "virevent::advice";

/// One record, said in the program's own form.
#[derive(Default)]
struct Complaint(Vec<u8>);

impl Write for Complaint {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Complaint {
    fn drop(&mut self) {
        crate::complain(String::from_utf8_lossy(&self.0).trim());
    }
}

fn level(wanted: &OsStr) -> Result<Option<LevelFilter>, String> {
    match wanted.to_str() {
        Some("") => Ok(None),
        Some("warn") => Ok(Some(LevelFilter::WARN)),
        Some("info") => Ok(Some(LevelFilter::INFO)),
        Some("debug") => Ok(Some(LevelFilter::DEBUG)),
        _ => Err(format!("{VARIABLE} is {wanted:?}: give warn, info or debug, or unset it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_logged_unless_it_is_asked_for_and_a_wrong_level_is_said() {
        let level = |wanted: &str| level(OsStr::new(wanted));
        assert_eq!(level(""), Ok(None));
        assert_eq!(level("warn"), Ok(Some(LevelFilter::WARN)));
        assert_eq!(level("debug"), Ok(Some(LevelFilter::DEBUG)));
        let error = level("loud").unwrap_err();
        assert!(error.contains("VIREVENT_LOG") && error.contains("\"loud\""), "{error}");
    }
}
