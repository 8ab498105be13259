//! Every way to a real libvirtd, through each outage: a gap, what changed as inferred, synced.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../real_ssh/processes.rs"]
mod processes;
#[path = "../ways/mod.rs"]
mod ways;

use std::time::Duration;

use rustix::process::Signal;
use virevent::driver::{Driver, Reconnect, Settings};
use virevent::{DomainEvent, EventSource, EventStream, Options};
use virevent_testkit::assert::{next_within, until_synced};

use self::processes::{children, only_child, signal, until};
use self::ways::Way;

/// Far longer than any step of these tests takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn client(way: &Way, keepalive: Duration) -> Driver {
    let quick = Reconnect::local().base(Duration::from_millis(10)).max(Duration::from_millis(100));
    let settings = Settings::default().reconnect(quick).connect_timeout(Duration::from_secs(5));
    way.libvirt().settings(settings).keepalive(keepalive, 2).source()
}

async fn synced_stream(source: &Driver) -> EventStream {
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    let existing = until_synced(&mut events).await.unwrap();
    assert_eq!(existing[0].to_string(), "test[1] existing (running)");
    events
}

async fn next_line(events: &mut EventStream) -> String {
    next_within(events, PATIENCE).await.unwrap().to_string()
}

/// Reads a gap, or more of them, and then this inferred change and nothing else up to `Synced`.
async fn assert_outage(way: &Way, events: &mut EventStream, change: Option<&str>) {
    let delivered = until_synced(events).await.unwrap();
    let is_gap = |event: &DomainEvent| matches!(event, DomainEvent::Gap(_));
    let gaps = delivered.iter().take_while(|event| is_gap(event)).count();
    assert!(gaps > 0, "{}: {delivered:#?}", way.name);
    let changes: Vec<String> = delivered[gaps..].iter().map(ToString::to_string).collect();
    assert_eq!(changes, Vec::from_iter(change), "{}", way.name);
}

/// Checks that events arrive, from a domain that runs to one that does.
async fn assert_delivers(way: &Way, events: &mut EventStream) {
    way.virsh().batch("suspend test\nresume test\n").await.unwrap();
    assert_eq!(next_line(events).await, "test[1] suspended (paused)", "{}", way.name);
    assert_eq!(next_line(events).await, "test[1] resumed (unpaused)", "{}", way.name);
}

/// The daemon is killed, stopped, and killed, and the test driver forgets its domains with it.
async fn assert_recovers_from_restarts(way: &mut Way) {
    let source = client(way, Duration::from_secs(60));
    let mut events = synced_stream(&source).await;
    for round in 0..3 {
        way.virsh().run(&["suspend", "test"]).await.unwrap();
        assert_eq!(next_line(&mut events).await, "test[1] suspended (paused)", "{}", way.name);
        match round {
            1 => way.daemon.terminate().await,
            _ => way.daemon.kill9().await,
        }
        way.daemon.start_again().await.unwrap();
        assert_outage(way, &mut events, Some("test[1] resumed [inferred]")).await;
    }
    assert_delivers(way, &mut events).await;
    source.shutdown().await;
}

/// The program of the client ends, and for a while every other that it starts.
async fn assert_recovers_from_the_programs_end(way: &mut Way) {
    let Some(program) = way.program.clone() else { return };
    let virsh = way.virsh();
    let _kept = virsh.session().await.unwrap();
    let source = client(way, Duration::from_secs(60));
    let mut events = synced_stream(&source).await;
    for change in ["test[1] suspended (paused) [inferred]", "test[1] resumed (unpaused) [inferred]"]
    {
        match &mut way.sshd {
            Some(sshd) => sshd.kill().await,
            None => std::fs::write(way.blocked(), "").unwrap(),
        }
        // With sshd its ssh has ended, or will at once.
        for pid in children(&program) {
            signal(pid, Signal::KILL);
        }
        let command = if change.contains("suspended") { "suspend" } else { "resume" };
        virsh.run(&[command, "test"]).await.unwrap();
        match &mut way.sshd {
            Some(sshd) => sshd.start_again(&way.daemon).await.unwrap(),
            None => std::fs::remove_file(way.blocked()).unwrap(),
        }
        assert_outage(way, &mut events, Some(change)).await;
    }
    assert_delivers(way, &mut events).await;
    source.shutdown().await;
    until("end of the program", || children(&program).is_empty()).await;
}

