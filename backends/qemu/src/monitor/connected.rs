//! A negotiated connection: the events that QEMU sends, and its answers.

use std::time::Duration;

use tokio::time::Instant;
use virevent::{Change, Error, ShutdownCause};

use super::health::Health;
use super::migration::MigrationTracker;
use super::questions::{Answered, Questions, Subject};
use super::run::{PendingPause, QemuRun};
use super::turn::{Role, Turn};
use super::{PAUSE_CAUSE_WAIT, STALE_STATUS_RETRY};
use crate::decode::Meaning;
use crate::link::{QmpLink, broken};
use crate::peer::answers::{MigrationInfo, StatusInfo};
use crate::wire::{Event, Message, Reply};

/// A connection to a run that is negotiated.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) link: QmpLink,
    pub(super) dialog: Dialog,
}

/// What was asked and answered on a connection, and the run that it leads to.
#[derive(Debug)]
pub(super) struct Dialog {
    pub(super) run: QemuRun,
    pub(super) questions: Questions,
    /// The question whose answer a list waits for.
    pub(super) verification: Option<u64>,
    /// When to ask for the run state again, for the last answer describes a moment that passes.
    pub(super) ask_again_at: Option<Instant>,
    /// Whether the guest is migrating away.
    pub(super) migration: MigrationTracker,
    /// When QEMU last sent anything.
    pub(super) heard_at: Instant,
    /// When QEMU accepted the connection.
    pub(super) opened_at: Instant,
}

/// What was found in what was read.
pub(super) enum ReadOutcome {
    /// Events and answers.
    All,
    /// A greeting: QEMU has removed its monitor and made it again, and waits for a negotiation.
    Greeting,
}

impl Connected {
    pub(super) fn new(run: QemuRun, link: QmpLink, now: Instant) -> Self {
        let dialog = Dialog {
            run,
            questions: Questions::new(now),
            verification: None,
            ask_again_at: None,
            migration: MigrationTracker::default(),
            heard_at: now,
            opened_at: now,
        };
        Self { link, dialog }
    }

    /// Asks for the run state, for a list.
    pub(super) fn verify(&mut self) {
        self.dialog.questions.ask(Subject::Status, &mut self.link, Instant::now());
        // The newest, for an older one may be answered with a run state from before the list was
        // asked for. Where this one was not asked, too many are open, and the newest of them will
        // do.
        self.dialog.verification = self.dialog.questions.newest_status();
    }

    /// Asks for the run state because it is time to.
    pub(super) fn poll_status(&mut self, now: Instant) {
        let Self { link, dialog } = self;
        dialog.ask_again_at = None;
        // Before the run state, for its answer says how to interpret the run state.
        if dialog.migration.is_possible() {
            dialog.questions.ask(Subject::Migration, link, now);
        }
        dialog.questions.ask(Subject::Status, link, now);
    }

    /// Processes the lines that were read.
    ///
    /// # Errors
    /// The connection is of no use any more: a line is not QMP, or QEMU refuses a question that it
    /// answered before.
    pub(super) fn read_lines(
        &mut self,
        role: Role,
        health: &mut Health,
        turn: &mut Turn<'_>,
    ) -> Result<ReadOutcome, Error> {
        let Self { link, dialog } = self;
        dialog.heard_at = Instant::now();
        let mut needs_status = false;
        while let Some(line) = link.next_line()? {
            match Message::read(line).map_err(|error| broken(&error))? {
                Message::Event(event) => needs_status |= dialog.observe(&event, turn),
                Message::Reply(Some(id), reply) => match dialog.questions.answered(id) {
                    Some(answered) => dialog.answer(answered, &reply, role, health, turn)?,
                    None => tracing::debug!(?reply, "ignored a reply to a question never asked"),
                },
                // QEMU could not parse the question, and so its error carries no id.
                Message::Reply(None, Reply::Error(error)) if !dialog.questions.is_empty() => {
                    return Err(refused(error.get()));
                }
                Message::Greeting => return Ok(ReadOutcome::Greeting),
                other => tracing::debug!(?other, "ignored a message of an unknown form"),
            }
        }
        // One question for all events of a read: its answer is newer than each of them.
        if needs_status | dialog.questions.take_owed() {
            dialog.questions.ask(Subject::Status, link, dialog.heard_at);
        }
        Ok(ReadOutcome::All)
    }
}

impl Dialog {
    /// Whether QEMU has answered the question of a list, and the cause of a pause is known.
    pub(super) fn is_verified(&self) -> bool {
        self.verification.is_none() && self.run.pause.is_none()
    }

