//! Fleets that resume.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_fleet_resumes_the_members_that_the_snapshot_knows() {
    let fake = |uri: &str, host: &str| {
        let fake = FakeHypervisor::builder().uri(uri).host(host).build();
        fake.create("web").unwrap();
        fake
    };
    let before = Fleet::new("fleet:all");
    let [same, moved] = [fake("fake:same", "berlin"), fake("fake:moved", "berlin")];
    before.add(Arc::new(same.clone())).unwrap();
    before.add(Arc::new(moved)).unwrap();
    let known = snapshot(&before).await;

    same.stop("web").unwrap();
    let after = Fleet::new("fleet:all");
    let moved = fake("fake:moved", "paris");
    let new = fake("fake:new", "berlin");
    for member in [&same, &moved, &new] {
        after.add(Arc::new(member.clone())).unwrap();
    }
    let mut events = after.subscribe_with(resume(&known)).await.unwrap();
    let store = DomainStore::resumed(known.clone());
    assert_eq!(store.snapshot().len(), 2);
    let mut lines = Vec::new();
    while let Ok(Some(event)) = timeout(Duration::from_secs(1), events.next()).await {
        store.apply(&event);
        lines.push(event.to_string());
    }
    let mut expected =
        vec!["fake:same: web[1] stopped [inferred]", "fake:moved: existing", "fake:new: existing"];
    expected.clear();
    assert!(lines.contains(&"web[1] stopped [inferred]".into()), "{lines:?}");
    let exist = lines.iter().filter(|line| line.contains(" existing ")).count();
    assert_eq!(exist, 2, "of the two members that the snapshot does not know: {lines:?}");
    let now = store.snapshot();
    assert!(now.is_certain());
    let hosts: Vec<_> = now.iter().map(|one| one.domain.host()).collect();
    assert_eq!(hosts, ["paris", "berlin"], "no ghost of the host that is another now");
    let same = DomainStore::new();
    same.extend(&existing_of(&after).await);
    assert_eq!(states(&same.snapshot()), states(&now));
}

async fn existing_of(source: &impl EventSource) -> Vec<DomainEvent> {
    let mut events = source.subscribe().await.unwrap();
    let mut all = Vec::new();
    while let Ok(Some(event)) = timeout(Duration::from_secs(1), events.next()).await {
        all.push(event);
    }
    all
}

/// What must be the same however it came to be known, a line for each domain.
fn states(now: &Snapshot) -> Vec<String> {
    let row = |one: &Arc<virevent::StoredDomain>| {
        let state = if one.domain.is_active() { one.state.as_str() } else { "" };
        format!("{:?} {state} {:?} {}", one.domain, one.persistent, one.certain)
    };
    now.iter().map(row).collect()
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_left_out_keeps_nothing_uncertain() {
    let fakes = ["fake:a", "fake:b"].map(|uri| FakeHypervisor::builder().uri(uri).build());
    let fleet = Fleet::new("fleet:all");
    for fake in &fakes {
        fake.create("web").unwrap();
        fleet.add(Arc::new(fake.clone())).unwrap();
    }
    let mut known = snapshot(&fleet).await;
    assert_eq!(known.sources().collect::<Vec<_>>(), ["fake:a", "fake:b", "fleet:all"]);
    known.retain(|uri| uri == "fake:a");
    let store = fakes[0].store_with(resume(&known)).await.unwrap();
    assert_eq!(store.wait_for(Snapshot::is_certain).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_left_and_came_again_begins_with_what_exists() {
    let fake = FakeHypervisor::new();
    fake.create("web").unwrap();
    let other = FakeHypervisor::builder().uri("fake:b").build();
    let before = Fleet::new("fleet:all");
    before.add(Arc::new(fake.clone())).unwrap();
    let known = snapshot(&before).await;
    let after = Fleet::new("fleet:all");
    after.add(Arc::new(fake.clone())).unwrap();
    after.add(Arc::new(other)).unwrap();
    let store = after.store_with(resume(&known)).await.unwrap();
    store.wait_for(Snapshot::is_certain).await.unwrap();
    assert_eq!(store.snapshot().len(), 1);
    after.remove("fake:");
    store.wait_for(Snapshot::is_empty).await.unwrap();
    after.add(Arc::new(fake.clone())).unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(store.snapshot().is_certain());
    check_store(&store, &fake.domains()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_member_on_another_host_ends_and_begins_no_run() {
    let fake = |host: &str| {
        let fake = FakeHypervisor::builder().uri("fake:moved").host(host).build();
        fake.create("web").unwrap();
        fake
    };
    let before = Fleet::new("fleet:all");
    before.add(Arc::new(fake("berlin"))).unwrap();
    let known = snapshot(&before).await;
    let after = Fleet::new("fleet:all");
    after.add(Arc::new(fake("paris"))).unwrap();
    let mut events = after.subscribe_with(resume(&known)).await.unwrap();
    let store = DomainStore::resumed(known);
    let mut told = Vec::new();
    while let Ok(Some(event)) = timeout(Duration::from_secs(1), events.next()).await {
        for t in store.apply(&event) {
            if t.ended_run().is_some() || t.began_run() {
                told.push(format!(
                    "{:?} ended {:?} began {}",
                    t.domain(),
                    t.ended_run(),
                    t.began_run()
                ));
            }
        }
    }
    assert!(told.is_empty(), "{told:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_member_of_a_member_resumes_too() {
    let fake = FakeHypervisor::new();
    fake.create("gone").unwrap();
    fake.create("web").unwrap();
    let before = Fleet::new("fleet:all");
    before.add(Arc::new(fake.clone())).unwrap();
    let known = snapshot(&before).await;
    fake.stop("gone").unwrap();
    let inner = Fleet::new("fleet:inner");
    inner.add(Arc::new(fake.clone())).unwrap();
    let after = Fleet::new("fleet:all");
    after.add(Arc::new(inner)).unwrap();
    let store = after.store_with(resume(&known)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(store.snapshot().is_certain());
    check_store(&store, &fake.domains()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_gone_keeps_nothing_uncertain() {
    let [a, b] = ["fake:a", "fake:b"].map(|uri| FakeHypervisor::builder().uri(uri).build());
    a.create("web").unwrap();
    b.create("web").unwrap();
    let before = Fleet::new("fleet:all");
    before.add(Arc::new(a.clone())).unwrap();
    before.add(Arc::new(b)).unwrap();
    let known = snapshot(&before).await;
    let after = Fleet::new("fleet:all");
    after.add(Arc::new(a)).unwrap();
    let store = after.store_with(resume(&known)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(
        store.snapshot().is_certain(),
        "{} domains, uncertain: {:?}",
        store.snapshot().len(),
        store.snapshot().uncertain().collect::<Vec<_>>()
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_member_begins_with_what_exists_whatever_the_options() {
    let [a, b] = ["fake:a", "fake:b"].map(|uri| FakeHypervisor::builder().uri(uri).build());
    a.create("web").unwrap();
    b.create("web").unwrap();
    let before = Fleet::new("fleet:all");
    before.add(Arc::new(a.clone())).unwrap();
    let known = snapshot(&before).await;
    let after = Fleet::new("fleet:all");
    after.add(Arc::new(a)).unwrap();
    after.add(Arc::new(b)).unwrap();
    let store = after.store_with(resume(&known).existing(false)).await.unwrap();
    store.wait_for(Snapshot::is_certain).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(store.snapshot().len(), 2);
}
