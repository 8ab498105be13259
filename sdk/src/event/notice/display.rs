//! Notices in words.

use std::fmt;

use super::{BlockJobType, ChannelReason, IoErrorAction, NoticeBody, Text};

/// One line for people, without domain and kind.
impl fmt::Display for NoticeBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |text: &Option<Text>| text.as_deref().unwrap_or("none").to_owned();
        match self {
            Self::RtcChange { offset } => write!(f, "{offset} s"),
            Self::Watchdog { action } => write!(f, "{}", Words(action)),
            Self::IoError { path, alias, action, reason } => {
                if !alias.is_empty() {
                    write!(f, "{alias}: ")?;
                }
                match action {
                    IoErrorAction::None => f.write_str("ignored")?,
                    IoErrorAction::Pause => f.write_str("paused")?,
                    IoErrorAction::Report => f.write_str("reported to the guest")?,
                    action => write!(f, "{action}")?,
                }
                match &**reason {
                    "" => {}
                    "enospc" => f.write_str(", no space left")?,
                    reason => write!(f, ", {reason}")?,
                }
                if path.is_empty() { Ok(()) } else { write!(f, " ({path})") }
            }
            Self::Graphics { phase, local, remote, auth_scheme, identities } => {
                write!(f, "{}: {remote} to {local}", Words(phase))?;
                if !auth_scheme.is_empty() {
                    write!(f, ", {auth_scheme}")?;
                }
                identities.iter().try_for_each(|id| write!(f, ", {} {}", id.kind, id.name))
            }
            Self::ControlError {} => Ok(()),
            Self::BlockJob { disk, job: BlockJobType::Unspecified, status } => {
                write!(f, "{disk}: {status}")
            }
            Self::BlockJob { disk, job, status } => write!(f, "{disk}: {} {status}", Words(job)),
            Self::DiskChange { old_path, new_path, alias, reason } => {
                let reason = Words(reason);
                write!(f, "{alias}: {} to {} ({reason})", text(old_path), text(new_path))
            }
            Self::TrayChange { alias, reason } => write!(f, "{alias}: {reason}"),
            Self::PmWakeup { .. }
            | Self::PmSuspend { target: crate::PmSuspendCause::Unspecified, .. } => Ok(()),
            Self::PmSuspend { target, .. } => write!(f, "{target}"),
            Self::BalloonChange { actual } => write!(f, "{actual} KiB"),
            Self::DeviceRemoved { alias }
            | Self::DeviceAdded { alias }
            | Self::DeviceRemovalFailed { alias } => f.write_str(alias),
            Self::Tunable { params } | Self::JobCompleted { params } => write!(f, "{params}"),
            Self::AgentLifecycle { state, reason } => write!(f, "{state}{}", Cause(reason)),
            Self::ChannelLifecycle { channel, state, reason } => {
                write!(f, "{channel}: {state}{}", Cause(reason))
            }
            Self::MigrationIteration { iteration } => write!(f, "{iteration}"),
            Self::MetadataChange { metadata, uri: None } => write!(f, "{metadata}"),
            Self::MetadataChange { metadata, uri: Some(uri) } => write!(f, "{metadata} {uri}"),
            Self::BlockThreshold { disk, path, threshold, excess } => {
                write!(f, "{disk}: {threshold} bytes, by {excess}")?;
                path.as_deref().map_or(Ok(()), |path| write!(f, " ({path})"))
            }
            Self::MemoryFailure { recipient, action, action_required, recursive, other_flags } => {
                write!(f, "{recipient}: {action}")?;
                if *action_required {
                    f.write_str(", action required")?;
                }
                if *recursive {
                    f.write_str(", recursive")?;
                }
                if *other_flags == 0 { Ok(()) } else { write!(f, ", flags {other_flags:#x}") }
            }
            Self::MemoryDeviceSizeChange { alias, size } => write!(f, "{alias}: {size} KiB"),
            Self::NicMacChange { alias, old_mac, new_mac } => {
                write!(f, "{alias}: {old_mac} to {new_mac}")
            }
            Self::VcpuRemoved { vcpu } => write!(f, "{vcpu}"),
        }
    }
}

/// The name of a number, as people write it.
struct Words<'a, T>(&'a T);

impl<T: fmt::Display> fmt::Display for Words<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string().replace('_', " "))
    }
}

/// ` (reason)`, or nothing where there is none.
struct Cause<'a>(&'a ChannelReason);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ChannelReason::Unspecified => Ok(()),
            reason => write!(f, " ({})", Words(reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        AddressFamily, BlockJobStatus, ChannelState, GraphicsAddress, GraphicsIdentity,
        GraphicsPhase, MemoryFailureAction, MemoryFailureRecipient, PmSuspendCause, WatchdogAction,
    };

    #[test]
    fn a_notice_is_one_line_of_words() {
        let io_error = |path: &str, alias: &str, reason: &str| NoticeBody::IoError {
            path: path.into(),
            alias: alias.into(),
            action: IoErrorAction::Pause,
            reason: reason.into(),
        };
        let address = |family, node: &str| GraphicsAddress {
            family,
            node: node.into(),
            service: "5900".into(),
        };
        let lines = [
            (
                io_error("/x.qcow2", "virtio-disk0", "enospc"),
                "virtio-disk0: paused, no space left (/x.qcow2)",
            ),
            (io_error("", "", ""), "paused"),
            (NoticeBody::Watchdog { action: WatchdogAction::InjectNmi }, "inject nmi"),
            (NoticeBody::Watchdog { action: WatchdogAction::Unknown(9) }, "unknown(9)"),
            (
                NoticeBody::BlockJob {
                    disk: "vda".into(),
                    job: BlockJobType::ActiveCommit,
                    status: BlockJobStatus::Ready,
                },
                "vda: active commit ready",
            ),
            (
                NoticeBody::Graphics {
                    phase: GraphicsPhase::Connect,
                    local: address(AddressFamily::Ipv4, "127.0.0.1"),
                    remote: address(AddressFamily::Ipv6, "::1"),
                    auth_scheme: "sasl".into(),
                    identities: vec![GraphicsIdentity {
                        kind: "saslUsername".into(),
                        name: "fred".into(),
                    }],
                },
                "connect: [::1]:5900 to 127.0.0.1:5900, sasl, saslUsername fred",
            ),
            (NoticeBody::ControlError {}, ""),
            (NoticeBody::PmSuspend { target: PmSuspendCause::Disk, reason: 0 }, "disk"),
            (
                NoticeBody::AgentLifecycle {
                    state: ChannelState::Disconnected,
                    reason: ChannelReason::DomainStarted,
                },
                "disconnected (domain started)",
            ),
            (
                NoticeBody::MemoryFailure {
                    recipient: MemoryFailureRecipient::Guest,
                    action: MemoryFailureAction::Inject,
                    action_required: true,
                    recursive: true,
                    other_flags: 8,
                },
                "guest: inject, action required, recursive, flags 0x8",
            ),
        ];
        for (body, line) in lines {
            assert_eq!(body.to_string(), line);
        }
    }
}
