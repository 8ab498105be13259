//! The program at a libvirtd that demands SASL: it uses libvirt's auth file and the environment, and
//! never prompts.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use rustix::process::Signal;
use tempfile::NamedTempFile;
use virevent_testkit::servers::{Config, Libvirtd, Sasl};

use super::run::{Run, run, start, start_with};

/// What the password ends with.
const TAIL: &str = "Kx7-zebra-Quartz41";

/// A long one, so that what is sent later does not cover its end in a buffer that is used again.
fn password() -> String {
    format!("{}{TAIL}", "0123456789".repeat(30))
}

async fn daemon(mechanism: &str) -> Libvirtd {
    let sasl = Sasl::new(mechanism).user("fred", &password());
    Libvirtd::start_with(Config::default().sasl(sasl)).await.unwrap()
}

fn auth_file(password: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    write!(
        file,
        "[auth-libvirt-localhost]\ncredentials=x\n[credentials-x]\nauthname=fred\n\
         password={password}\n"
    )
    .unwrap();
    file
}

fn uri(daemon: &Libvirtd, file: &NamedTempFile) -> String {
    format!("{}&authfile={}", daemon.uri("test:///default"), file.path().display())
}

fn assert_ends_well(mut run: Run) {
    run.until_synced();
    run.signal(Signal::INT);
    let outcome = run.end();
    assert_eq!((outcome.status, &*outcome.stderr), (0, ""), "{outcome:?}");
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn the_auth_file_and_the_environment_let_it_in() {
    let daemon = daemon("scram-sha-256").await;
    let file = auth_file(&password());
    let path = file.path().to_str().unwrap();
    let secret = password();
    let plain = daemon.uri("test:///default");
    assert_ends_well(start(&["--json", &uri(&daemon, &file)]));
    assert_ends_well(start_with(&[("LIBVIRT_AUTH_FILE", path)], &["--json", &plain]));
    let variables = [("VIREVENT_LIBVIRT_USER", "fred"), ("VIREVENT_LIBVIRT_PASSWORD", &*secret)];
    assert_ends_well(start_with(&variables, &["--json", &plain]));
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn each_refusal_is_one_line_and_status_1() {
    let daemon = daemon("scram-sha-256 plain").await;
    let wrong = auth_file("wrong-password");
    let outcome = run(&[&uri(&daemon, &wrong)]);
    outcome.assert_failed(1, "the server refused the user and password of the auth file");
    assert!(!outcome.stderr.contains("wrong-password"), "{outcome:?}");

    let none = NamedTempFile::new().unwrap();
    run(&[&uri(&daemon, &none)]).assert_failed(1, "there are no credentials");

    let mut junk = auth_file("x");
    junk.write_all(b"secret-junk\n").unwrap();
    let outcome = run(&[&uri(&daemon, &junk)]);
    outcome.assert_failed(1, "in line 6; libvirt ignores the whole file");
    assert!(!outcome.stderr.contains("secret-junk"), "{outcome:?}");

    let daemon = self::daemon("digest-md5").await;
    let good = auth_file(&password());
    run(&[&uri(&daemon, &good)]).assert_failed(1, "DIGEST-MD5 only");
}

/// How often the text is in the memory of a process.
fn in_memory(pid: u32, text: &[u8]) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut found = 0;
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        let mut bytes = vec![0; usize::try_from(number(end) - number(start)).unwrap()];
        memory.seek(SeekFrom::Start(number(start))).unwrap();
        // Some special mappings cannot be read.
        if memory.read_exact(&mut bytes).is_ok() {
            found += bytes.windows(text.len()).filter(|window| *window == text).count();
        }
    }
    found
}

/// The bytes as libvirt's RPC has them, each in an int.
fn on_the_wire(text: &str) -> Vec<u8> {
    text.bytes().flat_map(|byte| [0, 0, 0, byte]).collect()
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn no_password_is_left_in_its_memory() {
    for mechanism in ["plain", "scram-sha-1", "scram-sha-256"] {
        let daemon = daemon(mechanism).await;
        let file = auth_file(&password());
        let mut run = start(&["--json", &uri(&daemon, &file)]);
        run.until_synced();
        // What the search must find, so that it is known to work.
        assert!(in_memory(run.pid(), file.path().to_str().unwrap().as_bytes()) > 0);
        assert_eq!(in_memory(run.pid(), TAIL.as_bytes()), 0, "{mechanism}");
        assert_eq!(in_memory(run.pid(), &on_the_wire(TAIL)), 0, "{mechanism}");
        assert_ends_at_once(run);
    }
}

fn assert_ends_at_once(run: Run) {
    run.signal(Signal::INT);
    assert_eq!(run.end().status, 0);
}
