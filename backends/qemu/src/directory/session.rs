//! The driver's session on a directory: a host with the QEMUs behind its sockets.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;
use virevent::driver::{self, Batch, Connect, Interest};
use virevent::{Domain, Error, Kind, Kinds, Uuid};
use virevent_transport::LazyTimer;

use super::members::{DomainAnswer, Members};
use super::socket_pattern::SocketPattern;
use super::unreadable::UnreadableDirectories;
use super::watcher::{DirectoryWatcher, ScanLock};
use crate::config::MonitorConfig;
use crate::event_filter::EventFilter;
use crate::monitor::{SourceContext, Turn};

/// How long a first list waits until it is known of one more socket if there is a QEMU.
const SETTLE_WAIT: Duration = Duration::from_secs(1);

/// How long it waits for all of them.
const SETTLE_WAIT_MAX: Duration = Duration::from_secs(5);

/// Makes sessions on one directory.
#[derive(Clone, Debug)]
pub(crate) struct DirectoryConnector {
    pub(super) pattern: Arc<SocketPattern>,
    /// The configuration of each socket's monitor, but for its endpoint.
    pub(super) config: MonitorConfig,
    /// How often to scan without a notification.
    pub(super) rescan: Duration,
    pub(super) scan_lock: ScanLock,
}

impl Connect for DirectoryConnector {
    type Session = DirectorySession;

    fn uri(&self) -> &str {
        &self.config.uri
    }

    fn kinds(&self) -> Kinds {
        EventFilter::possible()
    }

    async fn connect(&self) -> Result<DirectorySession, Error> {
        let mut session = DirectorySession {
            connector: self.clone(),
            shared: SourceContext { is_listing: true, ..SourceContext::default() },
            directory: Some(WatchedDirectory::new(self)),
            interest: None,
            list: None,
            question: None,
            settle_timer: LazyTimer::new(),
        };
        // A first scan that fails is the error of the first subscription.
        let mut batch = Batch::new(self.uri(), &self.config.host);
        poll_fn(|cx| session.poll_watcher(cx, &mut batch)).await?;
        Ok(session)
    }
}

/// A session on one directory.
pub(crate) struct DirectorySession {
    connector: DirectoryConnector,
    shared: SourceContext,
    /// What is watched, while there is a subscriber.
    directory: Option<WatchedDirectory>,
    /// A change of interest that is not confirmed yet, and the kinds of it that are refused.
    interest: Option<(u64, Vec<Kind>)>,
    /// The list that the driver waits for, and since when.
    list: Option<(u64, Instant)>,
    /// The domain that the driver asks about.
    question: Option<(u64, Uuid)>,
    settle_timer: LazyTimer,
}

struct WatchedDirectory {
    watcher: DirectoryWatcher,
    members: Members,
    unreadable: UnreadableDirectories,
    /// Whether the directory has ever been there.
    has_existed: bool,
    /// When the directory was first scanned.
    scanned_at: Option<Instant>,
    /// Why the directory is unreadable.
    error: Option<Error>,
    /// Whether that was reported as an outage.
    is_outage: bool,
    /// When a member last settled.
    settled_at: Instant,
}

impl WatchedDirectory {
    fn new(connector: &DirectoryConnector) -> Self {
        let pattern = Arc::clone(&connector.pattern);
        let scan_lock = Arc::clone(&connector.scan_lock);
        Self {
            watcher: DirectoryWatcher::new(pattern, connector.rescan, scan_lock),
            members: Members::default(),
            unreadable: UnreadableDirectories::default(),
            has_existed: false,
            scanned_at: None,
            error: None,
            is_outage: false,
            settled_at: Instant::now(),
        }
    }

    fn is_settled(&self) -> bool {
        self.scanned_at.is_some() && self.members.are_settled()
    }
}

impl driver::Session for DirectorySession {
    fn host(&self) -> &str {
        &self.connector.config.host
    }

    fn set_interest(&mut self, interest: &Interest, tag: u64) {
        // QEMU serves one client a monitor: all are released with the last subscriber.
        if interest.is_empty() {
            self.shared = SourceContext { is_listing: true, ..SourceContext::default() };
            // Dropping the members closes their connections.
            self.directory = None;
        } else if self.directory.is_none() {
            self.directory = Some(WatchedDirectory::new(&self.connector));
        }
        let (filter, refused) = EventFilter::new(interest);
        self.shared.events = filter;
        self.interest = Some((tag, refused));
    }

    fn request_list(&mut self, tag: u64) {
        // A first list is made of QEMUs that have just reported their run states.
        if let Some(directory) = self.directory.as_mut().filter(|_| !self.shared.is_listing) {
            directory.members.verify();
        }
        self.list = Some((tag, Instant::now()));
    }

    fn request_state(&mut self, domain: &Domain, tag: u64) -> bool {
        let Some(directory) = &mut self.directory else { return false };
        directory.members.verify_domain(domain.uuid());
        self.question = Some((tag, domain.uuid()));
        true
    }

    fn is_ordered(&self) -> bool {
        true
    }

    async fn advance(&mut self, out: &mut Batch) -> Result<(), Error> {
        poll_fn(|cx| self.poll(cx, out)).await;
        Ok(())
    }
}

