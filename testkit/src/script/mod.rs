//! A timeline as data: what happens to a fake hypervisor, and when.

mod error;
mod source;
mod step;
mod toml;

use std::time::Duration;

use tokio::time::Instant;
use virevent::{StartCause, StopCause};

pub use self::error::ScriptError;
pub use self::source::{ScriptedSource, scripted, scripted_with};
pub use self::step::Step;
use crate::FakeHypervisor;

/// The most steps that a script may have.
const STEPS_MAX: usize = 10_000;

/// How long a script may last.
const LENGTH_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What happens to a fake hypervisor, and when.
///
/// Steps happen in the order in which they are written: [`at`](Script::at) and
/// [`after`](Script::after) set the time of those that follow, which is zero before the first.
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
#[must_use = "run it, or make a source of it"]
pub struct Script {
    steps: Vec<Timed>,
    /// The time of what is written next; at the end, when the script ends.
    time: Duration,
    goes_on: bool,
    /// Whether the hypervisor is down after the last step.
    is_down: bool,
    /// The first mistake that was made in writing it.
    mistake: Option<ScriptError>,
}

#[derive(Clone, Debug, PartialEq)]
struct Timed {
    at: Duration,
    step: Step,
    /// Where it is written, in a file.
    line: Option<usize>,
}

/// Writing a script.
impl Script {
    /// An empty script.
    pub fn new() -> Self {
        Self::default()
    }

    /// From the text of a TOML file: a list of steps.
    ///
    /// ```toml
    /// ends = true         # the streams end with the script; this is the default
    ///
    /// [[step]]
    /// define = "web"      # at once: the script begins at 0
    ///
    /// [[step]]
    /// at = "1.5s"         # this long after the beginning
    /// start = "web"
    /// cause = "restored"  # may be left out: "booted"; of a stop "destroyed"
    ///
    /// [[step]]
    /// after = "200ms"     # this long after the step before; with neither: at once after it
    /// rename = "web"
    /// to = "www"
    ///
    /// [[step]]
    /// lose_connection = true
    ///
    /// [[step]]
    /// after = "1s"        # alone: lets the time pass
    /// ```
    ///
    /// A step does one of: `define`, `create` (a transient domain), `start`, `suspend`, `resume`,
    /// `pm_suspend`, `wake_up`, `shut_down`, `stop`, `crash`, `undefine`, `rename`, `reboot`, each
    /// with the name of a domain; `lose_connection`, `go_down`, `restore`, `go_silent`, each
    /// `= true`: see the methods of the same names.
    ///
    /// # Errors
    /// What is wrong, in which line and field, and what is allowed there. The steps are tried out, so
    /// that starting a running domain is such an error too.
    pub fn from_toml(text: &str) -> Result<Self, ScriptError> {
        toml::parse(text)
    }

    /// A few seconds that show most of what a stream can tell: what `watch` shows without a URI.
    pub fn demo() -> Self {
        let beat = Duration::from_millis(350);
        Self::new()
            .define("web")
            .define("mail")
            .define("db")
            .start("db")
            .after(beat)
            .start("web")
            .after(beat)
            .create("ci-runner-7")
            .after(beat)
            .suspend("db")
            .after(beat)
            .resume("db")
            .after(beat)
            .reboot("web")
            .after(beat)
            .shut_down("web")
            .after(beat)
            .crash("ci-runner-7")
            .after(beat)
            .go_down()
            .after(beat)
            .start("web")
            .stop("db")
            .after(beat)
            .restore()
            .after(2 * beat)
            .suspend("web")
            .after(beat)
            .stop("web")
            .after(beat)
    }

    /// What follows happens this long after the beginning.
    pub fn at(mut self, time: Duration) -> Self {
        if time < self.time {
            let before = self.time;
            self.fail(ScriptError::Backwards { step: self.steps.len() + 1, time, before });
        }
        self.set_time(time)
    }

    /// What follows happens so much later than what is written before.
    pub fn after(self, time: Duration) -> Self {
        let time = self.time.saturating_add(time);
        self.set_time(time)
    }

    fn set_time(mut self, time: Duration) -> Self {
        if time > LENGTH_MAX {
            self.fail(ScriptError::TooLong { limit: LENGTH_MAX });
        }
        self.time = time.min(LENGTH_MAX);
        self
    }

    /// Whether the streams of a [`ScriptedSource`] end with the script. Default: yes.
    pub fn ends(mut self, ends: bool) -> Self {
        self.goes_on = !ends;
        self
    }

    /// Any step.
    pub fn step(self, step: Step) -> Self {
        self.step_of_line(step, None)
    }

    fn step_of_line(mut self, step: Step, line: Option<usize>) -> Self {
        if self.steps.len() >= STEPS_MAX {
            self.fail(ScriptError::TooManySteps { limit: STEPS_MAX });
            return self;
        }
        match step {
            Step::GoDown => self.is_down = true,
            Step::Restore if !self.is_down => {
                self.fail(ScriptError::NotDown { step: self.steps.len() + 1 });
            }
            Step::Restore => self.is_down = false,
            _ => {}
        }
        self.steps.push(Timed { at: self.time, step, line });
        self
    }

