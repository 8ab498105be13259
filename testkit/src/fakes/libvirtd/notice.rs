//! What follows the domain in the messages of notices.

use virevent::{GraphicsAddress, NoticeBody, ParamValue, Params, Text};
use virevent_libvirt::wire::xdr::Writer;

/// The id of io-error with a reason.
const IO_ERROR_REASON: i32 = 6;

/// What the power management events have before the domain.
pub(super) fn reason(body: &NoticeBody) -> i32 {
    match body {
        NoticeBody::PmWakeup { reason } | NoticeBody::PmSuspend { reason, .. } => *reason,
        _ => 0,
    }
}

/// Appends what follows the domain in the message with this event id.
pub(super) fn write(body: &NoticeBody, id: i32, w: &mut Writer<'_>) {
    // `Unspecified`, which has no number, travels as 0.
    let code = |code: Option<i32>| code.unwrap_or(0);
    match body {
        NoticeBody::RtcChange { offset } => w.i64(*offset),
        NoticeBody::Watchdog { action } => w.i32(code(action.code())),
        NoticeBody::IoError { path, alias, action, reason } => {
            w.string(&**path);
            w.string(&**alias);
            w.i32(code(action.code()));
            if id == IO_ERROR_REASON {
                w.string(&**reason);
            }
        }
        NoticeBody::Graphics { phase, local, remote, auth_scheme, identities } => {
            w.i32(code(phase.code()));
            address(local, w);
            address(remote, w);
            w.string(&**auth_scheme);
            w.u32(identities.len() as u32);
            for identity in identities {
                w.string(&*identity.kind);
                w.string(&*identity.name);
            }
        }
        NoticeBody::BlockJob { disk, job, status } => {
            w.string(&**disk);
            w.i32(code(job.code()));
            w.i32(code(status.code()));
        }
        NoticeBody::DiskChange { old_path, new_path, alias, reason } => {
            optional(old_path.as_ref(), w);
            optional(new_path.as_ref(), w);
            w.string(&**alias);
            w.i32(code(reason.code()));
        }
        NoticeBody::TrayChange { alias, reason } => {
            w.string(&**alias);
            w.i32(code(reason.code()));
        }
        NoticeBody::BalloonChange { actual } => w.u64(*actual),
        NoticeBody::DeviceRemoved { alias }
        | NoticeBody::DeviceAdded { alias }
        | NoticeBody::DeviceRemovalFailed { alias } => w.string(&**alias),
        NoticeBody::Tunable { params } | NoticeBody::JobCompleted { params } => {
            typed_params(params, w);
        }
        NoticeBody::AgentLifecycle { state, reason } => {
            w.i32(code(state.code()));
            w.i32(code(reason.code()));
        }
        NoticeBody::ChannelLifecycle { channel, state, reason } => {
            w.string(&**channel);
            w.i32(code(state.code()));
            w.i32(code(reason.code()));
        }
        NoticeBody::MigrationIteration { iteration } => w.i32(*iteration),
        NoticeBody::MetadataChange { metadata, uri } => {
            w.i32(code(metadata.code()));
            optional(uri.as_ref(), w);
        }
        NoticeBody::BlockThreshold { disk, path, threshold, excess } => {
            w.string(&**disk);
            optional(path.as_ref(), w);
            w.u64(*threshold);
            w.u64(*excess);
        }
        NoticeBody::MemoryFailure {
            recipient,
            action,
            action_required,
            recursive,
            other_flags,
        } => {
            w.i32(code(recipient.code()));
            w.i32(code(action.code()));
            w.u32(u32::from(*action_required) | u32::from(*recursive) << 1 | other_flags);
        }
        NoticeBody::MemoryDeviceSizeChange { alias, size } => {
            w.string(&**alias);
            w.u64(*size);
        }
        NoticeBody::NicMacChange { alias, old_mac, new_mac } => {
            w.string(&**alias);
            w.string(&**old_mac);
            w.string(&**new_mac);
        }
        NoticeBody::VcpuRemoved { vcpu } => w.u32(*vcpu),
        // Nothing follows the domain.
        NoticeBody::ControlError {}
        | NoticeBody::PmWakeup { .. }
        | NoticeBody::PmSuspend { .. }
        | _ => {}
    }
}

fn address(address: &GraphicsAddress, w: &mut Writer<'_>) {
    w.i32(address.family.code().unwrap_or(0));
    w.string(&*address.node);
    w.string(&*address.service);
}

fn optional(text: Option<&Text>, w: &mut Writer<'_>) {
    w.optional(text, |w, text| w.string(&**text));
}

/// Typed parameters: a whole number as the smallest type that holds it.
fn typed_params(params: &Params, w: &mut Writer<'_>) {
    w.u32(params.0.len() as u32);
    for (name, value) in &params.0 {
        w.string(&**name);
        match value {
            ParamValue::Int(number) => {
                if let Ok(int) = i32::try_from(*number) {
                    w.i32(1);
                    w.i32(int);
                } else if let Ok(llong) = i64::try_from(*number) {
                    w.i32(3);
                    w.i64(llong);
                } else {
                    w.i32(4);
                    w.u64(u64::try_from(*number).unwrap_or(u64::MAX));
                }
            }
            ParamValue::Double(number) => {
                w.i32(5);
                w.u64(number.to_bits());
            }
            ParamValue::Bool(value) => {
                w.i32(6);
                w.i32((*value).into());
            }
            ParamValue::Text(text) => {
                w.i32(7);
                w.string(&**text);
            }
            _ => {
                w.i32(7);
                w.string("");
            }
        }
    }
}
