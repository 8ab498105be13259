//! The registration: the watches that name no domain, and the way back.

use tokio::time::Instant;
use virevent::driver::Interest;
use virevent::{Error, Kind};

use super::domains::{Domains, WatchState};
use super::report::Report;
use crate::pipeline::{Outcome, Pipeline, server_error};
use crate::request::{StoreRequest, WatchTarget};
use crate::wire::error;

/// The feature bit of watches with a depth: `XENSTORE_SERVER_FEATURE_WATCHDEPTH` in Xen's `xs_wire.h`.
const WATCH_DEPTH: u64 = 4;

/// How far the registration is.
///
/// ```text
///          interest            features          all watches set
///   Idle ───────────▶ Features ────────▶ Watching ──────────────▶ Registered
///    ▲                   │                  │                         │
///    │                   └──────────────────┴───────────┬─────────────┘ interest is empty
///    │ reset OK                                         ▼
///    ├────────────────────────────────────────────── Closing
///    │ all unwatched                                    │ ENOSYS, or a device
///    └────────────────── Unwatching ◀───────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing is watched.
    Idle,
    /// The server is asked for its features.
    Features,
    /// The watches that name no domain are being set.
    Watching,
    /// They are set.
    Registered,
    /// There is no subscriber: once every request has its reply, the watches are reset.
    Closing,
    /// The watches are dropped one by one.
    Unwatching {
        /// The first domain id whose watches may be set.
        next_domid: usize,
    },
}

/// A change of interest that is not confirmed.
#[derive(Debug)]
struct PendingInterest {
    tag: u64,
    /// The kinds that a store does not have.
    refused: Vec<Kind>,
}

/// A watch of [`WatchTarget::SPECIAL`].
#[derive(Clone, Copy, Debug, Default)]
struct SpecialWatch {
    state: WatchState,
    /// Whether the event that it fires when it is set is still to come.
    is_initial_due: bool,
}

#[derive(Debug)]
pub(super) struct Registration {
    stage: Stage,
    is_device: bool,
    interest: Option<PendingInterest>,
    /// The depth of the special watches, where the server has depths: they then name the domain.
    depth: Option<u8>,
    specials: [SpecialWatch; 3],
}

impl Registration {
    pub(super) fn new(is_device: bool) -> Self {
        Self {
            stage: Stage::Idle,
            is_device,
            interest: None,
            depth: None,
            specials: [SpecialWatch::default(); 3],
        }
    }

    pub(super) fn set_interest(&mut self, interest: &Interest, tag: u64, refused: Vec<Kind>) {
        self.interest = Some(PendingInterest { tag, refused });
        // The watches serve every kind, so one interest in place of another needs no request.
        match (self.stage, interest.is_empty()) {
            (Stage::Idle, false) => self.stage = Stage::Features,
            (Stage::Idle, true) | (_, false) => {}
            (_, true) => self.stage = Stage::Closing,
        }
    }

    pub(super) fn is_registered(&self) -> bool {
        self.stage == Stage::Registered
    }

    pub(super) fn is_closing(&self) -> bool {
        self.stage == Stage::Closing
    }

    /// Sends the requests of this stage.
    pub(super) fn advance(&mut self, pipeline: &mut Pipeline, now: Instant) {
        match self.stage {
            // Sent once: while it is pending the pipeline is not idle.
            Stage::Features if pipeline.is_idle() => pipeline.send(StoreRequest::Features, now),
            Stage::Watching => self.watch_specials(pipeline, now),
            // With a request under way, its reply could set a watch after the reset.
            Stage::Closing if pipeline.is_idle() => match self.is_device {
                // The kernel ignores a reset.
                true => self.stage = Stage::Unwatching { next_domid: 0 },
                false => pipeline.send(StoreRequest::Reset, now),
            },
            _ => {}
        }
    }

    /// Confirms a change of interest once the watches are as it wants them.
    pub(super) fn confirm(&mut self, report: &mut Report<'_>) {
        if !matches!(self.stage, Stage::Idle | Stage::Registered) {
            return;
        }
        // The driver requests the list only after this: what changes between the watches and the list is then
        // announced, and nothing is lost.
        if let Some(PendingInterest { tag, refused }) = self.interest.take() {
            report.interest_done(tag, &refused);
        }
    }

    /// Takes in the reply to a request for the server's features.
    pub(super) fn features(&mut self, outcome: Outcome<'_>) {
        if self.stage != Stage::Features {
            return;
        }
        // An older server answers the unknown request with some error.
        let bits = outcome.ok().and_then(|text| {
            std::str::from_utf8(text.strip_suffix(b"\0").unwrap_or(text)).ok()?.parse::<u64>().ok()
        });
        // A kernel passes on only the path of a watch.
        // The kernel sets watches of its own, shared by its users.
        let has_depth = !self.is_device && bits.is_some_and(|bits| bits & WATCH_DEPTH != 0);
        self.depth = has_depth.then_some(1);
        self.stage = Stage::Watching;
    }

