//! A real polkitd, asked about clients that are not root.

use virevent::Error;
use virevent_testkit::servers::{Config, Libvirtd, Polkit};

use super::*;

/// `daemon` may not even read, `bin` may do everything; for others polkit's defaults hold.
const RULES: &str = r#"
polkit.addRule(function (action, subject) {
    if (subject.user == "daemon") return polkit.Result.NO;
    if (subject.user == "bin") return polkit.Result.YES;
});
"#;

/// A program that connects to a socket as another user: the daemon sees that user's process.
fn uri(directory: &tempfile::TempDir, daemon: &Libvirtd, user: &str, socket: &str) -> String {
    let program = directory.path().join(format!("{user}-{socket}"));
    let socket = daemon.socket().with_file_name(socket);
    let text = format!(
        "#!/bin/sh\nexec setpriv --reuid {user} --regid nogroup --clear-groups nc -U {}\n",
        socket.display()
    );
    std::fs::write(&program, text).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, executable).unwrap();
    format!("test+ext:///default?command={}", program.display())
}

#[tokio::test]
#[ignore = "needs libvirtd and polkitd"]
async fn polkit_lets_in_and_refuses_with_a_reason() {
    let polkit = Polkit::start(RULES).await.unwrap();
    let daemon = Libvirtd::start_with(Config::default().polkit(&polkit)).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let uri = |user, socket| uri(&directory, &daemon, user, socket);

    for (user, socket) in
        [("nobody", "libvirt-sock-ro"), ("bin", "libvirt-sock-ro"), ("bin", "libvirt-sock")]
    {
        let (_events, existing) = synced_stream(&uri(user, socket), Options::default()).await;
        assert_eq!(existing, ["test[1] existing (running)"], "{user}, {socket}");
    }

    let table = [
        ("daemon", "libvirt-sock-ro", "a polkit rule denies it: allow org.libvirt.unix.monitor"),
        ("daemon", "libvirt-sock", "a polkit rule denies it: allow org.libvirt.unix.manage"),
        ("nobody", "libvirt-sock", "no agent to ask the user for a password: connect read-only"),
    ];
    for (user, socket, why) in table {
        let is_read_only = socket.ends_with("-ro");
        let libvirt = Libvirt::new(&uri(user, socket)).unwrap();
        let source = if is_read_only { libvirt } else { libvirt.read_write() }.source();
        let error = source.subscribe_with(Options::default()).await.unwrap_err();
        let line = error.to_line();
        assert!(matches!(error, Error::Authentication { .. }) && error.is_refusal(), "{line}");
        assert!(line.contains(why), "{line}");
    }
}
