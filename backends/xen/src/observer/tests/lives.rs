//! Domains that start, end, and are written in steps.

use super::bounds::ObserverHarness;
use super::*;

#[tokio::test(start_paused = true)]
async fn existing_domains_come_first_and_then_changes() {
    let harness = Harness::default();
    harness.act(|store| store.start(3, 3, "web"));
    harness.act(|store| store.write_down(4, 4, "being-built"));
    let mut events = EventLines(harness.events().await);
    assert_eq!(
        events.lines().await,
        ["web[3] existing (running)", "synced with xenstore: (1 domain)"]
    );
    harness.act(|store| store.introduce(4));
    assert_eq!(events.lines().await, ["being-built[4] started"]);
    harness.act(|store| store.destroy(3));
    assert_eq!(events.lines().await, ["web[3] stopped"]);
}

#[tokio::test(start_paused = true)]
async fn a_domain_incomplete_at_first_is_started_once_complete() {
    let harness = Harness::default();
    harness.act(|store| {
        store.start(3, 3, "web");
        store.request(3, "poweroff");
        store.write("/local/domain/4/name", "half");
        store.introduce(4);
    });
    let mut events = EventLines(harness.events().await);
    let existing = ["web[3] existing (shutting_down (user))", "synced with xenstore: (1 domain)"];
    assert_eq!(events.lines().await, existing);
    harness
        .act(|store| store.write("/local/domain/4/vm", "/vm/00000000-0000-0000-0000-000000000004"));
    assert_eq!(events.lines().await, ["half[4] started"]);
    harness.act(|store| store.destroy(3));
    assert_eq!(events.lines().await, ["web[3] stopped (shutdown)"]);
}

#[tokio::test(start_paused = true)]
async fn a_reused_id_is_a_stop_and_a_start() {
    let harness = Harness::default();
    harness.act(|store| store.start(3, 3, "web"));
    let mut events = harness.synced().await;
    harness.act(|store| store.write_down(3, 4, "db"));
    assert_eq!(events.lines().await, ["web[3] stopped", "db[3] started"]);
}

#[tokio::test(start_paused = true)]
async fn a_directory_written_again_is_found_without_an_introduction() {
    let harness = Harness::default();
    harness.act(|store| store.start(3, 3, "web"));
    let mut events = harness.synced().await;
    assert!(events.within(Duration::from_secs(10)).await.is_empty());
    harness.act(|store| store.remove("/local/domain/3"));
    assert_eq!(events.lines().await, ["web[3] stopped"]);
    assert!(events.within(Duration::from_secs(10)).await.is_empty());
    harness.act(|store| store.write_down(3, 4, "db"));
    assert_eq!(events.within(Duration::from_secs(20)).await, ["db[3] started"]);
}

