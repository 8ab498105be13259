//! Bytes to frames, without I/O: the event monitor's objects, and the API's replies.

pub mod http;
pub mod objects;
