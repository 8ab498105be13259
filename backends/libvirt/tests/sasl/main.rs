//! SASL against a scripted daemon, for what a real one does not do on demand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod hostile;
#[path = "../conversation/peer.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod peer;
mod secrets;

use tokio::task::JoinHandle;
use virevent::{Error, EventSource, EventStream, Options};
use virevent_libvirt::wire::xdr::Writer;
use virevent_libvirt::wire::{Header, SaslReply, procs};
use virevent_libvirt::{Credentials, Libvirt};

use self::peer::{Daemon, Peer};

const PASSWORD: &str = "s3cr3t-pass";

fn fred(libvirt: Libvirt) -> Libvirt {
    libvirt.credentials(Credentials::new("fred", PASSWORD))
}

/// A subscription of a client that has credentials, and the daemon's end once it demands SASL with
/// this offer.
async fn offered(offer: &[u8]) -> (JoinHandle<Result<EventStream, Error>>, Peer) {
    let daemon = Daemon::new();
    let source = fred(daemon.libvirt()).source();
    let subscribed = tokio::spawn(async move { source.subscribe_with(Options::default()).await });
    let mut peer = daemon.accept().await;
    demand(&mut peer, offer).await;
    (subscribed, peer)
}

async fn demand(peer: &mut Peer, offer: &[u8]) {
    let (header, _) = peer.until(procs::AUTH_LIST).await;
    peer.ints(&Header::reply(header.procedure, header.serial), &[1, procs::auth::SASL]).await;
    offer_to(peer, offer).await;
}

async fn offer_to(peer: &mut Peer, offer: &[u8]) {
    let (header, _) = peer.until(procs::AUTH_SASL_INIT).await;
    let reply = Header::reply(header.procedure, header.serial);
    peer.send(&reply, |body| body.string(offer)).await;
}

/// Answers the next SASL call.
async fn answer(peer: &mut Peer, body: impl FnOnce(&mut Writer<'_>)) {
    let (header, _) = peer.next().await.expect("the client is connected");
    assert!((procs::AUTH_SASL_START..=procs::AUTH_SASL_STEP).contains(&header.procedure));
    peer.send(&Header::reply(header.procedure, header.serial), body).await;
}

async fn reply(peer: &mut Peer, complete: bool, data: Option<&[u8]>) {
    let reply = SaslReply { complete, data: data.map(<[u8]>::to_vec) };
    answer(peer, |body| reply.write(body)).await;
}
