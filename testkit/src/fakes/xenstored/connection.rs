//! One client's connection: the I/O.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until};
use virevent_xen::wire::Decoder;

use super::daemon::{Client, Daemon, Out};
use crate::fakes::state::Watched;

/// The number of bytes that are taken from the queue at a time.
const BATCH: usize = 16 * 1024;

/// What follows the bytes that were taken from the queue.
enum Then {
    Go,
    /// Nothing is sent until then.
    Pause(Instant),
    /// The connection ends.
    End,
}

/// One client's connection: the daemon counts it as open while this lives.
pub(super) struct Connection {
    daemon: Arc<Watched<Daemon>>,
    number: u64,
}

impl Connection {
    pub(super) fn new(daemon: Arc<Watched<Daemon>>) -> Self {
        let number = daemon.change(|daemon| {
            daemon.accepted += 1;
            daemon.clients.insert(daemon.accepted, Client::default());
            daemon.accepted
        });
        Self { daemon, number }
    }

    /// Serves the client until either side hangs up. Reads go on while a write has to wait.
    pub(super) async fn serve(self, mut stream: UnixStream) {
        let (mut reader, mut writer) = stream.split();
        let mut decoder = Decoder::new();
        let mut out = Vec::new();
        let mut sent = 0;
        let mut pause = None;
        let mut end = false;
        let wake = self.daemon.lock().clients.get(&self.number).map(|one| Arc::clone(&one.wake));
        let Some(wake) = wake else { return };
        // Checked in each turn, since a client that does not read keeps the queue from its end.
        while !self.is_cut() {
            if sent == out.len() && pause.is_none() {
                if end {
                    return;
                }
                out.clear();
                sent = 0;
                match self.fill(&mut out) {
                    Then::Go => {}
                    Then::Pause(until) => pause = Some(until),
                    Then::End => end = true,
                }
            }
            // Read again for each piece: a test may change it while bytes are queued.
            let piece = self.daemon.lock().faults.piece;
            let rest = &out[sent..];
            let now = &rest[..piece.unwrap_or(rest.len()).max(1).min(rest.len())];
            tokio::select! {
                biased;
                written = writer.write(now), if !now.is_empty() => match written {
                    Ok(written) => {
                        sent += written;
                        if piece.is_some() {
                            // Lets a client in the same thread read before the next piece.
                            tokio::task::yield_now().await;
                        }
                    }
                    Err(_) => return,
                },
                // Only once everything before the pause is written.
                () = until(pause), if now.is_empty() && pause.is_some() => pause = None,
                read = reader.read(decoder.spare()) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(read) => {
                        decoder.filled(read);
                        if !self.read_packets(&mut decoder) {
                            return;
                        }
                    }
                },
                () = wake.notified() => {}
            }
        }
    }

    fn is_cut(&self) -> bool {
        self.daemon.lock().clients.get(&self.number).is_none_or(|client| client.is_cut)
    }

    /// Moves queued bytes into `out`, up to a pause or the end.
    fn fill(&self, out: &mut Vec<u8>) -> Then {
        let mut daemon = self.daemon.lock();
        let silent = daemon.faults.silent;
        let Some(client) = daemon.clients.get_mut(&self.number) else { return Then::End };
        while out.len() < BATCH {
            match client.take() {
                Some(Out::Bytes(_) | Out::Event(_)) if silent => {}
                Some(Out::Bytes(bytes) | Out::Event(bytes)) => out.extend(bytes),
                Some(Out::Pause(pause)) => return Then::Pause(Instant::now() + pause),
                Some(Out::End) => return Then::End,
                None => break,
            }
        }
        Then::Go
    }

    /// Handles the packets that were read. False if they are malformed: xenstored hangs up then.
    fn read_packets(&self, decoder: &mut Decoder) -> bool {
        loop {
            match decoder.next_packet() {
                Ok(Some(packet)) => self.daemon.change(|daemon| {
                    daemon.receive(self.number, packet.header, packet.payload);
                }),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.daemon.change(|daemon| daemon.clients.remove(&self.number));
    }
}

async fn until(instant: Option<Instant>) {
    if let Some(instant) = instant {
        sleep_until(instant).await;
    }
}
