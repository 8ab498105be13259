//! From the connection to the first run state: the negotiation, and the questions which QEMU this
//! is.
//!
//! ```text
//!   connect ─▶ greeting ─▶ qmp_capabilities ─▶ query-name, -uuid, -cpus-fast ─▶ query-status
//! ```
//!
//! The run state is asked for last: it contains the changes that events reported before.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;
use virevent::Error;

use crate::config::MonitorConfig;
use crate::link::{QmpLink, broken};
use crate::peer::answers::{CpuInfo, NameInfo, StatusInfo, UuidInfo};
use crate::peer::identity::{self, RunIdentity};
use crate::peer::pinned_socket::PinnedSocket;
use crate::peer::process::Process;
use crate::uri::Endpoint;
use crate::wire::{Message, Reply};

/// The most bytes of events that are kept until the first run state.
const MAX_EARLY_BYTES: usize = 1024 * 1024;

/// How long QEMU may take to answer all questions after its greeting.
const ANSWERS_TIMEOUT: Duration = Duration::from_secs(10);

/// How far an attempt to connect has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Whether a process listens.
    pub(crate) is_connected: AtomicBool,
    /// How many bytes were read before a greeting.
    pub(crate) bytes: AtomicUsize,
    /// Whether what was read cannot be the beginning of QMP.
    pub(crate) is_foreign: AtomicBool,
    /// When QEMU greeted.
    pub(crate) greeted: OnceLock<Instant>,
}

/// A negotiated connection, and what is known of the QEMU behind it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) link: QmpLink,
    pub(crate) identity: RunIdentity,
    pub(crate) process: Option<Process>,
    /// The run state.
    pub(crate) status: String,
    /// The lines with the events that came before the run state.
    pub(crate) early: Vec<Box<[u8]>>,
    /// The pinned socket of the connection, where the endpoint is one certain file.
    pub(crate) pinned: Option<Arc<PinnedSocket>>,
}

/// An attempt to connect that is under way.
pub(crate) type Opening = Pin<Box<dyn Future<Output = Result<Opened, Error>> + Send>>;

/// How a monitor connects: by [`Opened::dial`], or in a test as the test says.
pub(crate) type Dial = fn(Arc<MonitorConfig>, Option<Arc<PinnedSocket>>, Arc<Progress>) -> Opening;

#[derive(Default)]
struct EarlyEvents {
    lines: Vec<Box<[u8]>>,
    bytes: usize,
}

impl Opened {
    /// Connects, by a pinned socket if there is one already, waits for the greeting, and asks which
    /// QEMU it is. The result is an error if QEMU is unreachable, hangs up, or does not speak QMP.
    /// The greeting may never come.
    pub(crate) fn dial(
        config: Arc<MonitorConfig>,
        pinned: Option<Arc<PinnedSocket>>,
        progress: Arc<Progress>,
    ) -> Opening {
        Box::pin(async move {
            let (mut link, pinned) = QmpLink::connect(&config, pinned, &progress).await?;
            progress.is_connected.store(true, Ordering::Relaxed);
            read_greeting(&mut link, &progress).await?;
            progress.greeted.get_or_init(Instant::now);
            Self::negotiate(config, link, pinned, progress).await
        })
    }

    /// Negotiates, and asks which QEMU it is, on a connection on which QEMU has just greeted.
    ///
    /// # Errors
    /// QEMU hangs up, does not answer, or does not speak QMP.
    pub(crate) async fn negotiate(
        config: Arc<MonitorConfig>,
        link: QmpLink,
        pinned: Option<Arc<PinnedSocket>>,
        progress: Arc<Progress>,
    ) -> Result<Self, Error> {
        let asked = Self::ask(link, &config, &progress);
        let asked = tokio::time::timeout(ANSWERS_TIMEOUT, asked).await;
        let opened = asked.unwrap_or_else(|_| Err(config.no_answer(ANSWERS_TIMEOUT)))?;
        Ok(Self { pinned, ..opened })
    }

    async fn ask(
        mut link: QmpLink,
        config: &MonitorConfig,
        progress: &Progress,
    ) -> Result<Self, Error> {
        let mut early = EarlyEvents::default();
        // Before QEMU is asked anything: its answers prove nothing of a process that is opened
        // later.
        let owner = link.owner()?;
        // An error is ignored: it means that the connection is negotiated already. If it is not,
        // every later question fails.
        call(&mut link, "qmp_capabilities", &mut early).await?;
        let name: Option<NameInfo> = query(&mut link, "query-name", &mut early).await?;
        let uuid: Option<UuidInfo> = query(&mut link, "query-uuid", &mut early).await?;
        // QEMU before 2.12 does not know the question; a machine may have no CPU at all.
        let cpus: Option<Vec<CpuInfo>> = query(&mut link, "query-cpus-fast", &mut early).await?;
        let thread = cpus.as_ref().and_then(|cpus| cpus.first()?.thread);
        let has_no_cpu = cpus.as_ref().is_some_and(Vec::is_empty);
        let process = match (owner, thread) {
            (Some(owner), Some(thread)) => {
                link.proved(move |path| owner.with_thread(thread, path)).await?
            }
            (Some(owner), None) if has_no_cpu => {
                link.proved(move |path| owner.with_connection(path)).await?
            }
            _ => None,
        };
        let status: Option<StatusInfo> = query(&mut link, "query-status", &mut early).await?;
        // A QEMU that answers some of the questions is a machine that does not report its run
        // state.
        let is_machine = status.is_some() || name.is_some() || uuid.is_some() || cpus.is_some();
        if !is_machine {
            progress.is_foreign.store(true, Ordering::Relaxed);
            return Err(not_a_machine(link.endpoint()));
        }
        let Some(StatusInfo { status }) = status else {
            let detail = format!("{} does not report its run state", link.endpoint());
            return Err(Error::protocol(detail));
        };
        let reported = |answer: NameInfo| answer.name.filter(|name| !name.is_empty());
        let identity = RunIdentity {
            name: name.map(|answer| reported(answer).unwrap_or_else(|| config.name.clone())),
            uuid: uuid
                .map(|answer| identity::uuid(answer.uuid.as_deref(), &config.host, &config.origin)),
            pid: process.as_ref().map(|process| process.pid),
            thread,
        };
        Ok(Self { link, identity, process, status, early: early.lines, pinned: None })
    }
}

