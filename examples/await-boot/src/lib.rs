//! A program to copy: it starts a domain by a command, and waits until the domain runs or fails.

mod command;
mod demo;
mod failure;

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;
use virevent::{Domain, EventSource, EventSourceExt, State};

pub use self::command::run;
pub use self::demo::demo;
pub use self::failure::Failure;

/// Runs `start`, and returns the domain when it runs and `start` has ended. A domain that runs
/// already is returned at once, and `start` is not run.
///
/// # Errors
/// [`Failure`]: as soon as `start` fails, or a run of the domain ends; otherwise after `limit`.
///
/// # Cancel safety
/// Dropping the future drops `start` and cancels the subscription.
pub async fn boot(
    source: &dyn EventSource,
    domain: &str,
    limit: Duration,
    start: impl Future<Output = Result<(), String>>,
) -> Result<(Domain, State), Failure> {
    // Before the command, so that no event of the start is missed.
    let mut domain = source.expect(domain).await?;
    if let Ok(run) = domain.running(Duration::ZERO).await {
        return Ok(run);
    }
    let mut start = pin!(timeout(limit, start));
    let run = {
        let mut running = pin!(domain.running(limit));
        tokio::select! {
            biased;
            started = &mut start => {
                command(started, limit)?;
                return Ok(running.await?);
            }
            run = &mut running => run?,
        }
    };
    // The domain runs and so does the command. It may wait for the guest to answer, in vain if the
    // run ends.
    tokio::select! {
        biased;
        started = &mut start => command(started, limit).map(|()| run),
        ended = domain.stopped(Duration::MAX) => {
            let (domain, cause) = ended?;
            Err(Failure::Ended { domain, cause })
        }
    }
}

fn command<E>(started: Result<Result<(), String>, E>, limit: Duration) -> Result<(), Failure> {
    started.map_err(|_| Failure::Hangs(limit))?.map_err(Failure::Command)
}
