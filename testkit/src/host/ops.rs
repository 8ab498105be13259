//! The operations of a simulated host, and the events that they emit.
//!
//! Codes and order are those of libvirt's QEMU driver, except that a start emits `started` alone,
//! as in libvirt's test driver, not `resumed` and `started`.

use std::time::SystemTime;

use virevent::driver::Listed;
use virevent::{
    Change, CrashCause, DefineCause, Domain, PmSuspendCause, Reboot, ResumeCause, ShutdownCause,
    ShutoffReason, StartCause, State, StopCause, SuspendCause, UndefineCause,
};

use super::{Emitted, Host, OpError};

/// The longest name, in bytes.
const NAME_MAX: usize = 255;

/// Each operation changes the host, emits its events and returns the domain after it, or fails and
/// changes nothing.
impl Host {
    /// Defines a domain: a new one or an existing transient one (`added`), or a persistent one
    /// again (`updated`).
    ///
    /// # Errors
    /// The name cannot be that of a domain.
    pub fn define(&self, name: &str) -> Result<Domain, OpError> {
        check_name("define", name)?;
        self.operate(|inner| {
            let cause = match inner.domains.get_mut(name) {
                Some(entry) if entry.persistent == Some(true) => DefineCause::Updated,
                Some(entry) => {
                    entry.persistent = Some(true);
                    DefineCause::Added
                }
                None => {
                    let domain = self.fresh(inner, name, None);
                    let state = State::Shutoff(ShutoffReason::Unspecified);
                    let entry = Listed::new(domain, state, Some(true));
                    inner.add(name, entry);
                    DefineCause::Added
                }
            };
            inner.emit_by_name("define", name, Change::Defined(cause))
        })
    }

    /// Starts a transient domain: it exists for as long as it runs.
    ///
    /// # Errors
    /// The name is taken, or cannot be that of a domain.
    pub fn create(&self, name: &str) -> Result<Domain, OpError> {
        check_name("create", name)?;
        self.operate(|inner| {
            if inner.domains.contains_key(name) {
                return Err(OpError::NameTaken { operation: "create", name: name.into() });
            }
            // libvirt emits no definition for a transient domain.
            let change = Change::Started(StartCause::Booted);
            let id = Some(inner.next_id());
            let domain = self.fresh(inner, name, id);
            let state = State::after(change).unwrap_or(State::NoState);
            let entry = Listed::new(domain, state, Some(false));
            inner.add(name, entry);
            inner.emit_by_name("create", name, change)
        })
    }

    /// Boots an inactive domain.
    ///
    /// # Errors
    /// It is active already, or there is no such domain.
    pub fn start(&self, name: &str) -> Result<Domain, OpError> {
        self.start_as(name, StartCause::Booted)
    }

    /// Starts an inactive domain for this cause.
    ///
    /// # Errors
    /// It is active already, or there is no such domain.
    pub fn start_as(&self, name: &str, cause: StartCause) -> Result<Domain, OpError> {
        self.operate(|inner| {
            let entry = inner.find("start", name)?;
            if entry.domain.is_active() {
                return Err(wrong_state("start", entry, "stop it first"));
            }
            let change = Change::Started(cause);
            let id = inner.next_id();
            let entry = inner.find("start", name)?;
            entry.domain = entry.domain.with_id(Some(id));
            entry.state = State::after(change).unwrap_or(entry.state);
            inner.emit_by_name("start", name, change)
        })
    }

    /// Pauses a running domain.
    ///
    /// # Errors
    /// It does not run, or there is no such domain.
    pub fn suspend(&self, name: &str) -> Result<Domain, OpError> {
        self.run_state("suspend", name, Change::Suspended(SuspendCause::Paused), is_running)
    }

    /// Resumes a paused domain.
    ///
    /// # Errors
    /// It is not paused, or there is no such domain.
    pub fn resume(&self, name: &str) -> Result<Domain, OpError> {
        let is_paused = |state: State| match state {
            State::Paused(_) => Ok(()),
            _ => Err("suspend it first"),
        };
        self.run_state("resume", name, Change::Resumed(ResumeCause::Unpaused), is_paused)
    }

    /// The guest suspends itself to memory.
    ///
    /// # Errors
    /// It does not run, or there is no such domain.
    pub fn pm_suspend(&self, name: &str) -> Result<Domain, OpError> {
        let change = Change::PmSuspended(PmSuspendCause::Memory);
        self.run_state("put to sleep", name, change, is_running)
    }

