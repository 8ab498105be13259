//! A password is in no text that this crate makes.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tracing_subscriber::fmt::MakeWriter;
use virevent_libvirt::wire::xdr::Reader;
use virevent_libvirt::wire::{RemoteError, SaslStart, code};
use virevent_libvirt::{CredentialsCallback, CredentialsRequest};

use super::*;

/// Keeps what is logged.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// A callback whose own `Debug` shows its password.
#[derive(Debug)]
struct Careless(&'static str);

#[async_trait]
impl CredentialsCallback for Careless {
    async fn credentials(&self, request: &CredentialsRequest) -> Option<Credentials> {
        tracing::info!(?request, "asked");
        (request.attempt < 3).then(|| Credentials::new("fred", self.0))
    }
}

async fn refuse(peer: &mut Peer) {
    let (header, args) = peer.until(procs::AUTH_SASL_START).await;
    let (mechanism, data) = SaslStart::read(&mut Reader::new(&args)).unwrap();
    // The server has it: this is the test that looks for what is really there.
    assert_eq!((mechanism, data.unwrap()), (&b"PLAIN"[..], format!("\0fred\0{PASSWORD}").into()));
    let message = "authentication failed".to_owned();
    let error =
        RemoteError { code: code::AUTH_FAILED, domain: 7, message, format: "%s".into(), int1: -1 };
    peer.send(&Header::error(header.procedure, header.serial), |body| error.write(body)).await;
}

#[tokio::test(start_paused = true)]
async fn a_password_is_in_no_debug_log_error_or_uri() {
    let log = Log::default();
    let logger = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(logger);
    let mut texts = Vec::new();

    let daemon = Daemon::new();
    let libvirt = daemon.libvirt().credentials(Careless(PASSWORD));
    texts.push(format!("{libvirt:?} {libvirt:#?}"));
    let source = libvirt.source();
    texts.push(format!("{source:?} {source:#?} {}", source.uri()));
    let subscriber = source.clone();
    let subscribed =
        tokio::spawn(async move { subscriber.subscribe_with(Options::default()).await });
    let mut peer = daemon.accept().await;
    demand(&mut peer, b"PLAIN").await;
    refuse(&mut peer).await;
    offer_to(&mut peer, b"PLAIN").await;
    refuse(&mut peer).await;
    offer_to(&mut peer, b"PLAIN").await;
    let error = subscribed.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Credentials { .. }), "{error}");
    texts.push(format!("{error} {error:?} {error:#?} {}", error.to_line()));
    texts.push(error.to_fault().message().to_owned());
    texts.push(format!("{:?} {source:?}", source.health()));

    // A connection that works, and then one that is lost and refused.
    let subscriber = source.clone();
    let subscribed =
        tokio::spawn(async move { subscriber.subscribe_with(Options::default()).await });
    let mut peer = daemon.accept().await;
    demand(&mut peer, b"PLAIN").await;
    reply(&mut peer, true, None).await;
    let serving = tokio::spawn(peer.serve());
    let stream = subscribed.await.unwrap().unwrap();
    texts.push(format!("{stream:?} {source:?}"));
    serving.abort();
    let mut peer = daemon.accept().await;
    demand(&mut peer, b"PLAIN").await;
    refuse(&mut peer).await;
    drop(peer);
    tokio::time::sleep(Duration::from_millis(1)).await;
    source.shutdown().await;

    // A user who writes a password into the URI.
    let uri = format!("test+tcp://fred:{PASSWORD}@host/default");
    texts.push(format!("{:?}", Libvirt::new(&uri).unwrap()));
    texts.push(format!("{:?}", Libvirt::new(&format!("{uri}?mode=fast")).unwrap_err()));

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("asked") && log.contains("SASL"), "nothing is logged: {log}");
    texts.push(log);
    for text in texts {
        assert!(!text.contains(PASSWORD), "{text}");
    }
}
