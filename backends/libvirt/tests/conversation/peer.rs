//! A daemon whose replies and events a test writes.

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use virevent::driver::{Driver, Reconnect};
use virevent::{Error, EventSource, EventStream, Options, Uuid};
use virevent_libvirt::Libvirt;
use virevent_libvirt::wire::xdr::{Reader, Writer};
use virevent_libvirt::wire::{
    Domain, Frames, Header, Lifecycle, ListAllDomains, Register, RemoteError, StateStats, code,
    message, procs, program,
};

pub(crate) const WEB: Domain<'static> = Domain { name: b"web", uuid: Uuid::from_u128(1), id: 3 };
pub(crate) const DB: Domain<'static> = Domain { name: b"db", uuid: Uuid::from_u128(2), id: -1 };

/// Where a scripted daemon listens.
pub(crate) struct Daemon {
    dir: TempDir,
    listener: UnixListener,
}

impl Daemon {
    pub(crate) fn new() -> Self {
        let dir = TempDir::with_prefix("lv").unwrap();
        let listener = UnixListener::bind(dir.path().join("sock")).unwrap();
        Self { dir, listener }
    }

    pub(crate) fn libvirt(&self) -> Libvirt {
        let uri = format!("test+unix:///default?socket={}/sock&x=1", self.dir.path().display());
        Libvirt::new(&uri).unwrap().reconnect(Reconnect::local().seed(1))
    }

    /// The source, and the outcome of its first subscription.
    pub(crate) fn subscribe(
        &self,
        options: Options,
    ) -> (Driver, JoinHandle<Result<EventStream, Error>>) {
        let source = self.libvirt().source();
        let subscriber = source.clone();
        (source, tokio::spawn(async move { subscriber.subscribe_with(options).await }))
    }

    pub(crate) async fn accept(&self) -> Peer {
        let (stream, _) = self.listener.accept().await.unwrap();
        Peer {
            stream,
            frames: Frames::new(),
            asked: Vec::new(),
            registered: Vec::new(),
            event_callbacks: 1,
            bulk: true,
        }
    }
}

/// The daemon's end of a connection.
pub(crate) struct Peer {
    stream: UnixStream,
    frames: Frames,
    /// The procedures that the client has called.
    pub(crate) asked: Vec<i32>,
    /// The event ids for which the client has registered.
    pub(crate) registered: Vec<i32>,
    /// The reply to the question whether the server has callback ids.
    pub(crate) event_callbacks: i32,
    /// Whether it has GET_ALL_DOMAIN_STATS.
    pub(crate) bulk: bool,
}

/// A call: its header, and its arguments.
pub(crate) type Call = (Header, Vec<u8>);

impl Peer {
    pub(crate) async fn next(&mut self) -> Option<Call> {
        loop {
            if let Some(frame) = self.frames.next_frame().unwrap() {
                if frame.header.program == program::REMOTE {
                    self.asked.push(frame.header.procedure);
                }
                return Some((frame.header, frame.body.to_vec()));
            }
            match self.stream.read(self.frames.spare()).await {
                Ok(0) | Err(_) => return None,
                Ok(bytes) => self.frames.filled(bytes),
            }
        }
    }

    /// Answers calls up to the first of `procedure`, which it returns without an answer.
    pub(crate) async fn until(&mut self, procedure: i32) -> Call {
        loop {
            let call = self.next().await.expect("the client is connected");
            if call.0.procedure == procedure && call.0.program == program::REMOTE {
                return call;
            }
            self.answer(&call).await;
        }
    }

    /// Answers calls until the client closes the connection. Returns the procedures.
    pub(crate) async fn serve(mut self) -> Vec<i32> {
        while let Some(call) = self.next().await {
            self.answer(&call).await;
        }
        self.asked
    }

    pub(crate) async fn answer(&mut self, (header, args): &Call) {
        let mut args = Reader::new(args);
        if header.program == program::KEEPALIVE {
            return self.send(&Header::keepalive(procs::PONG), |_| {}).await;
        }
        let reply = Header::reply(header.procedure, header.serial);
        match header.procedure {
            procs::AUTH_LIST => self.ints(&reply, &[1, procs::auth::NONE]).await,
            procs::CONNECT_SUPPORTS_FEATURE => {
                let feature = args.i32().unwrap();
                let has = if feature == 14 { self.event_callbacks } else { 1 };
                self.ints(&reply, &[has]).await;
            }
            procs::CONNECT_GET_HOSTNAME => self.send(&reply, |body| body.string("box")).await,
            procs::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY => {
                let event = Register::read(&mut args).unwrap().event;
                self.registered.push(event);
                self.ints(&reply, &[event + 100]).await;
            }
            procs::CONNECT_GET_ALL_DOMAIN_STATS if self.bulk => {
                let web = StateStats { domain: WEB, state: Some(1), reason: Some(1) };
                let db = StateStats { domain: DB, state: None, reason: None };
                self.send(&reply, |body| StateStats::write_all(&[web, db], body)).await;
            }
            procs::CONNECT_GET_ALL_DOMAIN_STATS => self.error(header, code::NO_SUPPORT).await,
            procs::CONNECT_LIST_ALL_DOMAINS => {
                let list = ListAllDomains::read(&mut args).unwrap();
                // Both are persistent.
                let is_asked = matches!(list.flags, 0 | ListAllDomains::PERSISTENT);
                let domains: &[_] = if is_asked { &[WEB, DB] } else { &[] };
                self.send(&reply, |body| Domain::write_all(domains, body)).await;
            }
            _ => self.send(&reply, |_| {}).await,
        }
    }

    pub(crate) async fn send(&mut self, header: &Header, body: impl FnOnce(&mut Writer<'_>)) {
        let mut bytes = Vec::new();
        message(&mut bytes, header, body);
        self.raw(&bytes).await;
    }

    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn ints(&mut self, header: &Header, values: &[i32]) {
        self.send(header, |body| values.iter().for_each(|value| body.i32(*value))).await;
    }

    pub(crate) async fn error(&mut self, call: &Header, code: i32) {
        let message = "no".to_owned();
        let error = RemoteError { code, domain: 7, message, format: String::new(), int1: -1 };
        self.send(&Header::error(call.procedure, call.serial), |body| error.write(body)).await;
    }

    pub(crate) async fn lifecycle(&mut self, event: i32, detail: i32) {
        self.lifecycle_of(WEB, event, detail).await;
    }

    pub(crate) async fn lifecycle_of(&mut self, domain: Domain<'_>, event: i32, detail: i32) {
        let event = Lifecycle { domain, event, detail };
        let write = |body: &mut Writer<'_>| {
            body.i32(100);
            event.write(body);
        };
        self.send(&Header::event(procs::EVENT_LIFECYCLE), write).await;
    }
}
