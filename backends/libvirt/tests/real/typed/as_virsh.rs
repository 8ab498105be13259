//! An event as `virsh event` of libvirt 9.0 prints it.

use virevent::{
    BlockJobStatus, BlockJobType, Change, ChannelReason, ChannelState, CrashCause, DefineCause,
    DiskChangeReason, DomainEvent, GraphicsAddress, GraphicsIdentity, IoErrorAction, NoticeBody,
    ParamValue, Params, PmSuspendCause, ResumeCause, ShutdownCause, StartCause, StopCause,
    SuspendCause, Text, TrayChangeReason, UndefineCause,
};

/// The event in virsh's words; what virsh does not print, in words that equal none of its.
pub(super) fn as_virsh(event: &DomainEvent) -> String {
    let Some(domain) = event.domain() else { return format!("no event: {event}") };
    let (name, rest) = match event {
        DomainEvent::Lifecycle(event) => ("lifecycle", format!(": {}", lifecycle(event.change))),
        DomainEvent::Reboot(_) => ("reboot", String::new()),
        DomainEvent::Notice(notice) => body(&notice.body),
        event => ("unknown", format!(": {event:?}")),
    };
    format!("event '{name}' for domain '{}'{rest}", domain.name())
}

fn lifecycle(change: Change) -> &'static str {
    match change {
        Change::Defined(DefineCause::Added) => "Defined Added",
        Change::Undefined(UndefineCause::Removed) => "Undefined Removed",
        Change::Started(StartCause::Booted) => "Started Booted",
        Change::Started(StartCause::Restored) => "Started Restored",
        Change::Started(StartCause::Wakeup) => "Started Event wakeup",
        Change::Suspended(SuspendCause::Paused) => "Suspended Paused",
        Change::Suspended(SuspendCause::IoError) => "Suspended I/O Error",
        Change::Suspended(SuspendCause::Watchdog) => "Suspended Watchdog",
        Change::Resumed(ResumeCause::Unpaused) => "Resumed Unpaused",
        Change::Resumed(ResumeCause::FromSnapshot) => "Resumed Snapshot",
        Change::ShuttingDown(ShutdownCause::Guest) => "Shutdown Finished after guest request",
        Change::ShuttingDown(ShutdownCause::Host) => "Shutdown Finished after host request",
        Change::Stopped(StopCause::Shutdown) => "Stopped Shutdown",
        Change::Stopped(StopCause::Destroyed) => "Stopped Destroyed",
        Change::Stopped(StopCause::Crashed) => "Stopped Crashed",
        Change::Stopped(StopCause::Saved) => "Stopped Saved",
        Change::PmSuspended(PmSuspendCause::Memory) => "PMSuspended Memory",
        Change::PmSuspended(PmSuspendCause::Disk) => "PMSuspended Disk",
        Change::Crashed(CrashCause::Panicked) => "Crashed Panicked",
        _ => "of this scenario it is none",
    }
}

