//! Prints the events of virtual machines: `virevent-watch [OPTIONS] [URI]...`, see its `--help`.
//!
//! ```text
//!  hypervisors ──▶ driver tasks ──▶ mailboxes ──▶ this loop ──▶ a thread ──▶ stdout
//!                                   (bounded)     (prints)      (output)
//! ```

mod args;
mod end;
mod log;
mod output;
mod print;
mod record;
mod resume;
mod sources;
mod stats;
mod streams;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use futures::future::join_all;
use virevent::{DomainEvent, Error, EventSource, Status};

use self::args::{Args, Command};
use self::end::{Stop, finish};
use self::output::Output;
use self::print::{Clock, Printer};
use self::record::Record;
use self::resume::Resume;
use self::sources::sources;
use self::stats::Stats;
use self::streams::Streams;

/// A failure of the program: its exit status and its message, one line.
struct Failure(u8, String);

fn main() -> ExitCode {
    let outcome = match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => print_text(args::HELP),
        Ok(Command::Version) => {
            print_text(concat!("virevent-watch ", env!("CARGO_PKG_VERSION"), "\n"))
        }
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

/// The error's message, with the source's URI in front unless the message contains it.
fn about(uri: &str, error: &Error) -> String {
    match error.to_line() {
        line if line.contains(uri) => line,
        line => format!("{uri}: {line}"),
    }
}

/// What a source that has not been synced for long is waiting for.
fn awaited(source: &dyn EventSource) -> String {
    let uri = source.uri();
    match source.health().status() {
        Status::Idle | Status::Connecting => format!("{uri}: waiting for the connection"),
        Status::Syncing => format!(
            "{uri}: connected; waiting for the list of domains, which a domain that hangs can delay"
        ),
        status => format!("{uri}: {status}"),
    }
}

async fn watch(args: &Args, sources: &[Arc<dyn EventSource>]) -> Result<ExitCode, Failure> {
    let mut stop =
        Stop::new(args.duration).map_err(|e| Failure(1, format!("cannot start: {e}")))?;
    let resume = args.resume.as_ref().map(|file| Resume::open(file, sources)).transpose()?;
    let mut record = args.record.as_deref().map(Record::create).transpose()?;
    let options = |uri: &str| match &resume {
        Some(resume) => resume.options(uri, &args.options),
        None => args.options.clone(),
    };
    let mut streams = tokio::select! {
        streams = Streams::open(sources, options, |source| report(&awaited(source))) => {
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
        (false, false) if args.utc => Printer::people(sources, Clock::Utc),
        (false, false) => Printer::people(sources, Clock::Local),
    };
    let mut output = if args.quiet { Output::none() } else { Output::start() };
    let mut stats = Stats::default();
    let mut status = ExitCode::SUCCESS;

    let mut batch = Vec::new();
    // Also without an event: the file of a run that is killed is a recording from the start on.
    keep(&mut record, &batch, &mut status);
    // Whether what was read is printed, too.
    let mut is_printed = true;
    let stopped = loop {
        let more = tokio::select! {
            biased;
            () = stop.requested() => break true,
            () = output.closed() => {
                is_printed = false;
                break false;
            }
            more = streams.read(&mut batch, |uri, error| {
                report(&about(uri, error));
                status = ExitCode::FAILURE;
            }) => more,
        };
        keep(&mut record, &batch, &mut status);
        let before = stats.events();
        for event in batch.drain(..) {
            if let Some(resume) = &resume {
                resume.apply(&event);
            }
            if !args.wants(&event) {
                continue;
            }
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
            () = stop.requested() => {
                is_printed = false;
                break true;
            }
        }
        if enough || !more {
            break false;
        }
    };
    stats.finish();

    let written = match finish(&mut output, streams, &mut stop, stopped).await {
        Ok(is_written) => match resume.filter(|_| is_printed && is_written) {
            Some(resume) => resume.save(),
            None => Ok(()),
        },
        Err(error) => Err(format!("cannot write to standard output: {error}")),
    };
    if let Err(line) = written {
        report(&line);
        status = ExitCode::FAILURE;
    }
    if args.stats {
        let _ = writeln!(io::stderr(), "{stats}");
    }
    Ok(status)
}

/// Writes events to the recording. If that fails, the recording ends and the run goes on.
fn keep(record: &mut Option<Record>, events: &[DomainEvent], status: &mut ExitCode) {
    if let Some(Err(line)) = record.as_mut().map(|record| record.write(events)) {
        report(&line);
        *record = None;
        *status = ExitCode::FAILURE;
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
    let _ = writeln!(io::stderr(), "virevent-watch: {}", print::printable(&line));
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
