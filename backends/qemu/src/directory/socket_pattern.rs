//! The URI of a directory of sockets, `qmp-dir:/run/qemu?pattern=*.sock`. Parsing does no I/O.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use virevent::Error;
use virevent_transport::MAX_SOCKET_PATH;

use super::pattern::NamePattern;
use crate::peer::advice::{OUT_OF_FILES, is_out_of_files};
use crate::uri::decoded;

/// The patterns of a URI that has none.
const DEFAULT: [&str; 2] = ["*.sock", "*.monitor"];

/// A directory, and the patterns of the names of its sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SocketPattern {
    pub(crate) directory: PathBuf,
    patterns: Vec<NamePattern>,
}

impl SocketPattern {
    /// # Errors
    /// [`Error::InvalidUri`]: what is wrong, and what to do.
    pub(crate) fn parse(uri: &str) -> Result<Self, Error> {
        parse(uri).map_err(|reason| Error::invalid_uri(uri, reason))
    }

    /// Whether a file of this name may be a QEMU's socket.
    pub(crate) fn takes(&self, name: &[u8]) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(name))
    }

    /// Whether this is libvirtd's own monitor of a guest, `domain-1-web/monitor.sock`, and no
    /// pattern names it. QEMU serves one client a monitor: a client that waits there is served in
    /// place of libvirtd once that restarts.
    pub(crate) fn leaves_to_libvirt(&self, path: &Path) -> bool {
        let own = Path::new("monitor.sock");
        let parent = path.parent().and_then(Path::file_name);
        path.file_name() == Some(own.as_os_str())
            && parent.is_some_and(|name| name.as_bytes().starts_with(b"domain-"))
            && !self.patterns.iter().any(|pattern| pattern.is("monitor.sock"))
    }

    /// The name of a domain whose QEMU reports none, by its socket: `web`, or in a sub-directory
    /// `VM/qmp`.
    pub(crate) fn name(&self, socket: &Path) -> String {
        let below = socket.strip_prefix(&self.directory).unwrap_or(socket);
        below.with_extension("").to_string_lossy().into_owned()
    }

    /// The name of the placeholder domain of an unreadable directory.
    pub(crate) fn name_of_directory(&self, directory: &Path) -> String {
        let below = directory.strip_prefix(&self.directory).unwrap_or(directory);
        // Relative to itself the directory has an empty name.
        let shown = if below.as_os_str().is_empty() { directory } else { below };
        shown.to_string_lossy().into_owned()
    }

    /// The error that the directory does not exist.
    pub(crate) fn absent(&self) -> Error {
        let endpoint = self.directory.display().to_string();
        let reason = "the directory does not exist yet: it counts as empty and is watched for; \
                      check the path, or make the directory before the first QEMU starts";
        let source = Arc::new(io::Error::from(io::ErrorKind::NotFound));
        Error::unreachable(endpoint, reason, source)
    }

    /// The error that `path` is unreadable. May block.
    pub(crate) fn unreadable(&self, path: &Path, error: io::Error) -> Error {
        let reason = match error.kind() {
            io::ErrorKind::PermissionDenied => match forbidden_above(path) {
                None => format!(
                    "this user may not read it: run as the user that runs QEMU, or give a group \
                     that both are in r-x on {}",
                    path.display()
                ),
                Some(above) => format!(
                    "this user may not go through {}: run as the user that runs QEMU, or give a \
                     group that both are in --x on that",
                    above.display()
                ),
            },
            io::ErrorKind::NotADirectory => {
                format!("it is not a directory: for one socket, give it as qmp:{}", path.display())
            }
            _ if is_out_of_files(&error) => OUT_OF_FILES.into(),
            _ => "fix it; the directory is scanned again every second".into(),
        };
        let endpoint = path.display().to_string();
        Error::unreachable(endpoint, reason, error)
    }
}

/// The first directory on the path that this user may not search. May block.
fn forbidden_above(path: &Path) -> Option<&Path> {
    let mut above: Vec<&Path> = path.ancestors().collect();
    above.reverse();
    let is_reachable = |path: &Path| match path.metadata() {
        Err(error) => error.kind() != io::ErrorKind::PermissionDenied,
        Ok(_) => true,
    };
    let first = above.into_iter().find(|path| !is_reachable(path))?;
    first.parent()
}