    fn watch_specials(&mut self, pipeline: &mut Pipeline, now: Instant) {
        let mut is_set = true;
        for (target, watch) in WatchTarget::SPECIAL.into_iter().zip(&mut self.specials) {
            if target == WatchTarget::Children && self.depth.is_none() {
                continue;
            }
            // With a device there is room for one request at a time: the others follow in later pumps.
            if watch.state == WatchState::Off && pipeline.has_room() {
                *watch = SpecialWatch { state: WatchState::Setting, is_initial_due: true };
                pipeline.send(StoreRequest::Watch(target, self.depth), now);
            }
            // OK is enough: the initial event may come before or after it, and changes nothing.
            is_set &= watch.state == WatchState::On;
        }
        if is_set {
            self.stage = Stage::Registered;
        }
    }

    /// Takes in the reply to a watch that names no domain.
    ///
    /// # Errors
    /// The server refuses the watch.
    pub(super) fn watched(
        &mut self,
        request: StoreRequest,
        target: WatchTarget,
        outcome: Outcome<'_>,
    ) -> Result<(), Error> {
        let has_depth = matches!(request, StoreRequest::Watch(_, Some(_)));
        let Some(watch) = self.special(target) else { return Ok(()) };
        match outcome {
            Ok(_) => watch.state = WatchState::On,
            // The watch is already there, and fires nothing now.
            Err(name) if name == error::EEXIST.as_bytes() => {
                *watch = SpecialWatch { state: WatchState::On, is_initial_due: false };
            }
            // The server offers depths that it does not have.
            Err(name) if name == error::EINVAL.as_bytes() && has_depth => {
                watch.state = WatchState::Off;
                self.depth = None;
            }
            Err(name) => return Err(server_error(request, name)),
        }
        Ok(())
    }

    /// Whether this event of a watch is the one that it fires when it is set.
    pub(super) fn is_initial_event(&mut self, target: WatchTarget) -> bool {
        self.special(target).is_some_and(|watch| std::mem::take(&mut watch.is_initial_due))
    }

    pub(super) fn unwatched(&mut self, target: WatchTarget) {
        if let Some(watch) = self.special(target) {
            watch.state = WatchState::Off;
        }
    }

    fn special(&mut self, target: WatchTarget) -> Option<&mut SpecialWatch> {
        let at = WatchTarget::SPECIAL.iter().position(|special| *special == target)?;
        self.specials.get_mut(at)
    }

    /// Takes in the reply to a reset of all watches. Returns whether they are reset.
    ///
    /// # Errors
    /// The server refuses the reset.
    pub(super) fn reset_replied(
        &mut self,
        request: StoreRequest,
        outcome: Outcome<'_>,
    ) -> Result<bool, Error> {
        match outcome {
            Ok(_) => Ok(true),
            // An old daemon has no RESET_WATCHES.
            Err(name) if name == error::ENOSYS.as_bytes() => {
                self.stage = Stage::Unwatching { next_domid: 0 };
                Ok(false)
            }
            Err(name) => Err(server_error(request, name)),
        }
    }

    /// Drops watches one by one. No watch is being set by now: each is on or off. Returns whether all
    /// are off.
    pub(super) fn unwatch(
        &mut self,
        domains: &mut Domains,
        pipeline: &mut Pipeline,
        now: Instant,
    ) -> bool {
        let Stage::Unwatching { next_domid } = &mut self.stage else { return false };
        for (target, watch) in WatchTarget::SPECIAL.into_iter().zip(&mut self.specials) {
            if watch.state == WatchState::On && pipeline.has_room() {
                watch.state = WatchState::Clearing;
                pipeline.send(StoreRequest::Unwatch(target), now);
            }
        }
        // The replies mark the watches as off. Events that were sent before may still arrive, and are ignored.
        domains.unwatch(next_domid, pipeline, now);
        // There is room for one request at least: with none under way all are off.
        pipeline.is_idle()
    }

    /// No watch is set.
    pub(super) fn reset(&mut self) {
        *self = Self { interest: self.interest.take(), ..Self::new(self.is_device) };
    }
}

#[cfg(test)]
impl Registration {
    pub(super) fn state(&self) -> &'static str {
        match self.stage {
            Stage::Idle => "idle",
            Stage::Features => "features",
            Stage::Watching => "watching",
            Stage::Registered => "registered",
            Stage::Closing => "closing",
            Stage::Unwatching { .. } => "unwatching",
        }
    }
}
