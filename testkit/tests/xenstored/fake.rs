//! The faults of the fake xenstored, and its counts of what its clients did.

use std::time::Duration;

use tokio::time::Instant;
use virevent_testkit::fakes::xenstored::{FakeXenstored, Faults};
use virevent_testkit::toolstack::{Blueprint, Power, RunState};
use virevent_xen::wire::Operation;

use crate::raw::{Frame, Raw, WATCH, WATCH_EVENT};

const DIRECTORY: u32 = 1;
const READ: u32 = 2;
const ERROR: u32 = 16;
const DIRECTORY_PART: u32 = 22;
const GET_FEATURE: u32 = 23;

/// A fake with one domain, and a client with a watch that has read all events.
async fn fake_and_client() -> (FakeXenstored, Raw) {
    let fake = FakeXenstored::start().unwrap();
    fake.toolstack().introduce("web").unwrap();
    let mut client = Raw::connect(&fake.socket()).await;
    client.call(&Frame::new(WATCH, "/local/domain\0D\0")).await;
    client.events().await;
    (fake, client)
}

fn name() -> Frame {
    Frame::new(READ, "/local/domain/1/name\0")
}

#[tokio::test]
async fn a_reply_in_single_bytes_is_the_same_reply() {
    let (fake, mut client) = fake_and_client().await;
    fake.change(|faults| faults.piece = Some(1));
    assert_eq!(client.call(&name()).await.payload, b"web");
}

#[tokio::test]
async fn events_before_a_reply_are_of_all_watches_in_turn() {
    let (fake, mut client) = fake_and_client().await;
    client.call(&Frame::new(WATCH, "@releaseDomain\0R\0")).await;
    client.events().await;
    fake.change(|faults| faults.events_before.insert(Operation::READ, 100_000));
    assert_eq!(client.call(&name()).await.payload, b"web");
    let (reply, events) = client.received.split_last().unwrap();
    assert_eq!((reply.operation, events.len()), (READ, 100_000));
    assert_eq!(events[0].payload, b"/local/domain\0D\0");
    assert_eq!(events[1].payload, b"@releaseDomain\0R\0");
}

#[tokio::test]
async fn requests_are_read_while_the_client_does_not_read() {
    let (fake, mut client) = fake_and_client().await;
    fake.flood(100_000);
    for _ in 0..1_000 {
        client.send(&name()).await;
    }
    fake.until(|fake| fake.calls(Operation::READ) == 1_000).await;
    assert_eq!(client.events().await.len(), 100_000);
}

#[tokio::test]
async fn events_are_repeated_and_spurious_ones_are_sent() {
    let (fake, mut client) = fake_and_client().await;
    fake.change(|faults| faults.repeat = 2);
    fake.toolstack().rename(1, "www").unwrap();
    assert_eq!(client.events().await, ["/local/domain/1/name"; 3]);
    fake.emit("/nowhere", b"\xff");
    assert_eq!(client.events().await, ["/nowhere"]);
}

#[tokio::test]
async fn refuse_applies_to_one_path_or_to_all() {
    let (fake, mut client) = fake_and_client().await;
    fake.change(|faults| {
        faults.refuse(Operation::READ, Some("/local/domain/1/name"), "EACCES");
        faults.refuse(Operation::WATCH, None, "ESOMETHING");
    });
    assert_eq!(client.call(&name()).await.payload, b"EACCES\0");
    let other = client.call(&Frame::new(READ, "/local/domain/1/domid\0")).await;
    assert_eq!(other.payload, b"1");
    let watch = client.call(&Frame::new(WATCH, "/x\0x\0")).await;
    assert_eq!((watch.operation, &watch.payload[..]), (ERROR, &b"ESOMETHING\0"[..]));
    assert_eq!(fake.watches(), [("/local/domain".into(), "D".into())]);
}

