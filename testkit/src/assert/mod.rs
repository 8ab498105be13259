//! Assertions on streams.
//!
//! Each returns a [`Failure`] and does not panic, so that `.unwrap()` fails on the test's own line
//! and a conformance check can return it with `?`. On tokio's paused time none of them takes any.

mod table;

use std::fmt;
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::time::{sleep, timeout};
use virevent::{Change, Domain, DomainEvent};

pub use self::table::check_store;

/// The timeout of [`expect_sequence`] and [`until_synced`] for one event.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The failure of an assertion: the expectation, and what came instead.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    message: String,
    unsupported: bool,
}

impl Failure {
    /// A failure with this message.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), unsupported: false }
    }

    /// The answer of a rig that does not support an operation: the check is skipped.
    #[must_use]
    pub fn unsupported(operation: &str) -> Self {
        Self { message: format!("cannot {operation} here"), unsupported: true }
    }

    /// Whether the check was skipped because an operation is not supported.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        self.unsupported
    }
}

/// The same as `Display`, so that `unwrap()` prints the message unescaped.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Waits until `reached` returns true, and asks every 2 ms: for what another process does without
/// an event.
///
/// # Errors
/// It is not true within 10 s: with `what` in the message.
///
/// # Cancel safety
/// Cancel safe.
pub async fn eventually(what: &str, mut reached: impl FnMut() -> bool) -> Result<(), Failure> {
    let look = async {
        while !reached() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    let late = |_| Failure::new(format!("not true within 10 s: {what}"));
    timeout(Duration::from_secs(10), look).await.map_err(late)
}

/// Returns the next event.
///
/// # Errors
/// No event comes in time, or the stream ends.
///
/// # Cancel safety
/// Cancel safe: no event is lost.
pub async fn next_within<S>(stream: &mut S, within: Duration) -> Result<DomainEvent, Failure>
where
    S: Stream<Item = DomainEvent> + Unpin,
{
    match timeout(within, stream.next()).await {
        Ok(Some(event)) => Ok(event),
        Ok(None) => Err(Failure::new("the stream ended")),
        Err(_) => Err(Failure::new(format!("no event came within {within:?}"))),
    }
}

/// Checks that no event comes within this time. The end of the stream is no event.
///
/// # Errors
/// An event comes.
///
/// # Cancel safety
/// Cancel safe: no event is lost.
pub async fn nothing_within<S>(stream: &mut S, within: Duration) -> Result<(), Failure>
where
    S: Stream<Item = DomainEvent> + Unpin,
{
    // A stream that has ended delivers nothing more, so its end is silence too.
    match timeout(within, stream.next()).await {
        Ok(Some(event)) => {
            Err(Failure::new(format!("expected no event for {within:?}, but got: {event}")))
        }
        Ok(None) | Err(_) => Ok(()),
    }
}

/// Checks that these events come next, in this order, with no other between them.
///
/// A string is the [`Display`](DomainEvent) form of an event, in which `*` stands for any text:
/// `"web[1] started (booted)"`, `"disconnected from fake:*"`.
///
/// # Errors
/// Another event comes, none within [`PATIENCE`], or the stream ends.
pub async fn expect_sequence<S, M>(stream: &mut S, expected: &[M]) -> Result<(), Failure>
where
    S: Stream<Item = DomainEvent> + Unpin,
    M: Matcher,
{
    let mut came = String::new();
    for (at, expected) in expected.iter().enumerate() {
        let expectation = || format!("expected event {}: {}", at + 1, expected.describe());
        let before = |came: &str| match came {
            "" => String::new(),
            came => format!("\n  after:{came}"),
        };
        match next_within(stream, PATIENCE).await {
            Ok(event) if expected.matches(&event) => came.push_str(&format!("\n    {event}")),
            Ok(event) => {
                let message = format!("{}\n  but got: {event}{}", expectation(), before(&came));
                return Err(Failure::new(message));
            }
            Err(failure) => {
                let message = format!("{}\n  but: {failure}{}", expectation(), before(&came));
                return Err(Failure::new(message));
            }
        }
    }
    Ok(())
}

/// Reads up to the next [`Synced`](DomainEvent::Synced) and returns the events before it.
///
/// # Errors
/// An event takes longer than [`PATIENCE`], or the stream ends.
pub async fn until_synced<S>(stream: &mut S) -> Result<Vec<DomainEvent>, Failure>
where
    S: Stream<Item = DomainEvent> + Unpin,
{
    let mut before = Vec::new();
    loop {
        match next_within(stream, PATIENCE).await {
            Ok(DomainEvent::Synced(_)) => return Ok(before),
            Ok(event) => before.push(event),
            Err(failure) => {
                let before: Vec<_> = before.iter().map(ToString::to_string).collect();
                let before = before.join("; ");
                return Err(Failure::new(format!(
                    "expected synced, but {failure}; events before: {before}"
                )));
            }
        }
    }
}

/// The [`Display`](DomainEvent) form of an event without the id of its run, which a test of real
/// processes cannot know.
pub fn in_short(event: &DomainEvent) -> String {
    let line = event.to_string();
    match event.domain().and_then(Domain::id) {
        Some(id) => line.replacen(&format!("[{id}]"), "", 1),
        None => line,
    }
}

/// An expectation of one event.
pub trait Matcher {
    /// Whether the event is as expected.
    fn matches(&self, event: &DomainEvent) -> bool;
    /// The expectation as text, for a message.
    fn describe(&self) -> String;
}

/// The event's `Display` form, in which `*` stands for any text.
impl Matcher for &str {
    fn matches(&self, event: &DomainEvent) -> bool {
        glob(self, &event.to_string())
    }

    fn describe(&self) -> String {
        (*self).to_owned()
    }
}

impl Matcher for String {
    fn matches(&self, event: &DomainEvent) -> bool {
        glob(self, &event.to_string())
    }

    fn describe(&self) -> String {
        self.clone()
    }
}

/// A lifecycle event of any domain.
impl Matcher for Change {
    fn matches(&self, event: &DomainEvent) -> bool {
        event.change() == Some(*self)
    }

    fn describe(&self) -> String {
        self.to_string()
    }
}

fn glob(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    // The last part must end the text; each of the others takes its first occurrence, which leaves
    // the most text for those behind it.
    let mut parts: Vec<_> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(end)
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use virevent::{Lifecycle, StartCause, Uuid};

    use super::*;

    fn started(name: &str) -> DomainEvent {
        let domain = Domain::new("s:", "h", Uuid::from_u128(1), name, Some(1));
        let change = Change::Started(StartCause::Booted);
        Lifecycle::new(domain, change, std::time::SystemTime::UNIX_EPOCH).into()
    }

    #[test]
    fn star_stands_for_any_text() {
        assert!(glob("a*c*e", "abcde") && glob("*", "") && glob("a*", "a") && glob("a", "a"));
        assert!(!glob("a*c", "ab") && !glob("a", "ab") && !glob("a*b*b", "ab"));
    }

    #[tokio::test(start_paused = true)]
    async fn failed_sequence_names_the_expected_and_actual_events() {
        let mut events = stream::iter([started("web"), started("db")]);
        let expected = ["web[1] started (booted)", "web[1] stopped *"];
        let failure = expect_sequence(&mut events, &expected).await.unwrap_err().to_string();
        assert_eq!(
            failure,
            "expected event 2: web[1] stopped *\n  but got: db[1] started (booted)\n  \
             after:\n    web[1] started (booted)"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_within_fails_only_on_an_event() {
        let second = Duration::from_secs(1);
        let mut silent = stream::pending();
        nothing_within(&mut silent, second).await.unwrap();
        next_within(&mut silent, second).await.unwrap_err();
        let mut events = stream::iter([started("web")]);
        nothing_within(&mut events, second).await.unwrap_err();
    }
}
