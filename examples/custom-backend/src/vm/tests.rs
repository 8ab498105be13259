#![allow(clippy::unwrap_used)]

use super::*;
use crate::wire::objects::{Frame, Objects};

const PID: u32 = 4711;
const CREATED: Option<Info> = Some(Info { state: VmState::Created });
const RUNNING: Option<Info> = Some(Info { state: VmState::Running });
const PAUSED: Option<Info> = Some(Info { state: VmState::Paused });

fn vm() -> Vm {
    Vm::new("web", Uuid::from_u128(7), PID)
}

/// What is delivered for these bytes, the events that have no type left out.
fn delivered(vm: &mut Vm, stream: &[u8]) -> Vec<String> {
    let mut wire = Objects::default();
    let mut out = Batch::new("chv:/run/web.sock", "host");
    wire.push(stream);
    while let Some(frame) = wire.next_frame() {
        let Frame::Object(text) = frame else { panic!("{frame:?}") };
        vm.observe(&serde_json::from_slice(text).unwrap(), &Interest::default(), &mut out);
    }
    out.events().iter().map(ToString::to_string).collect()
}

fn stream(events: &[&str]) -> Vec<u8> {
    let text = |event: &&str| {
        let (source, event) = event.split_once('/').unwrap_or(("vm", event));
        format!("{{\n  \"source\": \"{source}\",\n  \"event\": \"{event}\"\n}}\n\n")
    };
    events.iter().map(text).collect::<String>().into_bytes()
}

#[test]
fn a_recorded_life_is_delivered_with_an_id_for_each_run() {
    let recorded = include_bytes!("../../tests/vectors/api-lifecycle.events");
    assert_eq!(
        delivered(&mut vm(), recorded),
        [
            "web defined (added)",
            "web[4711] started (booted)",
            "web[4711] suspended (paused)",
            "web[4711] resumed (unpaused)",
            "web[4711] rebooted",
            "web[4711] stopped (shutdown)",
            "web[4199015] started (booted)",
            "web[4199015] stopped (shutdown)",
            "web undefined (removed)",
        ]
    );
}

#[test]
fn a_recorded_poweroff_ends_the_domain_once() {
    let mut vm = vm();
    let recorded = include_bytes!("../../tests/vectors/guest-poweroff.events");
    let expected = [
        "web defined (added)",
        "web[4711] started (booted)",
        "web[4711] stopped (shutdown)",
        "web undefined (removed)",
    ];
    assert_eq!(delivered(&mut vm, recorded), expected);
    let mut out = Batch::new("s:", "h");
    vm.process_ended(&mut out);
    assert!(out.events().is_empty());
}

#[test]
fn a_killed_process_ends_the_run_as_failed() {
    let mut vm = vm();
    delivered(&mut vm, include_bytes!("../../tests/vectors/killed.events"));
    let mut out = Batch::new("s:", "h");
    vm.process_ended(&mut out);
    let events: Vec<_> = out.events().iter().map(ToString::to_string).collect();
    assert_eq!(events, ["web[4711] stopped (failed)", "web undefined (removed)"]);
}

#[test]
fn a_migration_away_ends_the_run_as_migrated() {
    let mut vm = vm();
    delivered(&mut vm, &stream(&["booting", "booted"]));
    let end = stream(&["migration-started", "paused", "migration-finished", "deleted"]);
    let expected =
        ["web[4711] suspended (paused)", "web[4711] stopped (migrated)", "web undefined (removed)"];
    assert_eq!(delivered(&mut vm, &end), expected);
}

#[test]
fn a_migration_in_starts_the_run_as_migrated() {
    let events = stream(&[
        "migration-receive-ready",
        "migration-receive-started",
        "restoring",
        "restored",
        "resuming",
        "resumed",
        "migration-receive-finished",
    ]);
    let expected =
        ["web defined (added)", "web[4711] started (migrated)", "web[4711] resumed (migrated)"];
    assert_eq!(delivered(&mut vm(), &events), expected);
}

#[test]
fn a_restored_vm_is_paused_until_it_is_resumed() {
    let events = stream(&["restoring", "restored", "resumed"]);
    let expected = [
        "web defined (added)",
        "web[4711] started (restored)",
        "web[4711] suspended (restored)",
        "web[4711] resumed (unpaused)",
    ];
    assert_eq!(delivered(&mut vm(), &events), expected);
}

#[test]
fn a_boot_that_fails_leaves_an_inactive_domain() {
    let mut vm = vm();
    assert_eq!(delivered(&mut vm, &stream(&["booting"])), ["web defined (added)"]);
    assert!(vm.agrees(CREATED) && !vm.agrees(RUNNING));
}

#[test]
fn a_guest_that_panicked_has_crashed_at_its_end() {
    let mut vm = vm();
    let panic = b"{\n  \"source\": \"guest\",\n  \"event\": \"panic\",\n  \"properties\": {\n    \"event\": \"panic\"\n  }\n}\n";
    delivered(&mut vm, &stream(&["booted"]));
    assert_eq!(delivered(&mut vm, panic), ["web[4711] crashed (panicked)"]);
    assert!(vm.agrees(RUNNING), "Cloud Hypervisor lets it run");
    assert_eq!(delivered(&mut vm, &stream(&["shutdown"])), ["web[4711] stopped (crashed)"]);
}

#[test]
fn a_list_is_the_answer_with_the_reason_of_the_events() {
    let mut vm = vm();
    let mut out = Batch::new("s:", "h");
    assert!(vm.listed(None, &mut out).is_empty());
    assert!(vm.listed(CREATED, &mut out)[0].state.is_shutoff());
    delivered(&mut vm, &stream(&["booting", "booted"]));
    assert_eq!(vm.listed(RUNNING, &mut out)[0].state, State::Running(RunningReason::Booted));
    assert!(!vm.agrees(PAUSED));
    let listed = vm.listed(PAUSED, &mut out);
    assert!(listed[0].state.is_paused());
    assert_eq!(listed[0].domain.id(), Some(PID));
    assert!(vm.listed(None, &mut out).is_empty());
    assert_eq!(delivered(&mut vm, &stream(&["booted"])).len(), 2, "defined and started again");
}
