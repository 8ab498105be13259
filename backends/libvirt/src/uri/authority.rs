//! The part of a URI before its path: `[user@][host][:port]`.

use super::params::decoded;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Authority {
    pub(super) user: Option<String>,
    /// May be empty. An IPv6 address has no brackets here.
    pub(super) host: String,
    /// `None` for 0, too, which libvirt takes for the default.
    pub(super) port: Option<u16>,
}

impl Authority {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (user, address) = match text.rsplit_once('@') {
            Some((user, address)) => (Some(decoded(user)?), address),
            None => (None, text),
        };
        let (host, port) = match address.strip_prefix('[') {
            Some(rest) => {
                let (host, port) =
                    rest.split_once(']').ok_or("the bracket of its address is not closed")?;
                (host, port.strip_prefix(':').unwrap_or(port))
            }
            None => address.split_once(':').unwrap_or((address, "")),
        };
        let port = match port {
            "" => None,
            port => Some(port.parse().map_err(|_| {
                format!("{port:?} is no port: give 1 to 65535, and an IPv6 address in brackets")
            })?),
        };
        let user = user.filter(|user| !user.is_empty());
        Ok(Self { user, host: host.into(), port: port.filter(|port| *port != 0) })
    }

    pub(super) fn host_or<'a>(&'a self, default: &'a str) -> &'a str {
        if self.host.is_empty() { default } else { &self.host }
    }
}
