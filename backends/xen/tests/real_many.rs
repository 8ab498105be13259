//! A real xenstored with 200 domains that start and end in every way there is.
#![allow(clippy::unwrap_used)]

mod event_log;

use std::collections::BTreeMap;

use fastrand::Rng;
use virevent::Uuid;
use virevent_testkit::servers::Xenstored;
use virevent_testkit::toolstack::{Blueprint, Power, Toolstack};

use self::event_log::{EventLog, client, requested, started, stopped};

#[tokio::test]
#[ignore = "needs xenstored"]
async fn each_start_and_stop_of_200_domains_is_reported_once() {
    let mut scene = Scene::start().await;
    scene.start_domains(200).await;
    scene.log.check(&scene.daemon);
    scene.rename_every_second_domain();
    for batch in scene.domains.clone().chunks(20) {
        let to_destroy = scene.end(batch);
        // A request that its guest acknowledges before the observer has read it leaves no trace.
        scene.log.until(scene.requests, requested).await;
        scene.destroy_in_random_order(to_destroy);
    }
    scene.wait_for_every_start_and_stop().await;
    scene.log.check(&scene.daemon);
    assert_eq!(scene.reported(), scene.expected);
    assert_eq!(scene.log.count(requested), scene.requests);
    assert_eq!(scene.log.count(virevent::DomainEvent::is_marker), 0);
}

/// The starts and stops of each uuid in order, each with its id, and a stop with its cause.
type Runs = BTreeMap<Uuid, Vec<String>>;

#[derive(Clone)]
struct Guest {
    name: String,
    domid: u32,
}

/// A domain that is still to be destroyed.
struct Ending {
    guest: Guest,
    /// Whether it was asked to end.
    is_requested: bool,
}

/// A daemon, what the toolstack has done to its domains, and what a subscriber has received.
struct Scene {
    daemon: Xenstored,
    log: EventLog,
    random: Rng,
    domains: Vec<Guest>,
    expected: Runs,
    /// The requests to guests so far.
    requests: usize,
}

impl Scene {
    async fn start() -> Self {
        let daemon = Xenstored::start().await.unwrap();
        let log = EventLog::of(&client(&daemon)).await;
        Self {
            daemon,
            log,
            random: Rng::with_seed(4),
            domains: Vec::new(),
            expected: Runs::new(),
            requests: 0,
        }
    }

    fn xl(&self) -> &Toolstack {
        self.daemon.toolstack()
    }

    /// Starts domains: whole before their introduction, completed after it, and as libxl does.
    async fn start_domains(&mut self, count: usize) {
        for n in 0..count {
            let name = format!("vm{n}");
            let domid = match n % 3 {
                0 => {
                    let domid = self.xl().prepare(blueprint(&name)).unwrap();
                    self.xl().announce(domid).unwrap();
                    domid
                }
                1 => {
                    let domid = self.xl().introduce(blueprint(&name).without_name()).unwrap();
                    self.xl().complete(domid).unwrap();
                    domid
                }
                _ => self.xl().introduce(blueprint(&name)).unwrap(),
            };
            self.expect_start(&name, domid);
            self.domains.push(Guest { name, domid });
            if self.random.u8(0..10) == 0 {
                self.log.next().await;
            }
        }
        self.log.until(count, started).await;
    }

    fn rename_every_second_domain(&self) {
        for Guest { name, domid } in self.domains.iter().step_by(2) {
            self.xl().rename(*domid, &format!("{name}-renamed")).unwrap();
        }
    }

    /// Begins to end domains: requests, crashes, releases, reuses of the id, and sudden ends. Returns those
    /// that are still to be destroyed.
    fn end(&mut self, guests: &[Guest]) -> Vec<Ending> {
        let mut to_destroy = Vec::new();
        for (at, guest) in guests.iter().enumerate() {
            let domid = guest.domid;
            match at {
                0..10 => {
                    self.xl().request(domid, Power::ALL[at % 5]).unwrap();
                    self.requests += 1;
                    to_destroy.push(Ending { guest: guest.clone(), is_requested: true });
                }
                10..12 => {
                    self.xl().crash(domid).unwrap();
                    to_destroy.push(Ending { guest: guest.clone(), is_requested: false });
                }
                12..14 => {
                    self.xl().release(domid).unwrap();
                    self.xl().forget(domid).unwrap();
                    self.expect_stop(guest, "");
                }
                14..16 => {
                    let other = format!("{}-reused", guest.name);
                    self.xl().reuse(domid, blueprint(&other)).unwrap();
                    self.expect_stop(guest, "");
                    self.expect_start(&other, domid);
                }
                16..18 => {
                    self.xl().vanish(domid).unwrap();
                    self.expect_stop(guest, "");
                }
                _ => {}
            }
        }
        to_destroy
    }

    /// Destroys domains, and starts some of them again under the same uuid.
    fn destroy_in_random_order(&mut self, mut endings: Vec<Ending>) {
        self.random.shuffle(&mut endings);
        for Ending { guest, is_requested } in endings {
            if is_requested {
                self.xl().acknowledge(guest.domid).unwrap();
                self.xl().shut_down(guest.domid).unwrap();
            }
            self.xl().destroy(guest.domid).unwrap();
            self.expect_stop(&guest, if is_requested { " (shutdown)" } else { "" });
            if guest.domid % 2 == 0 && is_requested {
                let domid = self.xl().introduce(blueprint(&guest.name)).unwrap();
                self.expect_start(&guest.name, domid);
            }
        }
    }

    async fn wait_for_every_start_and_stop(&mut self) {
        let lines: Vec<_> = self.expected.values().flatten().collect();
        let starts = lines.iter().filter(|line| line.starts_with("started")).count();
        let stops = lines.len() - starts;
        self.log.until(starts, started).await;
        self.log.until(stops, stopped).await;
        self.log.nothing().await;
    }

    fn expect_start(&mut self, name: &str, domid: u32) {
        self.expected.entry(uuid_of(name)).or_default().push(format!("started {domid}"));
    }

    fn expect_stop(&mut self, guest: &Guest, cause: &str) {
        let line = format!("stopped {}{cause}", guest.domid);
        self.expected.entry(uuid_of(&guest.name)).or_default().push(line);
    }

    /// The starts and stops that the subscriber has received.
    fn reported(&self) -> Runs {
        let mut runs = Runs::new();
        for event in self.log.events.iter().filter(|event| started(event) || stopped(event)) {
            let domain = event.domain().unwrap();
            let change = event.change().unwrap();
            let cause = match change.cause() {
                "" => String::new(),
                cause => format!(" ({cause})"),
            };
            let line = format!("{} {}{cause}", change.as_str(), domain.id().unwrap());
            runs.entry(domain.uuid()).or_default().push(line);
        }
        runs
    }
}

fn blueprint(name: &str) -> Blueprint {
    Blueprint::named(name).uuid(uuid_of(name))
}

fn uuid_of(name: &str) -> Uuid {
    let hash = |hash: u128, byte: u8| (hash ^ u128::from(byte)).wrapping_mul(0x1_0000_0000_01b3);
    Uuid::from_u128(name.bytes().fold(0x1234_5678_9abc_def0_0000_0001_0000_0001, hash))
}
