//! A service that was down: its next stream begins with what changed meanwhile.

use virevent::driver::Driver;
use virevent::{EventSourceExt, Options, Snapshot};
use virevent_qemu::QmpDir;
use virevent_testkit::servers::{Deed, Guest};

use super::*;

fn directory(uri: &str) -> Driver {
    QmpDir::new(uri).unwrap().source()
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn changes_of_a_directory_while_down_are_inferred() {
    let home = tempfile::TempDir::new().unwrap();
    let machine = |name: &str| {
        let socket = home.path().join(format!("{name}.sock"));
        QemuConfig::default().name(name).socket(&socket)
    };
    let guest = Guest::after(1, "crashes", Deed::Panic);
    let panic = ["-action", "panic=pause"];
    let mut crashes = machine("crashes").guest(guest).args(&panic).start().await.unwrap();
    let mut ends = machine("ends").running().start().await.unwrap();
    let mut pauses = machine("pauses").running().start().await.unwrap();
    let _same = machine("same").running().start().await.unwrap();
    let uri = format!("qmp-dir:{}", home.path().display());
    let store = directory(&uri).store().await.unwrap();
    let known = store.wait_for(|now| now.is_certain() && now.len() == 4).await.unwrap();
    store.close().await;
    drop(store);

    // A panic, an end and a pause, each complete before the service is up again.
    let mut events = directory(&uri).subscribe().await.unwrap();
    crashes.run("cont").await.unwrap();
    delivered_until(&mut events, "crashes crashed").await;
    drop(events);
    ends.signal("KILL");
    ends.wait().await.unwrap();
    pauses.run("stop").await.unwrap();
    let new = machine("new").running().start().await.unwrap();

    let options = Options::default().resume(known);
    let mut events = directory(&uri).subscribe_with(options).await.unwrap();
    let beginning = until_synced(&mut events).await.unwrap();
    assert_eq!(
        beginning.iter().map(in_short).collect::<Vec<_>>(),
        [
            "ends stopped [inferred]",
            "crashes crashed (panicked) [inferred]",
            "new started [inferred]",
            "pauses suspended (paused) [inferred]",
        ]
    );
    drop(new);
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_snapshot_of_another_directory_is_an_error() {
    let homes = [(); 2].map(|()| tempfile::TempDir::new().unwrap());
    let uris = homes.each_ref().map(|home| format!("qmp-dir:{}", home.path().display()));
    let store = directory(&uris[0]).store().await.unwrap();
    let known = store.wait_for(Snapshot::is_certain).await.unwrap();
    let other = directory(&uris[1]);
    let error = other.subscribe_with(Options::default().resume(known)).await.unwrap_err();
    assert!(error.to_string().contains(&format!("it knows {}", uris[0])), "{error}");
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn a_qemu_that_hangs_at_the_start_is_not_stopped() {
    let home = tempfile::TempDir::new().unwrap();
    let uri = format!("qmp-dir:{}", home.path().display());
    let quick = || {
        let short = Duration::from_millis(300);
        QmpDir::new(&uri).unwrap().greeting_timeout(short).keepalive(short, short).source()
    };
    let machine = |name: &str| {
        let socket = home.path().join(format!("{name}.sock"));
        QemuConfig::default().name(name).socket(&socket).running()
    };
    let hangs = machine("hangs").start().await.unwrap();
    let mut ends = machine("ends").start().await.unwrap();
    let store = quick().store().await.unwrap();
    let known = store.wait_for(|now| now.is_certain() && now.len() == 2).await.unwrap();
    store.close().await;
    drop(store);
    hangs.signal("STOP");
    ends.signal("KILL");
    ends.wait().await.unwrap();

    let store = quick().store_with(Options::default().resume(known)).await.unwrap();
    let is_uncertain = |now: &Snapshot, name: &str| now.get(name).is_some_and(|one| !one.certain);
    // Which of the two hangs is not known until it answers.
    store
        .wait_for(|now| {
            !now.uncertain().any(|scope| scope.is_source()) && is_uncertain(now, "hangs")
        })
        .await
        .unwrap();
    hangs.signal("CONT");
    let is_right = |now: &Snapshot| {
        now.is_certain() && now.len() == 1 && now.get("hangs").is_some_and(|one| one.certain)
    };
    let now = tokio::time::timeout(PATIENCE, store.wait_for(is_right)).await.unwrap().unwrap();
    assert!(now.get("hangs").unwrap().state.is_running());
}
