//! Writing a script, step by step.

use std::time::Duration;

use virevent::{StartCause, StopCause};

use super::{LENGTH_MAX, STEPS_MAX, Script, ScriptError, Step, Timed, toml};

/// Writing a script.
impl Script {
    /// An empty script.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a script from the text of a TOML file: a list of steps.
    ///
    /// ```toml
    /// ends = true         # the streams end with the script; this is the default
    ///
    /// [[step]]
    /// define = "web"      # at once: the script begins at 0
    ///
    /// [[step]]
    /// at = "1.5s"         # since the beginning
    /// start = "web"
    /// cause = "restored"  # optional: the default is "booted", and for a stop "destroyed"
    ///
    /// [[step]]
    /// after = "200ms"     # since the step before it; without at and after: at the same time
    /// rename = "web"
    /// to = "www"
    ///
    /// [[step]]
    /// lose_connection = true
    ///
    /// [[step]]
    /// after = "1s"        # alone: only lets the time pass
    /// ```
    ///
    /// A step has one of `define`, `create` (a transient domain), `start`, `suspend`, `resume`,
    /// `pm_suspend`, `wake_up`, `shut_down`, `stop`, `crash`, `undefine`, `rename`, `reboot`, each
    /// with the name of a domain; or of `lose_connection`, `go_down`, `restore`, `go_silent`, each
    /// `= true`: see the methods of the same names.
    ///
    /// # Errors
    /// The mistake, with its line and field and what is allowed there. The script is
    /// [checked](Self::check), so that starting a running domain is a mistake too.
    pub fn from_toml(text: &str) -> Result<Self, ScriptError> {
        toml::parse(text)
    }

    /// The demo that `watch` plays without a URI: a few seconds with most kinds of events.
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

    /// Sets the time of the next steps, since the beginning.
    pub fn at(mut self, time: Duration) -> Self {
        if time < self.time {
            let before = self.time;
            self.fail(ScriptError::Backwards { step: self.steps.len() + 1, time, before });
        }
        self.set_time(time)
    }

    /// Sets the time of the next steps, since the step before.
    pub fn after(self, time: Duration) -> Self {
        // A sum beyond the maximum is too long, too: set_time refuses it.
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

    /// Sets whether the streams of a [`ScriptedSource`](crate::ScriptedSource) end with the script.
    /// Default: yes.
    pub fn ends(mut self, ends: bool) -> Self {
        self.goes_on = !ends;
        self
    }

    /// Adds a step.
    pub fn step(self, step: Step) -> Self {
        self.step_of_line(step, None)
    }

    pub(super) fn step_of_line(mut self, step: Step, line: Option<usize>) -> Self {
        if self.steps.len() >= STEPS_MAX {
            // Kept as a mistake and not panicked: a builder has no result, and check() returns it.
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
        /// Steps of one domain.
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

/// Other steps of domains, and of the connection.
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

    /// Cuts the connection. The next attempt to connect succeeds: see
    /// [`FakeHypervisor::lose_connection`](crate::FakeHypervisor::lose_connection).
    pub fn lose_connection(self) -> Self {
        self.step(Step::LoseConnection)
    }

    /// Cuts the connection and refuses new ones until [`restore`](Script::restore): see
    /// [`FakeHypervisor::go_down`](crate::FakeHypervisor::go_down).
    pub fn go_down(self) -> Self {
        self.step(Step::GoDown)
    }

    /// Accepts connections again after [`go_down`](Script::go_down): see
    /// [`FakeHypervisor::restore`](crate::FakeHypervisor::restore).
    pub fn restore(self) -> Self {
        self.step(Step::Restore)
    }

    /// Makes the connection half-open: see
    /// [`FakeHypervisor::go_silent`](crate::FakeHypervisor::go_silent).
    pub fn go_silent(self) -> Self {
        self.step(Step::GoSilent)
    }
}
