//! What the driver sees: a host that has the QEMU behind the socket, or none.

use std::future::poll_fn;
use std::sync::Arc;

use virevent::Error;
use virevent::driver::{self, Batch, Connect, Interest};

use crate::config::MonitorConfig;
use crate::monitor::{Monitor, Role, SourceContext};
use crate::raw_event_filter::RawEventFilter;

/// Watches one socket.
#[derive(Clone, Debug)]
pub(crate) struct SocketConnector(pub(crate) Arc<MonitorConfig>);

impl Connect for SocketConnector {
    type Session = SocketSession;

    fn uri(&self) -> &str {
        &self.0.uri
    }

    async fn connect(&self) -> Result<SocketSession, Error> {
        let mut monitor = Monitor::new(Arc::clone(&self.0), Role::Source);
        let mut shared = SourceContext { is_listing: true, ..SourceContext::default() };
        let mut batch = Batch::new(&self.0.uri, &self.0.host);
        while monitor.is_first() {
            poll_fn(|cx| monitor.poll(cx, &mut shared, &mut batch)).await?;
        }
        let host = Arc::clone(&self.0.host);
        Ok(SocketSession { host, monitor, shared, interest: None, list: None })
    }
}

pub(crate) struct SocketSession {
    host: Arc<str>,
    monitor: Monitor,
    shared: SourceContext,
    /// A change of interest that is not confirmed yet.
    interest: Option<(u64, Vec<virevent::Kind>)>,
    list: Option<u64>,
}

impl driver::Session for SocketSession {
    fn host(&self) -> &str {
        &self.host
    }

    fn set_interest(&mut self, interest: &Interest, tag: u64) {
        // A monitor serves one client: it is let go as soon as nobody listens.
        match interest.is_empty() {
            true => self.monitor.park(&mut self.shared),
            false => self.monitor.unpark(),
        }
        let (wants, refused) = RawEventFilter::of(interest);
        self.shared.wants = wants;
        self.interest = Some((tag, refused));
    }

    fn request_list(&mut self, tag: u64) {
        // Else it is the list of a connection that QEMU has just answered on.
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
            // Another is asked for when QEMU is back.
            self.list.take_if(|_| self.monitor.is_out());
            let may_list = self.shared.is_listing || self.monitor.is_verified();
            if let Some(tag) = self.list.take_if(|_| may_list) {
                let entry = self.monitor.listed(out);
                out.listed(tag, entry.into_iter().collect());
                // What is wrong is told after it.
                self.shared.is_listing = false;
                return Ok(());
            }
        }
        poll_fn(|cx| self.monitor.poll(cx, &mut self.shared, out)).await
    }
}

#[cfg(test)]
mod tests;
