//! The states of a monitor.
//!
//! ```text
//!                attempt fails                 closed, broken, greets again; over TCP: silent
//!           ┌───────────────────┐              ┌─────────────────────────────────────────┐
//!           ▼     retry_at      │ QEMU answers │           the same run answers          ▼
//!  new ──▶ Vacant ─────────▶ Connecting ────▶ Connected ◀───────────────────────────── Lost
//!           ▲  ▲                │ not QMP      │                                         │
//!           │  └─file changes── Foreign        │ process ended                           │ process ended
//!           └──────────────────────────────────┴─────────────────────────────────────────┘
//!
//!  any state ──last subscriber leaves──▶ Parked ──next subscriber──▶ Vacant
//! ```
//!
//! In `Lost` where no process is watched, the run has ended when no process listens at its socket
//! any more, or when another run answers there (then the new run is `Connected`).
//!
//! Whether something is wrong is [`Health`](super::health::Health), which is independent of the
//! state: a QEMU that does not answer is an outage while `Connected`, and a socket that cannot be
//! opened is one while `Vacant` and `Connecting`.

use tokio::time::Instant;

use super::connected::Connected;
use super::connecting::Attempt;
use super::run::QemuRun;
use crate::link::QmpLink;

/// The state of a monitor, with the data that only this state needs.
#[derive(Debug)]
pub(super) enum State {
    /// No run is known. The next attempt to connect begins at `retry_at`, unless the path does not
    /// lead to the socket or the directory is unreadable.
    Vacant { retry_at: Instant },
    /// No run is known, and an attempt to connect is under way.
    Connecting(Attempt),
    /// A run is known, and its connection is negotiated.
    Connected(Box<Connected>),
    /// A run is known that is not known to have ended, and there is no connection to it.
    Lost(Box<Lost>),
    /// The socket is not QMP, and no run is known. It is left alone until its file changes.
    Foreign,
    /// There is no subscriber: the monitor is free for other clients.
    Parked,
}

/// A run without a connection.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) run: QemuRun,
    /// From when on the end of the run could not be announced to us, for there was no connection.
    pub(super) unheard_from: Instant,
    pub(super) reconnect: Reconnect,
}

/// Whether a lost monitor is reconnecting.
#[derive(Debug)]
pub(super) enum Reconnect {
    /// The next attempt begins at this time.
    At(Instant),
    /// An attempt is under way.
    Trying(Attempt),
}

impl State {
    /// The run that is not known to have ended.
    pub(super) fn run(&self) -> Option<&QemuRun> {
        match self {
            Self::Connected(connected) => Some(&connected.dialog.run),
            Self::Lost(lost) => Some(&lost.run),
            Self::Vacant { .. } | Self::Connecting(_) | Self::Foreign | Self::Parked => None,
        }
    }

    pub(super) fn run_mut(&mut self) -> Option<&mut QemuRun> {
        match self {
            Self::Connected(connected) => Some(&mut connected.dialog.run),
            Self::Lost(lost) => Some(&mut lost.run),
            Self::Vacant { .. } | Self::Connecting(_) | Self::Foreign | Self::Parked => None,
        }
    }

    pub(super) fn attempt(&self) -> Option<&Attempt> {
        match self {
            Self::Connecting(attempt) => Some(attempt),
            Self::Lost(lost) => match &lost.reconnect {
                Reconnect::Trying(attempt) => Some(attempt),
                Reconnect::At(_) => None,
            },
            Self::Vacant { .. } | Self::Connected(_) | Self::Foreign | Self::Parked => None,
        }
    }

    pub(super) fn attempt_mut(&mut self) -> Option<&mut Attempt> {
        match self {
            Self::Connecting(attempt) => Some(attempt),
            Self::Lost(lost) => match &mut lost.reconnect {
                Reconnect::Trying(attempt) => Some(attempt),
                Reconnect::At(_) => None,
            },
            Self::Vacant { .. } | Self::Connected(_) | Self::Foreign | Self::Parked => None,
        }
    }

    /// When the next attempt to connect is due; `None` in the states that begin none.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        match self {
            Self::Vacant { retry_at } => Some(*retry_at),
            Self::Lost(lost) => match lost.reconnect {
                Reconnect::At(retry_at) => Some(retry_at),
                Reconnect::Trying(_) => None,
            },
            Self::Connecting(_) | Self::Connected(_) | Self::Foreign | Self::Parked => None,
        }
    }

    /// Ends the use of the connection, if there is one, and returns it. The run is lost from then
    /// on.
    pub(super) fn lose_connection(
        &mut self,
        unheard_from: Instant,
        retry_at: Instant,
    ) -> Option<QmpLink> {
        let (run, link) = match std::mem::replace(self, Self::Vacant { retry_at }) {
            Self::Connected(connected) => (connected.dialog.run, connected.link),
            other => {
                *self = other;
                return None;
            }
        };
        let reconnect = Reconnect::At(retry_at);
        *self = Self::Lost(Box::new(Lost { run, unheard_from, reconnect }));
        Some(link)
    }

    /// Takes the run out, if there is one, with the time from which on its end could not be
    /// announced. There is no run from then on.
    pub(super) fn take_run(&mut self, retry_at: Instant) -> Option<(QemuRun, Option<Instant>)> {
        match std::mem::replace(self, Self::Vacant { retry_at }) {
            Self::Connected(connected) => Some((connected.dialog.run, None)),
            Self::Lost(lost) => Some((lost.run, Some(lost.unheard_from))),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Drops an attempt that is under way; the next begins at `retry_at`.
    pub(super) fn retry(&mut self, retry_at: Instant) {
        match self {
            Self::Vacant { .. } | Self::Connecting(_) | Self::Foreign => {
                *self = Self::Vacant { retry_at };
            }
            Self::Lost(lost) => lost.reconnect = Reconnect::At(retry_at),
            Self::Connected(_) | Self::Parked => {}
        }
    }
}