/// Nothing passes, and nothing ends: only the pings find that out.
async fn assert_recovers_from_a_stall(way: &mut Way) {
    let virsh = way.virsh();
    let _kept = virsh.session().await.unwrap();
    let source = client(way, Duration::from_millis(500));
    let mut events = synced_stream(&source).await;
    let change = "test[1] suspended (paused) [inferred]";
    match (&way.path, &way.program) {
        (Some(path), _) => {
            path.stall();
            virsh.run(&["suspend", "test"]).await.unwrap();
            let gap = next_line(&mut events).await;
            assert!(gap.contains("no answer"), "{}: {gap}", way.name);
            path.come_back();
            let delivered = until_synced(&mut events).await.unwrap();
            let is_marker = |event: &&DomainEvent| !event.is_marker();
            let changes: Vec<_> = delivered.iter().filter(is_marker).collect();
            assert_eq!(changes.len(), 1, "{}: {delivered:#?}", way.name);
            assert_eq!(changes[0].to_string(), change, "{}", way.name);
        }
        (None, Some(program)) => {
            signal(only_child(program), Signal::STOP);
            virsh.run(&["suspend", "test"]).await.unwrap();
            assert_outage(way, &mut events, Some(change)).await;
        }
        // The other end of a unix socket is the daemon, and while it hangs nothing can change.
        (None, None) => {
            way.daemon.freeze();
            let gap = next_line(&mut events).await;
            assert!(gap.contains("no answer"), "{}: {gap}", way.name);
            way.daemon.thaw();
            until_synced(&mut events).await.unwrap();
            virsh.run(&["suspend", "test"]).await.unwrap();
            assert_eq!(next_line(&mut events).await, "test[1] suspended (paused)");
        }
    }
    virsh.run(&["resume", "test"]).await.unwrap();
    assert_eq!(next_line(&mut events).await, "test[1] resumed (unpaused)", "{}", way.name);
    source.shutdown().await;
}

async fn assert_recovers(mut way: Way) {
    assert_recovers_from_restarts(&mut way).await;
    assert_recovers_from_the_programs_end(&mut way).await;
    assert_recovers_from_a_stall(&mut way).await;
}

/// A test for each way, so that they run side by side and each failure has a name.
macro_rules! recovers {
    ($($(#[$gate:meta])* $name:ident: $way:expr;)*) => {$(
        $(#[$gate])*
        #[tokio::test]
        #[ignore = "needs libvirtd and sshd"]
        async fn $name() {
            assert_recovers($way.await).await;
        }
    )*};
}

recovers! {
    unix_recovers_from_each_outage: Way::unix();
    tcp_recovers_from_each_outage: Way::tcp();
    ssh_to_the_helper_recovers_from_each_outage: Way::ssh("native");
    ssh_to_netcat_recovers_from_each_outage: Way::ssh("netcat");
    ext_recovers_from_each_outage: Way::ext();
    #[cfg(feature = "tls")]
    tls_recovers_from_each_outage: Way::tls(true);
    #[cfg(feature = "tls")]
    tls_without_certificate_recovers_from_each_outage: Way::tls(false);
    #[cfg(feature = "sasl")]
    scram_recovers_from_each_outage: Way::sasl("scram", "scram-sha-256");
    #[cfg(feature = "sasl")]
    plain_recovers_from_each_outage: Way::sasl("plain", "plain");
    #[cfg(all(feature = "sasl", feature = "tls"))]
    scram_over_tls_recovers_from_each_outage: Way::sasl_over_tls("scram, tls", "scram-sha-256");
    #[cfg(all(feature = "sasl", feature = "tls"))]
    plain_over_tls_recovers_from_each_outage: Way::sasl_over_tls("plain, tls", "plain");
}
