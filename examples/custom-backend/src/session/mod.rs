//! The driver's session: events from the file, lists from the API, and the end of the process.
//!
//! A thread of its own writes the events (`start_event_monitor_thread` in Cloud Hypervisor's
//! `vmm/src/lib.rs`), so that a reply of the API may overtake an event, or an event a reply. A reply
//! that contradicts the events is therefore requested again, a moment later. One that still does
//! after [`TRIES`] is believed: then an event was lost (a full disk), or there was none.

mod api;
mod events;
mod process;

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use virevent::driver::{self, Batch, Connect, Interest};
use virevent::{Error, Kind, Kinds, ServerError};

use self::api::Api;
use self::events::EventFile;
use self::process::Process;
use crate::config::Config;
use crate::decode::Event;
use crate::vm::{Info, Vm};
use crate::wire::http::Reply;
use crate::wire::objects::Frame;

/// How often a list that contradicts the events is asked for.
const TRIES: u32 = 10;

/// The pause before it is asked for again.
const RETRY: Duration = Duration::from_millis(30);

/// How long after the end of the connection the process may take to end.
const ENDING: Duration = Duration::from_secs(1);

/// Makes sessions.
#[derive(Debug)]
pub(crate) struct Connector {
    config: Config,
}

impl Connector {
    pub(crate) fn new(config: Config) -> Self {
        Self { config }
    }
}

impl Connect for Connector {
    type Session = ChvSession;

    fn uri(&self) -> &str {
        &self.config.uri
    }

    fn kinds(&self) -> Kinds {
        let mut kinds = Kinds::common();
        for kind in [Kind::DeviceRemoved, Kind::MigrationIteration, Kind::Other] {
            kinds.insert(kind);
        }
        kinds
    }

    async fn connect(&self) -> Result<ChvSession, Error> {
        let Config { host, socket, events, name, uuid, .. } = &self.config;
        let mut api = Api::connect(socket).await?;
        let pid = api.ping().await?;
        // A process truncates its file before it listens on its socket (`start_vmm` in
        // `cloud-hypervisor/src/main.rs`), so this is the file of that process.
        let mut events = EventFile::open(events)?;
        let mut vm = Vm::new(name, *uuid, pid);
        // History: nothing of it is delivered, but it says which run this is. A torn event is skipped:
        // it is older than this connection, or the reason for it.
        while events.read()? {
            while let Some(frame) = events.next_frame() {
                if let Frame::Object(text) = frame {
                    if let Ok(event) = serde_json::from_slice(text) {
                        vm.remember(&event);
                    }
                }
            }
            tokio::task::yield_now().await;
        }
        let process = Process::watch(pid, api.peer());
        let host = host.clone();
        let interest = Interest::default();
        Ok(ChvSession {
            host,
            api,
            events,
            process,
            has_ended: false,
            vm,
            interest,
            tag: None,
            list: None,
            closed: None,
        })
    }
}

/// A connection to one process.
pub(crate) struct ChvSession {
    host: String,
    api: Api,
    events: EventFile,
    process: Option<Process>,
    /// The process has ended. What it wrote before may still have to be read.
    has_ended: bool,
    vm: Vm,
    interest: Interest,
    /// A change of interest that is not confirmed yet.
    tag: Option<u64>,
    list: Option<List>,
    /// The API's connection has ended: why, and how long to wait for the end of the process.
    closed: Option<(Error, Instant)>,
}

/// A list that the driver waits for.
struct List {
    tag: u64,
    tries: u32,
    state: ListState,
}

enum ListState {
    /// `vm.info` was called.
    Called,
    /// The reply of a call that was made for an earlier list is still to come.
    Behind,
    /// It is called again at this time.
    Retry(Instant),
}

impl driver::Session for ChvSession {
    fn host(&self) -> &str {
        &self.host
    }

    fn set_interest(&mut self, interest: &Interest, tag: u64) {
        // Nothing to call: the file is written for no certain reader.
        self.interest = interest.clone();
        self.tag = Some(tag);
    }

