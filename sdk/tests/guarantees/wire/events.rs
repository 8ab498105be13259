//! Events that do not fit what is known, or fit it in an unusual way.

use virevent::DefineCause;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_rename_of_an_active_domain_keeps_its_run() {
    let (wire, source) = Wire::new();
    let mut events = subscribe(&wire, &source, &[running(3)]).await;
    wire.say(|batch| {
        let at = batch.received();
        let domain = batch.domain(web(None).uuid(), "www", None);
        batch.event(Lifecycle::new(domain, Change::Defined(DefineCause::Renamed), at));
    });
    told(&mut events, &["www defined (renamed)"]).await;
    let mut late = source.subscribe().await.unwrap();
    told(&mut late, &["www[3] existing *", "synced with *"]).await;
    wire.event(None, STOPPED);
    told(&mut events, &["*[3] stopped (destroyed)"]).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_while_a_list_is_under_way_is_counted() {
    const RUNS: u64 = 10_000;
    let (wire, source) = Wire::new();
    let mut events = subscribe(&wire, &source, &[]).await;
    wire.hang_up();
    wire.asked_to_list().await;
    // The ends of so many domains with names so long are more than the driver holds.
    wire.say(|batch| {
        for number in 0..RUNS {
            let name = format!("{number:x<4000}");
            let uuid = Uuid::from_u128(number.into());
            let domain = Domain::new("wire:", "h", uuid, &name, Some(1));
            let at = SystemTime::UNIX_EPOCH;
            batch.event(Lifecycle::new(domain.clone(), STARTED, at));
            batch.event(Lifecycle::new(domain, STOPPED, at));
        }
    });
    wire.list(&[]).await;
    // That list is older than what was lost.
    wire.list(&[]).await;
    let mut missed = 0;
    for event in until_synced(&mut events).await.unwrap() {
        if let DomainEvent::Gap(gap) = event {
            match gap.kind {
                virevent::Break::Lagged { missed: n, .. } => missed += n,
                virevent::Break::Disconnected { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(missed, 2 * RUNS);
}
