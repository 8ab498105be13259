//! Fake hosts on which something happens all the time.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::sleep;
use virevent::{EventSource, StopCause};
use virevent_testkit::FakeHypervisor;

const HOSTS: [(&str, &[&str]); 3] = [
    ("berlin", &["web-1", "web-2", "db-primary", "mail", "ci-runner-1", "ci-runner-2", "backup"]),
    ("paris", &["web-3", "db-replica", "cache", "ci-runner-3", "monitoring", "vpn"]),
    ("tokyo", &["web-4", "queue", "ci-runner-4", "build", "registry"]),
];

/// Fake hosts whose domains start, stop, pause and crash by themselves, and which are unreachable
/// now and then, for as long as the runtime lives.
#[must_use]
pub fn demo() -> Vec<Arc<dyn EventSource>> {
    let host = |(name, domains): (&str, &'static [&'static str])| -> Arc<dyn EventSource> {
        let uri = format!("fake:{name}");
        let fake = FakeHypervisor::builder().uri(&uri).host(name).build();
        for (number, domain) in domains.iter().enumerate() {
            let _ = fake.define(domain);
            if number % 4 != 3 {
                let _ = fake.start(domain);
            }
        }
        tokio::spawn(live(fake.clone(), domains));
        Arc::new(fake)
    };
    HOSTS.into_iter().map(host).collect()
}

async fn live(fake: FakeHypervisor, domains: &[&str]) {
    let mut random = Rng::new();
    loop {
        sleep(Duration::from_millis(random.u64(300..2000))).await;
        let Some(domain) = random.choice(domains) else { return };
        // What is impossible in a domain's state changes nothing.
        let _ = match random.u8(0..24) {
            0..9 => fake.start(domain),
            9 => fake.stop(domain),
            10 => fake.shut_down(domain),
            11 => fake.suspend(domain),
            12..15 => fake.resume(domain),
            15 => fake.stop_as(domain, StopCause::Crashed),
            16 => fake.pm_suspend(domain),
            17..20 => fake.wake_up(domain),
            20 => fake.create(&format!("job-{}", random.u16(100..1000))),
            21..23 => fake.reboot(domain),
            _ => {
                fake.go_down();
                sleep(Duration::from_secs(random.u64(5..10))).await;
                fake.restore();
                continue;
            }
        };
        end_jobs(&fake, &mut random);
    }
}

/// A transient domain runs for a while, and is gone.
fn end_jobs(fake: &FakeHypervisor, random: &mut Rng) {
    for listed in fake.domains() {
        if listed.domain.name().starts_with("job-") && random.u8(0..8) == 0 {
            let _ = fake.shut_down(listed.domain.name());
        }
    }
}
