//! Work on file systems, which may block for ever: a file system can hang.
//!
//! It runs on threads of its own, so that a directory that hangs delays no event of a QEMU that is
//! known.

use std::io;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// How many threads work at a time: hundreds of sockets take few of them.
static THREADS: Semaphore = Semaphore::const_new(8);

/// How long work waits for one of these threads before it gets a thread beyond them: all of them
/// may hang in one file system.
const THREAD_WAIT: Duration = Duration::from_millis(500);

/// Runs work that may block on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let _permit = tokio::time::timeout(THREAD_WAIT, THREADS.acquire()).await;
    spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, mpsc};

    use super::*;

    #[tokio::test]
    async fn work_that_hangs_delays_no_other() {
        let (release, hanging) = mpsc::channel::<()>();
        let hanging = Arc::new(Mutex::new(hanging));
        let stuck: Vec<_> = (0..20)
            .map(|_| {
                let hanging = Arc::clone(&hanging);
                tokio::spawn(blocking(move || {
                    // Ends when the sender is dropped.
                    let _ = hanging.lock().map(|hanging| hanging.recv());
                    Ok(())
                }))
            })
            .collect();
        let one = tokio::time::timeout(4 * THREAD_WAIT, blocking(|| Ok(1))).await;
        assert_eq!(one.unwrap().unwrap(), 1);
        drop(release);
        for task in stuck {
            task.await.unwrap().unwrap();
        }
    }
}
