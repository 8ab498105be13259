//! A client's socket.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until};
use virevent_xen::wire::Decoder;

use super::Shared;
use super::daemon::{Connection, Out};

/// How much is taken from the queue at a time.
const BATCH: usize = 16 * 1024;

/// Counted as open while it lives.
pub(super) struct Socket {
    shared: Arc<Shared>,
    number: u64,
}

impl Socket {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let number = shared.change(|daemon| {
            daemon.accepted += 1;
            daemon.connections.insert(daemon.accepted, Connection::default());
            daemon.accepted
        });
        Self { shared, number }
    }

    /// Until either side hangs up. It reads while it cannot write, and does both as they come.
    pub(super) async fn serve(self, mut stream: UnixStream) {
        let (mut reader, mut writer) = stream.split();
        let (mut decoder, mut out, mut sent) = (Decoder::new(), Vec::new(), 0);
        let (mut pause, mut end) = (None, false);
        let wake = self
            .shared
            .with(|daemon| Some(Arc::clone(&daemon.connections.get(&self.number)?.wake)));
        let Some(wake) = wake else { return };
        while !self.is_cut() {
            if sent == out.len() && pause.is_none() {
                if end {
                    return;
                }
                out.clear();
                sent = 0;
                (pause, end) = self.fill(&mut out);
            }
            let piece = self.shared.with(|daemon| daemon.faults.piece);
            let rest = &out[sent..];
            let now = &rest[..piece.unwrap_or(rest.len()).max(1).min(rest.len())];
            tokio::select! {
                biased;
                written = writer.write(now), if !now.is_empty() => match written {
                    Ok(written) => {
                        sent += written;
                        if piece.is_some() {
                            // Lets the client read.
                            tokio::task::yield_now().await;
                        }
                    }
                    Err(_) => return,
                },
                // What comes before a pause is written first.
                () = until(pause), if now.is_empty() && pause.is_some() => pause = None,
                read = reader.read(decoder.spare()) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(read) => {
                        decoder.filled(read);
                        if !self.take(&mut decoder) {
                            return;
                        }
                    }
                },
                () = wake.notified() => {}
            }
        }
    }

    fn is_cut(&self) -> bool {
        let number = &self.number;
        self.shared.with(|daemon| daemon.connections.get(number).is_none_or(|one| one.is_cut))
    }

    /// Moves what is queued into `out`, up to a pause or the end.
    fn fill(&self, out: &mut Vec<u8>) -> (Option<Instant>, bool) {
        self.shared.with(|daemon| {
            let silent = daemon.faults.silent;
            let Some(connection) = daemon.connections.get_mut(&self.number) else {
                return (None, true);
            };
            while out.len() < BATCH {
                match connection.take() {
                    Some(Out::Bytes(_) | Out::Event(_)) if silent => {}
                    Some(Out::Bytes(bytes) | Out::Event(bytes)) => out.extend(bytes),
                    Some(Out::Pause(pause)) => return (Some(Instant::now() + pause), false),
                    Some(Out::End) => return (None, true),
                    None => break,
                }
            }
            (None, false)
        })
    }

    /// False when the client's bytes make no sense: the real one hangs up, too.
    fn take(&self, decoder: &mut Decoder) -> bool {
        loop {
            match decoder.next_packet() {
                Ok(Some(packet)) => self.shared.change(|daemon| {
                    daemon.hear(self.number, packet.header, packet.payload);
                }),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.shared.change(|daemon| daemon.connections.remove(&self.number));
    }
}

async fn until(instant: Option<Instant>) {
    if let Some(instant) = instant {
        sleep_until(instant).await;
    }
}
