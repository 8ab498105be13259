use super::*;

fn exchange(mechanism: Mechanism) -> Exchange {
    Exchange::new(mechanism, Credentials::new("fred", "s3cr3t")).unwrap()
}

/// The client's first message of SCRAM, and the nonce in it.
fn scram(mechanism: Mechanism) -> (Exchange, String) {
    let mut client = exchange(mechanism);
    let first = client.step(None).unwrap().unwrap();
    let first = String::from_utf8(first.to_vec()).unwrap();
    let nonce = first.strip_prefix("n,,n=fred,r=").unwrap().to_owned();
    (client, nonce)
}

#[test]
fn plain_sends_user_and_password_and_is_done() {
    let mut client = exchange(Mechanism::Plain);
    assert_eq!(**client.step(None).unwrap().unwrap(), *b"\0fred\0s3cr3t");
    assert!(client.is_done());
}

#[test]
fn scram_sends_no_password() {
    for mechanism in [Mechanism::ScramSha1, Mechanism::ScramSha256] {
        let (mut client, nonce) = scram(mechanism);
        let first = format!("r={nonce}abc,s=c2FsdA==,i=4096");
        assert!(client.is_slow(Some(first.as_bytes())) && !client.is_slow(None));
        let second = client.step(Some(first.as_bytes())).unwrap().unwrap();
        let second = String::from_utf8(second.to_vec()).unwrap();
        assert!(second.starts_with(&format!("c=biws,r={nonce}abc,p=")), "{second}");
        assert!(!client.is_done() && !second.contains("s3cr3t"));
    }
}

#[test]
fn a_wrong_proof_of_the_server_is_found_out() {
    let (mut client, nonce) = scram(Mechanism::ScramSha256);
    client.step(Some(format!("r={nonce}abc,s=c2FsdA==,i=4096").as_bytes())).unwrap();
    assert_eq!(client.step(Some(b"v=AAAA")).unwrap_err(), Failure::Unproven);
    assert!(!client.is_done());
}

#[test]
fn an_iteration_count_out_of_bounds_is_never_computed() {
    for count in ["0", "-1", "1000001", "4294967295", "99999999999", "x", ""] {
        let (mut client, nonce) = scram(Mechanism::ScramSha256);
        let first = format!("r={nonce}abc,s=c2FsdA==,i={count}");
        let error = client.step(Some(first.as_bytes())).unwrap_err();
        assert!(matches!(error, Failure::Protocol(_)), "{count}: {error:?}");
    }
}

#[test]
fn a_nonce_that_is_not_the_clients_is_refused() {
    let (mut client, _) = scram(Mechanism::ScramSha256);
    let error = client.step(Some(b"r=other,s=c2FsdA==,i=4096")).unwrap_err();
    assert!(matches!(error, Failure::Protocol(_)), "{error:?}");
}

#[test]
fn garbage_of_a_server_causes_no_panic() {
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..3_000 {
        let (mut client, nonce) = scram(Mechanism::ScramSha256);
        let good = format!("r={nonce}abc,s=c2FsdA==,i=1");
        let mut bytes = good.into_bytes();
        match round % 3 {
            0 => bytes = (0..random.usize(..60)).map(|_| random.u8(..)).collect(),
            1 => bytes.truncate(random.usize(..bytes.len())),
            _ => {
                let at = random.usize(..bytes.len());
                bytes[at] = random.choice(*b",=rsiv\0\xff").unwrap();
            }
        }
        if client.step(Some(&bytes)).is_ok() {
            let end: Vec<u8> =
                (0..random.usize(..9)).map(|_| random.choice(*b"ve=,A").unwrap()).collect();
            let _ = client.step(Some(&end));
        }
    }
}

#[test]
fn debug_of_an_exchange_does_not_show_the_password() {
    let shown = format!("{:?}", exchange(Mechanism::Plain));
    assert!(shown.contains("Plain") && !shown.contains("s3cr3t"), "{shown}");
}
