//! The figures of `--stats`: events, time and memory.

use std::fmt;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// A counter of events, with the time from the first to the last.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    events: u64,
    first: Option<(Instant, Duration)>,
    last: Option<Instant>,
    cpu: Duration,
}

impl Stats {
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// Counts an event.
    pub(crate) fn count(&mut self) {
        self.events += 1;
        if self.events == 1 {
            self.first = Some((Instant::now(), cpu()));
        }
    }

    /// Records the time of the events so far: once a batch.
    pub(crate) fn mark(&mut self) {
        self.last = Some(Instant::now());
    }

    /// Records the CPU time at the end of watching: reading it costs a system call, so not at each
    /// event.
    pub(crate) fn finish(&mut self) {
        self.cpu = self.first.map_or(Duration::ZERO, |(_, first)| cpu().saturating_sub(first));
    }
}

/// The CPU time of the whole process.
fn cpu() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap_or_default()
}

/// Formats the figures as one JSON object.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wall = match (self.first, self.last) {
            (Some((first, _)), Some(last)) => last.saturating_duration_since(first),
            _ => Duration::ZERO,
        };
        write!(f, r#"{{"events":{},"#, self.events)?;
        write!(f, r#""wall_s":{:.6},"cpu_s":{:.6},"#, wall.as_secs_f64(), self.cpu.as_secs_f64())?;
        match peak_memory() {
            Some(kib) => write!(f, r#""max_rss_kib":{kib}}}"#),
            None => write!(f, r#""max_rss_kib":null}}"#),
        }
    }
}

/// The peak of the resident memory in KiB, or `None` without `/proc`.
///
/// Not from `getrusage`: on Linux its value begins with the memory of the parent process.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_cover_the_counted_events() {
        let mut stats = Stats::default();
        assert!(
            stats.to_string().starts_with(r#"{"events":0,"wall_s":0.000000,"cpu_s":0.000000,"#)
        );
        stats.count();
        stats.count();
        stats.mark();
        stats.finish();
        let figures: serde_json::Value = serde_json::from_str(&stats.to_string()).unwrap();
        assert_eq!(figures["events"], 2);
        assert!(figures["wall_s"].as_f64().unwrap() < 10.0);
        #[cfg(target_os = "linux")]
        assert!(figures["max_rss_kib"].as_u64().unwrap() > 100);
    }
}
