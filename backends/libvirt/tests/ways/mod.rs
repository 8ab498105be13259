//! Every way to a real libvirtd: each transport, each program, each authentication.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use virevent_libvirt::Libvirt;
use virevent_testkit::servers::{Config, Libvirtd, NetworkPath, Sshd, Virsh};

/// libvirt's test driver, whose domains are simulated.
const TEST: &str = "test:///default";

/// A daemon, and all that is between it and a client.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    pub(crate) daemon: Libvirtd,
    pub(crate) sshd: Option<Sshd>,
    /// The network that the connections pass; `None` over a unix socket.
    pub(crate) path: Option<NetworkPath>,
    /// A part of the command line of the client's program, which no other test's has.
    pub(crate) program: Option<String>,
    uri: String,
    files: TempDir,
    /// Has the daemon's certificate, which it reads again at a restart.
    #[cfg(feature = "tls")]
    _pki: Option<virevent_testkit::tls::Pki>,
}

impl Way {
    fn new(name: &'static str, daemon: Libvirtd) -> Self {
        let files = TempDir::with_prefix("vw").unwrap();
        let uri = daemon.uri(TEST);
        Self {
            name,
            daemon,
            sshd: None,
            path: None,
            program: None,
            uri,
            files,
            #[cfg(feature = "tls")]
            _pki: None,
        }
    }

    pub(crate) async fn unix() -> Self {
        Self::new("unix", Libvirtd::start().await.unwrap())
    }

    pub(crate) async fn tcp() -> Self {
        let daemon = Libvirtd::start_with(Config::default().tcp(true)).await.unwrap();
        let uri = daemon.tcp_uri(TEST).unwrap();
        let port = uri.rsplit(':').next().unwrap().split('/').next().unwrap().parse().unwrap();
        let path = NetworkPath::to(port).await.unwrap();
        let uri = format!("test+tcp://localhost:{}/default", path.port());
        Self { path: Some(path), uri, ..Self::new("tcp", daemon) }
    }

    /// Through virt-ssh-helper (`native`) or netcat.
    pub(crate) async fn ssh(proxy: &'static str) -> Self {
        let daemon = Libvirtd::start().await.unwrap();
        let sshd = Sshd::beside(&daemon).await.unwrap();
        let path = NetworkPath::to(sshd.port()).await.unwrap();
        // The host key is that of another port.
        let uri = format!("{}&proxy={proxy}&no_verify=1", sshd.uri(TEST));
        let uri = uri.replace(&format!(":{}/", sshd.port()), &format!(":{}/", path.port()));
        let program = Some(sshd.key().display().to_string());
        let name = if proxy == "native" { "ssh, native" } else { "ssh, netcat" };
        Self { sshd: Some(sshd), path: Some(path), program, uri, ..Self::new(name, daemon) }
    }

    /// Through a program, which ends at once while the file `blocked` exists.
    pub(crate) async fn ext() -> Self {
        let way = Self::new("ext", Libvirtd::start().await.unwrap());
        // virsh has the daemon's own path in its command line, too.
        let socket = way.files.path().join("socket").display().to_string();
        symlink(way.daemon.socket(), &socket).unwrap();
        let program = way.files.path().join("program");
        let blocked = way.blocked();
        let text = format!("#!/bin/sh\n[ -e {} ] || exec nc -U {socket}\n", blocked.display());
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o700)).unwrap();
        let uri = format!("test+ext:///default?command={}", program.display());
        Self { program: Some(socket), uri, ..way }
    }

    pub(crate) fn blocked(&self) -> PathBuf {
        self.files.path().join("blocked")
    }

    pub(crate) fn libvirt(&self) -> Libvirt {
        Libvirt::new(&self.uri).unwrap()
    }

    /// A second client of the daemon.
    pub(crate) fn virsh(&self) -> Virsh {
        Virsh::to(&self.with_auth_file(self.daemon.uri(TEST)))
    }

    fn auth_file(&self) -> PathBuf {
        self.files.path().join("auth.conf")
    }

    /// The URI with the auth file, if this way has one.
    fn with_auth_file(&self, uri: String) -> String {
        let file = self.auth_file();
        if !Path::exists(&file) {
            return uri;
        }
        let separator = if uri.contains('?') { '&' } else { '?' };
        format!("{uri}{separator}authfile={}", file.display())
    }
}

#[cfg(feature = "tls")]
mod tls {
    use virevent_testkit::tls::{Leaf, Pki};

    use super::*;

    impl Way {
        /// With a client certificate, or with a daemon that verifies none.
        pub(crate) async fn tls(has_certificate: bool) -> Self {
            let name = if has_certificate { "tls" } else { "tls, no client certificate" };
            Self::tls_with(name, Config::default(), has_certificate).await
        }

        pub(super) async fn tls_with(
            name: &'static str,
            config: Config,
            has_certificate: bool,
        ) -> Self {
            let pki = Pki::new().unwrap();
            let server = pki.server_directory("server", &Leaf::server(&["localhost"])).unwrap();
            let extra = if has_certificate { "" } else { "tls_no_verify_certificate = 1\n" };
            let config = config.tls(&server).extra(extra);
            let daemon = Libvirtd::start_with(config).await.unwrap();
            let certificate = pki.issue(&Leaf::client("fred")).unwrap();
            let certificate = has_certificate.then_some(&certificate);
            let pkipath = pki.client_directory("client", certificate).unwrap();
            let path = NetworkPath::to(daemon.tls_port().unwrap()).await.unwrap();
            let uri = format!(
                "test+tls://localhost:{}/default?pkipath={}",
                path.port(),
                pkipath.display()
            );
            Self { path: Some(path), uri, _pki: Some(pki), ..Self::new(name, daemon) }
        }
    }
}

#[cfg(feature = "sasl")]
mod sasl {
    use virevent_testkit::servers::Sasl;

    use super::*;

    fn config(mechanism: &str) -> Config {
        Config::default().sasl(Sasl::new(mechanism).user("fred", "sekrit"))
    }

    impl Way {
        pub(crate) async fn sasl(name: &'static str, mechanism: &str) -> Self {
            let daemon = Libvirtd::start_with(config(mechanism)).await.unwrap();
            Self::new(name, daemon).authenticated()
        }

        #[cfg(feature = "tls")]
        pub(crate) async fn sasl_over_tls(name: &'static str, mechanism: &str) -> Self {
            Self::tls_with(name, config(mechanism), true).await.authenticated()
        }

        fn authenticated(mut self) -> Self {
            let text = "[auth-libvirt-localhost]\ncredentials=x\n[credentials-x]\n\
                        authname=fred\npassword=sekrit\n";
            std::fs::write(self.auth_file(), text).unwrap();
            self.uri = self.with_auth_file(self.uri.clone());
            self
        }
    }
}
