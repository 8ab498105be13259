//! A hypervisor that acts by itself.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use virevent::driver::{Reconnect, Settings};
use virevent::{Capabilities, Counters, Error, EventSource, EventStream, Health, Options};

use super::{Script, ScriptError};
use crate::FakeHypervisor;

/// A source whose domains do what a script says: what is behind the URI `fake:`.
///
/// The steps at time zero are done before the first subscriber is told what exists. The rest begins
/// when the first subscription has succeeded. At the script's end the source is shut down, and the
/// streams end after what they have buffered, unless the script [goes on](Script::ends).
#[derive(Clone)]
pub struct ScriptedSource {
    fake: FakeHypervisor,
    script: Arc<Script>,
    progress: Arc<Mutex<Progress>>,
}

#[derive(Default)]
struct Progress {
    /// How many steps are done, once the first have been.
    begun: Option<usize>,
    playing: bool,
    failure: Option<ScriptError>,
}

/// A source whose domains do what the script says. It reconnects quickly, and at the same moments in
/// every run.
pub fn scripted(script: Script) -> ScriptedSource {
    scripted_with(script, &Settings::default())
}

/// The same with what all backends share.
pub fn scripted_with(script: Script, settings: &Settings) -> ScriptedSource {
    let reconnect = Reconnect::local().max(Duration::from_millis(200)).seed(1);
    let fake = FakeHypervisor::builder().reconnect(reconnect).settings(settings).build();
    ScriptedSource { fake, script: Arc::new(script), progress: Arc::default() }
}

impl ScriptedSource {
    /// The hypervisor, for more than the script says.
    pub fn fake(&self) -> &FakeHypervisor {
        &self.fake
    }

    /// The step that could not be done, if there was one. The script ends there.
    pub fn failure(&self) -> Option<ScriptError> {
        self.lock().failure.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what is there before anything is told.
    fn begin(&self) -> Result<(), Error> {
        let mut progress = self.lock();
        if progress.begun.is_none() {
            let begun = self.script.check().and_then(|()| self.script.begin(&self.fake));
            progress.begun = Some(begun.map_err(|error| Error::InvalidUri {
                uri: self.fake.uri().to_owned(),
                reason: format!("its script is wrong: {error}"),
            })?);
        }
        Ok(())
    }

    /// Starts the rest, once.
    fn play(&self) {
        let mut progress = self.lock();
        if std::mem::replace(&mut progress.playing, true) {
            return;
        }
        let (this, first) = (self.clone(), progress.begun.unwrap_or(0));
        tokio::spawn(async move {
            let outcome = this.script.run_from(first, &this.fake).await;
            this.lock().failure = outcome.err();
            if !this.script.goes_on {
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
    async fn what_happens_at_the_very_end_of_a_script_is_told() {
        let script = Script::new().after(Duration::from_secs(1)).create("web").stop("web");
        let stream = scripted(script).subscribe_with(Options::default()).await.unwrap();
        let told: Vec<_> = stream.map(|event| event.to_string()).collect().await;
        assert_eq!(told[1..], ["web[1] started (booted)", "web[1] stopped (destroyed)"]);
    }
}