#[tokio::test]
async fn replies_have_another_number_are_oversize_or_truncated() {
    type Wrong = fn(&mut Faults);
    let (fake, mut client) = fake_and_client().await;
    fake.change(|faults| faults.wrong_request.insert(Operation::READ));
    assert_eq!(client.call(&name()).await.request, 1_009);
    fake.change(|faults| *faults = Faults::default());
    fake.change(|faults| faults.wrong_operation.insert(Operation::READ));
    assert_ne!(client.call(&name()).await.operation, READ);
    fake.change(|faults| *faults = Faults::default());
    fake.change(|faults| faults.bodies.insert(Operation::READ, b"\xff\0".into()));
    assert_eq!(client.call(&name()).await.payload, b"\xff\0");
    fake.change(|faults| *faults = Faults::default());
    fake.change(|faults| faults.oversize.insert(Operation::READ));
    assert_eq!(client.call(&name()).await.payload.len(), 4_097);
    let ends: [Wrong; 2] = [
        |faults| faults.truncated = [Operation::READ].into(),
        |faults| faults.hang_up = [Operation::READ].into(),
    ];
    for wrong in ends {
        fake.change(|faults| *faults = Faults::default());
        fake.change(wrong);
        let mut client = Raw::connect(&fake.socket()).await;
        client.send(&name()).await;
        assert!(client.receive().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_reply_delays_the_events_behind_it() {
    let (fake, mut client) = fake_and_client().await;
    fake.change(|faults| faults.delays.insert(Operation::READ, Duration::from_secs(4)));
    let begun = Instant::now();
    client.send(&name()).await;
    fake.until(|fake| fake.calls(Operation::READ) == 1).await;
    fake.toolstack().rename(1, "www").unwrap();
    assert_eq!(client.receive().await.unwrap().operation, READ);
    assert!(begun.elapsed() >= Duration::from_secs(4));
    assert_eq!(client.receive().await.unwrap().operation, WATCH_EVENT);
    fake.change(|faults| faults.unanswered.insert(Operation::READ));
    client.send(&name()).await;
    assert_eq!(client.events().await.len(), 0);
}

#[tokio::test]
async fn a_silent_daemon_sends_nothing_and_still_reads() {
    let (fake, mut client) = fake_and_client().await;
    fake.change(|faults| faults.silent = true);
    client.send(&name()).await;
    fake.until(|fake| fake.calls(Operation::READ) == 1).await;
    fake.change(|faults| faults.silent = false);
    assert_eq!(client.call(&Frame::new(DIRECTORY, "/tool\0")).await.operation, DIRECTORY);
}

#[tokio::test]
async fn a_restart_drops_all_watches_and_may_keep_the_store() {
    let (fake, mut client) = fake_and_client().await;
    fake.go_down();
    fake.toolstack().rename(1, "www").unwrap();
    assert!(client.receive().await.is_none());
    assert!(tokio::net::UnixStream::connect(fake.socket()).await.is_err());
    assert_eq!((fake.open(), fake.watches()), (0, vec![]));
    fake.come_back().unwrap();
    let mut client = Raw::connect(&fake.socket()).await;
    assert_eq!(client.call(&name()).await.payload, b"www");
    fake.go_down();
    fake.lose_store();
    fake.come_back().unwrap();
    let mut client = Raw::connect(&fake.socket()).await;
    assert_eq!(client.call(&name()).await.operation, ERROR);
    assert_eq!(fake.accepted(), 3);
}

#[tokio::test]
async fn cut_hangs_up_on_a_client_that_does_not_read() {
    let (fake, _client) = fake_and_client().await;
    fake.flood(100_000);
    fake.cut();
    fake.until(|fake| fake.open() == 0).await;
}

#[tokio::test]
async fn a_list_in_parts_changes_between_them() {
    let (fake, mut client) = fake_and_client().await;
    for _ in 0..9 {
        fake.toolstack().introduce("another").unwrap();
    }
    fake.change(|faults| {
        faults.longest_list = 16;
        faults.part_changes = 1;
    });
    let refused = client.call(&Frame::new(DIRECTORY, "/local/domain\0")).await;
    assert_eq!(refused.payload, b"E2BIG\0");
    let mut parts = Vec::new();
    let mut offset = 0;
    while parts.len() < 5 {
        let part = Frame::new(DIRECTORY_PART, format!("/local/domain\0{offset}\0"));
        let part = client.call(&part).await.payload;
        let end = part.iter().position(|byte| *byte == 0).unwrap();
        offset += part.len() - end - 1;
        parts.push((part[..end].to_vec(), part[end + 1..].to_vec()));
        if part.ends_with(b"\0\0") {
            break;
        }
    }
    let lists: Vec<u8> = parts.iter().flat_map(|(_, names)| names.clone()).collect();
    assert_eq!(lists, b"1\x002\x003\x004\x005\x006\x007\x008\x009\x0010\x00\0");
    assert_ne!(parts[0].0, parts[1].0, "a change after the first part");
    assert_eq!(parts[1].0, parts.last().unwrap().0);
}

#[tokio::test]
async fn feature_bit_4_adds_domain_ids_to_special_events() {
    let (fake, mut client) = fake_and_client().await;
    let feature = Frame::new(GET_FEATURE, "\0");
    assert_eq!(client.call(&feature).await.payload, b"ENOSYS\0");
    let deep = Frame::new(WATCH, "@introduceDomain\0I\x001\0");
    assert_eq!(client.call(&deep).await.payload, b"EINVAL\0");
    fake.change(|faults| faults.features = Some(7));
    assert_eq!(client.call(&feature).await.payload, b"7\0");
    assert_eq!(client.call(&deep).await.payload, b"OK\0");
    client.call(&Frame::new(WATCH, "@releaseDomain/2\0two\0")).await;
    client.call(&Frame::new(WATCH, "@releaseDomain\0any\0")).await;
    client.call(&Frame::new(WATCH, "/local/domain\0near\x001\0")).await;
    client.call(&Frame::new(5, "/local/domain\0D\0")).await;
    client.events().await;
    let two = fake.toolstack().introduce("db").unwrap();
    assert_eq!(client.events().await, ["/local/domain/2", "@introduceDomain/2"]);
    fake.toolstack().crash(1).unwrap();
    assert_eq!(client.events().await, ["@releaseDomain"]);
    fake.toolstack().destroy(two).unwrap();
    assert_eq!(client.events().await, ["/local/domain/2", "@releaseDomain/2", "@releaseDomain"]);
}

#[tokio::test]
async fn the_toolstack_has_the_same_events_as_with_a_real_one() {
    let (fake, mut client) = fake_and_client().await;
    let xl = fake.toolstack();
    client.call(&Frame::new(WATCH, "@introduceDomain\0I\0")).await;
    client.call(&Frame::new(WATCH, "@releaseDomain\0R\0")).await;
    client.call(&Frame::new(5, "/local/domain\0D\0")).await;
    client.events().await;
    let db = xl.introduce(Blueprint::named("db").without_vm()).unwrap();
    assert_eq!(client.events().await, ["@introduceDomain"]);
    assert!(xl.domains().unwrap()[1].uuid.is_none());
    xl.complete(db).unwrap();
    assert!(xl.domains().unwrap()[1].uuid.is_some());
    xl.reuse(db, "other").unwrap();
    xl.request(db, Power::Halt).unwrap();
    assert_eq!(client.events().await, [""; 0]);
    xl.set_run_state(1, Some(RunState::Shutdown)).unwrap();
    xl.shut_down(db).unwrap();
    assert_eq!(client.events().await, ["@releaseDomain"], "one event for two changes");
    let again = xl.reboot(db).unwrap();
    assert_eq!(client.events().await, ["@releaseDomain", "@introduceDomain"]);
    assert_eq!(xl.domains().unwrap().last().unwrap().name.as_deref(), Some("other"));
    assert!(again > db);
}

#[tokio::test]
async fn meddling_counts_requests_that_change_the_store() {
    let (fake, mut client) = fake_and_client().await;
    client.call(&name()).await;
    assert_eq!(fake.meddling(), 0);
    client.call(&Frame::new(11, "/local/domain/1/name\0mine")).await;
    assert_eq!((fake.meddling(), fake.calls(Operation::WRITE)), (1, 1));
}
