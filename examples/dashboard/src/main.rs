//! `dashboard [--listen ADDRESS] [URI]...`: without a URI a demo on fake hosts.
//!
//! Exit status: 0 after Ctrl-C or SIGTERM, 1 if the address cannot be used, 2 if the arguments are
//! wrong.

use std::io::{self, Write};
use std::net::SocketAddr;

use dashboard::{Board, demo, router};
use lexopt::prelude::*;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "usage: dashboard [--listen ADDRESS] [URI]...";

/// A failure of the program: its exit status and its message, one line.
struct Failure(i32, String);

struct Arguments {
    listen: SocketAddr,
    uris: Vec<String>,
}

#[tokio::main]
async fn main() {
    if let Err(Failure(status, line)) = run().await {
        let _ = writeln!(io::stderr(), "dashboard: {line}");
        std::process::exit(status);
    }
}

async fn run() -> Result<(), Failure> {
    let Arguments { listen, uris } = arguments()?;
    let open =
        |uri: &String| virevent_backends::open(uri).map_err(|error| Failure(2, error.to_line()));
    let mut sources = uris.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    if sources.is_empty() {
        sources = demo();
    }
    let cannot = |what: &str, error: io::Error| Failure(1, format!("cannot {what}: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| cannot("start", e))?;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| cannot(&format!("listen on {listen}"), error))?;
    let address = listener.local_addr().map_err(|e| cannot("start", e))?;
    let board = Board::of(sources).await.map_err(|error| Failure(2, error.to_line()))?;
    let demo = if uris.is_empty() { " (a demo: the hosts are fake)" } else { "" };
    let _ = writeln!(io::stdout(), "http://{address}/{demo}");
    let stop = board.clone();
    let stopped = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        stop.close().await;
    };
    axum::serve(listener, router(board))
        .with_graceful_shutdown(stopped)
        .await
        .map_err(|error| cannot("serve", error))
}

fn arguments() -> Result<Arguments, Failure> {
    let wrong = |what: String| Failure(2, format!("{what}; {USAGE}"));
    let mut parser = lexopt::Parser::from_env();
    let mut arguments =
        Arguments { listen: SocketAddr::from(([127, 0, 0, 1], 8180)), uris: Vec::new() };
    while let Some(argument) = parser.next().map_err(|error| wrong(error.to_string()))? {
        match argument {
            Long("listen") => {
                let address = parser.value().and_then(|value| value.parse());
                arguments.listen = address
                    .map_err(|error| wrong(format!("--listen: {error}, as in 127.0.0.1:8180")))?;
            }
            Value(uri) => arguments.uris.push(
                uri.into_string().map_err(|uri| wrong(format!("the URI {uri:?} is not UTF-8")))?,
            ),
            option => return Err(wrong(option.unexpected().to_string())),
        }
    }
    Ok(arguments)
}
