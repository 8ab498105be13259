//! The floor: a client of all daemons that only reads.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use virevent_libvirt::wire::{Frames, Header, Open, Register, message, procs};

use super::daemons::Orders;

/// How much one event takes in the socket: all names have the same length.
const EVENT: usize = 84;

/// Connects to each daemon, with a task for each that only reads.
pub(crate) struct Plain {
    pub(crate) orders: Orders,
    read: Arc<AtomicUsize>,
}

impl Plain {
    pub(crate) async fn start(home: &Path) -> Self {
        let mut orders = Orders::connect(home).await;
        let read = Arc::new(AtomicUsize::new(0));
        for uri in orders.give("uris").await {
            let socket = register(uri.split_once("socket=").unwrap().1).await;
            tokio::spawn(read_all(socket, Arc::clone(&read)));
        }
        Self { orders, read }
    }

    /// Has the daemons send events as an order says, and reads them all.
    pub(crate) async fn read_events(&mut self, order: &str, count: usize) {
        self.read.store(0, Ordering::Relaxed);
        self.orders.give(order).await;
        while self.read.load(Ordering::Relaxed) < count * EVENT {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(self.read.load(Ordering::Relaxed), count * EVENT, "an event has another size");
    }
}

async fn read_all(mut socket: UnixStream, read: Arc<AtomicUsize>) {
    // Small, since each task has its own.
    let mut buffer = [0; 1024];
    loop {
        match socket.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => drop(read.fetch_add(count, Ordering::Relaxed)),
        }
    }
}

/// A connection that gets lifecycle events.
async fn register(path: &str) -> UnixStream {
    let mut socket = UnixStream::connect(path).await.unwrap();
    let mut calls = Vec::new();
    message(&mut calls, &Header::call(procs::AUTH_LIST, 1), |_| {});
    message(&mut calls, &Header::call(procs::CONNECT_OPEN, 2), |args| {
        Open { name: Some(b"test:///default"), flags: 1 }.write(args);
    });
    let register = Header::call(procs::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY, 3);
    message(&mut calls, &register, |args| Register { event: 0, domain: None }.write(args));
    socket.write_all(&calls).await.unwrap();
    let mut frames = Frames::new();
    loop {
        let count = socket.read(frames.spare()).await.unwrap();
        frames.filled(count);
        while let Some(frame) = frames.next_frame().unwrap() {
            assert_eq!(frame.header.status, 0);
            if frame.header.serial == 3 {
                return socket;
            }
        }
    }
}
