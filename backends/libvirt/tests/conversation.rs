//! The real source against a scripted daemon on a unix socket: what a real one won't do on demand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use futures::StreamExt;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use virevent::driver::{Driver, Reconnect};
use virevent::{Error, EventSource, EventStream, Kind, Options, Uuid};
use virevent_libvirt::Libvirt;
use virevent_libvirt::wire::xdr::{Reader, Writer};
use virevent_libvirt::wire::{
    Domain, Frames, Header, Lifecycle, ListAllDomains, MAX_LENGTH, Open, Register, RemoteError,
    StateStats, code, message, procs, program,
};

const WEB: Domain<'static> = Domain { name: b"web", uuid: Uuid::from_u128(1), id: 3 };
const DB: Domain<'static> = Domain { name: b"db", uuid: Uuid::from_u128(2), id: -1 };

/// Where a scripted daemon listens.
struct Daemon {
    dir: TempDir,
    listener: UnixListener,
}

impl Daemon {
    fn new() -> Self {
        let dir = TempDir::with_prefix("lv").unwrap();
        let listener = UnixListener::bind(dir.path().join("sock")).unwrap();
        Self { dir, listener }
    }

    fn libvirt(&self) -> Libvirt {
        let uri = format!("test+unix:///default?socket={}/sock&x=1", self.dir.path().display());
        Libvirt::new(&uri).unwrap().reconnect(Reconnect::local().seed(1))
    }

    /// The source, and the outcome of its first subscription.
    fn subscribe(&self, options: Options) -> (Driver, JoinHandle<Result<EventStream, Error>>) {
        let source = self.libvirt().source();
        let subscriber = source.clone();
        (source, tokio::spawn(async move { subscriber.subscribe_with(options).await }))
    }

    async fn accept(&self) -> Peer {
        let (stream, _) = self.listener.accept().await.unwrap();
        Peer { stream, frames: Frames::new(), asked: Vec::new(), event_callbacks: 1, bulk: true }
    }
}

/// The daemon's end of a connection.
struct Peer {
    stream: UnixStream,
    frames: Frames,
    /// The procedures called so far.
    asked: Vec<i32>,
    /// Its answer to the question whether it has callback ids.
    event_callbacks: i32,
    /// Whether it has the bulk list.
    bulk: bool,
}

/// A call: its header, and its arguments.
type Call = (Header, Vec<u8>);

impl Peer {
    async fn next(&mut self) -> Option<Call> {
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

    /// Answers calls until one of `procedure` comes.
    async fn until(&mut self, procedure: i32) -> Call {
        loop {
            let call = self.next().await.expect("the client goes on");
            if call.0.procedure == procedure && call.0.program == program::REMOTE {
                return call;
            }
            self.answer(&call).await;
        }
    }

    /// Answers calls until the client has gone, or for good.
    async fn serve(mut self) -> Vec<i32> {
        while let Some(call) = self.next().await {
            self.answer(&call).await;
        }
        self.asked
    }

    async fn answer(&mut self, (header, args): &Call) {
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
                let domains: &[_] = if list.flags == 0 { &[WEB, DB] } else { &[] };
                self.send(&reply, |body| Domain::write_all(domains, body)).await;
            }
            _ => self.send(&reply, |_| {}).await,
        }
    }

    async fn send(&mut self, header: &Header, body: impl FnOnce(&mut Writer<'_>)) {
        let mut bytes = Vec::new();
        message(&mut bytes, header, body);
        self.raw(&bytes).await;
    }

    async fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn ints(&mut self, header: &Header, values: &[i32]) {
        self.send(header, |body| values.iter().for_each(|value| body.i32(*value))).await;
    }

    async fn error(&mut self, call: &Header, code: i32) {
        let (message, format) = ("no".to_owned(), String::new());
        let error = RemoteError { code, domain: 7, message, format, int1: -1 };
        self.send(&Header::error(call.procedure, call.serial), |body| error.write(body)).await;
    }

    async fn lifecycle(&mut self, event: i32, detail: i32) {
        let event = Lifecycle { domain: WEB, event, detail };
        let write = |body: &mut Writer<'_>| {
            body.i32(100);
            event.write(body);
        };
        self.send(&Header::event(procs::EVENT_LIFECYCLE), write).await;
    }
}

async fn take(events: &mut EventStream, n: usize) -> Vec<String> {
    let told: Vec<_> = events.take(n).map(|event| event.to_string()).collect().await;
    told.into_iter().map(|line| line.split(" with ").next().unwrap().to_owned()).collect()
}

fn first() -> [String; 3] {
    ["db existing (no_state)", "web[3] existing (running (booted))", "synced"].map(Into::into)
}

