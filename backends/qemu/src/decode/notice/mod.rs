//! The table of the events with a type of their own: QEMU's events (`qapi/*.json`), the members of
//! their data, and the [`NoticeBody`] that they become.
//!
//! | QMP | kind | members read |
//! |---|---|---|
//! | `RTC_CHANGE` | rtc-change | offset, in seconds |
//! | `WATCHDOG` | watchdog | action |
//! | `BLOCK_IO_ERROR` | io-error | device, qom-path, node-name, action, nospace |
//! | `VNC_CONNECTED`, `VNC_INITIALIZED`, `VNC_DISCONNECTED` and `SPICE_...` | graphics | server and client: host, service or port, family; auth of the server; x509_dname and sasl_username of the client |
//! | `BLOCK_JOB_READY`, `BLOCK_JOB_COMPLETED`, `BLOCK_JOB_CANCELLED` | block-job | device, type, error |
//! | `DEVICE_TRAY_MOVED` | tray-change | id, device, tray-open |
//! | `WAKEUP` | pm-wakeup | none |
//! | `SUSPEND`, `SUSPEND_DISK` | pm-suspend | none |
//! | `BALLOON_CHANGE` | balloon-change | actual, in bytes |
//! | `DEVICE_DELETED` | device-removed | device |
//! | `DEVICE_UNPLUG_GUEST_ERROR` | device-removal-failed | device |
//! | `MIGRATION_PASS` | migration-iteration | pass |
//! | `BLOCK_WRITE_THRESHOLD` | block-threshold | node-name, write-threshold and amount-exceeded in bytes |
//! | `MEMORY_FAILURE` | memory-failure | recipient, action, flags |
//! | `MEMORY_DEVICE_SIZE_CHANGE` | memory-device-size-change | id, size in bytes |
//! | `VSERPORT_CHANGE` | channel-lifecycle | id, open |
//!
//! The members are read in place, without a JSON value in between. Members that are newer than this
//! crate are ignored, as QEMU asks of its clients. An event without a member that the notice needs
//! (a device without an id), or with a value that the notice has no name for, has no notice.

mod members;

use virevent::{
    AddressFamily, BlockJobStatus, BlockJobType, ChannelReason, ChannelState, GraphicsAddress,
    GraphicsIdentity, GraphicsPhase, IoErrorAction, Kind, MemoryFailureAction,
    MemoryFailureRecipient, NoticeBody, PmSuspendCause, Text, TrayChangeReason, WatchdogAction,
};

use self::members::{Flags, JsonText, Peer, members};
use crate::wire::Event;

/// The kinds that QEMU's events become.
#[must_use]
pub fn kinds() -> [Kind; 16] {
    [
        Kind::RtcChange,
        Kind::Watchdog,
        Kind::IoError,
        Kind::Graphics,
        Kind::BlockJob,
        Kind::TrayChange,
        Kind::PmWakeup,
        Kind::PmSuspend,
        Kind::BalloonChange,
        Kind::DeviceRemoved,
        Kind::DeviceRemovalFailed,
        Kind::MigrationIteration,
        Kind::BlockThreshold,
        Kind::MemoryFailure,
        Kind::MemoryDeviceSizeChange,
        Kind::ChannelLifecycle,
    ]
}

