//! What a daemon refuses, each with one clear line, at once.

use virevent_libvirt::Credentials;

use super::*;

fn with(daemon: &Libvirtd, user: &str, password: &str) -> Driver {
    client(&daemon.uri(TEST)).credentials(Credentials::new(user, password)).source()
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_wrong_password_or_user_is_refused_at_once() {
    for mechanism in ["scram-sha-256", "scram-sha-1", "plain"] {
        let daemon = daemon(mechanism).await;
        for (user, password) in [("fred", "sekrit2"), ("nobody", "sekrit"), ("fred@else", "sekrit")]
        {
            let (error, line) = refusal(&with(&daemon, user, password)).await;
            assert!(matches!(error, Error::Credentials { .. }) && error.is_refusal(), "{line}");
            let start = format!(
                "the server refused the user and password of the credentials callback (user {user:?}): "
            );
            assert!(line.starts_with(&start), "{line}");
            assert!(
                line.contains(&mechanism.to_uppercase()) && line.contains("check both"),
                "{line}"
            );
        }
        // The daemon goes on serving others.
        assert_works(with(&daemon, "fred", "sekrit")).await;
    }
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_refused_auth_file_is_named_with_its_group() {
    let daemon = daemon("scram-sha-256").await;
    let (_directory, path) = auth_file("fred", "wrong");
    let (error, line) = refusal(&client(&uri_with(&daemon, &path)).source()).await;
    assert!(matches!(error, Error::Credentials { .. }), "{line}");
    let origin = format!("the auth file {} [credentials-x] (user \"fred\")", path.display());
    assert!(line.contains(&origin) && !line.contains("wrong"), "{line}");
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn missing_credentials_are_an_error_that_says_where_to_put_them() {
    let daemon = daemon("scram-sha-256").await;
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("auth.conf");
    std::fs::write(&empty, "# nothing\n").unwrap();
    let (error, line) = refusal(&client(&uri_with(&daemon, &empty)).source()).await;
    assert!(matches!(error, Error::Authentication { .. }) && error.is_refusal(), "{line}");
    let parts = [
        "SCRAM-SHA-256",
        "[auth-libvirt-localhost]",
        "LIBVIRT_AUTH_FILE",
        "authfile=",
        "VIREVENT_LIBVIRT_USER",
        "Libvirt::credentials()",
    ];
    assert!(parts.iter().all(|part| line.contains(part)), "{line}");
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn digest_md5_alone_is_refused_by_name() {
    let daemon = daemon("digest-md5").await;
    let (error, line) = refusal(&with(&daemon, "fred", "sekrit")).await;
    assert!(matches!(error, Error::Authentication { .. }) && error.is_refusal(), "{line}");
    assert!(
        line.contains("DIGEST-MD5 only") && line.contains("mech_list: scram-sha-256"),
        "{line}"
    );
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn sasl_over_plain_tcp_is_refused_with_the_way_out() {
    let sasl = Sasl::new("scram-sha-256 digest-md5 plain").user("fred", "sekrit");
    let daemon = Libvirtd::start_with(Config::default().tcp(true).sasl(sasl)).await.unwrap();
    let uri = daemon.tcp_uri(TEST).unwrap();
    let source = client(&uri).credentials(Credentials::new("fred", "sekrit")).source();
    let (error, line) = refusal(&source).await;
    assert!(error.is_refusal() && line.contains("DIGEST-MD5"), "{line}");
    assert!(line.contains("use tls, ssh or a unix socket"), "{line}");
}