/// Waits for QEMU to greet. Anything else before the greeting is not QMP.
async fn read_greeting(link: &mut QmpLink, progress: &Progress) -> Result<(), Error> {
    let endpoint = link.endpoint().clone();
    loop {
        while let Some(line) = link.next_line()? {
            match Message::read(line) {
                Ok(Message::Greeting) => return Ok(()),
                // QEMU sends events only after the negotiation: this one is not for us.
                Ok(Message::Event(_)) => {}
                Ok(_) | Err(_) => return Err(foreign(&endpoint, line, progress)),
            }
        }
        // A prompt, as that of -monitor, has no end of line.
        if !is_json(link.rest()) {
            return Err(foreign(&endpoint, link.rest(), progress));
        }
        let hung_up = "it hung up before its greeting: its QEMU ends, or it is no socket of -qmp \
                       (but of -monitor, -serial or -vnc): check which process listens there (ss \
                       -xlp)";
        read(link, hung_up).await?;
        progress.bytes.store(link.rest().len(), Ordering::Relaxed);
    }
}

/// Asks, and reads the answer; `None` where QEMU does not know the question, or answers in a form
/// that is not known here.
async fn query<T: for<'a> Deserialize<'a>>(
    link: &mut QmpLink,
    name: &'static str,
    early: &mut EarlyEvents,
) -> Result<Option<T>, Error> {
    let answer = call(link, name, early).await?;
    Ok(answer.and_then(|text| serde_json::from_str(&text).ok()))
}

async fn call(
    link: &mut QmpLink,
    name: &'static str,
    early: &mut EarlyEvents,
) -> Result<Option<String>, Error> {
    let asked = link.send(name);
    let endpoint = link.endpoint().clone();
    let broke = |detail: String| Err(Error::protocol(detail));
    loop {
        while let Some(line) = link.next_line()? {
            match Message::read(line).map_err(|error| broken(&error))? {
                Message::Reply(Some(id), Reply::Return(value)) if id == asked => {
                    return Ok(Some(value.get().to_owned()));
                }
                Message::Reply(Some(id), Reply::Error(error)) if id == asked => {
                    tracing::debug!(name, error = error.get(), "QEMU answers with an error");
                    return Ok(None);
                }
                // QEMU could not parse the question, and so its error carries no id.
                Message::Reply(None, Reply::Error(error)) => {
                    return broke(format!("{endpoint} refuses {name}: {}", error.get()));
                }
                Message::Event(_) if early.bytes + line.len() <= MAX_EARLY_BYTES => {
                    early.bytes += line.len();
                    early.lines.push(line.into());
                }
                Message::Event(_) => {
                    return broke(format!(
                        "{endpoint} sends {MAX_EARLY_BYTES} bytes of events before its answers"
                    ));
                }
                Message::Greeting => {
                    return broke(format!("{endpoint} greets again before its answers"));
                }
                _ => tracing::debug!(name, "ignored a message that is not the answer"),
            }
        }
        read(link, "it hung up before it answered our questions").await?;
    }
}

async fn read(link: &mut QmpLink, when_closed: &str) -> Result<(), Error> {
    match poll_fn(|cx| link.poll_io(cx)).await {
        Err(Error::Closed { endpoint, .. }) => Err(Error::closed(endpoint, when_closed)),
        outcome => outcome,
    }
}

/// The error that something was sent that is no greeting.
fn foreign(endpoint: &Endpoint, sent: &[u8], progress: &Progress) -> Error {
    // With pretty=on QEMU sends a brace alone: that is no QMP to us, but a QEMU's.
    progress.is_foreign.store(!is_json(sent), Ordering::Relaxed);
    let detail = format!(
        "no QMP greeting from {endpoint}, but {:?}: check that it is a socket of -qmp (not of \
         -monitor or -serial), without pretty=on",
        String::from_utf8_lossy(&sent[..sent.len().min(60)]),
    );
    Error::protocol(detail)
}

/// The error that a peer speaks QMP and has no run state: a storage daemon answers nothing about a
/// machine.
fn not_a_machine(endpoint: &Endpoint) -> Error {
    let reason = "it speaks QMP but is no virtual machine, for it does not know query-status: most \
                  likely a storage daemon (qemu-storage-daemon); give the socket of a QEMU's -qmp, \
                  or in a directory a pattern that leaves this one out (?pattern=*.qmp)";
    let source = Arc::new(io::Error::from(io::ErrorKind::Unsupported));
    Error::unreachable(endpoint.to_string(), reason, source)
}

/// Whether it may be the beginning of a JSON object, as all of QMP is.
fn is_json(sent: &[u8]) -> bool {
    sent.iter().find(|byte| !byte.is_ascii_whitespace()).is_none_or(|byte| *byte == b'{')
}
