//! Assertions on streams.
//!
//! Each returns what went wrong instead of panicking, so that `.unwrap()` fails on the line of the
//! test that expected it, and a conformance check can pass it on with `?`. On tokio's paused time
//! none of them takes any.

mod fold;

use std::fmt;
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::time::{sleep, timeout};
use virevent::{Change, Domain, DomainEvent};

pub use self::fold::{Fold, Identity, Known};

/// How long [`expect_sequence`] and [`until_synced`] wait for one event.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What was expected, and what came.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    message: String,
    unsupported: bool,
}

impl Failure {
    /// What was expected, and what came instead.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), unsupported: false }
    }

    /// Nothing failed: this cannot be done here, so what depends on it cannot be checked.
    pub fn unsupported(operation: &str) -> Self {
        Self { message: format!("cannot {operation} here"), unsupported: true }
    }

    /// Whether nothing failed, but something needed cannot be done here.
    pub fn is_unsupported(&self) -> bool {
        self.unsupported
    }
}

/// As `Display`, so that `unwrap()` prints the message as it is.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Waits until `reached` is true, and looks every few milliseconds: for what another process does, and
/// tells nobody. `what` is said if it is not so within 10 s.
///
/// # Errors
/// It is not so in time.
///
/// # Cancel safety
/// Cancel safe.
pub async fn eventually(what: &str, mut reached: impl FnMut() -> bool) -> Result<(), Failure> {
    let look = async {
        while !reached() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    let late = |_| Failure::new(format!("not within 10 s: {what}"));
    timeout(Duration::from_secs(10), look).await.map_err(late)
}

/// The next event, if it comes in time.
///
/// # Errors
/// It did not, or the stream ended.
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
        Err(_) => Err(Failure::new(format!("nothing came within {within:?}"))),
    }
}

/// That no event comes for so long. The end of the stream is none.
///
/// # Errors
/// One came.
///
/// # Cancel safety
/// Cancel safe: no event is lost.
pub async fn nothing_within<S>(stream: &mut S, within: Duration) -> Result<(), Failure>
where
    S: Stream<Item = DomainEvent> + Unpin,
{
    match timeout(within, stream.next()).await {
        Ok(Some(event)) => {
            Err(Failure::new(format!("expected nothing for {within:?}, but got: {event}")))
        }
        Ok(None) | Err(_) => Ok(()),
    }
}

/// That these events come next, in this order, with no other between them.
///
/// A string is the [`Display`](DomainEvent) form of an event, in which `*` stands for any text:
/// `"web[1] started (booted)"`, `"disconnected from fake:*"`.
///
/// # Errors
/// Another came, none within [`PATIENCE`], or the stream ended.
pub async fn expect_sequence<S, M>(stream: &mut S, expected: &[M]) -> Result<(), Failure>
where
    S: Stream<Item = DomainEvent> + Unpin,
    M: Matcher,
{
    let mut came = String::new();
    for (at, expected) in expected.iter().enumerate() {
        let expectation = || format!("expected event {}: {}", at + 1, expected.describe());
        let story = |came: &str| match came {
            "" => String::new(),
            came => format!("\n  after:{came}"),
        };
        match next_within(stream, PATIENCE).await {
            Ok(event) if expected.matches(&event) => came.push_str(&format!("\n    {event}")),
            Ok(event) => {
                let (expectation, story) = (expectation(), story(&came));
                return Err(Failure::new(format!("{expectation}\n  but got: {event}{story}")));
            }
            Err(failure) => {
                let (expectation, story) = (expectation(), story(&came));
                return Err(Failure::new(format!("{expectation}\n  but: {failure}{story}")));
            }
        }
    }
    Ok(())
}

/// What comes before the next [`Synced`](DomainEvent::Synced), which is taken too.
///
/// # Errors
/// None came within [`PATIENCE`] of the event before it, or the stream ended.
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
                    "expected synced, but {failure}; before it came: {before}"
                )));
            }
        }
    }
}

/// The [`Display`](DomainEvent) form of an event without the id of its run, which a test of real processes
/// cannot know.
pub fn in_short(event: &DomainEvent) -> String {
    let line = event.to_string();
    match event.domain().and_then(Domain::id) {
        Some(id) => line.replacen(&format!("[{id}]"), "", 1),
        None => line,
    }
}

/// What an event is expected to be.
pub trait Matcher {
    /// Whether it is.
    fn matches(&self, event: &DomainEvent) -> bool;
    /// What it should be, for a message.
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

/// A lifecycle event of whatever domain.
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
    fn a_star_stands_for_any_text() {
        assert!(glob("a*c*e", "abcde") && glob("*", "") && glob("a*", "a") && glob("a", "a"));
        assert!(!glob("a*c", "ab") && !glob("a", "ab") && !glob("a*b*b", "ab"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_sequence_says_what_was_expected_what_came_and_after_what() {
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
    async fn nothing_is_neither_an_event_nor_the_end_of_patience() {
        let second = Duration::from_secs(1);
        let mut silent = stream::pending();
        nothing_within(&mut silent, second).await.unwrap();
        next_within(&mut silent, second).await.unwrap_err();
        let mut events = stream::iter([started("web")]);
        nothing_within(&mut events, second).await.unwrap_err();
    }
}
