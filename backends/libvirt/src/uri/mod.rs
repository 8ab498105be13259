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

/// The port of TLS.
const TLS_PORT: u16 = 16514;

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
}

/// Where to connect, as the URI says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Unix { socket: Option<String>, mode: Mode },
    Tcp { host: String, port: u16 },
    Tls { host: String, port: u16, params: TlsParams },
}

/// What the URI says of TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsParams {
    /// The directory of the certificates, instead of libvirt's own places.
    pub(crate) pkipath: Option<String>,
    /// Whether any server is trusted, whatever its certificate says.
    pub(crate) no_verify: bool,
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

    /// Whether it leads to another host.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.transport, Transport::Tcp { .. } | Transport::Tls { .. })
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
    if port.is_some() && host.is_empty() && transport != "tls" {
        return Err(format!("a port needs a host: {driver}+tcp://HOST:PORT/..."));
    }
    if path == "/embed" {
        return Err("/embed runs the hypervisor's driver inside the client's process: connect to \
                    the daemon, as in qemu:///system"
            .into());
    }

    let params = Params::parse(&query[query.len().min(1)..])?;
    let Params { name, socket, mode, tls, only_tls, others } = params;
    if let Some(name) = only_tls.filter(|_| transport != "tls") {
        return Err(format!("{name}= is for the transport tls: leave it out"));
    }
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
            let port = port.filter(|port| *port != 0);
            match transport {
                "tls" => {
                    // As libvirt's client has it.
                    let host = if host.is_empty() { "localhost" } else { host };
                    let port = port.unwrap_or(TLS_PORT);
                    Transport::Tls { host: host.into(), port, params: tls }
                }
                _ => Transport::Tcp { host: host.into(), port: port.unwrap_or(TCP_PORT) },
            }
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
        Some("tls") | None if cfg!(feature = "tls") => Ok("tls"),
        None => Err(format!(
            "a host without a transport means tls, and {}, or use {driver}+tcp://{host}/... in a \
             network that you trust",
            without("tls")
        )),
        Some("tls") => Err(without("tls")),
        Some(name @ ("ssh" | "libssh" | "libssh2" | "ext")) => Err(format!(
            "this version does not support the transport {name}: use {driver}+tls://HOST/..., or \
             tunnel the host's socket and use {driver}+unix:///...?socket=PATH"
        )),
        Some(name) => Err(format!("there is no transport {name:?}: use unix, tcp or tls")),
    }
}

/// What to do about a transport that was left out of this build.
fn without(feature: &str) -> String {
    format!(
        "this build has no {feature}: build it with the feature {feature:?}, which \
         virevent-backends and virevent-libvirt have"
    )
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
            ("qemu+ssh://host/system", "ssh"),
            ("qemu+libssh2://host/system", "libssh2"),
            ("qemu+libssh://host/system", "libssh"),
            ("qemu+ext:///system?command=x", "ext"),
            ("qemu+udp://host/system", "udp"),
            ("qemu+unix://host/system", "host"),
            ("qemu+tcp:///system", "needs a host"),
            ("qemu+tcp://:123/system", "needs a host"),
            ("qemu+tcp://host:99999/system", "99999"),
            ("qemu+tcp://::1/system", "brackets"),
            ("qemu+tcp://[::1/system", "bracket"),
            ("qemu+tcp://host/system?mode=direct", "mode="),
            ("qemu+tcp://host/system?socket=/s", "socket="),
            ("qemu+tcp://host/system?pkipath=/s", "pkipath= is for the transport tls"),
            ("qemu+tcp://host/system?no_verify=0", "no_verify= is for the transport tls"),
            ("qemu+unix:///system?no_sanity=1", "no_sanity= is for the transport tls"),
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
        let error = LibvirtUri::parse("test+udp://fred:s3:cr3t@host:1/default").unwrap_err();
        assert!(
            !error.to_string().contains("cr3t") && error.to_string().contains("fred:***@host:1")
        );
    }

    #[test]
    #[cfg(feature = "tls")]
    fn a_host_without_a_transport_means_tls() {
        let tls = |host: &str, port| {
            let host = host.into();
            Transport::Tls { host, port, params: TlsParams::default() }
        };
        let table = [
            ("qemu://host/system", tls("host", 16514)),
            ("qemu+tls://host/system", tls("host", 16514)),
            ("qemu+TLS://u@host:0/system", tls("host", 16514)),
            ("qemu+tls://[::1]:123/system?no_verify=0&no_sanity=1", tls("::1", 123)),
            ("qemu+tls:///system", tls("localhost", 16514)),
        ];
        for (text, transport) in table {
            let uri = LibvirtUri::parse(text).unwrap();
            assert_eq!((uri.transport, &*uri.name), (transport, "qemu:///system"), "{text}");
        }
    }

    #[test]
    #[cfg(feature = "tls")]
    fn the_parameters_of_tls_have_libvirts_meaning() {
        let uri = LibvirtUri::parse("qemu://host/system?pkipath=/a%20b&no_verify=2&x=1").unwrap();
        let params = TlsParams { pkipath: Some("/a b".into()), no_verify: true };
        assert_eq!(uri.transport, Transport::Tls { host: "host".into(), port: 16514, params });
        assert_eq!(uri.name, "qemu:///system?x=1");
        let table = [
            ("no_verify=maybe", "no_verify= is 0 or 1"),
            ("no_sanity=", "no_sanity= is 0 or 1"),
            ("pkipath=pki", "absolute path"),
            ("pkipath=", "absolute path"),
            ("tls_priority=NORMAL", "tls_priority= chooses"),
            ("socket=/s", "socket="),
            ("mode=direct", "mode="),
        ];
        for (param, expected) in table {
            let error = LibvirtUri::parse(&format!("qemu://host/system?{param}")).unwrap_err();
            assert!(error.to_string().contains(expected), "{param}: {error}");
        }
    }

    #[test]
    #[cfg(not(feature = "tls"))]
    fn without_its_feature_tls_is_refused_with_the_feature() {
        for text in ["qemu://host/system", "qemu+tls://host/system"] {
            let error = LibvirtUri::parse(text).unwrap_err().to_string();
            assert!(error.contains("the feature \"tls\""), "{error}");
        }
    }
}
