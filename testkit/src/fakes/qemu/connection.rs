//! One client's connection.

use std::io;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWrite, BufReader};
use tokio::sync::mpsc;

use super::faults::Faults;
use super::socket::Stream;
use super::state::{Order, State};
use crate::fakes::pieces::write_in_pieces;
use crate::fakes::state::Watched;

// As QEMU writes it: one line that ends with CR LF.
const GREETING: &str = "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, \
                        \"package\": \"fake\"}, \"capabilities\": [\"oob\"]}}\r\n";

/// The connection of the client that is served: it counts as held while this lives.
pub(super) struct Connection {
    state: Arc<Watched<State>>,
    number: u64,
    orders: mpsc::UnboundedReceiver<Order>,
    negotiated: bool,
}

impl Connection {
    pub(super) fn new(state: Arc<Watched<State>>) -> Self {
        let (sender, orders) = mpsc::unbounded_channel();
        let number = state.change(|state| {
            state.client = Some(sender);
            state.accepted += 1;
            state.accepted
        });
        Self { state, number, orders, negotiated: false }
    }

    /// Serves the client until either side hangs up.
    pub(super) async fn serve(mut self, stream: Box<dyn Stream>) {
        // A client that is gone is no fault of the fake's: the next one is served.
        let _ = self.talk(stream).await;
    }

    fn faults(&self) -> Faults {
        self.state.lock().faults.clone()
    }

    async fn talk(&mut self, stream: Box<dyn Stream>) -> io::Result<()> {
        let (reader, mut writer) = tokio::io::split(stream);
        let mut lines = BufReader::new(reader).lines();
        let faults = self.faults();
        if faults.hang_up {
            return Ok(());
        }
        // Connected and silent meanwhile, as a client that waits behind another one sees it.
        tokio::time::sleep(faults.greeting_delay).await;
        if !faults.deaf {
            let greeting = [&faults.before_greeting, GREETING.as_bytes()].concat();
            self.write(&mut writer, &greeting).await?;
        }
        loop {
            tokio::select! {
                // In the order in which a test acts: an event before the answer to a later command.
                biased;
                Some(order) = self.orders.recv() => match order {
                    // Before the negotiation QEMU sends no events and keeps none for later.
                    Order::Send(bytes) if self.negotiated => self.write(&mut writer, &bytes).await?,
                    Order::Send(_) => {}
                    Order::Greet => {
                        self.negotiated = false;
                        self.write(&mut writer, GREETING.as_bytes()).await?;
                    }
                    Order::Cut => return Ok(()),
                },
                line = lines.next_line() => {
                    let Some(line) = line? else { return Ok(()) };
                    // Commands are read all the same, so that the client's writes do not block.
                    if faults.deaf {
                        continue;
                    }
                    let Some(answer) = self.answer(&line) else { return Ok(()) };
                    self.write(&mut writer, &answer).await?;
                }
            }
        }
    }

    /// The answer to a command, or `None` to hang up.
    fn answer(&mut self, line: &str) -> Option<Vec<u8>> {
        let call: Value = serde_json::from_str(line).ok()?;
        let name = call["execute"].as_str()?.to_owned();
        let (faults, guest) = self.state.change(|state| {
            *state.calls.entry(name.clone()).or_default() += 1;
            (state.faults.clone(), state.guest.clone())
        });
        // Counted all the same: the command has arrived.
        if faults.hang_up_at.contains(&name) {
            return None;
        }
        if faults.unanswered.contains(&name) {
            return Some(Vec::new());
        }
        // QEMU answers CommandNotFound to any other command before the negotiation, and to a second
        // negotiation too.
        let value = match &*name {
            _ if faults.lacks.contains(&name) => None,
            "qmp_capabilities" if !self.negotiated => {
                self.negotiated = true;
                Some(json!({}))
            }
            _ if !self.negotiated => None,
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
        // In one write, so that a client reads the answer and the bytes around it together.
        let mut bytes = faults.before.get(&name).cloned().unwrap_or_default();
        bytes.extend(format!("{answer}\r\n").as_bytes());
        bytes.extend(faults.after.get(&name).into_iter().flatten());
        Some(bytes)
    }

    async fn write(&self, writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
        write_in_pieces(writer, bytes, self.faults().piece).await
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.state.change(|state| {
            // A QEMU that was started meanwhile at the same path may serve a client already.
            if state.accepted == self.number {
                state.client = None;
            }
        });
    }
}
