//! Bad input: bounded, and an error.

use virevent_libvirt::wire::{MAX_MECHANISMS, MAX_SASL_DATA, SaslStart};

use super::*;

async fn error_of(subscribed: JoinHandle<Result<EventStream, Error>>) -> (Error, String) {
    let error = subscribed.await.unwrap().unwrap_err();
    let line = error.to_line();
    assert!(!line.contains(PASSWORD) && line.len() < 600, "{line}");
    (error, line)
}

/// The client's nonce, from its first message of SCRAM.
async fn client_nonce(peer: &mut Peer) -> (Header, String) {
    let (header, args) = peer.until(procs::AUTH_SASL_START).await;
    let reader = &mut virevent_libvirt::wire::xdr::Reader::new(&args);
    let data = SaslStart::read(reader).unwrap().1.unwrap();
    let text = String::from_utf8(data).unwrap();
    (header, text.strip_prefix("n,,n=fred,r=").unwrap().to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_list_of_mechanisms_without_end_is_an_error() {
    for offer in [vec![b','; MAX_MECHANISMS + 1], vec![b'A'; 4 * 1024 * 1024]] {
        let (subscribed, _peer) = offered(&offer).await;
        let (error, line) = error_of(subscribed).await;
        assert!(matches!(error, Error::Authentication { .. }), "{line}");
        assert!(line.contains("it is broken"), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_offer_of_control_characters_is_not_shown() {
    let (subscribed, _peer) = offered(b"\x1b[31mRED,\n\r").await;
    let (_, line) = error_of(subscribed).await;
    assert!(line.contains("(no name)") && !line.contains(char::is_control), "{line}");
}

#[tokio::test(start_paused = true)]
async fn sasl_data_longer_than_libvirts_limit_is_a_broken_protocol() {
    let (subscribed, mut peer) = offered(b"SCRAM-SHA-256").await;
    reply(&mut peer, false, Some(&vec![b'r'; MAX_SASL_DATA + 1])).await;
    let (error, line) = error_of(subscribed).await;
    assert!(matches!(error, Error::Protocol { .. }) && line.contains("procedure 68"), "{line}");
}

#[tokio::test(start_paused = true)]
async fn a_count_of_data_without_the_data_is_a_broken_protocol() {
    let (subscribed, mut peer) = offered(b"SCRAM-SHA-256").await;
    answer(&mut peer, |body| [0, 0, 65_536].into_iter().for_each(|word| body.i32(word))).await;
    let (error, line) = error_of(subscribed).await;
    assert!(matches!(error, Error::Protocol { .. }), "{line}");
}

#[tokio::test(start_paused = true)]
async fn wrong_flags_are_a_broken_protocol() {
    for words in [&[2, 1, 0][..], &[0, 7, 0], &[1, 1, 1, 65], &[0, 0, 1, 4096], &[1], &[]] {
        let (subscribed, mut peer) = offered(b"PLAIN").await;
        answer(&mut peer, |body| words.iter().for_each(|word| body.i32(*word))).await;
        let (error, line) = error_of(subscribed).await;
        assert!(matches!(error, Error::Protocol { .. }), "{words:?}: {line}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_data_where_scram_needs_some_is_a_broken_protocol() {
    for data in [None, Some(&b""[..]), Some(b"r"), Some(b"r=x,s"), Some(b"\xff\0,=")] {
        let (subscribed, mut peer) = offered(b"SCRAM-SHA-256").await;
        reply(&mut peer, false, data).await;
        let (error, line) = error_of(subscribed).await;
        assert!(matches!(error, Error::Protocol { .. }), "{data:?}: {line}");
        assert!(line.contains("SCRAM-SHA-256"), "{data:?}: {line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_completes_is_a_broken_protocol() {
    let (subscribed, mut peer) = offered(b"PLAIN").await;
    for _ in 0..8 {
        reply(&mut peer, false, None).await;
    }
    let (error, line) = error_of(subscribed).await;
    assert!(matches!(error, Error::Protocol { .. }), "{line}");
    assert!(line.contains("not complete after 8 replies"), "{line}");
    assert!(peer.next().await.is_none(), "the connection is closed");
}

/// A server that does not know the password could say at once that the client is in.
#[tokio::test(start_paused = true)]
async fn a_completion_without_a_proof_is_refused() {
    let (subscribed, mut peer) = offered(b"SCRAM-SHA-1").await;
    let (header, nonce) = client_nonce(&mut peer).await;
    let data = format!("r={nonce}x,s=c2FsdA==,i=4096").into_bytes();
    let early = SaslReply { complete: true, data: Some(data) };
    peer.send(&Header::reply(header.procedure, header.serial), |body| early.write(body)).await;
    let (error, line) = error_of(subscribed).await;
    assert!(error.is_refusal() && line.contains("did not prove that it knows"), "{line}");
}

#[tokio::test(start_paused = true)]
async fn a_completion_with_a_wrong_proof_is_refused() {
    for proof in ["v=AAAA", "v=nope!", "e=other-error", "v"] {
        let (subscribed, mut peer) = offered(b"SCRAM-SHA-256").await;
        let (header, nonce) = client_nonce(&mut peer).await;
        let data = format!("r={nonce}x,s=c2FsdA==,i=4096").into_bytes();
        let first = SaslReply { complete: false, data: Some(data) };
        peer.send(&Header::reply(header.procedure, header.serial), |body| first.write(body)).await;
        reply(&mut peer, true, Some(proof.as_bytes())).await;
        let (error, line) = error_of(subscribed).await;
        let is_unproven = line.contains("did not prove that it knows");
        assert_eq!(is_unproven, proof == "v=AAAA", "{proof}: {line}");
        assert_eq!(matches!(error, Error::Protocol { .. }), proof != "v=AAAA", "{proof}: {line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_huge_iteration_count_is_not_computed() {
    let (subscribed, mut peer) = offered(b"SCRAM-SHA-256").await;
    let (header, nonce) = client_nonce(&mut peer).await;
    let data = format!("r={nonce}x,s=c2FsdA==,i=4294967295").into_bytes();
    let first = SaslReply { complete: false, data: Some(data) };
    peer.send(&Header::reply(header.procedure, header.serial), |body| first.write(body)).await;
    let (error, line) = error_of(subscribed).await;
    assert!(matches!(error, Error::Protocol { .. }) && line.contains("iterations"), "{line}");
}

#[tokio::test(start_paused = true)]
async fn a_server_without_a_reply_is_an_error_at_the_deadline() {
    for silent in [procs::AUTH_SASL_INIT, procs::AUTH_SASL_START] {
        let daemon = Daemon::new();
        let source = fred(daemon.libvirt()).source();
        let subscribed =
            tokio::spawn(async move { source.subscribe_with(Options::default()).await });
        let mut peer = daemon.accept().await;
        let (header, _) = peer.until(procs::AUTH_LIST).await;
        peer.ints(&Header::reply(header.procedure, header.serial), &[1, procs::auth::SASL]).await;
        if silent == procs::AUTH_SASL_START {
            offer_to(&mut peer, b"PLAIN").await;
        }
        let (error, line) = error_of(subscribed).await;
        assert!(matches!(error, Error::Timeout { .. }), "{line}");
        assert!(line.contains(procs::name(silent)), "{line}");
    }
}
