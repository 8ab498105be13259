//! One clear line for each way in which ssh fails.

use virevent::Error;

use super::*;

async fn failure(uri: &str) -> Error {
    let error = client(uri).subscribe_with(Options::default()).await.unwrap_err();
    assert!(!error.to_line().contains('\n'));
    error
}

#[tokio::test]
#[ignore = "needs sshd"]
async fn each_failure_of_ssh_is_one_clear_line() {
    let (mut daemon, mut sshd) = servers().await;
    let unknown_host = sshd.uri_with(TEST, &sshd.command_without_known_hosts(), &sshd.key());
    let foreign_key = sshd.uri_with(TEST, &sshd.command(), &sshd.foreign_key());
    let bare = sshd.uri_with(TEST, &sshd.command(), &sshd.bare_key());
    let good = sshd.uri(TEST);
    let table = [
        (unknown_host.clone(), "add it to known_hosts", "Host key verification failed.", true),
        (foreign_key, "does not accept the key", "Permission denied (publickey).", true),
        (bare.clone(), "neither virt-ssh-helper nor netcat", "nc: not found", true),
        (format!("{bare}&proxy=native"), "no virt-ssh-helper", "virt-ssh-helper: not found", true),
        (format!("{bare}&proxy=netcat"), "no such netcat", "nc: not found", true),
        (format!("{good}&netcat=/no/nc"), "no such netcat", "/no/nc: not found", true),
        (format!("{good}&socket=/no/s"), "start libvirtd", "No such file or directory", false),
    ];
    for (uri, advice, last_line, is_refusal) in table {
        let error = failure(&uri).await;
        let line = error.to_line();
        assert!(line.contains(advice) && line.contains(last_line), "{line}");
        assert_eq!(error.is_refusal(), is_refusal, "{line}");
    }
    // No check of the host's key.
    let source = client(&format!("{unknown_host}&no_verify=1"));
    source.subscribe_with(Options::default()).await.unwrap();

    daemon.kill9().await;
    for (proxy, last_line) in [("native", "Connection refused"), ("netcat", "Connection refused")] {
        let error = failure(&format!("{good}&proxy={proxy}")).await;
        let line = error.to_line();
        assert!(line.contains("start libvirtd") && line.contains(last_line), "{line}");
        assert!(!error.is_refusal(), "{line}");
    }

    sshd.kill().await;
    let error = failure(&good).await;
    let line = error.to_line();
    assert!(line.contains("that sshd runs there") && line.contains("Connection refused"), "{line}");
    assert!(!error.is_refusal(), "{line}");
}