fn parse(uri: &str) -> Result<SocketPattern, String> {
    // It would break the lines of logs and errors in which the URI is shown.
    if uri.chars().any(char::is_control) {
        return Err("it has a control character in it: write it as %0A and the like".into());
    }
    if uri.contains('#') {
        return Err("it takes no fragment: write # as %23".into());
    }
    let (base, query) = uri.split_once('?').unwrap_or((uri, ""));
    let path = base.strip_prefix("qmp-dir:").map(|path| path.strip_prefix("//").unwrap_or(path));
    let Some(path) = path.filter(|path| path.starts_with('/')) else {
        return Err("give the directory's absolute path, as in qmp-dir:/run/qemu".into());
    };
    let directory = decoded(path)?;
    if directory.contains(&0) {
        return Err("a path has no NUL".into());
    }
    let directory = match directory.iter().rposition(|byte| *byte != b'/') {
        Some(last) => &directory[..=last],
        None => b"/",
    };
    // The shortest socket adds a slash and a name of one byte.
    if directory.len() + 2 > MAX_SOCKET_PATH {
        return Err(format!(
            "a socket's path has at most {MAX_SOCKET_PATH} bytes, and the directory's alone has {}",
            directory.len()
        ));
    }
    let mut patterns = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("pattern", value)) => patterns.push(pattern(value)?),
            _ => return Err(format!("it takes pattern=..., and not {parameter:?}")),
        }
    }
    if patterns.is_empty() {
        patterns = DEFAULT.map(NamePattern::new).to_vec();
    }
    Ok(SocketPattern { directory: OsStr::from_bytes(directory).into(), patterns })
}

fn pattern(value: &str) -> Result<NamePattern, String> {
    let value = String::from_utf8(decoded(value)?).map_err(|_| "a pattern is UTF-8")?;
    if value.is_empty() || value.contains(['/', '\0']) {
        return Err("a pattern is of file names, without a path, as in pattern=*.sock".into());
    }
    if value.contains('[') {
        return Err(
            "a pattern has only * and ?: write ? for a [, and give more than one pattern, \
                    as in pattern=a*.sock&pattern=b*.sock"
                .into(),
        );
    }
    Ok(NamePattern::new(&value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_a_directory_and_patterns() {
        let table = [
            ("qmp-dir:/run/qemu", "/run/qemu", "vm.sock", "vm.qmp"),
            ("qmp-dir:/run/qemu", "/run/qemu", "vm.monitor", "vm"),
            ("qmp-dir:///run/a%20b/", "/run/a b", "vm.sock", "vm.socket"),
            ("qmp-dir:/", "/", "vm.sock", "vm.socket"),
            ("qmp-dir:/r?pattern=*.qmp&pattern=vm?", "/r", "vm1", "vm.sock"),
            ("qmp-dir:/r?pattern=a%26*", "/r", "a&b", "ab"),
        ];
        for (uri, directory, yes, no) in table {
            let pattern = SocketPattern::parse(uri).unwrap();
            assert_eq!(pattern.directory, Path::new(directory));
            assert!(pattern.takes(yes.as_bytes()) && !pattern.takes(no.as_bytes()), "{uri}");
        }
    }

    #[test]
    fn an_unusable_uri_is_refused_with_advice() {
        let long = format!("qmp-dir:/{}", "x".repeat(107));
        let table = [
            ("qmp-dir:run", "absolute path"),
            ("qmp-dir:", "absolute path"),
            ("qmp-dir://host/run", "absolute path"),
            ("qmp-dir:/run/%zz", "%25"),
            ("qmp-dir:/run/%+f", "%25"),
            ("qmp-dir:/run?pattern=%+f", "%25"),
            ("qmp-dir:/run/%00", "NUL"),
            ("qmp-dir:/run#x", "%23"),
            ("qmp-dir:/run?glob=*", "pattern=..."),
            ("qmp-dir:/run?pattern", "pattern=..."),
            ("qmp-dir:/run?pattern=", "file names"),
            ("qmp-dir:/run?pattern=a/*", "file names"),
            ("qmp-dir:/run?pattern=[ab]*.sock", "more than one pattern"),
            (&long, "107"),
        ];
        for (uri, advice) in table {
            let error = SocketPattern::parse(uri).unwrap_err().to_string();
            assert!(error.contains(advice), "{error}");
        }
    }

    #[test]
    fn an_unreadable_directory_is_an_error_with_advice() {
        let pattern = SocketPattern::parse("qmp-dir:/run/qemu").unwrap();
        let table = [
            (io::ErrorKind::PermissionDenied, "may not read it"),
            (io::ErrorKind::NotADirectory, "give it as qmp:/run/qemu:"),
            (io::ErrorKind::Other, "scanned again"),
        ];
        for (kind, advice) in table {
            let error = pattern.unreadable(&pattern.directory, kind.into()).to_line();
            assert!(error.contains("/run/qemu") && error.contains(advice), "{error}");
        }
    }
}
