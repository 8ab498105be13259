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
async fn what_changed_in_a_directory_while_the_service_was_down_is_inferred() {
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
