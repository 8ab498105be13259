//! A daemon that is killed with -9 and started again, ten times, while domains change.

use std::collections::{BTreeMap, BTreeSet};

use virevent::{Change, Origin};
use virevent_testkit::servers::{Guest, Libvirtd, Tap, Virsh};

use super::*;

/// What a reader of the stream believes: what `virsh list --all` should say. All domains of these
/// tests are persistent.
#[derive(Debug, Default)]
struct Belief(BTreeMap<String, &'static str>);

impl Belief {
    fn note(&mut self, event: &DomainEvent) {
        let Some(event) = event.lifecycle() else { return };
        let state = match event.change {
            Change::Existing(state) => match state.as_str() {
                "shutoff" => "shut off",
                state => state,
            },
            Change::Defined(_) if !event.domain.is_active() => "shut off",
            Change::Undefined(_) => {
                self.0.remove(event.domain.name());
                return;
            }
            Change::Started(_) | Change::Resumed(_) => "running",
            Change::Suspended(_) => "paused",
            Change::ShuttingDown(_) => "in shutdown",
            Change::Stopped(_) => "shut off",
            change => panic!("unexpected: {change}"),
        };
        self.0.insert(event.domain.name().into(), state);
    }

    async fn check(&self, virsh: &Virsh) {
        let believed: Vec<(String, String)> =
            self.0.iter().map(|(name, state)| (name.clone(), (*state).into())).collect();
        assert_eq!(believed, virsh.list().await.unwrap());
    }
}

/// What a stream tells of an outage: first the gap; then, all inferred, what happened; then synced.
/// Returns the names of the domains that it told anything of.
async fn outage(events: &mut EventStream, belief: &mut Belief) -> BTreeSet<String> {
    let told = until_synced(events).await.unwrap();
    // The driver may have got through to a daemon that then fell down again.
    let last_gap = told.iter().rposition(is_gap).expect("a gap");
    assert!(is_gap(&told[0]), "{told:#?}");
    let mut named = BTreeSet::new();
    for event in &told {
        belief.note(event);
        if let Some(event) = event.lifecycle() {
            assert_eq!(event.origin, Origin::Inferred, "{told:#?}");
            named.insert(event.domain.name().to_owned());
        }
    }
    assert!(told[..=last_gap].iter().all(is_gap), "{told:#?}");
    named
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn ten_kills_of_the_daemon_lose_no_change_of_qemu_guests() {
    let mut daemon = Libvirtd::start().await.unwrap();
    let tap = Tap::before(&daemon).unwrap();
    let qemu = daemon.qemu();
    let virsh = daemon.virsh(qemu);
    for name in ["steady", "still", "off", "web", "db"] {
        virsh.define(&daemon.furnish(&Guest::idle(name)).unwrap()).await.unwrap();
    }
    virsh.batch("start steady\nstart still\nsuspend still\nstart web\n").await.unwrap();
    let mut events = client(&tap.uri(qemu)).subscribe_with(Options::default()).await.unwrap();
    let mut belief = Belief::default();
    for event in until_synced(&mut events).await.unwrap() {
        belief.note(&event);
    }
    belief.check(&virsh).await;

    let new = daemon.furnish(&Guest::idle("new")).unwrap();
    for round in 0..10 {
        daemon.kill9().await;
        tap.go_down();
        // Behind the daemon's back, and by other clients before ours is back.
        if round == 3 {
            assert!(daemon.kill_guest("web"));
        }
        daemon.start_again().await.unwrap();
        let (commands, changed): (&str, &[&str]) = match round {
            0 => ("start db\nsuspend web\n", &["db", "web"]),
            1 => ("resume web\ndestroy db\n", &["db", "web"]),
            2 => ("destroy web\nstart web\n", &["web"]),
            3 => ("", &["web"]),
            4 => ("", &["new"]),
            5 => ("start new\nstart db\n", &["db", "new"]),
            6 => ("destroy new\nundefine new\n", &["new"]),
            7 => ("", &[]),
            8 => ("start web\nsuspend web\nresume web\n", &["web"]),
            // Back where it was: for all that a list can tell, nothing happened.
            _ => ("suspend db\nresume db\n", &[]),
        };
        if round == 4 {
            virsh.define(&new).await.unwrap();
        }
        virsh.batch(commands).await.unwrap();
        // The daemon finds out by itself about guests that died meanwhile.
        while round == 3 && virsh.list().await.unwrap().contains(&("web".into(), "running".into()))
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tap.come_back().unwrap();
        let named = outage(&mut events, &mut belief).await;
        assert_eq!(named, changed.iter().map(|name| (*name).into()).collect(), "round {round}");
        belief.check(&virsh).await;
    }
    // And it is alive.
    virsh.run(&["suspend", "steady"]).await.unwrap();
    told_until(&mut events, |line| line == "steady[1] suspended (paused)").await;
}

/// The test driver forgets everything when its daemon dies.
#[tokio::test]
#[ignore = "needs libvirtd"]
async fn ten_kills_of_the_daemon_that_forgets_are_told_as_what_is_missing() {
    let mut daemon = Libvirtd::start().await.unwrap();
    let virsh = daemon.virsh(TEST);
    let mut events = client(&daemon.uri(TEST)).subscribe_with(Options::default()).await.unwrap();
    let mut belief = Belief::default();
    until_synced(&mut events).await.unwrap().iter().for_each(|event| belief.note(event));
    for round in 0..10 {
        let name = format!("vm{round}");
        virsh.define(&test_domain(&name)).await.unwrap();
        virsh.run(&["start", &name]).await.unwrap();
        let started = format!("{name}[2] started (booted)");
        told_until(&mut events, |line| line == started).await;
        daemon.kill9().await;
        daemon.start_again().await.unwrap();
        let named = outage(&mut events, &mut belief).await;
        assert_eq!(named, BTreeSet::from([name]), "round {round}");
        belief.check(&virsh).await;
    }
}
