//! The routing of replies: each goes to the registration, the scan or the domains.

use tokio::time::Instant;
use virevent::Error;

use super::Observer;
use super::domains::Found;
use super::report::Report;
use crate::pipeline::{Outcome, protocol, server_error};
use crate::request::{StoreRequest, WatchTarget};
use crate::wire::error;

impl Observer {
    pub(super) fn answer(
        &mut self,
        request: StoreRequest,
        outcome: Outcome<'_>,
        now: Instant,
        report: &mut Report<'_>,
    ) -> Result<(), Error> {
        check_acknowledgement(request, outcome)?;
        match request {
            StoreRequest::Features => self.registration.features(outcome),
            StoreRequest::Reset => {
                if self.registration.reset_replied(request, outcome)? {
                    self.forget();
                }
            }
            // Any reply proves that the server lives.
            StoreRequest::Probe => {}
            StoreRequest::Watch(WatchTarget::Domain(domid, node), _) => {
                let is_new = was_set(request, outcome)?;
                self.domains.watched(domid, node, is_new);
            }
            StoreRequest::Watch(target, _) => {
                self.registration.watched(request, target, outcome)?;
            }
            StoreRequest::Unwatch(target) => {
                check_unwatched(request, outcome)?;
                match target {
                    WatchTarget::Domain(domid, node) => {
                        self.domains.unwatched(domid, node, &mut self.scan);
                    }
                    special => self.registration.unwatched(special),
                }
            }
            // There is no subscriber any more.
            // Replies to requests of before the end still come, in their order.
            _ if !self.scan.is_active() => {}
            StoreRequest::List | StoreRequest::ListPart(_) => {
                let pipeline = &mut self.pipeline;
                if let Some(domids) = self.scan.list_replied(request, outcome, pipeline, now)? {
                    self.scan.listed(&domids, &mut self.domains, now, report);
                }
            }
            StoreRequest::IsIntroduced(domid) => {
                let is_introduced = truth(request, outcome)?;
                // First the fact, then the comparison: each reply may be the one that settles the domain.
                self.domains.introduced(domid, is_introduced, &mut self.scan, now);
                self.domains.reconcile(domid, &mut self.scan, now, report);
            }
            StoreRequest::ReadDirectory(domid) => {
                let found = self.domains.found(request, outcome);
                self.domains.read_directory(domid, found, &mut self.scan);
                self.domains.reconcile(domid, &mut self.scan, now, report);
            }
            StoreRequest::Read(domid, node) => {
                let found: Found<'_> = self.domains.found(request, outcome);
                self.domains.read(domid, node, found, &mut self.scan);
                self.domains.reconcile(domid, &mut self.scan, now, report);
            }
        }
        Ok(())
    }
}

/// Checks that a request without a result is answered by `OK`. A server that sends something else is no store,
/// and must not pass for an empty one.
#[inline]
fn check_acknowledgement(request: StoreRequest, outcome: Outcome<'_>) -> Result<(), Error> {
    let has_no_result =
        matches!(request, StoreRequest::Watch(..) | StoreRequest::Unwatch(_) | StoreRequest::Reset);
    match outcome {
        Ok(text) if has_no_result && !matches!(text, b"OK\0" | b"OK") => {
            Err(protocol(format!("a {} was not answered by OK", request.to_line())))
        }
        _ => Ok(()),
    }
}

/// Whether a watch of a domain's node was set, and not there already.
fn was_set(request: StoreRequest, outcome: Outcome<'_>) -> Result<bool, Error> {
    match outcome {
        Ok(_) => Ok(true),
        Err(name) if name == error::EEXIST.as_bytes() => Ok(false),
        Err(name) => Err(server_error(request, name)),
    }
}

fn check_unwatched(request: StoreRequest, outcome: Outcome<'_>) -> Result<(), Error> {
    match outcome {
        Ok(_) => Ok(()),
        Err(name) if name == error::ENOENT.as_bytes() => Ok(()),
        Err(name) => Err(server_error(request, name)),
    }
}

fn truth(request: StoreRequest, outcome: Outcome<'_>) -> Result<bool, Error> {
    match outcome {
        Ok(b"T\0" | b"T") => Ok(true),
        Ok(b"F\0" | b"F") => Ok(false),
        Ok(_) => Err(protocol(format!("neither T nor F to a {}", request.to_line()))),
        Err(name) => Err(server_error(request, name)),
    }
}
