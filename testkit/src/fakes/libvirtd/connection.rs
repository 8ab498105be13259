//! One client's connection.

use std::io;
use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use virevent_libvirt::wire::{Frames, Header, RemoteError, code, kind, message, procs, program};

use super::answer::Client;
use super::event::{event_ids, event_message};
use super::faults::{Faults, remote_error};
use super::state::{Open, Order, Shared};
use super::sync_count::{SyncCount, Syncing};
use crate::fakes::pieces::write_in_pieces;
use crate::{Emitted, Observer};

/// One client's connection: the daemon counts it as open while this lives.
pub(super) struct Connection {
    shared: Arc<Shared>,
    number: u64,
    orders: mpsc::UnboundedReceiver<Order>,
    observer: Observer,
    client: Client,
    /// Replies that wait for [`Order::Release`].
    held: Vec<Vec<u8>>,
    /// Bytes to be written.
    out: Vec<u8>,
    /// Nothing is written until the end of the connection.
    silent: bool,
    /// Until its first list is written.
    syncing: Option<Syncing>,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (sender, orders) = mpsc::unbounded_channel();
        let (number, syncing) = shared.state.change(|state| {
            let number = state.accepted;
            state.accepted += 1;
            state.connections.insert(number, Open { orders: sender, registered: Vec::new() });
            (number, state.sync_count.as_ref().map(SyncCount::begin))
        });
        let observer = shared.host.observe();
        let client = Client::new(Arc::clone(&shared));
        Self {
            shared,
            number,
            orders,
            observer,
            client,
            held: Vec::new(),
            out: Vec::new(),
            silent: false,
            syncing,
        }
    }

    fn faults(&self) -> Faults {
        self.shared.state.lock().faults.clone()
    }

    /// Serves the client until either side hangs up.
    pub(super) async fn serve(mut self, mut stream: UnixStream) {
        let mut frames = Frames::new();
        while !self.client.closing {
            tokio::select! {
                // In the order in which a test acts: an event before the order that follows it.
                biased;
                Some(emitted) = self.observer.next() => {
                    self.emit(&emitted);
                    self.emit_pending();
                }
                Some(order) = self.orders.recv() => self.carry_out(order),
                read = stream.read(frames.spare()) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(read) => {
                        frames.filled(read);
                        if !self.read_frames(&mut frames) {
                            return;
                        }
                    }
                },
            }
            if self.flush(&mut stream).await.is_err() {
                return;
            }
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Send(bytes) => self.out.extend(bytes),
            Order::Ping => message(&mut self.out, &Header::keepalive(procs::PING), |_| {}),
            Order::Silence => self.silent = true,
            Order::Release => self.held.drain(..).for_each(|reply| self.out.extend(reply)),
            Order::Cut => self.client.closing = true,
        }
    }

    /// Handles the frames that were read. False if they are malformed: libvirtd hangs up then.
    fn read_frames(&mut self, frames: &mut Frames) -> bool {
        loop {
            match frames.next_frame() {
                Ok(Some(frame)) => self.receive(&frame.header, frame.body),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    fn receive(&mut self, header: &Header, body: &[u8]) {
        match (header.program, header.kind) {
            // Answered before authentication and opening too: a client can ping at any time.
            (program::KEEPALIVE, _) if header.procedure == procs::PING => {
                message(&mut self.out, &Header::keepalive(procs::PONG), |_| {});
            }
            (program::KEEPALIVE, _) => self.shared.state.change(|state| state.pongs += 1),
            (program::REMOTE, kind::CALL) => self.call(header, body),
            (_, kind::CALL) => self.reply(header, Err(remote_error(code::RPC, "unknown program"))),
            // libvirtd logs the message and sends no reply.
            _ => {}
        }
    }

    fn call(&mut self, header: &Header, body: &[u8]) {
        // Events of changes before the call precede its reply.
        self.emit_pending();
        let procedure = header.procedure;
        let faults = self.faults();
        if faults.hang_up.contains(&procedure) {
            self.client.closing = true;
        } else {
            let answer = self.client.answer(procedure, body);
            let before = self.out.len();
            self.reply(header, answer);
            // Only this reply is cut: what was queued before it goes out whole.
            if faults.truncated.contains(&procedure) {
                self.out.truncate(before + (self.out.len() - before) / 2);
                self.client.closing = true;
            }
        }
        // Counted after the reply is queued, so that a test that waits for the count finds the
        // registrations of this call.
        let registered = self.client.registered.events();
        self.shared.state.change(|state| {
            *state.calls.entry(procedure).or_default() += 1;
            if let Some(open) = state.connections.get_mut(&self.number) {
                open.registered = registered;
            }
        });
    }

    fn reply(&mut self, header: &Header, answer: Result<Vec<u8>, RemoteError>) {
        let faults = self.faults();
        let procedure = header.procedure;
        let wrong = faults.wrong_serial.contains(&procedure);
        // Far enough from the serials of the client's other calls.
        let serial = if wrong { header.serial.wrapping_add(1_000) } else { header.serial };
        // libvirtd echoes the program, version and procedure of the call, known or not.
        let header = Header { kind: kind::REPLY, serial, ..*header };
        let mut reply = Vec::new();
        match answer {
            Ok(answer) => message(&mut reply, &header, |body| body.raw(&answer)),
            Err(error) => {
                let header = Header { status: 1, ..header };
                message(&mut reply, &header, |body| error.write(body));
            }
        }
        match faults.held.contains(&procedure) {
            // With the state of now: a held list is older than the events that overtake it.
            true => self.held.push(reply),
            false => self.out.extend(reply),
        }
    }

    fn emit(&mut self, emitted: &Emitted) {
        for id in event_ids(&emitted.event) {
            if self.shared.state.lock().faults.mute.contains(&id) {
                continue;
            }
            for known in self.client.registered.of(id) {
                let message = event_message(&emitted.event, id, known.callback);
                self.out.extend(message.unwrap_or_default());
            }
        }
    }

    fn emit_pending(&mut self) {
        while let Some(emitted) = self.observer.try_next() {
            self.emit(&emitted);
        }
    }

    async fn flush(&mut self, stream: &mut UnixStream) -> io::Result<()> {
        let faults = self.faults();
        self.silent |= faults.silent;
        // Dropped, not kept: a host that is gone does not send it later either.
        if self.silent {
            self.out.clear();
        }
        if !faults.gather.is_zero() && !self.out.is_empty() {
            // Events of the time of the sleep go into the same write.
            tokio::time::sleep(faults.gather).await;
            self.emit_pending();
        }
        if self.client.has_listed {
            // Before the write: once the client has the list, another one may connect.
            self.syncing = None;
        }
        write_in_pieces(stream, &self.out, faults.piece).await?;
        self.out.clear();
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.state.change(|state| state.connections.remove(&self.number));
    }
}
