//! The configuration of a libvirtd.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{Home, Ports, Sasl};
use crate::servers::Polkit;

/// The configuration of a [`Libvirtd`](super::Libvirtd), by value:
/// `Config::default().max_clients(2)`.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The number of clients that it serves; the next one waits until another leaves. Default:
    /// libvirtd's own, 5,000.
    pub max_clients: Option<u32>,
    /// The seconds of a client's silence before a ping, and the number of pings without a reply
    /// before the daemon hangs up. Default: libvirtd's own, 5 s and 5.
    pub keepalive: Option<(u32, u32)>,
    /// Whether it also listens on a port of the loopback address, without authentication. Default:
    /// no.
    pub tcp: bool,
    /// A directory with `cacert.pem`, `servercert.pem`, `serverkey.pem` and perhaps `cacrl.pem`:
    /// with one the daemon also listens for TLS on a port of the loopback address. Default: none.
    pub tls: Option<PathBuf>,
    /// Whether it runs containers (`lxc:///`), which needs root. Default: no.
    pub lxc: bool,
    /// The name of its host, which needs root: two daemons with different names can migrate guests
    /// to each other. Default: the machine's name.
    pub host: Option<String>,
    /// Whether it runs a hook at each step of a QEMU guest's life:
    /// [`Libvirtd::set_hook`](super::Libvirtd::set_hook). Default: no.
    pub hook: bool,
    /// The authentication by SASL that it demands of every client. Default: none.
    pub sasl: Option<Sasl>,
    /// The bus of a [`Polkit`](crate::servers::Polkit) that it asks about every client of its unix
    /// sockets, which then any user may reach. Default: none.
    pub polkit: Option<String>,
    /// More lines for `libvirtd.conf`. Default: none.
    pub extra: String,
}

impl Config {
    /// Sets [`max_clients`](Self::max_clients).
    #[must_use]
    pub fn max_clients(mut self, clients: u32) -> Self {
        self.max_clients = Some(clients);
        self
    }

    /// Sets [`keepalive`](Self::keepalive).
    #[must_use]
    pub fn keepalive(mut self, seconds: u32, count: u32) -> Self {
        self.keepalive = Some((seconds, count));
        self
    }

    /// Sets [`tcp`](Self::tcp).
    #[must_use]
    pub fn tcp(mut self, listen: bool) -> Self {
        self.tcp = listen;
        self
    }

    /// Sets [`tls`](Self::tls).
    #[must_use]
    pub fn tls(mut self, directory: &Path) -> Self {
        self.tls = Some(directory.into());
        self
    }

    /// Sets [`lxc`](Self::lxc).
    #[must_use]
    pub fn lxc(mut self, containers: bool) -> Self {
        self.lxc = containers;
        self
    }

    /// Sets [`host`](Self::host).
    #[must_use]
    pub fn host(mut self, name: &str) -> Self {
        self.host = Some(name.into());
        self
    }

    /// Sets [`hook`](Self::hook).
    #[must_use]
    pub fn hook(mut self, run: bool) -> Self {
        self.hook = run;
        self
    }

    /// Sets [`sasl`](Self::sasl).
    #[must_use]
    pub fn sasl(mut self, sasl: Sasl) -> Self {
        self.sasl = Some(sasl);
        self
    }

    /// Sets [`polkit`](Self::polkit).
    #[must_use]
    pub fn polkit(mut self, polkit: &Polkit) -> Self {
        self.polkit = Some(polkit.bus());
        self
    }

    /// Sets [`extra`](Self::extra).
    #[must_use]
    pub fn extra(mut self, lines: &str) -> Self {
        self.extra = lines.into();
        self
    }

    pub(super) fn to_text(&self, home: &Home, ports: Ports) -> String {
        let mut text = home.socket_config();
        let auth = if self.sasl.is_some() { "sasl" } else { "none" };
        let mut set = |line: std::fmt::Arguments<'_>| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{line}");
        };
        let auth_unix = if self.polkit.is_some() { "polkit" } else { auth };
        set(format_args!("auth_unix_rw = \"{auth_unix}\"\nauth_unix_ro = \"{auth_unix}\""));
        // A configured uuid saves a run of dmidecode. It depends on the name, since libvirt refuses
        // to migrate between hosts of the same uuid.
        let number = self
            .host
            .iter()
            .flat_map(|name| name.bytes())
            .fold(1_u64, |number, byte| number.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let number = number & 0xffff_ffff_ffff;
        set(format_args!("host_uuid = \"5d0c2d4e-7f0b-4d7c-9d5e-{number:012x}\""));
        set(format_args!("log_outputs = \"3:file:{}\"", home.path("log/daemon").display()));
        if let Some(clients) = self.max_clients {
            set(format_args!("max_clients = {clients}"));
            // A separate limit, for clients that have not authenticated yet. Its default is 20.
            set(format_args!("max_anonymous_clients = {clients}"));
        }
        if let Some((seconds, count)) = self.keepalive {
            set(format_args!("keepalive_interval = {seconds}\nkeepalive_count = {count}"));
        }
        if ports.listens() {
            // TLS is on by default when it listens, and without certificates libvirtd exits.
            set(format_args!("listen_addr = \"127.0.0.1\""));
            set(format_args!("listen_tcp = {}", u8::from(ports.tcp.is_some())));
            set(format_args!("listen_tls = {}", u8::from(ports.tls.is_some())));
        }
        if let Some(port) = ports.tcp {
            set(format_args!("auth_tcp = \"{auth}\"\ntcp_port = \"{port}\""));
        }
        if let (Some(port), Some(directory)) = (ports.tls, &self.tls) {
            let file = |name: &str| directory.join(name);
            set(format_args!("auth_tls = \"{auth}\"\ntls_port = \"{port}\""));
            set(format_args!("ca_file = \"{}\"", file("cacert.pem").display()));
            set(format_args!("cert_file = \"{}\"", file("servercert.pem").display()));
            set(format_args!("key_file = \"{}\"", file("serverkey.pem").display()));
            if file("cacrl.pem").exists() {
                set(format_args!("crl_file = \"{}\"", file("cacrl.pem").display()));
            }
        }
        text + &self.extra
    }
}
