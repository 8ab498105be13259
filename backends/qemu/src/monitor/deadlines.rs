//! What a monitor does when it is time, rather than when something comes.

use tokio::time::Instant;
use virevent::driver::Batch;
use virevent::{Error, Fault, FaultKind};

use super::connecting::Attempt;
use super::questions::Subject;
use super::{LAST_WORDS, Monitor, Role, SourceContext};

impl Monitor {
    pub(super) fn meet_deadlines(
        &mut self,
        now: Instant,
        shared: &mut SourceContext,
        out: &mut Batch,
    ) -> Result<bool, Error> {
        if let Some(guest) = &mut self.guest {
            if guest.pause.is_some_and(|(_, due)| now >= due) {
                guest.tell_pause(None, out);
                return Ok(true);
            }
        }
        if let Some(attempt) = &self.attempt {
            if now >= attempt.silent_since() + self.config.greeting && self.trouble.is_none() {
                let error = attempt.silence(&self.config, now);
                if self.is_first && self.role == Role::Source {
                    return Err(error);
                }
                self.trouble = Some((now, error.to_fault()));
            }
            if self.given_up_at(attempt).is_some_and(|at| now >= at) {
                self.give_up(now, shared, out);
                return Ok(true);
            }
        }
        if let Some(since) = self.questions.since() {
            if now >= since + self.config.answer && self.trouble.is_none() {
                let error = self.config.mute(self.config.answer);
                self.trouble = Some((now, Fault::new(FaultKind::Timeout, &error.to_line())));
                if self.config.may_be_half_open() {
                    self.link = None;
                    self.unheard_from = Some(now);
                    self.forget_questions();
                    self.retry_at = now;
                }
            }
        } else if let Some(link) = &mut self.link {
            let due = self.questions.asked_at() + self.config.interval;
            if now >= self.look_at.map_or(due, |at| at.min(due)) {
                self.look_at = None;
                // First, so that the answer says how to take that about the run state.
                if self.departure.is_possible() {
                    self.questions.ask(Subject::Migration, link, now);
                }
                self.questions.ask(Subject::Status, link, now);
                return Ok(true);
            }
        }
        Ok(self.tell_trouble(now, shared, out))
    }

    /// When to connect anew, because nothing else would tell that nobody is there any more. A local
    /// QEMU is waited for in one place: it has not gone without a word, and others wait in the line. But
    /// what was never known to be a QEMU's may be another's, in whose way we are.
    fn given_up_at(&self, attempt: &Attempt) -> Option<Instant> {
        let is_strange = self.role == Role::Part && self.guest.is_none() && !attempt.has_greeted();
        if is_strange {
            return Some(attempt.silent_since() + self.config.greeting);
        }
        let patience = self.config.greeting + self.config.answer;
        self.config.may_be_half_open().then(|| attempt.silent_since() + patience)
    }

    pub(super) fn next_deadline(&self, shared: &SourceContext) -> Option<Instant> {
        let (guest, attempt) = (self.guest.as_ref(), self.attempt.as_ref());
        let calm = self.trouble.is_none();
        let may_ask = self.link.is_some() && self.questions.is_empty();
        let deadlines = [
            guest.and_then(|guest| guest.pause).map(|(_, due)| due),
            guest.and_then(|guest| guest.ended).map(|ended| ended + LAST_WORDS),
            attempt.filter(|_| calm).map(|attempt| attempt.silent_since() + self.config.greeting),
            attempt.and_then(|attempt| self.given_up_at(attempt)),
            self.questions.since().filter(|_| calm).map(|since| since + self.config.answer),
            may_ask.then(|| self.questions.asked_at() + self.config.interval),
            self.look_at.filter(|_| may_ask),
            (self.link.is_none() && self.attempt.is_none() && self.may_connect(shared))
                .then_some(self.retry_at),
            self.trouble.as_ref().filter(|_| self.may_tell_trouble(shared)).map(|(due, _)| *due),
        ];
        deadlines.into_iter().flatten().min()
    }
}
