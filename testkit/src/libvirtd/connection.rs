//! One client's connection.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use virevent_libvirt::wire::{Frames, Header, RemoteError, code, kind, message, procs, program};

use super::faults::{Faults, remote_error};
use super::tell::{event_ids, event_message};
use super::{Open, Shared};
use crate::{Emitted, Host, Observer};

/// What a test has the daemon do.
pub(super) enum Order {
    Send(Vec<u8>),
    Ping,
    Silence,
    Release,
    Cut,
}

pub(super) struct Connection {
    shared: Arc<Shared>,
    number: u64,
    orders: mpsc::UnboundedReceiver<Order>,
    observer: Observer,
    registered: Vec<Registration>,
    held: Vec<Vec<u8>>,
    out: Vec<u8>,
    pub(super) authenticated: bool,
    pub(super) opened: bool,
    pub(super) closing: bool,
    silent: bool,
}

pub(super) struct Registration {
    pub(super) event: i32,
    /// `None` of a legacy one.
    pub(super) callback: Option<i32>,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (sender, orders) = mpsc::unbounded_channel();
        let number = shared.change(|state| {
            let number = state.accepted;
            state.accepted += 1;
            state.connections.insert(number, Open { orders: sender, registered: Vec::new() });
            number
        });
        let observer = shared.host.observe();
        Self {
            shared,
            number,
            orders,
            observer,
            registered: Vec::new(),
            held: Vec::new(),
            out: Vec::new(),
            authenticated: false,
            opened: false,
            closing: false,
            silent: false,
        }
    }

    pub(super) fn host(&self) -> &Host {
        &self.shared.host
    }

    pub(super) fn faults(&self) -> Faults {
        self.shared.lock().faults.clone()
    }

    /// Until either side hangs up.
    pub(super) async fn serve(mut self, mut stream: UnixStream) {
        let mut frames = Frames::new();
        while !self.closing {
            tokio::select! {
                // What a test did first comes first.
                biased;
                Some(emitted) = self.observer.next() => {
                    self.tell(&emitted);
                    self.tell_waiting();
                }
                Some(order) = self.orders.recv() => self.obey(order),
                read = stream.read(frames.spare()) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(read) => {
                        frames.filled(read);
                        if !self.take(&mut frames) {
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

    fn obey(&mut self, order: Order) {
        match order {
            Order::Send(bytes) => self.out.extend(bytes),
            Order::Ping => message(&mut self.out, &Header::keepalive(procs::PING), |_| {}),
            Order::Silence => self.silent = true,
            Order::Release => self.held.drain(..).for_each(|reply| self.out.extend(reply)),
            Order::Cut => self.closing = true,
        }
    }

    /// False when the client's bytes make no sense: the real one hangs up, too.
    fn take(&mut self, frames: &mut Frames) -> bool {
        loop {
            match frames.next_frame() {
                Ok(Some(frame)) => self.hear(&frame.header, frame.body),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    fn hear(&mut self, header: &Header, body: &[u8]) {
        match (header.program, header.kind) {
            (program::KEEPALIVE, _) if header.procedure == procs::PING => {
                message(&mut self.out, &Header::keepalive(procs::PONG), |_| {});
            }
            (program::KEEPALIVE, _) => self.shared.change(|state| state.pongs += 1),
            (program::REMOTE, kind::CALL) => self.call(header, body),
            (_, kind::CALL) => self.reply(header, Err(remote_error(code::RPC, "unknown program"))),
            // libvirtd logs it, and says nothing.
            _ => {}
        }
    }

    fn call(&mut self, header: &Header, body: &[u8]) {
        // What happened before the call is told before the answer.
        self.tell_waiting();
        let procedure = header.procedure;
        let faults = self.faults();
        if faults.hang_up.contains(&procedure) {
            self.closing = true;
        } else {
            let answer = self.answer(procedure, body);
            let before = self.out.len();
            self.reply(header, answer);
            if faults.truncated.contains(&procedure) {
                self.out.truncate(before + (self.out.len() - before) / 2);
                self.closing = true;
            }
        }
        let registered = self.registered.iter().map(|known| known.event).collect();
        self.shared.change(|state| {
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
        let serial = if wrong { header.serial.wrapping_add(1_000) } else { header.serial };
        // An error echoes the program, the version and the procedure of the call, whatever they are.
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
            true => self.held.push(reply),
            false => self.out.extend(reply),
        }
    }

    fn tell(&mut self, emitted: &Emitted) {
        for id in event_ids(&emitted.event) {
            if self.shared.lock().faults.mute.contains(&id) {
                continue;
            }
            for known in self.registered.iter().filter(|known| known.event == id) {
                let message = event_message(&emitted.event, id, known.callback);
                self.out.extend(message.unwrap_or_default());
            }
        }
    }

    fn tell_waiting(&mut self) {
        while let Some(emitted) = self.observer.try_next() {
            self.tell(&emitted);
        }
    }

    async fn flush(&mut self, stream: &mut UnixStream) -> io::Result<()> {
        let faults = self.faults();
        self.silent |= faults.silent;
        if self.silent {
            self.out.clear();
        }
        if !faults.gather.is_zero() && !self.out.is_empty() {
            tokio::time::sleep(faults.gather).await;
            self.tell_waiting();
        }
        let size = faults.piece.unwrap_or(self.out.len()).max(1);
        for piece in self.out.chunks(size) {
            stream.write_all(piece).await?;
            if faults.piece.is_some() {
                // Lets the client read.
                tokio::task::yield_now().await;
            }
        }
        self.out.clear();
        Ok(())
    }
}

/// Registrations.
impl Connection {
    pub(super) fn register(&mut self, event: i32) -> Result<i32, RemoteError> {
        self.check_event(event, self.faults().last_event)?;
        let callback = self.shared.change(|state| {
            state.next_callback += 1;
            state.next_callback - 1
        });
        self.registered.push(Registration { event, callback: Some(callback) });
        Ok(callback)
    }

    /// Without a callback id; such registrations stop at event 15.
    pub(super) fn register_legacy(&mut self, event: i32) -> Result<(), RemoteError> {
        self.check_event(event, self.faults().last_event.min(15))?;
        self.registered.push(Registration { event, callback: None });
        Ok(())
    }

    fn check_event(&self, event: i32, last: i32) -> Result<(), RemoteError> {
        if !(0..=last).contains(&event) {
            let message = format!("unsupported event ID {event}");
            return Err(remote_error(code::INTERNAL_ERROR, &message));
        }
        if self.registered.iter().any(|known| known.event == event) {
            return Err(remote_error(code::INVALID_ARG, "event callback already tracked"));
        }
        Ok(())
    }

    pub(super) fn deregister(
        &mut self,
        is_meant: impl Fn(&Registration) -> bool,
    ) -> Result<Vec<u8>, RemoteError> {
        let before = self.registered.len();
        self.registered.retain(|known| !is_meant(known));
        match self.registered.len() < before {
            true => Ok(Vec::new()),
            false => Err(remote_error(code::INTERNAL_ERROR, "domain event callback not found")),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.change(|state| state.connections.remove(&self.number));
    }
}
