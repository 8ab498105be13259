//! Where a URI leads, by its transport.

use super::authority::Authority;
use super::params::Params;
use super::ssh::Ssh;
use super::tls::TlsParams;

/// The port of plain TCP.
const TCP_PORT: u16 = 16509;

/// The port of TLS.
const TLS_PORT: u16 = 16514;

/// The host of a remote transport whose URI names none.
pub(super) const LOCALHOST: &str = "localhost";

/// Where to connect, as the URI says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Unix {
        socket: Option<String>,
        mode: Option<Mode>,
    },
    Tcp {
        host: String,
        port: u16,
    },
    Tls {
        host: String,
        port: u16,
        params: TlsParams,
    },
    Ssh(Ssh),
    /// A program of the user's that connects its stdin and stdout with the daemon.
    Ext {
        command: String,
    },
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

impl Mode {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "legacy" => Some(Self::Legacy),
            "direct" => Some(Self::Direct),
            _ => None,
        }
    }
}

impl Transport {
    /// `asked`: the name after the +, in small letters. It takes its parameters from `params`.
    pub(super) fn parse(
        asked: Option<&str>,
        authority: &Authority,
        driver: &str,
        params: &mut Params,
    ) -> Result<Self, String> {
        let name = supported(asked, &authority.host, driver)?;
        let mode = match params.take("mode") {
            Some(mode) => Some(
                Mode::parse(&mode)
                    .ok_or_else(|| format!("{mode:?} is no mode: give auto, legacy or direct"))?,
            ),
            None => None,
        };
        if name != "unix" && mode == Some(Mode::Direct) {
            return Err("mode=direct is for the transport unix: leave it out".into());
        }
        let transport = match name {
            "unix" if authority.port.is_some() => {
                return Err(format!("a port needs a host: {driver}+tcp://HOST:PORT/..."));
            }
            "unix" => Self::Unix { socket: params.take_text("socket", "a path")?, mode },
            "tls" => Self::Tls {
                host: authority.host_or(LOCALHOST).into(),
                port: authority.port.unwrap_or(TLS_PORT),
                params: TlsParams::parse(params)?,
            },
            "ssh" => Self::Ssh(Ssh::parse(authority, params)?),
            "ext" => {
                let command = params.take_text("command", "the path of a program")?;
                let command = command.ok_or(
                    "the transport ext needs command=PATH, the program that connects its stdin \
                     and stdout with the daemon",
                )?;
                Self::Ext { command }
            }
            _ => {
                let host = authority.host_or(LOCALHOST).into();
                Self::Tcp { host, port: authority.port.unwrap_or(TCP_PORT) }
            }
        };
        params.refuse_the_rest()?;
        Ok(transport)
    }
}

/// The transport, if this backend supports it.
fn supported(asked: Option<&str>, host: &str, driver: &str) -> Result<&'static str, String> {
    match asked {
        Some("unix") | None if host.is_empty() => Ok("unix"),
        Some("unix") => Err(format!(
            "the transport unix has no host: leave out {host:?}, or give {driver}+ssh://{host}/..."
        )),
        Some("tcp") => Ok("tcp"),
        Some("ssh") => Ok("ssh"),
        Some("ext") => Ok("ext"),
        // A host without a transport means TLS.
        Some("tls") | None if cfg!(feature = "tls") => Ok("tls"),
        None => Err(format!(
            "a host without a transport means tls, and {}, or use {driver}+ssh://{host}/...",
            without("tls")
        )),
        Some("tls") => Err(without("tls")),
        Some(name @ ("libssh" | "libssh2")) => Err(format!(
            "the transport {name} is a library of libvirt's, which this client does without: use \
             {driver}+ssh://HOST/..., which runs the system's ssh"
        )),
        Some(name) => {
            Err(format!("there is no transport {name:?}: use unix, ssh, tls, tcp or ext"))
        }
    }
}

/// What to do about a transport that was left out of this build.
fn without(feature: &str) -> String {
    format!(
        "this build has no {feature}: build it with the feature {feature:?}, which \
         virevent-backends and virevent-libvirt have"
    )
}
