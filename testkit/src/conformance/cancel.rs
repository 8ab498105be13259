//! What it means to cancel.

use std::time::Duration;

use futures::StreamExt;
use tokio::time::{Instant, sleep};
use virevent::{End, Options};

use super::{Rig, Told, expect};
use crate::Failure;
use crate::assert::next_within;

/// After the last stream is dropped nothing stays registered at the hypervisor.
///
/// # Errors
/// What was expected, and what came.
pub async fn dropping_the_stream_deregisters(rig: &dyn Rig) -> Result<(), Failure> {
    let source = rig.source();
    let told = Told::by(rig, &source, Options::default()).await?;
    let registered = rig.registrations().await?;
    expect(registered > 0, "a registration while there is a stream", &[])?;
    drop(told);
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
/// What was expected, and what came.
pub async fn dropping_one_of_two_streams_leaves_the_other_alone(
    rig: &dyn Rig,
) -> Result<(), Failure> {
    let source = rig.source();
    let one = Told::by(rig, &source, Options::default()).await?;
    let mut other = Told::by(rig, &source, Options::default()).await?;
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
/// What was expected, and what came.
pub async fn close_returns_once_deregistered(rig: &dyn Rig) -> Result<(), Failure> {
    let source = rig.source();
    let told = Told::by(rig, &source, Options::default()).await?;
    let registered = rig.registrations().await?;
    expect(registered > 0, "a registration while there is a stream", &[])?;
    told.stream.close().await;
    let left = rig.registrations().await?;
    expect(left == 0, &format!("no registration after close() returned, and there are {left}"), &[])
}

/// Closing one half of a stream ends the other at once, whatever is buffered.
///
/// # Errors
/// What was expected, and what came.
pub async fn nothing_is_told_after_close(rig: &dyn Rig) -> Result<(), Failure> {
    let source = rig.source();
    let mut told = Told::by(rig, &source, Options::default()).await?;
    told.until_synced("web").await?;
    rig.start("web").await?;
    let (mut events, subscription) = told.stream.split();
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
/// What was expected, and what came.
pub async fn a_shutdown_ends_the_stream_after_what_was_told(rig: &dyn Rig) -> Result<(), Failure> {
    let source = rig.source();
    let mut told = Told::by(rig, &source, Options::default()).await?;
    source.shutdown().await;
    told.until_synced("web").await?;
    if let Ok(event) = next_within(&mut told.stream, told.patience).await {
        return Err(Failure::new(format!("expected the end, but got: {event}")));
    }
    let shut_down = matches!(told.stream.end(), Some(End::Shutdown));
    expect(shut_down, &format!("an end by shutdown, not {:?}", told.stream.end()), &[])?;
    match source.subscribe_with(Options::default()).await {
        Err(virevent::Error::Shutdown) => Ok(()),
        other => Err(Failure::new(format!("expected no stream after the end, but got: {other:?}"))),
    }
}
