//! What the driver sees: a host that has the QEMUs behind the sockets of a directory.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};
use virevent::driver::{self, Batch, Connect, Interest};
use virevent::{Domain, Error, Kind, Uuid};

use super::members::{DomainAnswer, Members};
use super::socket_pattern::SocketPattern;
use super::unreadable::UnreadableDirectories;
use super::watcher::{DirectoryWatcher, ScanLock};
use crate::config::MonitorConfig;
use crate::monitor::SourceContext;
use crate::raw_event_filter::RawEventFilter;

/// How long the list waits for the next socket of which it becomes known whether there is a QEMU.
const SETTLING: Duration = Duration::from_secs(1);

/// How long it waits for all of them.
const SETTLED: Duration = Duration::from_secs(5);

/// Watches one directory.
#[derive(Clone, Debug)]
pub(crate) struct DirectoryConnector {
    pub(super) place: Arc<SocketPattern>,
    /// That of each socket, but for its endpoint.
    pub(super) config: MonitorConfig,
    /// How often to look without a notice.
    pub(super) net: Duration,
    pub(super) busy: ScanLock,
}

impl Connect for DirectoryConnector {
    type Session = DirectorySession;

    fn uri(&self) -> &str {
        &self.config.uri
    }

    async fn connect(&self) -> Result<DirectorySession, Error> {
        let mut session = DirectorySession {
            opener: self.clone(),
            shared: SourceContext { is_listing: true, ..SourceContext::default() },
            watch: Some(WatchedDirectory::new(self)),
            interest: None,
            list: None,
            look: None,
            patience: Box::pin(sleep_until(Instant::now())),
        };
        // The first look says whether there is anything to be had.
        let mut batch = Batch::new(self.uri(), &self.config.host);
        poll_fn(|cx| session.poll_look(cx, &mut batch)).await?;
        Ok(session)
    }
}

pub(crate) struct DirectorySession {
    opener: DirectoryConnector,
    shared: SourceContext,
    /// What is watched, while there is a subscriber.
    watch: Option<WatchedDirectory>,
    /// A change of interest that is not confirmed yet.
    interest: Option<(u64, Vec<Kind>)>,
    /// A list that is asked for, and since when.
    list: Option<(u64, Instant)>,
    /// The domain that is asked about.
    look: Option<(u64, Uuid)>,
    patience: Pin<Box<Sleep>>,
}

struct WatchedDirectory {
    lookout: DirectoryWatcher,
    members: Members,
    gaps: UnreadableDirectories,
    /// The directory has been there.
    was_there: bool,
    /// When the directory was first read.
    looked_at: Option<Instant>,
    /// Why it cannot be read.
    trouble: Option<Error>,
    /// Whether that was told.
    is_out: bool,
    /// When a socket has settled last.
    settled_at: Instant,
}

impl WatchedDirectory {
    fn new(opener: &DirectoryConnector) -> Self {
        Self {
            lookout: DirectoryWatcher::new(
                Arc::clone(&opener.place),
                opener.net,
                Arc::clone(&opener.busy),
            ),
            members: Members::default(),
            gaps: UnreadableDirectories::default(),
            was_there: false,
            looked_at: None,
            trouble: None,
            is_out: false,
            settled_at: Instant::now(),
        }
    }

    fn is_settled(&self) -> bool {
        self.looked_at.is_some() && self.members.are_settled()
    }
}

impl driver::Session for DirectorySession {
    fn host(&self) -> &str {
        &self.opener.config.host
    }

    fn set_interest(&mut self, interest: &Interest, tag: u64) {
        // A monitor serves one client: all are let go as soon as nobody listens.
        if interest.is_empty() {
            self.shared = SourceContext { is_listing: true, ..SourceContext::default() };
            self.watch = None;
        } else if self.watch.is_none() {
            self.watch = Some(WatchedDirectory::new(&self.opener));
        }
        let (wants, refused) = RawEventFilter::of(interest);
        self.shared.wants = wants;
        self.interest = Some((tag, refused));
    }

    fn request_list(&mut self, tag: u64) {
        // Else it is a first list, of QEMUs that have just been asked.
        if let Some(watch) = self.watch.as_mut().filter(|_| !self.shared.is_listing) {
            watch.members.verify();
        }
        self.list = Some((tag, Instant::now()));
    }

    fn request_state(&mut self, domain: &Domain, tag: u64) -> bool {
        let Some(watch) = &mut self.watch else { return false };
        watch.members.verify_one(domain.uuid());
        self.look = Some((tag, domain.uuid()));
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
        if let Some((tag, refused)) = self.interest.take() {
            out.interest_done(tag, &refused);
            return Poll::Ready(());
        }
        let looked = match self.poll_look(cx, out) {
            Poll::Ready(Err(error)) => {
                self.trouble(error);
                true
            }
            looked => looked.is_ready(),
        };
        let moved = self.poll_members(cx, out).is_ready();
        let answered = self.poll_list(cx, out).is_ready() | self.answer_look(out);
        let told = self.tell_trouble(out) | self.tell_gaps(out);
        if looked || moved || answered || told { Poll::Ready(()) } else { Poll::Pending }
    }