/// The notice of an event; `None` if it has none: it has no type, or its data is not what the type
/// needs.
#[must_use]
pub fn body(event: &Event<'_>) -> Option<NoticeBody> {
    Some(match event.name {
        "RTC_CHANGE" => {
            let data = members!(event, { offset: i64 });
            NoticeBody::RtcChange { offset: data.offset }
        }
        "WATCHDOG" => {
            let data = members!(event, { action: JsonText });
            let action = match &*data.action.0 {
                "inject-nmi" => WatchdogAction::InjectNmi,
                action => WatchdogAction::from_name(action)?,
            };
            NoticeBody::Watchdog { action }
        }
        "BLOCK_IO_ERROR" => io_error(event)?,
        "VNC_CONNECTED" | "SPICE_CONNECTED" => graphics(event, GraphicsPhase::Connect)?,
        "VNC_INITIALIZED" | "SPICE_INITIALIZED" => graphics(event, GraphicsPhase::Initialize)?,
        "VNC_DISCONNECTED" | "SPICE_DISCONNECTED" => graphics(event, GraphicsPhase::Disconnect)?,
        "BLOCK_JOB_READY" => block_job(event, BlockJobStatus::Ready)?,
        "BLOCK_JOB_COMPLETED" => block_job(event, BlockJobStatus::Completed)?,
        "BLOCK_JOB_CANCELLED" => block_job(event, BlockJobStatus::Canceled)?,
        "DEVICE_TRAY_MOVED" => {
            let data = members!(event, {
                id: Option<JsonText>,
                device: Option<JsonText>,
                tray_open "tray-open": bool,
            });
            // The name of a -drive is empty where the medium is a -blockdev.
            let alias = given(data.id).or(given(data.device))?;
            let reason =
                if data.tray_open { TrayChangeReason::Open } else { TrayChangeReason::Close };
            NoticeBody::TrayChange { alias, reason }
        }
        // libvirt's reason is 0 for all of these.
        "WAKEUP" => NoticeBody::PmWakeup { reason: 0 },
        "SUSPEND" => NoticeBody::PmSuspend { target: PmSuspendCause::Memory, reason: 0 },
        "SUSPEND_DISK" => NoticeBody::PmSuspend { target: PmSuspendCause::Disk, reason: 0 },
        "BALLOON_CHANGE" => {
            let data = members!(event, { actual: u64 });
            NoticeBody::BalloonChange { actual: kib(data.actual) }
        }
        "DEVICE_DELETED" => NoticeBody::DeviceRemoved { alias: device(event)? },
        "DEVICE_UNPLUG_GUEST_ERROR" => NoticeBody::DeviceRemovalFailed { alias: device(event)? },
        "MIGRATION_PASS" => {
            let data = members!(event, { pass: i32 });
            NoticeBody::MigrationIteration { iteration: data.pass }
        }
        "BLOCK_WRITE_THRESHOLD" => {
            let data = members!(event, {
                node "node-name": JsonText,
                threshold "write-threshold": u64,
                excess "amount-exceeded": u64,
            });
            let disk = data.node.0;
            NoticeBody::BlockThreshold {
                disk,
                path: None,
                threshold: data.threshold,
                excess: data.excess,
            }
        }
        "MEMORY_FAILURE" => {
            let data = members!(event, { recipient: JsonText, action: JsonText, flags: Flags });
            NoticeBody::MemoryFailure {
                recipient: MemoryFailureRecipient::from_name(&data.recipient.0)?,
                action: MemoryFailureAction::from_name(&data.action.0)?,
                action_required: data.flags.action_required,
                recursive: data.flags.recursive,
                other_flags: 0,
            }
        }
        "MEMORY_DEVICE_SIZE_CHANGE" => {
            let data = members!(event, { id: Option<JsonText>, size: u64 });
            NoticeBody::MemoryDeviceSizeChange { alias: given(data.id)?, size: kib(data.size) }
        }
        "VSERPORT_CHANGE" => {
            let data = members!(event, { id: JsonText, open: bool });
            let state =
                if data.open { ChannelState::Connected } else { ChannelState::Disconnected };
            // Not an agent's: that is known by the name of the channel, which QEMU does not send.
            NoticeBody::ChannelLifecycle {
                channel: data.id.0,
                state,
                reason: ChannelReason::Channel,
            }
        }
        _ => return None,
    })
}

