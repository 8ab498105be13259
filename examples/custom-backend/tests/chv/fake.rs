//! A fake Cloud Hypervisor: the file and the API, byte for byte as the real one's (v53.0 was
//! recorded), without a VM.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};
use virevent::driver::{Driver, Reconnect, Settings};

/// How often the sources of the tests verify.
pub(crate) const VERIFY: Duration = Duration::from_millis(200);

pub(crate) struct Fake {
    home: TempDir,
    name: &'static str,
    vm: Arc<Mutex<Vm>>,
    server: Mutex<Option<JoinHandle<()>>>,
}

/// What `vm.info` answers from.
#[derive(Default)]
pub(crate) struct Vm {
    pub(crate) state: Option<&'static str>,
    /// The number of calls of `vm.info`.
    pub(crate) calls: usize,
    /// Bytes that are written to the file at the second call of `vm.info`.
    pub(crate) late: Option<Vec<u8>>,
}

impl Fake {
    pub(crate) fn start(name: &'static str) -> Self {
        let home = tempfile::Builder::new().prefix("chv").tempdir().unwrap();
        let server = Mutex::default();
        let fake = Self { home, name, vm: Arc::default(), server };
        std::fs::write(fake.file(), event("vmm", "starting")).unwrap();
        fake.come_back();
        fake
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.home.path().join(format!("{}.sock", self.name))
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.home.path().join(format!("{}.events", self.name))
    }

    pub(crate) fn vm(&self) -> MutexGuard<'_, Vm> {
        self.vm.lock().unwrap()
    }

    pub(crate) fn source(&self) -> Driver {
        source(&self.socket())
    }

    /// Writes bytes, in two parts, as the event monitor does when the disk is slow.
    pub(crate) fn write(&self, bytes: &[u8]) {
        append(&self.file(), &bytes[..bytes.len() / 2]);
        append(&self.file(), &bytes[bytes.len() / 2..]);
    }

    /// Enters a state, and then reports these events, as the real one does.
    pub(crate) fn enter(&self, state: Option<&'static str>, events: &[&str]) {
        self.vm().state = state;
        for name in events {
            self.write(&event("vm", name));
        }
    }

    pub(crate) fn create(&self) {
        self.enter(Some("Created"), &[]);
    }

    pub(crate) fn boot(&self) {
        self.enter(Some("Running"), &["booting", "booted"]);
    }

    pub(crate) fn shut_down(&self) {
        self.enter(Some("Created"), &["shutdown"]);
    }

    /// Closes every connection and the socket. The process lives on.
    pub(crate) fn go_down(&self) {
        if let Some(server) = self.server.lock().unwrap().take() {
            server.abort();
            std::fs::remove_file(self.socket()).unwrap();
        }
    }

    pub(crate) fn come_back(&self) {
        let listener = UnixListener::bind(self.socket()).unwrap();
        let vm = Arc::clone(&self.vm);
        let file = self.file();
        let serve = async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&vm), file.clone()));
            }
        };
        *self.server.lock().unwrap() = Some(tokio::spawn(serve));
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.go_down();
    }
}

pub(crate) fn source(socket: &Path) -> Driver {
    let quick = Reconnect::local().max(Duration::from_millis(50));
    let settings = Settings::default().reconnect(quick).verify(Some(VERIFY));
    let uri = format!("chv:{}", socket.display());
    custom_backend::Chv::new(&uri).unwrap().settings(settings).source()
}

async fn serve(mut stream: UnixStream, vm: Arc<Mutex<Vm>>, file: PathBuf) {
    let mut read = Vec::new();
    while stream.read_buf(&mut read).await.is_ok_and(|count| count > 0) {
        while let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let call: Vec<u8> = read.drain(..end + 4).collect();
            let reply = answer(&String::from_utf8(call).unwrap(), &mut vm.lock().unwrap(), &file);
            for part in reply.as_bytes().chunks(100) {
                if stream.write_all(part).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn answer(call: &str, vm: &mut Vm, file: &Path) -> String {
    match call.split(' ').nth(1) {
        Some("/api/v1/vmm.ping") => ok(&ping(std::process::id())),
        Some("/api/v1/vm.info") => {
            vm.calls += 1;
            if let Some(late) = vm.late.take_if(|_| vm.calls > 1) {
                append(file, &late);
            }
            match vm.state {
                Some(state) => ok(&format!(
                    "{{\"config\":{{\"memory\":{{\"size\":67108864}}}},\"state\":\"{state}\",\
                     \"memory_actual_size\":67108864}}"
                )),
                None => reply(
                    "404 ",
                    "[\"Error from API\",\"The VM info is not available\",\"VM is not created\"]",
                ),
            }
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) fn ping(pid: u32) -> String {
    format!("{{\"build_version\":\"v53.0\",\"version\":\"53.0.0\",\"pid\":{pid},\"features\":[]}}")
}

pub(crate) fn ok(body: &str) -> String {
    reply("200 ", body)
}

fn reply(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The bytes of an event without properties.
pub(crate) fn event(source: &str, name: &str) -> Vec<u8> {
    event_with(source, name, "null")
}

pub(crate) fn event_with(source: &str, name: &str, properties: &str) -> Vec<u8> {
    let text = format!(
        "{{\n  \"timestamp\": {{\n    \"secs\": 1,\n    \"nanos\": 114218030\n  }},\n  \
         \"source\": \"{source}\",\n  \"event\": \"{name}\",\n  \"properties\": {properties}\n}}\n\n"
    );
    text.into_bytes()
}

fn append(file: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().append(true).open(file).unwrap();
    file.write_all(bytes).unwrap();
}
