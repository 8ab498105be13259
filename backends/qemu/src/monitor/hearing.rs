//! What QEMU says on its connection, and what it answers.

use std::task::{Context, Poll};

use tokio::time::Instant;
use virevent::driver::Batch;
use virevent::{Change, Error, Reboot, ShutdownCause};

use super::questions::{Answered, Subject};
use super::run::other;
use super::{AGAIN, LOOK, Monitor, Role, SourceContext};
use crate::decode::Meaning;
use crate::link::{QmpLink, broken};
use crate::peer::answers::{MigrationInfo, StatusInfo};
use crate::raw_event_filter::RawEventFilter;
use crate::wire::{Event, Message, Reply};

/// What was found in what was read.
pub(super) enum ReadOutcome {
    /// Events and answers.
    All,
    /// A greeting: QEMU has removed its monitor and made it again, and waits for a negotiation.
    Greeting,
}

impl Monitor {
    pub(super) fn poll_link(
        &mut self,
        cx: &mut Context<'_>,
        shared: &mut SourceContext,
        out: &mut Batch,
    ) -> bool {
        let Some(mut link) = self.link.take() else { return false };
        let read = match link.poll_io(cx) {
            Poll::Pending => {
                self.link = Some(link);
                return false;
            }
            Poll::Ready(read) => read,
        };
        match read {
            Ok(()) => self.take_in(link, shared, out),
            Err(error) => self.lost(&error, shared, out),
        }
        true
    }

    /// Takes in what was read, and keeps the connection if it is still of use.
    pub(super) fn take_in(
        &mut self,
        mut link: QmpLink,
        shared: &mut SourceContext,
        out: &mut Batch,
    ) {
        match self.hear_all(&mut link, shared, out) {
            Ok(ReadOutcome::All) => self.link = Some(link),
            Ok(ReadOutcome::Greeting) => self.renegotiate(link, shared, out),
            Err(error) => self.lost(&error, shared, out),
        }
    }

    fn hear_all(
        &mut self,
        link: &mut QmpLink,
        shared: &mut SourceContext,
        out: &mut Batch,
    ) -> Result<ReadOutcome, Error> {
        self.heard = Instant::now();
        let mut is_unsure = false;
        while let Some(line) = link.next_line()? {
            match Message::read(line).map_err(|error| broken(&error))? {
                Message::Event(event) => is_unsure |= self.hear(&event, &shared.wants, out),
                Message::Reply(Some(id), reply) => match self.questions.answered(id) {
                    Some(answered) => self.answered(answered, &reply, shared, out)?,
                    None => tracing::debug!(?reply, "passed over a reply that is not to us"),
                },
                // QEMU does not understand what it was asked, and so cannot say which question it was.
                Message::Reply(None, Reply::Error(error)) if !self.questions.is_empty() => {
                    return Err(refused(error.get()));
                }
                Message::Greeting => return Ok(ReadOutcome::Greeting),
                other => tracing::debug!(?other, "passed over what is no answer to us"),
            }
        }
        if is_unsure | self.questions.take_owed() {
            self.questions.ask(Subject::Status, link, self.heard);
        }
        Ok(ReadOutcome::All)
    }

    /// Takes in an event. True if the run state is to be asked for.
    #[inline]
    fn hear(&mut self, event: &Event<'_>, wants: &RawEventFilter, out: &mut Batch) -> bool {
        let Some(guest) = &mut self.guest else { return false };
        let at = event.at.unwrap_or_else(|| out.received());
        match guest.tracker.observe(event) {
            Meaning::Change(change) => {
                if matches!(change, Change::ShuttingDown(ShutdownCause::Host))
                    && self.departure.may_have_left(self.heard)
                {
                    guest.tracker.set_migrated();
                }
                guest.tell_pause(None, out);
                guest.tell(change, at, out);
            }
            Meaning::Reboot => {
                guest.tell_pause(None, out);
                let domain = guest.domain(out);
                out.event(Reboot::new(domain, at));
            }
            Meaning::PauseWithoutCause => {
                guest.tell_pause(None, out);
                guest.pause = Some((at, self.heard + LOOK));
            }
            Meaning::Duplicate => {}
            Meaning::Other => other(guest, event, at, wants, out),
        }
        guest.tracker.take_needs_status()
    }

    /// Takes in the answer to a question of ours.
    ///
    /// # Errors
    /// QEMU refuses to say its run state, which it said before: that is no sign of life, and the
    /// connection is of no use.
    fn answered(
        &mut self,
        answered: Answered,
        reply: &Reply<'_>,
        shared: &mut SourceContext,
        out: &mut Batch,
    ) -> Result<(), Error> {
        match (answered.subject, reply) {
            (Subject::Status, Reply::Return(value)) => {
                let status = serde_json::from_str::<StatusInfo>(value.get()).ok();
                let status = status.as_ref().map(|answer| &*answer.status);
                self.is_in_state(status, answered, shared, out);
            }
            (Subject::Status, Reply::Error(error)) => return Err(refused(error.get())),
            (Subject::Migration, Reply::Return(value)) => {
                if let Ok(migration) = serde_json::from_str::<MigrationInfo<'_>>(value.get()) {
                    self.departure.see_migration(&migration, self.heard);
                }
            }
            // An old QEMU that lacks the question.
            (Subject::Migration, Reply::Error(_)) => {}
        }
        Ok(())
    }

    /// QEMU says its run state. It is compared with what was told.
    fn is_in_state(
        &mut self,
        status: Option<&str>,
        answered: Answered,
        shared: &mut SourceContext,
        out: &mut Batch,
    ) {
        self.verification.take_if(|id| *id <= answered.id);
        self.look_at = None;
        if let Some(guest) = &mut self.guest {
            // A question from before the pause may have been answered before it.
            if answered.is_latest {
                guest.tell_pause(status, out);
            }
            if let Some(status) = status {
                self.look_at = match guest.tracker.is_stale_status(status) {
                    true => Some(self.heard + AGAIN),
                    false => {
                        guest.tracker.set_status(status);
                        self.departure.see_status(status, self.heard)
                    }
                };
            }
            // After an outage of the source a list tells it.
            let is_of_list = self.role == Role::Source && self.outage.is_some();
            if guest.pause.is_none() && !shared.is_listing && !is_of_list {
                guest.tell_difference(out);
            }
        }
        self.recovered(shared, out);
    }
}

fn refused(error: &str) -> Error {
    let shown: String = error.chars().take(200).collect();
    broken(&format!("QEMU does not answer our question but refuses it: {shown}"))
}
