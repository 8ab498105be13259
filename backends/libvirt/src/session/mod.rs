//! One connection: the only file with sockets.
//!
//! ```text
//!   connect ─▶ AUTH_LIST ─▶ [AUTH_POLKIT] ─▶ keepalive? ─▶ CONNECT_OPEN ─▶ callbacks? ─▶ GET_HOSTNAME
//! ```
//!
//! The handshake runs on the same loop as everything after it, so that a ping in its midst is
//! answered like any other.

mod advice;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::timeout_at;
use virevent::driver::{self, Batch, Connect, Interest};
use virevent::{Domain, Error};
use virevent_transport::{ConnectError, Endpoint, Socket, deadline_after};

use crate::client::{Client, malformed};
use crate::endpoint::{Surroundings, endpoint};
use crate::uri::LibvirtUri;
use crate::wire::xdr::{Reader, Writer};
use crate::wire::{Frames, Open, code, procs};

/// How to make connections to one daemon.
#[derive(Clone, Debug)]
pub(crate) struct Opener {
    pub(crate) uri: LibvirtUri,
    pub(crate) read_only: bool,
    /// How long connecting may take, the handshake included.
    pub(crate) timeout: Duration,
}

impl Connect for Opener {
    type Session = Session;

    fn uri(&self) -> &str {
        &self.uri.shown
    }

    async fn connect(&self) -> Result<Session, Error> {
        let endpoint = endpoint(&self.uri, self.read_only, &Surroundings::now())
            .map_err(|reason| Error::InvalidUri { uri: self.uri.shown.clone(), reason })?;
        // The driver has a deadline too, but does not know what the handshake waits for.
        let deadline = deadline_after(self.timeout);
        let late = |call| Error::Timeout { call, after: self.timeout };
        let socket = match Socket::connect(&endpoint, deadline).await {
            Ok(socket) => socket,
            Err(ConnectError::TimedOut) => return Err(late("the connection attempt")),
            Err(ConnectError::Io(error)) => {
                return Err(advice::unreachable(&self.uri, &endpoint, error));
            }
        };
        let mut session = Session::new(socket, endpoint);
        match timeout_at(deadline, session.handshake(&self.uri.name, self.read_only)).await {
            Ok(Ok(())) => Ok(session),
            Ok(Err(error)) => Err(session.located(error)),
            Err(_) => Err(late(advice::unanswered(session.client.calls.oldest()))),
        }
    }
}

pub(crate) struct Session {
    socket: Socket,
    endpoint: Endpoint,
    host: String,
    frames: Frames,
    client: Client,
    /// Whether the server answers pings.
    keepalive: bool,
    /// Whether the handshake is done.
    open: bool,
}

impl driver::Session for Session {
    fn host(&self) -> &str {
        &self.host
    }

    fn set_interest(&mut self, interest: &Interest, tag: u64) {
        self.client.set_interest(interest, tag);
    }

    fn request_list(&mut self, tag: u64) {
        self.client.request_list(tag);
    }

    fn request_state(&mut self, domain: &Domain, tag: u64) -> bool {
        self.client.request_state(domain, tag);
        true
    }

    fn ping(&mut self) -> bool {
        if self.keepalive {
            self.client.calls.keepalive(procs::PING);
        }
        self.keepalive
    }

    async fn advance(&mut self, out: &mut Batch) -> Result<(), Error> {
        // A change that needs no call is confirmed by nobody else.
        if self.client.settle(out) {
            return Ok(());
        }
        self.turn(out).await.map_err(|error| self.located(error))
    }
}

impl Session {
    pub(crate) fn new(socket: Socket, endpoint: Endpoint) -> Self {
        Self {
            socket,
            endpoint,
            host: String::new(),
            frames: Frames::new(),
            client: Client::new(),
            keepalive: false,
            open: false,
        }
    }

    /// Writes, reads once, and takes in what came.
    async fn turn(&mut self, out: &mut Batch) -> Result<(), Error> {
        poll_fn(|cx| self.poll_io(cx)).await?;
        while let Some(frame) = self
            .frames
            .next_frame()
            .map_err(|error| Error::Protocol { detail: error.to_string() })?
        {
            self.client.receive(&frame, out)?;
        }
        Ok(())
    }

    /// The error, with the place of a peer that does not speak libvirt's protocol.
    fn located(&self, error: Error) -> Error {
        match error {
            Error::Protocol { detail } => {
                let endpoint = &self.endpoint;
                let advice = format!("check that a libvirt daemon listens on {endpoint}");
                Error::Protocol { detail: format!("{detail}; {advice}") }
            }
            error => error,
        }
    }

