//! The steps of a script, and their text form.

use std::str::FromStr;

use proptest::prelude::*;
use proptest::sample::select;

use crate::run::Variant;

/// One step. A step that is impossible in the present state does nothing, so that any sequence of
/// steps is a script, and shrinking needs no care.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// An operation on a domain.
    Domain(Operation, u8),
    /// The server confirms the oldest registration.
    Confirm,
    /// The server takes the list, or reads the domain, that was requested.
    Take,
    /// The server sends what it took.
    Reply,
    /// The server sends the events that are still in flight.
    Flush,
    /// The server does all of the above until nothing is left.
    Serve,
    /// The connection is lost.
    Cut,
    /// The server restarts: the connection is lost, and ids of runs are used again.
    Restart,
    /// The server refuses connections from now on, or accepts them again.
    Refuse,
    Accept,
    /// The driver runs for this many milliseconds.
    Wait(u32),
    Subscribe(SubscriberKind),
    /// A subscriber reads all that is buffered.
    Read(u8),
    /// A subscriber drops its stream.
    Drop(u8),
}

/// An operation on a domain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Operation {
    Define,
    Undefine,
    Rename,
    Start,
    StartPaused,
    Create,
    Suspend,
    Resume,
    Sleep,
    Wake,
    Stop,
    Destroy,
    Crash,
    Reboot,
    /// A slow start: listed as paused (starting up) until it is complete.
    BeginStart,
    EndStart,
    /// A guest migrates in: it is listed as paused (migration) until its start is complete.
    Arrive,
    /// Without an event: a start fails, a run ends, pauses or begins, a definition is removed.
    FailStart,
    SilentStop,
    SilentPause,
    SilentStart,
    SilentUndefine,
}

/// The filter of a subscriber, and how it reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum SubscriberKind {
    /// All events, read after each step.
    Fast,
    /// All events, in a mailbox of four, read by its own steps.
    Slow,
    /// All events, with `wait`: its stream opens in an outage.
    Patient,
    Lifecycle,
    Reboots,
    /// The events of one domain.
    One,
    /// All events without `Existing`.
    Changes,
}

const OPERATIONS: [Operation; 17] = [
    Operation::Arrive,
    Operation::Define,
    Operation::Undefine,
    Operation::Rename,
    Operation::Start,
    Operation::StartPaused,
    Operation::Create,
    Operation::Suspend,
    Operation::Resume,
    Operation::Sleep,
    Operation::Wake,
    Operation::Stop,
    Operation::Destroy,
    Operation::Crash,
    Operation::Reboot,
    Operation::BeginStart,
    Operation::EndStart,
];

const SILENT: [Operation; 5] = [
    Operation::FailStart,
    Operation::SilentStop,
    Operation::SilentPause,
    Operation::SilentStart,
    Operation::SilentUndefine,
];

const SUBSCRIBER_KINDS: [SubscriberKind; 7] = [
    SubscriberKind::Fast,
    SubscriberKind::Slow,
    SubscriberKind::Patient,
    SubscriberKind::Lifecycle,
    SubscriberKind::Reboots,
    SubscriberKind::One,
    SubscriberKind::Changes,
];

/// Three: two that share a uuid on two hosts, and one beside them.
pub(crate) const DOMAINS: u8 = 3;

impl Step {
    pub(crate) fn any(variant: Variant) -> impl Strategy<Value = Self> {
        // A reboot may give a run a new id (LXC): after a silent restart it would pass for that.
        let operations = OPERATIONS
            .into_iter()
            .filter(|operation| !variant.silent || *operation != Operation::Reboot);
        let silent = SILENT.into_iter().filter(|_| variant.silent);
        let operations: Vec<Operation> = operations.chain(silent).collect();
        // 11 s is longer than the call timeout; the shorter waits let replies and events overlap.
        let waits = select(vec![0, 1, 20, 3_000, 11_000]);
        let on_domain = (select(operations), 0..DOMAINS)
            .prop_map(|(operation, domain)| Self::Domain(operation, domain));
        prop_oneof![
            12 => on_domain,
            2 => Just(Self::Confirm),
            2 => Just(Self::Take),
            2 => Just(Self::Reply),
            1 => Just(Self::Flush),
            2 => Just(Self::Serve),
            1 => Just(Self::Cut),
            1 => Just(Self::Restart),
            1 => select(vec![Self::Refuse, Self::Accept, Self::Accept]),
            4 => waits.prop_map(Self::Wait),
            2 => select(SUBSCRIBER_KINDS.to_vec()).prop_map(Self::Subscribe),
            2 => (0..6_u8).prop_map(Self::Read),
            1 => (0..6_u8).prop_map(Self::Drop),
        ]
    }
}

/// The script's text: the variant, then a step a line.
pub(crate) fn script(variant: Variant, steps: &[Step]) -> String {
    let Variant { verify, silent, level, lacking } = variant;
    let head = format!("variant {verify} {silent} {level} {lacking}");
    let lines = steps.iter().map(|step| format!("{step:?}"));
    std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n")
}

/// Reads a script.
///
/// # Panics
/// The text is no script.
pub(crate) fn read(text: &str) -> (Variant, Vec<Step>) {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let head: Vec<bool> =
        lines.next().unwrap().split(' ').skip(1).map(|word| word.parse().unwrap()).collect();
    let [verify, silent, level, lacking] = head[..] else {
        panic!("expected four booleans after variant")
    };
    let variant = Variant { verify, silent, level, lacking };
    (variant, lines.map(|line| line.parse().unwrap()).collect())
}

impl FromStr for Step {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let (name, rest) = line.split_once('(').unwrap_or((line, ""));
        let words: Vec<&str> = rest.trim_end_matches(')').split(',').map(str::trim).collect();
        let number = |at: usize| words[at].parse::<u32>().map_err(|e| format!("{line}: {e}"));
        let plain = [
            Self::Confirm,
            Self::Take,
            Self::Reply,
            Self::Flush,
            Self::Serve,
            Self::Cut,
            Self::Restart,
            Self::Refuse,
            Self::Accept,
        ];
        Ok(match name {
            "Domain" => {
                let mut operations = OPERATIONS.into_iter().chain(SILENT);
                let operation = operations.find(|operation| format!("{operation:?}") == words[0]);
                Self::Domain(operation.ok_or_else(|| line.to_owned())?, number(1)? as u8)
            }
            "Wait" => Self::Wait(number(0)?),
            "Read" => Self::Read(number(0)? as u8),
            "Drop" => Self::Drop(number(0)? as u8),
            "Subscribe" => {
                let kind =
                    SUBSCRIBER_KINDS.into_iter().find(|kind| format!("{kind:?}") == words[0]);
                Self::Subscribe(kind.ok_or_else(|| line.to_owned())?)
            }
            _ => {
                let step = plain.into_iter().find(|step| format!("{step:?}") == name);
                step.ok_or_else(|| line.to_owned())?
            }
        })
    }
}
