//! The monitor as a table: a state and inputs, and the state and the output that follow.

use super::rig::Input::{
    Absent, Answers, Connects, Denied, Eof, FileChanges, FindsOther, Greeted, Line, List, Listing,
    NotQmp, Overdue, Park, ProcessEnds, Refused, Refuses, Relink, Reopen, Shut, Unlink, Unpark,
    Verify, Wait,
};
use super::rig::Start::{
    Connected, Connecting, Foreign, Lost, New, Out, Parked, Strange, Tcp, Vacant, Watched,
    WatchedOut,
};
use super::rig::{Input, Rig, Start};
use crate::monitor::Role;
use crate::monitor::Role::{Member, Source};

/// A start, inputs, the state after the last of them, and what the last of them put out.
type Row = (Role, Start, &'static [Input], &'static str, &'static [&'static str]);

const STOP: Input = Line(r#"{"event": "STOP"}"#);
const RESUME: Input = Line(r#"{"event": "RESUME"}"#);
const RESET: Input = Line(r#"{"event": "RESET"}"#);
const RTC: Input = Line(r#"{"event": "RTC_CHANGE"}"#);
const QUIT: Input =
    Line(r#"{"event": "SHUTDOWN", "data": {"guest": false, "reason": "host-qmp-quit"}}"#);
const GREETING: Input = Line(r#"{"QMP": {}}"#);
const STRAY: Input = Line(r#"{"return": {}, "id": 4711}"#);

#[rustfmt::skip]
const TABLE: &[Row] = &[
    // It is not known yet if there is a QEMU. The first attempt of a source is an error, that of a
    // member an outage after a grace of 500 ms.
    (Source, New, &[Input::Poll], "Connecting, first", &[]),
    (Source, Connecting, &[Connects("running")],
        "Connected", &["web[1] started (booted)", "State(web, Running(Unspecified))"]),
    (Source, Connecting, &[Listing, Connects("running")], "Connected", &[]),
    (Source, Connecting, &[Refused], "Vacant, first", &["error: Unreachable"]),
    (Source, Connecting, &[Denied], "Vacant, first", &["error: Unreachable"]),
    (Source, Connecting, &[NotQmp], "Vacant, first", &["error: Unreachable"]),
    (Source, Connecting, &[Wait(5000)], "Connecting, first", &["error: Unreachable"]),
    (Source, Connecting, &[Greeted, Wait(5000)], "Connecting, first", &["error: Unreachable"]),
    (Member, Connecting, &[Connects("running")],
        "Connected", &["web[1] started (booted)", "State(web, Running(Unspecified))"]),
    (Member, Connecting, &[Connects("paused")],
        "Connected", &["web[1] started (booted)", "State(web, Paused(User))"]),
    (Member, Connecting, &[Listing, Connects("running")], "Connected", &[]),
    (Member, Connecting, &[Refused], "Vacant", &[]),
    (Member, Connecting, &[Absent], "Vacant", &[]),
    (Member, Connecting, &[Denied], "Vacant, first, suspected", &[]),
    (Member, Connecting, &[Denied, Wait(499)], "Connecting, first, suspected", &[]),
    (Member, Connecting, &[Denied, Wait(500)],
        "Connecting, outage", &["Outage(Domain(web), Unreachable)"]),
    (Member, Connecting, &[Shut, Denied, Wait(500)], "Vacant, first, suspected", &[]),
    (Member, Connecting, &[Shut, Denied, Wait(500), Reopen], "Connecting, first", &[]),
    (Member, Connecting, &[NotQmp], "Foreign", &[]),
    (Member, Connecting, &[Wait(4999)], "Connecting, first", &[]),
    (Member, Connecting, &[Wait(5000)], "Vacant, outage", &["Outage(Domain(web), Unreachable)"]),
    (Member, Connecting, &[Greeted, Wait(5000)],
        "Connecting, outage", &["Outage(Domain(web), Unreachable)"]),
    (Member, Connecting, &[Greeted, Wait(5000), Wait(10000)], "Connecting, outage", &[]),
    (Member, Connecting, &[Overdue], "Connecting, outage", &["Outage(Domain(web), Unreachable)"]),
    (Member, Connecting, &[Overdue, Connects("running")],
        "Connected", &[
            "web[1] started (booted) [inferred]", "State(web, Running(Unspecified))",
            "Restored(Domain(web))"
        ]),
    (Member, Connecting, &[Unlink], "Connecting, first", &[]),
    (Member, Connecting, &[Unlink, Refused], "Vacant", &[]),
    (Member, Connecting, &[Unlink, Denied], "Vacant", &[]),
    (Member, Connecting, &[Unlink, Wait(5000)], "Vacant", &[]),
    (Member, New, &[Shut, Input::Poll], "Vacant, first", &[]),
    (Member, New, &[Unlink], "Vacant", &[]),
    // No run is known. A source retries after 20 ms here, for its first attempt has succeeded.
    (Source, Vacant, &[Input::Poll], "Connecting", &[]),
    (Source, Vacant, &[Wait(20)], "Connecting", &[]),
    (Source, Vacant, &[Connects("running"), Wait(20)], "Connected", &[]),
    (Source, Vacant, &[NotQmp, Wait(20)], "Connecting, suspected", &[]),
    (Source, Vacant, &[NotQmp, Wait(20), Wait(500)],
        "Connecting, outage", &["Outage(Source, Unreachable)"]),
    (Source, Vacant, &[Wait(20), Wait(5000)],
        "Connecting, outage", &["Outage(Source, Unreachable)"]),
    (Source, Vacant, &[List], "Connecting", &["lists nothing"]),
    (Source, Vacant, &[Park], "Parked, first", &[]),
    (Member, Vacant, &[Wait(9)], "Vacant", &[]),
    (Member, Vacant, &[Wait(10)], "Connecting", &[]),
    (Member, Vacant, &[FileChanges], "Connecting", &[]),
    (Member, Vacant, &[Unlink], "Vacant", &[]),
    (Member, Vacant, &[Unlink, Wait(10)], "Vacant", &[]),
    (Member, Vacant, &[Unlink, Relink], "Connecting", &[]),
    (Member, Vacant, &[Shut, FileChanges], "Vacant", &[]),
    (Member, Vacant, &[Shut, Reopen], "Connecting", &[]),
    // The socket never was a QEMU's, and is silent. It is released for 5 s: another client may
    // wait.
    (Member, Strange, &[Input::Poll], "Vacant, outage", &[]),
    (Member, Strange, &[Wait(4999)], "Vacant, outage", &[]),
    (Member, Strange, &[Wait(5000)], "Connecting, outage", &[]),
    (Member, Strange, &[Wait(5000), Connects("running")],
        "Connected", &[
            "web[1] started (booted) [inferred]", "State(web, Running(Unspecified))",
            "Restored(Domain(web))"
        ]),
    (Member, Strange, &[FileChanges], "Connecting, outage", &[]),
    (Member, Strange, &[Refused, FileChanges], "Vacant", &["Restored(Domain(web))"]),
    (Member, Strange, &[Unlink], "Vacant", &["Restored(Domain(web))"]),
    (Member, Strange, &[NotQmp, FileChanges], "Foreign", &["Restored(Domain(web))"]),
    // It is not QMP.
    (Member, Foreign, &[Wait(60000)], "Foreign", &[]),
    (Member, Foreign, &[FileChanges], "Connecting", &[]),
    (Member, Foreign, &[FileChanges, Connects("running")],
        "Connected", &["web[1] started (booted)", "State(web, Running(Unspecified))"]),
    (Member, Foreign, &[Unlink], "Foreign", &[]),
    (Member, Foreign, &[Unlink, Relink], "Connecting", &[]),
    (Member, Foreign, &[Reopen], "Connecting", &[]),
    (Member, Foreign, &[Overdue], "Foreign", &[]),
    // There is no subscriber.
    (Source, Parked, &[Wait(60000)], "Parked, first", &[]),
    (Source, Parked, &[Verify], "Parked, first", &[]),
    (Source, Parked, &[Unpark], "Connecting, first", &[]),
    (Source, Parked, &[Unpark, Connects("running")],
        "Connected", &["web[1] started (booted)", "State(web, Running(Unspecified))"]),
    (Source, Parked, &[Unpark, Refused], "Vacant, first", &["error: Unreachable"]),
    // Events. A list contains a pause, and so the pause is delivered before the list.
    (Source, Connected, &[STOP], "Connected", &["asks query-status"]),
    (Source, Connected, &[STOP, Answers("paused")], "Connected", &["web[1] suspended (paused)"]),
    (Source, Connected, &[STOP, Wait(249)], "Connected", &[]),
    (Source, Connected, &[STOP, Wait(250)], "Connected", &["web[1] suspended"]),
    (Source, Connected, &[STOP, RESUME],
        "Connected", &["web[1] suspended", "web[1] resumed (unpaused)", "asks query-status"]),
    (Source, Connected, &[STOP, List], "Connected", &["lists paused", "web[1] suspended"]),
    (Source, Connected, &[RESUME],
        "Connected", &["web[1] resumed (unpaused)", "asks query-status"]),
    (Source, Connected, &[RESUME, Answers("suspended")], "Connected", &["State(web, PmSuspended)"]),
    (Source, Connected, &[Listing, RESUME, Answers("suspended")], "Connected", &[]),
    (Source, Connected, &[RESET], "Connected", &["web[1] rebooted", "asks query-status"]),
    (Source, Connected, &[RESET, Answers("prelaunch")],
        "Connected", &["State(web, Paused(StartingUp))"]),
    (Source, Connected, &[RTC], "Connected", &[]),
    (Source, Connected, &[QUIT], "Connected", &["web[1] shutting_down (host)"]),
    (Source, Connected, &[STRAY], "Connected", &[]),
    (Source, Connected, &[Line("nonsense")],
        "Lost, waiting, outage", &["Outage(Source, Protocol)"]),
    (Member, Connected, &[Line("nonsense")],
        "Lost, waiting, outage", &["Outage(Domain(web), Protocol)"]),
    (Member, Connected, &[GREETING],
        "Lost, connecting, outage", &["Outage(Domain(web), Protocol)"]),
    (Member, Connected, &[GREETING, Wait(20)],
        "Lost, connecting, outage", &["asks qmp_capabilities"]),
    (Member, Connected, &[GREETING, Wait(20), Answers("")],
        "Lost, connecting, outage", &["asks query-name"]),
    (Member, Connected, &[
            GREETING, Wait(20), Answers(""), Answers(""), Answers(""), Answers(""),
            Answers("paused")
        ],
        "Connected", &["State(web, Paused(User))", "Restored(Domain(web))"]),
    // Questions. QEMU has 10 s to answer, and the outage ends with its answer.
    (Source, Connected, &[Wait(4999)], "Connected", &[]),
    (Source, Connected, &[Wait(5000)], "Connected", &["asks query-status"]),
    (Source, Connected, &[Wait(5000), Answers("running")], "Connected", &[]),
    (Source, Connected, &[Wait(5000), Answers("paused")],
        "Connected", &["State(web, Paused(User))"]),
    (Source, Connected, &[Wait(5000), Refuses],
        "Lost, connecting, outage", &["Outage(Source, Protocol)"]),
    (Source, Connected, &[Wait(5000), Wait(10000)],
        "Connected, outage", &["Outage(Source, Timeout)"]),
    (Member, Connected, &[Wait(5000), Wait(10000)],
        "Connected, outage", &["Outage(Domain(web), Timeout)"]),
    (Member, Connected, &[Wait(5000), Wait(10000), Answers("running")],
        "Connected", &[
            "State(web, Running(Unspecified))", "Restored(Domain(web))", "asks query-status"
        ]),
    (Member, Connected, &[Wait(5000), Wait(10000), Answers("paused")],
        "Connected", &[
            "State(web, Paused(User))", "State(web, Paused(User))", "Restored(Domain(web))",
            "asks query-migrate", "asks query-status"
        ]),
    (Source, Connected, &[Wait(5000), Wait(10000), Answers("paused")],
        "Connected", &["Restored(Source)", "asks query-migrate", "asks query-status"]),
    (Source, Connected, &[Verify], "Connected", &["asks query-status"]),
    (Source, Connected, &[Verify, Answers("running")], "Connected", &[]),
    (Source, Connected, &[Verify, Answers("paused"), Wait(20)],
        "Connected", &["asks query-migrate", "asks query-status"]),
    (Source, Connected, &[List], "Connected", &["lists running"]),
    // The connection or the process ends. The last events are read for 100 ms after the process.
    (Source, Connected, &[Eof], "Lost, waiting, suspected", &[]),
    (Source, Connected, &[STOP, Eof], "Lost, waiting, suspected", &["web[1] suspended"]),
    (Source, Connected, &[Wait(300), Eof], "Lost, connecting, suspected", &[]),
    (Source, Connected, &[Park], "Parked, first", &[]),
    (Member, Connected, &[Unlink], "Connected", &[]),
    (Member, Connected, &[Unlink, Eof], "Lost, waiting, suspected", &[]),
    (Member, Connected, &[FileChanges], "Connected", &[]),
    (Member, Connected, &[Reopen], "Connected", &[]),
    (Source, Watched, &[ProcessEnds], "Connected", &[]),
    (Source, Watched, &[ProcessEnds, QUIT], "Connected", &["web[pid] shutting_down (host)"]),
    (Source, Watched, &[ProcessEnds, Wait(100)], "Connecting", &["web[pid] stopped (failed)"]),
    (Source, Watched, &[QUIT, Eof, ProcessEnds], "Connecting", &["web[pid] stopped (destroyed)"]),
    (Source, Watched, &[Eof, ProcessEnds], "Connecting", &["web[pid] stopped (failed)"]),
    (Source, Watched, &[Eof, Refused, Wait(20)], "Lost, waiting, suspected", &[]),
    (Source, Watched, &[Eof, FindsOther, Wait(20), Wait(480)],
        "Lost, connecting, outage", &["Outage(Source, Protocol)"]),
    (Source, Watched, &[Eof, Wait(20), Wait(60000), ProcessEnds],
        "Connecting", &["Gone(web, Unspecified)", "Restored(Source)"]),
    (Member, WatchedOut, &[ProcessEnds],
        "Connecting", &["Gone(web, Unspecified)", "Restored(Domain(web))"]),
    (Member, WatchedOut, &[Listing, ProcessEnds],
        "Connecting", &["web[pid] stopped", "Restored(Domain(web))"]),
    (Source, WatchedOut, &[ProcessEnds],
        "Connecting", &["Gone(web, Unspecified)", "Restored(Source)"]),
    (Source, Lost, &[Wait(19)], "Lost, waiting, suspected", &[]),
    (Source, Lost, &[Wait(20)], "Lost, connecting, suspected", &[]),
    (Source, Lost, &[Wait(20), Refused], "Connecting", &["web[1] stopped (failed)"]),
    (Member, Lost, &[Wait(20), Refused], "Connecting", &["web[1] stopped (failed)"]),
    (Source, Lost, &[Wait(20), Absent], "Connecting", &["web[1] stopped (failed)"]),
    (Member, Lost, &[Wait(20), Absent], "Lost, waiting, suspected", &[]),
    (Source, Lost, &[Wait(20), Connects("running")],
        "Connected", &["Outage(Source, Closed)", "Restored(Source)"]),
    (Member, Lost, &[Wait(20), Connects("running")],
        "Connected", &[
            "Outage(Domain(web), Closed)", "State(web, Running(Unspecified))",
            "Restored(Domain(web))"
        ]),
    (Member, Lost, &[Wait(20), Connects("paused")],
        "Connected", &[
            "Outage(Domain(web), Closed)", "State(web, Paused(User))", "Restored(Domain(web))"
        ]),
    (Member, Lost, &[Wait(20), FindsOther],
        "Connected", &[
            "web[1] stopped (failed)", "web[2] started (booted)", 
            "State(web, Running(Unspecified))"
        ]),
    (Source, Lost, &[Wait(20), FindsOther],
        "Connected", &[
            "web[1] stopped (failed)", "web[2] started (booted)", 
            "State(web, Running(Unspecified))"
        ]),
    (Source, Lost, &[Wait(499)], "Lost, connecting, suspected", &[]),
    (Source, Lost, &[Wait(500)], "Lost, connecting, outage", &["Outage(Source, Closed)"]),
    (Source, Lost, &[Listing, Wait(500)], "Lost, connecting, suspected", &[]),
    (Member, Lost, &[Wait(500)], "Lost, connecting, outage", &["Outage(Domain(web), Closed)"]),
    (Member, Lost, &[Shut, Wait(500)], "Lost, waiting, outage", &["Outage(Domain(web), Closed)"]),
    (Member, Lost, &[Unlink], "Lost, waiting, suspected", &[]),
    (Member, Lost, &[Unlink, Wait(500)], "Lost, waiting, outage", &["Outage(Domain(web), Closed)"]),
    (Source, Lost, &[List], "Lost, waiting, suspected", &["lists running"]),
    (Source, Lost, &[Park], "Parked, first", &[]),
    (Source, Out, &[Connects("running")], "Connected", &["Restored(Source)"]),
    (Member, Out, &[Connects("running")],
        "Connected", &["State(web, Running(Unspecified))", "Restored(Domain(web))"]),
    (Member, Out, &[Connects("paused")],
        "Connected", &["State(web, Paused(User))", "Restored(Domain(web))"]),
    (Member, Out, &[Listing, Connects("paused")], "Connected", &["Restored(Domain(web))"]),
    (Source, Out, &[FindsOther], "Connected", &["Gone(web, Unspecified)", "Restored(Source)"]),
    (Member, Out, &[FindsOther],
        "Connected", &[
            "Gone(web, Unspecified)", "Restored(Domain(web))", "web[2] started (booted)",
            "State(web, Running(Unspecified))"
        ]),
    (Source, Out, &[Refused], "Connecting", &["Gone(web, Unspecified)", "Restored(Source)"]),
    (Member, Out, &[Refused], "Connecting", &["Gone(web, Unspecified)", "Restored(Domain(web))"]),
    (Member, Out, &[Denied], "Lost, waiting, outage", &[]),
    (Member, Out, &[Wait(60000)], "Lost, connecting, outage", &[]),
    (Member, Out, &[List], "Lost, connecting, outage", &["lists nothing"]),
    (Member, Out, &[Unlink, Wait(60000)], "Lost, connecting, outage", &[]),
    // Over TCP the peer may vanish without an end of the connection: it is replaced.
    (Source, Tcp, &[Wait(5000), Wait(10000)],
        "Lost, connecting, outage", &["Outage(Source, Timeout)"]),
    (Source, Tcp, &[Wait(5000), Wait(10000), Connects("running")],
        "Connected", &["Restored(Source)"]),
    (Source, Tcp, &[Wait(5000), Wait(10000), Refused],
        "Connecting", &["Gone(web, Unspecified)", "Restored(Source)"]),
    (Source, Tcp, &[Eof, Wait(1000), Wait(14999)], "Lost, connecting, outage", &[]),
    (Source, Tcp, &[Eof, Wait(1000), Wait(15000), Input::Poll], "Lost, connecting, outage", &[]),
];

#[tokio::test(start_paused = true)]
async fn table_maps_state_and_input_to_state_and_output() {
    let mut differences = Vec::new();
    for (role, start, inputs, state, output) in TABLE {
        let mut rig = Rig::start(*role, *start).await;
        let mut said = Vec::new();
        for input in *inputs {
            said = rig.apply(*input).await;
        }
        let found = (rig.state(), said);
        if found.0 != *state || found.1 != *output {
            differences.push(format!("{role:?} {start:?} {inputs:?}: {found:?}"));
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");
}
