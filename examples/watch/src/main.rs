//! Prints the events of virtual machines: `watch [OPTIONS] [URI]...`, see `watch --help`.
//!
//! ```text
//!  hypervisors ──▶ driver tasks ──▶ mailboxes ──▶ this loop ──▶ a thread ──▶ stdout
//!                                   (bounded)     (prints)      (output)
//! ```

mod args;
mod log;
mod output;
mod print;
mod stats;
mod streams;

use futures::future::join_all;
use std::future::pending;
use std::io::{self, Write};
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Sleep, sleep};
use virevent::{Error, EventSource};
use virevent_testkit::{Script, scripted_with};

use self::args::{Args, Command};
use self::output::Output;
use self::print::Printer;
use self::stats::Stats;
use self::streams::Streams;

/// The time that a requested end waits for a blocked output.
const PATIENCE: Duration = Duration::from_secs(2);

/// The time after which a requested end prints what it waits for.
const SILENCE: Duration = Duration::from_millis(300);

/// A failure of the program: its exit status and its message, one line.
struct Failure(u8, String);

fn main() -> ExitCode {
    let outcome = match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => print_text(args::HELP),
        Ok(Command::Version) => print_text(concat!("watch ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Command::Watch(args)) => start(*args),
        Err(wrong) => Err(Failure(2, wrong)),
    };
    match outcome {
        Ok(status) => status,
        Err(Failure(status, line)) => {
            report(&line);
            ExitCode::from(status)
        }
    }
}

fn start(args: Args) -> Result<ExitCode, Failure> {
    log::start(std::env::var_os(log::VARIABLE).as_deref()).map_err(|wrong| Failure(2, wrong))?;
    let sources = sources(&args)?;
    // One thread: no event moves from one core to another.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure(1, format!("cannot start: {error}")))?;
    // A task, since waking the future of `block_on` costs one more `epoll_wait` an event.
    let watching = runtime.spawn(async move { watch(&args, &sources).await });
    runtime.block_on(watching).unwrap_or_else(|panic| Err(Failure(1, panic.to_string())))
}

/// The sources. A script plays in place of the demo, or beside the URIs.
fn sources(args: &Args) -> Result<Vec<Arc<dyn EventSource>>, Failure> {
    let mut script = args.script.as_deref().map(read_script).transpose()?;
    let mut sources: Vec<Arc<dyn EventSource>> = Vec::new();
    for uri in &args.uris {
        sources.push(match script.take_if(|_| uri == "fake:") {
            Some(script) => Arc::new(scripted_with(script, &args.settings)),
            None => virevent_backends::open_with(uri, args.settings.clone())
                .map_err(|e| Failure(2, e.to_line()))?,
        });
    }
    if script.is_some() || sources.is_empty() {
        let script = script.unwrap_or_else(Script::demo);
        sources.push(Arc::new(scripted_with(script, &args.settings)));
    }
    Ok(sources)
}

fn read_script(file: &Path) -> Result<Script, Failure> {
    let name = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure(2, format!("cannot read the script {name}: {error}")))?;
    Script::from_toml(&text).map_err(|error| Failure(2, format!("{name}: {error}")))
}

/// The error's message, with the source's URI in front unless the message contains it.
fn about(uri: &str, error: &Error) -> String {
    match error.to_line() {
        line if line.contains(uri) => line,
        line => format!("{uri}: {line}"),
    }
}

async fn watch(args: &Args, sources: &[Arc<dyn EventSource>]) -> Result<ExitCode, Failure> {
    let mut stop =
        Stop::new(args.duration).map_err(|e| Failure(1, format!("cannot start: {e}")))?;
    let mut streams = tokio::select! {
        streams = Streams::open(sources, &args.options) => {
            streams.map_err(|(uri, error)| Failure(1, about(&uri, &error)))?
        }
        () = stop.requested() => {
            // libvirtd 9.0 was seen to crash when a client disconnected before the reply to its
            // deregistration, so wait for the confirmation.
            join_all(sources.iter().map(|source| source.shutdown())).await;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let mut printer = match (args.quiet, args.json) {
        (true, _) => Printer::nothing(),
        (false, true) => Printer::json(),
        (false, false) => Printer::people(sources.len() > 1),
    };
    let mut output = if args.quiet { Output::none() } else { Output::start() };
    let mut stats = Stats::default();
    let mut status = ExitCode::SUCCESS;

    let mut batch = Vec::new();
    let stopped = loop {
        let more = tokio::select! {
            biased;
            () = stop.requested() => break true,
            () = output.closed() => break false,
            more = streams.read(&mut batch, |uri, error| {
                report(&about(uri, error));
                status = ExitCode::FAILURE;
            }) => more,
        };
        let before = stats.events();
        for event in batch.drain(..) {
            printer.print(&event);
            if event.is_happening() {
                stats.count();
                if args.count == Some(stats.events()) {
                    break;
                }
            }
        }
        if args.stats && stats.events() > before {
            stats.mark();
        }
        let enough = args.count.is_some_and(|count| stats.events() >= count);
        tokio::select! {
            () = output.send(printer.take()) => {}
            () = stop.requested() => break true,
        }
        if enough || !more {
            break false;
        }
    };
    stats.finish();

    if let Err(error) = finish(&mut output, streams, &mut stop, stopped).await {
        report(&format!("cannot write to standard output: {error}"));
        status = ExitCode::FAILURE;
    }
    if args.stats {
        let _ = writeln!(io::stderr(), "{stats}");
    }
    Ok(status)
}

/// Waits until the hypervisors have confirmed the end, and then until everything is written. After
/// a request to stop it waits for the output only briefly, and another request ends each wait.
async fn finish(
    output: &mut Output,
    streams: Streams,
    stop: &mut Stop,
    mut stopped: bool,
) -> io::Result<()> {
    let explain = async {
        sleep(SILENCE).await;
        if stopped {
            report("waiting for the hypervisor to confirm the end; Ctrl-C ends it at once");
        }
        pending::<()>().await;
    };
    tokio::select! {
        () = streams.close() => {}
        () = stop.requested() => stopped = true,
        () = explain => {}
    }
    if !stopped {
        tokio::select! {
            written = output.finish() => return written,
            () = stop.requested() => {}
        }
    }
    tokio::select! {
        written = output.finish() => written,
        () = stop.requested() => Ok(()),
        () = sleep(PATIENCE) => Ok(()),
    }
}

/// The requests to stop: Ctrl-C, SIGTERM, and the end of `--for`.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Stop {
    fn new(duration: Option<Duration>) -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            deadline: duration.map(|duration| Box::pin(sleep(duration))),
        })
    }

    /// Resolves at the next request to stop.
    async fn requested(&mut self) {
        let time = async {
            match &mut self.deadline {
                Some(deadline) => deadline.await,
                None => pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = time => {}
        }
        // From now on only signals count: a completed timer would be a second request at once.
        self.deadline = None;
    }
}

/// Prints text that is not an event on standard output.
fn print_text(text: &str) -> Result<ExitCode, Failure> {
    match output::write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure(1, format!("cannot write to standard output: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Prints a message, in one line on standard error.
pub(crate) fn report(line: &str) {
    let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let _ = writeln!(io::stderr(), "watch: {}", print::printable(&line));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_message_has_the_uri_once() {
        let uri = "test:///default";
        let unsupported = Error::unsupported(uri, "other:99999999".parse().unwrap());
        let line = about(uri, &unsupported);
        assert!(line.starts_with("test:///default cannot report"), "{line}");
        let line = about(uri, &Error::authentication("log in"));
        assert!(line.starts_with("test:///default: the server requires"), "{line}");
    }
}
