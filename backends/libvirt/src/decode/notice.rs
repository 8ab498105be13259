//! The table of the events with a type of their own, 2 to 29: what follows the domain in each
//! message (`remote_protocol.x`, `remote_domain_event_..._msg`), and the [`NoticeBody`] that it
//! becomes.
//!
//! | id | name | what follows the domain |
//! |---|---|---|
//! | 2 | rtc-change | hyper: offset in seconds |
//! | 3 | watchdog | int: action |
//! | 4 | io-error | string: path; string: alias; int: action |
//! | 5 | graphics | int: phase; address: local; address: remote; string: scheme; array of (string, string) |
//! | 6 | io-error-reason | as 4; string: reason |
//! | 7 | control-error | nothing |
//! | 8 | block-job | string: path; int: type; int: status |
//! | 9 | disk-change | optional string: old path; optional string: new path; string: alias; int: reason |
//! | 10 | tray-change | string: alias; int: reason |
//! | 11, 12, 14 | pmwakeup, pmsuspend, pmsuspend-disk | nothing: the reason comes before the domain |
//! | 13 | balloon-change | unsigned hyper: KiB |
//! | 15, 19, 22 | device-removed, device-added, device-removal-failed | string: alias |
//! | 16 | block-job-2 | string: target; int: type; int: status |
//! | 17, 21 | tunable, job-completed | array of typed parameters |
//! | 18 | agent-lifecycle | int: state; int: reason |
//! | 20 | migration-iteration | int |
//! | 23 | metadata-change | int: type; optional string: namespace |
//! | 24 | block-threshold | string: disk; optional string: path; unsigned hyper: threshold; unsigned hyper: excess, both in bytes |
//! | 25 | memory-failure | int: recipient; int: action; unsigned: flags |
//! | 26 | memory-device-size-change | string: alias; unsigned hyper: KiB |
//! | 27 | nic-mac-change | string: alias; string: old address; string: new address |
//! | 28 | vcpu-removed | unsigned: number |
//! | 29 | channel-lifecycle | string: channel; int: state; int: reason |
//!
//! The fields of a variant are read in the order in which they are written here, which is that of
//! the wire.

use virevent::{
    AddressFamily, BlockJobStatus, BlockJobType, ChannelReason, ChannelState, DiskChangeReason,
    GraphicsAddress, GraphicsIdentity, GraphicsPhase, IoErrorAction, MemoryFailureAction,
    MemoryFailureRecipient, MetadataType, NoticeBody, ParamValue, Params, PmSuspendCause, Text,
    TrayChangeReason, WatchdogAction,
};

use crate::wire::xdr::{Malformed, Reader};

/// The most identities of a client of a graphical console
/// (`REMOTE_DOMAIN_EVENT_GRAPHICS_IDENTITY_MAX`).
const MAX_IDENTITIES: usize = 20;

/// The most typed parameters in one event (`REMOTE_DOMAIN_EVENT_TUNABLE_MAX`).
const MAX_PARAMS: usize = 2048;

/// Flags of a memory failure (`virDomainMemoryFailureFlags`).
const ACTION_REQUIRED: u32 = 1;
const RECURSIVE: u32 = 2;

