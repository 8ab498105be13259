//! What another client does is told, in order, each with its cause.

use virevent_testkit::servers::{Config, Deed, Guest, Libvirtd};

use super::*;

/// Once through the life of a domain of the test driver.
async fn life_on_test(daemon: &Libvirtd, events: &mut EventStream) {
    let virsh = daemon.virsh(TEST);
    virsh.define(&test_domain("web")).await.unwrap();
    let life = "start web\nsuspend web\nresume web\ndestroy web\nundefine web\n";
    virsh.batch(life).await.unwrap();
    assert_eq!(
        told_until(events, |line| line.contains("undefined")).await,
        [
            "web defined (added)",
            "web[2] started (booted)",
            "web[2] suspended (paused)",
            "web[2] resumed (unpaused)",
            "web[2] stopped (destroyed)",
            "web undefined (removed)",
        ]
    );
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn the_life_of_a_domain_on_the_test_driver() {
    let daemon = Libvirtd::start().await.unwrap();
    let (mut events, existing) = watch(&daemon.uri(TEST), Options::default()).await;
    assert_eq!(existing, ["test[1] existing (running)"]);
    life_on_test(&daemon, &mut events).await;
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn the_life_of_a_domain_over_tcp() {
    let daemon = Libvirtd::start_with(Config::default().tcp(true)).await.unwrap();
    let (mut events, _) = watch(&daemon.tcp_uri(TEST).unwrap(), Options::default()).await;
    life_on_test(&daemon, &mut events).await;
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_domain_that_is_renamed_or_defined_again_is_told_as_such() {
    let daemon = Libvirtd::start().await.unwrap();
    let (mut events, _) = watch(&daemon.uri(daemon.qemu()), Options::default()).await;
    let virsh = daemon.virsh(daemon.qemu());
    let web = daemon.furnish(&Guest::idle("web")).unwrap();
    virsh.define(&web).await.unwrap();
    virsh.batch("domrename web www\nundefine www\n").await.unwrap();
    assert_eq!(
        told_until(&mut events, |line| line == "www undefined (removed)").await,
        [
            "web defined (added)",
            "web undefined (renamed)",
            "www defined (renamed)",
            "www undefined (removed)",
        ]
    );
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn the_life_of_a_qemu_guest_with_a_reboot() {
    let daemon = Libvirtd::start().await.unwrap();
    let (mut events, existing) = watch(&daemon.uri(daemon.qemu()), Options::default()).await;
    assert!(existing.is_empty());
    let virsh = daemon.virsh(daemon.qemu());
    virsh.define(&daemon.furnish(&Guest::idle("web")).unwrap()).await.unwrap();
    virsh.batch("start web\nsuspend web\nresume web\n").await.unwrap();
    // libvirt tells that a guest's processors run before it tells that the guest has started.
    assert_eq!(
        told_until(&mut events, |line| line.contains("suspended")).await,
        [
            "web defined (added)",
            "web[1] resumed (unpaused)",
            "web[1] started (booted)",
            "web[1] suspended (paused)",
        ]
    );
    assert_eq!(told_until(&mut events, |_| true).await, ["web[1] resumed (unpaused)"]);
    virsh.run(&["reset", "web"]).await.unwrap();
    assert_eq!(told_until(&mut events, |_| true).await, ["web[1] rebooted"]);
    virsh.batch("destroy web\nundefine web\n").await.unwrap();
    let mut end = told_until(&mut events, |line| line.contains("undefined")).await;
    // The firmware resets the machine once or twice more.
    end.retain(|line| line != "web[1] rebooted");
    let expected =
        ["web[1] shutting_down (host)", "web[1] stopped (destroyed)", "web undefined (removed)"];
    assert_eq!(end, expected);
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn what_a_qemu_guest_does_by_itself() {
    let daemon = Libvirtd::start().await.unwrap();
    let (mut events, _) = watch(&daemon.uri(daemon.qemu()), Options::default()).await;
    let virsh = daemon.virsh(daemon.qemu());
    let stopped = |line: &str| line.contains("stopped");

    let guest = Guest::after(0, "off", Deed::PowerOff);
    virsh.create(&daemon.furnish(&guest).unwrap()).await.unwrap();
    let told = told_until(&mut events, stopped).await;
    let end = ["off[1] shutting_down (guest)", "off[1] stopped (shutdown)"];
    assert_eq!(told[told.len() - 2..], end, "{told:#?}");

    let guest = Guest::after(0, "panic", Deed::Panic);
    virsh.create(&daemon.furnish(&guest).unwrap()).await.unwrap();
    let told = told_until(&mut events, stopped).await;
    let end = ["panic[2] crashed (panicked)", "panic[2] stopped (crashed)"];
    assert_eq!(told[told.len() - 2..], end, "{told:#?}");

    let guest = Guest::after(1, "reset", Deed::Reset);
    virsh.create(&daemon.furnish(&guest).unwrap()).await.unwrap();
    told_until(&mut events, |line| line == "reset[3] rebooted").await;
    assert!(daemon.kill_guest("reset"));
    let told = told_until(&mut events, stopped).await;
    assert_eq!(told.last().unwrap(), "reset[3] stopped (failed)");
}