    fn fail(&mut self, mistake: ScriptError) {
        self.mistake.get_or_insert(mistake);
    }
}

macro_rules! steps_of_a_domain {
    ($($method:ident $variant:ident $doc:literal),+ $(,)?) => {
        /// What happens to domains.
        impl Script {
            $(
                #[doc = concat!("See [`Host::", stringify!($method), "`](crate::Host::",
                    stringify!($method), ")", $doc, ".")]
                pub fn $method(self, name: &str) -> Self {
                    self.step(Step::$variant(name.into()))
                }
            )+
        }
    };
}

steps_of_a_domain! {
    define Define "",
    create Create ": a transient domain",
    suspend Suspend "",
    resume Resume "",
    pm_suspend PmSuspend "",
    wake_up WakeUp "",
    shut_down ShutDown "",
    crash Crash "",
    undefine Undefine "",
    reboot Reboot "",
}

/// What happens to domains, and to the connection.
impl Script {
    /// See [`Host::start`](crate::Host::start).
    pub fn start(self, name: &str) -> Self {
        self.start_as(name, StartCause::Booted)
    }

    /// See [`Host::start_as`](crate::Host::start_as).
    pub fn start_as(self, name: &str, cause: StartCause) -> Self {
        self.step(Step::Start(name.into(), cause))
    }

    /// See [`Host::stop`](crate::Host::stop).
    pub fn stop(self, name: &str) -> Self {
        self.stop_as(name, StopCause::Destroyed)
    }

    /// See [`Host::stop_as`](crate::Host::stop_as).
    pub fn stop_as(self, name: &str, cause: StopCause) -> Self {
        self.step(Step::Stop(name.into(), cause))
    }

    /// See [`Host::rename`](crate::Host::rename).
    pub fn rename(self, old: &str, new: &str) -> Self {
        self.step(Step::Rename(old.into(), new.into()))
    }

    /// The connection is lost, and the next attempt succeeds: see
    /// [`FakeHypervisor::lose_connection`].
    pub fn lose_connection(self) -> Self {
        self.step(Step::LoseConnection)
    }

    /// The connection is lost, and none can be made until [`restore`](Script::restore): see
    /// [`FakeHypervisor::go_down`].
    pub fn go_down(self) -> Self {
        self.step(Step::GoDown)
    }

    /// After [`go_down`](Script::go_down): connections can be made again. See
    /// [`FakeHypervisor::restore`].
    pub fn restore(self) -> Self {
        self.step(Step::Restore)
    }

    /// The connection goes half-open: see [`FakeHypervisor::go_silent`].
    pub fn go_silent(self) -> Self {
        self.step(Step::GoSilent)
    }
}

/// Running it.
impl Script {
    /// How long it lasts.
    pub fn length(&self) -> Duration {
        self.time
    }

    /// Tries the script out, on a hypervisor without domains and without waiting.
    ///
    /// # Errors
    /// The first mistake: a limit is exceeded, time runs backwards, or a step cannot be done.
    pub fn check(&self) -> Result<(), ScriptError> {
        self.check_writing()?;
        let fake = FakeHypervisor::new();
        self.steps.iter().enumerate().try_for_each(|(index, step)| step.apply(index, &fake))
    }

    /// Does the steps at their times, counted from now; returns when the script ends.
    ///
    /// # Errors
    /// The script is wrong, which is found before its first step, or one of its steps cannot be done
    /// in the state that the hypervisor is in; those after it are then not done.
    ///
    /// # Cancel safety
    /// Dropped, it stops where it is; a new run would begin at the beginning.
    pub async fn run(&self, fake: &FakeHypervisor) -> Result<(), ScriptError> {
        self.check_writing()?;
        self.run_from(0, fake).await
    }

    fn check_writing(&self) -> Result<(), ScriptError> {
        self.mistake.clone().map_or(Ok(()), Err)
    }

    /// Does the steps that come first, at time zero; returns how many they are.
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

/// Steps of the same time follow each other without giving way.
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
    async fn a_script_takes_exactly_as_long_as_it_says() {
        let (fake, start) = (FakeHypervisor::new(), Instant::now());
        let script = Script::new().create("web").at(3 * SECOND).stop("web").after(SECOND);
        script.run(&fake).await.unwrap();
        assert_eq!(start.elapsed(), 4 * SECOND);
        assert_eq!(script.length(), 4 * SECOND);
        assert!(fake.domains().is_empty());
    }

    #[test]
    fn a_mistake_is_found_before_the_first_step_and_named() {
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
    async fn a_lost_connection_is_the_same_in_a_script_and_on_the_fake() {
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
        // One that goes down stays down.
        Script::new().go_down().after(60 * SECOND).run(&in_script).await.unwrap();
        assert!(!in_script.is_connected());
    }

    #[test]
    fn the_demo_works_and_ends_within_ten_seconds() {
        Script::demo().check().unwrap();
        assert!(Script::demo().length() < 8 * SECOND);
    }
}
