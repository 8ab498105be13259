//! Checks of cancellation and shutdown.

use std::time::Duration;

use futures::StreamExt;
use tokio::time::{Instant, sleep};
use virevent::{End, Options};

use super::{Rig, Subscriber, expect};
use crate::Failure;
use crate::assert::next_within;

/// After the last stream is dropped nothing stays registered at the hypervisor.
///
/// # Errors
/// The check fails.
pub async fn dropping_the_stream_deregisters(rig: &dyn Rig) -> Result<(), Failure> {
    let source = rig.source();
    let subscriber = Subscriber::new(rig, &source, Options::default()).await?;
    let registered = rig.registrations().await?;
    expect(registered > 0, "a registration while there is a stream", &[])?;
    drop(subscriber);
    // Dropping does not wait for the deregistration, so look for it until the deadline.
    let deadline = Instant::now() + rig.patience();
    while rig.registrations().await? > 0 {
        expect(Instant::now() < deadline, "no registration after the stream was dropped", &[])?;
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Dropping a stream ends that one only.
///
/// # Errors
/// The check fails.
pub async fn dropping_one_stream_keeps_the_other(rig: &dyn Rig) -> Result<(), Failure> {
    let source = rig.source();
    let one = Subscriber::new(rig, &source, Options::default()).await?;
    let mut other = Subscriber::new(rig, &source, Options::default()).await?;
    other.until_synced("web").await?;
    drop(one);
    rig.start("web").await?;
    let about_web =
        |event: &virevent::DomainEvent| event.domain().is_some_and(|d| d.name() == "web");
    other.until("web", "an event about web", about_web).await?;
    rig.stop("web").await
}

/// `close()` returns once the hypervisor has confirmed that nothing is registered.
///
/// # Errors
/// The check fails.
pub async fn close_returns_once_deregistered(rig: &dyn Rig) -> Result<(), Failure> {
    let source = rig.source();
    let subscriber = Subscriber::new(rig, &source, Options::default()).await?;
    let registered = rig.registrations().await?;
    expect(registered > 0, "a registration while there is a stream", &[])?;
    subscriber.stream.close().await;
    let left = rig.registrations().await?;
    expect(left == 0, &format!("no registration after close() returned, and there are {left}"), &[])
}

/// Closing the subscription of a stream ends its events at once, whatever is buffered.
///
/// # Errors
/// The check fails.
pub async fn nothing_is_delivered_after_close(rig: &dyn Rig) -> Result<(), Failure> {
    let source = rig.source();
    let mut subscriber = Subscriber::new(rig, &source, Options::default()).await?;
    subscriber.until_synced("web").await?;
    rig.start("web").await?;
    let (mut events, subscription) = subscriber.stream.split();
    subscription.close().await;
    rig.stop("web").await?;
    match events.next().await {
        None => {}
        Some(event) => {
            return Err(Failure::new(format!("expected the end after close(), but got: {event}")));
        }
    }
    let cancelled = matches!(events.end(), Some(End::Cancelled));
    expect(cancelled, &format!("an end by cancellation, not {:?}", events.end()), &[])
}

/// When the source is shut down, a stream yields what it has buffered and ends.
///
/// # Errors
/// The check fails.
pub async fn a_shutdown_ends_the_stream_after_buffered_events(
    rig: &dyn Rig,
) -> Result<(), Failure> {
    let source = rig.source();
    let mut subscriber = Subscriber::new(rig, &source, Options::default()).await?;
    source.shutdown().await;
    subscriber.until_synced("web").await?;
    if let Ok(event) = next_within(&mut subscriber.stream, subscriber.patience).await {
        return Err(Failure::new(format!("expected the end, but got: {event}")));
    }
    let shut_down = matches!(subscriber.stream.end(), Some(End::Shutdown));
    expect(shut_down, &format!("an end by shutdown, not {:?}", subscriber.stream.end()), &[])?;
    match source.subscribe_with(Options::default()).await {
        Err(virevent::Error::Shutdown) => Ok(()),
        other => Err(Failure::new(format!("expected no stream after the end, but got: {other:?}"))),
    }
}
