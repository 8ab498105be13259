//! What another client does is delivered in order, each event with its cause.

use virevent_testkit::servers::{Config, Deed, Guest, Libvirtd};

use super::*;

/// Defines, runs and undefines a domain of the test driver, and checks the events.
async fn assert_life_on_test_driver(daemon: &Libvirtd, events: &mut EventStream) {
    let virsh = daemon.virsh(TEST);
    virsh.define(&test_domain("web")).await.unwrap();
    let life = "start web\nsuspend web\nresume web\ndestroy web\nundefine web\n";
    virsh.batch(life).await.unwrap();
    assert_eq!(
        lines_until(events, |line| line.contains("undefined")).await,
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
async fn events_of_the_test_driver_are_delivered_in_order() {
    let daemon = Libvirtd::start().await.unwrap();
    let (mut events, existing) = synced_stream(&daemon.uri(TEST), Options::default()).await;
    assert_eq!(existing, ["test[1] existing (running)"]);
    assert_life_on_test_driver(&daemon, &mut events).await;
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn events_over_tcp_are_delivered_in_order() {
    let daemon = Libvirtd::start_with(Config::default().tcp(true)).await.unwrap();
    let (mut events, _) = synced_stream(&daemon.tcp_uri(TEST).unwrap(), Options::default()).await;
    assert_life_on_test_driver(&daemon, &mut events).await;
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_rename_is_delivered_as_undefined_and_defined() {
    let daemon = Libvirtd::start().await.unwrap();
    let (mut events, _) = synced_stream(&daemon.uri(daemon.qemu()), Options::default()).await;
    let virsh = daemon.virsh(daemon.qemu());
    let web = daemon.furnish(&Guest::idle("web")).unwrap();
    virsh.define(&web).await.unwrap();
    virsh.batch("domrename web www\nundefine www\n").await.unwrap();
    assert_eq!(
        lines_until(&mut events, |line| line == "www undefined (removed)").await,
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
async fn events_of_a_qemu_guest_are_delivered_in_order() {
    let daemon = Libvirtd::start().await.unwrap();
    let (mut events, existing) =
        synced_stream(&daemon.uri(daemon.qemu()), Options::default()).await;
    assert!(existing.is_empty());
    let virsh = daemon.virsh(daemon.qemu());
    virsh.define(&daemon.furnish(&Guest::idle("web")).unwrap()).await.unwrap();
    virsh.batch("start web\nsuspend web\nresume web\n").await.unwrap();
    // libvirt reports that the guest's processors run before it reports the start.
    assert_eq!(
        lines_until(&mut events, |line| line.contains("suspended")).await,
        [
            "web defined (added)",
            "web[1] resumed (unpaused)",
            "web[1] started (booted)",
            "web[1] suspended (paused)",
        ]
    );
    assert_eq!(lines_until(&mut events, |_| true).await, ["web[1] resumed (unpaused)"]);
    virsh.run(&["reset", "web"]).await.unwrap();
    assert_eq!(lines_until(&mut events, |_| true).await, ["web[1] rebooted"]);
    virsh.batch("destroy web\nundefine web\n").await.unwrap();
    let mut end = lines_until(&mut events, |line| line.contains("undefined")).await;
    // The firmware resets the machine once or twice after a reset.
    end.retain(|line| line != "web[1] rebooted");
    let expected =
        ["web[1] shutting_down (host)", "web[1] stopped (destroyed)", "web undefined (removed)"];
    assert_eq!(end, expected);
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_qemu_guest_that_ends_by_itself_has_its_cause() {
    let daemon = Libvirtd::start().await.unwrap();
    let (mut events, _) = synced_stream(&daemon.uri(daemon.qemu()), Options::default()).await;
    let virsh = daemon.virsh(daemon.qemu());
    let stopped = |line: &str| line.contains("stopped");

    let guest = Guest::after(0, "off", Deed::PowerOff);
    virsh.create(&daemon.furnish(&guest).unwrap()).await.unwrap();
    let lines = lines_until(&mut events, stopped).await;
    let end = ["off[1] shutting_down (guest)", "off[1] stopped (shutdown)"];
    assert_eq!(lines[lines.len() - 2..], end, "{lines:#?}");

    let guest = Guest::after(0, "panic", Deed::Panic);
    virsh.create(&daemon.furnish(&guest).unwrap()).await.unwrap();
    let lines = lines_until(&mut events, stopped).await;
    let end = ["panic[2] crashed (panicked)", "panic[2] stopped (crashed)"];
    assert_eq!(lines[lines.len() - 2..], end, "{lines:#?}");

    let guest = Guest::after(1, "reset", Deed::Reset);
    virsh.create(&daemon.furnish(&guest).unwrap()).await.unwrap();
    lines_until(&mut events, |line| line == "reset[3] rebooted").await;
    assert!(daemon.kill_guest("reset"));
    let lines = lines_until(&mut events, stopped).await;
    assert_eq!(lines.last().unwrap(), "reset[3] stopped (failed)");
}
