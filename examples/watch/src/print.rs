//! Events as text: a line for people, or a JSON object.

use std::fmt::{self, Write as _};
use std::io::IsTerminal;
use std::time::SystemTime;

use virevent::{BlockJobStatus, Change, Domain, DomainEvent, NoticeBody, Origin, RawEvent};

/// A printer that turns events into lines and keeps them until they are taken.
#[derive(Debug)]
pub(crate) struct Printer {
    format: Format,
    lines: Vec<u8>,
}

#[derive(Debug)]
enum Format {
    Nothing,
    Json,
    People(Table),
}

impl Printer {
    /// A printer of nothing.
    pub(crate) fn nothing() -> Self {
        Self { format: Format::Nothing, lines: Vec::new() }
    }

    /// A printer of one JSON object a line.
    pub(crate) fn json() -> Self {
        Self { format: Format::Json, lines: Vec::new() }
    }

    /// A printer of one aligned line an event, with the host if `hosts`.
    pub(crate) fn people(hosts: bool) -> Self {
        let table = Table { hosts, colour: wants_colour(), width: 16, line: String::new() };
        Self { format: Format::People(table), lines: Vec::new() }
    }

    pub(crate) fn print(&mut self, event: &DomainEvent) {
        match &mut self.format {
            Format::Nothing => {}
            Format::Json => {
                let start = self.lines.len();
                if let Err(error) = serde_json::to_writer(&mut self.lines, event) {
                    self.lines.truncate(start);
                    crate::report(&format!("an event has no JSON form: {error}"));
                    return;
                }
                self.lines.push(b'\n');
            }
            Format::People(table) => {
                self.lines.extend_from_slice(table.row(event).as_bytes());
                self.lines.push(b'\n');
            }
        }
    }

    /// The lines since the last call.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let size = self.lines.len();
        std::mem::replace(&mut self.lines, Vec::with_capacity(size))
    }
}

/// The layout of `time  domain  event` in columns.
#[derive(Debug)]
struct Table {
    hosts: bool,
    colour: bool,
    /// The width of the column of domains: it grows with them, up to [`WIDEST`].
    width: usize,
    line: String,
}

const WIDEST: usize = 48;

impl Table {
    fn row(&mut self, event: &DomainEvent) -> &str {
        self.line.clear();
        let (at, origin) = match event {
            DomainEvent::Lifecycle(event) => (event.at, event.origin),
            DomainEvent::Reboot(event) => (event.at, event.origin),
            DomainEvent::Notice(event) => (event.at, event.origin),
            DomainEvent::Other(event) => (event.at, Origin::Observed),
            _ => (SystemTime::now(), Origin::Observed),
        };
        let domain = event.domain().map_or("-".into(), |domain| self.domain(domain));
        self.width = domain.chars().count().clamp(self.width, WIDEST);
        let (colour, reset) = if self.colour { (colour(event), "\x1b[0m") } else { ("", "") };
        let width = self.width;
        // Writing into a String cannot fail.
        let _ = write!(self.line, "{}  {domain:width$}  {colour}", TimeOfDay(at));
        let _ = match event {
            DomainEvent::Lifecycle(event) => match event.change {
                Change::Existing(state) => write!(self.line, "existing: {}", Words(state)),
                change => write!(self.line, "{}", Words(change)),
            },
            DomainEvent::Reboot(_) => write!(self.line, "rebooted"),
            DomainEvent::Notice(event) => {
                let line = format!("{} {}", event.kind(), event.body);
                write!(self.line, "{}", printable(line.trim_end()))
            }
            DomainEvent::Other(event) => write!(self.line, "{}", printable(&without_domain(event))),
            marker => write!(self.line, "{}", printable(&marker.to_string())),
        };
        if origin != Origin::Observed {
            let _ = write!(self.line, " [{origin}]");
        }
        self.line.push_str(reset);
        &self.line
    }

    fn domain(&self, domain: &Domain) -> String {
        match self.hosts {
            true => printable(&format!("{}:{domain}", domain.host())),
            false => printable(&domain.to_string()),
        }
    }
}

fn without_domain(event: &RawEvent) -> String {
    let mut event = event.clone();
    event.domain = None;
    event.to_string()
}

/// A name of a change, cause or state, with spaces.
struct Words<T>(T);

impl<T: fmt::Display> fmt::Display for Words<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string().replace('_', " "))
    }
}

/// Escapes what could control a terminal: names come from the creators of domains, and may have
/// control characters, or those that change the direction of text or hide it.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' '..='~' => shown.push(c),
            // A combining accent is escaped unless it follows a letter.
            _ => shown.extend(['a', c].iter().collect::<String>().escape_debug().skip(1)),
        }
    }
    shown
}

