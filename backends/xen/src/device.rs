//! The kernel's device to the store: a character device that carries the same packets as the socket.
//!
//! The differences from a socket are those of Linux' driver, `drivers/xen/xenbus/xenbus_dev_frontend.c`, as read:
//! **it was never tried on Xen.**
//!
//! - One write is at most one packet, and returns once the store has answered: so it is done on a thread that may
//!   block.
//! - A request that is refused fails the write. Reads return what is there, part of a packet or several, and can
//!   be awaited.
//! - The kernel makes the replies to watches. Old kernels number them 0: see
//!   [`Pipeline::new`](crate::pipeline::Pipeline::new).

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

#[derive(Debug)]
pub(crate) struct XenbusDevice {
    file: AsyncFd<Arc<File>>,
    /// The write under way.
    writing: Option<JoinHandle<io::Result<usize>>>,
}

impl XenbusDevice {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        use rustix::fs::OFlags;
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
        Self::new(file.into())
    }

    /// The file must not block when it is read.
    fn new(file: OwnedFd) -> io::Result<Self> {
        // `register`, which replaces it, is newer than the oldest tokio that this crate builds with. The file
        // belongs to this value alone and is never exchanged.
        #[allow(deprecated)]
        let file = AsyncFd::new(Arc::new(File::from(file)));
        // The file cannot be awaited: it is another device.
        let file = file.map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(Self { file, writing: None })
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.file.poll_read_ready(cx))?;
            let read =
                guard.try_io(|file| file.get_ref().as_ref().read(into.initialize_unfilled()));
            // Otherwise the file was not ready, and the readiness is cleared.
            if let Ok(outcome) = read {
                into.advance(outcome?);
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Writes one packet.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        packet: &[u8],
    ) -> Poll<io::Result<usize>> {
        let writing = self.writing.get_or_insert_with(|| {
            let file = Arc::clone(self.file.get_ref());
            let packet = packet.to_vec();
            tokio::task::spawn_blocking(move || {
                file.as_ref().write_all(&packet).map(|()| packet.len())
            })
        });
        let outcome = ready!(Pin::new(writing).poll(cx));
        self.writing = None;
        Poll::Ready(outcome.unwrap_or_else(|error| Err(io::Error::other(error))))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    /// A device, and its other end, which keeps messages apart as the kernel does.
    fn device() -> (XenbusDevice, UnixDatagram) {
        let (ours, kernel) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (XenbusDevice::new(ours.into()).unwrap(), kernel)
    }

    #[tokio::test]
    async fn a_write_is_one_packet_and_a_read_waits_for_bytes() {
        let (mut device, kernel) = device();
        for packet in [&b"first"[..], b"second"] {
            assert_eq!(poll_fn(|cx| device.poll_write(cx, packet)).await.unwrap(), packet.len());
        }
        let mut buffer = [0; 64];
        assert_eq!(kernel.recv(&mut buffer).unwrap(), 5);
        assert_eq!(kernel.recv(&mut buffer).unwrap(), 6);

        let mut into = [0; 64];
        let mut into = ReadBuf::new(&mut into);
        let nothing = poll_fn(|cx| Poll::Ready(device.poll_read(cx, &mut into).is_pending()));
        assert!(nothing.await);
        kernel.send(b"reply").unwrap();
        poll_fn(|cx| device.poll_read(cx, &mut into)).await.unwrap();
        assert_eq!(into.filled(), b"reply");
    }

    #[tokio::test]
    async fn a_write_that_the_kernel_refuses_is_an_error() {
        let (mut device, kernel) = device();
        drop(kernel);
        assert!(poll_fn(|cx| device.poll_write(cx, b"x")).await.is_err());
    }
}
