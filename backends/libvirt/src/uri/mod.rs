//! libvirt's URIs: `driver[+transport]://[user@][host][:port]/path[?name=value&...]`.
//!
//! Parsing does no I/O. What this backend does not support is refused by name: a URI with a key
//! file or a proxy must not connect without it. The forms and parameters are described at
//! <https://libvirt.org/uri.html>.

use virevent::Error;
use virevent_transport::uri::mask_password;

use self::params::Params;

mod params;

/// The port of plain TCP.
const TCP_PORT: u16 = 16509;

/// A parsed libvirt URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LibvirtUri {
    /// As it was given, with its password masked.
    pub(crate) shown: String,
    /// The hypervisor's driver: `qemu`, `test`, `xen` ...
    pub(crate) driver: String,
    /// The part after the host: `/system`, `/session`, `/default` ...
    pub(crate) path: String,
    /// Where to connect.
    pub(crate) transport: Transport,
    /// The URI that the server is to open.
    pub(crate) name: String,
    /// The path of libvirt's auth file, if the URI has one.
    #[cfg_attr(not(feature = "sasl"), allow(dead_code, reason = "only SASL needs it"))]
    pub(crate) authfile: Option<String>,
}

/// Where to connect, as the URI says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Unix { socket: Option<String>, mode: Mode },
    Tcp { host: String, port: u16 },
}

/// Which daemon's socket to take when the URI names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The driver's modular daemon where its socket exists, else libvirtd.
    Auto,
    /// libvirtd.
    Legacy,
    /// The driver's modular daemon.
    Direct,
}

impl LibvirtUri {
    /// Parses a URI.
    ///
    /// # Errors
    /// [`Error::InvalidUri`]: what is wrong, and what to do.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let shown = mask_password(text);
        parse(text, &shown).map_err(|reason| Error::invalid_uri(shown, reason))
    }

    /// Whether it means the session daemon, which belongs to the user; for root the system's.
    pub(crate) fn means_session_daemon(&self) -> bool {
        self.path == "/session" || self.driver == "test"
    }

    /// The host by which libvirt's auth file knows the daemon.
    #[cfg(feature = "sasl")]
    pub(crate) fn host(&self) -> &str {
        match &self.transport {
            Transport::Unix { .. } => "localhost",
            Transport::Tcp { host, .. } => host,
        }
    }

    /// Whether nobody on the network can read what is sent, so that a password may be.
    #[cfg(feature = "sasl")]
    pub(crate) fn is_private(&self) -> bool {
        match &self.transport {
            Transport::Unix { .. } => true,
            Transport::Tcp { .. } => false,
        }
    }

    /// Whether it leads to another host.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.transport, Transport::Tcp { .. })
    }
}

fn parse(text: &str, shown: &str) -> Result<LibvirtUri, String> {
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("it contains a space or a control character: write a space as %20".into());
    }
    let (scheme, rest) = text
        .split_once(':')
        .ok_or("it has no driver: give one as in qemu:///system or test:///default")?;
    // As in libvirt the transport may have capital letters, the driver may not.
    let (driver, transport) = match scheme.split_once('+') {
        Some((driver, transport)) => (driver, Some(transport.to_ascii_lowercase())),
        None => (scheme, None),
    };
    if driver.is_empty() || !driver.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c)) {
        return Err(format!("{driver:?} is no driver: give one as in qemu:///system"));
    }
    let (rest, fragment) = split_at(rest, '#');
    let (rest, query) = split_at(rest, '?');
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => ("", rest),
    };
    if !path.is_empty() && !path.starts_with('/') {
        return Err(format!("give the path after slashes, as in {driver}:///{path}"));
    }
    let (host, port) = host_and_port(authority)?;
    let transport = supported_transport(transport.as_deref(), host, driver)?;
    if port.is_some() && host.is_empty() {
        return Err(format!("a port needs a host: {driver}+tcp://HOST:PORT/..."));
    }
    if path == "/embed" {
        return Err("/embed runs the hypervisor's driver inside the client's process: connect to \
                    the daemon, as in qemu:///system"
            .into());
    }

    let Params { name, socket, mode, authfile, others } =
        Params::parse(&query[query.len().min(1)..])?;
    let transport = match transport {
        "unix" => Transport::Unix { socket, mode: mode.unwrap_or(Mode::Auto) },
        _ => {
            if socket.is_some() {
                return Err("socket= is for the transport unix: leave it out".into());
            }
            if mode == Some(Mode::Direct) {
                return Err("mode=direct is for the transport unix: leave it out".into());
            }
            // libvirt takes port 0 for the default, too.
            let port = port.filter(|port| *port != 0).unwrap_or(TCP_PORT);
            Transport::Tcp { host: host.into(), port }
        }
    };
    // libvirt's client sends the rest as it was written: in order, escapes untouched.
    let name = name.unwrap_or_else(|| {
        let query =
            if others.is_empty() { String::new() } else { format!("?{}", others.join("&")) };
        format!("{driver}://{path}{query}{fragment}")
    });
    Ok(LibvirtUri {
        shown: shown.into(),
        driver: driver.into(),
        path: path.into(),
        transport,
        name,
        authfile,
    })
}

