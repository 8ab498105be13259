//! A service to copy: it runs a hook once for each run of a domain that crashes or fails, and not
//! for one that is shut down, destroyed or migrated away.

mod cause;
mod command;
mod memory;

use std::future::Future;
use std::time::Duration;

use futures::StreamExt;
use tokio::task::JoinSet;
use virevent::{Domain, End, Error, Merged, MergedItem};

pub use self::cause::{Cause, Crash};
pub use self::command::Hook;
pub use self::memory::Memory;

/// How long the service waits at its end for the hooks that run.
const GRACE: Duration = Duration::from_secs(10);

/// Runs `hook` until every source has ended or `shutdown` resolves; then waits 10 s for the hooks
/// that run.
///
/// What it knows is kept in the memory's file, and so is each crash whose hook has not ended: the
/// hook of one that was cut off runs at the next start.
///
/// # Errors
/// The first permanent refusal of a source. The others go on until all have ended.
pub async fn serve<H, F>(
    mut events: Merged,
    mut memory: Memory,
    hook: H,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error>
where
    H: Fn(Domain, Cause) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let mut hooks = JoinSet::new();
    let run = |crash: Crash| {
        let hook = hook(crash.domain.clone(), crash.cause);
        async {
            hook.await;
            crash
        }
    };
    for crash in memory.unhandled() {
        hooks.spawn(run(crash));
    }
    let mut refusal = None;
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            item = events.next() => match item {
                Some(MergedItem::Event(event)) => for crash in memory.apply(&event) {
                    hooks.spawn(run(crash));
                },
                Some(MergedItem::Ended { source, end, .. }) => {
                    tracing::warn!("{source}: {end}");
                    if let End::Failed(error) = end {
                        refusal.get_or_insert(error);
                    }
                }
                Some(_) => {}
                None => break,
            },
            Some(ended) = hooks.join_next() => memory.ended(ended),
            () = memory.is_due() => memory.save().await,
            () = &mut shutdown => break,
        }
    }
    events.close().await;
    let rest = async {
        while let Some(ended) = hooks.join_next().await {
            memory.ended(ended);
        }
    };
    if tokio::time::timeout(GRACE, rest).await.is_err() {
        tracing::warn!("hooks that still ran were ended");
    }
    memory.save().await;
    refusal.map_or(Ok(()), Err)
}
