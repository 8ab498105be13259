//! What is known of a domain, against what was told of it.

use tokio::time::Instant;
use virevent::driver::Batch;
use virevent::{Change, Domain, Lifecycle, RawEvent, ShutdownCause, Uuid};

use super::phase::Phase;
use super::{LIMIT, Observer, PastRun};
use crate::decode::{self, Request};
use crate::slot::{Course, Questions, Run, Slot, Watch};

impl Observer {
    /// Looks at what is known of the domain, and tells what is new.
    pub(super) fn judge(&mut self, domid: u16, now: Instant, out: &mut Batch) {
        // Taken out meanwhile: another run may have to be told of, too.
        let taken = self.slots.get_mut(usize::from(domid)).and_then(Option::take);
        let Some(mut slot) = taken else { return };
        let was_seen = slot.seen;
        self.judge_slot(domid, &mut slot, now, out);
        if slot.seen && !was_seen {
            self.unseen -= 1;
        }
        self.slots[usize::from(domid)] = Some(slot);
        self.sweep_out(domid);
    }

    fn judge_slot(&mut self, domid: u16, slot: &mut Slot, now: Instant, out: &mut Batch) {
        // Events that came meanwhile say that it may be another by now.
        if !slot.is_identity_settled() {
            return;
        }
        let Some(introduced) = slot.introduced else { return };
        slot.wanted = introduced;
        let unlike = if slot.wanted { Watch::Off } else { Watch::On };
        if slot.watches.contains(&unlike) && !std::mem::replace(&mut slot.queued, true) {
            self.queue.push_back(domid);
        }
        let is_gone = !introduced || slot.homeless;
        if !is_gone {
            if slot.since.is_none() {
                slot.since = Some(now);
                self.limits.insert((now + LIMIT, domid));
            }
            if !slot.read.has_all(Questions::NODES) {
                return;
            }
        }
        slot.seen = true;
        slot.withheld = self.is_withheld(slot);
        if slot.withheld {
            return;
        }
        if is_gone {
            slot.shut_down = false;
            self.end(domid, slot, out);
            return;
        }
        self.identify(domid, slot, now, out);
        self.hear(domid, slot, out);
    }

    /// Compares who the domain is with who it was.
    fn identify(&mut self, domid: u16, slot: &mut Slot, now: Instant, out: &mut Batch) {
        let uuid = if domid == 0 { Some(Uuid::nil()) } else { slot.uuid };
        if let Some(run) = &slot.run {
            if uuid.is_some_and(|uuid| uuid != run.domain.uuid()) {
                // Another domain has this number now.
                self.end(domid, slot, out);
                slot.since = Some(now);
                self.limits.insert((now + LIMIT, domid));
            }
        }
        let Some(run) = &mut slot.run else {
            // What is not written is as it was before the connection, if it is the same run.
            let before =
                self.past(domid).filter(|before| uuid.is_none_or(|uuid| uuid == before.uuid));
            let uuid = uuid.or(before.map(|before| before.uuid));
            let name = slot.name.clone().or_else(|| Some(before?.name.clone()));
            // What was asked of the run before is not asked of this one.
            let is_read = slot.is_settled(Questions::SHUTDOWN);
            let whole = uuid.is_some() && name.is_some() && is_read;
            if whole || slot.late || domid == 0 {
                let uuid = uuid.unwrap_or_else(|| decode::uuid_of(&self.host, domid));
                let name = name.unwrap_or_else(|| decode::name_of(domid).into());
                let domain = out.domain(uuid, &name, Some(u32::from(domid)));
                self.begin(domid, slot, domain, out);
            }
            return;
        };
        // A name that is gone is about to be written anew, or to go with all the rest.
        if let Some(name) = slot.name.as_deref().filter(|name| *name != run.domain.name()) {
            run.domain = out.domain(run.domain.uuid(), name, Some(u32::from(domid)));
            if self.is_told(domid, run.domain.uuid()) {
                out.state(run.domain.clone(), run.course.state());
                self.told = true;
            }
        }
    }

    /// What is known from before the connection, as long as that is compared with what there is.
    fn past(&self, domid: u16) -> Option<&PastRun> {
        self.past.0.get(&domid).filter(|_| self.phase == Phase::Listing)
    }

