//! Following paths, which may take for ever: a file system can hang.
//!
//! It is done on threads of their own, so that a directory that hangs holds up no event of a QEMU that is
//! known.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::peer::pinned_socket::{self, FileId, PinnedSocket};

/// Connects to a socket; if that is to be a certain file, to no other that took its place meanwhile.
pub(crate) async fn connect(
    path: &Path,
    file: Option<FileId>,
    way: Option<Arc<PinnedSocket>>,
) -> io::Result<(UnixStream, Option<Arc<PinnedSocket>>)> {
    let owned = path.to_owned();
    // A path may lead into a file system that hangs, and then the thread that follows it does too. Only
    // one that has been followed is followed here.
    let Some(file) = file else {
        blocking(move || pinned_socket::check_socket(&owned)).await?;
        return Ok((UnixStream::connect(path).await?, None));
    };
    let way = match way {
        Some(way) => way,
        None => Arc::new(blocking(move || PinnedSocket::open(&owned, file)).await?),
    };
    let stream = UnixStream::connect(way.path()).await;
    if !way.is_lasting() {
        let owned = path.to_owned();
        blocking(move || file.check(&owned)).await?;
    }
    Ok((stream?, Some(way)))
}

/// How many threads follow paths at a time, and how long the next one waits for its turn: hundreds of
/// sockets take few threads, and a file system that hangs keeps nobody else.
static THREADS: Semaphore = Semaphore::const_new(8);
const TURN: Duration = Duration::from_millis(500);

/// Does what may block on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let _turn = tokio::time::timeout(TURN, THREADS.acquire()).await;
    spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn paths_that_hang_keep_nobody_from_another() {
        let (let_go, hanging) = std::sync::mpsc::channel::<()>();
        let hanging = Arc::new(std::sync::Mutex::new(hanging));
        let stuck: Vec<_> = (0..20)
            .map(|_| {
                let hanging = Arc::clone(&hanging);
                tokio::spawn(blocking(move || {
                    // Ends when nobody holds the other side any more.
                    let _ = hanging.lock().map(|hanging| hanging.recv());
                    Ok(())
                }))
            })
            .collect();
        let one = tokio::time::timeout(4 * TURN, blocking(|| Ok(1))).await;
        assert_eq!(one.unwrap().unwrap(), 1);
        drop(let_go);
        for task in stuck {
            task.await.unwrap().unwrap();
        }
    }
}
