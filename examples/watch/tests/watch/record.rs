//! `--record`, and the replay of what it wrote.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tempfile::TempDir;
use virevent_testkit::Recording;
use virevent_testkit::servers::Libvirtd;

use super::run::{path, run, script, start};

fn file(home: &TempDir) -> PathBuf {
    home.path().join("events.jsonl")
}

fn replay(file: &Path) -> String {
    format!("fake:?replay={}&speed=1000", file.display())
}

#[test]
fn a_replay_prints_what_the_recorded_run_printed() {
    let home = TempDir::new().unwrap();
    let file = file(&home);
    let first = run(&["--json", "--record", file.to_str().unwrap()]);
    assert_eq!((first.status, first.stderr.as_str()), (0, ""));
    let second = run(&["--json", &replay(&file)]);
    assert_eq!((second.status, second.stderr.as_str()), (0, ""));
    assert!(first.stdout.contains(r#""gap":"disconnected""#));
    assert_eq!(first.stdout, second.stdout);
}

#[test]
fn what_is_not_printed_is_recorded_too() {
    let home = TempDir::new().unwrap();
    let file = file(&home);
    let script = script(true, &[r#"create = "x""#, "after = \"50ms\"\nsuspend = \"x\""]);
    let args = ["--change", "stopped", "--quiet", "--script", path(&script), "--record"];
    assert_eq!(run(&[&args[..], &[file.to_str().unwrap()]].concat()).status, 0);
    assert_eq!(run(&["--json", &replay(&file)]).in_short().len(), 3);
}

#[test]
fn a_killed_run_leaves_whole_lines() {
    let home = TempDir::new().unwrap();
    let file = file(&home);
    let script = script(false, &[r#"create = "x""#]);
    let args = ["--json", "--script", path(&script), "--record", file.to_str().unwrap()];
    let mut recording = start(&args);
    recording.until_synced();
    recording.signal(Signal::KILL);
    drop(recording);
    assert_eq!(Recording::open(&file).unwrap().events().len(), 2);
}

#[test]
fn a_full_disk_ends_the_recording_and_not_the_run() {
    let script = script(true, &[r#"create = "x""#, "after = \"50ms\"\nsuspend = \"x\""]);
    let outcome = run(&["--json", "--script", path(&script), "--record", "/dev/full"]);
    assert_eq!((outcome.status, outcome.stdout.lines().count()), (1, 3));
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("cannot record to /dev/full: No space left"));
}

#[test]
fn a_replay_that_cannot_be_is_one_clear_line() {
    let home = TempDir::new().unwrap();
    let file = file(&home);
    std::fs::write(&file, Recording::header()).unwrap();
    let of = |speed: &str| format!("fake:?replay={}&speed={speed}", file.display());
    for (uri, expected) in [
        (of("0"), "speed=0: give a number from 0.001"),
        (of("-1"), "speed=-1: give a number from 0.001"),
        ("fake:?replay=/nonexistent/x".into(), "No such file"),
    ] {
        let outcome = run(&[&uri]);
        assert_eq!((outcome.status, outcome.stderr.lines().count()), (2, 1));
        assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    }
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_recording_of_a_real_daemon_replays_exactly() {
    let home = TempDir::new().unwrap();
    let file = file(&home);
    let mut daemon = Libvirtd::start().await.unwrap();
    let virsh = daemon.virsh("test:///default");
    let uri = daemon.uri("test:///default");
    let args = ["--json", "--only", "all", &uri, "--record", file.to_str().unwrap()];
    let mut recording = start(&args);
    let mut printed = String::new();
    let mut until = |run: &mut super::run::Run, part: &str| loop {
        let line = run.line();
        assert!(!line.is_empty(), "the output has ended");
        printed += &line;
        if line.contains(part) {
            break;
        }
    };
    until(&mut recording, "synced");
    for command in ["suspend", "resume", "destroy", "start"] {
        virsh.run(&[command, "test"]).await.unwrap();
    }
    until(&mut recording, "started");
    daemon.kill9().await;
    until(&mut recording, "disconnected");
    daemon.start_again().await.unwrap();
    until(&mut recording, "synced");
    recording.signal(Signal::INT);
    let outcome = recording.end();
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    printed += &outcome.stdout;
    // A new fixture of the testkit's tests is made with this variable.
    if let Some(to) = std::env::var_os("VIREVENT_KEEP_RECORDING") {
        std::fs::copy(&file, to).unwrap();
    }
    let replayed = run(&["--json", "--only", "all", &replay(&file)]);
    assert_eq!((replayed.status, replayed.stdout), (0, printed));
}