/// Reads what follows the domain in a message of this event id. `reason` is what came before the
/// domain, in messages that have it there.
///
/// # Errors
/// The message does not have the layout of the event, or more follows, or the id has no type.
pub(super) fn body(id: u32, reason: i32, mut body: Reader<'_>) -> Result<NoticeBody, Malformed> {
    let r = &mut body;
    let notice = match id {
        2 => NoticeBody::RtcChange { offset: r.i64()? },
        3 => NoticeBody::Watchdog { action: WatchdogAction::from_code(r.i32()?) },
        4 | 6 => NoticeBody::IoError {
            path: text(r)?,
            alias: text(r)?,
            action: IoErrorAction::from_code(r.i32()?),
            reason: if id == 6 { text(r)? } else { Text::default() },
        },
        5 => NoticeBody::Graphics {
            phase: GraphicsPhase::from_code(r.i32()?),
            local: address(r)?,
            remote: address(r)?,
            auth_scheme: text(r)?,
            identities: identities(r)?,
        },
        7 => NoticeBody::ControlError {},
        8 | 16 => NoticeBody::BlockJob {
            disk: text(r)?,
            job: BlockJobType::from_code(r.i32()?),
            status: BlockJobStatus::from_code(r.i32()?),
        },
        9 => NoticeBody::DiskChange {
            old_path: r.optional(text)?,
            new_path: r.optional(text)?,
            alias: text(r)?,
            reason: DiskChangeReason::from_code(r.i32()?),
        },
        10 => NoticeBody::TrayChange {
            alias: text(r)?,
            reason: TrayChangeReason::from_code(r.i32()?),
        },
        11 => NoticeBody::PmWakeup { reason },
        12 => NoticeBody::PmSuspend { target: PmSuspendCause::Memory, reason },
        13 => NoticeBody::BalloonChange { actual: r.u64()? },
        14 => NoticeBody::PmSuspend { target: PmSuspendCause::Disk, reason },
        15 => NoticeBody::DeviceRemoved { alias: text(r)? },
        17 => NoticeBody::Tunable { params: params(r)? },
        18 => NoticeBody::AgentLifecycle {
            state: ChannelState::from_code(r.i32()?),
            reason: ChannelReason::from_code(r.i32()?),
        },
        19 => NoticeBody::DeviceAdded { alias: text(r)? },
        20 => NoticeBody::MigrationIteration { iteration: r.i32()? },
        21 => NoticeBody::JobCompleted { params: params(r)? },
        22 => NoticeBody::DeviceRemovalFailed { alias: text(r)? },
        23 => NoticeBody::MetadataChange {
            metadata: MetadataType::from_code(r.i32()?),
            uri: r.optional(text)?,
        },
        24 => NoticeBody::BlockThreshold {
            disk: text(r)?,
            path: r.optional(text)?,
            threshold: r.u64()?,
            excess: r.u64()?,
        },
        25 => {
            let recipient = MemoryFailureRecipient::from_code(r.i32()?);
            let action = MemoryFailureAction::from_code(r.i32()?);
            let flags = r.u32()?;
            NoticeBody::MemoryFailure {
                recipient,
                action,
                action_required: flags & ACTION_REQUIRED != 0,
                recursive: flags & RECURSIVE != 0,
                other_flags: flags & !(ACTION_REQUIRED | RECURSIVE),
            }
        }
        26 => NoticeBody::MemoryDeviceSizeChange { alias: text(r)?, size: r.u64()? },
        27 => NoticeBody::NicMacChange { alias: text(r)?, old_mac: text(r)?, new_mac: text(r)? },
        28 => NoticeBody::VcpuRemoved { vcpu: r.u32()? },
        29 => NoticeBody::ChannelLifecycle {
            channel: text(r)?,
            state: ChannelState::from_code(r.i32()?),
            reason: ChannelReason::from_code(r.i32()?),
        },
        _ => return Err(Malformed { expected: "an event with a type" }),
    };
    match body.rest() {
        [] => Ok(notice),
        _ => Err(Malformed { expected: "the end of the message" }),
    }
}

/// Bytes that are not UTF-8 are replaced.
fn text(body: &mut Reader<'_>) -> Result<Text, Malformed> {
    let bytes = body.string()?;
    Ok(match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => String::from_utf8_lossy(bytes).into_owned().into(),
    })
}

fn address(body: &mut Reader<'_>) -> Result<GraphicsAddress, Malformed> {
    Ok(GraphicsAddress {
        family: AddressFamily::from_code(body.i32()?),
        node: text(body)?,
        service: text(body)?,
    })
}

fn identities(body: &mut Reader<'_>) -> Result<Vec<GraphicsIdentity>, Malformed> {
    let count = body.count(MAX_IDENTITIES, 8)?;
    (0..count).map(|_| Ok(GraphicsIdentity { kind: text(body)?, name: text(body)? })).collect()
}

fn params(body: &mut Reader<'_>) -> Result<Params, Malformed> {
    // A parameter is a name, a type and a value: 12 bytes at least.
    let count = body.count(MAX_PARAMS, 12)?;
    (0..count).map(|_| Ok((text(body)?, param(body)?))).collect()
}

/// The value of a typed parameter (`virTypedParameterType`).
fn param(body: &mut Reader<'_>) -> Result<ParamValue, Malformed> {
    Ok(match body.i32()? {
        1 => ParamValue::Int(body.i32()?.into()),
        2 => ParamValue::Int(body.u32()?.into()),
        3 => ParamValue::Int(body.i64()?.into()),
        4 => ParamValue::Int(body.u64()?.into()),
        5 => ParamValue::Double(f64::from_bits(body.u64()?)),
        6 => ParamValue::Bool(body.i32()? != 0),
        7 => ParamValue::Text(text(body)?),
        _ => return Err(Malformed { expected: "a typed parameter" }),
    })
}

#[cfg(test)]
mod tests;
