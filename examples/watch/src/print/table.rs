//! Events in columns, for people.

use std::fmt::{self, Write as _};
use std::io::IsTerminal;
use std::time::SystemTime;

use virevent::{BlockJobStatus, Change, DomainEvent, NoticeBody, Origin, RawEvent};

use super::{Clock, printable};

/// The layout of `time  source  domain  event` in columns; `source` only where there are several.
#[derive(Debug)]
pub(super) struct Table {
    clock: Clock,
    /// The width of the column of sources, if there are several.
    sources: Option<usize>,
    colour: bool,
    /// The width of the column of domains: it grows with them, up to [`WIDEST`].
    width: usize,
    line: String,
}

const WIDEST: usize = 48;

impl Table {
    /// A table of the events of the sources with these URIs, on standard output.
    pub(super) fn new<'a>(uris: impl ExactSizeIterator<Item = &'a str>, clock: Clock) -> Self {
        let are_several = uris.len() > 1;
        let widest = uris.map(|uri| uri.chars().count()).max().filter(|_| are_several);
        let sources = widest.map(|width| width.min(WIDEST));
        Self { clock, sources, colour: wants_colour(), width: 16, line: String::new() }
    }

    pub(super) fn row(&mut self, event: &DomainEvent) -> &str {
        self.line.clear();
        let (at, origin) = match event {
            DomainEvent::Lifecycle(event) => (event.at, event.origin),
            DomainEvent::Reboot(event) => (event.at, event.origin),
            DomainEvent::Notice(event) => (event.at, event.origin),
            DomainEvent::Other(event) => (event.at, Origin::Observed),
            _ => (SystemTime::now(), Origin::Observed),
        };
        let domain = event.domain().map_or("-".into(), |domain| printable(&domain.to_string()));
        self.width = domain.chars().count().clamp(self.width, WIDEST);
        let (colour, reset) = if self.colour { (colour(event), "\x1b[0m") } else { ("", "") };
        let width = self.width;
        // Writing into a String cannot fail.
        let _ = write!(self.line, "{}  ", self.clock.at(at));
        if let Some(width) = self.sources {
            let _ = write!(self.line, "{:width$}  ", printable(event.source()));
        }
        let _ = write!(self.line, "{domain:width$}  {colour}");
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
        BlockJobType, Domain, Lifecycle, Notice, PmSuspendCause, Scope, ShutdownCause, StartCause,
        State, StopCause, Synced, Uuid,
    };

    use super::*;

    fn table(sources: Option<usize>, colour: bool) -> Table {
        Table { clock: Clock::Utc, sources, colour, width: 8, line: String::new() }
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
        assert_eq!(
            table(None, false).row(&started),
            "1970-01-04 01:02:03.004Z  web[3]    started (booted)"
        );
        assert_eq!(
            table(Some(6), false).row(&started),
            "1970-01-04 01:02:03.004Z  fake:   web[3]    started (booted)"
        );
        let stopped = event("web", Change::Stopped(StopCause::Unspecified), Origin::Inferred);
        assert_eq!(
            table(None, true).row(&stopped),
            "1970-01-04 01:02:03.004Z  web[3]    \x1b[31mstopped [inferred]\x1b[0m"
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
            let row = table(None, false).row(&event).to_owned();
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
            table(None, true).row(&notice(block_job)),
            "1970-01-01 00:00:00.000Z  web[3]    \x1b[31mblock-job v\\u{1b}da: copy failed\x1b[0m"
        );
        let row = table(None, false).row(&notice(NoticeBody::ControlError {})).to_owned();
        assert!(row.ends_with("web[3]    control-error"), "{row}");
    }

    #[test]
    fn columns_stay_aligned_after_a_long_name() {
        let mut table = table(None, false);
        let long = table
            .row(&event("a-long-name", Change::Started(StartCause::Booted), Origin::Observed))
            .find("started");
        let synced = Synced::new(Scope::source_wide("fake:"), 3).into();
        assert_eq!(table.row(&synced).find("synced with fake: (3 domains)"), long);
    }

    #[test]
    fn a_name_cannot_control_the_terminal() {
        let row = table(None, false)
            .row(&event("\x1b[2Jx\n", Change::Started(StartCause::Booted), Origin::Observed))
            .to_owned();
        assert!(!row.contains(['\x1b', '\n']) && row.contains("\\u{1b}[2Jx\\n"), "{row}");
    }
}
