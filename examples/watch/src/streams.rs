//! Several subscriptions that are read together.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::future::{join_all, try_join_all};
use tokio::time::timeout;
use virevent::{DomainEvent, End, Error, EventSource, Events, Options, Subscription};

/// The number of events that are taken from one stream before the next one.
const TURN: usize = 256;

/// The time after which it is reported what a subscription waits for.
const SLOW: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Streams {
    open: Vec<(String, Events)>,
    subscriptions: Vec<Subscription>,
}

impl Streams {
    /// Subscribes to all sources. Calls `slow` once with each whose subscription takes long.
    ///
    /// # Errors
    /// The first error, with its source's URI.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing registered.
    pub(crate) async fn open(
        sources: &[Arc<dyn EventSource>],
        options: &Options,
        slow: impl Fn(&dyn EventSource),
    ) -> Result<Self, (String, Error)> {
        let slow = &slow;
        let subscribe = |source: &Arc<dyn EventSource>| {
            let source = Arc::clone(source);
            let options = options.clone();
            async move {
                let uri = source.uri().to_owned();
                let mut subscribing = source.subscribe_with(options);
                let in_time = timeout(SLOW, &mut subscribing).await;
                let subscribed = match in_time {
                    Ok(subscribed) => subscribed,
                    Err(_) => {
                        slow(&*source);
                        subscribing.await
                    }
                };
                match subscribed {
                    Ok(stream) => Ok((uri, stream.split())),
                    Err(error) => Err((uri, error)),
                }
            }
        };
        let mut open = Vec::new();
        let mut subscriptions = Vec::new();
        for (uri, (events, subscription)) in try_join_all(sources.iter().map(subscribe)).await? {
            open.push((uri, events));
            subscriptions.push(subscription);
        }
        Ok(Self { open, subscriptions })
    }

    /// Waits for events, and puts those that are ready into `batch`, which is empty. Calls `failed`
    /// for a stream that ended in a failure. False if all streams have ended.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn read(
        &mut self,
        batch: &mut Vec<DomainEvent>,
        mut failed: impl FnMut(&str, &Error),
    ) -> bool {
        poll_fn(|cx| self.poll_read(cx, batch, &mut failed)).await
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Vec<DomainEvent>,
        failed: &mut impl FnMut(&str, &Error),
    ) -> Poll<bool> {
        self.open.retain_mut(|(uri, events)| {
            for _ in 0..TURN {
                match Pin::new(&mut *events).poll_next(cx) {
                    Poll::Ready(Some(event)) => batch.push(event),
                    Poll::Pending => return true,
                    Poll::Ready(None) => {
                        if let Some(End::Failed(error)) = events.end() {
                            failed(uri, &error);
                        }
                        return false;
                    }
                }
            }
            true
        });
        match (batch.is_empty(), self.open.is_empty()) {
            (false, _) => Poll::Ready(true),
            (true, true) => Poll::Ready(false),
            (true, false) => Poll::Pending,
        }
    }

    /// Cancels every subscription and waits until the hypervisors have confirmed it.
    pub(crate) async fn close(self) {
        join_all(self.subscriptions.into_iter().map(Subscription::close)).await;
    }
}

#[cfg(test)]
mod tests {
    use virevent_testkit::FakeHypervisor;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_subscription_is_reported_once() {
        let slow = FakeHypervisor::new();
        slow.hang_lists();
        let quick = FakeHypervisor::new();
        let sources: [Arc<dyn EventSource>; 2] = [Arc::new(slow.clone()), Arc::new(quick)];
        let reports = std::sync::Mutex::new(Vec::new());
        let report = |source: &dyn EventSource| {
            reports.lock().unwrap().push(source.health().status());
        };
        let options = Options::default();
        let opening = Streams::open(&sources, &options, report);
        let release = async {
            tokio::time::sleep(Duration::from_secs(7)).await;
            slow.release_lists();
        };
        let (opened, ()) = tokio::join!(opening, release);
        opened.unwrap();
        assert_eq!(*reports.lock().unwrap(), [virevent::Status::Syncing]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_refusal_is_reported_and_other_streams_go_on() {
        let lost = FakeHypervisor::new();
        let kept = FakeHypervisor::new();
        let sources: [Arc<dyn EventSource>; 2] = [Arc::new(lost.clone()), Arc::new(kept.clone())];
        let mut streams = Streams::open(&sources, &Options::default(), |_| {}).await.unwrap();
        lost.refuse(Error::authentication("log in"));
        lost.lose_connection();

        let mut batch = Vec::new();
        let mut failures = Vec::new();
        let mut failed = |uri: &str, error: &Error| failures.push(format!("{uri} {error}"));
        while timeout(Duration::from_secs(70), streams.read(&mut batch, &mut failed)).await.is_ok()
        {
            batch.clear();
        }
        assert_eq!(failures, ["fake: the server requires authentication: log in"]);

        kept.create("web").unwrap();
        assert!(streams.read(&mut batch, |_, _| {}).await);
        assert_eq!(batch[0].domain().unwrap().name(), "web");
        streams.close().await;
    }
}
