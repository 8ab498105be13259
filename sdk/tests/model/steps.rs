//! What may happen, and its form as text.

use std::str::FromStr;

use proptest::prelude::*;
use proptest::sample::select;

use crate::run::Variant;

/// One thing that happens. What cannot happen as things are, does not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// Something happens to a domain.
    Domain(Deed, u8),
    /// The server confirms the registration that it was asked for first.
    Confirm,
    /// The server takes the list, or looks at the domain, that it was asked for.
    Take,
    /// The server sends what it took.
    Reply,
    /// The server sends the events that it held back.
    Flush,
    /// The server does all of this, until there is nothing left to do.
    Serve,
    /// The connection breaks.
    Cut,
    /// The server restarts: the connection breaks, and ids of runs are used again.
    Restart,
    /// Connections are refused from now on, or accepted again.
    Refuse,
    Accept,
    /// The driver runs, and time passes: so many milliseconds.
    Wait(u32),
    Subscribe(Sort),
    /// A subscriber reads what there is.
    Read(u8),
    /// A subscriber goes.
    Drop(u8),
}

/// What happens to a domain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Deed {
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
    /// A start that takes its time: listed as paused (starting up) until it is through.
    BeginStart,
    EndStart,
    /// A guest migrates in: it is there, paused (migration), until the end of its start.
    Arrive,
    /// In silence: a start fails at its end, a run ends, a run pauses, a definition goes.
    FailStart,
    SilentStop,
    SilentPause,
    SilentStart,
    SilentUndefine,
}

/// What a subscriber wants, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Sort {
    /// Everything, read at once.
    Fast,
    /// Everything, in a mailbox of four.
    Slow,
    /// Everything, but it waits where others fail.
    Patient,
    Lifecycle,
    Reboots,
    /// One domain.
    One,
    /// Without what exists.
    Changes,
}

const DEEDS: [Deed; 17] = [
    Deed::Arrive,
    Deed::Define,
    Deed::Undefine,
    Deed::Rename,
    Deed::Start,
    Deed::StartPaused,
    Deed::Create,
    Deed::Suspend,
    Deed::Resume,
    Deed::Sleep,
    Deed::Wake,
    Deed::Stop,
    Deed::Destroy,
    Deed::Crash,
    Deed::Reboot,
    Deed::BeginStart,
    Deed::EndStart,
];

const SILENT: [Deed; 5] =
    [Deed::FailStart, Deed::SilentStop, Deed::SilentPause, Deed::SilentStart, Deed::SilentUndefine];

const SORTS: [Sort; 7] = [
    Sort::Fast,
    Sort::Slow,
    Sort::Patient,
    Sort::Lifecycle,
    Sort::Reboots,
    Sort::One,
    Sort::Changes,
];

/// As many domains as tell all stories.
pub(crate) const DOMAINS: u8 = 3;

impl Step {
    pub(crate) fn any(variant: Variant) -> impl Strategy<Value = Self> {
        // A reboot may give a run a new id: after a silent change it would pass for that.
        let deeds = DEEDS.into_iter().filter(|deed| !variant.silent || *deed != Deed::Reboot);
        let silent = SILENT.into_iter().filter(|_| variant.silent);
        let deeds: Vec<Deed> = deeds.chain(silent).collect();
        // Longer than a call may take, or a keepalive, now and then.
        let waits = select(vec![0, 1, 20, 3_000, 11_000]);
        prop_oneof![
            12 => (select(deeds), 0..DOMAINS).prop_map(|(deed, domain)| Self::Domain(deed, domain)),
            2 => Just(Self::Confirm),
            2 => Just(Self::Take),
            2 => Just(Self::Reply),
            1 => Just(Self::Flush),
            2 => Just(Self::Serve),
            1 => Just(Self::Cut),
            1 => Just(Self::Restart),
            1 => select(vec![Self::Refuse, Self::Accept, Self::Accept]),
            4 => waits.prop_map(Self::Wait),
            2 => select(SORTS.to_vec()).prop_map(Self::Subscribe),
            2 => (0..6_u8).prop_map(Self::Read),
            1 => (0..6_u8).prop_map(Self::Drop),
        ]
    }
}

/// The steps as text, one a line.
pub(crate) fn script(variant: Variant, steps: &[Step]) -> String {
    let Variant { verify, silent, level, lacking } = variant;
    let head = format!("variant {verify} {silent} {level} {lacking}");
    let lines = steps.iter().map(|step| format!("{step:?}"));
    std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n")
}

/// Reads such a text. What is wrong with it is a panic: it is a test's.
pub(crate) fn read(text: &str) -> (Variant, Vec<Step>) {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let head: Vec<bool> =
        lines.next().unwrap().split(' ').skip(1).map(|word| word.parse().unwrap()).collect();
    let [verify, silent, level, lacking] = head[..] else { panic!("four words after variant") };
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
                let mut deeds = DEEDS.into_iter().chain(SILENT);
                let deed = deeds.find(|deed| format!("{deed:?}") == words[0]);
                Self::Domain(deed.ok_or_else(|| line.to_owned())?, number(1)? as u8)
            }
            "Wait" => Self::Wait(number(0)?),
            "Read" => Self::Read(number(0)? as u8),
            "Drop" => Self::Drop(number(0)? as u8),
            "Subscribe" => {
                let sort = SORTS.into_iter().find(|sort| format!("{sort:?}") == words[0]);
                Self::Subscribe(sort.ok_or_else(|| line.to_owned())?)
            }
            _ => {
                let step = plain.into_iter().find(|step| format!("{step:?}") == name);
                step.ok_or_else(|| line.to_owned())?
            }
        })
    }
}
