//! The order in which domains have their requests sent.

use std::collections::VecDeque;

/// After so many urgent domains in a row one of the others has its turn.
const URGENT_IN_A_ROW: u32 = 16;

/// After so many domains in a row a verification has its turn.
const QUEUED_IN_A_ROW: u32 = 4;

/// The domains with requests to be sent, each once in each of the two queues. Each entry knows whether it is
/// in them.
#[derive(Debug, Default)]
pub(super) struct RequestQueue {
    pub(super) normal: VecDeque<u16>,
    /// Those whose `control/shutdown` is due: a guest may acknowledge a request at once, and then it is lost.
    pub(super) urgent: VecDeque<u16>,
    urgent_in_a_row: u32,
    queued_in_a_row: u32,
}

impl RequestQueue {
    /// Whether the next domain comes from the urgent queue. Guests that write requests all the time must not
    /// keep all other domains waiting.
    #[inline]
    pub(super) fn is_urgent_next(&self) -> bool {
        !self.urgent.is_empty()
            && (self.normal.is_empty() || self.urgent_in_a_row < URGENT_IN_A_ROW)
    }

    #[inline]
    pub(super) fn next(&self, is_urgent: bool) -> Option<u16> {
        let queue = if is_urgent { &self.urgent } else { &self.normal };
        queue.front().copied()
    }

    /// Removes the next domain: it has no request left.
    #[inline]
    pub(super) fn pop(&mut self, is_urgent: bool) {
        if is_urgent {
            self.urgent.pop_front();
            self.urgent_in_a_row = self.urgent_in_a_row.saturating_add(1);
        } else {
            self.normal.pop_front();
            self.urgent_in_a_row = 0;
            self.queued_in_a_row = self.queued_in_a_row.saturating_add(1);
        }
    }

    /// Whether a verification has its turn, although there are other domains: events that never stop must not
    /// keep it from its end.
    #[inline]
    pub(super) fn is_verifications_turn(&self) -> bool {
        self.queued_in_a_row >= QUEUED_IN_A_ROW
    }

    pub(super) fn verification_had_its_turn(&mut self) {
        self.queued_in_a_row = 0;
    }

    pub(super) fn clear(&mut self) {
        self.normal.clear();
        self.urgent.clear();
    }
}
