//! Recorded authentications of a real libvirtd: the codec against their bytes, and this client
//! against a server that repeats them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use virevent::{Error, EventSource, Options};
use virevent_libvirt::Libvirt;
use virevent_libvirt::wire::xdr::{Reader, Writer};
use virevent_libvirt::wire::{
    Frames, Header, RemoteError, SaslReply, SaslStart, SaslStep, code, message, procs, status,
};

/// A message: whether the client sent it, and its bytes.
type Message = (bool, Vec<u8>);

fn session(text: &str) -> Vec<Message> {
    let message = |line| {
        let line: Value = serde_json::from_str(line).unwrap();
        let hex = line["hex"].as_str()?;
        let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let bytes = (0..hex.len()).step_by(2).map(digits).collect();
        Some((line["dir"] == "c2s", bytes))
    };
    text.lines().filter_map(message).collect()
}

fn scram() -> Vec<Message> {
    session(include_str!("vectors/libvirt-sasl-scram-sha-256.jsonl"))
}

fn virsh() -> Vec<Message> {
    session(include_str!("vectors/libvirt-virsh-list-sasl-scram.jsonl"))
}

/// Without the last messages, which are encrypted by the mechanism.
fn digest() -> Vec<Message> {
    let mut session = session(include_str!("vectors/libvirt-sasl-digest-md5-tcp-raw.jsonl"));
    session.truncate(8);
    session
}

fn polkit() -> Vec<Message> {
    session(include_str!("vectors/libvirt-polkit-refused.jsonl"))
}

/// The header and the body of a message.
fn read(bytes: &[u8]) -> (Header, Vec<u8>) {
    let mut frames = Frames::new();
    frames.push(bytes);
    let frame = frames.next_frame().unwrap().expect("a whole frame");
    (frame.header, frame.body.to_vec())
}

fn written(header: &Header, write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    message(&mut out, header, write);
    out
}

#[test]
fn recorded_sasl_messages_are_read_and_written_alike() {
    let mut count = 0;
    for (is_call, bytes) in [scram(), virsh(), digest()].concat() {
        let (header, body) = read(&bytes);
        let mut body = Reader::new(&body);
        let again = match header.procedure {
            procs::AUTH_SASL_START if is_call => {
                let (mechanism, data) = SaslStart::read(&mut body).unwrap();
                let start = SaslStart { mechanism, data: data.as_deref() };
                written(&header, |body| start.write(body))
            }
            procs::AUTH_SASL_STEP if is_call => {
                let data = SaslStep::read(&mut body).unwrap();
                written(&header, |body| SaslStep { data: data.as_deref() }.write(body))
            }
            procs::AUTH_SASL_START | procs::AUTH_SASL_STEP if header.status == status::OK => {
                let reply = SaslReply::read(&mut body).unwrap();
                written(&header, |body| reply.write(body))
            }
            procs::AUTH_SASL_START | procs::AUTH_SASL_STEP => {
                let error = RemoteError::read(&mut body).unwrap();
                assert_eq!(error.code, code::AUTH_FAILED);
                continue;
            }
            _ => continue,
        };
        assert_eq!(again, bytes);
        count += 1;
    }
    assert_eq!(count, 16);
}

#[test]
fn the_recorded_server_sends_its_proof_with_the_completion() {
    let replies: Vec<_> = virsh()
        .into_iter()
        .map(|(is_call, bytes)| (is_call, read(&bytes)))
        .filter(|(is_call, (header, _))| !is_call && (68..=69).contains(&header.procedure))
        .map(|(_, (_, body))| SaslReply::read(&mut Reader::new(&body)).unwrap())
        .collect();
    assert!(!replies[0].complete && replies[0].data.as_ref().unwrap().starts_with(b"r="));
    assert!(replies[1].complete && replies[1].data.as_ref().unwrap().starts_with(b"v="));
    assert_eq!(replies.len(), 2);
}

/// The error of this client at a server that answers each call with the next recorded reply.
async fn error_at(session: Vec<Message>, configure: impl FnOnce(Libvirt) -> Libvirt) -> Error {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sock-ro");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut frames = Frames::new();
        let mut replies = session.into_iter().filter(|(is_call, _)| !is_call);
        loop {
            while let Some(frame) = frames.next_frame().unwrap() {
                let Some((_, mut reply)) = replies.next() else { return };
                reply[20..24].copy_from_slice(&frame.header.serial.to_be_bytes());
                stream.write_all(&reply).await.unwrap();
            }
            match stream.read(frames.spare()).await {
                Ok(0) | Err(_) => return,
                Ok(bytes) => frames.filled(bytes),
            }
        }
    });
    let uri = format!("test+unix:///default?socket={}", path.display());
    let source = configure(Libvirt::new(&uri).unwrap()).source();
    source.subscribe_with(Options::default()).await.unwrap_err()
}

#[tokio::test]
async fn the_recorded_refusal_of_polkit_is_explained() {
    let error = error_at(polkit(), |libvirt| libvirt).await;
    let line = error.to_line();
    assert!(matches!(error, Error::Authentication { .. }) && error.is_refusal(), "{line}");
    assert!(line.contains("check that D-Bus and polkitd run"), "{line}");
    assert!(line.contains("No such file or directory, code 1)"), "{line}");
}

#[cfg(feature = "sasl")]
mod with_sasl {
    use virevent_libvirt::Credentials;

    use super::*;

    fn fred(libvirt: Libvirt) -> Libvirt {
        libvirt.credentials(Credentials::new("fred", "s3cr3t"))
    }

    #[tokio::test]
    async fn the_recorded_offer_of_digest_md5_is_refused_by_name() {
        let error = error_at(digest(), fred).await;
        let line = error.to_line();
        assert!(error.is_refusal() && line.contains("DIGEST-MD5 only"), "{line}");
    }

    /// The recorded server's nonce does not begin with that of this client.
    #[tokio::test]
    async fn a_recorded_exchange_cannot_be_repeated() {
        let error = error_at(scram(), fred).await;
        let line = error.to_line();
        assert!(matches!(error, Error::Protocol { .. }), "{line}");
        assert!(line.contains("SCRAM-SHA-256") && line.contains("nonce"), "{line}");
    }
}
