//! The cost of an event over TLS beside that over a unix socket, in the same process, in turns, over
//! the same events.
//!
//! As libvirtd does, the server sends each event as a record of its own. The figure is the CPU time
//! of the client's thread for each event; the server has a thread of its own. Run it with
//! `cargo bench -p virevent-libvirt --features tls --bench tls`.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

mod client;
mod daemon;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};
use virevent::Kind;
use virevent_testkit::tls::{Leaf, Pki};

use self::client::{BLOCK, EVENTS, cost, serve};

const RUNS: usize = 7;

fn main() {
    let block = daemon::events(BLOCK);
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::new().unwrap();
    let files = pki.server_directory("server", &Leaf::server(&["localhost"])).unwrap();
    let config = server_config(&files);
    let mut runs: Vec<[f64; 2]> = (0..RUNS)
        .map(|run| {
            let path = directory.path().join(run.to_string());
            [over_unix(&path, &block), over_tls(&files, &config, &block)]
        })
        .collect();
    // Other load on the machine changes single runs, so the one with the median ratio counts.
    runs.sort_by(|a, b| (a[1] / a[0]).total_cmp(&(b[1] / b[0])));
    let [unix, tls] = runs[RUNS / 2];
    println!("| over {EVENTS} lifecycle events | CPU, ns/event | times *unix* |");
    println!("|---|---:|---:|");
    for (what, cost) in [("unix", unix), ("tls", tls)] {
        println!("| {what} | {cost:.0} | {:.2} |", cost / unix);
    }
}

fn server_config(files: &Path) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(files.join("servercert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(files.join("serverkey.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap();
    Arc::new(config)
}

fn over_unix(path: &Path, block: &[u8]) -> f64 {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| serve(listener.accept().unwrap().0, block, block.len()));
        cost(&format!("test+unix:///default?socket={}", path.display()), Kind::Lifecycle)
    })
}

fn over_tls(files: &Path, config: &Arc<ServerConfig>, block: &[u8]) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let session = ServerConnection::new(Arc::clone(config)).unwrap();
            let stream = StreamOwned::new(session, listener.accept().unwrap().0);
            let mut socket = Records { stream, unsent: 0 };
            socket.write_all(&[1]).unwrap();
            socket.flush().unwrap();
            serve(socket, block, daemon::events(1).len());
        });
        cost(
            &format!("test+tls://localhost:{port}/default?pkipath={}", files.display()),
            Kind::Lifecycle,
        )
    })
}

/// Makes a record of each write, and sends many at once: the client is measured as in the case of
/// unix, where it finds its socket full.
struct Records {
    stream: StreamOwned<ServerConnection, TcpStream>,
    unsent: usize,
}

impl Write for Records {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unsent += bytes.len();
        if self.unsent > 32 * 1024 {
            self.flush()?;
        }
        self.stream.conn.writer().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unsent = 0;
        self.stream.flush()
    }
}

impl Read for Records {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.read(into)
    }
}
