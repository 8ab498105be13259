//! A callback that gives credentials.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use virevent_libvirt::{Credentials, CredentialsCallback, CredentialsRequest};

use super::*;

/// Gives these passwords one after the other, and keeps what it was asked.
#[derive(Clone, Default)]
struct Script {
    passwords: Vec<&'static str>,
    asked: Arc<Mutex<Vec<CredentialsRequest>>>,
}

#[async_trait]
impl CredentialsCallback for Script {
    async fn credentials(&self, request: &CredentialsRequest) -> Option<Credentials> {
        self.asked.lock().unwrap().push(request.clone());
        let password = self.passwords.get(request.attempt as usize - 1)?;
        Some(Credentials::new("fred", *password))
    }
}

fn script(passwords: &[&'static str]) -> Script {
    Script { passwords: passwords.into(), ..Script::default() }
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_callback_is_asked_again_on_the_same_connection() {
    for mechanism in ["scram-sha-256", "scram-sha-1", "plain"] {
        let daemon = daemon(mechanism).await;
        let script = script(&["wrong", "wrong too", "sekrit"]);
        assert_works(client(&daemon.uri(TEST)).credentials(script.clone()).source()).await;
        let asked = script.asked.lock().unwrap();
        let attempts: Vec<_> = asked.iter().map(|asked| asked.attempt).collect();
        assert_eq!(attempts, [1, 2, 3], "{mechanism}");
        assert!(asked[0].refusal.is_none() && asked[0].host == "localhost");
        assert!(asked[1].refusal.as_ref().unwrap().contains("authentication failed"));
        assert_eq!(asked[2].mechanism, mechanism.to_uppercase());
    }
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_callback_is_asked_three_times_and_no_more() {
    let daemon = daemon("scram-sha-256").await;
    let wrong = script(&["a", "b", "c", "sekrit"]);
    let (error, line) =
        refusal(&client(&daemon.uri(TEST)).credentials(wrong.clone()).source()).await;
    assert!(matches!(error, Error::Credentials { .. }), "{line}");
    assert_eq!(wrong.asked.lock().unwrap().len(), 3);

    let gives_up = script(&["a"]);
    let (error, line) =
        refusal(&client(&daemon.uri(TEST)).credentials(gives_up.clone()).source()).await;
    assert!(matches!(error, Error::Credentials { .. }), "{line}");
    assert_eq!(gives_up.asked.lock().unwrap().len(), 2);
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_callback_without_credentials_leaves_it_to_the_auth_file() {
    let daemon = daemon("scram-sha-256").await;
    let (_directory, path) = auth_file("fred", "sekrit");
    let none = script(&[]);
    assert_works(client(&uri_with(&daemon, &path)).credentials(none.clone()).source()).await;
    assert_eq!(none.asked.lock().unwrap().len(), 1);
    // A callback that has some goes before the file.
    let (_directory, wrong) = auth_file("fred", "wrong");
    assert_works(client(&uri_with(&daemon, &wrong)).credentials(script(&["sekrit"])).source())
        .await;
}

struct Hangs;

#[async_trait]
impl CredentialsCallback for Hangs {
    async fn credentials(&self, _: &CredentialsRequest) -> Option<Credentials> {
        std::future::pending().await
    }
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_callback_that_hangs_is_an_error_at_the_deadline() {
    let daemon = daemon("scram-sha-256").await;
    let timeout = Duration::from_millis(300);
    let source = client(&daemon.uri(TEST)).credentials(Hangs).connect_timeout(timeout).source();
    let since = std::time::Instant::now();
    let (_, line) = refusal(&source).await;
    assert!(line.contains("the credentials callback gave none within 300ms"), "{line}");
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}
