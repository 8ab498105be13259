//! What the libraries log, on standard error: nothing unless it is asked for.

use std::ffi::OsStr;
use std::io;

use tracing_subscriber::filter::LevelFilter;

/// The variable of the environment that asks for it.
pub(crate) const VARIABLE: &str = "VIREVENT_LOG";

/// Logs from now on what `wanted` says: `warn`, `info` or `debug`.
///
/// # Errors
/// It says something else: in one line.
pub(crate) fn start(wanted: Option<&OsStr>) -> Result<(), String> {
    if let Some(level) = level(wanted.unwrap_or_default())? {
        tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).init();
    }
    Ok(())
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
