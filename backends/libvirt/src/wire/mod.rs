//! libvirt's RPC as bytes, without I/O: frames, XDR, procedures, and the bodies of the messages.
//!
//! Everything can be read and written, so that a client and a fake server share one codec. All
//! numbers are big-endian.
//!
//! ```text
//!   0        4         8         12          16     20       24       28
//!   ┌────────┬─────────┬─────────┬───────────┬──────┬────────┬────────┬───────────┐
//!   │ length │ program │ version │ procedure │ kind │ serial │ status │ body: XDR │
//!   └────────┴─────────┴─────────┴───────────┴──────┴────────┴────────┴───────────┘
//!     of the whole frame                      see [`kind`]     see [`status`]
//! ```
//!
//! The layout is that of libvirt's `virnetprotocol.x` and `remote_protocol.x`, which its
//! documentation describes at <https://libvirt.org/kbase/internals/rpc.html>.
//!
//! ```
//! use virevent_libvirt::wire::{Frames, Header, message, procs, xdr};
//!
//! let mut bytes = Vec::new();
//! message(&mut bytes, &Header::call(procs::CONNECT_SUPPORTS_FEATURE, 7), |body| body.i32(14));
//!
//! let mut frames = Frames::new();
//! frames.push(&bytes);
//! let frame = frames.next_frame()?.expect("a whole frame");
//! assert_eq!(frame.header.serial, 7);
//! assert_eq!(xdr::Reader::new(frame.body).i32()?, 14);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod body;
mod frame;
pub mod procs;
mod remote_error;
mod sasl;
pub mod xdr;

pub use self::body::{
    Domain, Lifecycle, ListAllDomains, MAX_DOMAINS, Open, Register, StateStats, StatsRequest,
};
pub use self::frame::{
    Frame, FrameError, Frames, HEADER_LENGTH, Header, MAX_LENGTH, kind, message, program, status,
};
pub use self::remote_error::{ErrorClass, RemoteError, classify, code};
pub use self::sasl::{MAX_MECHANISMS, MAX_SASL_DATA, SaslReply, SaslStart, SaslStep};
