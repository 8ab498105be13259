//! What guests are asked, and what their end is told as.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_request_is_told_with_its_word_and_decides_what_the_stop_is() {
    let rig = Rig::default();
    let mut told = rig.synced().await;
    for (domid, word) in ["poweroff", "reboot", "halt", "suspend", "crash"].iter().enumerate() {
        let domid = domid as u16 + 1;
        rig.act(|store| store.start(domid, 9, "web"));
        assert_eq!(told.lines().await, [format!("web[{domid}] started")]);
        rig.act(|store| store.request(domid, word));
        let event = format!("web[{domid}] event control/shutdown {{\"request\":\"{word}\"}}");
        assert_eq!(told.lines().await, [format!("web[{domid}] shutting_down (host)"), event]);
        rig.act(|store| store.request(domid, ""));
        assert!(told.lines().await.is_empty(), "an answer is no event");
        rig.act(|store| store.destroy(domid));
        assert_eq!(told.lines().await, [format!("web[{domid}] stopped (shutdown)")]);
    }
    rig.act(|store| store.start(9, 9, "web"));
    rig.act(|store| store.request(9, "dance"));
    let event = "web[9] event control/shutdown {\"request\":\"dance\"}";
    assert_eq!(told.lines().await, ["web[9] started", event]);
    rig.act(|store| store.destroy(9));
    assert_eq!(told.lines().await, ["web[9] stopped"]);
}

#[tokio::test(start_paused = true)]
async fn a_request_does_not_wait_for_all_domains_to_be_asked_whether_they_are_there() {
    let rig = Rig::default();
    for domid in 1..=400 {
        rig.act(|store| store.start(domid, domid.into(), "web"));
    }
    let mut told = rig.synced().await;
    rig.act(|store| {
        store.asked.clear();
        // The guest takes note of it while the last is not asked.
        store.script = [(100, 399, "poweroff"), (300, 399, "")].into();
        store.shut_down(1);
    });
    assert_eq!(told.lines().await.first().unwrap(), "web[399] shutting_down (host)");
}

#[tokio::test(start_paused = true)]
async fn a_domain_without_a_place_may_be_the_one_that_shut_down() {
    let rig = Rig::default();
    rig.act(|store| store.start(3, 3, "web"));
    let mut told = rig.synced().await;
    rig.act(|store| store.request(3, "poweroff"));
    rig.act(|store| store.introduce(7));
    assert_eq!(told.within(Duration::from_secs(20)).await.len(), 2);
    rig.act(|store| store.shut_down(7));
    rig.act(|store| store.release(7));
    assert!(told.within(Duration::from_secs(20)).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn each_request_to_shut_down_is_finished_anew() {
    let rig = Rig::default();
    rig.act(|store| store.start(3, 3, "web"));
    let mut told = rig.synced().await;
    for word in ["suspend", "poweroff"] {
        rig.act(|store| store.request(3, word));
        assert_eq!(told.lines().await.len(), 2);
        rig.act(|store| store.request(3, ""));
        rig.act(|store| store.shut_down(3));
        assert_eq!(told.lines().await, ["web[3] shutting_down (finished)"]);
    }
}

#[tokio::test(start_paused = true)]
async fn without_asking_for_them_no_words_come_and_a_reboot_cannot_be_asked_for() {
    let rig = Rig::default();
    rig.act(|store| store.start(3, 3, "web"));
    let source = rig.source();
    let mut told = Told(source.subscribe_with(Options::default()).await.unwrap());
    told.lines().await;
    rig.act(|store| store.request(3, "halt"));
    assert_eq!(told.lines().await, ["web[3] shutting_down (host)"]);
    for kind in ["reboot", "other:control/shutdow", "other:99"] {
        let options = Options::default().kind(kind.parse().unwrap());
        let error = source.subscribe_with(options).await.unwrap_err();
        assert!(error.to_string().contains(kind), "{error}");
    }
    let options = Options::default().kind("other:control/shutdown".parse().unwrap());
    let mut told = Told(source.subscribe_with(options).await.unwrap());
    told.lines().await;
    rig.act(|store| store.request(3, "poweroff"));
    let event = "web[3] event control/shutdown {\"request\":\"poweroff\"}";
    assert_eq!(told.lines().await, [event]);
}

#[tokio::test(start_paused = true)]
async fn what_shut_down_is_told_where_the_only_one_was_asked_to_or_the_daemon_names_it() {
    for has_depth in [false, true] {
        let rig = Rig::default();
        rig.act(|store| store.has_depth = has_depth);
        rig.act(|store| store.start(3, 3, "web"));
        rig.act(|store| store.start(4, 4, "db"));
        let mut told = rig.synced().await;
        rig.act(|store| store.shut_down(3));
        let named: &[&str] = if has_depth { &["web[3] shutting_down (finished)"] } else { &[] };
        assert_eq!(told.lines().await, named);
        rig.act(|store| store.remove("/local/domain/3"));
        assert_eq!(told.lines().await, ["web[3] stopped"]);
        // The event of the one's end is not taken for the other's.
        rig.act(|store| store.release(3));
        assert!(told.lines().await.is_empty());
        rig.act(|store| store.request(4, "halt"));
        assert_eq!(told.lines().await.len(), 2);
        rig.act(|store| store.shut_down(4));
        assert_eq!(told.lines().await, ["db[4] shutting_down (finished)"]);
        rig.act(|store| store.shut_down(4));
        assert!(told.lines().await.is_empty(), "once is enough");
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_of_nobody_says_nothing_of_the_only_domain_if_nobody_asked_it_to_shut_down() {
    let rig = Rig::default();
    rig.act(|store| store.start(3, 3, "web"));
    let source = rig.source();
    let mut told = Told(source.subscribe_with(Options::default()).await.unwrap());
    told.lines().await;
    for _ in 0..3 {
        rig.act(Store::release_of_nobody);
        assert!(told.within(Duration::from_secs(6)).await.is_empty());
    }
    let mut later = Told(source.subscribe_with(Options::default()).await.unwrap());
    assert_eq!(later.lines().await[0], "web[3] existing (running)");
    // With a word that is no request to end it is the same.
    rig.act(|store| store.request(3, "dance"));
    rig.act(Store::release_of_nobody);
    assert!(told.within(Duration::from_secs(6)).await.is_empty());
}
