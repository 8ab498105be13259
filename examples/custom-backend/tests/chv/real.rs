//! On a real Cloud Hypervisor, with KVM: `CLOUD_HYPERVISOR=/path/to/it cargo test -p custom-backend`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use virevent::{Change, EventSource, EventSourceExt};
use virevent_testkit::Failure;
use virevent_testkit::assert::{PATIENCE, eventually, expect_sequence, next_within, until_synced};
use virevent_testkit::conformance::Rig;

use crate::conformance::another;
use crate::fake::{VERIFY, source};

/// What a guest of the tests does, in 32-bit machine code.
const HALTS: &[u8] = b"\xf4\xeb\xfd";
/// Writes to the port of ACPI's power off, as a guest's kernel does, then halts.
const POWERS_OFF: &[u8] = b"\x66\xba\x00\x06\xb0\x34\xee\xf4\xeb\xfd";

/// A kernel for a PVH boot: an ELF program and a note that says where it begins.
fn kernel(code: &[u8]) -> Vec<u8> {
    const LOAD: u64 = 16 << 20;
    const CODE: u64 = 0x1000;
    let mut note = Vec::new();
    // The lengths of name and value, then XEN_ELFNOTE_PHYS32_ENTRY.
    note.extend([4u32, 4, 18].iter().flat_map(|number| number.to_le_bytes()));
    note.extend(b"Xen\0");
    note.extend((LOAD as u32).to_le_bytes());
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([2u16, 62].iter().flat_map(|half| half.to_le_bytes()));
    elf.extend(1u32.to_le_bytes());
    elf.extend([LOAD, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend(0u32.to_le_bytes());
    elf.extend([64u16, 56, 2, 64, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    let mut segment = |kind: u32, flags: u32, words: [u64; 6]| {
        elf.extend([kind, flags].iter().flat_map(|number| number.to_le_bytes()));
        elf.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    };
    let length = code.len() as u64;
    segment(1, 7, [CODE, LOAD, LOAD, length, length, 0x1000]);
    segment(4, 4, [64 + 2 * 56, 0, 0, note.len() as u64, note.len() as u64, 4]);
    elf.extend(note);
    elf.resize(CODE as usize, 0);
    elf.extend(code);
    elf
}

struct Real {
    home: TempDir,
    process: Child,
}

impl Real {
    async fn start() -> Self {
        let home = tempfile::Builder::new().prefix("chv").tempdir().unwrap();
        std::fs::write(home.path().join("kernel"), kernel(HALTS)).unwrap();
        let process = run(&home, &[]);
        let real = Self { home, process };
        eventually("it listens", || UnixStream::connect(real.socket()).is_ok()).await.unwrap();
        real
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("web.sock")
    }

    fn put(&self, endpoint: &str, body: &str) -> Result<(), Failure> {
        put(&self.socket(), endpoint, body).map_err(Failure::new)
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.kill();
    }
}

fn run(home: &TempDir, arguments: &[&str]) -> Child {
    Command::new(env!("CLOUD_HYPERVISOR"))
        .args(["--api-socket", "path=web.sock", "--event-monitor", "path=web.events"])
        .args(arguments)
        .current_dir(home.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn put(socket: &Path, endpoint: &str, body: &str) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    let length = body.len();
    write!(
        stream,
        "PUT /api/v1/{endpoint} HTTP/1.1\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    match &head[9..] {
        b"204" => Ok(()),
        status => Err(std::io::Error::other(String::from_utf8_lossy(status).into_owned())),
    }
}

#[async_trait]
impl Rig for Real {
    fn source(&self) -> Arc<dyn EventSource> {
        Arc::new(source(&self.socket()))
    }

    async fn start(&self, name: &str) -> Result<(), Failure> {
        if name != "web" {
            return Err(another());
        }
        let kernel = self.home.path().join("kernel");
        let config = format!(
            "{{\"cpus\":{{\"boot_vcpus\":1,\"max_vcpus\":1}},\"memory\":{{\"size\":33554432}},\
             \"payload\":{{\"kernel\":\"{}\"}},\"console\":{{\"mode\":\"Null\"}},\
             \"serial\":{{\"mode\":\"Null\"}}}}",
            kernel.display()
        );
        // It is there from its first run on.
        let _ = self.put("vm.create", &config);
        self.put("vm.boot", "")
    }

    async fn stop(&self, _name: &str) -> Result<(), Failure> {
        self.put("vm.shutdown", "")
    }

    async fn suspend(&self, _name: &str) -> Result<(), Failure> {
        self.put("vm.pause", "")
    }

    async fn resume(&self, _name: &str) -> Result<(), Failure> {
        self.put("vm.resume", "")
    }

    fn verification(&self) -> Duration {
        VERIFY
    }
}

virevent_testkit::conformance_tests!(
    ignore = [
        "one process has one VM, of one name":
            a_domain_filter_passes_only_its_domain
            a_table_folded_from_events_equals_the_list
            a_definition_and_its_removal_are_delivered
            a_definition_persists_until_it_is_removed,
        "nothing is registered: the file is written without a reader too":
            dropping_the_stream_deregisters
            close_returns_once_deregistered,
        "it reports every end of a run":
            a_silent_end_is_corrected_by_verification,
        "the socket is the process's own: it cannot be taken away and brought back":
            an_outage_is_a_gap_then_inferred_events_then_synced
            a_restart_in_an_outage_is_a_stop_and_a_start
            a_pause_in_an_outage_is_delivered_once_and_listed
            an_outage_does_not_change_a_paused_domain
            unreachable_is_never_stopped
            subscribing_in_an_outage_opens_with_disconnected
            first_subscribe_to_an_unreachable_source_fails_without_wait,
    ],
    Real::start().await
);

#[tokio::test]
async fn a_killed_process_is_a_failed_run_and_the_next_a_new_one() {
    let mut real = Real::start().await;
    real.start("web").await.unwrap();
    let mut events = source(&real.socket()).subscribe().await.unwrap();
    let first = until_synced(&mut events).await.unwrap()[0].domain().unwrap().id();
    real.kill();
    let expected = ["web[*] stopped (failed)", "web undefined (removed)", "disconnected from *"];
    expect_sequence(&mut events, &expected).await.unwrap();
    real.process = run(&real.home, &["--kernel", "kernel", "--memory", "size=32M"]);
    // The source reconnects before the boot, or after it: synced comes first then, or last.
    let started = loop {
        let event = next_within(&mut events, PATIENCE).await.unwrap();
        if let Some(Change::Started(_)) = event.change() {
            break event;
        }
    };
    assert_eq!(started.domain().unwrap().id(), Some(real.process.id()));
    assert_ne!(first, Some(real.process.id()));
}

#[tokio::test]
async fn a_guest_that_powers_off_ends_its_domain() {
    let mut real = Real::start().await;
    let mut events = source(&real.socket()).subscribe().await.unwrap();
    until_synced(&mut events).await.unwrap();
    std::fs::write(real.home.path().join("kernel"), kernel(POWERS_OFF)).unwrap();
    real.start("web").await.unwrap();
    let expected = [
        "web defined (added)",
        "web[*] started (booted)",
        "web[*] stopped (shutdown)",
        "web undefined (removed)",
        "disconnected from *",
    ];
    expect_sequence(&mut events, &expected).await.unwrap();
    real.process.wait().unwrap();
}