fn body(body: &NoticeBody) -> (&'static str, String) {
    let text = |text: &Option<Text>| text.as_deref().unwrap_or("<null>").to_owned();
    match body {
        NoticeBody::RtcChange { offset } => ("rtc-change", format!(": {offset}")),
        NoticeBody::Watchdog { action } => ("watchdog", format!(": {action}")),
        NoticeBody::IoError { path, alias, action, reason } => {
            let action = match action {
                IoErrorAction::None => "none",
                IoErrorAction::Pause => "pause",
                IoErrorAction::Report => "report",
                _ => "unknown",
            };
            ("io-error-reason", format!(": {path} ({alias}) {action} due to {reason}"))
        }
        NoticeBody::Graphics { phase, local, remote, auth_scheme, identities } => {
            let local = address(local);
            let remote = address(remote);
            let rest = format!(": {phase} local[{local}] remote[{remote}] {auth_scheme}");
            let identity = |id: &GraphicsIdentity| format!("\n\t{}={}", id.kind, id.name);
            let rest = rest + &identities.iter().map(identity).collect::<String>();
            ("graphics", rest)
        }
        NoticeBody::ControlError {} => ("control-error", String::new()),
        NoticeBody::BlockJob { disk, job, status } => {
            let job = match job {
                BlockJobType::Pull => "Block Pull",
                BlockJobType::Copy => "Block Copy",
                BlockJobType::Commit => "Block Commit",
                BlockJobType::ActiveCommit => "Active Block Commit",
                BlockJobType::Backup => "Backup",
                _ => "Unknown job",
            };
            let status = match status {
                BlockJobStatus::Completed => "completed",
                BlockJobStatus::Failed => "failed",
                BlockJobStatus::Canceled => "canceled",
                BlockJobStatus::Ready => "ready",
                _ => "unknown",
            };
            ("block-job-2", format!(": {job} for {disk} {status}"))
        }
        NoticeBody::DiskChange { old_path, new_path, alias, reason } => {
            let reason = match reason {
                DiskChangeReason::MissingOnStart => "changed",
                DiskChangeReason::DropMissingOnStart => "dropped",
                _ => "unknown",
            };
            let change =
                format!(" disk {alias}: {} -> {}: {reason}", text(old_path), text(new_path));
            ("disk-change", change)
        }
        NoticeBody::TrayChange { alias, reason } => {
            let reason = match reason {
                TrayChangeReason::Open => "opened",
                TrayChangeReason::Close => "closed",
                _ => "unknown",
            };
            ("tray-change", format!(" disk {alias}: {reason}"))
        }
        NoticeBody::PmWakeup { .. } => ("pm-wakeup", String::new()),
        NoticeBody::PmSuspend { target: PmSuspendCause::Disk, .. } => {
            ("pm-suspend-disk", String::new())
        }
        NoticeBody::PmSuspend { .. } => ("pm-suspend", String::new()),
        NoticeBody::BalloonChange { actual } => ("balloon-change", format!(": {actual}KiB")),
        NoticeBody::DeviceRemoved { alias } => ("device-removed", format!(": {alias}")),
        NoticeBody::DeviceAdded { alias } => ("device-added", format!(": {alias}")),
        NoticeBody::Tunable { params } => ("tunable", lines(params)),
        NoticeBody::AgentLifecycle { state, reason } => {
            let state = match state {
                ChannelState::Connected => "connected",
                ChannelState::Disconnected => "disconnected",
                _ => "unknown",
            };
            let reason = match reason {
                ChannelReason::DomainStarted => "domain started",
                ChannelReason::Channel => "channel event",
                _ => "unknown",
            };
            ("agent-lifecycle", format!(": state: '{state}' reason: '{reason}'"))
        }
        NoticeBody::MigrationIteration { iteration } => {
            ("migration-iteration", format!(": iteration: '{iteration}'"))
        }
        NoticeBody::JobCompleted { params } => ("job-completed", lines(params)),
        NoticeBody::MetadataChange { metadata, uri } => {
            ("metadata-change", format!(": type {metadata}, uri {}", text(uri)))
        }
        NoticeBody::BlockThreshold { disk, path, threshold, excess } => {
            let rest = format!(": dev: {disk}({}) {threshold} {excess}", text(path));
            ("block-threshold", rest)
        }
        NoticeBody::DeviceRemovalFailed { alias } => {
            ("device-removal-failed", format!(": {alias}"))
        }
        NoticeBody::MemoryFailure { recipient, action, action_required, recursive, .. } => {
            let flags = [i32::from(*action_required), i32::from(*recursive)];
            let rest = format!(
                ":\nrecipient: {recipient}\naction: {action}\nflags:\n\taction required: {}\n\trecursive: {}",
                flags[0], flags[1]
            );
            ("memory-failure", rest)
        }
        NoticeBody::MemoryDeviceSizeChange { alias, size } => {
            ("memory-device-size-change", format!(":\nalias: {alias}\nsize: {size}"))
        }
        body => ("unknown", format!(": {body:?}")),
    }
}

fn address(address: &GraphicsAddress) -> String {
    let family = match address.family {
        virevent::AddressFamily::Ipv4 => "IPv4",
        virevent::AddressFamily::Ipv6 => "IPv6",
        virevent::AddressFamily::Unix => "unix",
        _ => "unknown",
    };
    format!("{family} {} {}", address.node, address.service)
}

/// One parameter a line.
fn lines(params: &Params) -> String {
    let value = |value: &ParamValue| match value {
        ParamValue::Bool(value) => i32::from(*value).to_string(),
        value => value.to_string(),
    };
    let line = |(name, param): &(Text, ParamValue)| format!("\n\t{name}: {}", value(param));
    format!(":{}", params.0.iter().map(line).collect::<String>())
}