    /// Wakes a domain up that has suspended itself to memory.
    ///
    /// # Errors
    /// It is not suspended to memory, or there is no such domain.
    pub fn wake_up(&self, name: &str) -> Result<Domain, OpError> {
        let sleeps = |state: State| match state {
            State::PmSuspended => Ok(()),
            _ => Err("put it to sleep first"),
        };
        self.run_state("wake up", name, Change::Started(StartCause::Wakeup), sleeps)
    }

    /// The guest shuts itself down: `shutting_down (guest)`, then `stopped (shutdown)`.
    ///
    /// # Errors
    /// It is inactive, or there is no such domain.
    pub fn shut_down(&self, name: &str) -> Result<Domain, OpError> {
        let first = Change::ShuttingDown(ShutdownCause::Guest);
        self.end("shut down", name, Some(first), StopCause::Shutdown)
    }

    /// Forces a domain off: `stopped (destroyed)`.
    ///
    /// # Errors
    /// It is inactive, or there is no such domain.
    pub fn stop(&self, name: &str) -> Result<Domain, OpError> {
        self.stop_as(name, StopCause::Destroyed)
    }

    /// Ends a domain's run for this cause.
    ///
    /// # Errors
    /// It is inactive, or there is no such domain.
    pub fn stop_as(&self, name: &str, cause: StopCause) -> Result<Domain, OpError> {
        self.end("stop", name, None, cause)
    }

    /// The guest panics and is stopped: `crashed (panicked)`, then `stopped (crashed)`.
    ///
    /// # Errors
    /// It is inactive, or there is no such domain.
    pub fn crash(&self, name: &str) -> Result<Domain, OpError> {
        let first = Change::Crashed(CrashCause::Panicked);
        self.end("crash", name, Some(first), StopCause::Crashed)
    }

    /// Removes the definition. An active domain runs on and is transient from then on.
    ///
    /// # Errors
    /// It is transient, or there is no such domain.
    pub fn undefine(&self, name: &str) -> Result<Domain, OpError> {
        self.operate(|inner| {
            let entry = inner.find("undefine", name)?;
            if entry.persistent == Some(false) {
                return Err(OpError::Transient { operation: "undefine", name: name.into() });
            }
            // Before the event, which says how the domain is after it.
            entry.persistent = Some(false);
            let domain = entry.domain.clone();
            if !domain.is_active() {
                inner.remove(name);
            }
            inner.emit_change(&domain, Change::Undefined(UndefineCause::Removed));
            Ok(domain)
        })
    }

    /// Renames an inactive domain: `undefined (renamed)` under the old name, `defined (renamed)`
    /// under the new one, with the same uuid.
    ///
    /// # Errors
    /// It is active, the new name is taken or cannot be one, or there is no such domain.
    pub fn rename(&self, old: &str, new: &str) -> Result<Domain, OpError> {
        check_name("rename to", new)?;
        self.operate(|inner| {
            let entry = inner.find("rename", old)?;
            if entry.domain.is_active() {
                return Err(wrong_state("rename", entry, "stop it first"));
            }
            let mut entry = entry.clone();
            if inner.domains.contains_key(new) {
                return Err(OpError::NameTaken { operation: "rename to", name: new.into() });
            }
            // Removed first: the old name's event has no domain after it.
            inner.remove(old);
            inner.emit_change(&entry.domain, Change::Undefined(UndefineCause::Renamed));
            entry.domain = Domain::new(self.source(), self.name(), entry.domain.uuid(), new, None);
            inner.add(new, entry);
            inner.emit_by_name("rename", new, Change::Defined(DefineCause::Renamed))
        })
    }

    /// The guest reboots within its run.
    ///
    /// # Errors
    /// It does not run, or there is no such domain.
    pub fn reboot(&self, name: &str) -> Result<Domain, OpError> {
        self.operate(|inner| {
            let entry = inner.find("reboot", name)?;
            is_running(entry.state).map_err(|help| wrong_state("reboot", entry, help))?;
            let domain = entry.domain.clone();
            let now = Some(entry.clone());
            let reboot = Reboot::new(domain.clone(), SystemTime::now());
            inner.emit(&Emitted { event: reboot.into(), now });
            Ok(domain)
        })
    }

    fn run_state(
        &self,
        operation: &'static str,
        name: &str,
        change: Change,
        check: impl FnOnce(State) -> Result<(), &'static str>,
    ) -> Result<Domain, OpError> {
        self.operate(|inner| {
            let entry = inner.find(operation, name)?;
            check(entry.state).map_err(|help| wrong_state(operation, entry, help))?;
            entry.state = State::after(change).unwrap_or(entry.state);
            inner.emit_by_name(operation, name, change)
        })
    }

