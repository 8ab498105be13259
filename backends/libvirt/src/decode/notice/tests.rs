use super::*;
use crate::wire::xdr::Writer;

/// The notice of this event id, of a message in which these words follow the domain.
fn notice(id: u32, words: &[u8]) -> NoticeBody {
    body(id, 0, Reader::new(words)).unwrap()
}

#[test]
fn nic_mac_change_decodes() {
    #[rustfmt::skip]
    let words = [
        0, 0, 0, 4,              // the length of the alias
        b'n', b'e', b't', b'0',
        0, 0, 0, 17,             // the length of the old address
        b'5', b'2', b':', b'5',  b'4', b':', b'0', b'0',
        b':', b'0', b'0', b':',  b'0', b'0', b':', b'0',
        b'1', 0, 0, 0,           // its last byte, and padding
        0, 0, 0, 17,             // the length of the new address
        b'5', b'2', b':', b'5',  b'4', b':', b'0', b'0',
        b':', b'0', b'0', b':',  b'0', b'0', b':', b'0',
        b'2', 0, 0, 0,           // its last byte, and padding
    ];
    let expected = NoticeBody::NicMacChange {
        alias: "net0".into(),
        old_mac: "52:54:00:00:00:01".into(),
        new_mac: "52:54:00:00:00:02".into(),
    };
    assert_eq!(notice(27, &words), expected);
}

#[test]
fn vcpu_removed_decodes() {
    let words = [0, 0, 0, 3]; // the number of the processor
    assert_eq!(notice(28, &words), NoticeBody::VcpuRemoved { vcpu: 3 });
}

#[test]
fn channel_lifecycle_decodes() {
    #[rustfmt::skip]
    let words = [
        0, 0, 0, 22,             // the length of the channel's name
        b'o', b'r', b'g', b'.',  b'q', b'e', b'm', b'u',
        b'.', b'g', b'u', b'e',  b's', b't', b'_', b'a',
        b'g', b'e', b'n', b't',  b'.', b'0', 0, 0, // padding
        0, 0, 0, 1,              // state: connected
        0, 0, 0, 2,              // reason: channel
    ];
    let expected = NoticeBody::ChannelLifecycle {
        channel: "org.qemu.guest_agent.0".into(),
        state: ChannelState::Connected,
        reason: ChannelReason::Channel,
    };
    assert_eq!(notice(29, &words), expected);
}

/// Recorded sessions have the first three of them and the text.
#[test]
fn typed_parameters_of_every_type_decode() {
    let mut words = Vec::new();
    let w = &mut Writer::new(&mut words);
    w.u32(7);
    for code in 1..=7 {
        w.string(format!("p{code}"));
        w.i32(code);
        match code {
            1 => w.i32(-1),
            2 => w.u32(u32::MAX),
            3 => w.i64(i64::MIN),
            4 => w.u64(u64::MAX),
            5 => w.u64(1.5_f64.to_bits()),
            6 => w.i32(1),
            _ => w.string("text"),
        }
    }
    let NoticeBody::Tunable { params } = notice(17, &words) else { panic!() };
    let values: Vec<_> = (1..=7).map(|code| params.get(&format!("p{code}")).unwrap()).collect();
    let expected = [
        ParamValue::Int(-1),
        ParamValue::Int(u32::MAX.into()),
        ParamValue::Int(i64::MIN.into()),
        ParamValue::Int(u64::MAX.into()),
        ParamValue::Double(1.5),
        ParamValue::Bool(true),
        ParamValue::Text("text".into()),
    ];
    assert_eq!(values, expected.iter().collect::<Vec<_>>());
}

#[test]
fn identities_of_a_graphics_client_decode() {
    let mut words = Vec::new();
    let w = &mut Writer::new(&mut words);
    w.i32(1); // phase: initialize
    w.i32(1); // local: ipv6
    w.string("::1");
    w.string("5900");
    w.i32(2); // remote: unix
    w.string("/run/vnc.sock");
    w.string("");
    w.string("sasl");
    w.u32(2); // identities
    for (kind, name) in [("x509dname", "CN=fred"), ("saslUsername", "fred")] {
        w.string(kind);
        w.string(name);
    }
    let identity =
        |kind: &str, name: &str| GraphicsIdentity { kind: kind.into(), name: name.into() };
    let local =
        GraphicsAddress { family: AddressFamily::Ipv6, node: "::1".into(), service: "5900".into() };
    let remote = GraphicsAddress {
        family: AddressFamily::Unix,
        node: "/run/vnc.sock".into(),
        service: "".into(),
    };
    let expected = NoticeBody::Graphics {
        phase: GraphicsPhase::Initialize,
        local,
        remote,
        auth_scheme: "sasl".into(),
        identities: vec![identity("x509dname", "CN=fred"), identity("saslUsername", "fred")],
    };
    assert_eq!(notice(5, &words), expected);
}

#[test]
fn numbers_without_a_name_are_kept() {
    assert_eq!(notice(3, &[0, 0, 0, 9]), {
        NoticeBody::Watchdog { action: WatchdogAction::Unknown(9) }
    });
    let expected = NoticeBody::MemoryFailure {
        recipient: MemoryFailureRecipient::Unknown(7),
        action: MemoryFailureAction::Unknown(-1),
        action_required: false,
        recursive: true,
        other_flags: 8,
    };
    assert_eq!(notice(25, &[0, 0, 0, 7, 255, 255, 255, 255, 0, 0, 0, 10]), expected);
}

#[test]
fn a_text_that_is_not_utf8_is_kept_with_replacements() {
    let words = [0, 0, 0, 3, b'a', 0xff, b'b', 0];
    assert_eq!(notice(15, &words), NoticeBody::DeviceRemoved { alias: "a\u{fffd}b".into() });
}

#[test]
fn too_many_identities_or_parameters_are_malformed() {
    let with_count = |id, head: usize, count: u32, size: usize| {
        let mut words = vec![0; head];
        words.extend(count.to_be_bytes());
        words.resize(words.len() + size * count as usize, 0);
        body(id, 0, Reader::new(&words))
    };
    // A graphics event whose texts are all empty: 32 bytes to the identities.
    assert!(with_count(5, 32, 20, 8).is_ok());
    assert!(with_count(5, 32, 21, 8).is_err());
    // Of parameters no type is 0.
    let error = with_count(17, 0, 2048, 12).unwrap_err();
    assert_eq!(error.expected, "a typed parameter");
    let error = with_count(17, 0, 2049, 12).unwrap_err();
    assert_eq!(error.expected, "an array");
}

#[test]
fn garbage_causes_no_panic() {
    let mut random = fastrand::Rng::with_seed(4);
    for _ in 0..50_000 {
        let garbage: Vec<u8> = (0..random.usize(..120))
            .map(|_| random.choice([0, 0, 0, 1, 4, 7, 255]).unwrap_or(0))
            .collect();
        let _ = body(random.u32(..35), 0, Reader::new(&garbage));
    }
}
