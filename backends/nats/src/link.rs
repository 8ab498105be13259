//! Whether the client is connected, as its callback reports it.

use std::future::Future;
use std::time::Duration;

use async_nats::{ConnectOptions, Event};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// The timeout of one attempt. An answer takes milliseconds.
const ATTEMPT: Duration = Duration::from_secs(5);

/// The first pause after an attempt that failed; doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// What is known of the connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LinkState {
    pub(crate) is_connected: bool,
    /// How many times the connection was lost.
    pub(crate) losses: u64,
}

/// Follows the connection of one client.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    state: watch::Receiver<LinkState>,
    pause: Duration,
}

impl Link {
    /// Options of a client whose connection the link follows.
    pub(crate) fn options() -> (ConnectOptions, Self) {
        let (publisher, state) = watch::channel(LinkState::default());
        let options = ConnectOptions::new().event_callback(move |event| {
            let publisher = publisher.clone();
            async move {
                publisher.send_if_modified(|state| state.apply(&event));
            }
        });
        (options, Self { state, pause: FIRST_PAUSE })
    }

    pub(crate) fn state(&self) -> LinkState {
        *self.state.borrow()
    }

    /// Waits for another state. Cancel safe.
    pub(crate) async fn changed(&mut self) -> LinkState {
        if self.state.changed().await.is_err() {
            // The client has ended, and with it everything that is called through it: those calls
            // report it.
            std::future::pending::<()>().await;
        }
        *self.state.borrow_and_update()
    }

    /// Attempts a call. It fails at once while there is no connection, and when the connection is
    /// lost: the answer will not come, and a call that is queued in the client would be sent after
    /// the reconnect, behind the caller's back.
    pub(crate) async fn attempt<T, E: std::fmt::Display>(
        &mut self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, String> {
        let losses = self.state().losses;
        let mut state = self.state.clone();
        let lost = state.wait_for(|state| !state.is_connected || state.losses != losses);
        tokio::select! {
            biased;
            _ = lost => Err("the connection is lost".into()),
            answer = timeout(ATTEMPT, call) => match answer {
                Ok(Ok(value)) => {
                    self.pause = FIRST_PAUSE;
                    Ok(value)
                }
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no answer within {ATTEMPT:?}")),
            },
        }
    }

    /// Pauses after an attempt that failed, until the connection is there again.
    pub(crate) async fn pause(&mut self, what: &str, error: &str) {
        tracing::debug!(what, error, "an attempt failed, and is made again");
        let until = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
        let is_new = !self.state().is_connected;
        // An error means that the client has ended: the next attempt reports it.
        let _ = self.state.wait_for(|state| state.is_connected).await;
        if is_new {
            self.pause = FIRST_PAUSE;
        } else {
            sleep_until(until).await;
        }
    }
}

impl LinkState {
    fn apply(&mut self, event: &Event) -> bool {
        match event {
            Event::Connected => self.is_connected = true,
            Event::Disconnected | Event::Closed => {
                self.is_connected = false;
                self.losses += 1;
            }
            _ => return false,
        }
        true
    }
}
