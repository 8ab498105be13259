//! A minimal service to copy: it keeps a table of the domains, and reacts to runs that begin and
//! end.
//!
//! Copy the folder, and put your own work into `react`.

use std::future::Future;
use std::sync::Arc;

use futures::StreamExt;
use virevent::{DomainStore, End, Error, EventSource, EventSourceExt, Transition};

/// Keeps `store` up to date, and calls `react`, until the source ends or `shutdown` resolves.
///
/// # Errors
/// The source is unreachable at the start, or refuses permanently later.
pub async fn serve(
    source: Arc<dyn EventSource>,
    store: DomainStore,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let mut events = source.subscribe().await?;
    let mut shutdown = std::pin::pin!(shutdown);
    let end = loop {
        tokio::select! {
            // `next()` is cancel safe: if the other branch wins, no event is lost.
            event = events.next() => match event {
                // An outage does not end the stream: its changes follow it as ordinary events.
                Some(event) => store.apply(&event).iter().for_each(react),
                None => break events.end().unwrap_or(End::Cancelled),
            },
            () = &mut shutdown => break End::Cancelled,
        }
    };
    store.finish(end.clone());
    // Waits until the hypervisor has confirmed the deregistration; dropping the stream would not.
    events.close().await;
    match end {
        End::Failed(error) => Err(error),
        _ => Ok(()),
    }
}

/// Your own work: what to do about a run that began or ended. It must not block the loop for long;
/// what takes time goes into a task or a channel of its own.
fn react(transition: &Transition) {
    if let Some((domain, cause)) = transition.stopped() {
        tracing::info!("{domain} stopped: {cause}");
    }
    if transition.began_run() {
        tracing::info!("{} started", transition.domain());
    }
}