    fn end(
        &self,
        operation: &'static str,
        name: &str,
        first: Option<Change>,
        cause: StopCause,
    ) -> Result<Domain, OpError> {
        self.operate(|inner| {
            let entry = inner.find(operation, name)?;
            if !entry.domain.is_active() {
                return Err(wrong_state(operation, entry, "start it first"));
            }
            if let Some(first) = first {
                entry.state = State::after(first).unwrap_or(entry.state);
                inner.emit_by_name(operation, name, first)?;
            }
            // Found again, since the first event has borrowed the host.
            let entry = inner.find(operation, name)?;
            let change = Change::Stopped(cause);
            entry.domain = entry.domain.with_id(None);
            entry.state = State::after(change).unwrap_or(entry.state);
            let domain = entry.domain.clone();
            if entry.persistent == Some(false) {
                inner.remove(name);
            }
            inner.emit_change(&domain, change);
            Ok(domain)
        })
    }
}

fn is_running(state: State) -> Result<(), &'static str> {
    match state {
        State::Running(_) | State::Blocked => Ok(()),
        State::Paused(_) => Err("resume it first"),
        State::PmSuspended => Err("wake it up first"),
        _ => Err("start it first"),
    }
}

fn wrong_state(operation: &'static str, entry: &Listed, help: &'static str) -> OpError {
    let name = entry.domain.name().to_owned();
    OpError::WrongState { operation, name, state: entry.state, help }
}

fn check_name(operation: &'static str, name: &str) -> Result<(), OpError> {
    let bad = |c: char| c == '/' || c.is_control();
    if name.is_empty() || name.len() > NAME_MAX || name.contains(bad) {
        let name = name.chars().take(NAME_MAX).collect();
        return Err(OpError::BadName { operation, name });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events that `act` emits.
    fn emitted(act: impl FnOnce(&Host) -> Result<Domain, OpError>) -> Vec<String> {
        let host = Host::default();
        host.define("web").unwrap();
        host.start("web").unwrap();
        let mut observer = host.observe();
        act(&host).unwrap();
        std::iter::from_fn(|| observer.try_next()).map(|one| one.event.to_string()).collect()
    }

    #[test]
    fn events_equal_libvirts_and_a_stop_has_no_id() {
        assert_eq!(emitted(|host| host.stop("web")), ["web stopped (destroyed)"]);
        assert_eq!(
            emitted(|host| host.shut_down("web")),
            ["web[1] shutting_down (guest)", "web stopped (shutdown)"]
        );
        assert_eq!(
            emitted(|host| host.crash("web")),
            ["web[1] crashed (panicked)", "web stopped (crashed)"]
        );
        assert_eq!(emitted(|host| host.undefine("web")), ["web[1] undefined (removed)"]);
        assert_eq!(emitted(|host| host.reboot("web")), ["web[1] rebooted"]);
        assert_eq!(emitted(|host| host.create("tmp")), ["tmp[2] started (booted)"]);
    }

    #[test]
    fn rename_keeps_the_uuid_and_frees_the_old_name() {
        let host = Host::default();
        let web = host.define("web").unwrap();
        assert_eq!(host.rename("web", "www").unwrap().uuid(), web.uuid());
        assert_ne!(host.define("web").unwrap().uuid(), web.uuid());
    }

    #[test]
    fn transient_domain_is_gone_after_its_stop() {
        let host = Host::default();
        host.create("tmp").unwrap();
        host.stop("tmp").unwrap();
        assert_eq!(host.domain("tmp"), None);
        host.define("web").unwrap();
        host.start("web").unwrap();
        host.undefine("web").unwrap();
        assert!(host.domain("web").is_some(), "it exists until its stop");
        host.stop("web").unwrap();
        assert_eq!(host.domain("web"), None);
    }

    #[test]
    fn refused_operation_names_the_fix_and_changes_nothing() {
        let host = Host::default();
        host.define("web").unwrap();
        host.start("web").unwrap();
        let mut observer = host.observe();
        let refusal = |outcome: Result<Domain, OpError>| outcome.unwrap_err().to_string();
        assert_eq!(
            refusal(host.start("web")),
            r#"cannot start "web": it is running (booted); stop it first"#
        );
        assert_eq!(
            refusal(host.stop("db")),
            r#"cannot stop "db": there is no such domain; define or create it first"#
        );
        assert!(refusal(host.create("web")).contains("taken"));
        assert!(refusal(host.define("a/b")).contains("without '/'"));
        assert!(refusal(host.rename("web", "www")).contains("stop it first"));
        assert!(refusal(host.resume("web")).contains("suspend it first"));
        assert_eq!(observer.try_next(), None);
    }
}
