//! What a monitor does when it is time, rather than when something comes.

use tokio::time::Instant;
use virevent::driver::Batch;
use virevent::{Error, Scope};

use super::{LAST_WORDS, Monitor};

impl Monitor {
    /// True if an outage was told.
    pub(super) fn tell_trouble(&mut self, now: Instant, out: &mut Batch) -> bool {
        match &self.trouble {
            Some((due, fault)) if now >= *due && !self.is_out && !self.is_listing => {
                out.outage(Scope::Source, fault.clone());
                self.is_out = true;
                true
            }
            _ => false,
        }
    }

    pub(super) fn meet_deadlines(&mut self, now: Instant, out: &mut Batch) -> Result<bool, Error> {
        if let Some(guest) = &mut self.guest {
            if guest.pause.is_some_and(|(_, due)| now >= due) {
                guest.tell_pause(None, out);
                return Ok(true);
            }
        }
        if let Some((_, since)) = &self.attempt {
            if now >= *since + self.config.greeting && self.trouble.is_none() {
                let error = self.config.held();
                if self.is_first {
                    return Err(error);
                }
                self.trouble = Some((now, error.to_fault()));
            }
        }
        if let Some((_, since)) = self.question {
            if now >= since + self.config.answer && self.trouble.is_none() {
                let after = self.config.answer;
                let error = Error::Timeout { call: "query-status", after };
                self.trouble = Some((now, error.to_fault()));
            }
        } else if let Some(link) = &mut self.link {
            let quiet = self.heard + self.config.interval;
            if now >= self.look_at.map_or(quiet, |at| at.min(quiet)) {
                self.look_at = None;
                self.question = Some((link.send("query-status"), now));
                return Ok(true);
            }
        }
        Ok(self.tell_trouble(now, out))
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let guest = self.guest.as_ref();
        let calm = self.trouble.is_none();
        let deadlines = [
            guest.and_then(|guest| guest.pause).map(|(_, due)| due),
            guest.and_then(|guest| guest.ended).map(|ended| ended + LAST_WORDS),
            self.attempt.as_ref().filter(|_| calm).map(|(_, since)| *since + self.config.greeting),
            self.question.filter(|_| calm).map(|(_, since)| since + self.config.answer),
            (self.link.is_some() && self.question.is_none())
                .then(|| self.heard + self.config.interval),
            self.look_at.filter(|_| self.link.is_some() && self.question.is_none()),
            (self.link.is_none() && self.attempt.is_none()).then_some(self.retry_at),
            self.trouble.as_ref().filter(|_| !self.is_out && !self.is_listing).map(|(due, _)| *due),
        ];
        deadlines.into_iter().flatten().min()
    }
}
