//! The end of the program: what requests it, and what it waits for.

use std::future::pending;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Sleep, sleep};

use crate::output::Output;
use crate::report;
use crate::streams::Streams;

/// The time that a requested end waits for a blocked output.
const PATIENCE: Duration = Duration::from_secs(2);

/// The time after which a requested end prints what it waits for.
const SILENCE: Duration = Duration::from_millis(300);

/// Waits until the hypervisors have confirmed the end, and then until everything is written. After
/// a request to stop it waits for the output only briefly, and another request ends each wait. False
/// if not everything is written.
pub(crate) async fn finish(
    output: &mut Output,
    streams: Streams,
    stop: &mut Stop,
    mut stopped: bool,
) -> io::Result<bool> {
    let explain = async {
        sleep(SILENCE).await;
        if stopped {
            report("waiting for the hypervisor to confirm the end; Ctrl-C ends it at once");
        }
        pending::<()>().await;
    };
    tokio::select! {
        () = streams.close() => {}
        () = stop.requested() => stopped = true,
        () = explain => {}
    }
    if !stopped {
        tokio::select! {
            written = output.finish() => return written,
            () = stop.requested() => {}
        }
    }
    tokio::select! {
        written = output.finish() => written,
        () = stop.requested() => Ok(false),
        () = sleep(PATIENCE) => Ok(false),
    }
}

/// The requests to stop: Ctrl-C, SIGTERM, and the end of `--for`.
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Stop {
    pub(crate) fn new(duration: Option<Duration>) -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            deadline: duration.map(|duration| Box::pin(sleep(duration))),
        })
    }

    /// Resolves at the next request to stop.
    pub(crate) async fn requested(&mut self) {
        let time = async {
            match &mut self.deadline {
                Some(deadline) => deadline.await,
                None => pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = time => {}
        }
        // From now on only signals count: a completed timer would be a second request at once.
        self.deadline = None;
    }
}
