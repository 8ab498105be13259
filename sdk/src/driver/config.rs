//! The configuration of a driver, and the builder that makes one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use super::core::Core;
use super::facts::Facts;
use super::gate::Gate;
use super::task::Task;
use super::{Connect, Driver, Reconnect, Settings, SourceHandle, Start};
use crate::Status;
use crate::command::CommandSender;

/// Configures a [`Driver`].
#[derive(Debug)]
#[must_use = "call build()"]
pub struct Builder<C> {
    connect: C,
    config: Config,
}

#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) reconnect: Reconnect,
    pub(super) connect_timeout: Duration,
    pub(super) call_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) keepalive_interval: Option<Duration>,
    pub(super) keepalive_count: u32,
    pub(super) verify: Option<Duration>,
    pub(super) refusal_timeout: Duration,
    pub(super) gate: Option<Gate>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            reconnect: Reconnect::local(),
            connect_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(10),
            // Long enough that a program which subscribes again and again, once a page view or a
            // poll, keeps its connection.
            idle_timeout: Duration::from_secs(30),
            keepalive_interval: Some(Duration::from_secs(5)),
            // libvirtd's own defaults (keepalive_interval 5, keepalive_count 5), so that both ends
            // notice a dead peer at about the same time.
            keepalive_count: 5,
            verify: Some(Duration::from_secs(60)),
            refusal_timeout: Duration::from_secs(60),
            gate: None,
        }
    }
}

/// An interval that never passes, and that a clock can still be set to: ten years.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The shortest interval between two verifications: each list costs the hypervisor.
const MIN_VERIFY: Duration = Duration::from_millis(100);

impl Config {
    pub(super) fn set_verify(&mut self, interval: Option<Duration>) {
        self.verify = enabled(interval).map(|interval| interval.max(MIN_VERIFY));
    }

    pub(super) fn set_keepalive(&mut self, interval: Option<Duration>, count: u32) {
        self.keepalive_interval = enabled(interval);
        self.keepalive_count = count;
    }
}

/// For intervals: zero disables, as `None` does.
// `Some(Duration::ZERO)` would list or ping in a busy loop, so it means what a user of a zero
// expects: off.
fn enabled(interval: Option<Duration>) -> Option<Duration> {
    interval.filter(|interval| !interval.is_zero()).map(|interval| interval.min(NEVER))
}

impl<C: Connect> Builder<C> {
    pub(super) fn new(connect: C) -> Self {
        Self { connect, config: Config::default() }
    }

    /// How to reconnect. Default: [`Reconnect::local`].
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.config.reconnect = reconnect;
        self
    }

    /// How long connecting may take, the handshake included. Default: 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect_timeout = timeout;
        self
    }

    /// How long the server may take to answer a call. After that time a subscription that waits for
    /// the answer fails, or opens with [`Disconnected`](crate::GapKind::Disconnected); streams go
    /// on without the list. Where the server answers no keepalives, the driver drops the
    /// connection. Default: 10 s.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.config.call_timeout = timeout;
        self
    }

    /// How long the driver keeps the connection without a subscriber. Default: 30 s.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.config.idle_timeout = timeout;
        self
    }

    /// After how much silence to send a keepalive, and how many times in a row, one interval apart,
    /// before the driver drops the connection: after `interval * (count + 1)` of silence. Default:
    /// 5 s, 5 times. `None` sends none.
    pub fn keepalive(mut self, interval: Option<Duration>, count: u32) -> Self {
        self.config.set_keepalive(interval, count);
        self
    }

    /// How often to compare everything that is believed of the domains with a list. `None` never
    /// compares, nor looks again at a domain that is in doubt. Default: 60 s, with a jitter of a
    /// tenth; at least 100 ms. Zero counts as `None`.
    pub fn verify(mut self, interval: Option<Duration>) -> Self {
        self.config.set_verify(interval);
        self
    }

    /// How long a server that was reached before may refuse a connection, and do nothing else,
    /// before the streams end. Default: 60 s: a certificate that is being replaced must not end a
    /// service.
    pub fn refusal_timeout(mut self, timeout: Duration) -> Self {
        self.config.refusal_timeout = timeout;
        self
    }

    /// Applies what the user of the source chose.
    pub fn settings(mut self, settings: &Settings) -> Self {
        settings.apply(&mut self.config);
        self
    }

    /// Makes the source. Does no I/O, and needs no runtime yet.
    pub fn build(self) -> Driver {
        let uri: Arc<str> = Arc::from(self.connect.uri());
        let kinds = self.connect.kinds();
        let facts = Arc::new(Facts::default());
        facts.change_capabilities(|capabilities| capabilities.kinds = kinds.clone());
        let (publisher, status) = watch::channel(Status::Idle);
        let (commands, receiver) = CommandSender::channel();
        let core = Core::new(Arc::clone(&uri), kinds, &self.config, publisher, Arc::clone(&facts));
        let task = Task::new(self.connect, self.config, receiver, core);
        // Not spawned here: a source can be made before there is a runtime, and one that is never
        // used costs no task.
        let start: Start = Box::new(move |runtime| {
            runtime.spawn(task.run());
        });
        let start = Mutex::new(Some(start));
        Driver { handle: Arc::new(SourceHandle { uri, commands, status, facts, start }) }
    }
}
