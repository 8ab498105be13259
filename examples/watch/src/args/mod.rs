//! The command line.

mod changes;
mod help;

use std::ffi::OsString;
use std::num::{IntErrorKind, ParseIntError};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use lexopt::prelude::*;
use virevent::{Change, DomainEvent, Kind, Kinds, Options, Selector};
use virevent_backends::Settings;

use self::changes::Changes;
pub(crate) use self::help::HELP;

/// The command line's request.
#[derive(Debug)]
pub(crate) enum Command {
    Watch(Box<Args>),
    Help,
    Version,
}

#[derive(Debug, Default)]
pub(crate) struct Args {
    pub(crate) uris: Vec<String>,
    pub(crate) options: Options,
    pub(crate) settings: Settings,
    pub(crate) script: Option<ScriptFile>,
    changes: Option<Changes>,
    /// The domains that are printed, where the sources deliver all.
    printed: Vec<Selector>,
    /// Reboots are read, and not printed.
    drops_reboots: bool,
    /// Existing domains are read, and not printed.
    drops_existing: bool,
    pub(crate) resume: Option<PathBuf>,
    pub(crate) record: Option<PathBuf>,
    pub(crate) count: Option<u64>,
    pub(crate) duration: Option<Duration>,
    pub(crate) utc: bool,
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    pub(crate) stats: bool,
}

/// Where a script is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ScriptFile {
    StandardInput,
    Path(PathBuf),
}

impl Args {
    /// Whether an event is printed and counted. The sources' own filter is applied before.
    pub(crate) fn wants(&self, event: &DomainEvent) -> bool {
        let is_wanted = match (&self.changes, event.change()) {
            (Some(changes), Some(change)) => changes.contain(change),
            _ => true,
        };
        let is_printed = |domain| self.printed.iter().any(|selector| selector.matches(domain));
        let is_existing = matches!(event.change(), Some(Change::Existing(_)));
        let is_dropped = (self.drops_reboots && matches!(event, DomainEvent::Reboot(_)))
            || (self.drops_existing && is_existing);
        is_wanted
            && !is_dropped
            && (self.printed.is_empty()
                || event.is_marker()
                || event.domain().is_some_and(is_printed))
    }
}

/// Parses the command line, without the program's name.
///
/// # Errors
/// The mistake, in one line.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    read(lexopt::Parser::from_args(args))
        .map_err(|error| format!("{error}; see virevent-watch --help"))
}

fn read(mut parser: lexopt::Parser) -> Result<Command, lexopt::Error> {
    let mut args = Args::default();
    while let Some(arg) = parser.next()? {
        match arg {
            Value(uri) => args.uris.push(utf8("the URI", uri)?),
            Long("only") => {
                for kind in utf8("--only", parser.value()?)?.split(',') {
                    args.options = match kind.trim() {
                        "all" => args.options.kinds(Kinds::all()),
                        name => {
                            let kind = name.parse::<Kind>().map_err(|error| error.to_string())?;
                            args.options.kind(kind)
                        }
                    };
                }
            }
            Long("change") => {
                let names = utf8("--change", parser.value()?)?;
                args.changes.get_or_insert_default().add(&names)?;
            }
            Long("domain") => match utf8("--domain", parser.value()?)? {
                name if name.is_empty() => return Err("--domain: give a name or a uuid".into()),
                name => args.options = args.options.domain(name),
            },
            Long("no-existing") => args.options = args.options.existing(false),
            Long("wait") => args.options = args.options.wait(true),
            Long("capacity") => {
                let capacity = number("--capacity", parser.value()?)?;
                args.options = args.options.capacity(capacity);
            }
            Long("verify") => {
                let interval = seconds("--verify", parser.value()?)?;
                args.settings = args.settings.verify(Some(interval));
            }
            Long("script") => {
                args.script = Some(match parser.value()? {
                    dash if dash == "-" => ScriptFile::StandardInput,
                    path => ScriptFile::Path(path.into()),
                });
            }
            Long("resume") => args.resume = Some(parser.value()?.into()),
            Long("record") => args.record = Some(parser.value()?.into()),
            Long("count") => args.count = Some(number("--count", parser.value()?)?),
            Long("for") => args.duration = Some(seconds("--for", parser.value()?)?),
            Long("utc") => args.utc = true,
            Long("json") => args.json = true,
            Long("quiet") => args.quiet = true,
            Long("stats") => args.stats = true,
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            _ => return Err(arg.unexpected()),
        }
    }
    if args.changes.is_some() {
        match &args.options.filter.kinds {
            None => args.options = args.options.kind(Kind::Lifecycle),
            Some(kinds) if kinds.contains(&Kind::Lifecycle) => {}
            Some(_) => return Err("--change: add lifecycle to --only".into()),
        }
    }
    if args.resume.is_some() {
        if let Some(kinds) = args.options.filter.kinds.clone() {
            if !kinds.contains(&Kind::Lifecycle) {
                return Err("--resume: add lifecycle to --only".into());
            }
            // A reboot may give a run another id, which the file keeps.
            args.drops_reboots = !kinds.contains(&Kind::Reboot);
            args.options = args.options.kinds(Kinds::common());
        }
        // The file keeps all domains, whatever a run prints: to the next run, one that is not in it
        // is new.
        args.printed = std::mem::take(&mut args.options.filter.domains);
        args.drops_existing = !args.options.existing;
        args.options.existing = true;
    }
    Ok(Command::Watch(Box::new(args)))
}

fn utf8(option: &str, value: OsString) -> Result<String, String> {
    value.into_string().map_err(|value| format!("{option} {value:?}: write it in UTF-8"))
}

/// Parses a whole number that is not 0.
fn number<T>(option: &str, value: OsString) -> Result<T, String>
where
    T: FromStr<Err = ParseIntError> + Default + PartialEq,
{
    let text = utf8(option, value)?;
    match text.parse() {
        Ok(number) if number != T::default() => Ok(number),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => {
            Err(format!("{option} {text}: give at most {}", u64::MAX))
        }
        _ => Err(format!("{option} {text}: give a whole number, 1 or more")),
    }
}

fn seconds(option: &str, value: OsString) -> Result<Duration, String> {
    let text = utf8(option, value)?;
    let seconds = text.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    seconds.ok_or_else(|| format!("{option} {text}: give a number of seconds, 0 or more"))
}

#[cfg(test)]
mod tests;