    /// A run that is told of from now on.
    fn begin(&mut self, domid: u16, slot: &mut Slot, domain: Domain, out: &mut Batch) {
        let uuid = domain.uuid();
        let mut run = Run { domain, course: Course::default(), request: Request::Nothing };
        if self.phase == Phase::Listing {
            let before = self.past(domid).filter(|before| before.uuid == uuid);
            run.course = before.map(|before| before.course).unwrap_or_default();
            run.course.asked |= slot.request.is_ending();
            run.request = slot.request.clone();
        }
        let others = self.runs.entry(uuid).or_default();
        let before = others.last().copied();
        others.push(domid);
        if self.tells() {
            // A migration within the host: from now on the domain is where it goes to.
            if let Some(before) = before.and_then(|before| self.slot(before)?.run.as_ref()) {
                out.gone(&before.domain, decode::stop_cause(before.course.asked));
            }
            out.state(run.domain.clone(), run.course.state());
            self.told = true;
        }
        slot.run = Some(run);
    }

    /// The run that is known under this number, if any, is over.
    fn end(&mut self, domid: u16, slot: &mut Slot, out: &mut Batch) {
        if let Some(since) = slot.since.take() {
            self.limits.remove(&(since + LIMIT, domid));
        }
        slot.late = false;
        let Some(run) = slot.run.take() else { return };
        let uuid = run.domain.uuid();
        let was_told = self.is_told(domid, uuid);
        let left = self.runs.get_mut(&uuid).and_then(|runs| {
            runs.retain(|other| *other != domid);
            runs.last().copied()
        });
        if left.is_none() {
            self.runs.remove(&uuid);
        }
        if !was_told {
            return;
        }
        out.gone(&run.domain, decode::stop_cause(run.course.asked));
        self.told = true;
        if let Some(left) = left.and_then(|left| self.slot(left)?.run.as_ref()) {
            out.state(left.domain.clone(), left.course.state());
        }
    }

    /// Whether changes are delivered, and not left to a list.
    fn tells(&self) -> bool {
        self.phase == Phase::Telling && !self.quiet
    }

    /// Whether what happens to this run is told.
    fn is_told(&self, domid: u16, uuid: Uuid) -> bool {
        self.tells() && self.runs.get(&uuid).is_some_and(|runs| runs.last() == Some(&domid))
    }

    /// What the host asks of the guest, and whether the guest has shut down.
    fn hear(&mut self, domid: u16, slot: &mut Slot, out: &mut Batch) {
        let shut_down = std::mem::take(&mut slot.shut_down);
        let Some(run) = &mut slot.run else { return };
        let is_asked = run.request != slot.request;
        if !is_asked && !shut_down {
            return;
        }
        let is_told = self.is_told(domid, run.domain.uuid());
        if is_asked {
            run.request = slot.request.clone();
            if run.request.is_ending() {
                // How far it came after the request before says nothing any more.
                run.course = Course { asked: true, finished: false };
            }
            if is_told && run.request != Request::Nothing {
                let at = out.received();
                if run.request.is_ending() {
                    let change = Change::ShuttingDown(ShutdownCause::Host);
                    out.event(Lifecycle::new(run.domain.clone(), change, at));
                }
                if self.wants_requests {
                    let (name, data) = run.request.event();
                    let domain = Some(run.domain.clone());
                    out.event(RawEvent::new(out.source(), domain, name, data, at));
                }
                self.told = true;
            }
        }
        if shut_down && !std::mem::replace(&mut run.course.finished, true) && is_told {
            tell_finished(run, out);
            self.told = true;
        }
    }

    /// Some domain shut down and is still there, or the event meant nothing, as it may. It is told of one
    /// only where that invents nothing: of the only one there is, if it was asked to shut down.
    pub(super) fn finish_the_only_one(&mut self, out: &mut Batch) {
        let mut running =
            self.slots().filter(|(domid, slot)| *domid != 0 && slot.introduced == Some(true));
        let (Some((domid, _)), None) = (running.next(), running.next()) else { return };
        drop(running);
        let Some(run) = self.slot_mut(domid).and_then(|slot| slot.run.as_mut()) else { return };
        if run.course.asked && !std::mem::replace(&mut run.course.finished, true) {
            tell_finished(run, out);
            self.told = true;
        }
    }

    /// Forgets a number that is nobody's, once nothing is under way for it.
    pub(super) fn sweep_out(&mut self, domid: u16) {
        let Some(place) = self.slots.get_mut(usize::from(domid)) else { return };
        let gone = place.take_if(|slot| {
            !slot.listed && slot.introduced != Some(true) && slot.is_idle() && slot.run.is_none()
        });
        if gone.is_some_and(|slot| !slot.seen) {
            self.unseen -= 1;
        }
    }
}

fn tell_finished(run: &Run, out: &mut Batch) {
    let change = Change::ShuttingDown(ShutdownCause::Finished);
    let at = out.received();
    out.event(Lifecycle::new(run.domain.clone(), change, at));
}
