//! Against a real libvirtd, in a mount namespace of its own. Needs root, libvirtd, virsh and unshare.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::StreamExt;
use tempfile::TempDir;
use virevent::driver::{Driver, Reconnect};
use virevent::{DomainEvent, EventSource, EventStream, Kind, Options, Status};
use virevent_libvirt::Libvirt;

const XML: &str = "<domain type='test'><name>web</name>\
    <uuid>11111111-2222-4333-8444-000000000001</uuid>\
    <memory>8192</memory><os><type>hvm</type></os></domain>";

/// A libvirtd; killed when dropped.
struct Libvirtd {
    dir: TempDir,
    process: Option<Child>,
}

impl Libvirtd {
    fn start() -> Self {
        let dir = TempDir::with_prefix("lv").unwrap();
        for name in ["s", "run", "lib", "cache", "etc"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let root = dir.path().display();
        let conf = format!(
            "unix_sock_dir = \"{root}/s\"\nauth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\n\
             log_outputs = \"3:file:{root}/log\"\n\
             host_uuid = \"a1b2c3d4-0000-4000-8000-0000000000f2\"\n"
        );
        std::fs::write(dir.path().join("conf"), conf).unwrap();
        let mut daemon = Self { dir, process: None };
        daemon.restart();
        daemon
    }

    fn restart(&mut self) {
        let root = self.dir.path().display();
        let script = format!(
            "mount --bind {root}/run /run/libvirt && mount --bind {root}/lib /var/lib/libvirt && \
             mount --bind {root}/cache /var/cache/libvirt && mount --bind {root}/etc /etc/libvirt && \
             exec libvirtd -f {root}/conf -p {root}/pid"
        );
        let child = Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", &script])
            .stderr(Stdio::null())
            .spawn();
        self.process = Some(child.unwrap());
        let mut left = 200;
        while std::os::unix::net::UnixStream::connect(self.socket("libvirt-sock-ro")).is_err() {
            left -= 1;
            assert!(left > 0, "libvirtd does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn socket(&self, name: &str) -> String {
        self.dir.path().join("s").join(name).display().to_string()
    }

    fn source(&self) -> Driver {
        let uri = format!("test+unix:///default?socket={}", self.socket("libvirt-sock-ro"));
        Libvirt::new(&uri).unwrap().reconnect(Reconnect::local().seed(1)).source()
    }

    fn virsh(&self, commands: &str) {
        let uri = format!("test+unix:///default?socket={}", self.socket("libvirt-sock"));
        let output = Command::new("virsh").args(["-q", "-c", &uri, commands]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn define(&self, path: &Path) -> String {
        std::fs::write(path, XML).unwrap();
        format!("define {}", path.display())
    }
}

impl Drop for Libvirtd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The next `n` events, one line each.
async fn take(events: &mut EventStream, n: usize) -> Vec<String> {
    let next = tokio::time::timeout(Duration::from_secs(20), events.take(n).collect::<Vec<_>>());
    let told = next.await.expect("events within 20 s");
    told.iter().map(|event| event.to_string().replace(source_of(event), "SOURCE")).collect()
}

fn source_of(event: &DomainEvent) -> &str {
    match event {
        DomainEvent::Synced(synced) => &synced.source,
        DomainEvent::Gap(gap) => &gap.source,
        _ => "\0",
    }
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn what_virsh_does_is_told_in_order_with_its_causes() {
    let libvirtd = Libvirtd::start();
    let source = libvirtd.source();
    let options = Options::default().kind(Kind::Lifecycle).kind(Kind::Reboot).kind(Kind::Other);
    let mut events = source.subscribe_with(options).await.unwrap();
    let first = take(&mut events, 2).await;
    assert_eq!(first, ["test[1] existing (running)", "synced with SOURCE (1 domain)"]);
    let define = libvirtd.define(&libvirtd.dir.path().join("web.xml"));
    libvirtd.virsh(&format!(
        "{define}; start web; suspend web; resume web; desc web --config hello; destroy web; undefine web"
    ));
    let told = take(&mut events, 7).await;
    assert_eq!(
        told,
        [
            "web defined (added)",
            "web[2] started (booted)",
            "web[2] suspended (paused)",
            "web[2] resumed (unpaused)",
            // metadata-change: type description, no namespace.
            "web[2] event 23 (8 bytes)",
            "web[2] stopped (destroyed)",
            "web undefined (removed)",
        ]
    );
    events.close().await;
    assert_eq!(source.health().status(), Status::Idle);
    source.shutdown().await;
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_daemon_that_is_killed_and_comes_back_is_a_gap_and_then_the_difference() {
    let mut libvirtd = Libvirtd::start();
    let source = libvirtd.source();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    take(&mut events, 2).await;
    let define = libvirtd.define(&libvirtd.dir.path().join("web.xml"));
    libvirtd.virsh(&format!("{define}; start web"));
    take(&mut events, 2).await;
    libvirtd.kill();
    let gap = take(&mut events, 1).await;
    assert!(gap[0].contains("closed the connection"), "{gap:?}");
    // The test driver forgets everything; `test` is back as it was.
    libvirtd.restart();
    let told = take(&mut events, 3).await;
    assert_eq!(
        told,
        ["web[2] stopped [inferred]", "web undefined [inferred]", "synced with SOURCE (1 domain)"]
    );
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_daemon_that_is_not_there_is_one_clear_error() {
    let mut libvirtd = Libvirtd::start();
    let source = libvirtd.source();
    libvirtd.kill();
    let error = source.subscribe_with(Options::default()).await.unwrap_err();
    assert!(error.to_line().contains("start it again: Connection refused"), "{}", error.to_line());
}
