//! The auth file, compared with what virsh makes of the same file.

use std::fs;

use super::accepted::daemon_virsh;
use super::*;

/// How an attempt ended.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Accepted,
    Refused,
    BadFile,
}

const HEAD: &str = "[auth-libvirt-localhost]\ncredentials=x\n[credentials-x]\n";

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn an_auth_file_means_what_it_means_to_virsh() {
    use Outcome::{Accepted, BadFile, Refused};
    let daemon = daemon("scram-sha-256").await;
    daemon.set_password("odd", "a b\\c\"").await.unwrap();
    daemon.set_password("escape", "a\\qc").await.unwrap();
    let after_head = [
        ("authname=fred\npassword=sekrit\n", Accepted),
        ("authname=fred\npassword=sekrit", Accepted),
        ("authname=fred\r\npassword=sekrit\r\n", Accepted),
        ("\n  # c\n\tauthname \t= fred\n  password=\t sekrit\n", Accepted),
        ("authname=fred\npassword=wrong\npassword=sekrit\n", Accepted),
        (
            "[credentials-y]\npassword=1\n[credentials-x]\nauthname=fred\npassword=sekrit\n",
            Accepted,
        ),
        ("authname=fred\npassword=sekrit\nsp ace=1\nk[de]=2\n", Accepted),
        ("authname=odd\npassword=a b\\\\c\"\n", Accepted),
        ("authname=odd\npassword=a\\sb\\\\c\"\n", Accepted),
        ("authname=escape\npassword=a\\qc\n", Accepted),
        ("authname=fred\npassword=sekrit\\\n", Accepted),
        ("authname=fred\npassword=sekrit \n", Refused),
        ("authname=fred\npassword=\"sekrit\"\n", Refused),
        ("authname=fred\npassword=sekrit # c\n", Refused),
        ("authname=fred\npassword=sek\\srit\n", Refused),
        ("; c\nauthname=fred\npassword=sekrit\n", BadFile),
        ("junk\nauthname=fred\npassword=sekrit\n", BadFile),
        ("=x\nauthname=fred\npassword=sekrit\n", BadFile),
        ("k]=x\nauthname=fred\npassword=sekrit\n", BadFile),
        ("authname=fred\npassword=sekrit\n[a] # c\n", BadFile),
        ("authname=fred\npassword=sekrit\n[]\n", BadFile),
        ("authname=fred\npassword=sekrit\n[a[b]\n", BadFile),
    ];
    let fred = "[credentials-x]\nauthname=fred\npassword=sekrit\n";
    let whole = [
        (format!("[auth-libvirt-default]\ncredentials=x\n{fred}"), Accepted),
        (
            format!("[auth-libvirt-localhost]\n[auth-libvirt-default]\ncredentials=x\n{fred}"),
            BadFile,
        ),
        (format!("[auth-libvirt-localhost]\ncredentials=y\n{fred}"), BadFile),
        (format!("credentials=x\n{HEAD}{fred}"), BadFile),
    ];
    let after_head = after_head.map(|(tail, outcome)| (format!("{HEAD}{tail}"), outcome));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("auth.conf");
    for (text, expected) in after_head.into_iter().chain(whole) {
        fs::write(&path, &text).unwrap();
        let virsh = match daemon_virsh(&daemon, &path).run(&["uri"]).await {
            Ok(_) => Accepted,
            Err(error) if error.to_string().contains("authentication failed") => Refused,
            Err(_) => BadFile,
        };
        let source = client(&uri_with(&daemon, &path)).source();
        let ours = match source.subscribe_with(Options::default()).await {
            Ok(_) => Accepted,
            Err(Error::Credentials { .. }) => Refused,
            Err(Error::Authentication { .. }) => BadFile,
            Err(error) => panic!("{text}: {error}"),
        };
        source.shutdown().await;
        assert_eq!(virsh, expected, "virsh: {text}");
        assert_eq!(ours, expected, "ours: {text}");
    }
}
