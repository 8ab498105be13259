//! The driver's session on one socket: a host with the QEMU behind it, or with none.

use std::future::poll_fn;
use std::sync::Arc;

use virevent::driver::{self, Batch, Connect, Interest};
use virevent::{Error, Kind, Kinds};

use crate::config::MonitorConfig;
use crate::event_filter::EventFilter;
use crate::monitor::{Monitor, Role, SourceContext, Turn};

/// Makes sessions on one socket.
#[derive(Clone, Debug)]
pub(crate) struct SocketConnector(pub(crate) Arc<MonitorConfig>);

impl Connect for SocketConnector {
    type Session = SocketSession;

    fn uri(&self) -> &str {
        &self.0.uri
    }

    fn kinds(&self) -> Kinds {
        EventFilter::possible()
    }

    async fn connect(&self) -> Result<SocketSession, Error> {
        let mut monitor = Monitor::new(Arc::clone(&self.0), Role::Source);
        let mut shared = SourceContext { is_listing: true, ..SourceContext::default() };
        let mut out = Batch::new(&self.0.uri, &self.0.host);
        let mut turn = Turn { shared: &mut shared, out: &mut out };
        // The batch is dropped: a first list follows, and contains what was found here.
        while !monitor.is_settled() {
            poll_fn(|cx| monitor.poll(cx, &mut turn)).await?;
        }
        let host = Arc::clone(&self.0.host);
        Ok(SocketSession { host, monitor, shared, interest: None, list: None })
    }
}

/// A session on one socket.
pub(crate) struct SocketSession {
    host: Arc<str>,
    monitor: Monitor,
    shared: SourceContext,
    /// A change of interest that is not confirmed yet, and the kinds of it that are refused.
    interest: Option<(u64, Vec<Kind>)>,
    /// The list that the driver waits for.
    list: Option<u64>,
}

impl driver::Session for SocketSession {
    fn host(&self) -> &str {
        &self.host
    }

    fn set_interest(&mut self, interest: &Interest, tag: u64) {
        // QEMU serves one client a monitor: it is released with the last subscriber.
        match interest.is_empty() {
            true => self.monitor.park(&mut self.shared),
            false => self.monitor.unpark(),
        }
        let (filter, refused) = EventFilter::new(interest);
        self.shared.events = filter;
        self.interest = Some((tag, refused));
    }

    fn request_list(&mut self, tag: u64) {
        // A first list is made on a connection on which QEMU has just reported its run state.
        if !self.shared.is_listing {
            self.monitor.verify();
        }
        self.list = Some(tag);
    }

    fn is_ordered(&self) -> bool {
        true
    }

    async fn advance(&mut self, out: &mut Batch) -> Result<(), Error> {
        if !self.monitor.is_waited_for() {
            if let Some((tag, refused)) = self.interest.take() {
                out.interest_done(tag, &refused);
                return Ok(());
            }
            // The driver asks for another list after the outage.
            self.list.take_if(|_| self.monitor.is_unreachable());
            let may_list = self.shared.is_listing || self.monitor.is_verified();
            if let Some(tag) = self.list.take_if(|_| may_list) {
                let entry = self.monitor.listed(out);
                out.listed(tag, entry.into_iter().collect());
                // From here on an outage may be reported.
                self.shared.is_listing = false;
                return Ok(());
            }
        }
        let mut turn = Turn { shared: &mut self.shared, out };
        poll_fn(|cx| self.monitor.poll(cx, &mut turn)).await
    }
}

#[cfg(test)]
mod tests;
