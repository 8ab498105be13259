//! The source: a fleet's stream as an `EventSource`.

mod fleet;
mod reach;
mod session;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use virevent::driver::{Connect, Driver, Reconnect, Settings};
use virevent::{Error, Kinds};

use self::session::FleetSession;
use crate::broker::{Broker, connect};
use crate::link::Link;
use crate::uri::NatsUri;

/// A fleet in NATS JetStream, which relays write. By value:
/// `Nats::new("nats://server/virevent")?.source()`.
#[derive(Clone, Debug)]
#[must_use = "call source()"]
pub struct Nats {
    uri: NatsUri,
    settings: Settings,
    refused: Refused,
}

/// Counts the messages that a source refused: those that are no event of virevent's, or whose body
/// is of another host than their subject.
#[derive(Clone, Debug, Default)]
pub struct Refused(Arc<AtomicU64>);

impl Refused {
    /// The number of messages so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, messages: u64) {
        self.0.fetch_add(messages, Ordering::Relaxed);
    }
}

impl Nats {
    /// The fleet of a URI, `nats://server:4222/stream`. Without a stream it is `virevent`. Does no
    /// I/O.
    ///
    /// # Errors
    /// [`Error::InvalidUri`]: what is wrong with it, and what to do.
    pub fn new(uri: &str) -> Result<Self, Error> {
        Ok(Self {
            uri: NatsUri::parse(uri)?,
            settings: Settings::default(),
            refused: Refused::default(),
        })
    }

    /// What all backends share: deadlines, reconnecting, verification.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// The counter of refused messages of the sources that this makes.
    #[must_use]
    pub fn refused(&self) -> Refused {
        self.refused.clone()
    }

    /// Makes the source. Does no I/O: the first subscription connects.
    #[must_use]
    pub fn source(self) -> Driver {
        let settings = self.settings;
        let connector = FleetConnector { uri: self.uri, refused: self.refused };
        Driver::builder(connector).reconnect(Reconnect::remote()).settings(&settings).build()
    }
}

#[derive(Debug)]
struct FleetConnector {
    uri: NatsUri,
    refused: Refused,
}

impl Connect for FleetConnector {
    type Session = FleetSession;

    fn uri(&self) -> &str {
        &self.uri.shown
    }

    fn kinds(&self) -> Kinds {
        Kinds::all()
    }

    async fn connect(&self) -> Result<FleetSession, Error> {
        let (options, link) = Link::options();
        let client = connect(&self.uri, options).await?;
        let broker = Broker::find(client, &self.uri).await?;
        Ok(FleetSession::new(&self.uri, broker, link, self.refused.clone()))
    }
}