impl DirectorySession {
    /// Ready after each step.
    fn poll(&mut self, cx: &mut Context<'_>, out: &mut Batch) -> Poll<()> {
        // First of all: the driver admits a subscriber only after this answer.
        if let Some((tag, refused)) = self.interest.take() {
            out.interest_done(tag, &refused);
            return Poll::Ready(());
        }
        let has_scanned = match self.poll_watcher(cx, out) {
            Poll::Ready(Err(error)) => {
                self.set_error(error);
                true
            }
            polled => polled.is_ready(),
        };
        let has_stepped = self.poll_members(cx, out).is_ready();
        // No short circuit here and below: each of them has to be polled.
        let has_answered = self.poll_list(cx, out).is_ready() | self.answer_question(out);
        let has_reported = self.report_outage(out) | self.report_unreadable(out);
        match has_scanned || has_stepped || has_answered || has_reported {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn poll_watcher(&mut self, cx: &mut Context<'_>, out: &mut Batch) -> Poll<Result<(), Error>> {
        let Some(directory) = &mut self.directory else { return Poll::Pending };
        let members = &mut directory.members;
        let scanned = directory.watcher.poll(cx, &mut |path| members.connect_now(path));
        let Poll::Ready(outcome) = scanned else { return Poll::Pending };
        directory.scanned_at.get_or_insert_with(Instant::now);
        let was_unreadable = std::mem::replace(&mut self.shared.is_unreadable, outcome.is_err());
        let scan = outcome?;
        if was_unreadable {
            members.reopen();
        }
        let pattern = &self.connector.pattern;
        directory.has_existed |= !scan.is_absent;
        let absent =
            (!directory.has_existed).then(|| (pattern.directory.clone(), pattern.absent()));
        directory.unreadable.update(scan.unread.iter().chain(&absent));
        let mut turn = Turn { shared: &mut self.shared, out };
        members.update(scan, pattern, &self.connector.config, &mut turn);
        directory.error = None;
        if std::mem::take(&mut directory.is_outage) {
            out.restored(out.source_scope());
            // The driver asks for a list after it, and derives from that what happened.
            self.shared.is_listing = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_members(&mut self, cx: &mut Context<'_>, out: &mut Batch) -> Poll<()> {
        let Some(directory) = &mut self.directory else { return Poll::Pending };
        let mut turn = Turn { shared: &mut self.shared, out };
        let polled = directory.members.poll(cx, &mut turn);
        let Poll::Ready(summary) = polled else { return Poll::Pending };
        if summary.has_settled {
            directory.settled_at = Instant::now();
        }
        if summary.has_removed {
            // A scan passed over its file while the member had it; it may be there by another name.
            directory.watcher.scan_again();
        }
        Poll::Ready(())
    }

    /// Answers a request for the list when all is known, or cannot be waited for.
    fn poll_list(&mut self, cx: &mut Context<'_>, out: &mut Batch) -> Poll<()> {
        let Some((tag, since)) = self.list else { return Poll::Pending };
        let Some(directory) = &mut self.directory else {
            // No subscriber waits for it, but the driver asks for the next one only after this
            // answer.
            self.list = None;
            out.listed(tag, Vec::new());
            return Poll::Ready(());
        };
        if directory.error.is_some() {
            return Poll::Pending;
        }
        if !self.shared.is_listing {
            // Each QEMU has answered, or is an outage of its own.
            if !directory.members.are_verified() {
                return Poll::Pending;
            }
        } else if !directory.is_settled() {
            let Some(scanned_at) = directory.scanned_at else { return Poll::Pending };
            let since = since.max(scanned_at);
            let due = (since.max(directory.settled_at) + SETTLE_WAIT).min(since + SETTLE_WAIT_MAX);
            if self.settle_timer.poll_until(cx, due).is_pending() {
                return Poll::Pending;
            }
            directory.members.overdue(&mut Turn { shared: &mut self.shared, out });
        }
        let list = directory.members.list(out);
        out.listed(tag, list);
        self.list = None;
        self.shared.is_listing = false;
        Poll::Ready(())
    }

    /// Answers the question about one domain once its QEMU has answered. True if it did.
    fn answer_question(&mut self, out: &mut Batch) -> bool {
        let Some((tag, uuid)) = self.question else { return false };
        let answer = match &mut self.directory {
            Some(directory) => directory.members.domain(uuid, out),
            None => DomainAnswer::Failed,
        };
        match answer {
            DomainAnswer::Pending => return false,
            DomainAnswer::Known(found) => out.looked(tag, found),
            DomainAnswer::Failed => out.look_failed(tag),
        }
        self.question = None;
        true
    }

    /// Reports which sub-directories are unreadable. True if that has changed.
    fn report_unreadable(&mut self, out: &mut Batch) -> bool {
        let Some(directory) = &mut self.directory else { return false };
        let host = &self.connector.config.host;
        directory.unreadable.report(&self.connector.pattern, host, &mut self.shared.uuids, out)
    }

    fn set_error(&mut self, error: Error) {
        if let Some(directory) = &mut self.directory {
            directory.error = Some(error);
        }
    }

    /// Reports that the directory is unreadable; the driver asks for a list again when it is
    /// readable. True if it did.
    fn report_outage(&mut self, out: &mut Batch) -> bool {
        let Some(directory) = &mut self.directory else { return false };
        let Some(error) = &directory.error else { return false };
        if directory.is_outage {
            return false;
        }
        out.outage(out.source_scope(), error.to_fault());
        // The driver asks for another list after the outage.
        directory.is_outage = true;
        self.list = None;
        true
    }
}
