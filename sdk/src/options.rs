//! Options of a subscription.

use crate::mailbox::Mailbox;
use crate::{Domain, Error, Kind, Kinds, Selector, Snapshot};

/// How to subscribe. By value: `Options::default().capacity(64).domain("web")`.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many unread events the mailbox holds before it is compacted. Default: 1,024, which a
    /// reader that keeps up never fills. The mailbox is also compacted at 16 MiB, names and data
    /// counted, or at 256 bytes for each event of a capacity beyond 65,536.
    pub capacity: usize,
    /// How many events beyond the capacity the mailbox keeps where final states need them. Beyond
    /// that the mailbox is reset: it empties, and [`Lagged`](crate::GapKind::Lagged), everything
    /// that exists and `Synced` follow. Default: 65,536, which no reader should ever meet; a test
    /// of a reset sets a few.
    pub slack: usize,
    /// Which events to receive. Default: lifecycle and reboot, of all domains.
    pub filter: Filter,
    /// Whether the stream begins with an [`Existing`](crate::Change::Existing) event for each
    /// domain in the filter. Default: yes, since without it a subscriber does not know what runs.
    pub existing: bool,
    /// Whether to wait for a source that is unreachable. Default: no, the subscription then fails.
    /// With it the stream opens with [`Disconnected`](crate::GapKind::Disconnected), and gets no
    /// events until the source is reachable and the list of domains has come. A refusal fails
    /// either way.
    pub wait: bool,
    /// What the subscriber knows of the domains already. Default: nothing. With it the stream begins
    /// with what changed since, see [`resume`](Options::resume()).
    pub resume: Option<Snapshot>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            capacity: 1024,
            slack: Mailbox::SLACK,
            filter: Filter::default(),
            existing: true,
            wait: false,
            resume: None,
        }
    }
}

impl Options {
    /// Sets [`capacity`](Options::capacity), at least 1.
    #[must_use]
    pub fn capacity(mut self, events: usize) -> Self {
        self.capacity = events;
        self
    }

    /// Sets [`slack`](Options::slack).
    #[must_use]
    pub fn slack(mut self, events: usize) -> Self {
        self.slack = events;
        self
    }

    /// Asks for this kind of event, and others only if they are asked for too.
    ///
    /// A kind that the hypervisor lacks fails the subscription.
    #[must_use]
    pub fn kind(self, kind: Kind) -> Self {
        self.kinds([kind])
    }

    /// Asks for these kinds of event, as [`kind`](Options::kind) does for one. With [`Kinds::all`]
    /// for all that the source can report.
    #[must_use]
    pub fn kinds(mut self, kinds: impl Into<Kinds>) -> Self {
        self.filter.kinds.get_or_insert_default().merge(kinds.into());
        self
    }

    /// Asks for events of this domain, and of others only if they are asked for too.
    #[must_use]
    pub fn domain(mut self, domain: impl Into<Selector>) -> Self {
        self.filter.domains.push(domain.into());
        self
    }

    /// Sets [`existing`](Options::existing).
    #[must_use]
    pub fn existing(mut self, existing: bool) -> Self {
        self.existing = existing;
        self
    }

    /// Sets [`wait`](Options::wait).
    #[must_use]
    pub fn wait(mut self, wait: bool) -> Self {
        self.wait = wait;
        self
    }

    /// Begins the stream with what changed since a snapshot of a [`DomainStore`](crate::DomainStore),
    /// as [`Inferred`](crate::Origin::Inferred) events, in place of
    /// [`Existing`](crate::Change::Existing) ones: a service that saves a snapshot learns what changed
    /// while it was restarted. A domain that crashed meanwhile is `Stopped(Crashed)` where the
    /// hypervisor still knows the cause; one that does not exist any more has none.
    ///
    /// Only the difference between two states is known: of two runs the last, and a run that began
    /// and ended in between is not seen. A hypervisor that gives the same id to a new run, as
    /// libvirt does after the host restarts, hides the restart.
    ///
    /// Give the snapshot of a store that had the same [`filter`](Options::filter), and the existing
    /// domains: what is not in it counts as new. A snapshot that does not know this source or its host fails the
    /// subscription with [`Error::UnfitSnapshot`]; in a [`Fleet`](crate::Fleet), a member that it
    /// does not know begins with `Existing` events.
    #[must_use]
    pub fn resume(mut self, snapshot: Snapshot) -> Self {
        self.resume = Some(snapshot);
        self
    }

    /// # Errors
    /// [`Error::InvalidOption`] for a capacity of 0.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.capacity {
            // A mailbox of none could hold no marker either, so a gap would never be seen.
            0 => Err(Error::invalid_option("capacity", "0", "1 or more")),
            _ => Ok(()),
        }
    }
}

/// Which events a subscriber receives. It is applied before its mailbox;
/// [`Synced`](crate::DomainEvent::Synced) and [`Gap`](crate::DomainEvent::Gap) pass every filter.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct Filter {
    /// The kinds; `None` for lifecycle and reboot, as far as the source can report them.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub kinds: Option<Kinds>,
    /// The domains; empty for all.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub domains: Vec<Selector>,
}

impl Filter {
    /// Whether events of `domain` pass, as far as the domain decides.
    #[must_use]
    pub fn selects(&self, domain: &Domain) -> bool {
        self.domains.is_empty() || self.domains.iter().any(|selector| selector.matches(domain))
    }

    /// Whether it selects the domain by its name and by nothing else: not under another name.
    pub(crate) fn selects_by_name_alone(&self, domain: &Domain) -> bool {
        self.domains.contains(&Selector::Name(domain.name().into()))
            && !self.domains.contains(&Selector::Uuid(domain.uuid()))
    }
}
