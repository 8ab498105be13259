//! Several subscriptions that are read together.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::future::{join_all, try_join_all};
use tokio::time::timeout;
use virevent::{DomainEvent, End, Error, EventSource, Events, Options, Status, Subscription};

/// The number of events that are taken from one stream before the next one.
const TURN: usize = 256;

/// The time after which it is reported that a source awaits its list of domains.
const SLOW_LIST: Duration = Duration::from_secs(2);

/// The time after that until any other wait is reported. Monitors that another client holds fail
/// before, after 5 s, with a message that needs none besides.
const SLOW_CONNECTION: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub(crate) struct Streams {
    open: Vec<(String, Events)>,
    subscriptions: Vec<Subscription>,
}

impl Streams {
    /// Subscribes to all sources, with the options for each one's URI. Calls `slow` once with each whose subscription takes long.
    ///
    /// # Errors
    /// The first error, with its source's URI.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing registered.
    pub(crate) async fn open(
        sources: &[Arc<dyn EventSource>],
        options: impl Fn(&str) -> Options,
        slow: impl Fn(&dyn EventSource),
    ) -> Result<Self, (String, Error)> {
        let slow = &slow;
        let subscribe = |source: &Arc<dyn EventSource>| {
            let source = Arc::clone(source);
            let options = options(source.uri());
            async move {
                let uri = source.uri().to_owned();
                let subscribing = source.subscribe_with(options);
                let subscribed = reporting(&*source, subscribing, slow).await;
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

/// Drives a subscription. Calls `slow` once if it takes long.
async fn reporting<T>(
    source: &dyn EventSource,
    mut subscribing: impl Future<Output = T> + Unpin,
    slow: &impl Fn(&dyn EventSource),
) -> T {
    if let Ok(subscribed) = timeout(SLOW_LIST, &mut subscribing).await {
        return subscribed;
    }
    if source.health().status() != Status::Syncing {
        if let Ok(subscribed) = timeout(SLOW_CONNECTION, &mut subscribing).await {
            return subscribed;
        }
    }
    slow(source);
    subscribing.await
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::Instant;
    use virevent_testkit::FakeHypervisor;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_a_slow_subscription_waits_for_is_reported_once() {
        let hanging = FakeHypervisor::new();
        hanging.hang_lists();
        let unreachable = FakeHypervisor::new();
        unreachable.hang_connects();
        let quick = FakeHypervisor::new();
        let sources: [Arc<dyn EventSource>; 3] =
            [Arc::new(hanging.clone()), Arc::new(unreachable.clone()), Arc::new(quick)];
        let began = Instant::now();
        let reports = Mutex::new(Vec::new());
        let report = |source: &dyn EventSource| {
            let report = (began.elapsed().as_secs(), source.health().status());
            reports.lock().unwrap().push(report);
        };
        let options = Options::default();
        let opening = Streams::open(&sources, |_| options.clone(), report);
        let release = async {
            tokio::time::sleep(Duration::from_secs(8)).await;
            hanging.release_lists();
            unreachable.accept();
        };
        let (opened, ()) = tokio::join!(opening, release);
        opened.unwrap();
        assert_eq!(*reports.lock().unwrap(), [(2, Status::Syncing), (6, Status::Connecting)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_refusal_is_reported_and_other_streams_go_on() {
        let lost = FakeHypervisor::new();
        let kept = FakeHypervisor::new();
        let sources: [Arc<dyn EventSource>; 2] = [Arc::new(lost.clone()), Arc::new(kept.clone())];
        let mut streams = Streams::open(&sources, |_| Options::default(), |_| {}).await.unwrap();
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
