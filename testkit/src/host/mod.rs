//! The simulated host: its domains, their states, and the events that a hypervisor emits for each
//! change. It has no I/O and no clock, so that all that serve it emit the same events: the
//! in-process [`FakeHypervisor`](crate::FakeHypervisor) and a fake server on a socket.
//!
//! ```text
//!   define ──▶ inactive ──start──▶ running ⇄ paused        create ──▶ running (transient)
//!                 ▲                   │                                   │
//!                 └──── stop, crash ──┘                     stop, crash ──┴──▶ gone
//! ```

mod emit;
mod error;
mod ops;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};
use virevent::driver::Listed;
use virevent::{Domain, DomainEvent, Uuid};

pub use self::error::OpError;

/// A simulated host. Cheap to clone; all clones are the same host.
///
/// The uuid of a domain is a function of its first name. The ids of runs begin at 1.
#[derive(Clone)]
pub struct Host {
    shared: Arc<Shared>,
}

struct Shared {
    source: Arc<str>,
    name: Arc<str>,
    state: Mutex<Inner>,
    /// Counts what was emitted.
    emitted: watch::Sender<u64>,
}

struct Inner {
    /// By name. Changed by [`add`](Inner::add) and [`remove`](Inner::remove).
    domains: BTreeMap<Box<str>, Listed>,
    /// The uuids of all domains, so that a free one is found without a search.
    uuids: HashSet<Uuid>,
    last_id: u32,
    observers: Vec<mpsc::UnboundedSender<Emitted>>,
    /// The number of calls of [`silently`](Host::silently) under way.
    silent: u32,
}

/// An event of a simulated host.
#[derive(Clone, Debug, PartialEq)]
pub struct Emitted {
    /// The event as it goes over the wire: as in libvirt, a stop has no id.
    pub event: DomainEvent,
    /// Its domain after it; `None` if the domain is gone, or the event has none.
    pub now: Option<Listed>,
}

/// The events of a [`Host`], in order, since this observer was made.
///
/// Its queue has no bound, as in a hypervisor's own daemon.
#[derive(Debug)]
pub struct Observer(mpsc::UnboundedReceiver<Emitted>);

impl Observer {
    /// Waits for the next event.
    ///
    /// # Cancel safety
    /// Cancel safe: no event is lost.
    pub async fn next(&mut self) -> Option<Emitted> {
        self.0.recv().await
    }

    /// The next event, if there is one already.
    pub fn try_next(&mut self) -> Option<Emitted> {
        self.0.try_recv().ok()
    }
}

impl Host {
    /// A host with this name and without domains, for a source with the URI `fake:`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self::of_source("fake:", name)
    }

    /// A host with this name and without domains, for a source with this URI.
    #[must_use]
    pub fn of_source(source: &str, name: &str) -> Self {
        let inner = Inner {
            domains: BTreeMap::new(),
            uuids: HashSet::new(),
            last_id: 0,
            observers: Vec::new(),
            silent: 0,
        };
        let (emitted, _) = watch::channel(0);
        let shared =
            Shared { source: source.into(), name: name.into(), state: Mutex::new(inner), emitted };
        Self { shared: Arc::new(shared) }
    }

    /// The name of the host.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The URI of the source, which its domains carry.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.shared.source
    }

    /// Observes the events from now on.
    #[must_use]
    pub fn observe(&self) -> Observer {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.lock().observers.push(sender);
        Observer(receiver)
    }

    /// Observes the events from now on, and returns the domains as of that moment.
    #[must_use]
    pub fn observe_from_now(&self) -> (Vec<Listed>, Observer) {
        let (sender, receiver) = mpsc::unbounded_channel();
        // Under one lock: no event falls between the list and the observer, or into both.
        let mut inner = self.lock();
        inner.observers.push(sender);
        (inner.domains.values().cloned().collect(), Observer(receiver))
    }

    /// Runs `act` without emitting events, as a hypervisor that ends a run silently.
    ///
    /// Operations of other threads meanwhile are silent too.
    pub fn silently<T>(&self, act: impl FnOnce(&Self) -> T) -> T {
        struct Silence<'a>(&'a Host);

        impl Drop for Silence<'_> {
            fn drop(&mut self) {
                self.0.lock().silent -= 1;
            }
        }

        self.lock().silent += 1;
        let _silence = Silence(self);
        act(self)
    }

    /// Every domain, active or not, by name.
    #[must_use]
    pub fn domains(&self) -> Vec<Listed> {
        self.lock().domains.values().cloned().collect()
    }

    /// The domain with this name, with the id of its run if it is active.
    #[must_use]
    pub fn domain(&self, name: &str) -> Option<Domain> {
        self.find(name).map(|entry| entry.domain)
    }

    /// The domain with this name, with its state.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Listed> {
        self.lock().domains.get(name).cloned()
    }

    /// The number of events so far: it changes whenever observers have a new event.
    pub(crate) fn emitted(&self) -> watch::Receiver<u64> {
        self.shared.emitted.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Operations check before they change anything, so a panic leaves no half-done change.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new("fake")
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

/// A uuid (version 8: defined by the application) as a function of the name and of the number of
/// uuids that this name has used already.
pub(crate) fn uuid_of(name: &str, taken: u32) -> Uuid {
    // FNV-1a, 128 bits.
    let hash = |hash: u128, byte: &u8| {
        (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    };
    let seed = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    let bits = name.as_bytes().iter().chain(&taken.to_be_bytes()).fold(seed, hash);
    let version = 0x8 << 76;
    let variant = 0b10 << 62;
    Uuid::from_u128(bits & !(0xf << 76) & !(0b11 << 62) | version | variant)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It takes 48 s if each new domain is compared with all others.
    #[test]
    fn creating_32_000_domains_is_not_quadratic() {
        let host = Host::default();
        let begun = std::time::Instant::now();
        for n in 0..32_000 {
            host.create(&format!("vm{n}")).unwrap();
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(8), "{:?}", begun.elapsed());
    }

    #[test]
    fn uuid_of_a_renamed_domain_is_not_reused() {
        let host = Host::default();
        let web = host.define("web").unwrap();
        host.rename("web", "www").unwrap();
        let second = host.define("web").unwrap();
        assert_ne!(second.uuid(), web.uuid());
        host.undefine("www").unwrap();
        host.undefine("web").unwrap();
        assert_eq!(host.define("web").unwrap().uuid(), web.uuid());
    }

    #[test]
    fn uuid_is_a_function_of_the_name() {
        assert_eq!(uuid_of("web", 0), uuid_of("web", 0));
        assert_ne!(uuid_of("web", 0), uuid_of("web", 1));
        assert_ne!(uuid_of("web", 0), uuid_of("db", 0));
        assert_eq!(uuid_of("web", 0).get_version_num(), 8);
    }
}
