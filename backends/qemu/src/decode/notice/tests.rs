use super::*;
use crate::wire::Message;

/// The notice of an event, in words, or `raw` where it has none.
fn noticed(name: &str, data: &str) -> String {
    let line = format!(r#"{{"event": "{name}", "data": {data}}}"#);
    let Ok(Message::Event(event)) = Message::read(line.as_bytes()) else { panic!("{line}") };
    match body(&event) {
        Some(body) => {
            assert_eq!(Kind::of_qemu(name), Some(body.kind()), "{line}");
            format!("{} {body}", body.kind())
        }
        None => "raw".into(),
    }
}

/// The events that tests/recorded.rs does not have, or not with these values.
#[test]
fn an_event_becomes_the_notice_of_its_kind() {
    let io_error = r#""device": "", "operation": "write", "reason": "No space left on device""#;
    let unix = r#"{"host": "", "service": "/run/vnc.sock", "family": "unix", "websocket": false"#;
    let table = [
        ("RTC_CHANGE", r#"{"offset": 3600, "qom-path": "/x"}"#.into(), "rtc-change 3600 s"),
        ("WATCHDOG", r#"{"action": "inject-nmi"}"#.into(), "watchdog inject nmi"),
        (
            "BLOCK_IO_ERROR",
            format!(
                r#"{{{io_error}, "node-name": "libvirt-3-format", "qom-path":
                "/machine/peripheral/ide0-0-0/virtio-backend", "nospace": true, "action": "stop"}}"#
            ),
            "io-error ide0-0-0: paused, no space left",
        ),
        (
            "BLOCK_IO_ERROR",
            format!(r#"{{{io_error}, "node-name": "top", "qom-path": "/x", "action": "report"}}"#),
            "io-error top: reported to the guest",
        ),
        ("BLOCK_IO_ERROR", r#"{"action": "ignore"}"#.into(), "io-error ignored"),
        (
            "BLOCK_JOB_COMPLETED",
            r#"{"device": "j", "type": "stream", "len": 9, "offset": 3, "speed": 0,
            "error": "No space left on device"}"#
                .into(),
            "block-job j: pull failed",
        ),
        (
            "BLOCK_JOB_CANCELLED",
            r#"{"device": "j", "type": "commit"}"#.into(),
            "block-job j: commit canceled",
        ),
        (
            "DEVICE_TRAY_MOVED",
            r#"{"device": "", "id": "ide0-1-0", "tray-open": true}"#.into(),
            "tray-change ide0-1-0: open",
        ),
        (
            "DEVICE_TRAY_MOVED",
            r#"{"device": "cd", "id": "", "tray-open": false}"#.into(),
            "tray-change cd: close",
        ),
        ("BALLOON_CHANGE", r#"{"actual": 8388609}"#.into(), "balloon-change 8193 KiB"),
        (
            "DEVICE_UNPLUG_GUEST_ERROR",
            r#"{"device": "input0", "path": "/machine/peripheral/input0"}"#.into(),
            "device-removal-failed input0",
        ),
        (
            "BLOCK_WRITE_THRESHOLD",
            r#"{"node-name": "top", "amount-exceeded": 512, "write-threshold": 8589934592}"#.into(),
            "block-threshold top: 8589934592 bytes, by 512",
        ),
        (
            "MEMORY_FAILURE",
            r#"{"recipient": "guest", "action": "inject",
            "flags": {"action-required": true, "recursive": false, "new": [1e999]}}"#
                .into(),
            "memory-failure guest: inject, action required",
        ),
        (
            "MEMORY_DEVICE_SIZE_CHANGE",
            r#"{"id": "virtiomem0", "size": 268435456, "qom-path": "/x"}"#.into(),
            "memory-device-size-change virtiomem0: 262144 KiB",
        ),
        (
            "VSERPORT_CHANGE",
            r#"{"open": true, "id": "org.qemu.guest_agent.0"}"#.into(),
            "channel-lifecycle org.qemu.guest_agent.0: connected (channel)",
        ),
        (
            "VSERPORT_CHANGE",
            r#"{"open": false, "id": "\u00E4"}"#.into(),
            "channel-lifecycle ä: disconnected (channel)",
        ),
        (
            "VNC_INITIALIZED",
            format!(
                r#"{{"server": {{"auth": "sasl", "host": "::1", "service": "5900", "family": "ipv6"}},
                "client": {unix}, "x509_dname": "CN=fred", "sasl_username": "fred"}}}}"#
            ),
            "graphics initialize: /run/vnc.sock to [::1]:5900, sasl, x509dname CN=fred, \
             saslUsername fred",
        ),
        (
            "SPICE_DISCONNECTED",
            r#"{"server": {"host": "127.0.0.1", "port": "5901", "family": "ipv4"},
            "client": {"host": "127.0.0.1", "port": "41784", "family": "ipv4"}}"#
                .into(),
            "graphics disconnect: 127.0.0.1:41784 to 127.0.0.1:5901",
        ),
    ];
    for (name, data, expected) in table {
        assert_eq!(noticed(name, &data), expected, "{name} {data}");
    }
}

