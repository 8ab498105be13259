//! Guarantees of the registrations: what is requested of the hypervisor for the subscribers.

use virevent::{DomainEvent, End, Error, EventSource, EventSourceExt, Kind, Kinds, Options};
use virevent_testkit::{Asked, FakeHypervisor};

use crate::{delivered, synced};

fn registrations(fake: &FakeHypervisor) -> Vec<String> {
    let registrations =
        fake.journal().into_iter().filter(|asked| matches!(asked, Asked::Register(_)));
    registrations.map(|asked| asked.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn opening_a_source_does_no_io() {
    let fake = FakeHypervisor::new();
    tokio::task::yield_now().await;
    assert!(fake.journal().is_empty());
}

#[tokio::test(start_paused = true)]
async fn it_registers_before_it_lists() {
    let (fake, _events) = synced().await;
    let asked: Vec<_> = fake.journal().iter().map(ToString::to_string).collect();
    assert_eq!(asked, ["connect", "register lifecycle, reboot", "list"]);
}

#[tokio::test(start_paused = true)]
async fn many_subscribers_share_one_registration() {
    let (fake, _first) = synced().await;
    let mut others = Vec::new();
    for n in 0..10 {
        let options = Options::default().domain(format!("vm{n}").as_str());
        others.push(fake.subscribe_with(options).await.unwrap());
    }
    assert_eq!(registrations(&fake), ["register lifecycle, reboot"]);
}

#[tokio::test(start_paused = true)]
async fn lifecycle_is_registered_for_any_subscriber() {
    let fake = FakeHypervisor::new();
    let options = Options::default().kind(Kind::Reboot);
    let _events = fake.subscribe_with(options).await.unwrap();
    assert_eq!(registrations(&fake), ["register lifecycle, reboot"]);
}

#[tokio::test(start_paused = true)]
async fn a_kind_asked_for_by_name_that_the_server_lacks_is_an_error() {
    let fake = FakeHypervisor::builder().lacking(Kind::Reboot).build();
    let _default = fake.subscribe().await.unwrap();
    let error = fake.subscribe_with(Options::default().kind(Kind::Reboot)).await.unwrap_err();
    let Error::Unsupported { kind, .. } = &error else { panic!("{error}") };
    assert_eq!(*kind, Kind::Reboot);
}

#[tokio::test(start_paused = true)]
async fn a_default_kind_that_the_server_lacks_is_in_capabilities() {
    let fake = FakeHypervisor::builder().lacking(Kind::Reboot).build();
    assert_eq!(fake.capabilities().kinds, Kinds::all());
    let _events = fake.subscribe().await.unwrap();
    let lacking: Kinds = [Kind::Reboot].into_iter().collect();
    assert_eq!(fake.capabilities().lacking, lacking);
    assert!(!fake.capabilities().kinds.contains(&Kind::Reboot));
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_its_kind_is_gone_after_an_outage() {
    use futures::StreamExt;

    let (fake, mut others) = synced().await;
    let mut reboots = fake.subscribe_with(Options::default().kind(Kind::Reboot)).await.unwrap();
    delivered(&mut reboots, &["synced with *"]).await;
    fake.lack(Kind::Reboot);
    fake.lose_connection();
    delivered(&mut reboots, &["disconnected from *"]).await;
    assert!(reboots.next().await.is_none());
    assert!(matches!(reboots.end(), Some(End::Failed(Error::Unsupported { .. }))));
    delivered(&mut others, &["disconnected from *", "synced with *"]).await;
}

#[tokio::test(start_paused = true)]
async fn an_untyped_event_is_delivered_whole_on_request() {
    use std::time::SystemTime;
    use virevent::{EventData, RawEvent};

    let (fake, mut default) = synced().await;
    let mut eights =
        fake.subscribe_with(Options::default().kind("other:99".parse().unwrap())).await.unwrap();
    delivered(&mut eights, &["synced with *"]).await;
    let raw = |name: &str| {
        let data = EventData::Bytes([1, 2, 3].into());
        RawEvent::new("fake:", fake.domain("web"), name.into(), data, SystemTime::UNIX_EPOCH)
    };
    fake.emit(raw("98"));
    fake.emit(raw("99"));
    fake.reboot("web").unwrap();
    let event = virevent_testkit::assert::next_within(&mut eights, crate::secs(1)).await.unwrap();
    assert_eq!(event, DomainEvent::Other(raw("99")));
    delivered(&mut default, &["web[1] rebooted"]).await;
}
