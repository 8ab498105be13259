//! Sessions with a server on a thread of its own, and attempts to connect.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::sleep;

use super::*;
use crate::observer::ATTENTION;
use crate::wire::{Header, Operation, Packet, packet, strings};

/// A listener whose backlog is full.
async fn full_backlog(dir: &Path) -> (tokio::net::UnixListener, Vec<UnixStream>) {
    let socket = tokio::net::UnixSocket::new_stream().unwrap();
    socket.bind(dir.join("socket")).unwrap();
    let listener = socket.listen(1).unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = UnixStream::connect(dir.join("socket")).await {
        waiting.push(stream);
        assert!(waiting.len() < 100);
    }
    (listener, waiting)
}

#[tokio::test(start_paused = true)]
async fn a_connect_succeeds_once_the_backlog_has_room() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, waiting) = full_backlog(dir.path()).await;
    let accept = async {
        sleep(Duration::from_secs(1)).await;
        for _ in 0..waiting.len() {
            listener.accept().await.unwrap();
        }
    };
    let path = dir.path().join("socket");
    let (stream, ()) = tokio::join!(connect(&path), accept);
    assert!(stream.is_ok(), "{stream:?}");
}

#[tokio::test(start_paused = true)]
async fn a_full_backlog_is_an_error_after_5_s() {
    let dir = tempfile::tempdir().unwrap();
    let (_listener, _waiting) = full_backlog(dir.path()).await;
    let path = dir.path().join("socket");
    let begun = Instant::now();
    let error = connect(&path).await.unwrap_err();
    assert!((5_000..5_100).contains(&begun.elapsed().as_millis()));
    let message = StorePath::given(&path).unreachable(error).to_line();
    assert!(message.contains("too many clients wait"), "{message}");
}

const DOMAINS: u16 = 500;

/// A server of [`DOMAINS`] domains that answers each request with a write of its own, as xenstored does.
#[derive(Clone, Default)]
struct Server {
    /// From now on each request is answered by a watch event, and by nothing else.
    is_mute: Arc<AtomicBool>,
}

impl Server {
    /// A session that is connected to this server.
    async fn session(&self, dir: &Path) -> Session {
        let path = dir.join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let server = self.clone();
        std::thread::spawn(move || server.serve(listener.accept().unwrap().0));
        let uri = StoreUri::parse(&format!("xenstore:{}", path.display())).unwrap();
        let timeout = Duration::from_secs(10);
        let connector = StoreConnector { uri, host: "h".into(), timeout, previous: Arc::default() };
        connector.connect().await.unwrap()
    }

    fn serve(&self, mut socket: std::os::unix::net::UnixStream) {
        let mut decoder = Decoder::new();
        while let Ok(bytes @ 1..) = socket.read(decoder.spare()) {
            decoder.filled(bytes);
            while let Some(request) = decoder.next_packet().unwrap() {
                let mut out = Vec::new();
                if self.is_mute.load(Ordering::Relaxed) {
                    let event: &[u8] = b"@releaseDomain\0R\0";
                    packet(&mut out, &Header::watch_event(), &[event]).unwrap();
                } else {
                    reply(&request, &mut out);
                }
                if socket.write_all(&out).is_err() {
                    return;
                }
            }
        }
    }
}

/// The reply to a request and, to a watch, the event that it fires.
fn reply(request: &Packet<'_>, out: &mut Vec<u8>) {
    let path = strings(request.payload).next().unwrap_or_default();
    let text = match request.header.operation {
        Operation::WATCH => "OK\0".into(),
        Operation::IS_DOMAIN_INTRODUCED => "T\0".into(),
        Operation::DIRECTORY => (1..=DOMAINS).map(|domid| format!("{domid}\0")).collect(),
        _ if path.ends_with(b"/vm") => {
            let domid = String::from_utf8_lossy(path).split('/').nth(3).unwrap().to_owned();
            format!("/vm/00000000-0000-4000-8000-{domid:0>12}")
        }
        _ if path.ends_with(b"/name") => "web".into(),
        _ => String::new(),
    };
    packet(out, &request.header, &[text.as_bytes()]).unwrap();
    if request.header.operation == Operation::WATCH {
        packet(out, &Header::watch_event(), &[request.payload]).unwrap();
    }
}

/// Reads until the list has been answered. Returns the number of reads.
async fn until_listed(session: &mut Session) -> u32 {
    let mut reads = 0;
    loop {
        let mut batch = Batch::new("xenstore:", "h");
        driver::Session::advance(session, &mut batch).await.unwrap();
        if format!("{batch:?}").contains("Listed") {
            return reads;
        }
        reads += 1;
    }
}

async fn synced(session: &mut Session) {
    driver::Session::set_interest(session, &[Kind::Lifecycle].into_iter().collect(), 1);
    driver::Session::request_list(session, 2);
    until_listed(session).await;
    // Until then the events that setting the watches has fired end the pauses.
    sleep(2 * ATTENTION).await;
}

#[tokio::test]
async fn a_verification_reads_at_most_once_an_interval() {
    let dir = tempfile::tempdir().unwrap();
    let mut session = Server::default().session(dir.path()).await;
    synced(&mut session).await;
    driver::Session::request_list(&mut session, 3);
    let begun = Instant::now();
    let reads = until_listed(&mut session).await;
    let most = begun.elapsed().as_millis() / READ_INTERVAL.as_millis() + 1;
    assert!(u128::from(reads) <= most, "{reads} reads in {most} intervals");
}

#[tokio::test]
async fn an_event_during_a_verification_ends_the_pauses() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::default();
    let mut session = server.session(dir.path()).await;
    synced(&mut session).await;
    server.is_mute.store(true, Ordering::Relaxed);
    driver::Session::request_list(&mut session, 3);
    let mut batch = Batch::new("xenstore:", "h");
    let begun = Instant::now();
    driver::Session::advance(&mut session, &mut batch).await.unwrap();
    assert!(is_detached(&session), "the event is read at the end of an interval");
    session.set_pace(begun).unwrap();
    assert!(!is_detached(&session), "the replies that belong to it are read at once");
}

#[tokio::test]
async fn a_silent_daemon_is_awaited_and_not_polled() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::default();
    let mut session = server.session(dir.path()).await;
    synced(&mut session).await;
    server.is_mute.store(true, Ordering::Relaxed);
    driver::Session::request_list(&mut session, 3);
    let mut batch = Batch::new("xenstore:", "h");
    // Reads the events, and then waits for what never comes.
    let read = async { while driver::Session::advance(&mut session, &mut batch).await.is_ok() {} };
    assert!(tokio::time::timeout(Duration::from_secs(1), read).await.is_err());
    assert!(!is_detached(&session));
}

fn is_detached(session: &Session) -> bool {
    matches!(&session.channel, StoreChannel::Socket(socket) if socket.is_detached())
}

#[tokio::test]
async fn a_datagram_socket_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let _other = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let error = connect(&path).await.unwrap_err();
    let message = StorePath::given(&path).unreachable(error).to_line();
    assert!(message.contains("a datagram socket"), "{message}");
}
