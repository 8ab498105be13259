//! The XenStore protocol as bytes, without I/O: packets, operations and payloads.
//!
//! Everything encodes and decodes, so that a client, a toolstack and a fake server share one codec.
//! Numbers are in the byte order of the machine, for a store is never reached over a network.
//!
//! ```text
//!   0           4         8             12       16
//!   ┌───────────┬─────────┬─────────────┬────────┬─────────────────────────┐
//!   │ operation │ request │ transaction │ length │ payload: 4,096 at most  │
//!   └───────────┴─────────┴─────────────┴────────┴─────────────────────────┘
//!                 chosen by the client,    of the  strings, each ended by a NUL;
//!                 copied into the reply    payload or a value, as it is
//! ```
//!
//! A reply has the operation of its request, or [`Operation::ERROR`]. A watch event,
//! [`Operation::WATCH_EVENT`], comes anywhere between replies. Only its operation identifies it, for a
//! client may number a request 0, too.
//!
//! The layout is that of Xen's `docs/misc/xenstore.txt` and `xen/include/public/io/xs_wire.h`.
//!
//! ```
//! use virevent_xen::wire::{Decoder, Header, Operation, packet, strings};
//!
//! let mut bytes = Vec::new();
//! packet(&mut bytes, &Header::request(Operation::WATCH, 7), &[b"@releaseDomain\0", b"mine\0"])?;
//!
//! let mut decoder = Decoder::new();
//! decoder.push(&bytes);
//! let packet = decoder.next_packet()?.expect("a whole packet");
//! assert_eq!(packet.header.request, 7);
//! assert_eq!(strings(packet.payload).collect::<Vec<_>>(), [&b"@releaseDomain"[..], b"mine"]);
//! # Ok::<(), virevent_xen::wire::TooLong>(())
//! ```

mod operation;
mod packet;
mod payload;

pub use self::operation::Operation;
pub use self::packet::{
    Decoder, HEADER_LENGTH, Header, MAX_DIRECTORY, MAX_PAYLOAD, Packet, TooLong, packet,
};
pub use self::payload::{DirectoryPart, Malformed, WatchEvent, error, strings};
