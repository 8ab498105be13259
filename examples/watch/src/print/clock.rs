//! Times for people: local ones, or UTC.

use std::fmt::Display;
use std::time::SystemTime;

use chrono::{DateTime, Local, TimeZone, Utc};

/// The time zone of the printed times.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Clock {
    Utc,
    /// The system's (`TZ`, `/etc/localtime`); UTC where it has none.
    Local,
}

impl Clock {
    /// Date and time to the millisecond, and the offset from UTC, since a local time alone is
    /// ambiguous for an hour a year.
    pub(super) fn at(self, time: SystemTime) -> String {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(since.as_secs()).unwrap_or_default();
        // A hypervisor's own stamp may be beyond the calendar.
        let time = DateTime::from_timestamp(seconds, since.subsec_nanos()).unwrap_or_default();
        match self {
            Self::Utc => text(&time, "Z"),
            Self::Local => local(&time, &Local),
        }
    }
}

fn local<Z: TimeZone<Offset: Display>>(time: &DateTime<Utc>, zone: &Z) -> String {
    text(&time.with_timezone(zone), "%:z")
}

fn text<Z: TimeZone<Offset: Display>>(time: &DateTime<Z>, offset: &str) -> String {
    time.format(&format!("%Y-%m-%d %H:%M:%S%.3f{offset}")).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::FixedOffset;

    use super::*;

    #[test]
    fn a_local_time_has_its_offset_and_its_own_date() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(86_400_000 - 3_600_000 + 4);
        assert_eq!(Clock::Utc.at(time), "1970-01-01 23:00:00.004Z");
        let east = FixedOffset::east_opt(7200).unwrap();
        assert_eq!(local(&time.into(), &east), "1970-01-02 01:00:00.004+02:00");
    }

    #[test]
    fn a_time_beyond_the_calendar_is_no_panic() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 62);
        assert_eq!(Clock::Local.at(time).len(), "1970-01-01 00:00:00.000+00:00".len());
    }
}
