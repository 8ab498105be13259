//! The client's files.

use std::fs;

use super::*;

#[tokio::test]
async fn a_missing_ca_is_a_refusal() {
    let secured = Secured::start().await;
    fs::remove_file(secured.client.join("cacert.pem")).unwrap();
    let error = error(&secured.uri()).await;
    assert_refusal(&error, &["there is no", "client/cacert.pem", "pkipath="]);
}

#[tokio::test]
async fn a_key_without_its_certificate_is_a_refusal() {
    let secured = Secured::start().await;
    secured.pki.issue(&Leaf::client("fred")).unwrap().write(&secured.client, "client").unwrap();
    fs::remove_file(secured.client.join("clientcert.pem")).unwrap();
    let error = error(&secured.uri()).await;
    assert_refusal(&error, &["client/clientkey.pem, but no", "client/clientcert.pem"]);
}

#[tokio::test]
async fn a_key_of_another_certificate_is_a_refusal() {
    let secured = Secured::start().await;
    secured.pki.issue(&Leaf::client("fred")).unwrap().write(&secured.client, "client").unwrap();
    let other = secured.pki.issue(&Leaf::client("joe")).unwrap();
    fs::write(secured.client.join("clientkey.pem"), &other.key).unwrap();
    let error = error(&secured.uri()).await;
    assert_refusal(&error, &["client/clientkey.pem", "its key belongs to another certificate"]);
}

#[tokio::test]
async fn a_file_that_is_no_pem_is_a_refusal() {
    let secured = Secured::start().await;
    fs::write(secured.client.join("cacert.pem"), "nothing").unwrap();
    let error = error(&secured.uri()).await;
    assert_refusal(&error, &["client/cacert.pem", "no certificate in PEM"]);
}

#[tokio::test]
async fn no_error_and_no_debug_output_shows_a_key() {
    let secured = Secured::start().await;
    let fred = secured.pki.issue(&Leaf::client("fred")).unwrap();
    fred.write(&secured.client, "client").unwrap();
    secured.front.refuse(2);
    let shown = format!("{} {:?}", error(&secured.uri()).await, client(&secured.uri()));
    let line = fred.key.lines().nth(1).unwrap();
    assert!(!shown.contains(line), "{shown}");
}