    /// Writes what can be written, and reads once. Nothing is held across a pending poll but what is
    /// in `self`, so the future around it may be dropped.
    fn poll_io(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let outbox = self.client.calls.outbox();
        match ready!(self.socket.poll_io(cx, outbox, self.frames.spare())) {
            Ok(0) => Poll::Ready(Err(self.closed())),
            Ok(bytes) => {
                self.frames.filled(bytes);
                Poll::Ready(Ok(()))
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                Poll::Ready(Err(self.closed()))
            }
            Err(error) => Poll::Ready(Err(Error::Unreachable {
                endpoint: self.endpoint.to_string(),
                reason: "the connection broke".into(),
                source: Arc::new(error),
            })),
        }
    }

    fn closed(&self) -> Error {
        let detail = advice::closed(self.open).into();
        Error::Closed { endpoint: self.endpoint.to_string(), detail }
    }

    /// Calls, and waits for the reply.
    async fn call(
        &mut self,
        procedure: i32,
        args: impl FnOnce(&mut Writer<'_>),
    ) -> Result<Vec<u8>, Error> {
        self.client.ask(procedure, args);
        loop {
            if let Some(reply) = self.client.take_reply() {
                return reply;
            }
            // Nothing is registered yet: events of a peer that sends some all the same go with this
            // batch, before they fill our memory.
            self.turn(&mut Batch::new("", "")).await?;
        }
    }

    pub(crate) async fn handshake(&mut self, name: &str, read_only: bool) -> Result<(), Error> {
        self.authenticate().await?;
        self.keepalive = self.supports(procs::feature::KEEPALIVE).await?;
        let open = Open { name: Some(name.as_bytes()), flags: read_only.into() };
        self.call(procs::CONNECT_OPEN, |args| open.write(args)).await?;
        let callbacks = self.supports(procs::feature::EVENT_CALLBACK).await?;
        self.client.registrations.legacy = !callbacks;
        self.host = match self.call(procs::CONNECT_GET_HOSTNAME, |_| {}).await {
            Ok(reply) => {
                let name = Reader::new(&reply).string();
                let name = name.map_err(|error| malformed(&error, procs::CONNECT_GET_HOSTNAME))?;
                String::from_utf8_lossy(name).into_owned()
            }
            // The driver does not tell: the host is the one that we connected to.
            Err(Error::Server(_)) => match &self.endpoint {
                Endpoint::Tcp(host, _) => host.clone(),
                Endpoint::Unix(_) => "localhost".into(),
            },
            Err(error) => return Err(error),
        };
        self.open = true;
        Ok(())
    }

    async fn authenticate(&mut self) -> Result<(), Error> {
        let reply = self.call(procs::AUTH_LIST, |_| {}).await?;
        let ways = auth_ways(&reply).map_err(|error| malformed(&error, procs::AUTH_LIST))?;
        if ways.is_empty() || ways.contains(&procs::auth::NONE) {
            return Ok(());
        }
        if ways.contains(&procs::auth::POLKIT) {
            return match self.call(procs::AUTH_POLKIT, |_| {}).await {
                Err(Error::Server(refusal)) => Err(Error::Authentication {
                    detail: format!(
                        "polkit says no ({}): run as root or in the group libvirt, or allow \
                         org.libvirt.unix.monitor to this user",
                        refusal.message
                    ),
                }),
                outcome => outcome.map(drop),
            };
        }
        let what = if ways.contains(&procs::auth::SASL) { "SASL" } else { "an unknown one" };
        Err(Error::Authentication {
            detail: format!(
                "{what}, on {}, which this version does not have: connect to a unix socket, or set \
                 auth_unix_ro, auth_unix_rw or auth_tcp to \"none\" in the daemon's configuration",
                self.endpoint
            ),
        })
    }

    async fn supports(&mut self, feature: i32) -> Result<bool, Error> {
        match self.call(procs::CONNECT_SUPPORTS_FEATURE, |args| args.i32(feature)).await {
            Ok(reply) => {
                let supported = Reader::new(&reply).i32();
                supported
                    .map(|supported| supported != 0)
                    .map_err(|error| malformed(&error, procs::CONNECT_SUPPORTS_FEATURE))
            }
            // An old server that does not know the question.
            Err(Error::Server(error))
                if matches!(error.code, code::NO_SUPPORT | code::INTERNAL_ERROR) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

fn auth_ways(reply: &[u8]) -> Result<Vec<i32>, crate::wire::xdr::Malformed> {
    let mut body = Reader::new(reply);
    (0..body.count(20, 4)?).map(|_| body.i32()).collect()
}
