//! A source for tests, whose events a test makes: it confirms registrations and answers lists.

use std::fmt::Debug;

use virevent::Error;
use virevent::driver::{Batch, Connect, Interest, Listed, Session};

/// What a test defines of its hypervisor.
pub(crate) trait Peer: Clone + Debug + Send + Sync + 'static {
    const URI: &'static str;

    /// Whether it answers a list now.
    fn answers_lists(&self) -> bool {
        true
    }

    /// Called at each request for a list.
    fn list_requested(&self) {}

    fn list(&self, _out: &mut Batch) -> Vec<Listed> {
        Vec::new()
    }

    /// Waits for events and appends them to `out`.
    fn read(&mut self, out: &mut Batch) -> impl Future<Output = ()> + Send;
}

/// Connects to a [`Peer`].
#[derive(Clone, Debug)]
pub(crate) struct Hypervisor<P>(pub(crate) P);

pub(crate) struct Connection<P> {
    peer: P,
    interest: Option<u64>,
    list: Option<u64>,
}

impl<P: Peer> Connect for Hypervisor<P> {
    type Session = Connection<P>;

    fn uri(&self) -> &str {
        P::URI
    }

    async fn connect(&self) -> Result<Connection<P>, Error> {
        Ok(Connection { peer: self.0.clone(), interest: None, list: None })
    }
}

impl<P: Peer> Session for Connection<P> {
    fn host(&self) -> &str {
        "host"
    }

    fn set_interest(&mut self, _: &Interest, tag: u64) {
        self.interest = Some(tag);
    }

    fn request_list(&mut self, tag: u64) {
        self.list = Some(tag);
        self.peer.list_requested();
    }

    async fn advance(&mut self, out: &mut Batch) -> Result<(), Error> {
        if let Some(tag) = self.interest.take() {
            out.interest_done(tag, &[]);
        } else if let Some(tag) = self.list.take_if(|_| self.peer.answers_lists()) {
            let list = self.peer.list(out);
            out.listed(tag, list);
        } else {
            self.peer.read(out).await;
        }
        Ok(())
    }
}
