//! Streams over TLS, with and without a client certificate.

use virevent_testkit::assert::expect_sequence;
use virevent_testkit::tls::KeyForm;

use super::*;

async fn assert_delivers(secured: &Secured, uri: &str) {
    let virsh = secured.daemon.virsh(TEST);
    let source = client(uri);
    let (mut events, existing) = synced_stream(&source).await;
    assert!(existing.iter().any(|line| line == "test[1] existing (running)"), "{existing:?}");
    virsh.run(&["suspend", "test"]).await.unwrap();
    virsh.run(&["resume", "test"]).await.unwrap();
    let expected = ["test[1] suspended (paused)", "test[1] resumed (unpaused)"];
    expect_sequence(&mut events, &expected).await.unwrap();
    source.shutdown().await;
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn events_arrive_over_tls_with_a_client_certificate() {
    let secured = Secured::start().await;
    for form in [KeyForm::Pkcs8, KeyForm::Sec1, KeyForm::Pkcs1] {
        let certificate = secured.pki.issue(&Leaf::client("fred").key(form)).unwrap();
        let name = format!("{form:?}");
        let directory = secured.pki.client_directory(&name, Some(&certificate)).unwrap();
        assert_delivers(&secured, &secured.uri(&directory)).await;
    }
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_daemon_that_verifies_no_client_needs_no_certificate() {
    let secured = Secured::start_with("tls_no_verify_certificate = 1\n").await;
    let directory = secured.pki.directory("client").unwrap();
    assert_delivers(&secured, &secured.uri(&directory)).await;
    // A host without a transport means TLS, and an address is a name, too.
    let port = secured.daemon.tls_port().unwrap();
    let uri = format!("test://127.0.0.1:{port}/default?pkipath={}", directory.display());
    assert_delivers(&secured, &uri).await;
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_client_that_does_not_verify_connects_to_any_daemon() {
    let pki = Pki::new().unwrap();
    let leaf = Leaf::server(&["other.example"]);
    let directory = pki.server_directory("server", &leaf).unwrap();
    let config = Config::default().tls(&directory).extra("tls_no_verify_certificate = 1\n");
    let secured = Secured { daemon: Libvirtd::start_with(config).await.unwrap(), pki };
    let empty = tempfile::tempdir().unwrap();
    let uri = format!("{}&no_verify=1", secured.uri(empty.path()));
    assert_delivers(&secured, &uri).await;
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_list_of_two_thousand_domains_comes_whole_over_tls() {
    let secured = Secured::start().await;
    let virsh = secured.daemon.virsh(TEST);
    let _keeper = virsh.session().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut commands = String::new();
    for number in 0..2_000 {
        let file = directory.path().join(format!("{number}.xml"));
        let xml = format!(
            "<domain type='test'><name>vm{number}</name><memory>8192</memory>\
             <os><type>hvm</type></os></domain>"
        );
        std::fs::write(&file, xml).unwrap();
        commands.push_str(&format!("define {}\n", file.display()));
    }
    virsh.batch(&commands).await.unwrap();
    let source = client(&secured.uri(&secured.client("fred")));
    let (_events, existing) = synced_stream(&source).await;
    assert_eq!(existing.iter().filter(|line| line.starts_with("vm")).count(), 2_000);
}