fn colour(event: &DomainEvent) -> &'static str {
    const RED: &str = "\x1b[31m";
    const GREEN: &str = "\x1b[32m";
    const YELLOW: &str = "\x1b[33m";
    const MAGENTA: &str = "\x1b[35m";
    const GREY: &str = "\x1b[90m";
    match event {
        DomainEvent::Gap(_) => MAGENTA,
        DomainEvent::Lifecycle(event) => match event.change {
            Change::Started(_) | Change::Resumed(_) => GREEN,
            Change::Stopped(_) | Change::Crashed(_) => RED,
            Change::Suspended(_) | Change::ShuttingDown(_) | Change::PmSuspended(_) => YELLOW,
            Change::Existing(_) => GREY,
            _ => "",
        },
        DomainEvent::Notice(event) => match &*event.body {
            NoticeBody::ControlError {}
            | NoticeBody::IoError { .. }
            | NoticeBody::MemoryFailure { .. }
            | NoticeBody::BlockJob { status: BlockJobStatus::Failed, .. } => RED,
            NoticeBody::Watchdog { .. }
            | NoticeBody::DeviceRemovalFailed { .. }
            | NoticeBody::BlockThreshold { .. } => YELLOW,
            _ => "",
        },
        DomainEvent::Synced(_) => GREY,
        _ => "",
    }
}

/// The time of day, in UTC, to the millisecond.
struct TimeOfDay(SystemTime);

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let millis = since.subsec_millis();
        let seconds = since.as_secs();
        let [hour, minute, second] = [seconds / 3600 % 24, seconds / 60 % 60, seconds % 60];
        write!(f, "{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

/// Whether standard output is a terminal that shows colours, and `NO_COLOR` is unset
/// (<https://no-color.org>).
fn wants_colour() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use virevent::{
        BlockJobType, Lifecycle, Notice, PmSuspendCause, Scope, ShutdownCause, StartCause, State,
        StopCause, Synced, Uuid,
    };

    use super::*;

    fn table(hosts: bool, colour: bool) -> Table {
        Table { hosts, colour, width: 8, line: String::new() }
    }

    fn event(name: &str, change: Change, origin: Origin) -> DomainEvent {
        let domain = Domain::new("fake:", "h1", Uuid::from_u128(1), name, Some(3));
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(86_400_000 * 3 + 3_723_004);
        let mut event = Lifecycle::new(domain, change, at);
        event.origin = origin;
        event.into()
    }

    #[test]
    fn a_line_has_the_time_the_domain_and_the_change() {
        let started = event("web", Change::Started(StartCause::Booted), Origin::Observed);
        assert_eq!(table(false, false).row(&started), "01:02:03.004Z  web[3]    started (booted)");
        assert_eq!(table(true, false).row(&started), "01:02:03.004Z  h1:web[3]  started (booted)");
        let stopped = event("web", Change::Stopped(StopCause::Unspecified), Origin::Inferred);
        assert_eq!(
            table(false, true).row(&stopped),
            "01:02:03.004Z  web[3]    \x1b[31mstopped [inferred]\x1b[0m"
        );
    }

    #[test]
    fn names_of_several_words_are_written_with_spaces() {
        for (change, line) in [
            (Change::ShuttingDown(ShutdownCause::Guest), "shutting down (guest)"),
            (Change::PmSuspended(PmSuspendCause::Disk), "pm suspended (disk)"),
            (Change::Started(StartCause::FromSnapshot), "started (from snapshot)"),
            (Change::Existing(State::NoState), "existing: no state"),
        ] {
            let event = event("a_b", change, Origin::Observed);
            let row = table(false, false).row(&event).to_owned();
            assert!(row.ends_with(line) && row.contains("a_b[3]"), "{row}");
        }
    }

    #[test]
    fn a_notice_has_its_kind_and_its_fields() {
        let domain = Domain::new("fake:", "h1", Uuid::from_u128(1), "web", Some(3));
        let notice = |body| Notice::new(domain.clone(), body, SystemTime::UNIX_EPOCH).into();
        let block_job = NoticeBody::BlockJob {
            disk: "v\x1bda".into(),
            job: BlockJobType::Copy,
            status: BlockJobStatus::Failed,
        };
        assert_eq!(
            table(false, true).row(&notice(block_job)),
            "00:00:00.000Z  web[3]    \x1b[31mblock-job v\\u{1b}da: copy failed\x1b[0m"
        );
        let row = table(false, false).row(&notice(NoticeBody::ControlError {})).to_owned();
        assert!(row.ends_with("web[3]    control-error"), "{row}");
    }

    #[test]
    fn columns_stay_aligned_after_a_long_name() {
        let mut table = table(false, false);
        let long = table
            .row(&event("a-long-name", Change::Started(StartCause::Booted), Origin::Observed))
            .find("started");
        let synced = Synced::new(Scope::source_wide("fake:"), 3).into();
        assert_eq!(table.row(&synced).find("synced with fake: (3 domains)"), long);
    }

    #[test]
    fn a_name_cannot_control_the_terminal() {
        let row = table(false, false)
            .row(&event("\x1b[2Jx\n", Change::Started(StartCause::Booted), Origin::Observed))
            .to_owned();
        assert!(!row.contains(['\x1b', '\n']) && row.contains("\\u{1b}[2Jx\\n"), "{row}");
        // Right-to-left override, isolate, zero-width space, soft hyphen, line separator, a tag.
        for c in ['\u{202e}', '\u{2066}', '\u{200b}', '\u{ad}', '\u{2028}', '\u{e0041}', '\u{9b}'] {
            assert_eq!(printable(&format!("a{c}b")), format!("a\\u{{{:x}}}b", c as u32));
        }
        for harmless in ["\"a\" 'b' \\c", "Zürich", "cafe\u{301}", "東京", "שלום"] {
            assert_eq!(printable(harmless), harmless);
        }
    }
}