    /// When to ask for the run state next, once all questions are answered.
    pub(super) fn next_question_at(&self, interval: Duration) -> Instant {
        let due = self.questions.asked_at() + interval;
        self.ask_again_at.map_or(due, |at| at.min(due))
    }

    /// Processes an event. True if only the run state says how the guest is after it.
    #[inline]
    fn observe(&mut self, event: &Event<'_>, turn: &mut Turn<'_>) -> bool {
        let run = &mut self.run;
        let at = event.at.unwrap_or_else(|| turn.out.received());
        match run.tracker.observe(event) {
            Meaning::Change(change) => {
                // The manager may have QEMU quit as soon as the migration completes, before the
                // next answer says that it has.
                if matches!(change, Change::ShuttingDown(ShutdownCause::Host))
                    && self.migration.may_have_left(self.heard_at)
                {
                    run.tracker.set_migrated();
                }
                // The pause first, in the order of the events, without waiting for its cause any
                // longer.
                run.deliver_pause(None, turn.out);
                // The notice of a sleep first, as libvirt has it.
                if matches!(change, Change::PmSuspended(_) | Change::Started(_)) {
                    run.deliver_notice(event, at, turn);
                }
                run.deliver(change, at, turn.out);
            }
            Meaning::Reboot => {
                run.deliver_pause(None, turn.out);
                run.deliver_reboot(at, turn.out);
            }
            Meaning::PauseWithoutCause => {
                // A second STOP: the guest ran in between, and the answer will be about this pause.
                run.deliver_pause(None, turn.out);
                run.pause = Some(PendingPause { at, due: self.heard_at + PAUSE_CAUSE_WAIT });
            }
            Meaning::Duplicate => {}
            Meaning::Other => run.deliver_notice(event, at, turn),
        }
        run.tracker.take_needs_status()
    }

    /// Processes the answer to a question of ours.
    ///
    /// # Errors
    /// QEMU refuses to report its run state, which it reported before: that is no sign of life, and
    /// the connection is of no use.
    fn answer(
        &mut self,
        answered: Answered,
        reply: &Reply<'_>,
        role: Role,
        health: &mut Health,
        turn: &mut Turn<'_>,
    ) -> Result<(), Error> {
        match (answered.subject, reply) {
            (Subject::Status, Reply::Return(value)) => {
                let status = serde_json::from_str::<StatusInfo>(value.get()).ok();
                let status = status.as_ref().map(|answer| &*answer.status);
                self.set_status(status, answered, turn);
                // After an outage of the source the driver asks for a list, which contains the
                // state.
                let is_in_list = role == Role::Source && health.is_outage();
                if self.run.pause.is_none() && !turn.shared.is_listing && !is_in_list {
                    self.run.report_difference(turn.out);
                }
                // Last: the end of a gap promises that the state before it is right.
                health.recover(Some(&mut self.run), turn);
            }
            (Subject::Status, Reply::Error(error)) => return Err(refused(error.get())),
            (Subject::Migration, Reply::Return(value)) => {
                // An answer of another form changes nothing: the run state shows the end of a
                // migration as well.
                if let Ok(migration) = serde_json::from_str::<MigrationInfo<'_>>(value.get()) {
                    self.migration.observe_migration(&migration, self.heard_at);
                }
            }
            // A QEMU older than `query-migrate` has this error.
            (Subject::Migration, Reply::Error(_)) => {}
        }
        Ok(())
    }

    /// Compares the run state that QEMU reports with what was observed.
    fn set_status(&mut self, status: Option<&str>, answered: Answered, turn: &mut Turn<'_>) {
        // QEMU answers in order: the answer to a later question settles this one as well.
        self.verification.take_if(|id| *id <= answered.id);
        self.ask_again_at = None;
        // An earlier question may have been answered before the pause.
        if answered.is_latest {
            self.run.deliver_pause(status, turn.out);
        }
        let Some(status) = status else { return };
        self.ask_again_at = match self.run.tracker.is_stale_status(status) {
            true => Some(self.heard_at + STALE_STATUS_RETRY),
            false => {
                self.run.tracker.set_status(status);
                self.migration.observe_status(status, self.heard_at)
            }
        };
    }
}

fn refused(error: &str) -> Error {
    let shown: String = error.chars().take(200).collect();
    broken(&format!("QEMU refuses a question that it answered before: {shown}"))
}
