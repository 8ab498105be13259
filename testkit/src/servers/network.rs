//! The network path to a port, which can be cut and can stall.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::LaunchError;

/// A proxy before a port of the loopback address. Dropping it cuts the connections.
#[derive(Debug)]
pub struct NetworkPath {
    port: u16,
    state: watch::Sender<State>,
    open: Arc<AtomicUsize>,
    accepting: AbortHandle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Flowing,
    /// Connections stay, and nothing passes: neither bytes nor the end of a connection.
    Stalled,
    /// Connections are closed, and new ones at once.
    Down,
}

impl NetworkPath {
    /// Listens on a port of its own, and passes each connection on to `port`.
    ///
    /// # Errors
    /// There is no port.
    ///
    /// # Cancel safety
    /// Dropped midway it leaves nothing behind.
    pub async fn to(port: u16) -> Result<Self, LaunchError> {
        let listener =
            TcpListener::bind(("127.0.0.1", 0)).await.map_err(LaunchError::io("listen"))?;
        let own = listener.local_addr().map_err(LaunchError::io("listen"))?.port();
        let (state, states) = watch::channel(State::Flowing);
        let open = Arc::<AtomicUsize>::default();
        let accept = accept(listener, port, states, Arc::clone(&open));
        let accepting = tokio::spawn(accept).abort_handle();
        Ok(Self { port: own, state, open, accepting })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets nothing pass from now on, as a router that drops packets: connections stay open.
    pub fn stall(&self) {
        self.state.send_replace(State::Stalled);
    }

    /// Closes the connections, and new ones as soon as they are made.
    pub fn go_down(&self) {
        self.state.send_replace(State::Down);
    }

    /// Lets everything pass again.
    pub fn come_back(&self) {
        self.state.send_replace(State::Flowing);
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for NetworkPath {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    port: u16,
    states: watch::Receiver<State>,
    open: Arc<AtomicUsize>,
) {
    // Dropped with this task, and its tasks with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { return };
                let counted = Counted::new(&open);
                let states = states.clone();
                connections.spawn(async move {
                    let _counted = counted;
                    relay(client, port, states).await
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, counted while it lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn relay(
    mut client: TcpStream,
    port: u16,
    mut states: watch::Receiver<State>,
) -> io::Result<()> {
    let mut down = states.clone();
    let down = down.wait_for(|state| *state == State::Down);
    let passing = async {
        until_flowing(&mut states).await;
        let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        // When either side closes, the other side's connection is closed too.
        tokio::select! {
            end = copy(from_client, to_server, states.clone()) => end,
            end = copy(from_server, to_client, states.clone()) => end,
        }
    };
    tokio::select! {
        end = passing => end,
        _ = down => Ok(()),
    }
}

async fn until_flowing(states: &mut watch::Receiver<State>) {
    // An error: the path is dropped, and this task with it.
    let _ = states.wait_for(|state| *state == State::Flowing).await;
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut states: watch::Receiver<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; 65_536];
    loop {
        let count = from.read(&mut buffer).await?;
        until_flowing(&mut states).await;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..count]).await?;
    }
}
