//! Changes of sockets in a directory.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use virevent_qemu::QmpDir;
use virevent_testkit::assert::nothing_within;
use virevent_testkit::fakes::qemu::FakeQemu;

use super::{SILENCE, TestDirectory, goes_on, next, some, watch};

#[tokio::test]
async fn present_qemus_exist_and_later_ones_start_and_stop() {
    let directory = TestDirectory::new();
    let web = directory.qemu("web");
    let _db = directory.qemu("db");
    let (mut events, existing) = directory.watch().await;
    assert_eq!(existing, ["db existing (running)", "web existing (running)"]);
    let mail = directory.qemu("mail");
    assert_eq!(next(&mut events).await, "mail started (booted)");
    web.end(Some("guest-shutdown"));
    assert_eq!(next(&mut events).await, "web shutting_down (guest)");
    assert_eq!(next(&mut events).await, "web stopped (shutdown)");
    mail.end(None);
    assert_eq!(next(&mut events).await, "mail stopped (failed)");
    web.boot("web").unwrap();
    assert_eq!(next(&mut events).await, "web started (booted)");
}

#[tokio::test]
async fn only_names_that_match_a_pattern_are_watched() {
    let directory = TestDirectory::new();
    directory.make("sub");
    directory.make("sub/deeper");
    let at = |file: &str| FakeQemu::at(&directory.path(file), file).unwrap();
    let _qemus =
        ["a.sock", "b.monitor", "c.qmp", "sub/d.sock", "sub/deeper/e.sock", ".f.sock"].map(at);
    fs::write(directory.path("file.sock"), "").unwrap();
    symlink(directory.path("c.qmp"), directory.path("link.sock")).unwrap();
    let (_, existing) = directory.watch().await;
    let names = ["a.sock", "b.monitor", "c.qmp", "sub/d.sock"];
    assert_eq!(existing, names.map(|name| format!("{name} existing (running)")));
    let other = format!("{}?pattern=?.qmp&pattern=link*", directory.uri());
    let source = QmpDir::new(&other).unwrap().source();
    assert_eq!(watch(&source).await.1, ["c.qmp existing (running)"]);
}

#[tokio::test]
async fn a_socket_without_a_listener_starts_once_qemu_listens() {
    let directory = TestDirectory::new();
    let early = FakeQemu::absent_at(&directory.path("web.sock"));
    early.bind().unwrap();
    let (mut events, existing) = directory.watch().await;
    assert!(existing.is_empty(), "{existing:?}");
    early.boot("web").unwrap();
    assert_eq!(next(&mut events).await, "web started (booted)");
    let late = FakeQemu::absent_at(&directory.path("db.sock"));
    late.bind().unwrap();
    nothing_within(&mut events, SILENCE).await.unwrap();
    late.boot("db").unwrap();
    assert_eq!(next(&mut events).await, "db started (booted)");
}

#[tokio::test]
async fn a_stale_socket_is_no_domain_and_its_name_is_reused() {
    let directory = TestDirectory::new();
    drop(UnixListener::bind(directory.path("web.sock")).unwrap());
    let (mut events, existing) = directory.watch().await;
    assert!(existing.is_empty(), "{existing:?}");
    fs::remove_file(directory.path("web.sock")).unwrap();
    let web = directory.qemu("web");
    assert_eq!(next(&mut events).await, "web started (booted)");
    web.kill();
    assert_eq!(next(&mut events).await, "web stopped (failed)");
    nothing_within(&mut events, SILENCE).await.unwrap();
    fs::remove_file(directory.path("web.sock")).unwrap();
    web.boot("web").unwrap();
    assert_eq!(next(&mut events).await, "web started (booted)");
}

#[tokio::test]
async fn a_qemu_goes_on_when_another_takes_its_socket_name() {
    let directory = TestDirectory::new();
    let old = directory.qemu("old");
    let (mut events, _) = directory.watch().await;
    let path = directory.path("old.sock");
    fs::remove_file(&path).unwrap();
    let new = FakeQemu::at(&path, "new").unwrap();
    assert_eq!(next(&mut events).await, "new started (booted)");
    goes_on(&old, "old", &mut events).await;
    goes_on(&new, "new", &mut events).await;
    old.end(None);
    assert_eq!(next(&mut events).await, "old stopped (failed)");
    goes_on(&new, "new", &mut events).await;
    assert_eq!(new.accepted(), 1);
}

#[tokio::test]
async fn an_immediate_successor_of_the_same_name_is_another_run() {
    let directory = TestDirectory::new();
    let mut web = directory.qemu("web");
    let (mut events, _) = directory.watch().await;
    for _ in 0..5 {
        // A connection that has lasted this long is replaced at once when it breaks: the next run
        // may greet before the end of the first is seen.
        tokio::time::sleep(SILENCE).await;
        web.kill();
        fs::remove_file(directory.path("web.sock")).unwrap();
        let next_one = directory.qemu("web");
        let delivered = some(&mut events, 2).await;
        assert_eq!(delivered, ["web started (booted)", "web stopped (failed)"]);
        web = next_one;
        goes_on(&web, "web", &mut events).await;
        assert_eq!(web.accepted(), 1);
    }
}

