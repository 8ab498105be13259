//! Watchers of one daemon, each with a connection of its own that can be cut.

use virevent::Change;
use virevent::driver::Settings;
use virevent_testkit::servers::{Libvirtd, Tap, Virsh};

use super::table::Table;
use super::*;

/// Far shorter than the hooks of these tests hang.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) struct Watcher {
    pub(crate) tap: Tap,
    pub(crate) source: Driver,
    events: EventStream,
    table: Table,
}

impl Watcher {
    /// A watcher that verifies at this interval. Its stream waits for the source, so that it opens
    /// while a list has no reply, too.
    pub(crate) async fn new(daemon: &Libvirtd, verify: Duration) -> Self {
        let tap = Tap::before(daemon).unwrap();
        let quick =
            Reconnect::local().base(Duration::from_millis(10)).max(Duration::from_millis(100));
        let settings =
            Settings::default().call_timeout(CALL_TIMEOUT).reconnect(quick).verify(Some(verify));
        let source = Libvirt::new(&tap.uri(daemon.qemu())).unwrap().settings(settings).source();
        let events = source.subscribe_with(Options::default().wait(true)).await.unwrap();
        Self { tap, source, events, table: Table::default() }
    }

    /// Cuts the connection; the next attempt succeeds.
    pub(crate) fn cut(&self) {
        self.tap.go_down();
        self.tap.come_back().unwrap();
    }

    /// Reads until this change of the domain has been delivered.
    pub(crate) async fn until(&mut self, name: &str, change: Change) {
        loop {
            let event = match next_within(&mut self.events, PATIENCE).await {
                Ok(event) => event,
                Err(failure) => panic!(
                    "{failure}, and no {name} {change}: {:#?}, {:?}",
                    self.table,
                    self.tap.seen()
                ),
            };
            self.table.apply(&event);
            let about = event.domain().is_some_and(|domain| domain.name() == name);
            if about && event.change() == Some(change) {
                return;
            }
        }
    }

    /// Reads until its table equals virsh's list.
    pub(crate) async fn until_equal(&mut self, virsh: &Virsh) {
        self.table.until_equal_within(&mut self.events, virsh, Duration::from_secs(30)).await;
    }
}
