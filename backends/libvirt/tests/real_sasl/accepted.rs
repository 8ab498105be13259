//! Each mechanism, and each place of credentials.

use virevent_libvirt::Credentials;

use super::*;

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn each_mechanism_lets_the_right_password_in() {
    for mechanism in ["scram-sha-256", "scram-sha-1", "plain", "plain scram-sha-1 digest-md5"] {
        let daemon = daemon(mechanism).await;
        let (_directory, path) = auth_file("fred", "sekrit");
        let virsh = daemon_virsh(&daemon, &path);
        let source = client(&uri_with(&daemon, &path)).source();
        let mut events = source.subscribe_with(Options::default()).await.unwrap();
        until_synced(&mut events).await.unwrap();
        virsh.run(&["suspend", "test"]).await.unwrap();
        let event = next_within(&mut events, PATIENCE).await.unwrap();
        assert_eq!(event.to_string(), "test[1] suspended (paused)", "{mechanism}");
        source.shutdown().await;
    }
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn odd_users_and_passwords_are_let_in() {
    for mechanism in ["scram-sha-256", "scram-sha-1", "plain"] {
        let daemon = daemon(mechanism).await;
        let table = [
            ("o,d=d", "a b\\c\"d,e=f#;"),
            ("fred", &*"x".repeat(500)),
            ("jürgen", "pässwörd"),
            ("fred2", " leading and trailing "),
        ];
        for (user, password) in table {
            daemon.set_password(user, password).await.unwrap();
            let credentials = Credentials::new(user, password);
            assert_works(client(&daemon.uri(TEST)).credentials(credentials).source()).await;
        }
        // With its realm.
        let realm = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        daemon.set_password("fred", "sekrit").await.unwrap();
        let credentials = Credentials::new(format!("fred@{}", realm.trim_end()), "sekrit");
        assert_works(client(&daemon.uri(TEST)).credentials(credentials).source()).await;
    }
}

pub(crate) fn daemon_virsh(
    daemon: &Libvirtd,
    auth_file: &Path,
) -> virevent_testkit::servers::Virsh {
    virevent_testkit::servers::Virsh::to(&uri_with(daemon, auth_file))
}
