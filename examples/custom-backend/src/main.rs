//! `custom-backend URI`: prints the events of one Cloud Hypervisor process until Ctrl-C.

use std::io::{self, Write};

use custom_backend::Chv;
use futures::StreamExt;
use virevent::{Error, EventSource, Options};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Some(uri) = std::env::args().nth(1) else {
        let _ = writeln!(io::stderr(), "usage: custom-backend chv:/run/chv/web.sock");
        std::process::exit(2);
    };
    if let Err(error) = run(&uri).await {
        let _ = writeln!(io::stderr(), "custom-backend: {}", error.to_line());
        std::process::exit(if matches!(error, Error::InvalidUri { .. }) { 2 } else { 1 });
    }
}

async fn run(uri: &str) -> Result<(), Error> {
    let source = Chv::new(uri)?.source();
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
