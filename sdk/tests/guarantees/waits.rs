//! Guarantees of `wait_until` and `domains`.

use virevent::{EventSourceExt, State, Waited};
use virevent_testkit::FakeHypervisor;

use crate::{secs, synced};

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_once_when_the_domain_is_in_that_state() {
    let (fake, _events) = synced().await;
    let waited = fake.wait_until("web", State::is_running, secs(1)).await.unwrap();
    assert!(matches!(waited, Waited::Reached(domain, _) if domain.id() == Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_the_domain_comes_into_that_state() {
    let fake = FakeHypervisor::new();
    let other = fake.clone();
    tokio::spawn(async move {
        tokio::time::sleep(secs(5)).await;
        other.define("web").unwrap();
        tokio::time::sleep(secs(5)).await;
        other.start("web").unwrap();
    });
    let waited = fake.wait_until("web", State::is_running, secs(60)).await.unwrap();
    assert!(matches!(waited, Waited::Reached(..)), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_the_domain_is_gone_for_good() {
    let (fake, _events) = synced().await;
    let other = fake.clone();
    let gone =
        tokio::spawn(async move { other.wait_until("web", State::is_paused, secs(60)).await });
    tokio::time::sleep(secs(1)).await;
    fake.stop("web").unwrap();
    fake.undefine("web").unwrap();
    assert!(matches!(gone.await.unwrap().unwrap(), Waited::Gone(_)));

    fake.create("brief").unwrap();
    let other = fake.clone();
    let gone =
        tokio::spawn(async move { other.wait_until("brief", State::is_paused, secs(60)).await });
    tokio::time::sleep(secs(1)).await;
    fake.stop("brief").unwrap();
    assert!(matches!(gone.await.unwrap().unwrap(), Waited::Gone(_)), "a transient domain");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_its_deadline_with_the_last_state() {
    let (fake, _events) = synced().await;
    let waited = fake.wait_until("web", State::is_paused, secs(7)).await.unwrap();
    assert!(matches!(waited, Waited::TimedOut(Some(state)) if state.is_running()), "{waited:?}");
    let waited = fake.wait_until("missing", State::is_paused, secs(7)).await.unwrap();
    assert!(matches!(waited, Waited::TimedOut(None)), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn domains_lists_every_domain_and_its_state() {
    let fake = FakeHypervisor::new();
    fake.define("db").unwrap();
    fake.create("web").unwrap();
    let domains = EventSourceExt::domains(&fake).await.unwrap();
    let lines: Vec<_> = domains.iter().map(|(domain, state)| format!("{domain} {state}")).collect();
    assert_eq!(lines, ["db shutoff", "web[1] running (booted)"]);
}