fn io_error(event: &Event<'_>) -> Option<NoticeBody> {
    let data = members!(event, {
        device: Option<JsonText>,
        qom_path "qom-path": Option<JsonText>,
        node "node-name": Option<JsonText>,
        action: JsonText,
        nospace: Option<bool>,
    });
    let action = match &*data.action.0 {
        "ignore" => IoErrorAction::None,
        "report" => IoErrorAction::Report,
        "stop" => IoErrorAction::Pause,
        _ => return None,
    };
    // A -blockdev has no name of its own. Newer QEMUs send the path of the device that uses it.
    let qom_path = given(data.qom_path);
    let alias = given(data.device)
        .or_else(|| qom_path.as_deref().and_then(device_id).map(Text::from))
        .or(given(data.node))
        .or(qom_path)
        .unwrap_or_default();
    // `reason` is a sentence of the C library, in the language of QEMU's environment.
    let reason = if data.nospace == Some(true) { "enospc".into() } else { Text::default() };
    Some(NoticeBody::IoError { path: Text::default(), alias, action, reason })
}

/// The id of the device at this path, or of the one that it is a part of.
fn device_id(qom_path: &str) -> Option<&str> {
    let id = qom_path.strip_prefix("/machine/peripheral/")?.split('/').next()?;
    Some(id).filter(|id| !id.is_empty())
}

fn block_job(event: &Event<'_>, status: BlockJobStatus) -> Option<NoticeBody> {
    let data = members!(event, { device: JsonText, job "type": JsonText, error: Option<JsonText> });
    let job = match &*data.job.0 {
        "stream" => BlockJobType::Pull,
        "mirror" => BlockJobType::Copy,
        // That of the active layer, too: QEMU has one type for both.
        "commit" => BlockJobType::Commit,
        "backup" => BlockJobType::Backup,
        _ => return None,
    };
    let status = match (status, data.error) {
        (BlockJobStatus::Completed, Some(_)) => BlockJobStatus::Failed,
        (status, _) => status,
    };
    Some(NoticeBody::BlockJob { disk: data.device.0, job, status })
}

/// The id of a device; `None` if it has none.
fn device(event: &Event<'_>) -> Option<Text> {
    let data = members!(event, { device: Option<JsonText> });
    given(data.device)
}

fn graphics(event: &Event<'_>, phase: GraphicsPhase) -> Option<NoticeBody> {
    let data = members!(event, { server: Peer, client: Peer });
    let Peer { host, service, port, family, auth, .. } = data.server;
    let local = address(host, service, port, &family)?;
    let Peer { host, service, port, family, x509_dname, sasl_username, .. } = data.client;
    let remote = address(host, service, port, &family)?;
    let identity =
        |kind: &str, name| Some(GraphicsIdentity { kind: kind.into(), name: given(name)? });
    let identities = [identity("x509dname", x509_dname), identity("saslUsername", sasl_username)];
    Some(NoticeBody::Graphics {
        phase,
        local,
        remote,
        auth_scheme: given(auth).unwrap_or_default(),
        identities: identities.into_iter().flatten().collect(),
    })
}

fn address(
    host: JsonText,
    service: Option<JsonText>,
    port: Option<JsonText>,
    family: &JsonText,
) -> Option<GraphicsAddress> {
    // vsock and unknown have no number in libvirt.
    let family = AddressFamily::from_name(&family.0)?;
    let service = given(service).or(given(port)).unwrap_or_default();
    let node = host.0;
    Some(match family {
        // QEMU has the path of a VNC socket in `service`.
        AddressFamily::Unix if node.is_empty() => {
            GraphicsAddress { family, node: service, service: Text::default() }
        }
        _ => GraphicsAddress { family, node, service },
    })
}

/// A text that is there and is not empty.
fn given(text: Option<JsonText>) -> Option<Text> {
    text.map(|text| text.0).filter(|text| !text.is_empty())
}

/// Bytes in KiB, rounded up as libvirt does.
fn kib(bytes: u64) -> u64 {
    bytes.div_ceil(1024)
}

#[cfg(test)]
mod tests;
