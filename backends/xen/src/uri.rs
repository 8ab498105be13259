//! `xenstore:` and `xenstore:/path`, with `?dom0=1`. Parsing does no I/O.

use std::path::PathBuf;

use virevent::Error;
use virevent_transport::uri::percent_decode;

/// A parsed URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreUri {
    /// The URI as it was given.
    pub(crate) shown: String,
    /// The path of a socket or a device; `None` for the store of this host.
    pub(crate) path: Option<PathBuf>,
    /// Whether domain 0 is reported, too.
    pub(crate) with_dom0: bool,
}

impl StoreUri {
    /// # Errors
    /// [`Error::InvalidUri`]: what is wrong, and what to do.
    pub(crate) fn parse(uri: &str) -> Result<Self, Error> {
        parse(uri).map_err(|reason| Error::invalid_uri(uri, reason))
    }
}

fn parse(uri: &str) -> Result<StoreUri, String> {
    if uri.chars().any(char::is_control) {
        return Err("it has a control character in it: write it as %0A and the like".into());
    }
    let Some(rest) = uri.strip_prefix("xenstore:") else {
        return Err("give xenstore: or the socket, as in xenstore:/run/xenstored/socket".into());
    };
    if let Some(fragment) = rest.find('#') {
        return Err(format!("it takes no {:?}: write # as %23", &rest[fragment..]));
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = path.strip_prefix("//").unwrap_or(path);
    let path = match path {
        "" => None,
        path if path.starts_with('/') => Some(PathBuf::from(decoded(path)?)),
        _ => {
            return Err("a store is on this host: give its socket's whole path, as in \
                        xenstore:/run/xenstored/socket"
                .into());
        }
    };
    let mut with_dom0 = false;
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        with_dom0 = match parameter {
            "dom0=1" => true,
            "dom0=0" => false,
            _ => return Err(format!("it takes no {parameter:?}, but dom0=1 or dom0=0")),
        };
    }
    Ok(StoreUri { shown: uri.into(), path, with_dom0 })
}

/// The text with each `%XX` replaced by its byte.
fn decoded(text: &str) -> Result<String, String> {
    let bytes = percent_decode(text).map_err(|error| error.to_string())?;
    if bytes.contains(&0) {
        return Err("a path has no NUL".into());
    }
    String::from_utf8(bytes).map_err(|_| "the path is not UTF-8".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_the_store_of_this_host_or_a_path() {
        let table = [
            ("xenstore:", None, false),
            ("xenstore:?dom0=1", None, true),
            ("xenstore:///", Some("/"), false),
            ("xenstore:/run/xenstored/socket", Some("/run/xenstored/socket"), false),
            ("xenstore:///run/a%20b%3F?dom0=1", Some("/run/a b?"), true),
            ("xenstore:/dev/xen/xenbus?dom0=0", Some("/dev/xen/xenbus"), false),
        ];
        for (uri, path, with_dom0) in table {
            let parsed = StoreUri::parse(uri).unwrap();
            assert_eq!((parsed.path, parsed.with_dom0), (path.map(PathBuf::from), with_dom0));
            assert_eq!(parsed.shown, uri);
        }
    }

    #[test]
    fn an_invalid_uri_is_refused_with_advice() {
        let table = [
            ("xenstore:socket", "whole path"),
            ("xenstore://host/x", "on this host"),
            ("xenstore:/a?dom0=yes", "dom0=1"),
            ("xenstore:/a?socket=/b", "dom0=1"),
            ("xenstore:/a#b", "%23"),
            ("xenstore:/%zz", "%25"),
            ("xenstore:/%+1", "%25"),
            ("xenstore:/%00", "NUL"),
            ("xenstore:/%ff", "UTF-8"),
            ("xenstore:/a\nb", "%0A"),
            ("xen:/a", "xenstore:/run"),
        ];
        for (uri, advice) in table {
            let error = StoreUri::parse(uri).unwrap_err().to_string();
            assert!(error.contains(advice), "{error}");
        }
    }
}
