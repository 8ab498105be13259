//! The testkit's conformance suite, on a fake libvirtd and on real ones.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use virevent::EventSource;
use virevent::driver::{Reconnect, Settings};
use virevent_libvirt::Libvirt;
use virevent_testkit::Failure;
use virevent_testkit::conformance::Rig;

/// How often the sources verify.
const VERIFICATION: Duration = Duration::from_millis(500);

fn source(uri: &str) -> Arc<dyn EventSource> {
    let quick = Reconnect::local().max(Duration::from_millis(100));
    let settings = Settings::default().reconnect(quick).verify(Some(VERIFICATION));
    Arc::new(Libvirt::new(uri).unwrap().settings(settings).source())
}

fn done<T, E: std::fmt::Display>(outcome: Result<T, E>) -> Result<(), Failure> {
    outcome.map(drop).map_err(|error| Failure::new(error.to_string()))
}

mod fake {
    use virevent_testkit::fakes::libvirtd::FakeLibvirtd;

    use super::*;

    struct FakeRig(FakeLibvirtd);

    #[async_trait]
    impl Rig for FakeRig {
        fn source(&self) -> Arc<dyn EventSource> {
            source(&self.0.uri())
        }

        async fn start(&self, name: &str) -> Result<(), Failure> {
            match self.0.host().domain(name) {
                Some(_) => done(self.0.host().start(name)),
                None => done(self.0.host().create(name)),
            }
        }

        async fn stop(&self, name: &str) -> Result<(), Failure> {
            done(self.0.host().stop(name))
        }

        async fn suspend(&self, name: &str) -> Result<(), Failure> {
            done(self.0.host().suspend(name))
        }

        async fn resume(&self, name: &str) -> Result<(), Failure> {
            done(self.0.host().resume(name))
        }

        async fn define(&self, name: &str) -> Result<(), Failure> {
            done(self.0.host().define(name))
        }

        async fn undefine(&self, name: &str) -> Result<(), Failure> {
            done(self.0.host().undefine(name))
        }

        async fn break_connection(&self) -> Result<(), Failure> {
            self.0.go_down();
            Ok(())
        }

        async fn heal(&self) -> Result<(), Failure> {
            done(self.0.come_back())
        }

        async fn registrations(&self) -> Result<usize, Failure> {
            Ok(self.0.registered().len())
        }

        async fn stop_silently(&self, name: &str) -> Result<(), Failure> {
            done(self.0.host().silently(|host| host.stop(name)))
        }

        fn verification(&self) -> Duration {
            VERIFICATION
        }
    }

    virevent_testkit::conformance_tests!(FakeRig(FakeLibvirtd::start().unwrap()));
}

mod real {
    #[cfg(feature = "tls")]
    use std::path::PathBuf;

    #[cfg(feature = "tls")]
    use virevent_testkit::servers::NetworkPath;
    use virevent_testkit::servers::{
        Config, Container, Guest, LaunchError, Libvirtd, Tap, Virsh, VirshSession,
    };
    #[cfg(feature = "tls")]
    use virevent_testkit::tls::{Clients, Leaf, Pki, TlsFront};

    use super::*;

    struct RealRig {
        uri: &'static str,
        tap: Tap,
        virsh: Virsh,
        /// libvirt's test driver loses its domains when its last client disconnects.
        _keeper: VirshSession,
        daemon: Libvirtd,
        #[cfg(feature = "tls")]
        tls: Option<Tls>,
    }

    /// A TLS server before the tap, since a tap before the daemon's own could count nothing, and a
    /// network path before that.
    #[cfg(feature = "tls")]
    struct Tls {
        path: NetworkPath,
        _front: TlsFront,
        directory: PathBuf,
        _pki: Pki,
    }

    #[cfg(feature = "tls")]
    impl Tls {
        async fn before(tap: &Tap) -> Self {
            let pki = Pki::new().unwrap();
            let leaf = Leaf::server(&["localhost"]);
            let directory = pki.server_directory("server", &leaf).unwrap();
            let front = TlsFront::before(&tap.socket(), &directory, Clients::Any).await.unwrap();
            let path = NetworkPath::to(front.port()).await.unwrap();
            Self { path, _front: front, directory, _pki: pki }
        }

        fn uri(&self) -> String {
            let directory = self.directory.display();
            format!("test+tls://localhost:{}/default?pkipath={directory}", self.path.port())
        }
    }

    impl RealRig {
        /// On libvirt's test driver, whose domains need no hypervisor.
        async fn test() -> Self {
            Self::new(Libvirtd::start().await.unwrap(), "test:///default").await
        }

