//! One process, as `/proc/PID/stat` shows it (proc(5)).

use std::fs;
use std::io;
use std::time::{Duration, SystemTime};

use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, test_kill_process};
use rustix::time::{ClockId, clock_gettime};
use virevent::{Error, PausedReason, RunningReason, State};

/// A process that lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// When it began, in clock ticks since the boot: with the pid this is one process for ever.
    pub(crate) began: u64,
    /// The same by the clock of now.
    pub(crate) started: SystemTime,
    pub(crate) state: State,
}

/// The process with this pid, if it lives.
///
/// # Errors
/// It lives, and may not be looked at.
pub(crate) fn process(pid: u32) -> Result<Option<Process>, Error> {
    let file = format!("/proc/{pid}/stat");
    match fs::read(&file) {
        Ok(text) => match parse(&text) {
            Some((b'Z' | b'X', _)) => Ok(None),
            Some((state, began)) => {
                Ok(Some(Process { began, started: wall_clock(began), state: paused(state) }))
            }
            None => Err(Error::protocol(format!("{file} has another form"))),
        },
        // With `hidepid` the processes of others are not in /proc: that is no end.
        Err(error) if lives(pid) => {
            let advice = "run as root, or mount /proc without hidepid";
            Err(Error::unreachable(file, advice, error))
        }
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(Error::unreachable(file, "look at /proc", error)),
    }
}

fn paused(state: u8) -> State {
    match state {
        // Stopped by a signal, or by a debugger.
        b'T' | b't' => State::Paused(PausedReason::Unspecified),
        _ => State::Running(RunningReason::Unspecified),
    }
}

/// State and start time: the 3rd and the 22nd field. The 2nd is the program's name in parentheses,
/// which may contain spaces and parentheses.
fn parse(text: &[u8]) -> Option<(u8, u64)> {
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(&text[end + 1..]).ok()?.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let began = fields.nth(18)?.parse().ok()?;
    Some((state, began))
}

/// The time of the clock at this many ticks after the boot.
fn wall_clock(ticks: u64) -> SystemTime {
    let per_second = clock_ticks_per_second().max(1);
    let began = Duration::from_millis(ticks.saturating_mul(1000) / per_second);
    let now = clock_gettime(ClockId::Boottime);
    let since_boot = Duration::new(
        now.tv_sec.try_into().unwrap_or_default(),
        now.tv_nsec.try_into().unwrap_or_default(),
    );
    let age = since_boot.saturating_sub(began);
    SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Whether the kernel knows it, although /proc does not show it.
fn lives(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    // Not permitted: it lives, and is another user's.
    matches!(test_kill_process(pid), Ok(()) | Err(rustix::io::Errno::PERM))
}

fn is_gone(error: &io::Error) -> bool {
    // It may end between the opening of the file and the reading of it.
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_have_any_name() {
        let fields = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        for name in ["qemu", "a b", "x) Z 1 2", ")("] {
            let text = format!("7 ({name}) {fields}");
            assert_eq!(parse(text.as_bytes()), Some((b'S', 4711)), "{name}");
        }
        for text in ["", "7 (qemu", "7 (qemu) S 1 2", "7 (qemu) "] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn this_process_lives_and_pid_max_does_not() {
        assert!(process(std::process::id()).is_ok_and(|process| process.is_some()));
        assert!(process(u32::MAX).is_ok_and(|process| process.is_none()));
    }
}
