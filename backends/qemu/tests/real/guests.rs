//! What guests do by themselves, and the events of it.

use virevent::{EventStream, Kind, Options};
use virevent_testkit::servers::{Deed, Guest, Qemu, QemuConfig};

use super::{delivered_until, watch};

/// The events of a guest that does this a second after `cont`, in a QEMU with these arguments, up
/// to one that contains `last`.
async fn delivered_by(deed: Deed, args: &[&str], last: &str) -> Vec<String> {
    begun(deed, args, last).await.2
}

/// The same, with the QEMU and the stream.
async fn begun(deed: Deed, args: &[&str], last: &str) -> (Qemu, EventStream, Vec<String>) {
    let guest = Guest::after(1, "web", deed);
    let config = QemuConfig::default().name("web").guest(guest).args(args);
    let mut qemu = config.start().await.unwrap();
    let wanted = Options::default().kind(Kind::Lifecycle).kind(Kind::Reboot).kind(Kind::Watchdog);
    let (mut events, _) = watch(&qemu.uri(), wanted).await;
    qemu.run("cont").await.unwrap();
    let mut delivered = delivered_until(&mut events, last).await;
    assert_eq!(delivered.remove(0), "web resumed (unpaused)");
    (qemu, events, delivered)
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_guest_that_powers_itself_off_is_shut_down() {
    let delivered = delivered_by(Deed::PowerOff, &[], "stopped").await;
    assert_eq!(delivered, ["web shutting_down (guest)", "web stopped (shutdown)"]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_power_off_with_no_shutdown_is_stopped_when_qemu_quits() {
    let (mut qemu, mut events, delivered) =
        begun(Deed::PowerOff, &["-no-shutdown"], "shutting_down").await;
    assert_eq!(delivered, ["web shutting_down (guest)"]);
    qemu.run("quit").await.unwrap();
    assert_eq!(delivered_until(&mut events, "stopped").await, ["web stopped (shutdown)"]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_panic_with_pause_has_crashed_when_qemu_ends() {
    let (qemu, mut events, delivered) =
        begun(Deed::Panic, &["-action", "panic=pause"], "crashed").await;
    assert_eq!(delivered, ["web crashed (panicked)"]);
    qemu.signal("TERM");
    let end = ["web shutting_down (host)", "web stopped (crashed)"];
    assert_eq!(delivered_until(&mut events, "stopped").await, end);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_guest_that_resets_itself_is_rebooted() {
    assert_eq!(delivered_by(Deed::Reset, &[], "rebooted").await, ["web rebooted"]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_reset_with_no_reboot_is_shut_down() {
    let delivered = delivered_by(Deed::Reset, &["-no-reboot"], "stopped").await;
    assert_eq!(delivered, ["web shutting_down (guest)", "web stopped (shutdown)"]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_guest_that_panics_has_crashed() {
    let delivered = delivered_by(Deed::Panic, &[], "stopped").await;
    let end = ["web shutting_down (finished)", "web stopped (crashed)"];
    assert_eq!(
        (&*delivered[0], &delivered[1..]),
        ("web crashed (panicked)", &end.map(String::from)[..])
    );
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_guest_that_loads_a_crash_kernel_crashes_and_runs_on() {
    let delivered = delivered_by(Deed::CrashLoad, &[], "crashed").await;
    assert_eq!(delivered, ["web crashed (crashloaded)"]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_sleeping_guest_is_woken_by_its_host() {
    let guest = Guest::after(1, "web", Deed::Sleep);
    let mut qemu = QemuConfig::default().name("web").guest(guest).start().await.unwrap();
    let (mut events, _) = watch(&qemu.uri(), Options::default()).await;
    qemu.run("cont").await.unwrap();
    let delivered = delivered_until(&mut events, "pm_suspended").await;
    assert_eq!(delivered, ["web resumed (unpaused)", "web pm_suspended (memory)"]);
    qemu.run("system_wakeup").await.unwrap();
    assert_eq!(delivered_until(&mut events, "started").await, ["web started (wakeup)"]);
}

/// A guest that sleeps, and a stream that has delivered that.
async fn asleep() -> (Qemu, EventStream) {
    let guest = Guest::after(1, "web", Deed::Sleep);
    let mut qemu = QemuConfig::default().name("web").guest(guest).start().await.unwrap();
    let (mut events, _) = watch(&qemu.uri(), Options::default()).await;
    qemu.run("cont").await.unwrap();
    delivered_until(&mut events, "pm_suspended").await;
    (qemu, events)
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_sleeping_guest_that_is_reset_has_the_state_of_qemu() {
    let (mut qemu, mut events) = asleep().await;
    qemu.run("system_reset").await.unwrap();
    if qemu.run("query-status").await.unwrap().contains("\"running\": true") {
        assert_eq!(
            delivered_until(&mut events, "started").await.last().unwrap(),
            "web started (wakeup)"
        );
    } else {
        // QEMU 7.2 goes to prelaunch and sends no event for that.
        assert_eq!(
            delivered_until(&mut events, "suspended").await.last().unwrap(),
            "web suspended (paused)"
        );
    }
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_sleeping_guest_that_is_saved_is_paused_for_migration() {
    let (mut qemu, mut events) = asleep().await;
    qemu.run_with("migrate", r#"{"uri": "exec:cat >/dev/null"}"#).await.unwrap();
    // QEMU 7.2 sends STOP and WAKEUP, and the guest does not run.
    let delivered = delivered_until(&mut events, "(migrated)").await;
    assert_eq!(delivered.last().unwrap(), "web suspended (migrated)");
    qemu.run("quit").await.unwrap();
    assert_eq!(
        delivered_until(&mut events, "stopped").await.last().unwrap(),
        "web stopped (migrated)"
    );
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_sleeping_guest_still_sleeps_after_stop_and_cont() {
    let (mut qemu, mut events) = asleep().await;
    qemu.run("stop").await.unwrap();
    qemu.run("cont").await.unwrap();
    assert!(qemu.run("query-status").await.unwrap().contains("suspended"));
    qemu.run("system_wakeup").await.unwrap();
    let delivered = delivered_until(&mut events, "started").await;
    // Before 9.0 QEMU sends nothing for the two; from 9.0 on it sends STOP and RESUME.
    match delivered.iter().rposition(|event| event.contains("resumed")) {
        Some(at) => assert_eq!(delivered[at + 1], "web pm_suspended", "{delivered:?}"),
        None => assert_eq!(delivered.len(), 1, "{delivered:?}"),
    }
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_guest_that_hibernates_is_shut_down() {
    let delivered = delivered_by(Deed::Hibernate, &[], "stopped").await;
    let all = ["web pm_suspended (disk)", "web shutting_down (guest)", "web stopped (shutdown)"];
    assert_eq!(delivered, all);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_watchdog_pauses_resets_or_destroys_its_guest() {
    let delivered = delivered_by(Deed::Starve, &["-action", "watchdog=pause"], "suspended").await;
    assert_eq!(delivered.last().unwrap(), "web suspended (watchdog)");
    let delivered = delivered_by(Deed::Starve, &["-action", "watchdog=reset"], "rebooted").await;
    assert_eq!(delivered.last().unwrap(), "web rebooted");
    // The watchdog is the only event: QEMU sends no SHUTDOWN.
    let delivered = delivered_by(Deed::Starve, &["-action", "watchdog=poweroff"], "stopped").await;
    assert_eq!(delivered, ["web watchdog poweroff", "web stopped (destroyed)"]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_guest_whose_disk_fails_is_paused_with_ioerror() {
    let delivered = delivered_by(Deed::Misread, &[], "suspended").await;
    assert_eq!(delivered, ["web suspended (ioerror)"]);
}
