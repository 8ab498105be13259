//! The state and the output of a monitor, as the table writes them.

use virevent::driver::Batch;

use crate::monitor::Monitor;
use crate::monitor::health::Health;
use crate::monitor::state::{Reconnect, State};

/// The state of the monitor and its health, as the table writes it.
pub(super) fn state(monitor: &Monitor) -> String {
    let name = match &monitor.state {
        State::Vacant { .. } => "Vacant",
        State::Connecting(_) => "Connecting",
        State::Connected(_) => "Connected",
        State::Lost(lost) => match lost.reconnect {
            Reconnect::At(_) => "Lost, waiting",
            Reconnect::Trying(_) => "Lost, connecting",
        },
        State::Foreign => "Foreign",
        State::Parked => "Parked",
    };
    let first = if monitor.is_settled { "" } else { ", first" };
    let trouble = match &monitor.health {
        Health::Well => "",
        Health::Suspected { .. } => ", suspected",
        Health::Outage(_) => ", outage",
    };
    format!("{name}{first}{trouble}")
}

/// What a batch contains, in its order: events, and what is no event in the form of its `Debug`.
pub(super) fn contents(batch: &Batch) -> Vec<String> {
    let text = format!("{batch:?}");
    let controls = text.split_once("controls: [").unwrap().1;
    let controls = controls.rsplit_once("], received").unwrap().0;
    let controls = named(controls, "Domain { ", "name: \"", "\"", " }");
    let controls = named(&controls, "Fault(", "kind: ", ",", "\" })");
    let controls = controls.replace("(\"qmp:/run/web.sock\")", "");
    let mut contents: Vec<String> = batch.events().iter().map(ToString::to_string).collect();
    let controls = controls.strip_prefix('(').and_then(|it| it.strip_suffix(')')).unwrap_or("");
    // The last first, so that the indices of the others stay right.
    for control in controls.rsplit("), (").filter(|control| !control.is_empty()) {
        let (before, control) = control.split_once(", ").unwrap();
        contents.insert(before.parse().unwrap(), level(control));
    }
    contents
}

/// The text with each value from `begin` to `end` as what stands in it between `from` and `to`.
fn named(text: &str, begin: &str, from: &str, to: &str, end: &str) -> String {
    let mut pieces = text.split(begin);
    let mut short = pieces.next().unwrap().to_owned();
    for piece in pieces {
        let (value, rest) = piece.split_once(end).unwrap();
        let (_, name) = value.split_once(from).unwrap();
        short += name.split(to).next().unwrap();
        short += rest;
    }
    short
}

/// A reported level in a short form: `State(web, Running(..))`, `Gone(web, Failed)`.
fn level(control: &str) -> String {
    let short = |prefix: &str, name: &str| {
        let (domain, level) = control.strip_prefix("Level(")?.split_once(prefix)?;
        Some(format!("{name}({domain}, {}", level.strip_suffix(')')?))
    };
    let level = short(", Is(", "State").or_else(|| short(", Gone(", "Gone"));
    level.unwrap_or_else(|| control.to_owned())
}
