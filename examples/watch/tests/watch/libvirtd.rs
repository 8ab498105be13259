//! The program against a real libvirtd.

use rustix::process::Signal;
use virevent_testkit::servers::{Guest, Libvirtd};

use super::run::{Run, start};

fn watch(daemon: &Libvirtd, uri: &str, args: &[&str]) -> Run {
    let mut run = start(&[args, &["--json", &daemon.uri(uri)]].concat());
    run.until_synced();
    run
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn changes_by_another_client_are_printed_in_order() {
    let daemon = Libvirtd::start().await.unwrap();
    let virsh = daemon.virsh("test:///default");
    let run = watch(&daemon, "test:///default", &["--count", "6"]);
    for command in ["suspend", "resume", "shutdown", "start", "destroy", "undefine"] {
        virsh.run(&[command, "test"]).await.unwrap();
    }
    let outcome = run.end();
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    assert_eq!(
        outcome.in_short(),
        [
            "suspended paused",
            "resumed unpaused",
            "stopped shutdown",
            "started booted",
            "stopped destroyed",
            "undefined removed",
        ]
    );
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn the_life_of_a_qemu_guest_is_printed_with_its_reboot() {
    let daemon = Libvirtd::start().await.unwrap();
    let virsh = daemon.virsh(daemon.qemu());
    let run = watch(&daemon, daemon.qemu(), &["--count", "6"]);
    virsh.define(&daemon.furnish(&Guest::idle("web")).unwrap()).await.unwrap();
    virsh.batch("start web\nsuspend web\nresume web\nreset web\n").await.unwrap();
    let outcome = run.end();
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    assert_eq!(
        outcome.in_short(),
        [
            "defined added",
            "resumed unpaused",
            "started booted",
            "suspended paused",
            "resumed unpaused",
            "web[1] rebooted",
        ]
    );
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn only_all_prints_typed_events_with_their_fields() {
    let daemon = Libvirtd::start().await.unwrap();
    let virsh = daemon.virsh(daemon.qemu());
    let names = virsh.run(&["event", "--list"]).await.unwrap();
    for name in names.lines().map(str::trim).filter(|name| !name.is_empty()) {
        name.parse::<virevent::Kind>().unwrap();
    }
    virsh.create(&daemon.furnish(&Guest::idle("web")).unwrap()).await.unwrap();
    let mut run = start(&["--only", "all", "--count", "2", &daemon.uri(daemon.qemu())]);
    while !run.line().contains("synced") {}
    virsh.run(&["desc", "web", "--live", "--title", "hello"]).await.unwrap();
    virsh.run(&["blkdeviotune", "web", "hda", "--total-iops-sec", "300", "--live"]).await.unwrap();
    let outcome = run.end();
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    let lines: Vec<_> =
        outcome.stdout.lines().filter_map(|line| line.split_once("web[1]")).collect();
    let ends: Vec<_> = lines.iter().map(|(_, event)| event.trim()).collect();
    let tunable = "tunable blkdeviotune.disk=hda, blkdeviotune.total_iops_sec=300";
    assert!(ends.ends_with(&["metadata-change title", tunable]), "{ends:?}");
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn the_stream_survives_a_kill_of_the_daemon() {
    let mut daemon = Libvirtd::start().await.unwrap();
    let mut run = watch(&daemon, "test:///default", &[]);
    daemon.kill9().await;
    assert!(run.line().contains(r#""gap":"disconnected""#));
    daemon.start_again().await.unwrap();
    run.until_synced();
    run.signal(Signal::INT);
    assert_eq!(run.end().status, 0);
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_resumed_run_prints_what_changed_on_a_real_daemon() {
    let daemon = Libvirtd::start().await.unwrap();
    let virsh = daemon.virsh(daemon.qemu());
    for name in ["crashes", "stays"] {
        virsh.define(&daemon.furnish(&Guest::idle(name)).unwrap()).await.unwrap();
        virsh.run(&["start", name]).await.unwrap();
    }
    let home = tempfile::TempDir::new().unwrap();
    let file = home.path().join("last.json");
    let uri = daemon.uri(daemon.qemu());
    let args = ["--resume", file.to_str().unwrap(), "--json", &uri];
    let end = |run: Run| {
        run.signal(Signal::INT);
        let outcome = run.end();
        assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    };
    let mut first = start(&args);
    first.until_synced();
    end(first);
    assert!(daemon.kill_guest("crashes"));
    virsh.until_state("crashes", "shut off").await.unwrap();
    let mut second = start(&args);
    assert_eq!([second.next(), second.next()], ["stopped crashed", "synced"]);
    end(second);
    let mut third = start(&args);
    assert_eq!(third.next(), "synced", "once");
    end(third);
}
