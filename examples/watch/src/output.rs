//! Standard output, on a thread of its own.
//!
//! A terminal or pipe that accepts nothing blocks that thread and, through the bounded channel, the
//! loop that prints, but never the driver: its mailbox compacts and delivers a gap.

use std::io;
use std::sync::Arc;
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::{Notify, mpsc, oneshot};

/// The number of chunks of lines that may wait for the thread.
const WAITING: usize = 4;

#[derive(Debug)]
pub(crate) struct Output {
    chunks: Option<mpsc::Sender<Vec<u8>>>,
    outcome: oneshot::Receiver<io::Result<()>>,
    closed: Arc<Notify>,
}

impl Output {
    /// An output that prints nothing.
    pub(crate) fn none() -> Self {
        Self { chunks: None, outcome: oneshot::channel().1, closed: Arc::default() }
    }

    pub(crate) fn start() -> Self {
        let (chunks, waiting) = mpsc::channel(WAITING);
        let (done, outcome) = oneshot::channel();
        thread::spawn(move || done.send(write(waiting)));
        let closed = Arc::new(Notify::new());
        let notify = Arc::clone(&closed);
        thread::spawn(move || wait_until_closed().then(|| notify.notify_one()));
        Self { chunks: Some(chunks), outcome, closed }
    }

    /// Queues some lines, and waits while the queue is full. Lines for a closed or broken output
    /// are dropped: see [`closed`](Self::closed) and [`finish`](Self::finish).
    ///
    /// # Cancel safety
    /// If the future is dropped while it waits, the lines are lost.
    pub(crate) async fn send(&self, lines: Vec<u8>) {
        if let Some(chunks) = self.chunks.as_ref().filter(|_| !lines.is_empty()) {
            let _ = chunks.send(lines).await;
        }
    }

    /// Resolves when the reader has closed the output, or a write has failed.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn closed(&self) {
        match &self.chunks {
            Some(chunks) => tokio::select! {
                () = chunks.closed() => {}
                () = self.closed.notified() => {}
            },
            None => std::future::pending().await,
        }
    }

    /// Waits until everything is written. False if its reader has closed the output before.
    ///
    /// # Errors
    /// A write failed.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn finish(&mut self) -> io::Result<bool> {
        self.chunks = None;
        match (&mut self.outcome).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Ok(Err(error)) => Err(error),
            _ => Ok(true),
        }
    }
}

fn write(mut waiting: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(lines) = waiting.blocking_recv() {
        write_all(&lines)?;
    }
    Ok(())
}

/// Writes to standard output, and waits while it accepts nothing: also if another process that
/// shares it has made it non-blocking.
pub(crate) fn write_all(mut bytes: &[u8]) -> io::Result<()> {
    let stdout = io::stdout();
    while !bytes.is_empty() {
        match rustix::io::write(&stdout, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                // The next write reports an error, if there is one.
                let _ = poll(&mut [PollFd::new(&stdout, PollFlags::OUT)], None);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Waits until the reader of a pipe has closed it: a write would notice that only at the next
/// event.
fn wait_until_closed() -> bool {
    let stdout = io::stdout();
    loop {
        let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
        match poll(&mut fds, None) {
            Ok(_) => return fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP),
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}