#[tokio::test(start_paused = true)]
async fn the_handshake_opens_read_only_what_the_uri_names() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    let (header, args) = peer.until(procs::CONNECT_OPEN).await;
    let open = Open::read(&mut Reader::new(&args)).unwrap();
    assert_eq!(open, Open { name: Some(b"test:///default?x=1"), flags: 1 });
    peer.answer(&(header, args)).await;
    peer.until(procs::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY).await;
    assert_eq!(peer.asked, [66, 60, 1, 60, 59, 316]);
    subscribed.abort();
}

#[tokio::test(start_paused = true)]
async fn pings_are_answered_in_the_midst_of_the_handshake() {
    let daemon = Daemon::new();
    let (_source, _subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    peer.until(procs::CONNECT_OPEN).await;
    peer.send(&Header::keepalive(procs::PING), |_| {}).await;
    assert_eq!(peer.next().await.unwrap().0, Header::keepalive(procs::PONG));
}

#[tokio::test(start_paused = true)]
async fn replies_are_matched_by_serial_in_any_order_and_among_events() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    let register = procs::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY;
    let (lifecycle, reboot) = (peer.until(register).await, peer.until(register).await);
    peer.ints(&Header::reply(register, 4711), &[7]).await;
    peer.answer(&reboot).await;
    // Before the reply to its registration.
    peer.lifecycle(3, 0).await;
    peer.answer(&lifecycle).await;
    peer.answer(&reboot).await;
    let stats = peer.until(procs::CONNECT_GET_ALL_DOMAIN_STATS).await;
    peer.lifecycle(4, 0).await;
    peer.answer(&stats).await;
    tokio::spawn(peer.serve());
    let mut events = subscribed.await.unwrap().unwrap();
    assert_eq!(take(&mut events, 3).await, first());
}

