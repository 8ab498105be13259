//! libvirt's URIs: `driver[+transport]://[user@][host][:port]/path[?name=value&...]`.
//!
//! Parsing does no I/O. What this backend does not support is refused by name: a URI with a key
//! file or a proxy must not connect without it. The forms and parameters are described at
//! <https://libvirt.org/uri.html>.

use virevent::Error;
use virevent_transport::uri::mask_password;

use self::authority::Authority;
use self::params::Params;
pub(crate) use self::ssh::{Netcat, Proxy, Ssh};
#[cfg(feature = "tls")]
pub(crate) use self::tls::TlsParams;
pub(crate) use self::transport::{Mode, Transport};

mod authority;
mod params;
mod ssh;
mod tls;
mod transport;

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

    /// Whether the connection is hidden from the network, so that a password may be sent as it is.
    #[cfg(feature = "sasl")]
    pub(crate) fn is_private(&self) -> bool {
        match &self.transport {
            Transport::Unix { .. } => true,
            // Without the check of the server's identity, anyone may be the server.
            Transport::Tls { params, .. } => !params.no_verify,
            Transport::Ssh(ssh) => !ssh.no_verify,
            Transport::Tcp { .. } | Transport::Ext { .. } => false,
        }
    }

    /// The host that it leads to, as it is written there.
    pub(crate) fn host(&self) -> &str {
        match &self.transport {
            Transport::Tcp { host, .. } | Transport::Tls { host, .. } => host,
            Transport::Ssh(ssh) => &ssh.host,
            Transport::Unix { .. } | Transport::Ext { .. } => "localhost",
        }
    }

    /// Whether it leads to another host.
    pub(crate) fn is_remote(&self) -> bool {
        !matches!(self.transport, Transport::Unix { .. })
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
    let authority = Authority::parse(authority)?;
    if path == "/embed" {
        return Err("/embed runs the hypervisor's driver inside the client's process: connect to \
                    the daemon, as in qemu:///system"
            .into());
    }

    let mut params = Params::parse(&query[query.len().min(1)..])?;
    let name = params.take("name");
    let authfile = params.take_text("authfile", "a path")?;
    let transport = Transport::parse(transport.as_deref(), &authority, driver, &mut params)?;
    let others = params.others;
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

/// The text before `mark`, and the rest from the mark on.
fn split_at(text: &str, mark: char) -> (&str, &str) {
    text.split_at(text.find(mark).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(socket: Option<&str>, mode: Option<Mode>) -> Transport {
        Transport::Unix { socket: socket.map(Into::into), mode }
    }

    fn tcp(host: &str, port: u16) -> Transport {
        Transport::Tcp { host: host.into(), port }
    }

    #[test]
    fn each_form_has_its_transport_and_its_name() {
        let auto = || unix(None, None);
        let table = [
            ("qemu:///system", auto(), "qemu:///system"),
            ("qemu:/system", auto(), "qemu:///system"),
            ("qemu+unix:///session", auto(), "qemu:///session"),
            ("test:///default", auto(), "test:///default"),
            ("xen:///", auto(), "xen:///"),
            ("xen://", auto(), "xen://"),
            (
                "qemu+UNIX:///system?socket=/a%20b-sock",
                unix(Some("/a b-sock"), None),
                "qemu:///system",
            ),
            // As virsh 9.0 does it.
            (
                "qemu+unix:///system?mode=direct&socket=X&a=%2Fb%20c",
                unix(Some("X"), Some(Mode::Direct)),
                "qemu:///system?a=%2Fb%20c",
            ),
            (
                "qemu:///system?b=1;mode=legacy&&a",
                unix(None, Some(Mode::Legacy)),
                "qemu:///system?b=1&a",
            ),
            ("qemu:///system?name=test%3A%2F%2F%2Fdefault&a=1", auto(), "test:///default"),
            ("qemu:///system?name=", auto(), ""),
            ("test+tcp://host/default", tcp("host", 16509), "test:///default"),
            ("test+tcp:///default", tcp("localhost", 16509), "test:///default"),
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
            ("qemu+libssh2://host/system", "libssh2 is a library"),
            ("qemu+libssh://host/system", "use qemu+ssh://HOST/"),
            ("qemu+ext:///system", "needs command=PATH"),
            ("qemu+ext:///system?command=", "command= needs"),
            ("qemu+ext:///system?command=x&keyfile=k", "keyfile= is for the transport ssh"),
            ("qemu+ssh://host/system?proxy=bogus", "give auto, native or netcat"),
            ("qemu+ssh://host/system?proxy=native&socket=/s", "for proxy=netcat"),
            ("qemu+ssh://host/system?mode=direct", "mode=direct"),
            ("qemu+ssh://host/system?no_verify=x", "no_verify= is 0 or 1"),
            ("qemu+ssh://host/system?no_tty=", "no_tty="),
            ("qemu+ssh://host/system?keyfile=", "keyfile= needs"),
            ("qemu+ssh://host/system?pkipath=/p", "pkipath= is for the transport tls"),
            ("qemu+ssh://host/system?known_hosts=/k", "UserKnownHostsFile"),
            ("qemu+ssh://host/system?sshauth=agent", "PreferredAuthentications"),
            ("qemu+ssh://-oProxyCommand=x/system", "no host"),
            ("qemu+ssh://u:secret@host/system", "takes no password"),
            ("qemu+tcp://host/system?netcat=nc", "netcat= is for the transport ssh"),
            ("qemu:///system?proxy=auto", "proxy= is for the transport ssh"),
            ("qemu+udp://host/system", "udp"),
            ("qemu+unix://host/system", "host"),
            ("qemu://:123/system", "needs a host"),
            ("qemu+tcp://host:99999/system", "99999"),
            ("qemu+tcp://::1/system", "brackets"),
            ("qemu+tcp://[::1/system", "bracket"),
            ("qemu+tcp://host/system?mode=direct", "mode="),
            ("qemu+tcp://host/system?socket=/s", "socket="),
            ("qemu+tcp://host/system?pkipath=/s", "pkipath= is for the transport tls"),
            ("qemu+tcp://host/system?no_verify=0", "no_verify= is for the transports ssh and tls"),
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
    fn the_parameters_of_ssh_and_ext_are_taken_and_not_passed_on() {
        let ssh = || Ssh {
            host: "h".into(),
            port: None,
            user: None,
            command: None,
            keyfile: None,
            terminal: false,
            no_verify: false,
            proxy: Proxy::Auto,
        };
        let netcat = |program: Option<&str>, socket: Option<&str>| {
            let netcat =
                Netcat { program: program.map(Into::into), socket: socket.map(Into::into) };
            Ssh { proxy: Proxy::Netcat(netcat), ..ssh() }
        };
        let table = [
            ("ssh://h/system", ssh()),
            ("SSH://h:0/system?proxy=auto&mode=legacy", ssh()),
            ("ssh:///system", Ssh { host: "localhost".into(), ..ssh() }),
            (
                "ssh://fred%40corp@[::1]:2222/system",
                Ssh {
                    host: "::1".into(),
                    port: Some(2222),
                    user: Some("fred@corp".into()),
                    ..ssh()
                },
            ),
            ("ssh://h/system?no_tty=0", Ssh { terminal: true, ..ssh() }),
            ("ssh://h/system?no_tty=1&no_verify=0", ssh()),
            ("ssh://h/system?no_verify=2", Ssh { no_verify: true, ..ssh() }),
            (
                "ssh://h/system?command=/a%20b&keyfile=/k",
                Ssh { command: Some("/a b".into()), keyfile: Some("/k".into()), ..ssh() },
            ),
            ("ssh://h/system?proxy=native", Ssh { proxy: Proxy::Native, ..ssh() }),
            ("ssh://h/system?proxy=netcat", netcat(None, None)),
            ("ssh://h/system?netcat=/x/nc", netcat(Some("/x/nc"), None)),
            ("ssh://h/system?socket=/s&proxy=auto", netcat(None, Some("/s"))),
        ];
        for (text, expected) in table {
            let uri = LibvirtUri::parse(&format!("qemu+{text}")).unwrap();
            assert_eq!(uri.transport, Transport::Ssh(expected), "{text}");
            assert_eq!(uri.name, "qemu:///system", "{text}");
            assert!(uri.is_remote());
        }
        let uri = LibvirtUri::parse("xen+ext:///system?command=/c&a=1").unwrap();
        assert_eq!(uri.transport, Transport::Ext { command: "/c".into() });
        assert_eq!(uri.name, "xen:///system?a=1");
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
            ("tls_priority=NORMAL", "tls_priority= is for GnuTLS"),
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
