//! Events with a type, each made by a real QEMU, and delivered by its socket and by a directory of
//! it.

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use virevent::{EventSource, EventStream, Kind, Kinds, Options};
use virevent_qemu::QmpDir;
use virevent_testkit::assert::until_synced;
use virevent_testkit::servers::{Deed, Guest, Qemu, QemuConfig};

use super::{PATIENCE, delivered_until, watch};

/// A guest with two monitors beside that of the test.
struct Watched {
    qemu: Qemu,
    by_socket: EventStream,
    by_directory: EventStream,
    home: TempDir,
}

impl Watched {
    /// A guest that waits for `cont`. `HOME` in an argument stands for a directory of the test.
    async fn start(guest: Guest, args: &[&str], kinds: &[Kind]) -> Self {
        let home = tempfile::Builder::new().prefix("vn").tempdir().unwrap();
        let path = home.path().to_str().unwrap();
        let second = format!("unix:{path}/web.sock,server=on,wait=off");
        let args: Vec<_> = args.iter().map(|arg| arg.replace("HOME", path)).collect();
        let args: Vec<_> =
            args.iter().map(String::as_str).chain(["-qmp", second.as_str()]).collect();
        let config = QemuConfig::default().name("web").guest(guest).args(&args);
        let qemu = config.start().await.unwrap();
        let wanted = Options::default().kinds(kinds.iter().cloned().collect::<Kinds>());
        let (by_socket, _) = watch(&qemu.uri(), wanted.clone()).await;
        let directory = QmpDir::new(&format!("qmp-dir:{path}?pattern=web.sock"))
            .unwrap()
            .keepalive(10 * PATIENCE, PATIENCE)
            .source();
        let mut by_directory = directory.subscribe_with(wanted).await.unwrap();
        until_synced(&mut by_directory).await.unwrap();
        Self { qemu, by_socket, by_directory, home }
    }

    /// The events of both sources, which are the same, up to one that contains `last`.
    async fn until(&mut self, last: &str) -> Vec<String> {
        let by_socket = delivered_until(&mut self.by_socket, last).await;
        let by_directory = delivered_until(&mut self.by_directory, last).await;
        assert_eq!(by_socket, by_directory);
        by_socket
    }

    async fn run(&mut self, command: &str, arguments: &str) {
        self.qemu.run_with(command, arguments).await.unwrap();
    }
}

