//! One connection: the only module with I/O.
//!
//! ```text
//!   connect ─▶ AUTH_LIST ─▶ [polkit or SASL: auth] ─▶ keepalive? ─▶ CONNECT_OPEN ─▶ callbacks? ─▶ GET_HOSTNAME
//! ```
//!
//! The handshake uses the same loop as everything after it, so that pings during the handshake are
//! answered.

mod advice;
mod auth;
#[cfg(feature = "tls")]
mod tls;

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use virevent::driver::{self, Batch, Connect, Interest};
use virevent::{Domain, Error, Kinds};
use virevent_transport::{ConnectError, Endpoint, Socket, deadline_after};

use crate::client::{Client, malformed};
use crate::config::ClientConfig;
use crate::endpoint::{Environment, endpoint};
use crate::uri::LibvirtUri;
#[cfg(feature = "tls")]
use crate::uri::Transport;
use crate::wire::xdr::{Reader, Writer};
use crate::wire::{Frames, Open, code, procs};

/// Makes connections to one daemon.
#[derive(Clone, Debug)]
pub(crate) struct Opener {
    pub(crate) uri: LibvirtUri,
    pub(crate) read_only: bool,
    /// How long connecting may take, the handshake included.
    pub(crate) timeout: Duration,
    /// Gives credentials for SASL.
    #[cfg(feature = "sasl")]
    pub(crate) credentials: Option<crate::auth::Callback>,
}

impl Connect for Opener {
    type Session = Session;

    fn uri(&self) -> &str {
        &self.uri.shown
    }

    fn kinds(&self) -> Kinds {
        Kinds::all()
    }

    async fn connect(&self) -> Result<Session, Error> {
        let endpoint = self.endpoint(&Environment::now())?;
        // The driver has a deadline as well, but its error cannot name the call without a reply.
        let deadline = deadline_after(self.timeout);
        let socket = self.socket(&endpoint, deadline).await?;
        let mut session = Session::new(socket, endpoint, self.uri.clone());
        match timeout_at(deadline, session.handshake(self)).await {
            Ok(Ok(())) => Ok(session),
            Ok(Err(error)) => Err(session.with_endpoint(error)),
            Err(_) if session.awaits_credentials => {
                Err(advice::no_credentials(&session.endpoint, self.timeout))
            }
            Err(_) => match session.socket.program_wrote() {
                Some(line) => {
                    let label = session.endpoint.to_string();
                    Err(advice::program::silent(&self.uri, &label, self.timeout, &line))
                }
                None => {
                    Err(self.timed_out(advice::unanswered(session.client.calls.oldest_procedure())))
                }
            },
        }
    }
}

impl Opener {
    /// Where to connect. Reads libvirt.conf each time: what is changed there holds at once.
    fn endpoint(&self, environment: &Environment) -> Result<Endpoint, Error> {
        ClientConfig::load(environment.config_file.as_deref())
            .and_then(|config| endpoint(&self.uri, self.read_only, environment, config.mode()?))
            .map_err(|reason| Error::invalid_uri(&*self.uri.shown, reason))
    }

    /// Connects, and for TLS does its handshake.
    async fn socket(&self, endpoint: &Endpoint, deadline: Instant) -> Result<Socket, Error> {
        #[cfg(feature = "tls")]
        if let Transport::Tls { host, port, params } = &self.uri.transport {
            return self.tls_socket(endpoint, (host, *port), params, deadline).await;
        }
        Socket::connect(endpoint, deadline).await.map_err(|error| self.unconnected(endpoint, error))
    }

    fn unconnected(&self, endpoint: &Endpoint, error: ConnectError) -> Error {
        match error {
            ConnectError::TimedOut => self.timed_out("the connection attempt"),
            ConnectError::Io(error) => advice::unreachable(&self.uri, endpoint, error),
        }
    }

    fn timed_out(&self, call: &'static str) -> Error {
        Error::timeout(call, self.timeout)
    }
}

/// A connection whose handshake is done, or under way.
pub(crate) struct Session {
    socket: Socket,
    endpoint: Endpoint,
    uri: LibvirtUri,
    host: String,
    frames: Frames,
    client: Client,
    /// Whether the server answers pings.
    has_keepalive: bool,
    /// Whether the handshake is done.
    is_open: bool,
    /// Whether the handshake waits for the callback that gives credentials.
    awaits_credentials: bool,
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
        if self.has_keepalive {
            self.client.calls.keepalive(procs::PING);
        }
        self.has_keepalive
    }

    async fn advance(&mut self, out: &mut Batch) -> Result<(), Error> {
        // A change that needs no call gets no reply that would report it.
        if self.client.report_interest(out) {
            return Ok(());
        }
        self.exchange(out).await.map_err(|error| self.with_endpoint(error))
    }
}

