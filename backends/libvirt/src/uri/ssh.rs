//! What a URI says of the transport ssh.

use super::authority::Authority;
use super::params::Params;
use super::transport::LOCALHOST;

/// How to run ssh, and what it runs on the other host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ssh {
    pub(crate) host: String,
    /// `None` leaves the choice to ssh's configuration, as with all that follows.
    pub(crate) port: Option<u16>,
    pub(crate) user: Option<String>,
    /// The program that is run instead of ssh.
    pub(crate) command: Option<String>,
    pub(crate) keyfile: Option<String>,
    /// Whether ssh may ask at the terminal: `no_tty=0`.
    pub(crate) terminal: bool,
    /// Whether any host key is accepted.
    pub(crate) no_verify: bool,
    pub(crate) proxy: Proxy,
}

/// What connects to the daemon's socket on the other host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Proxy {
    /// libvirt's helper where it is installed, else netcat.
    Auto,
    /// `virt-ssh-helper`, which knows where the daemon listens.
    Native,
    Netcat(Netcat),
}

/// How to run netcat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Netcat {
    /// Its path, if not `nc`.
    pub(crate) program: Option<String>,
    /// The daemon's socket, if not the usual one.
    pub(crate) socket: Option<String>,
}

impl Ssh {
    pub(super) fn parse(authority: &Authority, params: &mut Params) -> Result<Self, String> {
        let user = authority.user.clone();
        if user.as_ref().is_some_and(|user| user.contains(':')) {
            return Err("ssh takes no password from a URI: leave it out, and use a key".into());
        }
        let host = authority.host_or(LOCALHOST);
        // ssh would take it for an option.
        if host.starts_with('-') {
            return Err(format!("{host:?} is no host"));
        }
        let netcat = Netcat {
            program: params.take_text("netcat", "the path of a program")?,
            socket: params.take_text("socket", "a path")?,
        };
        Ok(Self {
            host: host.into(),
            port: authority.port,
            user,
            command: params.take_text("command", "the path of a program")?,
            keyfile: params.take_text("keyfile", "the path of a private key")?,
            terminal: params.take_flag("no_tty")? == Some(false),
            no_verify: params.take_flag("no_verify")? == Some(true),
            proxy: proxy(params.take("proxy").as_deref(), netcat)?,
        })
    }

    /// What it is called in errors.
    pub(crate) fn label(&self) -> String {
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let port = self.port.map(|port| format!(" -p {port}")).unwrap_or_default();
        format!("ssh{port} {user}{}", self.host)
    }
}

/// The helper takes neither a socket nor the path of netcat.
fn proxy(asked: Option<&str>, netcat: Netcat) -> Result<Proxy, String> {
    let is_netcat = netcat != Netcat::default();
    match asked {
        None | Some("auto") if is_netcat => Ok(Proxy::Netcat(netcat)),
        None | Some("auto") => Ok(Proxy::Auto),
        Some("netcat") => Ok(Proxy::Netcat(netcat)),
        Some("native") if is_netcat => Err("netcat= and socket= are for proxy=netcat: \
            virt-ssh-helper, which proxy=native means, chooses the socket itself"
            .into()),
        Some("native") => Ok(Proxy::Native),
        Some(other) => Err(format!("proxy={other} is unknown: give auto, native or netcat")),
    }
}