        async fn qemu() -> Self {
            let daemon = Libvirtd::start().await.unwrap();
            let uri = daemon.qemu();
            Self::new(daemon, uri).await
        }

        async fn lxc() -> Self {
            let daemon = Libvirtd::start_with(Config::default().lxc(true)).await.unwrap();
            Self::new(daemon, "lxc:///").await
        }

        async fn new(daemon: Libvirtd, uri: &'static str) -> Self {
            let virsh = daemon.virsh(uri);
            let keeper = virsh.session().await.unwrap();
            let tap = Tap::before(&daemon).unwrap();
            Self {
                uri,
                tap,
                virsh,
                _keeper: keeper,
                daemon,
                #[cfg(feature = "tls")]
                tls: None,
            }
        }

        /// On libvirt's test driver, over TLS.
        #[cfg(feature = "tls")]
        async fn tls() -> Self {
            let mut rig = Self::test().await;
            rig.tls = Some(Tls::before(&rig.tap).await);
            rig
        }

        async fn run(&self, command: &str, name: &str) -> Result<(), Failure> {
            done(self.virsh.run(&[command, name]).await)
        }

        fn xml(&self, name: &str) -> Result<String, LaunchError> {
            if self.uri == self.daemon.qemu() {
                return self.daemon.furnish(&Guest::idle(name));
            }
            if self.uri == "lxc:///" {
                return Ok(self.daemon.furnish_container(&Container::idle(name)));
            }
            Ok(format!(
                "<domain type='test'><name>{name}</name><memory>8192</memory>\
                 <os><type>hvm</type></os></domain>"
            ))
        }
    }

    #[async_trait]
    impl Rig for RealRig {
        fn source(&self) -> Arc<dyn EventSource> {
            #[cfg(feature = "tls")]
            if let Some(tls) = &self.tls {
                return source(&tls.uri());
            }
            source(&self.tap.uri(self.uri))
        }

        async fn start(&self, name: &str) -> Result<(), Failure> {
            let domains = self.virsh.list().await.unwrap();
            if domains.iter().any(|(known, _)| known == name) {
                return self.run("start", name).await;
            }
            done(self.virsh.create(&self.xml(name).unwrap()).await)
        }

        async fn stop(&self, name: &str) -> Result<(), Failure> {
            self.run("destroy", name).await
        }

        async fn suspend(&self, name: &str) -> Result<(), Failure> {
            self.run("suspend", name).await
        }

        async fn resume(&self, name: &str) -> Result<(), Failure> {
            self.run("resume", name).await
        }

        async fn define(&self, name: &str) -> Result<(), Failure> {
            done(self.virsh.define(&self.xml(name).unwrap()).await)
        }

        async fn undefine(&self, name: &str) -> Result<(), Failure> {
            self.run("undefine", name).await
        }

        async fn break_connection(&self) -> Result<(), Failure> {
            #[cfg(feature = "tls")]
            if let Some(tls) = &self.tls {
                tls.path.go_down();
                return Ok(());
            }
            self.tap.go_down();
            Ok(())
        }

        async fn heal(&self) -> Result<(), Failure> {
            #[cfg(feature = "tls")]
            if let Some(tls) = &self.tls {
                tls.path.come_back();
                return Ok(());
            }
            done(self.tap.come_back())
        }

        async fn registrations(&self) -> Result<usize, Failure> {
            Ok(self.tap.seen().registered)
        }
    }

    mod test_driver {
        use super::*;

        virevent_testkit::conformance_tests!(
            #[ignore = "needs libvirtd"]
            ignore = [
                "the guests that hide their end have a test of their own":
                    a_silent_end_is_corrected_by_verification,
            ],
            RealRig::test().await
        );
    }

    #[cfg(feature = "tls")]
    mod tls {
        use super::*;

        virevent_testkit::conformance_tests!(
            #[ignore = "needs libvirtd"]
            ignore = [
                "the guests that hide their end have a test of their own":
                    a_silent_end_is_corrected_by_verification,
            ],
            RealRig::tls().await
        );
    }

    mod qemu {
        use super::*;

        virevent_testkit::conformance_tests!(
            #[ignore = "needs libvirtd"]
            ignore = [
                "the guests that hide their end have a test of their own":
                    a_silent_end_is_corrected_by_verification,
            ],
            RealRig::qemu().await
        );
    }

    mod lxc {
        use super::*;

        virevent_testkit::conformance_tests!(
            #[ignore = "needs root and libvirtd with its LXC driver"]
            ignore = [
                "the guests that hide their end have a test of their own":
                    a_silent_end_is_corrected_by_verification,
            ],
            RealRig::lxc().await
        );
    }
}
