//! One client after the other.

use std::io;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};

use super::faults::Faults;
use super::{Order, Shared};

const GREETING: &str = "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, \
                        \"package\": \"fake\"}, \"capabilities\": [\"oob\"]}}\r\n";

/// Where it listens.
pub(super) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Serves one client, and then the next, until the sender of `end` is dropped.
pub(super) async fn accept(listener: Listener, shared: Arc<Shared>, mut end: watch::Receiver<()>) {
    loop {
        let accepted = tokio::select! {
            biased;
            _ = end.changed() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok(stream) = accepted else { return };
        let (sender, orders) = mpsc::unbounded_channel();
        shared.change(|state| {
            state.client = Some(sender);
            state.accepted += 1;
        });
        let mut connection = Connection { shared: Arc::clone(&shared), orders };
        // However it ends, the next one's turn comes.
        let _ = connection.serve(stream).await;
        shared.change(|state| state.client = None);
    }
}

struct Connection {
    shared: Arc<Shared>,
    orders: mpsc::UnboundedReceiver<Order>,
}

impl Connection {
    fn faults(&self) -> Faults {
        self.shared.lock().faults.clone()
    }

    async fn serve(&mut self, stream: Box<dyn Stream>) -> io::Result<()> {
        let (reader, mut writer) = tokio::io::split(stream);
        let mut lines = BufReader::new(reader).lines();
        let faults = self.faults();
        if faults.hang_up {
            return Ok(());
        }
        tokio::time::sleep(faults.greeting_delay).await;
        if !faults.deaf {
            let greeting = [&faults.before_greeting, GREETING.as_bytes()].concat();
            self.write(&mut writer, &greeting).await?;
        }
        let mut negotiated = false;
        loop {
            tokio::select! {
                // What a test did first comes first.
                biased;
                Some(order) = self.orders.recv() => match order {
                    // Before that QEMU sends no events, and keeps none.
                    Order::Send(bytes) if negotiated => self.write(&mut writer, &bytes).await?,
                    Order::Send(_) => {}
                    Order::Greet => {
                        negotiated = false;
                        self.write(&mut writer, GREETING.as_bytes()).await?;
                    }
                    Order::Cut => return Ok(()),
                },
                line = lines.next_line() => {
                    let Some(line) = line? else { return Ok(()) };
                    if faults.deaf {
                        continue;
                    }
                    let Some(answer) = self.answer(&line, &mut negotiated) else { return Ok(()) };
                    self.write(&mut writer, &answer).await?;
                }
            }
        }
    }

    /// `None` to hang up.
    fn answer(&self, line: &str, negotiated: &mut bool) -> Option<Vec<u8>> {
        let call: Value = serde_json::from_str(line).ok()?;
        let name = call["execute"].as_str()?.to_owned();
        let (faults, guest) = self.shared.change(|state| {
            *state.calls.entry(name.clone()).or_default() += 1;
            (state.faults.clone(), state.guest.clone())
        });
        if faults.hang_up_at.contains(&name) {
            return None;
        }
        if faults.unanswered.contains(&name) {
            return Some(Vec::new());
        }
        let value = match &*name {
            _ if faults.lacks.contains(&name) => None,
            "qmp_capabilities" if !*negotiated => {
                *negotiated = true;
                Some(json!({}))
            }
            _ if !*negotiated => None,
            "query-name" => Some(json!({"name": guest.name})),
            "query-uuid" => Some(json!({"UUID": guest.uuid})),
            "query-cpus-fast" => Some(json!([{"thread-id": guest.thread}])),
            "query-status" => {
                Some(json!({"status": guest.status, "running": guest.status == "running"}))
            }
            _ => None,
        };
        let answer = match value {
            Some(value) => json!({"return": value, "id": call["id"]}),
            None => json!({
                "id": call["id"],
                "error": {"class": "CommandNotFound", "desc": "The command has not been found"}
            }),
        };
        let mut bytes = faults.before.get(&name).cloned().unwrap_or_default();
        bytes.extend(format!("{answer}\r\n").as_bytes());
        bytes.extend(faults.after.get(&name).into_iter().flatten());
        Some(bytes)
    }

    async fn write(&self, writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
        let piece = self.faults().piece;
        for bytes in bytes.chunks(piece.unwrap_or(bytes.len()).max(1)) {
            writer.write_all(bytes).await?;
            if piece.is_some() {
                // Lets the client read.
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }
}
