//! The faults of a fake libvirtd.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use virevent_libvirt::wire::RemoteError;
use virevent_libvirt::wire::procs::{auth, feature};

/// The faults of a [`FakeLibvirtd`](super::FakeLibvirtd), and its differences from libvirtd 9.0. By
/// default there are none. Procedures have the numbers of `virevent_libvirt::wire::procs`.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// The number of bytes that it writes at a time, so that the client reads between. Default:
    /// all.
    pub piece: Option<usize>,
    /// The time for which it collects messages before it writes them together. Default: none.
    pub gather: Duration,
    /// Calls that it executes, but whose replies wait for
    /// [`release`](super::FakeLibvirtd::release), while other messages flow.
    pub held: BTreeSet<i32>,
    /// Calls whose replies carry another serial.
    pub wrong_serial: BTreeSet<i32>,
    /// Calls that it refuses with an error: see [`refuse`](Self::refuse).
    pub errors: BTreeMap<i32, RemoteError>,
    /// Calls that it executes, but whose replies have this body, valid or not.
    pub bodies: BTreeMap<i32, Vec<u8>>,
    /// Calls on which it hangs up.
    pub hang_up: BTreeSet<i32>,
    /// Calls whose reply it truncates in the middle, and hangs up there.
    pub truncated: BTreeSet<i32>,
    /// Whether it sends nothing, as a host that is gone. A connection that was open meanwhile stays
    /// silent to its end.
    pub silent: bool,
    /// Event ids whose events it does not send.
    pub mute: BTreeSet<i32>,
    /// The number of clients that it serves; it hangs up on the next one. Default: no limit.
    pub max_clients: Option<usize>,
    /// The authentication that it demands: `procs::auth`. Default: none.
    pub auth: i32,
    /// The SASL mechanisms that it offers. It knows PLAIN alone; a client that starts another one is
    /// refused. Default: `PLAIN`.
    pub mechanisms: String,
    /// The users of SASL, with their passwords. Default: none.
    pub users: BTreeMap<String, String>,
    /// Its features: `procs::feature`. Default: those of libvirtd 9.0.
    pub features: BTreeSet<i32>,
    /// Procedures that it does not know, as an older daemon.
    pub lacks: BTreeSet<i32>,
    /// Its highest event id. Default: 26, as libvirtd 9.0.
    pub last_event: i32,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            piece: None,
            gather: Duration::ZERO,
            held: BTreeSet::new(),
            wrong_serial: BTreeSet::new(),
            errors: BTreeMap::new(),
            bodies: BTreeMap::new(),
            hang_up: BTreeSet::new(),
            truncated: BTreeSet::new(),
            silent: false,
            mute: BTreeSet::new(),
            max_clients: None,
            auth: auth::NONE,
            mechanisms: "PLAIN".into(),
            users: BTreeMap::new(),
            // 8, 9 and 15: file descriptors, strings in typed parameters, the close callback.
            features: [8, 9, feature::KEEPALIVE, feature::EVENT_CALLBACK, 15].into(),
            lacks: BTreeSet::new(),
            last_event: 26,
        }
    }
}

impl Faults {
    /// Refuses a call with an error of this number (`virErrorNumber`) and message.
    pub fn refuse(&mut self, procedure: i32, code: i32, message: &str) {
        self.errors.insert(procedure, remote_error(code, message));
    }
}

/// An error as libvirtd sends it.
pub(super) fn remote_error(code: i32, message: &str) -> RemoteError {
    // Domain 20 is VIR_FROM_DOMAIN. The client only prints it.
    RemoteError { code, domain: 20, message: message.into(), format: "%s".into(), int1: -1 }
}
