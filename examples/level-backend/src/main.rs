//! `level-backend URI`: prints the events of a directory of pid files until Ctrl-C.

use std::io::{self, Write};

use futures::StreamExt;
use level_backend::PidDir;
use virevent::{Error, EventSource, Options};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Some(uri) = std::env::args().nth(1) else {
        let _ = writeln!(io::stderr(), "usage: level-backend pid-dir:/run/guests");
        std::process::exit(2);
    };
    if let Err(error) = run(&uri).await {
        let _ = writeln!(io::stderr(), "level-backend: {}", error.to_line());
        std::process::exit(if matches!(error, Error::InvalidUri { .. }) { 2 } else { 1 });
    }
}

async fn run(uri: &str) -> Result<(), Error> {
    let source = PidDir::new(uri)?.source();
    let mut events = source.subscribe_with(Options::default()).await?;
    loop {
        tokio::select! {
            event = events.next() => match event {
                // A closed pipe ends the program.
                Some(event) if writeln!(io::stdout(), "{event}").is_ok() => {}
                _ => break,
            },
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    events.close().await;
    Ok(())
}
