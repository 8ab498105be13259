//! A fake inventory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use level_backend::poll::{Guest, Guests, Inventory, Poll};
use virevent::driver::Driver;
use virevent::{Error, PausedReason, RunningReason, State, Uuid};

pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Default)]
pub(crate) struct Fake(Arc<Mutex<World>>);

#[derive(Debug, Default)]
pub(crate) struct World {
    guests: BTreeMap<String, Guest>,
    last_id: u32,
    /// Looks fail.
    pub(crate) is_down: bool,
    /// The number of looks.
    pub(crate) looks: usize,
    /// How long a look takes.
    pub(crate) takes: Duration,
}

impl Fake {
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    pub(crate) fn source(&self) -> Driver {
        let poll = Poll::new("fake-levels:".into(), "host".into(), self.clone(), INTERVAL);
        Driver::builder(poll).build()
    }

    pub(crate) fn start(&self, name: &str) {
        let mut world = self.world();
        world.last_id += 1;
        let id = world.last_id;
        let state = State::Running(RunningReason::Unspecified);
        world.guests.insert(name.into(), Guest { name: name.into(), id, began: 0, state });
    }

    /// Ends the run and starts another, which has the same id.
    pub(crate) fn restart_with_id(&self, name: &str) {
        self.world().guests.get_mut(name).unwrap().began += 1;
    }

    pub(crate) fn stop(&self, name: &str) {
        self.world().guests.remove(name);
    }

    pub(crate) fn pause(&self, name: &str, is_paused: bool) {
        self.world().guests.get_mut(name).unwrap().state = match is_paused {
            true => State::Paused(PausedReason::User),
            false => State::Running(RunningReason::Unpaused),
        };
    }
}

impl Inventory for Fake {
    fn look(&self, _known: &Guests) -> Result<Guests, Error> {
        let mut world = self.world();
        world.looks += 1;
        let takes = world.takes;
        let uuid =
            |name: &str| Uuid::from_u128(name.bytes().fold(1, |n, b| n * 257 + u128::from(b)));
        let guests =
            world.guests.values().map(|guest| (uuid(&guest.name), guest.clone())).collect();
        let outcome = match world.is_down {
            true => Err(Error::closed("fake-levels:", "it is down")),
            false => Ok(guests),
        };
        drop(world);
        std::thread::sleep(takes);
        outcome
    }
}