/// What a guest does a second after `cont`, up to an event that contains `last`.
async fn delivered_by(deed: Deed, args: &[&str], kinds: &[Kind], last: &str) -> Vec<String> {
    let mut watched = Watched::start(Guest::after(1, "web", deed), args, kinds).await;
    watched.run("cont", "{}").await;
    watched.until(last).await
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_tray_that_is_moved_is_a_tray_change() {
    let cd = ["-drive", "if=none,id=cd,media=cdrom", "-device", "ide-cd,id=cd0,drive=cd,bus=ide.1"];
    let mut watched = Watched::start(Guest::idle("web"), &cd, &[Kind::TrayChange]).await;
    watched.run("blockdev-open-tray", r#"{"id": "cd0", "force": true}"#).await;
    assert_eq!(watched.until("tray").await, ["web tray-change cd0: open"]);
    watched.run("blockdev-close-tray", r#"{"id": "cd0"}"#).await;
    assert_eq!(watched.until("tray").await, ["web tray-change cd0: close"]);
    watched.run("eject", r#"{"id": "cd0", "force": true}"#).await;
    assert_eq!(watched.until("tray").await, ["web tray-change cd0: open"]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_mirror_is_ready_completed_and_canceled() {
    let disk = |name| format!("driver=null-co,size=1048576,read-zeroes=on,node-name={name}");
    let src = disk("src");
    let dst = disk("dst");
    let disks = ["-blockdev", &src, "-blockdev", &dst];
    let mut watched = Watched::start(Guest::idle("web"), &disks, &[Kind::BlockJob]).await;
    let mirror = r#"{"job-id": "m1", "device": "src", "target": "dst", "sync": "full"}"#;
    watched.run("blockdev-mirror", mirror).await;
    assert_eq!(watched.until("block-job").await, ["web block-job m1: copy ready"]);
    watched.run("job-complete", r#"{"id": "m1"}"#).await;
    assert_eq!(watched.until("block-job").await, ["web block-job m1: copy completed"]);
    // The completed job has put its target in place of its source.
    let back = r#"{"job-id": "m2", "device": "src", "target": "dst", "sync": "full"}"#;
    watched.run("blockdev-mirror", back).await;
    assert_eq!(watched.until("block-job").await, ["web block-job m2: copy ready"]);
    watched.run("block-job-cancel", r#"{"device": "m2", "force": true}"#).await;
    assert_eq!(watched.until("block-job").await, ["web block-job m2: copy canceled"]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_block_job_whose_writes_fail_has_failed() {
    let disks = [
        "-blockdev",
        "driver=null-co,size=1048576,node-name=src",
        "-blockdev",
        "driver=blkdebug,node-name=dst,image.driver=null-co,image.size=1048576,\
         inject-error.0.event=none,inject-error.0.iotype=write,inject-error.0.errno=28",
    ];
    let mut watched = Watched::start(Guest::idle("web"), &disks, &[Kind::BlockJob]).await;
    let backup = r#"{"job-id": "b1", "device": "src", "target": "dst", "sync": "full"}"#;
    watched.run("blockdev-backup", backup).await;
    assert_eq!(watched.until("block-job").await, ["web block-job b1: backup failed"]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_device_that_is_unplugged_is_removed() {
    let usb = ["-device", "piix3-usb-uhci,id=usb", "-device", "usb-tablet,id=tab0,bus=usb.0"];
    let mut watched = Watched::start(Guest::idle("web"), &usb, &[Kind::DeviceRemoved]).await;
    watched.run("device_del", r#"{"id": "tab0"}"#).await;
    assert_eq!(watched.until("tab0").await, ["web device-removed tab0"]);
    // A part of a device has no id, and so no notice, but is not dropped.
    watched.run("device_add", r#"{"driver": "virtio-rng-pci", "id": "rng0"}"#).await;
    watched.run("device_del", r#"{"id": "rng0"}"#).await;
    watched.run("system_reset", "{}").await;
    let part = r#"web event DEVICE_DELETED {"path": "/machine/peripheral/rng0/virtio-backend"}"#;
    assert_eq!(watched.until("removed").await, [part, "web device-removed rng0"]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_client_of_a_console_connects_and_disconnects() {
    let vnc = ["-vnc", "unix:HOME/vnc"];
    let mut watched = Watched::start(Guest::idle("web"), &vnc, &[Kind::Graphics]).await;
    let path = watched.home.path().join("vnc");
    let mut client = UnixStream::connect(&path).await.unwrap();
    let connected = watched.until("graphics").await;
    let path = path.display();
    let place = format!("to {path}");
    assert!(connected[0].starts_with("web graphics connect: "), "{connected:?}");
    assert!(connected[0].contains(&place), "{connected:?}");
    // RFB 3.8: the version, the type of security (none), and that the console may be shared.
    let mut version = [0; 12];
    client.read_exact(&mut version).await.unwrap();
    client.write_all(&version).await.unwrap();
    client.read_exact(&mut [0; 2]).await.unwrap();
    client.write_all(&[1]).await.unwrap();
    client.read_exact(&mut [0; 4]).await.unwrap();
    client.write_all(&[1]).await.unwrap();
    let initialized = watched.until("graphics").await;
    assert!(initialized[0].starts_with("web graphics initialize: "), "{initialized:?}");
    assert!(initialized[0].ends_with(", none"), "{initialized:?}");
    drop(client);
    let gone = watched.until("graphics").await;
    assert!(gone[0].starts_with("web graphics disconnect: "), "{gone:?}");
    assert!(gone[0].contains(&place), "{gone:?}");
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_clock_set_by_the_guest_is_an_rtc_change() {
    let clock = ["-rtc", "base=2026-01-01T00:00:00,clock=vm"];
    let delivered = delivered_by(Deed::SetClock, &clock, &[Kind::RtcChange], "rtc-change").await;
    // Four years, one of them a leap year, to the second or two of the boot.
    let seconds: i64 = delivered[0]
        .strip_prefix("web rtc-change ")
        .and_then(|rest| rest.strip_suffix(" s"))
        .unwrap()
        .parse()
        .unwrap();
    let years = (4 * 365 + 1) * 86_400;
    assert!((years - 60..=years + 60).contains(&seconds), "{delivered:?}");
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_balloon_that_the_guest_fills_is_a_balloon_change() {
    let delivered = delivered_by(Deed::Inflate, &[], &[Kind::BalloonChange], "balloon").await;
    // 16 MiB less one.
    assert_eq!(delivered, ["web balloon-change 15360 KiB"]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_watchdog_that_fires_is_a_watchdog_notice() {
    for (action, expected) in [("none", "none"), ("debug", "debug"), ("inject-nmi", "inject nmi")] {
        let args = ["-action", &format!("watchdog={action}")];
        let delivered = delivered_by(Deed::Starve, &args, &[Kind::Watchdog], "watchdog").await;
        assert_eq!(delivered, [format!("web watchdog {expected}")]);
    }
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_failed_read_is_an_io_error_before_the_pause() {
    let kinds = [Kind::IoError, Kind::Lifecycle];
    let delivered = delivered_by(Deed::Misread, &[], &kinds, "suspended").await;
    let expected =
        ["web resumed (unpaused)", "web io-error ide0-hd0: paused", "web suspended (ioerror)"];
    assert_eq!(delivered, expected);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_write_beyond_a_threshold_is_a_block_threshold() {
    let guest = Guest::after(1, "web", Deed::Write);
    let mut watched = Watched::start(guest, &[], &[Kind::BlockThreshold]).await;
    let blocks = watched.qemu.run("query-block").await.unwrap();
    let blocks: serde_json::Value = serde_json::from_str(&blocks).unwrap();
    let node = blocks["return"][0]["inserted"]["node-name"].as_str().unwrap();
    let threshold = format!(r#"{{"node-name": "{node}", "write-threshold": 1000}}"#);
    watched.run("block-set-write-threshold", &threshold).await;
    watched.run("cont", "{}").await;
    // The fifth sector ends at 2560.
    let expected = format!("web block-threshold {node}: 1000 bytes, by 1560");
    assert_eq!(watched.until("threshold").await, [expected]);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_sleep_and_a_wakeup_are_notices_beside_their_changes() {
    let kinds = [Kind::PmSuspend, Kind::PmWakeup, Kind::Lifecycle];
    let guest = Guest::after(1, "web", Deed::Sleep);
    let mut watched = Watched::start(guest, &[], &kinds).await;
    watched.run("cont", "{}").await;
    let asleep = ["web resumed (unpaused)", "web pm-suspend memory", "web pm_suspended (memory)"];
    assert_eq!(watched.until("pm_suspended").await, asleep);
    watched.run("system_wakeup", "{}").await;
    assert_eq!(watched.until("started").await, ["web pm-wakeup", "web started (wakeup)"]);
}