    fn poll_look(&mut self, cx: &mut Context<'_>, out: &mut Batch) -> Poll<Result<(), Error>> {
        let Some(watch) = &mut self.watch else { return Poll::Pending };
        let (members, shared) = (&mut watch.members, &mut self.shared);
        let looked = watch.lookout.poll(cx, &mut |path| members.hurry(path));
        let Poll::Ready(outcome) = looked else { return Poll::Pending };
        watch.looked_at.get_or_insert_with(Instant::now);
        let was_shut = std::mem::replace(&mut shared.is_shut, outcome.is_err());
        let found = outcome?;
        if was_shut {
            members.reopen();
        }
        let (place, config) = (&self.opener.place, &self.opener.config);
        watch.was_there |= !found.is_absent;
        let absent = (!watch.was_there).then(|| (place.directory.clone(), place.absent()));
        watch.gaps.see(found.unread.iter().chain(&absent));
        members.see(found, place, config, shared, out);
        watch.trouble = None;
        if std::mem::take(&mut watch.is_out) {
            out.restored(out.source_scope());
            // The driver asks for a list, and tells from it what happened.
            shared.is_listing = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_members(&mut self, cx: &mut Context<'_>, out: &mut Batch) -> Poll<()> {
        let Some(watch) = &mut self.watch else { return Poll::Pending };
        let turn = watch.members.poll(cx, &mut self.shared, out);
        let Poll::Ready(turn) = turn else { return Poll::Pending };
        if turn.is_settled {
            watch.settled_at = Instant::now();
        }
        if turn.is_parting {
            // Its file may be there under another name.
            watch.lookout.look_again();
        }
        Poll::Ready(())
    }

    /// Answers a request for the list when all is known, or cannot be waited for.
    fn poll_list(&mut self, cx: &mut Context<'_>, out: &mut Batch) -> Poll<()> {
        let Some((tag, since)) = self.list else { return Poll::Pending };
        let Some(watch) = &mut self.watch else {
            // Nobody waits for it any more, but the next will be asked for only when this is answered.
            self.list = None;
            out.listed(tag, Vec::new());
            return Poll::Ready(());
        };
        if watch.trouble.is_some() {
            return Poll::Pending;
        }
        if !self.shared.is_listing {
            // Each has answered, or is an outage of its own.
            if !watch.members.are_verified() {
                return Poll::Pending;
            }
        } else if !watch.is_settled() {
            let Some(looked_at) = watch.looked_at else { return Poll::Pending };
            let since = since.max(looked_at);
            let due = (since.max(watch.settled_at) + SETTLING).min(since + SETTLED);
            if self.patience.deadline() != due {
                self.patience.as_mut().reset(due);
            }
            if self.patience.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            watch.members.overdue(&mut self.shared, out);
        }
        let list = watch.members.list(out);
        out.listed(tag, list);
        self.list = None;
        self.shared.is_listing = false;
        Poll::Ready(())
    }

    /// Answers the question about one domain once its QEMU has answered. True if it did.
    fn answer_look(&mut self, out: &mut Batch) -> bool {
        let Some((tag, uuid)) = self.look else { return false };
        let looked = match &mut self.watch {
            Some(watch) => watch.members.look(uuid, out),
            None => DomainAnswer::Failed,
        };
        match looked {
            DomainAnswer::Pending => return false,
            DomainAnswer::At(found) => out.looked(tag, found),
            DomainAnswer::Failed => out.look_failed(tag),
        }
        self.look = None;
        true
    }

    /// Tells which sub-directories cannot be read. True if there is news.
    fn tell_gaps(&mut self, out: &mut Batch) -> bool {
        let Some(watch) = &mut self.watch else { return false };
        let (place, host) = (&self.opener.place, &self.opener.config.host);
        watch.gaps.tell(place, host, &mut self.shared.uuids, out)
    }

    fn trouble(&mut self, error: Error) {
        let Some(watch) = &mut self.watch else { return };
        watch.trouble = Some(error);
    }

    /// Tells that the directory cannot be read; a list is then asked for anew when it can. True if it did.
    fn tell_trouble(&mut self, out: &mut Batch) -> bool {
        let Some(watch) = &mut self.watch else { return false };
        let Some(error) = &watch.trouble else { return false };
        if watch.is_out {
            return false;
        }
        out.outage(out.source_scope(), error.to_fault());
        (watch.is_out, self.list) = (true, None);
        true
    }
}
