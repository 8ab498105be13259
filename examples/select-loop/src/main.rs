//! `select-loop [URI]`, or the URI in the variable `VIREVENT_URI`, or a demo.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use select_loop::{Running, serve};
use tokio::sync::watch;
use virevent::Error;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("select-loop: {}", error.to_line());
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Error> {
    let uri = std::env::args().nth(1).or_else(|| std::env::var("VIREVENT_URI").ok());
    let source = virevent_backends::open(uri.as_deref().unwrap_or("fake:"))?;
    let (running, seen) = watch::channel(Running::default());
    let interrupted = async { drop(tokio::signal::ctrl_c().await) };
    let (served, ()) = tokio::join!(serve(source, running, interrupted), print(seen));
    served
}

/// Prints what runs whenever that changes, until the service has ended.
async fn print(mut seen: watch::Receiver<Running>) {
    while seen.changed().await.is_ok() {
        let Running { domains, certain } = &*seen.borrow_and_update();
        let names: Vec<_> = domains.values().map(ToString::to_string).collect();
        let doubt = if *certain { "" } else { ", perhaps" };
        println!("running{doubt}: {}", names.join(" "));
    }
}