/// The transport, if this backend supports it.
fn supported_transport(
    asked: Option<&str>,
    host: &str,
    driver: &str,
) -> Result<&'static str, String> {
    match asked {
        Some("unix") | None if host.is_empty() => Ok("unix"),
        Some("unix") => Err(format!(
            "the transport unix has no host: leave out {host:?}, or give {driver}+tcp://{host}/..."
        )),
        Some("tcp") if host.is_empty() => {
            Err(format!("the transport tcp needs a host: {driver}+tcp://HOST/..."))
        }
        Some("tcp") => Ok("tcp"),
        // A host without a transport means TLS.
        None => Err(format!(
            "a host without a transport means tls, which this version does not support: use \
             {driver}+tcp://{host}/... in a network that you trust, or tunnel the host's socket \
             and use {driver}+unix:///...?socket=PATH"
        )),
        Some(name @ ("tls" | "ssh" | "libssh" | "libssh2" | "ext")) => Err(format!(
            "this version does not support the transport {name}: use {driver}+tcp://HOST/... in a \
             network that you trust, or tunnel the host's socket and use \
             {driver}+unix:///...?socket=PATH"
        )),
        Some(name) => Err(format!("there is no transport {name:?}: use unix or tcp")),
    }
}

fn host_and_port(authority: &str) -> Result<(&str, Option<u16>), String> {
    let address = authority.rsplit_once('@').map_or(authority, |(_user, address)| address);
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
    Ok((host, port))
}

/// The text before `mark`, and the rest from the mark on.
fn split_at(text: &str, mark: char) -> (&str, &str) {
    text.split_at(text.find(mark).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(socket: Option<&str>, mode: Mode) -> Transport {
        Transport::Unix { socket: socket.map(Into::into), mode }
    }

    fn tcp(host: &str, port: u16) -> Transport {
        Transport::Tcp { host: host.into(), port }
    }

    #[test]
    fn each_form_has_its_transport_and_its_name() {
        let auto = || unix(None, Mode::Auto);
        let table = [
            ("qemu:///system", auto(), "qemu:///system"),
            ("qemu:/system", auto(), "qemu:///system"),
            ("qemu+unix:///session", auto(), "qemu:///session"),
            ("test:///default", auto(), "test:///default"),
            ("xen:///", auto(), "xen:///"),
            ("xen://", auto(), "xen://"),
            (
                "qemu+UNIX:///system?socket=/a%20b-sock",
                unix(Some("/a b-sock"), Mode::Auto),
                "qemu:///system",
            ),
            // As virsh 9.0 does it.
            (
                "qemu+unix:///system?mode=direct&socket=X&a=%2Fb%20c",
                unix(Some("X"), Mode::Direct),
                "qemu:///system?a=%2Fb%20c",
            ),
            ("qemu:///system?b=1;mode=legacy&&a", unix(None, Mode::Legacy), "qemu:///system?b=1&a"),
            ("qemu:///system?name=test%3A%2F%2F%2Fdefault&a=1", auto(), "test:///default"),
            ("qemu:///system?name=", auto(), ""),
            ("test+tcp://host/default", tcp("host", 16509), "test:///default"),
            ("test+tcp://host:0/default", tcp("host", 16509), "test:///default"),
            ("test+tcp://u@host:123/default?mode=auto", tcp("host", 123), "test:///default"),
            ("test+tcp://[::1]:123/default", tcp("::1", 123), "test:///default"),
            ("test+tcp://[::1]/default#x", tcp("::1", 16509), "test:///default#x"),
        ];
        for (text, transport, name) in table {
            let uri = LibvirtUri::parse(text).unwrap();
            assert_eq!((uri.transport, &*uri.name), (transport, name), "{text}");
            assert_eq!(uri.shown, text);
        }
    }

    #[test]
    fn an_unsupported_part_is_refused_by_name() {
        let table = [
            ("", "no driver"),
            ("system", "no driver"),
            ("+unix:///system", "no driver"),
            ("qemu:system", "slashes"),
            ("qemu:///sys tem", "space"),
            ("qemu://host/system", "tls"),
            ("qemu+tls://host/system", "tls"),
            ("qemu+ssh://host/system", "ssh"),
            ("qemu+libssh2://host/system", "libssh2"),
            ("qemu+libssh://host/system", "libssh"),
            ("qemu+ext:///system?command=x", "ext"),
            ("qemu+udp://host/system", "udp"),
            ("qemu+unix://host/system", "host"),
            ("qemu+tcp:///system", "needs a host"),
            ("qemu://:123/system", "needs a host"),
            ("qemu+tcp://host:99999/system", "99999"),
            ("qemu+tcp://::1/system", "brackets"),
            ("qemu+tcp://[::1/system", "bracket"),
            ("qemu+tcp://host/system?mode=direct", "mode="),
            ("qemu+tcp://host/system?socket=/s", "socket="),
            ("qemu:///system?mode=fast", "fast"),
            ("qemu:///system?socket=", "socket="),
            ("qemu:///system?socket=%zz", "%zz"),
            ("qemu:///system?socket=%00", "NUL"),
            ("qemu:///system?socket=a%", "a%"),
            ("qemu:///embed?root=/x", "embed"),
        ];
        for (text, expected) in table {
            let error = LibvirtUri::parse(text).unwrap_err();
            assert!(matches!(error, Error::InvalidUri { .. }), "{text}");
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let uri = LibvirtUri::parse("test+tcp://fred:s3cr3t@host/default").unwrap();
        assert_eq!(uri.shown, "test+tcp://fred:***@host/default");
        let error = LibvirtUri::parse("test+tls://fred:s3:cr3t@host:1/default").unwrap_err();
        assert!(
            !error.to_string().contains("cr3t") && error.to_string().contains("fred:***@host:1")
        );
    }
}
