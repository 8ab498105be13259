//! The libraries' log on standard error: by default only warnings that need an action of the user,
//! such as a directory that does not exist.

use std::ffi::OsStr;
use std::io::{self, Write};

use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::prelude::*;

/// The environment variable with the level.
pub(crate) const VARIABLE: &str = "VIREVENT_LOG";

/// Starts the log at the level `wanted`: `warn`, `info` or `debug`.
///
/// # Errors
/// Another value, with a message of one line.
pub(crate) fn start(wanted: Option<&OsStr>) -> Result<(), String> {
    let subscriber = tracing_subscriber::fmt();
    match level(wanted.unwrap_or_default())? {
        Some(level) => subscriber.with_max_level(level).with_writer(io::stderr).init(),
        None => subscriber
            .with_max_level(LevelFilter::WARN)
            .without_time()
            .with_level(false)
            .with_target(false)
            .with_writer(Message::default)
            .finish()
            .with(filter_fn(|record| record.target() == ADVICE))
            .init(),
    }
    Ok(())
}

/// The target of records that need an action of the user.
const ADVICE: &str = "virevent::advice";

/// One record, printed as the program's own messages.
#[derive(Default)]
struct Message(Vec<u8>);

impl Write for Message {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        crate::report(String::from_utf8_lossy(&self.0).trim());
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
    fn the_default_logs_nothing_and_a_wrong_level_is_an_error() {
        let level = |wanted: &str| level(OsStr::new(wanted));
        assert_eq!(level(""), Ok(None));
        assert_eq!(level("warn"), Ok(Some(LevelFilter::WARN)));
        assert_eq!(level("debug"), Ok(Some(LevelFilter::DEBUG)));
        let error = level("loud").unwrap_err();
        assert!(error.contains("VIREVENT_LOG") && error.contains("\"loud\""), "{error}");
    }
}