#[test]
fn an_event_that_the_notice_cannot_hold_is_raw() {
    let address = r#"{"host": "a", "service": "1", "family": "vsock"}"#;
    let vsock = format!(r#"{{"server": {address}, "client": {address}}}"#);
    let table = [
        ("RTC_CHANGE", "null"),
        ("RTC_CHANGE", "[]"),
        ("RTC_CHANGE", "{}"),
        ("RTC_CHANGE", r#"{"offset": 1e999}"#),
        ("RTC_CHANGE", r#"{"offset": 1.5}"#),
        ("RTC_CHANGE", r#"{"offset": 9223372036854775808}"#),
        ("RTC_CHANGE", r#"{"offset": "1"}"#),
        ("RTC_CHANGE", r#"{"offset": 1, "offset": 2}"#),
        ("WATCHDOG", r#"{"action": "explode"}"#),
        ("WATCHDOG", r#"{"action": ""}"#),
        ("BLOCK_IO_ERROR", r#"{"action": "retry"}"#),
        ("BLOCK_IO_ERROR", r#"{"action": "stop", "nospace": "yes"}"#),
        ("BLOCK_JOB_READY", r#"{"device": "j", "type": "snapshot-save"}"#),
        ("BLOCK_JOB_READY", r#"{"type": "mirror"}"#),
        ("BLOCK_JOB_PENDING", r#"{"type": "mirror", "id": "j"}"#),
        ("DEVICE_TRAY_MOVED", r#"{"device": "", "id": "", "tray-open": true}"#),
        ("DEVICE_TRAY_MOVED", r#"{"device": "cd", "id": "cd0"}"#),
        ("BALLOON_CHANGE", r#"{"actual": -1}"#),
        ("BALLOON_CHANGE", r#"{"actual": 18446744073709551616}"#),
        ("DEVICE_DELETED", r#"{"path": "/machine/peripheral/rng0/virtio-backend"}"#),
        ("DEVICE_UNPLUG_GUEST_ERROR", r#"{"path": "/machine/peripheral-anon/device[1]"}"#),
        ("MIGRATION_PASS", r#"{"pass": 2147483648}"#),
        ("BLOCK_WRITE_THRESHOLD", r#"{"node-name": "top", "write-threshold": 1}"#),
        ("MEMORY_FAILURE", r#"{"recipient": "guest", "action": "inject"}"#),
        ("MEMORY_FAILURE", r#"{"recipient": "host", "action": "inject", "flags": {}}"#),
        ("MEMORY_DEVICE_SIZE_CHANGE", r#"{"size": 4096, "qom-path": "/x"}"#),
        ("VSERPORT_CHANGE", r#"{"open": 1, "id": "a"}"#),
        ("VNC_CONNECTED", &vsock),
        ("POWERDOWN", "{}"),
        ("JOB_STATUS_CHANGE", r#"{"id": "j", "status": "ready"}"#),
        ("STOP", "{}"),
    ];
    for (name, data) in table {
        assert_eq!(noticed(name, data), "raw", "{name} {data}");
    }
    let deep = format!(r#"{{"offset": 5, "x": {}{}}}"#, "[".repeat(1000), "]".repeat(1000));
    assert_eq!(noticed("RTC_CHANGE", &deep), "rtc-change 5 s");
    assert_eq!(noticed("BALLOON_CHANGE", r#"{"actual": 18446744073709551615}"#).len(), 36);
}

/// Data that is nearly right: bytes are changed, removed and doubled. Nothing panics.
#[test]
fn garbled_data_is_raw_or_a_notice_of_the_same_kind() {
    let data = [
        ("RTC_CHANGE", r#"{"offset": -14400, "qom-path": "/machine/unattached/device[9]"}"#),
        ("BLOCK_IO_ERROR", r#"{"device": "d", "nospace": true, "action": "stop"}"#),
        ("MEMORY_FAILURE", r#"{"recipient": "guest", "action": "reset", "flags": {}}"#),
    ];
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..20_000 {
        let (name, data) = *random.choice(&data).unwrap();
        let mut data = data.as_bytes().to_vec();
        for _ in 0..random.usize(0..3) {
            let at = random.usize(0..data.len());
            match random.u8(0..3) {
                0 => data[at] = *random.choice(b"{}[]\",:\\ 019-.eE").unwrap(),
                1 => drop(data.remove(at)),
                _ => data.insert(at, data[at]),
            }
        }
        let data = String::from_utf8(data).unwrap();
        let line = format!(r#"{{"event": "{name}", "data": {data}}}"#);
        if let Ok(Message::Event(event)) = Message::read(line.as_bytes()) {
            let kind = body(&event).map(|body| body.kind());
            assert!(kind.is_none() || kind == Kind::of_qemu(event.name), "{line}");
        }
    }
}

#[test]
fn the_kinds_are_those_of_qemus_names() {
    let lifecycle = [Kind::Lifecycle, Kind::Reboot];
    let names = [
        "RTC_CHANGE",
        "WATCHDOG",
        "BLOCK_IO_ERROR",
        "VNC_CONNECTED",
        "SPICE_INITIALIZED",
        "BLOCK_JOB_READY",
        "DEVICE_TRAY_MOVED",
        "WAKEUP",
        "SUSPEND_DISK",
        "BALLOON_CHANGE",
        "DEVICE_DELETED",
        "DEVICE_UNPLUG_GUEST_ERROR",
        "MIGRATION_PASS",
        "BLOCK_WRITE_THRESHOLD",
        "MEMORY_FAILURE",
        "MEMORY_DEVICE_SIZE_CHANGE",
        "VSERPORT_CHANGE",
    ];
    for name in names {
        assert!(kinds().contains(&Kind::of_qemu(name).unwrap()), "{name}");
    }
    assert!(!kinds().iter().any(|kind| lifecycle.contains(kind)));
}
