//! `select-loop [URI]`: without an argument the URI in the variable `VIREVENT_URI`, or a demo.
//!
//! Exit status: 0 after a normal end, 1 if the hypervisor is unreachable or refuses, 2 if the URI
//! is wrong.

use std::io::{self, Write};
use std::time::Duration;

use futures::StreamExt;
use select_loop::serve;
use tokio::io::AsyncWriteExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use virevent::{Changed, DomainStore, Error, Snapshot};

/// The time that the program waits at its end for output that is not yet printed.
const PATIENCE: Duration = Duration::from_secs(1);

/// A failure of the program: its exit status and its message, one line.
struct Failure(i32, String);

#[tokio::main]
async fn main() {
    let status = match run().await {
        Ok(()) => 0,
        Err(Failure(status, line)) => {
            let _ = writeln!(io::stderr(), "select-loop: {line}");
            status
        }
    };
    // Returning would wait for tokio's thread that is blocked on standard output.
    std::process::exit(status);
}

async fn run() -> Result<(), Failure> {
    let source = virevent_backends::open(&uri()?)?;
    let store = DomainStore::new();
    let listen = |kind| {
        signal(kind).map_err(|error| Failure(1, format!("cannot listen for signals: {error}")))
    };
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let stopped = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let mut printing = std::pin::pin!(print(store.clone(), store.changed()));
    let mut serving = std::pin::pin!(serve(source, store, stopped));
    tokio::select! {
        served = &mut serving => {
            let printed = timeout(PATIENCE, printing).await;
            served?;
            printed.unwrap_or(Ok(()))?;
        }
        // The reader has closed the output, or a write failed. Dropping `serving` cancels its
        // subscription.
        printed = &mut printing => printed?,
    }
    Ok(())
}

fn uri() -> Result<String, Failure> {
    match std::env::args_os().nth(1).or_else(|| std::env::var_os("VIREVENT_URI")) {
        Some(uri) => uri
            .into_string()
            .map_err(|uri| Failure(2, format!("cannot use the URI {uri:?}: write it in UTF-8"))),
        None => Ok("fake:".into()),
    }
}

/// Prints the running domains whenever they change, until the service ends or the reader closes the
/// output.
async fn print(store: DomainStore, mut changed: Changed) -> Result<(), Failure> {
    let mut stdout = tokio::io::stdout();
    let mut printed = String::new();
    while changed.next().await.is_some() {
        let line = line(&store.snapshot());
        if line == printed {
            continue;
        }
        let written = async {
            stdout.write_all(line.as_bytes()).await?;
            stdout.flush().await
        };
        match written.await {
            Ok(()) => printed = line,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) => {
                return Err(Failure(1, format!("cannot write to standard output: {error}")));
            }
        }
    }
    Ok(())
}

fn line(now: &Snapshot) -> String {
    let names: Vec<_> = now.active().map(|stored| stored.domain.to_string()).collect();
    let doubt = if now.is_certain() { "" } else { ", perhaps" };
    format!("running{doubt}: {}\n", names.join(" "))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = if matches!(error, Error::InvalidUri { .. }) { 2 } else { 1 };
        Self(status, error.to_line())
    }
}
