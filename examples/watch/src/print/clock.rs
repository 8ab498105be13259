//! Times for people: local ones, or UTC.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The time zone of the printed times.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    zone: TimeZone,
    /// `Z` stands for the offset.
    is_utc: bool,
}

impl Clock {
    pub(crate) fn utc() -> Self {
        Self { zone: TimeZone::UTC, is_utc: true }
    }

    /// The system's time zone (`TZ`, `/etc/localtime`); UTC where it has none.
    pub(crate) fn local() -> Self {
        match TimeZone::try_system() {
            Ok(zone) => Self { zone, is_utc: false },
            Err(_) => Self::utc(),
        }
    }

    /// Date and time to the millisecond, and the offset from UTC, since a local time alone is
    /// ambiguous for an hour a year.
    pub(super) fn at(&self, time: SystemTime) -> String {
        let time =
            Timestamp::try_from(time).unwrap_or_default().to_zoned_datetime(self.zone.clone());
        let offset = if self.is_utc { "Z" } else { "%:z" };
        time.strftime(&format!("%Y-%m-%d %H:%M:%S%.3f{offset}")).to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::tz::offset;

    use super::*;

    #[test]
    fn a_local_time_has_its_offset_and_its_own_date() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(86_400_000 - 3_600_000 + 4);
        let east = Clock { zone: TimeZone::fixed(offset(2)), is_utc: false };
        assert_eq!(east.at(time), "1970-01-02 01:00:00.004+02:00");
        assert_eq!(Clock::utc().at(time), "1970-01-01 23:00:00.004Z");
    }
}
