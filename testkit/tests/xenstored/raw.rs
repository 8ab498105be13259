//! A XenStore client that knows only the protocol's header.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

pub(crate) const DIRECTORY: u32 = 1;
pub(crate) const WATCH: u32 = 4;
pub(crate) const WATCH_EVENT: u32 = 15;
pub(crate) const IS_DOMAIN_INTRODUCED: u32 = 17;
pub(crate) const DIRECTORY_PART: u32 = 22;

/// A packet: its header without the length, and its payload.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) operation: u32,
    pub(crate) request: u32,
    pub(crate) transaction: u32,
    pub(crate) payload: Vec<u8>,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, request, transaction, payload } = self;
        write!(f, "{operation} #{request} in {transaction}: {}", payload.escape_ascii())
    }
}

impl Frame {
    pub(crate) fn new(operation: u32, payload: impl AsRef<[u8]>) -> Self {
        Self { operation, request: 9, transaction: 0, payload: payload.as_ref().to_vec() }
    }

    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(word(12) as usize, bytes.len() - 16);
        let payload = bytes[16..].to_vec();
        Self { operation: word(0), request: word(4), transaction: word(8), payload }
    }
}

pub(crate) struct Raw {
    stream: UnixStream,
    /// The packets that came since they were last taken.
    pub(crate) received: Vec<Frame>,
}

impl Raw {
    pub(crate) async fn connect(socket: &Path) -> Self {
        loop {
            match UnixStream::connect(socket).await {
                Ok(stream) => return Self { stream, received: Vec::new() },
                // The real daemon's queue of connections to accept has only one or two places.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    sleep(Duration::from_millis(1)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) async fn send(&mut self, frame: &Frame) {
        let length = u32::try_from(frame.payload.len()).unwrap();
        let words = [frame.operation, frame.request, frame.transaction, length];
        let header = words.map(u32::to_ne_bytes).concat();
        self.stream.write_all(&[&header, &frame.payload[..]].concat()).await.unwrap();
    }

    /// The next packet, within 5 s; `None` if the other side has hung up.
    pub(crate) async fn receive(&mut self) -> Option<Frame> {
        let mut bytes = vec![0; 16];
        let receive = async {
            self.stream.read_exact(&mut bytes).await.ok()?;
            let length = u32::from_ne_bytes(bytes[12..].try_into().unwrap()) as usize;
            bytes.resize(16 + length, 0);
            self.stream.read_exact(&mut bytes[16..]).await.ok()
        };
        timeout(Duration::from_secs(5), receive).await.expect("a packet within 5 s")?;
        Some(Frame::parse(&bytes))
    }

    /// Sends a request and returns its reply. Keeps the packets up to it.
    pub(crate) async fn call(&mut self, frame: &Frame) -> Frame {
        self.send(frame).await;
        loop {
            let packet = self.receive().await.unwrap_or_else(|| panic!("no reply to {frame:?}"));
            self.received.push(packet.clone());
            if packet.operation != WATCH_EVENT {
                return packet;
            }
        }
    }

    /// The paths of the watch events since the last call.
    pub(crate) async fn events(&mut self) -> Vec<String> {
        // A request whose reply comes behind all events that are queued now.
        self.call(&Frame::new(IS_DOMAIN_INTRODUCED, b"0\0")).await;
        let received = std::mem::take(&mut self.received).into_iter();
        received
            .filter(|frame| frame.operation == WATCH_EVENT)
            .map(|frame| {
                let path = frame.payload.split(|byte| *byte == 0).next().unwrap();
                String::from_utf8_lossy(path).into_owned()
            })
            .collect()
    }
}
