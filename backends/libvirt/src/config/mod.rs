//! `libvirt.conf`, the configuration of libvirt's clients.
//!
//! Root's is `/etc/libvirt/libvirt.conf`, everyone else's `$XDG_CONFIG_HOME/libvirt/libvirt.conf`;
//! there is no second place. A file that is not there is empty. A syntax error fails every
//! connection, also one that needs nothing of the file, and unknown keys are ignored: both as in
//! libvirt's own client.

mod resolve;
mod syntax;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

pub(crate) use self::resolve::resolve;
use self::syntax::{Entry, Value};
use crate::uri::Mode;

/// The most bytes that a configuration has. The one that libvirt installs has 700.
const MAX_SIZE: u64 = 1024 * 1024;

/// The file's entries. A value of the wrong type is an error where it is used, as in libvirt.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientConfig {
    /// The file, for errors.
    place: String,
    entries: Vec<Entry>,
}

impl ClientConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read or parsed: which file, which line, and why.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self, String> {
        let Some(path) = path else { return Ok(Self::default()) };
        let place = path.display().to_string();
        let bytes = match read(path) {
            Ok(bytes) => bytes,
            // ENOTDIR: a part of the path is a file.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(Self { place, entries: Vec::new() });
            }
            Err(error) => return Err(format!("{place}: cannot read it: {error}")),
        };
        if bytes.len() as u64 > MAX_SIZE {
            return Err(format!("{place}: it has more than {MAX_SIZE} bytes"));
        }
        let text = String::from_utf8_lossy(&bytes);
        let entries =
            syntax::parse(&text).map_err(|(line, error)| format!("{place}:{line}: {error}"))?;
        Ok(Self { place, entries })
    }

    /// `uri_default`: a URI, or a name.
    ///
    /// # Errors
    /// It is no string.
    pub(crate) fn default_uri(&self) -> Result<Option<&str>, String> {
        self.text("uri_default")
    }

    /// `remote_mode`: which daemon's socket to take where the URI has no `mode=`.
    ///
    /// # Errors
    /// It is no mode.
    pub(crate) fn mode(&self) -> Result<Option<Mode>, String> {
        let Some(text) = self.text("remote_mode")? else { return Ok(None) };
        let mode = Mode::parse(text).ok_or_else(|| {
            self.error("remote_mode", &format!("is {text:?}: set auto, legacy or direct"))
        })?;
        Ok(Some(mode))
    }

    /// The URI that a name in `uri_aliases` stands for. The name's case matters.
    ///
    /// # Errors
    /// The list, or an alias before that of this name, does not have the form.
    pub(crate) fn alias(&self, name: &str) -> Result<Option<&str>, String> {
        const KEY: &str = "uri_aliases";
        let Some(value) = self.value(KEY) else { return Ok(None) };
        let form = || self.error(KEY, "needs a list of strings, as in [\"name=qemu:///system\"]");
        let Value::List(items) = value else { return Err(form()) };
        for item in items {
            let Value::Text(text) = item else { return Err(form()) };
            let Some((alias, uri)) = text.split_once('=') else {
                return Err(self.error(KEY, &format!("has {text:?}: write \"name=URI\"")));
            };
            // With other characters it could be mistaken for a URI.
            let is_valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if alias.is_empty() || !alias.chars().all(is_valid) {
                let error = format!("has the name {alias:?}: use letters, digits, _ and -");
                return Err(self.error(KEY, &error));
            }
            if alias == name {
                return Ok(Some(uri));
            }
        }
        Ok(None)
    }

    /// The last value of the key: as in libvirt a later one replaces an earlier one.
    fn value(&self, key: &str) -> Option<&Value> {
        self.entries.iter().rfind(|entry| entry.key == key).map(|entry| &entry.value)
    }

    fn text(&self, key: &str) -> Result<Option<&str>, String> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(Value::Number | Value::List(_)) => Err(self.error(key, "needs a string")),
        }
    }

    fn error(&self, key: &str, error: &str) -> String {
        let line =
            self.entries.iter().rfind(|entry| entry.key == key).map_or(0, |entry| entry.line);
        format!("{}:{line}: {key} {error}", self.place)
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> ClientConfig {
        ClientConfig { place: "f".into(), entries: syntax::parse(text).unwrap() }
    }

    #[test]
    fn a_file_has_aliases_a_default_and_a_mode() {
        let config = config(
            "# libvirt's client\n\
             uri_aliases = [\n  \"hail=qemu+ssh://root@hail/system?a=b\",\n\n  \
             'sleet=test:///default',\n] # mine\n\n\
             uri_default=\"rain\"\nuri_default=\"hail\"  # the usual\n\
             remote_mode = \"legacy\"\n\
             \tother = -7\n something = [1, \"a\"]",
        );
        assert_eq!(config.alias("hail"), Ok(Some("qemu+ssh://root@hail/system?a=b")));
        assert_eq!(config.alias("sleet"), Ok(Some("test:///default")));
        assert_eq!(config.alias("Hail"), Ok(None));
        assert_eq!(config.default_uri(), Ok(Some("hail")));
        assert_eq!(config.mode(), Ok(Some(Mode::Legacy)));
    }

    #[test]
    fn an_unusable_value_is_an_error_where_it_is_used() {
        let table = [
            ("uri_aliases = \"a=b\"", "f:1: uri_aliases needs a list of strings"),
            ("\nuri_aliases = [1]", "f:2: uri_aliases needs a list of strings"),
            ("uri_aliases = [\"hail\"]", "f:1: uri_aliases has \"hail\": write"),
            ("uri_aliases = [\"a:b=c\"]", "f:1: uri_aliases has the name \"a:b\""),
            ("uri_aliases = [\"=c\"]", "f:1: uri_aliases has the name \"\""),
        ];
        for (text, expected) in table {
            let config = config(text);
            let error = config.alias("x").unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
            assert_eq!((config.default_uri(), config.mode()), (Ok(None), Ok(None)));
        }
        let broken = config("a=1\n\nuri_default = [\"x\"]\nremote_mode = \"fast\"");
        assert_eq!(broken.default_uri().unwrap_err(), "f:3: uri_default needs a string");
        let mode = broken.mode().unwrap_err();
        assert_eq!(mode, "f:4: remote_mode is \"fast\": set auto, legacy or direct");
        assert_eq!(
            config("remote_mode = 1").mode().unwrap_err(),
            "f:1: remote_mode needs a string"
        );
    }

    #[test]
    fn a_missing_file_is_empty_and_a_broken_one_is_named() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("libvirt.conf");
        for missing in [None, Some(&*path), Some(&*home.path().join("x/y"))] {
            assert_eq!(ClientConfig::load(missing).unwrap().entries, []);
        }
        let error = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            ClientConfig::load(Some(&path)).unwrap_err()
        };
        assert!(error(b"a = 1\nb\n").starts_with(&format!("{}:2: ", path.display())));
        // A part of the path is a file.
        assert_eq!(ClientConfig::load(Some(&path.join("x"))).unwrap().entries, []);
        assert!(error(&vec![b'#'; 2_000_000]).contains("more than"));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(ClientConfig::load(Some(&path)).unwrap_err().contains("cannot read it"));
    }
}
