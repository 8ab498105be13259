use super::*;
use crate::wire::Header;

#[test]
fn only_a_subscribed_event_can_fail_a_subscription() {
    let register = |kinds: &str, code| {
        let mut client = Client::new();
        let mut out = Batch::new("s:", "h");
        let kinds = kinds.split(' ').map(|kind| kind.parse().unwrap());
        client.set_interest(&kinds.collect(), 1);
        let message = "no".to_owned();
        let error = RemoteError { code, domain: 7, message, format: String::new(), int1: 0 };
        let mut body = Vec::new();
        error.write(&mut Writer::new(&mut body));
        // The second call registers for reboot, which the session needs itself, too.
        let header = Header::error(procs::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY, 2);
        client.receive(&Frame { header, body: &body }, &mut out)
    };
    register("lifecycle reboot", code::INTERNAL_ERROR).unwrap();
    register("lifecycle reboot", code::NO_SUPPORT).unwrap();
    for (code, refusal) in [
        (code::INVALID_ARG, true),
        (code::ACCESS_DENIED, true),
        (code::OPERATION_DENIED, true),
        (code::SYSTEM_ERROR, false),
    ] {
        register("lifecycle", code).unwrap();
        let error = register("lifecycle reboot", code).unwrap_err();
        assert!(matches!(error, Error::Server(_)) && error.is_refusal() == refusal);
    }
}

/// The batch after the server answered a state request with this error, or with an empty list.
fn batch_after(code: Option<i32>) -> String {
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
    // The answers in a batch are visible to the driver only, and in its debug form.
    format!("{out:?}")
}

#[test]
fn a_state_request_is_answered_even_if_the_server_fails_it() {
    assert!(batch_after(None).contains("Looked(77, None)"));
    assert!(batch_after(Some(code::NO_DOMAIN)).contains("Looked(77, None)"));
    let failed = batch_after(Some(code::SYSTEM_ERROR));
    assert!(failed.contains("LookFailed(77)") && !failed.contains("Looked("), "{failed}");
    assert!(
        !batch_after(Some(code::NO_SUPPORT)).contains("77"),
        "it restarts without the bulk call"
    );
}

#[test]
fn no_message_makes_the_client_panic() {
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
            client.report_interest(&mut out);
            let unwritten = client.calls.outbox().unwritten().len();
            client.calls.outbox().wrote(unwritten);
        }
    }
}