impl Session {
    pub(crate) fn new(socket: Socket, endpoint: Endpoint, uri: LibvirtUri) -> Self {
        Self {
            socket,
            endpoint,
            uri,
            host: String::new(),
            frames: Frames::new(),
            client: Client::new(),
            has_keepalive: false,
            is_open: false,
            awaits_credentials: false,
        }
    }

    /// Writes what waits to be written, reads once, and handles the frames that are complete.
    async fn exchange(&mut self, out: &mut Batch) -> Result<(), Error> {
        if let Err(error) = poll_fn(|cx| self.poll_io(cx)).await {
            // The next attempt to read fails as well, so that this may be dropped midway.
            return Err(match self.socket.program_ended().await {
                Some(ended) => {
                    let label = self.endpoint.to_string();
                    advice::program::ended(&self.uri, &label, &ended, self.is_open)
                }
                None => error,
            });
        }
        while let Some(frame) =
            self.frames.next_frame().map_err(|error| Error::protocol(error.to_string()))?
        {
            self.client.receive(&frame, out)?;
        }
        Ok(())
    }

    /// The error; one about the protocol with the endpoint and what to check there.
    fn with_endpoint(&self, error: Error) -> Error {
        match error {
            Error::Protocol { detail, .. } => {
                let advice = advice::foreign(&self.endpoint);
                Error::protocol(format!("{detail}; {advice}"))
            }
            error => error,
        }
    }

    /// Writes what can be written, and reads once. All state is in `self`, so a future around it
    /// may be dropped.
    fn poll_io(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let outbox = self.client.calls.outbox();
        let Poll::Ready(outcome) = self.socket.poll_io(cx, outbox, self.frames.spare()) else {
            // A fleet has thousands of connections that wait for their next event.
            self.frames.rest();
            return Poll::Pending;
        };
        match outcome {
            Ok(0) => Poll::Ready(Err(self.closed())),
            Ok(bytes) => {
                self.frames.filled(bytes);
                Poll::Ready(Ok(()))
            }
            // A daemon that is killed with unread calls in its socket resets the connection.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                Poll::Ready(Err(self.closed()))
            }
            Err(error) => Poll::Ready(Err(Error::unreachable(
                self.endpoint.to_string(),
                "the connection broke",
                error,
            ))),
        }
    }

    fn closed(&self) -> Error {
        let detail = advice::closed(self.is_open);
        Error::closed(self.endpoint.to_string(), detail)
    }

    /// Makes a call of the handshake and waits for the reply.
    async fn call(
        &mut self,
        procedure: i32,
        args: impl FnOnce(&mut Writer<'_>),
    ) -> Result<Vec<u8>, Error> {
        self.client.call_handshake(procedure, args);
        self.handshake_reply().await
    }

    async fn handshake_reply(&mut self) -> Result<Vec<u8>, Error> {
        loop {
            if let Some(reply) = self.client.take_handshake_reply() {
                return reply;
            }
            // Nothing is registered yet. A peer that sends events all the same must not fill our
            // memory, so they are dropped with this batch.
            self.exchange(&mut Batch::new("", "")).await?;
        }
    }

    async fn handshake(&mut self, opener: &Opener) -> Result<(), Error> {
        self.authenticate(opener).await?;
        // The only feature that a server answers before CONNECT_OPEN: any other is an error there.
        // The question also makes the server send pings, which are answered from here on.
        self.has_keepalive = self.supports(procs::feature::KEEPALIVE).await?;
        let name = opener.uri.name.as_bytes();
        let open = Open { name: Some(name), flags: opener.read_only.into() };
        self.call(procs::CONNECT_OPEN, |args| open.write(args)).await?;
        let callbacks = self.supports(procs::feature::EVENT_CALLBACK).await?;
        // Before the first registration, which depends on it.
        self.client.registrations.legacy = !callbacks;
        self.host = match self.call(procs::CONNECT_GET_HOSTNAME, |_| {}).await {
            Ok(reply) => {
                let name = Reader::new(&reply).string();
                let name = name.map_err(|error| malformed(&error, procs::CONNECT_GET_HOSTNAME))?;
                String::from_utf8_lossy(name).into_owned()
            }
            // The hypervisor's driver has no such call: the host is the one that we connected to.
            Err(Error::Server(_)) => self.uri.host().into(),
            Err(error) => return Err(error),
        };
        self.is_open = true;
        Ok(())
    }

    async fn supports(&mut self, feature: i32) -> Result<bool, Error> {
        match self.call(procs::CONNECT_SUPPORTS_FEATURE, |args| args.i32(feature)).await {
            Ok(reply) => {
                let supported = Reader::new(&reply).i32();
                supported
                    .map(|supported| supported != 0)
                    .map_err(|error| malformed(&error, procs::CONNECT_SUPPORTS_FEATURE))
            }
            // A server that is older than the call.
            Err(Error::Server(error))
                if matches!(error.code, code::NO_SUPPORT | code::INTERNAL_ERROR) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
