//! A source that plays a script.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use virevent::driver::{Reconnect, Settings};
use virevent::{
    Capabilities, Counters, Error, EventSource, EventStream, Health, Options, Statistics,
};

use super::{Script, ScriptError};
use crate::FakeHypervisor;

/// A source that plays a script, as that of the URI `fake:`.
///
/// The steps at time zero run before the first subscription, so their domains exist for it. The
/// others begin when the first subscription has succeeded. At the script's end the source is shut
/// down, and the streams end after their buffered events, unless [`Script::ends`] is false.
#[derive(Clone)]
pub struct ScriptedSource {
    fake: FakeHypervisor,
    script: Arc<Script>,
    progress: Arc<Mutex<Progress>>,
}

#[derive(Default)]
struct Progress {
    /// The number of steps at time zero, once they have run.
    begun: Option<usize>,
    playing: bool,
    failure: Option<ScriptError>,
}

/// Makes a source that plays a script. It reconnects quickly, and at the same times in every run.
#[must_use]
pub fn scripted(script: Script) -> ScriptedSource {
    scripted_with(script, &Settings::default())
}

/// Makes a source that plays a script, with the settings that all backends share.
#[must_use]
pub fn scripted_with(script: Script, settings: &Settings) -> ScriptedSource {
    let reconnect = Reconnect::local().max(Duration::from_millis(200)).seed(1);
    let fake = FakeHypervisor::builder().reconnect(reconnect).settings(settings).build();
    ScriptedSource { fake, script: Arc::new(script), progress: Arc::default() }
}

impl ScriptedSource {
    /// The hypervisor, for operations that are not in the script.
    #[must_use]
    pub fn fake(&self) -> &FakeHypervisor {
        &self.fake
    }

    /// The error of the step that was refused, if there was one. The script ends there.
    #[must_use]
    pub fn failure(&self) -> Option<ScriptError> {
        self.lock().failure.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the steps at time zero, once.
    fn begin(&self) -> Result<(), Error> {
        let mut progress = self.lock();
        // Once: a second subscriber finds the domains of the first one's.
        if progress.begun.is_none() {
            let begun = self.script.check().and_then(|()| self.script.begin(&self.fake));
            progress.begun = Some(begun.map_err(|error| {
                Error::invalid_uri(
                    self.fake.uri().to_owned(),
                    format!("its script has a mistake: {error}"),
                )
            })?);
        }
        Ok(())
    }

    /// Starts the other steps, once.
    fn play(&self) {
        let mut progress = self.lock();
        if std::mem::replace(&mut progress.playing, true) {
            return;
        }
        let this = self.clone();
        let first = progress.begun.unwrap_or(0);
        tokio::spawn(async move {
            let outcome = this.script.run_from(first, &this.fake).await;
            this.lock().failure = outcome.err();
            if !this.script.goes_on {
                // A shutdown drops what the driver has not read yet.
                this.fake.delivered().await;
                this.fake.shutdown().await;
            }
        });
    }
}

#[async_trait]
impl EventSource for ScriptedSource {
    async fn subscribe_with(&self, options: Options) -> Result<EventStream, Error> {
        self.begin()?;
        let stream = self.fake.subscribe_with(options).await?;
        // Only after success: a first subscriber misses none of the steps.
        self.play();
        Ok(stream)
    }

    fn uri(&self) -> &str {
        self.fake.uri()
    }

    fn capabilities(&self) -> Capabilities {
        self.fake.capabilities()
    }

    fn health(&self) -> Health {
        self.fake.health()
    }

    fn counters(&self) -> Counters {
        self.fake.counters()
    }

    fn statistics(&self) -> Statistics {
        self.fake.statistics()
    }

    async fn shutdown(&self) {
        self.fake.shutdown().await;
    }
}

impl fmt::Debug for ScriptedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedSource").field("fake", &self.fake).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn events_at_the_end_of_a_script_are_delivered() {
        let script = Script::new().after(Duration::from_secs(1)).create("web").stop("web");
        let stream = scripted(script).subscribe_with(Options::default()).await.unwrap();
        let events: Vec<_> = stream.map(|event| event.to_string()).collect().await;
        assert_eq!(events[1..], ["web[1] started (booted)", "web[1] stopped (destroyed)"]);
    }
}
