//! Deadlines.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// As good as never, and still a time that a clock can be set to: thirty years.
pub const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// The time this long from now; thirty years from now if the clock has no time for it.
#[must_use]
pub fn deadline_after(duration: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(duration).unwrap_or_else(|| now + NEVER)
}

/// One timer for deadlines that move all the time, nearly always to later.
///
/// To set a timer of tokio costs more than to let it fire early once in a while, so this one is set
/// only to an earlier time than it has. When it fires too early it is set to the deadline that
/// holds by then.
#[derive(Debug)]
pub struct LazyTimer {
    sleep: Pin<Box<Sleep>>,
}

impl LazyTimer {
    /// A timer without a deadline.
    ///
    /// # Panics
    /// Outside of a tokio runtime with timers, as all timers of tokio.
    #[must_use]
    pub fn new() -> Self {
        // In the past, so that the first deadline is set whenever it is.
        Self { sleep: Box::pin(sleep_until(Instant::now())) }
    }

    /// Ready once it is `deadline`, or later.
    pub fn poll_until(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        // A deadline that has passed does not touch the timer.
        while Instant::now() < deadline {
            if deadline < self.sleep.deadline() || self.sleep.is_elapsed() {
                self.sleep.as_mut().reset(deadline);
            }
            // It may have been set to an earlier deadline, which does not hold any more: look
            // again.
            ready!(self.sleep.as_mut().poll(cx));
        }
        Poll::Ready(())
    }
}

impl Default for LazyTimer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_timer_fires_at_its_deadline_and_not_before() {
        let mut timer = LazyTimer::new();
        let begun = Instant::now();
        for seconds in [3, 5, 5, 4, 60] {
            let deadline = begun + seconds * SECOND;
            poll_fn(|cx| timer.poll_until(cx, deadline)).await;
            assert!(Instant::now() >= deadline);
            assert!(Instant::now() < begun + (seconds.max(5) + 1) * SECOND);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moved_holds_and_the_former_does_not() {
        for (former, deadline) in [(2, 10), (10, 2)] {
            let mut timer = LazyTimer::new();
            let begun = Instant::now();
            let polled = poll_fn(|cx| Poll::Ready(timer.poll_until(cx, begun + former * SECOND)));
            assert!(polled.await.is_pending());
            poll_fn(|cx| timer.poll_until(cx, begun + deadline * SECOND)).await;
            let late = begun.elapsed() - deadline * SECOND;
            assert!(late < Duration::from_millis(5), "{late:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_beyond_the_clock_is_in_thirty_years() {
        let begun = Instant::now();
        assert_eq!(deadline_after(Duration::MAX), begun + NEVER);
        assert_eq!(deadline_after(SECOND), begun + SECOND);
    }
}
