//! The way from the flat object to an event. An error says what is wrong.

use std::borrow::Cow;
use std::time::SystemTime;

use super::Flat;
use super::text::{Stamp, Text};
use crate::{
    Change, CrashCause, CrashedReason, DefineCause, Domain, DomainEvent, EventData, Fault,
    FaultKind, Gap, GapKind, Kind, Lifecycle, Notice, NoticeBody, Origin, PausedReason,
    PmSuspendCause, RawEvent, Reboot, ResumeCause, RunningReason, Scope, ShutdownCause,
    ShutoffReason, ShuttingDownReason, StartCause, State, StopCause, SuspendCause, Synced,
    UndefineCause,
};

impl Flat<'_> {
    pub(super) fn into_event(self) -> Result<DomainEvent, String> {
        Ok(match &*self.kind {
            "" => return Err("missing field `kind`".into()),
            "lifecycle" => Lifecycle {
                change: self.change()?,
                origin: self.origin()?,
                at: self.at()?,
                persistent: self.persistent,
                domain: self.domain()?,
            }
            .into(),
            "reboot" => {
                Reboot { origin: self.origin()?, at: self.at()?, domain: self.domain()? }.into()
            }
            "other" => self.raw_event()?.into(),
            "synced" => {
                Synced { scope: self.scope()?, domains: self.needs("domains", self.domains)? }
                    .into()
            }
            "gap" => Gap { scope: self.scope()?, kind: self.gap()? }.into(),
            kind => self.notice(kind)?.into(),
        })
    }

    fn notice(&self, kind: &str) -> Result<Notice, String> {
        let mut notice = Notice::new(self.domain()?, self.body(kind)?, self.at()?);
        notice.origin = self.origin()?;
        Ok(notice)
    }

    pub(super) fn body(&self, kind: &str) -> Result<NoticeBody, String> {
        let unknown = || {
            let names = Kind::TYPED.iter().map(|kind| kind.to_string().replace('-', "_"));
            let names = names.collect::<Vec<_>>().join(", ");
            format!("unknown kind {kind:?}: expected {names}, other, synced or gap")
        };
        let kind = kind.parse::<Kind>().map_err(|_| unknown())?;
        let data = self.needs("data", self.data.as_ref())?;
        NoticeBody::from_json(&kind, data.text()).ok_or_else(unknown)?
    }

    pub(super) fn change(&self) -> Result<Change, String> {
        macro_rules! cause {
            ($type:ident) => {
                self.code("cause", &self.cause, $type::from_name, $type::from_code)?
            };
        }
        Ok(match self.text("change", &self.change)? {
            "existing" => Change::Existing(self.state()?),
            "defined" => Change::Defined(cause!(DefineCause)),
            "undefined" => Change::Undefined(cause!(UndefineCause)),
            "started" => Change::Started(cause!(StartCause)),
            "suspended" => Change::Suspended(cause!(SuspendCause)),
            "resumed" => Change::Resumed(cause!(ResumeCause)),
            "shutting_down" => Change::ShuttingDown(cause!(ShutdownCause)),
            "stopped" => Change::Stopped(cause!(StopCause)),
            "pm_suspended" => Change::PmSuspended(cause!(PmSuspendCause)),
            "crashed" => Change::Crashed(cause!(CrashCause)),
            // Both numbers: what an older version wrote as unknown may have a name here.
            "unknown" => {
                Change::from_codes(self.needs("raw", self.raw)?, self.needs("detail", self.detail)?)
            }
            change => return Err(format!("unknown change {change:?}")),
        })
    }

    pub(super) fn state(&self) -> Result<State, String> {
        macro_rules! reason {
            ($type:ident) => {
                self.code("reason", &self.reason, $type::from_name, $type::from_code)?
            };
        }
        Ok(match self.text("state", &self.state)? {
            "no_state" => State::NoState,
            "running" => State::Running(reason!(RunningReason)),
            "blocked" => State::Blocked,
            "paused" => State::Paused(reason!(PausedReason)),
            "shutting_down" => State::ShuttingDown(reason!(ShuttingDownReason)),
            "shutoff" => State::Shutoff(reason!(ShutoffReason)),
            "crashed" => State::Crashed(reason!(CrashedReason)),
            "pm_suspended" => State::PmSuspended,
            "unknown" => {
                State::from_codes(self.needs("raw", self.raw)?, self.needs("detail", self.detail)?)
            }
            state => return Err(format!("unknown state {state:?}")),
        })
    }

    /// A cause or a reason. A number that was unknown to the writer may be known here.
    fn code<T: Default>(
        &self,
        field: &str,
        name: &Option<Cow<'_, str>>,
        from_name: impl Fn(&str) -> Option<T>,
        from_code: impl Fn(i32) -> T,
    ) -> Result<T, String> {
        match name.as_deref() {
            None => Ok(T::default()),
            Some("unknown") => Ok(from_code(self.needs("raw", self.raw)?)),
            Some(name) => from_name(name).ok_or_else(|| format!("unknown {field} {name:?}")),
        }
    }

    fn raw_event(&self) -> Result<RawEvent, String> {
        let at = self.at()?;
        let name = self.needs("event", self.event.as_ref())?.name();
        let data = self.event_data()?;
        let source = self.text("source", &self.source)?;
        let domain = self.domain.as_ref().map(|domain| domain.domain(source));
        let mut event = RawEvent::new(source, domain, name, data, at);
        event.origin = self.origin()?;
        Ok(event)
    }

    pub(super) fn event_data(&self) -> Result<EventData, String> {
        match (&self.data, &self.hex) {
            (Some(data), _) => Ok(EventData::Json(data.text().into())),
            (None, Some(hex)) => Ok(EventData::Bytes(hex.0.0.to_vec().into())),
            (None, None) => Err(self.lacks("data\" or \"hex")),
        }
    }

    pub(super) fn gap(&self) -> Result<GapKind, String> {
        match self.text("gap", &self.gap)? {
            "disconnected" => Ok(GapKind::Disconnected { fault: self.fault()? }),
            "lagged" => Ok(GapKind::Lagged {
                missed: self.needs("missed", self.missed)?,
                // Written only where it is true.
                reset: self.reset.unwrap_or(false),
            }),
            "removed" => Ok(GapKind::Removed),
            gap => Err(format!("unknown gap {gap:?}: expected disconnected, lagged or removed")),
        }
    }

    pub(super) fn fault(&self) -> Result<Fault, String> {
        // The schema does not require it: other writers may leave it out.
        let kind = self.fault.as_deref().map_or(FaultKind::Other, FaultKind::from_name);
        Ok(Fault::new(kind, self.text("error", &self.error)?))
    }

    pub(super) fn scope(&self) -> Result<Scope, String> {
        let source = self.text("source", &self.source)?;
        Ok(match (&self.domain, &self.host) {
            (Some(domain), _) => Scope::Domain(domain.domain(source)),
            (None, Some(host)) => Scope::on_host(source, &**host),
            (None, None) => match &self.members {
                Some(members) => {
                    Scope::fleet(source, members.iter().map(|member| (&**member).into()))
                }
                None => Scope::source_wide(source),
            },
        })
    }

    fn domain(&self) -> Result<Domain, String> {
        let source = self.text("source", &self.source)?;
        Ok(self.needs("domain", self.domain.as_ref())?.domain(source))
    }

    fn origin(&self) -> Result<Origin, String> {
        origin(self.text("origin", &self.origin)?)
    }

    fn at(&self) -> Result<SystemTime, String> {
        match &self.at {
            Some(Text(Stamp(at))) => Ok(*at),
            None => Err(self.lacks("at")),
        }
    }

    fn text<'b>(&self, field: &str, text: &'b Option<Cow<'_, str>>) -> Result<&'b str, String> {
        self.needs(field, text.as_deref())
    }

    fn needs<T>(&self, field: &str, value: Option<T>) -> Result<T, String> {
        value.ok_or_else(|| self.lacks(field))
    }

    pub(super) fn lacks(&self, field: &str) -> String {
        match &*self.kind {
            "" => format!("the field \"{field}\" is missing"),
            kind => format!("this {kind} event lacks the field \"{field}\""),
        }
    }
}

pub(super) fn origin(name: &str) -> Result<Origin, String> {
    [Origin::Observed, Origin::Inferred, Origin::Replayed]
        .into_iter()
        .find(|origin| origin.as_str() == name)
        .ok_or_else(|| format!("unknown origin {name:?}: expected observed, inferred or replayed"))
}