#[tokio::test]
async fn a_renamed_or_removed_socket_is_the_same_run() {
    let directory = TestDirectory::new();
    directory.make("sub");
    let web = directory.qemu("web");
    let (mut events, _) = directory.watch().await;
    let names = ["web.sock", "db.sock", "sub/web.sock", "web"];
    for pair in names.windows(2) {
        fs::rename(directory.path(pair[0]), directory.path(pair[1])).unwrap();
        nothing_within(&mut events, SILENCE).await.unwrap();
        is_found_again(&web, &mut events).await;
    }
    fs::rename(directory.path("web"), directory.path("sub/web.sock")).unwrap();
    fs::rename(directory.path("sub"), directory.path("other")).unwrap();
    nothing_within(&mut events, SILENCE).await.unwrap();
    is_found_again(&web, &mut events).await;
    fs::rename(directory.path("other/web.sock"), directory.path("web")).unwrap();
    // No pattern matches its second name; then the file has no name at all.
    fs::remove_file(directory.path("web")).unwrap();
    is_found_again(&web, &mut events).await;
    web.end(None);
    assert_eq!(next(&mut events).await, "web stopped (failed)");
    nothing_within(&mut events, SILENCE).await.unwrap();
}

/// Asserts that a QEMU whose connection breaks is the same run after it, and is watched.
async fn is_found_again(qemu: &FakeQemu, events: &mut virevent::EventStream) {
    goes_on(qemu, "web", events).await;
    qemu.cut();
    assert_eq!(next(events).await, "disconnected from domain web");
    assert_eq!(next(events).await, "synced with domain web");
    goes_on(qemu, "web", events).await;
}

#[tokio::test]
async fn a_socket_renamed_before_qemu_listens_is_found() {
    let directory = TestDirectory::new();
    let web = FakeQemu::absent_at(&directory.path("web.sock"));
    web.bind().unwrap();
    let (mut events, existing) = directory.watch().await;
    assert!(existing.is_empty(), "{existing:?}");
    fs::rename(directory.path("web.sock"), directory.path("db.sock")).unwrap();
    nothing_within(&mut events, SILENCE).await.unwrap();
    web.boot("web").unwrap();
    assert_eq!(next(&mut events).await, "web started (booted)");
}

#[tokio::test]
async fn a_break_right_after_a_rename_is_no_end() {
    let directory = TestDirectory::new();
    let web = directory.qemu("web");
    let (mut events, _) = directory.watch().await;
    fs::rename(directory.path("web.sock"), directory.path("db.sock")).unwrap();
    web.cut();
    assert_eq!(next(&mut events).await, "disconnected from domain web");
    assert_eq!(next(&mut events).await, "synced with domain web");
    goes_on(&web, "web", &mut events).await;
}

#[tokio::test]
async fn an_unlinked_qemu_has_ended_once_no_process_listens() {
    let directory = TestDirectory::new();
    let web = directory.qemu("web");
    let (mut events, _) = directory.watch().await;
    fs::remove_file(directory.path("web.sock")).unwrap();
    web.change(|faults| faults.hang_up = true);
    web.cut();
    assert_eq!(next(&mut events).await, "disconnected from domain web");
    nothing_within(&mut events, SILENCE).await.unwrap();
    web.end(None);
    // Without a connection QEMU could not announce a cause.
    assert_eq!(next(&mut events).await, "web stopped [inferred]");
    assert_eq!(next(&mut events).await, "synced with domain web");
}

#[tokio::test]
async fn a_qemu_without_a_name_is_named_by_its_path() {
    let directory = TestDirectory::new();
    let mut qemus = Vec::new();
    for name in ["a", "b"] {
        directory.make(name);
        let qemu = FakeQemu::absent_at(&directory.path(&format!("{name}/qmp.sock")));
        qemu.change(|faults| faults.lacks = vec!["query-name".into()]);
        qemu.boot("").unwrap();
        qemus.push(qemu);
    }
    // One that never answers is named by its path as well, in its gap.
    qemus[1].change(|faults| faults.deaf = true);
    let (mut events, existing) = directory.watch().await;
    assert_eq!(existing, ["a/qmp existing (running)"]);
    assert_eq!(next(&mut events).await, "disconnected from domain b/qmp");
}

#[tokio::test]
async fn a_path_too_long_to_connect_to_delays_no_other() {
    let directory = TestDirectory::new();
    let long = "x".repeat(120);
    directory.make(&long);
    let web = directory.qemu("web");
    fs::rename(directory.path("web.sock"), directory.path(&long).join("web.sock")).unwrap();
    let (mut events, existing) = directory.watch().await;
    assert_eq!(existing, ["web existing (running)"]);
    goes_on(&web, "web", &mut events).await;
}
