//! What a fake daemon does wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use virevent_libvirt::wire::RemoteError;
use virevent_libvirt::wire::procs::{auth, feature};

/// What a [`FakeLibvirtd`](super::FakeLibvirtd) does wrong, or as an older one does it. Procedures
/// go by their numbers: `virevent_libvirt::wire::procs`. By default it does everything right.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// How many bytes it writes at a time; the client reads before the next. Default: all there are.
    pub piece: Option<usize>,
    /// How long it gathers what it has to say before it writes, so that messages are merged.
    /// Default: no time.
    pub gather: Duration,
    /// Calls that are done but whose replies wait for [`release`](super::FakeLibvirtd::release),
    /// while everything else flows.
    pub held: BTreeSet<i32>,
    /// Calls whose replies carry another serial.
    pub wrong_serial: BTreeSet<i32>,
    /// Calls that are answered with an error: see [`refuse`](Self::refuse).
    pub errors: BTreeMap<i32, RemoteError>,
    /// Calls that are done but answered with this body, whatever it is.
    pub bodies: BTreeMap<i32, Vec<u8>>,
    /// Calls upon which it hangs up.
    pub hang_up: BTreeSet<i32>,
    /// Calls whose reply breaks off in the middle: it hangs up there.
    pub truncated: BTreeSet<i32>,
    /// Whether it says nothing at all any more, as a host that is gone: connections that are open
    /// while this is so stay silent for ever.
    pub silent: bool,
    /// Event ids whose events it does not send: those changes are silent.
    pub mute: BTreeSet<i32>,
    /// How many clients it serves; the next one is hung up on. Default: any number.
    pub max_clients: Option<usize>,
    /// The authentication that it demands: `procs::auth`. Default: none.
    pub auth: i32,
    /// The features that it has: `procs::feature`. Default: those of libvirtd 9.0.
    pub features: BTreeSet<i32>,
    /// Procedures that it does not know, as an older daemon.
    pub lacks: BTreeSet<i32>,
    /// The last event id that it knows. Default: 26, as libvirtd 9.0.
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
            // 8, 9 and 15: file descriptors, strings in typed parameters, the close callback.
            features: [8, 9, feature::KEEPALIVE, feature::EVENT_CALLBACK, 15].into(),
            lacks: BTreeSet::new(),
            last_event: 26,
        }
    }
}

impl Faults {
    /// Has this call answered with an error of this number (`virErrorNumber`) and message.
    pub fn refuse(&mut self, procedure: i32, code: i32, message: &str) {
        self.errors.insert(procedure, remote_error(code, message));
    }
}

pub(super) fn remote_error(code: i32, message: &str) -> RemoteError {
    // 20: VIR_FROM_DOM... the client shows it and does nothing else with it.
    RemoteError { code, domain: 20, message: message.into(), format: "%s".into(), int1: -1 }
}
