//! The simulated host: which domains there are, how they are, and what a hypervisor would say of
//! each change. No I/O and no clock of its own, so that whatever serves it (the in-process
//! [`FakeHypervisor`](crate::FakeHypervisor), a fake server on a socket) tells the same story.
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
/// A domain has the same uuid wherever and whenever its name is first used: a function of the name.
/// The runs are numbered from 1.
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
    /// Of all domains, so that the uuid of a new one is found at once.
    uuids: HashSet<Uuid>,
    last_id: u32,
    observers: Vec<mpsc::UnboundedSender<Emitted>>,
    /// How many act without a word.
    silent: u32,
}

/// What the hypervisor says when something happens.
#[derive(Clone, Debug, PartialEq)]
pub struct Emitted {
    /// The event as it goes over the wire: one that ends a run has no id, as libvirt's have not.
    pub event: DomainEvent,
    /// How its domain is after it; `None` when the domain is gone, or there is none.
    pub now: Option<Listed>,
}

/// What a [`Host`] emits, in order, from the moment on that it was asked for.
///
/// Holds what was not taken yet without a bound, as a hypervisor's own daemon does.
#[derive(Debug)]
pub struct Observer(mpsc::UnboundedReceiver<Emitted>);

impl Observer {
    /// What comes next.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost.
    pub async fn next(&mut self) -> Option<Emitted> {
        self.0.recv().await
    }

    /// What comes next, if it is there already.
    pub fn try_next(&mut self) -> Option<Emitted> {
        self.0.try_recv().ok()
    }
}

impl Host {
    /// A host of this name, without domains, whose domains a source of the URI `fake:` tells of.
    pub fn new(name: &str) -> Self {
        Self::of_source("fake:", name)
    }

    /// A host of this name, without domains, whose domains a source of this URI tells of.
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

    /// What the host calls itself.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The URI of the source that its domains carry.
    pub fn source(&self) -> &str {
        &self.shared.source
    }

    /// Begins to observe what is emitted.
    pub fn observe(&self) -> Observer {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.lock().observers.push(sender);
        Observer(receiver)
    }

    /// Begins to observe, and says how things are at that very moment.
    pub fn observe_from_now(&self) -> (Vec<Listed>, Observer) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut inner = self.lock();
        inner.observers.push(sender);
        (inner.domains.values().cloned().collect(), Observer(receiver))
    }

    /// Does something and emits nothing, as a hypervisor that ends a run without a word.
    ///
    /// What other threads do meanwhile is silent, too.
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
    pub fn domains(&self) -> Vec<Listed> {
        self.lock().domains.values().cloned().collect()
    }

    /// The domain of that name, with the id of its run if it has one.
    pub fn domain(&self, name: &str) -> Option<Domain> {
        self.find(name).map(|entry| entry.domain)
    }

    /// The domain of that name, with its state.
    pub fn find(&self, name: &str) -> Option<Listed> {
        self.lock().domains.get(name).cloned()
    }

    /// Counts what was emitted: changes whenever an observer has something to take.
    pub(crate) fn emitted(&self) -> watch::Receiver<u64> {
        self.shared.emitted.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every operation checks first and changes then, so a panic leaves no half of it.
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

/// A uuid (version 8: made by the application) that is a function of the name and of how many uuids
/// of that name were taken already.
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

    /// Where each new domain is compared with all the others this takes 48 s.
    #[test]
    fn many_domains_are_made_in_no_time() {
        let host = Host::default();
        let begun = std::time::Instant::now();
        for n in 0..32_000 {
            host.create(&format!("vm{n}")).unwrap();
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(8), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_renamed_domain_keeps_its_uuid_to_itself() {
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
    fn a_uuid_is_a_function_of_the_name() {
        assert_eq!(uuid_of("web", 0), uuid_of("web", 0));
        assert_ne!(uuid_of("web", 0), uuid_of("web", 1));
        assert_ne!(uuid_of("web", 0), uuid_of("db", 0));
        assert_eq!(uuid_of("web", 0).get_version_num(), 8);
    }
}