    fn request_list(&mut self, tag: u64) {
        let state = match self.api.is_busy() {
            true => ListState::Behind,
            false => self.call(),
        };
        self.list = Some(List { tag, tries: 0, state });
    }

    /// What a list contains is never older than an event before it: see above.
    fn is_ordered(&self) -> bool {
        true
    }

    // Cancel safe: each wait is for readiness, and what was read or is still to be done is in `self`
    // before the next one.
    async fn advance(&mut self, out: &mut Batch) -> Result<(), Error> {
        if let Some(tag) = self.tag.take() {
            out.interest_done(tag, &[]);
            return Ok(());
        }
        loop {
            // First, and whatever woke us: a list must not contradict events that are there to be
            // read, and the last events of a process are read before its end is delivered.
            if self.read_events(out)? {
                return Ok(());
            }
            if self.has_ended {
                self.vm.process_ended(out);
                return Err(Error::closed(self.api.path(), "the process has ended"));
            }
            if let Some(reply) = self.api.next_reply()? {
                return self.reply(&reply, out);
            }
            let retry = match &self.list {
                Some(List { state: ListState::Retry(at), .. }) => Some(*at),
                _ => None,
            };
            let closed_at = self.closed.as_ref().map(|(_, until)| *until);
            tokio::select! {
                () = self.events.changed() => {}
                () = ended(self.process.as_ref()) => self.has_ended = true,
                outcome = self.api.transfer(), if closed_at.is_none() => if let Err(error) = outcome {
                    self.closed = Some((error, Instant::now() + ENDING));
                },
                () = at(retry) => {
                    let state = self.call();
                    if let Some(list) = &mut self.list {
                        list.state = state;
                    }
                }
                // The process lives, or is not watched: it is unreachable, and its VM may run.
                () = at(closed_at) => if let Some((error, _)) = self.closed.take() {
                    return Err(error);
                },
            }
        }
    }
}

impl ChvSession {
    fn call(&mut self) -> ListState {
        self.api.call("vm.info");
        ListState::Called
    }

    /// Delivers what the file has; true if it had something.
    fn read_events(&mut self, out: &mut Batch) -> Result<bool, Error> {
        if !self.events.read()? {
            return Ok(false);
        }
        while let Some(frame) = self.events.next_frame() {
            // A torn event may be a stop. Connecting again makes that loss a gap, and lists.
            let text = match frame {
                Frame::Object(text) => text,
                Frame::Torn(detail) => return Err(Error::protocol(detail)),
            };
            let event: Event<'_> = serde_json::from_slice(text)
                .map_err(|error| Error::protocol(format!("this is no event: {error}")))?;
            self.vm.observe(&event, &self.interest, out);
        }
        Ok(true)
    }

    fn reply(&mut self, reply: &Reply, out: &mut Batch) -> Result<(), Error> {
        let Some(mut list) = self.list.take() else { return Ok(()) };
        if let ListState::Behind = list.state {
            list.state = self.call();
            self.list = Some(list);
            return Ok(());
        }
        // By the message: the status is 404 since v53, and was 500 before, as for every error.
        let info = match (reply.status, reply.message()) {
            (200, _) => {
                let info: Info = serde_json::from_slice(&reply.body)
                    .map_err(|error| Error::protocol(format!("vm.info: {error}")))?;
                Some(info)
            }
            (_, message) if message == "VM is not created" => None,
            (status, message) => {
                let error = ServerError::new("vm.info", status.into(), message);
                out.list_failed(list.tag, error.into());
                return Ok(());
            }
        };
        if !self.vm.agrees(info) && list.tries < TRIES {
            list.tries += 1;
            list.state = ListState::Retry(Instant::now() + RETRY);
            self.list = Some(list);
            return Ok(());
        }
        let listed = self.vm.listed(info, out);
        out.listed(list.tag, listed);
        Ok(())
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn ended(process: Option<&Process>) {
    match process {
        Some(process) => process.ended().await,
        None => std::future::pending().await,
    }
}
