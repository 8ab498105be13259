//! The fake libvirtd speaks the protocol as libvirt's own client understands it.
#![cfg(all(feature = "fake-libvirtd", feature = "servers"))]

use virevent_testkit::fakes::libvirtd::FakeLibvirtd;
use virevent_testkit::servers::Virsh;

#[tokio::test]
#[ignore = "needs virsh"]
async fn virsh_lists_the_domains_of_the_fake() {
    let daemon = FakeLibvirtd::start().unwrap();
    daemon.host().define("web").unwrap();
    daemon.host().create("db").unwrap();
    daemon.host().suspend("db").unwrap();
    let virsh = Virsh::to(&daemon.uri());
    let expected = [("db", "paused"), ("web", "shut off")].map(|(a, b)| (a.into(), b.into()));
    assert_eq!(virsh.list().await.unwrap(), expected);
    let transient = virsh.run(&["list", "--all", "--transient", "--name"]).await.unwrap();
    assert_eq!(transient.trim(), "db");
    let stats = virsh.run(&["domstats", "--state"]).await.unwrap();
    assert!(stats.contains("state.state=3"), "{stats}");
}

#[tokio::test]
#[ignore = "needs virsh"]
async fn virsh_receives_the_events_of_the_fake() {
    let daemon = FakeLibvirtd::start().unwrap();
    let host = daemon.host().clone();
    host.define("web").unwrap();
    let virsh = Virsh::to(&daemon.uri());
    let act = async {
        // virsh drops events of a registration whose reply it has not read yet: its next call shows
        // that it has.
        daemon.until(|daemon| daemon.registered().starts_with(&[0, 1, 2])).await;
        host.start("web").unwrap();
        host.reboot("web").unwrap();
        host.stop("web").unwrap();
    };
    let watch = virsh.run(&["event", "--all", "--timeout", "2", "--loop"]);
    let (seen, ()) = tokio::join!(watch, act);
    let seen = seen.unwrap();
    let at = |event: &str| seen.find(event).unwrap_or_else(|| panic!("no {event} in {seen}"));
    assert!(at("'web': Started Booted") < at("'reboot' for domain 'web'"));
    assert!(at("'reboot' for domain 'web'") < at("'web': Stopped Destroyed"));
}
