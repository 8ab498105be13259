//! `crash-hook [--tries N] [--state FILE] URI... -- COMMAND [ARGUMENT]...`
//!
//! Exit status: 0 after Ctrl-C or SIGTERM, 1 if a source is unreachable at the start or refuses, 2
//! if the arguments are wrong.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use crash_hook::{Hook, Memory, serve};
use futures::future::try_join_all;
use lexopt::prelude::*;
use tokio::signal::unix::{SignalKind, signal};
use virevent::{Error, EventSource, Merged, merge};

const USAGE: &str = "usage: crash-hook [--tries N] [--state FILE] URI... -- COMMAND [ARGUMENT]...";

/// A failure of the program: its exit status and its message, one line.
struct Failure(i32, String);

struct Arguments {
    uris: Vec<String>,
    tries: u32,
    state: Option<PathBuf>,
    command: Vec<OsString>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // A log that cannot be written must not end the service: its complaint about that would panic.
    let log = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false);
    log.log_internal_errors(false).init();
    if let Err(Failure(status, line)) = run().await {
        let _ = writeln!(io::stderr(), "crash-hook: {line}");
        std::process::exit(status);
    }
}

async fn run() -> Result<(), Failure> {
    let Arguments { uris, tries, state, command } = arguments()?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let hook = Hook::new(command).tries(tries);
    let sources = uris.iter().map(|uri| virevent_backends::open(uri));
    let sources = sources.collect::<Result<Vec<_>, _>>()?;
    let memory = memory(state, &sources)?;
    let events = subscribe(&sources, &memory).await?;
    let shutdown = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    serve(events, memory, |domain, cause| hook.clone().run(domain, cause), shutdown).await?;
    Ok(())
}

fn memory(file: Option<PathBuf>, sources: &[Arc<dyn EventSource>]) -> Result<Memory, Failure> {
    let Some(file) = file else { return Ok(Memory::default()) };
    let uris: Vec<_> = sources.iter().map(|source| source.uri()).collect();
    let name = file.display().to_string();
    Memory::open(file, &uris).map_err(|error| {
        Failure(1, format!("cannot read {name}: {error}; remove it to begin without it"))
    })
}

async fn subscribe(sources: &[Arc<dyn EventSource>], memory: &Memory) -> Result<Merged, Error> {
    let streams = sources.iter().map(|source| source.subscribe_with(memory.options(source.uri())));
    Ok(merge(try_join_all(streams).await?))
}

fn listen(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind).map_err(|error| Failure(1, format!("cannot listen for signals: {error}")))
}

fn arguments() -> Result<Arguments, Failure> {
    let wrong = |what: String| Failure(2, format!("{what}; {USAGE}"));
    let mut parser = lexopt::Parser::from_env();
    let mut uris = Vec::new();
    let mut tries = 5;
    let mut state = None;
    loop {
        // What follows `--` is the command's, options included.
        if parser.try_raw_args().is_some_and(|args| args.peek().is_some_and(|arg| arg == "--")) {
            break;
        }
        match parser.next().map_err(|error| wrong(error.to_string()))? {
            Some(Long("tries")) => {
                let value = parser.value().and_then(|value| value.parse());
                tries = value.map_err(|error| wrong(format!("--tries: {error}")))?;
                if tries == 0 {
                    return Err(wrong("--tries 0: give 1 or more".into()));
                }
            }
            Some(Long("state")) => {
                let file = parser.value().map_err(|error| wrong(error.to_string()))?;
                state = Some(file.into());
            }
            Some(Value(uri)) => uris.push(
                uri.into_string().map_err(|uri| wrong(format!("the URI {uri:?} is not UTF-8")))?,
            ),
            Some(option) => return Err(wrong(option.unexpected().to_string())),
            None => break,
        }
    }
    let rest = parser.raw_args().map_err(|error| wrong(error.to_string()))?;
    let command: Vec<_> = rest.skip(1).collect();
    if uris.is_empty() {
        return Err(wrong("no URI is given".into()));
    }
    if command.is_empty() {
        return Err(wrong("no command is given after --".into()));
    }
    Ok(Arguments { uris, tries, state, command })
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = if matches!(error, Error::InvalidUri { .. }) { 2 } else { 1 };
        let advice = match error {
            Error::UnfitSnapshot { .. } => ": remove the file of --state",
            _ => "",
        };
        Self(status, error.to_line() + advice)
    }
}
