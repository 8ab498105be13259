//! The death of ssh, of sshd, of the daemon, and a path that carries nothing.

use rustix::process::Signal;

use super::processes::{only_child, signal, until};
use super::*;

fn is_synced(event: &DomainEvent) -> bool {
    matches!(event, DomainEvent::Synced(_))
}

/// What distinguishes this test's ssh from that of another.
fn own(sshd: &Sshd) -> String {
    sshd.key().display().to_string()
}

#[tokio::test]
#[ignore = "needs sshd"]
async fn a_killed_ssh_is_a_gap_and_what_changed_is_inferred() {
    let (daemon, mut sshd) = servers().await;
    let virsh = daemon.virsh(TEST);
    let _kept = virsh.session().await.unwrap();
    let mut events = client(&sshd.uri(TEST)).subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();

    // Nothing changes meanwhile.
    signal(only_child(&own(&sshd)), Signal::KILL);
    let lines = lines_until(&mut events, is_synced).await;
    assert!(lines[0].contains("signal 9 (SIGKILL)"), "{lines:#?}");
    assert_eq!(lines.len(), 2, "{lines:#?}");

    // The domain changes while nothing listens.
    sshd.kill().await;
    let gap = next_line(&mut events).await;
    assert!(gap.contains("ssh -p") && gap.contains("255"), "{gap}");
    virsh.run(&["suspend", "test"]).await.unwrap();
    sshd.start_again(&daemon).await.unwrap();
    let lines = lines_until(&mut events, is_synced).await;
    let inferred = &lines[lines.len() - 2];
    assert!(inferred.starts_with("test[1] suspended (paused)"), "{lines:#?}");
    assert!(inferred.contains("inferred"), "{lines:#?}");

    virsh.run(&["resume", "test"]).await.unwrap();
    assert_eq!(next_line(&mut events).await, "test[1] resumed (unpaused)");
}

#[tokio::test]
#[ignore = "needs sshd"]
async fn a_killed_daemon_behind_ssh_is_a_gap_until_it_is_back() {
    let (mut daemon, sshd) = servers().await;
    for parameter in ["&proxy=native", "&proxy=netcat"] {
        let uri = sshd.uri(TEST) + parameter;
        let mut events = client(&uri).subscribe_with(Options::default()).await.unwrap();
        until_synced(&mut events).await.unwrap();
        let xml = "<domain type='test'><name>web</name><memory>8192</memory>\
                   <os><type>hvm</type></os></domain>";
        daemon.virsh(TEST).define(xml).await.unwrap();
        assert_eq!(next_line(&mut events).await, "web defined (added)");
        daemon.kill9().await;
        assert!(next_line(&mut events).await.contains("closed the connection"));
        daemon.start_again().await.unwrap();
        // The test driver has forgotten its domains.
        let lines = lines_until(&mut events, is_synced).await;
        let inferred = &lines[lines.len() - 2];
        assert!(inferred.starts_with("web undefined") && inferred.contains("inferred"));
        daemon.virsh(TEST).run(&["suspend", "test"]).await.unwrap();
        assert_eq!(next_line(&mut events).await, "test[1] suspended (paused)");
    }
}

/// ssh that is stopped carries nothing and does not end: as a network that drops everything.
#[tokio::test]
#[ignore = "needs sshd"]
async fn a_stalled_ssh_is_a_gap_and_is_killed() {
    let (_daemon, sshd) = servers().await;
    let source = libvirt(&sshd.uri(TEST)).keepalive(Duration::from_millis(200), 2).source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    until_synced(&mut events).await.unwrap();
    let ssh = only_child(&own(&sshd));
    signal(ssh, Signal::STOP);
    let lines = lines_until(&mut events, is_synced).await;
    assert!(lines[0].contains("no answer"), "{lines:#?}");
    until("end of the stopped ssh", || !std::fs::exists(format!("/proc/{ssh}")).unwrap()).await;
}
