//! `metrics [--listen ADDRESS] [URI]...`: without a URI of a fake hypervisor that plays a demo.
//!
//! Exit status: 0 after Ctrl-C or SIGTERM, 1 if it cannot listen at the address, 2 if the arguments
//! are wrong.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use lexopt::prelude::*;
use metrics::serve;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use virevent::driver::Gate;
use virevent::{Error, Fleet};
use virevent_backends::{Settings, open_with};
use virevent_testkit::{Script, scripted};

const USAGE: &str = "usage: metrics [--listen ADDRESS] [URI]...";

/// Of this machine only: what the metrics show is not for everyone.
const LISTEN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9749);

/// A failure of the program: its exit status and its message, one line.
struct Failure(i32, String);

struct Arguments {
    uris: Vec<String>,
    listen: SocketAddr,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // A log that cannot be written must not end the service: its complaint about that would panic.
    let log = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false);
    log.log_internal_errors(false).init();
    if let Err(Failure(status, line)) = run().await {
        let _ = writeln!(io::stderr(), "metrics: {line}");
        std::process::exit(status);
    }
}

async fn run() -> Result<(), Failure> {
    let Arguments { uris, listen } = arguments()?;
    let fleet = fleet(&uris)?;
    let mut terminate = signals(SignalKind::terminate())?;
    let mut interrupt = signals(SignalKind::interrupt())?;
    let cannot_listen = |error| {
        Failure(
            1,
            format!("cannot listen at {listen}: {error}; give another address with --listen"),
        )
    };
    let listener = TcpListener::bind(listen).await.map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    tracing::info!("listening at http://{address}/metrics");
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    serve(fleet, listener, shutdown).await?;
    Ok(())
}

/// The sources as one; without a URI the demo, which stays as it is at its end.
fn fleet(uris: &[String]) -> Result<Fleet, Failure> {
    let fleet = Fleet::new("fleet:metrics");
    if uris.is_empty() {
        fleet.add(Arc::new(scripted(Script::demo().ends(false))))?;
    }
    // Not all hosts are connected to at once when the network comes back.
    let settings = Settings::default().gate(Gate::new(32));
    for uri in uris {
        fleet.add(open_with(uri, settings.clone())?)?;
    }
    Ok(fleet)
}

fn signals(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind).map_err(|error| Failure(1, format!("cannot listen for signals: {error}")))
}

fn arguments() -> Result<Arguments, Failure> {
    let wrong = |what: String| Failure(2, format!("{what}; {USAGE}"));
    let mut parser = lexopt::Parser::from_env();
    let mut uris = Vec::new();
    let mut listen = LISTEN.into();
    while let Some(argument) = parser.next().map_err(|error| wrong(error.to_string()))? {
        match argument {
            Long("listen") => {
                let value = parser.value().and_then(|value| value.string());
                let value = value.map_err(|error| wrong(error.to_string()))?;
                listen = value.parse().map_err(|_| {
                    wrong(format!("--listen {value:?}: give an address and a port, as {LISTEN}"))
                })?;
            }
            Value(uri) => uris.push(
                uri.into_string().map_err(|uri| wrong(format!("the URI {uri:?} is not UTF-8")))?,
            ),
            option => return Err(wrong(option.unexpected().to_string())),
        }
    }
    Ok(Arguments { uris, listen })
}

/// What is wrong with a URI, or that it is given twice.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let is_argument = matches!(error, Error::InvalidUri { .. } | Error::InvalidOption { .. });
        Self(if is_argument { 2 } else { 1 }, error.to_line())
    }
}
