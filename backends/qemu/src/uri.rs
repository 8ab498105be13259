//! The URI of a monitor, `qmp:/path/to/socket` or `qmp+tcp://host:port`. Parsing does no I/O.

use std::ffi::OsString;
use std::fmt::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use virevent::Error;
use virevent_transport::MAX_SOCKET_PATH;
use virevent_transport::uri::percent_decode;

/// Where a QEMU's monitor listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Unix(PathBuf),
    Tcp(String, u16),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

impl Endpoint {
    /// # Errors
    /// [`Error::InvalidUri`]: what is wrong, and what to do.
    pub(crate) fn parse(uri: &str) -> Result<Self, Error> {
        parse(uri).map_err(|reason| Error::invalid_uri(uri, reason))
    }

    /// The name of a domain whose QEMU has none: the socket's file without its extension, or the
    /// address.
    pub(crate) fn stem(&self) -> String {
        match self {
            Self::Unix(path) => match path.file_stem() {
                Some(stem) => stem.to_string_lossy().into_owned(),
                None => path.display().to_string(),
            },
            Self::Tcp(..) => self.to_string(),
        }
    }
}

fn parse(uri: &str) -> Result<Endpoint, String> {
    if uri.chars().any(char::is_control) {
        return Err("it has a control character in it: write it as %0A and the like".into());
    }
    if let Some(query) = uri.find(['?', '#']) {
        let rest = &uri[query..];
        return Err(format!("it takes no parameters: leave {rest:?} out, or write ? as %3F"));
    }
    match uri.split_once(':') {
        Some(("qmp", path)) => unix(path.strip_prefix("//").unwrap_or(path)),
        Some(("qmp+tcp", address)) => tcp(address),
        _ => Err("give the socket as in qmp:/run/vm.sock, or qmp+tcp://127.0.0.1:4444".into()),
    }
}

fn unix(path: &str) -> Result<Endpoint, String> {
    if !path.starts_with('/') {
        return Err("give the socket's absolute path, as in qmp:/run/vm.sock".into());
    }
    let path = decoded(path)?;
    if path.len() > MAX_SOCKET_PATH {
        let length = path.len();
        return Err(format!(
            "a socket's path has at most {MAX_SOCKET_PATH} bytes, and this has {length}"
        ));
    }
    if path.contains(&0) {
        return Err("a path has no NUL".into());
    }
    Ok(Endpoint::Unix(OsString::from_vec(path).into()))
}

fn tcp(address: &str) -> Result<Endpoint, String> {
    let usage = || "give host and port, as in qmp+tcp://127.0.0.1:4444".to_owned();
    let address = address.strip_prefix("//").ok_or_else(usage)?;
    let address = address.strip_suffix('/').unwrap_or(address);
    let (host, port) = address.rsplit_once(':').ok_or_else(usage)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if bare.is_none() && host.contains([':', '@', '/']) {
        return Err(usage());
    }
    let host = bare.unwrap_or(host);
    match port.parse() {
        Ok(port @ 1..) if !host.is_empty() => Ok(Endpoint::Tcp(host.into(), port)),
        _ => Err(usage()),
    }
}

/// Decodes each `%XX` to its byte.
pub(crate) fn decoded(text: &str) -> Result<Vec<u8>, String> {
    percent_decode(text).map_err(|error| error.to_string())
}

/// Encodes a path for a URI.
pub(crate) fn encoded(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => text.push(char::from(*byte)),
            b'/' | b'-' | b'.' | b'_' | b'~' | b'*' => text.push(char::from(*byte)),
            // Writing into a String cannot fail.
            _ => drop(write!(text, "%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_a_socket() {
        let table = [
            ("qmp:/run/vm.sock", "/run/vm.sock", "vm"),
            ("qmp:///run/a%20b.qmp", "/run/a b.qmp", "a b"),
            ("qmp+tcp://127.0.0.1:4444", "127.0.0.1:4444", "127.0.0.1:4444"),
            ("qmp+tcp://[::1]:4444/", "[::1]:4444", "[::1]:4444"),
        ];
        for (uri, shown, stem) in table {
            let endpoint = Endpoint::parse(uri).unwrap();
            assert_eq!((endpoint.to_string(), endpoint.stem()), (shown.into(), stem.into()));
        }
    }

    #[test]
    fn any_path_can_be_written_as_a_uri() {
        let path = PathBuf::from(OsString::from_vec(b"/run/a b?#%&\n\xff/\xc3\xa9.sock".to_vec()));
        let uri = format!("qmp:{}", encoded(&path));
        assert_eq!(uri, "qmp:/run/a%20b%3F%23%25%26%0A%FF/%C3%A9.sock");
        assert_eq!(Endpoint::parse(&uri).unwrap(), Endpoint::Unix(path));
    }

    #[test]
    fn an_unusable_uri_is_refused_with_advice() {
        let table = [
            ("qmp:vm.sock", "absolute path"),
            ("qmp:", "absolute path"),
            ("qmp:/run/%zz", "%25"),
            ("qmp:/run/%", "%25"),
            ("qmp:/run/%+f", "%25"),
            ("qmp:/run/%-1", "%25"),
            ("qmp:/run/vm.sock?x=1", "no parameters"),
            ("qmp:/run/%00", "NUL"),
            ("qmp+tcp://:4444", "host and port"),
            ("qmp+tcp://host:0", "host and port"),
            ("qmp+tcp://host", "host and port"),
            ("qmp+tcp:host:1", "host and port"),
            ("qmp+tls://host:1", "qmp+tcp"),
        ];
        for (uri, advice) in table {
            let error = Endpoint::parse(uri).unwrap_err().to_string();
            assert!(error.contains(advice), "{error}");
        }
        let long = format!("qmp:/{}", "x".repeat(107));
        assert!(Endpoint::parse(&long).unwrap_err().to_string().contains("107"));
    }
}
