use super::*;
use crate::wire::Header;

#[test]
fn only_an_event_that_is_asked_for_can_fail_a_subscription() {
    let answer = |kinds: &str, code| {
        let mut client = Client::new();
        let mut out = Batch::new("s:", "h");
        let kinds = kinds.split(' ').map(|kind| kind.parse().unwrap());
        client.set_interest(&kinds.collect(), 1);
        let message = "no".to_owned();
        let error = RemoteError { code, domain: 7, message, format: String::new(), int1: 0 };
        let mut body = Vec::new();
        error.write(&mut Writer::new(&mut body));
        // The second call is that for reboot, which the session registers for itself as well.
        let header = Header::error(procs::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY, 2);
        client.receive(&Frame { header, body: &body }, &mut out)
    };
    answer("lifecycle reboot", code::INTERNAL_ERROR).unwrap();
    answer("lifecycle reboot", code::NO_SUPPORT).unwrap();
    for (code, refusal) in [
        (code::INVALID_ARG, true),
        (code::ACCESS_DENIED, true),
        (code::OPERATION_DENIED, true),
        (code::SYSTEM_ERROR, false),
    ] {
        answer("lifecycle", code).unwrap();
        let error = answer("lifecycle reboot", code).unwrap_err();
        assert!(matches!(error, Error::Server(_)) && error.is_refusal() == refusal);
    }
}

/// What becomes of the look at a domain of which the server says this.
fn looked(code: Option<i32>) -> String {
    let mut client = Client::new();
    let mut out = Batch::new("s:", "h");
    let domain = Domain::new("s:", "h", virevent::Uuid::from_u128(1), "web", None);
    client.request_state(&domain, 77);
    let procedure = procs::CONNECT_GET_ALL_DOMAIN_STATS;
    let mut body = Vec::new();
    let header = match code {
        Some(code) => {
            let message = "no".to_owned();
            let error = RemoteError { code, domain: 7, message, format: String::new(), int1: 0 };
            error.write(&mut Writer::new(&mut body));
            Header::error(procedure, 1)
        }
        None => {
            Writer::new(&mut body).u32(0);
            Header::reply(procedure, 1)
        }
    };
    client.receive(&Frame { header, body: &body }, &mut out).unwrap();
    // A batch shows its answers to the driver alone.
    format!("{out:?}")
}

#[test]
fn a_look_is_answered_even_where_the_server_fails_it() {
    assert!(looked(None).contains("Looked(77, None)"));
    assert!(looked(Some(code::NO_DOMAIN)).contains("Looked(77, None)"));
    let failed = looked(Some(code::SYSTEM_ERROR));
    assert!(failed.contains("LookFailed(77)") && !failed.contains("Looked("), "{failed}");
    assert!(!looked(Some(code::NO_SUPPORT)).contains("77"), "it asks in the other way");
}

#[test]
fn whatever_comes_is_taken_in_or_is_an_error_and_never_a_panic() {
    let mut random = fastrand::Rng::with_seed(5);
    let procedures =
        [1, 24, 60, 66, 107, 151, 169, 212, 269, 273, 316, 317, 318, 319, 325, 333, 344, -1];
    for _ in 0..200 {
        let mut client = Client::new();
        let mut out = Batch::new("s:", "h");
        let kinds = ["lifecycle", "reboot", "other"].map(|kind| kind.parse());
        client.set_interest(&kinds.into_iter().flatten().collect(), 1);
        for _ in 0..200 {
            let domain = Domain::new("s:", "h", virevent::Uuid::from_u128(1), "web", None);
            match random.u8(..) {
                ..20 => client.request_list(random.u64(..3)),
                20..40 => client.request_state(&domain, random.u64(..3)),
                _ => {}
            }
            let body: Vec<u8> = (0..random.usize(..80))
                .map(|_| if random.bool() { 0 } else { random.u8(..5) })
                .collect();
            let header = Header {
                procedure: procedures[random.usize(..procedures.len())],
                kind: random.u32(..4),
                serial: random.u32(..60),
                status: random.u32(..3),
                ..Header::event(0)
            };
            let _ = client.receive(&Frame { header, body: &body }, &mut out);
            client.settle(&mut out);
            let unwritten = client.calls.outbox().unwritten().len();
            client.calls.outbox().wrote(unwritten);
        }
    }
}