#[tokio::test(start_paused = true)]
async fn a_reply_of_another_procedure_than_its_call_is_a_broken_protocol() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    let (header, _) = peer.until(procs::CONNECT_OPEN).await;
    peer.ints(&Header::reply(procs::AUTH_LIST, header.serial), &[1, 0]).await;
    let error = subscribed.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_server_without_the_bulk_list_is_asked_for_each_domain() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    peer.bulk = false;
    for (state, reason) in [(3, 1), (5, 2)] {
        let (header, _) = peer.until(procs::DOMAIN_GET_STATE).await;
        peer.ints(&Header::reply(header.procedure, header.serial), &[state, reason]).await;
    }
    tokio::spawn(peer.serve());
    let mut events = subscribed.await.unwrap().unwrap();
    let told = take(&mut events, 3).await;
    assert_eq!(
        told,
        ["db existing (shutoff (destroyed))", "web[3] existing (paused (user))", "synced"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_vanishes_while_it_is_asked_about_is_not_listed() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    peer.bulk = false;
    let (web, _) = peer.until(procs::DOMAIN_GET_STATE).await;
    let (db, _) = peer.until(procs::DOMAIN_GET_STATE).await;
    peer.error(&db, code::NO_DOMAIN).await;
    // It stopped after it was listed as running.
    peer.ints(&Header::reply(web.procedure, web.serial), &[5, 1]).await;
    tokio::spawn(peer.serve());
    let mut events = subscribed.await.unwrap().unwrap();
    assert_eq!(take(&mut events, 2).await, ["web existing (shutoff (shutdown))", "synced"]);
}

#[tokio::test(start_paused = true)]
async fn a_transient_domain_is_forgotten_when_it_stops() {
    let daemon = Daemon::new();
    let (source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    let (header, args) = peer.until(procs::CONNECT_LIST_ALL_DOMAINS).await;
    let list = ListAllDomains { need_results: true, flags: ListAllDomains::TRANSIENT };
    assert_eq!(ListAllDomains::read(&mut Reader::new(&args)), Ok(list));
    let reply = Header::reply(header.procedure, header.serial);
    peer.send(&reply, |body| Domain::write_all(&[WEB], body)).await;
    let mut events = subscribed.await.unwrap().unwrap();
    take(&mut events, 3).await;
    peer.lifecycle(5, 0).await;
    take(&mut events, 1).await;
    let mut later = source.subscribe_with(Options::default()).await.unwrap();
    assert_eq!(take(&mut later, 2).await, ["db existing (no_state)", "synced"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_before_callback_ids_is_registered_with_in_the_old_way() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    peer.event_callbacks = 0;
    let last = peer.until(procs::CONNECT_LIST_ALL_DOMAINS).await;
    assert_eq!(peer.asked[5..7], [167, 167]);
    peer.answer(&last).await;
    let mut events = subscribed.await.unwrap().unwrap();
    assert_eq!(take(&mut events, 3).await, first());
    let event = Lifecycle { domain: WEB, event: 5, detail: 1 };
    peer.send(&Header::event(procs::LEGACY_LIFECYCLE), |body| event.write(body)).await;
    assert_eq!(take(&mut events, 1).await, ["web[3] stopped (destroyed)"]);
}

#[tokio::test(start_paused = true)]
async fn the_last_subscriber_is_deregistered_before_its_close_returns() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default().kind(Kind::Lifecycle));
    let mut peer = daemon.accept().await;
    let last = peer.until(procs::CONNECT_LIST_ALL_DOMAINS).await;
    peer.answer(&last).await;
    let closing = tokio::spawn(subscribed.await.unwrap().unwrap().close());
    let last = peer.until(procs::CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY).await;
    assert_eq!(Reader::new(&last.1).i32(), Ok(100));
    assert!(!closing.is_finished());
    peer.answer(&last).await;
    closing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn authentication_that_this_version_lacks_is_refused_by_name() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    let (header, _) = peer.until(procs::AUTH_LIST).await;
    peer.ints(&Header::reply(header.procedure, header.serial), &[1, procs::auth::SASL]).await;
    let error = subscribed.await.unwrap().unwrap_err();
    assert!(error.is_refusal() && error.to_string().contains("SASL"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn polkit_is_asked_and_its_no_is_a_refusal() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    let (header, _) = peer.until(procs::AUTH_LIST).await;
    peer.ints(&Header::reply(header.procedure, header.serial), &[1, procs::auth::POLKIT]).await;
    let (header, _) = peer.until(procs::AUTH_POLKIT).await;
    peer.error(&header, code::INTERNAL_ERROR).await;
    let error = subscribed.await.unwrap().unwrap_err();
    assert!(error.is_refusal() && error.to_string().contains("polkit"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_closes_before_the_handshake_is_one_clear_error() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    drop(daemon.accept().await);
    let error = subscribed.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("max_clients"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_refuses_to_open_is_an_error_with_its_message() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    let (header, _) = peer.until(procs::CONNECT_OPEN).await;
    peer.error(&header, code::NO_CONNECT).await;
    let error = subscribed.await.unwrap().unwrap_err();
    assert!(error.is_refusal() && error.to_string().contains("CONNECT_OPEN failed: no (code 5"));
}

#[tokio::test(start_paused = true)]
async fn a_half_open_peer_is_noticed_within_30_seconds() {
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    let last = peer.until(procs::CONNECT_LIST_ALL_DOMAINS).await;
    peer.answer(&last).await;
    let mut events = subscribed.await.unwrap().unwrap();
    take(&mut events, 3).await;
    let since = tokio::time::Instant::now();
    let gap = events.next().await.unwrap().to_string();
    assert!(gap.contains("keepalive"), "{gap}");
    assert!(since.elapsed() <= Duration::from_secs(31), "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_broken_stream_is_a_gap_and_then_a_new_connection() {
    let garbage: [(&str, Vec<u8>); 4] = [
        ("length", vec![0; 28]),
        ("length", (MAX_LENGTH as u32 + 1).to_be_bytes().to_vec()),
        ("program", {
            let mut bytes = Vec::new();
            message(&mut bytes, &Header { program: 7, ..Header::event(1) }, |_| {});
            bytes
        }),
        ("procedure 318", {
            let mut bytes = Vec::new();
            message(&mut bytes, &Header::event(procs::EVENT_LIFECYCLE), |body| body.i32(1));
            bytes
        }),
    ];
    let daemon = Daemon::new();
    let (_source, subscribed) = daemon.subscribe(Options::default());
    let mut peer = daemon.accept().await;
    let last = peer.until(procs::CONNECT_LIST_ALL_DOMAINS).await;
    peer.answer(&last).await;
    let mut events = subscribed.await.unwrap().unwrap();
    take(&mut events, 3).await;
    for (what, bytes) in garbage {
        peer.raw(&bytes).await;
        let gap = take(&mut events, 1).await;
        assert!(gap[0].contains(what), "{gap:?}");
        peer = daemon.accept().await;
        let last = peer.until(procs::CONNECT_LIST_ALL_DOMAINS).await;
        peer.answer(&last).await;
        assert_eq!(take(&mut events, 1).await, ["synced"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_daemon_on_tcp_is_spoken_to_like_any_other() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("test+tcp://{}/default", listener.local_addr().unwrap());
    let source = Libvirt::new(&uri).unwrap().source();
    let subscribed = tokio::spawn(async move { source.subscribe_with(Options::default()).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut call = [0; 28];
    stream.read_exact(&mut call).await.unwrap();
    assert_eq!(call[12..16], procs::AUTH_LIST.to_be_bytes());
    drop(stream);
    assert!(matches!(subscribed.await.unwrap(), Err(Error::Closed { .. })));
}
