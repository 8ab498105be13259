//! The questions that a QEMU has not answered yet.
//!
//! Without out-of-band execution QEMU answers in order, so an answer also settles each question
//! before it. In the stream an answer comes after all events that happened before it, and so it is
//! never older than an event that was read before.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::link::QmpLink;

/// The most questions without an answer. A QEMU that is asked faster than it answers is asked again
/// once it has answered.
const MAX_OPEN: usize = 32;

/// How many bytes of questions may be unsent before no more is asked.
const MAX_UNSENT: usize = 4096;

/// What a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// `query-status`: the run state. Its answer is the sign of life.
    Status,
    /// `query-migrate`: whether the guest is migrating away.
    Migration,
}

impl Subject {
    fn command(self) -> &'static str {
        match self {
            Self::Status => "query-status",
            Self::Migration => "query-migrate",
        }
    }
}

/// The answer to one of our questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) id: u64,
    pub(super) subject: Subject,
    /// Whether no later question about the same subject is open.
    pub(super) is_latest: bool,
}

/// The questions without an answer, oldest first.
#[derive(Debug)]
pub(super) struct Questions {
    open: VecDeque<Question>,
    /// When the run state was last asked for.
    asked_at: Instant,
    /// Whether a question about the run state was not asked, for too many were open.
    is_owed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Question {
    id: u64,
    subject: Subject,
    since: Instant,
}

impl Questions {
    pub(super) fn new(now: Instant) -> Self {
        Self { open: VecDeque::new(), asked_at: now, is_owed: false }
    }

    /// Asks. Where too many questions are open, this one is [owed](Self::take_owed).
    pub(super) fn ask(&mut self, subject: Subject, link: &mut QmpLink, now: Instant) {
        let is_full = self.open.len() >= MAX_OPEN || link.outbox.unwritten().len() >= MAX_UNSENT;
        // The time counts even if the question is owed: else it would be asked again at each poll.
        if subject == Subject::Status {
            self.asked_at = now;
            self.is_owed = is_full;
        }
        if is_full {
            return;
        }
        self.open.push_back(Question { id: link.send(subject.command()), subject, since: now });
    }

    /// Whether a question is to be asked now that all others are answered.
    pub(super) fn take_owed(&mut self) -> bool {
        self.open.is_empty() && std::mem::take(&mut self.is_owed)
    }

    /// Closes the question with this id. `None` where no such question is open.
    pub(super) fn answered(&mut self, id: u64) -> Option<Answered> {
        let at = self.open.iter().position(|question| question.id == id)?;
        let subject = self.open[at].subject;
        // The earlier ones are answered as well, or QEMU has dropped them.
        self.open.drain(..=at);
        let is_latest = !self.open.iter().any(|question| question.subject == subject);
        Some(Answered { id, subject, is_latest })
    }

    /// Since when the oldest question has waited.
    pub(super) fn since(&self) -> Option<Instant> {
        self.open.front().map(|question| question.since)
    }

    /// The newest open question about the run state.
    pub(super) fn newest_status(&self) -> Option<u64> {
        let newest = self.open.iter().rev().find(|question| question.subject == Subject::Status);
        newest.map(|question| question.id)
    }

    /// When the run state was last asked for, or the connection opened.
    pub(super) fn asked_at(&self) -> Instant {
        self.asked_at
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}
