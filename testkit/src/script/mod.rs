//! Timelines of a fake hypervisor, as data.

mod error;
#[cfg(feature = "recordings")]
mod recording;
#[cfg(feature = "recordings")]
mod replay;
mod source;
mod step;
mod toml;
mod write;

use std::time::Duration;

use tokio::time::Instant;

pub use self::error::ScriptError;
#[cfg(feature = "recordings")]
pub use self::recording::{Recording, RecordingError};
#[cfg(feature = "recordings")]
pub use self::replay::ReplayedSource;
pub use self::source::{ScriptedSource, scripted, scripted_with};
pub use self::step::Step;
use crate::FakeHypervisor;

/// The greatest number of steps in a script.
const STEPS_MAX: usize = 10_000;

/// The greatest length of a script.
const LENGTH_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A timeline of operations and faults for a fake hypervisor.
///
/// The steps run in the order in which they are written. [`at`](Script::at) and
/// [`after`](Script::after) set the time of the steps behind them; it begins at zero.
///
/// ```
/// use std::time::Duration;
/// use virevent_testkit::Script;
///
/// let script = Script::new()
///     .define("web")
///     .start("web")
///     .after(Duration::from_millis(500))
///     .suspend("web")
///     .at(Duration::from_secs(2))
///     .go_down()
///     .after(Duration::from_millis(300))
///     .stop("web")
///     .restore();
/// script.check().unwrap();
/// ```
///
/// Times are exact to the millisecond on tokio's paused time.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use = "run it, or give it to scripted()"]
pub struct Script {
    steps: Vec<Timed>,
    /// The time of the next step, and in the end that of the script's end.
    time: Duration,
    /// Whether streams stay open after the script's end.
    goes_on: bool,
    /// Whether the hypervisor is down after the last step.
    is_down: bool,
    /// The first mistake in it.
    mistake: Option<ScriptError>,
}

#[derive(Clone, Debug, PartialEq)]
struct Timed {
    at: Duration,
    step: Step,
    /// Its line in the file, if there is one.
    line: Option<usize>,
}

/// Running a script.
impl Script {
    /// The time at which it ends.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.time
    }

    /// Checks the script: its steps run on a hypervisor without domains, without waiting.
    ///
    /// # Errors
    /// The first mistake: a limit is exceeded, a time precedes the one before it, or a step is
    /// refused.
    pub fn check(&self) -> Result<(), ScriptError> {
        self.check_writing()?;
        // No driver runs without a subscriber: the steps change only the host.
        let fake = FakeHypervisor::new();
        self.steps.iter().enumerate().try_for_each(|(index, step)| step.apply(index, &fake))
    }

    /// Runs the steps at their times, counted from now, and returns at the script's end.
    ///
    /// # Errors
    /// The script has a mistake, which is found before its first step, or the hypervisor refuses a
    /// step; the steps behind that are not run.
    ///
    /// # Cancel safety
    /// Dropping the future stops the script. Another run begins with the first step.
    pub async fn run(&self, fake: &FakeHypervisor) -> Result<(), ScriptError> {
        self.check_writing()?;
        self.run_from(0, fake).await
    }

    fn check_writing(&self) -> Result<(), ScriptError> {
        self.mistake.clone().map_or(Ok(()), Err)
    }

    /// Runs the steps at time zero and returns their number.
    fn begin(&self, fake: &FakeHypervisor) -> Result<usize, ScriptError> {
        self.check_writing()?;
        let first = self.steps.iter().take_while(|step| step.at.is_zero());
        let mut done = 0;
        for (index, step) in first.enumerate() {
            step.apply(index, fake)?;
            done += 1;
        }
        Ok(done)
    }

    async fn run_from(&self, first: usize, fake: &FakeHypervisor) -> Result<(), ScriptError> {
        let start = Instant::now();
        for (index, step) in self.steps.iter().enumerate().skip(first) {
            // Since the start, not since the step before: delays do not add up.
            wait_until(start + step.at).await;
            step.apply(index, fake)?;
        }
        wait_until(start + self.time).await;
        Ok(())
    }
}

impl Timed {
    fn apply(&self, index: usize, fake: &FakeHypervisor) -> Result<(), ScriptError> {
        self.step.apply(fake).map_err(|source| ScriptError::Step {
            step: index + 1,
            line: self.line,
            at: self.at,
            source,
        })
    }
}

/// Waits until this time. Without a wait it does not yield: steps of one time run together.
async fn wait_until(time: Instant) {
    if time > Instant::now() {
        tokio::time::sleep_until(time).await;
    }
}

#[cfg(test)]
mod tests {
    use virevent::{EventSource, Options};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn script_ends_exactly_at_its_length() {
        let fake = FakeHypervisor::new();
        let start = Instant::now();
        let script = Script::new().create("web").at(3 * SECOND).stop("web").after(SECOND);
        script.run(&fake).await.unwrap();
        assert_eq!(start.elapsed(), 4 * SECOND);
        assert_eq!(script.length(), 4 * SECOND);
        assert!(fake.domains().is_empty());
    }

    #[test]
    fn check_names_the_first_mistake() {
        let backwards = Script::new().at(2 * SECOND).define("web").at(SECOND).start("web");
        let message = backwards.check().unwrap_err().to_string();
        assert_eq!(message, "step 2: its time 1s is before that of the step before it, 2s");

        let endless = Script::new().after(Duration::MAX);
        assert!(endless.check().unwrap_err().to_string().contains("at most 24h"));

        let long = (0..=STEPS_MAX).fold(Script::new(), |script, _| script.define("web"));
        assert!(long.check().unwrap_err().to_string().contains("10000 steps"));

        let impossible = Script::new().define("web").after(SECOND).stop("web");
        assert_eq!(
            impossible.check().unwrap_err().to_string(),
            r#"step 2, at 1s: cannot stop "web": it is shutoff; start it first"#
        );
    }

    #[tokio::test(start_paused = true)]
    async fn lose_connection_is_the_same_in_a_script_and_on_the_fake() {
        let script = Script::new().lose_connection().after(SECOND);
        let in_script = FakeHypervisor::new();
        let by_hand = FakeHypervisor::new();
        let mut streams = Vec::new();
        for fake in [&in_script, &by_hand] {
            let mut stream = fake.subscribe_with(Options::default()).await.unwrap();
            crate::assert::until_synced(&mut stream).await.unwrap();
            streams.push(stream);
        }
        script.run(&in_script).await.unwrap();
        by_hand.lose_connection();
        tokio::time::sleep(SECOND).await;
        assert_eq!(in_script.journal(), by_hand.journal());
        assert!(in_script.is_connected() && by_hand.is_connected());
        // In contrast, go_down lasts.
        Script::new().go_down().after(60 * SECOND).run(&in_script).await.unwrap();
        assert!(!in_script.is_connected());
    }

    #[test]
    fn demo_is_valid_and_ends_within_ten_seconds() {
        Script::demo().check().unwrap();
        assert!(Script::demo().length() < 8 * SECOND);
    }
}
