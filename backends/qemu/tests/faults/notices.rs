//! Events with a type: delivered as notices to the subscribers of their kind, and whole where their
//! data is not what the type needs.

use virevent::{DomainEvent, EventSource, Kind, Kinds, NoticeBody, Options};
use virevent_testkit::assert::{next_within, until_synced};
use virevent_testkit::fakes::qemu::FakeQemu;

use super::{PATIENCE, all, client, goes_on, next};

fn of(kinds: &str) -> Options {
    kinds
        .split(' ')
        .fold(Options::default(), |options, kind| options.kind(kind.parse::<Kind>().unwrap()))
}

#[tokio::test]
async fn each_subscriber_gets_the_notices_of_its_kinds() {
    let qemu = FakeQemu::start("web").unwrap();
    let source = client(&qemu).source();
    let mut clock = source.subscribe_with(of("rtc-change")).await.unwrap();
    let mut disks = source.subscribe_with(of("io-error block-job")).await.unwrap();
    let mut others = source.subscribe_with(all()).await.unwrap();
    for events in [&mut clock, &mut disks, &mut others] {
        until_synced(events).await.unwrap();
    }
    qemu.emit("BALLOON_CHANGE", r#"{"actual": 1024}"#);
    qemu.emit("RTC_CHANGE", r#"{"offset": 1}"#);
    qemu.emit("BLOCK_JOB_READY", r#"{"device": "j", "type": "mirror"}"#);
    qemu.emit("POWERDOWN", "");
    assert_eq!(next(&mut clock).await, "web rtc-change 1 s");
    assert_eq!(next(&mut disks).await, "web block-job j: copy ready");
    assert_eq!(next(&mut others).await, "web event POWERDOWN {}");
}

#[tokio::test]
async fn a_notice_has_the_time_of_qemu_and_the_domain() {
    let qemu = FakeQemu::start("web").unwrap();
    let mut events = client(&qemu).source().subscribe_with(of("balloon-change")).await.unwrap();
    until_synced(&mut events).await.unwrap();
    qemu.emit("BALLOON_CHANGE", r#"{"actual": 1073741824}"#);
    let event = next_within(&mut events, PATIENCE).await.unwrap();
    let DomainEvent::Notice(notice) = event else { panic!("{event}") };
    assert_eq!(*notice.body, NoticeBody::BalloonChange { actual: 1 << 20 });
    assert_eq!((notice.domain.name(), notice.domain.id()), ("web", Some(1)));
    let stamp = notice.at.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!((stamp.as_secs(), stamp.subsec_micros()), (1_795_333_210, 380_905));
}

#[tokio::test]
async fn a_sleep_is_a_notice_before_its_change() {
    let qemu = FakeQemu::start("web").unwrap();
    let wanted = of("lifecycle pm-suspend pm-wakeup");
    let mut events = client(&qemu).source().subscribe_with(wanted).await.unwrap();
    until_synced(&mut events).await.unwrap();
    qemu.set_status("suspended");
    qemu.emit("SUSPEND", "");
    assert_eq!(next(&mut events).await, "web pm-suspend memory");
    assert_eq!(next(&mut events).await, "web pm_suspended (memory)");
    qemu.set_status("running");
    qemu.emit("WAKEUP", "");
    assert_eq!(next(&mut events).await, "web pm-wakeup");
    assert_eq!(next(&mut events).await, "web started (wakeup)");
}

#[tokio::test]
async fn malformed_data_is_delivered_whole_to_its_subscribers() {
    let qemu = FakeQemu::start("web").unwrap();
    let source = client(&qemu).source();
    let mut clock = source.subscribe_with(of("lifecycle rtc-change device-removed")).await.unwrap();
    let mut others = source.subscribe_with(all()).await.unwrap();
    until_synced(&mut clock).await.unwrap();
    until_synced(&mut others).await.unwrap();
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    let path = r#"{"path": "/machine/peripheral/rng0/virtio-backend"}"#;
    for (event, data) in [
        ("RTC_CHANGE", r#"{"offset": 1e999}"#),
        ("RTC_CHANGE", r#"{"offset": "noon"}"#),
        ("RTC_CHANGE", &deep),
        ("DEVICE_DELETED", path),
    ] {
        qemu.emit(event, data);
        let whole = format!("web event {event} {data}");
        assert_eq!(next(&mut clock).await, whole);
        assert_eq!(next(&mut others).await, whole);
    }
    goes_on(&qemu, &mut clock).await;
}

#[tokio::test]
async fn capabilities_are_the_kinds_that_qemu_reports() {
    let qemu = FakeQemu::start("web").unwrap();
    let source = client(&qemu).source();
    let mut events = source.subscribe_with(Options::default().kinds(Kinds::all())).await.unwrap();
    until_synced(&mut events).await.unwrap();
    let possible = source.capabilities().kinds;
    let lacking = [
        Kind::AgentLifecycle,
        Kind::ControlError,
        Kind::DeviceAdded,
        Kind::DiskChange,
        Kind::JobCompleted,
        Kind::MetadataChange,
        Kind::NicMacChange,
        Kind::Tunable,
        Kind::VcpuRemoved,
    ];
    for kind in Kind::TYPED.iter().chain([&Kind::Other]) {
        assert_eq!(possible.contains(kind), !lacking.contains(kind), "{kind}");
    }
    qemu.emit("VSERPORT_CHANGE", r#"{"open": true, "id": "channel0"}"#);
    assert_eq!(next(&mut events).await, "web channel-lifecycle channel0: connected (channel)");
}

#[tokio::test]
async fn a_sleep_before_the_run_state_is_a_notice_too() {
    let qemu = FakeQemu::start("web").unwrap();
    let wanted = of("lifecycle pm-suspend");
    let mut events = client(&qemu).source().subscribe_with(wanted).await.unwrap();
    until_synced(&mut events).await.unwrap();
    qemu.set_status("suspended");
    let early = b"{\"event\": \"SUSPEND\"}\r\n";
    qemu.change(|faults| drop(faults.before.insert("query-status".into(), early.to_vec())));
    qemu.cut();
    let mut delivered = Vec::new();
    while delivered.last().is_none_or(|line: &String| !line.starts_with("synced")) {
        delivered.push(next(&mut events).await);
    }
    assert!(delivered.contains(&"web pm-suspend memory".to_owned()), "{delivered:?}");
    let slept = |line: &&String| line.contains("pm_suspended");
    assert_eq!(delivered.iter().filter(slept).count(), 1, "{delivered:?}");
}
