//! The URI of a source.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use virevent::{Error, Uuid};
use virevent_transport::host_name;
use virevent_transport::uri::percent_decode;

/// The namespace of derived uuids: chosen once, at random. Choose your own.
const NAMESPACE: Uuid = Uuid::from_u128(0x2f6c_41d5_9f0b_4b7e_8a53_0d1e_77c9_e4a2);

const ADVICE: &str = "write chv:/run/chv/web.sock?events=/run/chv/web.events";

/// What a source is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) uri: String,
    pub(crate) host: String,
    /// The API socket.
    pub(crate) socket: PathBuf,
    /// The file that the event monitor writes.
    pub(crate) events: PathBuf,
    /// The name of the domain: Cloud Hypervisor has none.
    pub(crate) name: String,
    // `vm.info` has a uuid only if the VM was configured with one, and only once it is created, of
    // which there is no event. An identity must not change while events are delivered, so it does
    // not come from there.
    pub(crate) uuid: Uuid,
}

impl Config {
    pub(crate) fn parse(uri: &str) -> Result<Self, Error> {
        let bad = |reason: &str| Error::invalid_uri(uri, reason);
        let rest = uri.strip_prefix("chv:").ok_or_else(|| bad(ADVICE))?;
        let (socket, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = |text: &str| {
            let bytes = percent_decode(text).map_err(|_| bad("correct the % escape"))?;
            let path = PathBuf::from(OsString::from_vec(bytes));
            if path.is_absolute() { Ok(path) } else { Err(bad(ADVICE)) }
        };
        let socket = path(socket)?;
        let host = host_name();
        let derived = || format!("{host}\n{}", socket.display());
        let mut uuid = Uuid::new_v5(&NAMESPACE, derived().as_bytes());
        let mut events = socket.with_extension("events");
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("events", value)) => events = path(value)?,
                Some(("uuid", value)) => {
                    uuid = Uuid::try_parse(value).map_err(|_| bad("correct the uuid"))?;
                }
                _ => return Err(bad("the parameters are events= and uuid=")),
            }
        }
        let name = socket.file_stem().ok_or_else(|| bad(ADVICE))?.to_string_lossy().into_owned();
        if events == socket {
            return Err(bad("the socket and the file of events are two"));
        }
        Ok(Self { uri: uri.into(), host, socket, events, name, uuid })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_uri_names_the_socket_the_file_and_the_domain() {
        let config = Config::parse("chv:/run/a%20b/web.sock").unwrap();
        assert_eq!(config.socket, PathBuf::from("/run/a b/web.sock"));
        assert_eq!(config.events, PathBuf::from("/run/a b/web.events"));
        assert_eq!(config.name, "web");
        let uuid = "00000000-0000-4000-8000-000000000007";
        let uri = format!("chv:/run/web.sock?events=/var/log/web&uuid={uuid}");
        let config = Config::parse(&uri).unwrap();
        assert_eq!(config.events, PathBuf::from("/var/log/web"));
        assert_eq!(config.uuid.to_string(), uuid);
    }

    #[test]
    fn a_derived_uuid_depends_on_the_socket_alone() {
        let uuid = |uri: &str| Config::parse(uri).unwrap().uuid;
        assert_eq!(uuid("chv:/run/web.sock"), uuid("chv:/run/web.sock?events=/tmp/web"));
        assert_ne!(uuid("chv:/run/web.sock"), uuid("chv:/run/db.sock"));
    }

    #[test]
    fn a_wrong_uri_is_refused_with_advice() {
        for uri in [
            "qmp:/run/web.sock",
            "chv:web.sock",
            "chv:",
            "chv:/",
            "chv:/a%zz",
            "chv:/a?file=/b",
            "chv:/a?uuid=7",
            "chv:/a?events=b",
            "chv:/a?events=/a",
        ] {
            let error = Config::parse(uri).unwrap_err();
            assert!(matches!(error, Error::InvalidUri { .. }), "{uri}: {error}");
        }
    }
}