#[tokio::test(start_paused = true)]
async fn a_restart_between_two_looks_is_a_new_run() {
    let harness = Harness::default();
    harness.act(|store| store.start(3, 1, "web"));
    let mut events = harness.synced().await;
    harness.act(|store| {
        store.destroy(3);
        store.start(4, 1, "web");
    });
    assert_eq!(events.lines().await, ["web[3] stopped", "web[4] started"]);
    harness.act(|store| {
        store.start(5, 5, "unseen");
        store.destroy(5);
    });
    assert!(events.lines().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_domain_starts_once_it_is_complete() {
    let harness = Harness::default();
    let mut events = harness.synced().await;
    harness.act(|store| {
        store.write("/local/domain/3/domid", "3");
        store.introduce(3);
    });
    assert!(events.lines().await.is_empty());
    harness.act(|store| store.write("/local/domain/3/name", "web"));
    assert!(events.lines().await.is_empty());
    harness
        .act(|store| store.write("/local/domain/3/vm", "/vm/00000000-0000-0000-0000-000000000007"));
    assert_eq!(events.lines().await, ["web[3] started"]);
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_domain_starts_after_5_s_and_not_before() {
    let harness = Harness::default();
    let mut events = harness.synced().await;
    harness.act(|store| {
        store.write("/local/domain/3/domid", "3");
        store.introduce(3);
    });
    assert!(events.within(INCOMPLETE_LIMIT - Duration::from_millis(100)).await.is_empty());
    assert_eq!(events.lines().await.len(), 0);
    assert_eq!(events.within(Duration::from_secs(1)).await, ["Domain-3[3] started"]);
    harness.act(|store| store.write("/local/domain/3/name", "web"));
    let renamed = ["Domain-3[3] undefined (renamed)", "web[3] defined (renamed)"];
    assert_eq!(events.lines().await, renamed);
    harness
        .act(|store| store.write("/local/domain/3/vm", "/vm/00000000-0000-0000-0000-000000000007"));
    assert_eq!(events.lines().await, ["web[3] stopped", "web[3] started"]);
}

#[tokio::test(start_paused = true)]
async fn a_directory_made_after_the_introduction_is_found() {
    let harness = Harness::default();
    let mut events = harness.synced().await;
    harness.act(|store| store.introduce(3));
    assert!(events.within(Duration::from_secs(1)).await.is_empty());
    harness.act(|store| store.write_down(3, 3, "web"));
    assert_eq!(events.within(Duration::from_secs(3)).await, ["web[3] started"]);
}

#[tokio::test(start_paused = true)]
async fn a_directory_is_searched_for_5_s_after_an_introduction() {
    for has_depth in [false, true] {
        let harness = Harness::default();
        harness.act(|store| store.has_depth = has_depth);
        let mut events = harness.synced().await;
        harness.act(|store| store.introduce(3));
        assert!(events.within(INCOMPLETE_LIMIT - Duration::from_millis(100)).await.is_empty());
        // A write below a missing directory makes the directory, and fires no watch of the directory itself.
        harness.act(|store| {
            store.write("/local/domain/3/vm", "/vm/00000000-0000-0000-0000-000000000007");
            store.write("/local/domain/3/name", "web");
        });
        assert_eq!(events.within(Duration::from_secs(600)).await, ["web[3] started"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_local_migration_moves_to_the_new_domain() {
    let harness = Harness::default();
    harness.act(|store| store.start(3, 1, "web"));
    let mut events = harness.synced().await;
    harness.act(|store| store.start(4, 1, "web--incoming"));
    // One look finds both changes.
    let lines = events.lines().await;
    assert!(lines.contains(&"web[3] stopped".into()), "{lines:?}");
    assert_eq!(lines.last().unwrap(), "web--incoming[4] started");
    // The migration fails, and the domain runs on where it was.
    harness.act(|store| store.destroy(4));
    assert_eq!(events.lines().await, ["web--incoming[4] stopped", "web[3] started"]);
    harness.act(|store| store.destroy(3));
    assert_eq!(events.lines().await, ["web[3] stopped"]);
}

#[tokio::test(start_paused = true)]
async fn all_sources_report_the_later_domain_of_one_uuid() {
    // Neither the numbers decide nor their order as text.
    for (first, second) in [(3, 4), (4, 3), (10, 9)] {
        for is_late in [false, true] {
            let harness = Harness::default();
            harness.act(|store| store.start(first, 1, "web"));
            let mut events = if is_late { None } else { Some(harness.synced().await) };
            harness.act(|store| store.start(second, 1, "copy"));
            if let Some(events) = &mut events {
                let lines = events.lines().await;
                assert_eq!(lines.last().unwrap(), &format!("copy[{second}] started"));
            }
            let mut events = match events {
                Some(events) => events,
                None => {
                    let mut events = EventLines(harness.events().await);
                    let lines = events.lines().await;
                    assert_eq!(lines[0], format!("copy[{second}] existing (running)"));
                    events
                }
            };
            // The earlier one is reported once the later one has ended.
            harness.act(|store| store.destroy(second));
            let expected = [format!("copy[{second}] stopped"), format!("web[{first}] started")];
            assert_eq!(events.lines().await, expected);
        }
    }
}

#[test]
fn the_later_domain_of_one_uuid_is_listed_in_any_order() {
    for reversed in [false, true] {
        let mut store = MemoryStore::default();
        store.start(4, 1, "web");
        store.start(3, 1, "copy");
        let harness = ObserverHarness::of(store, reversed);
        let listed = harness.observer.domains.listed();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].domain.name(), "copy");
    }
}
