//! A notice of every kind.

use virevent::{
    AddressFamily, BlockJobStatus, BlockJobType, ChannelReason, ChannelState, DiskChangeReason,
    GraphicsAddress, GraphicsIdentity, GraphicsPhase, IoErrorAction, MemoryFailureAction,
    MemoryFailureRecipient, MetadataType, NoticeBody, ParamValue, PmSuspendCause, TrayChangeReason,
    WatchdogAction,
};

/// What can happen beside lifecycle and reboot: each kind of notice once, with a value in every
/// field. For tests of programs that handle all of them, and as examples of how to build one.
///
/// ```
/// use std::time::SystemTime;
/// use virevent::Notice;
/// use virevent_testkit::FakeHypervisor;
///
/// let fake = FakeHypervisor::new();
/// let web = fake.create("web")?;
/// for body in virevent_testkit::notices() {
///     fake.emit(Notice::new(web.clone(), body, SystemTime::now()));
/// }
/// # Ok::<(), virevent_testkit::OpError>(())
/// ```
#[must_use]
pub fn notices() -> Vec<NoticeBody> {
    vec![
        NoticeBody::RtcChange { offset: -3600 },
        NoticeBody::Watchdog { action: WatchdogAction::Reset },
        NoticeBody::IoError {
            path: "/var/lib/libvirt/images/web.qcow2".into(),
            alias: "virtio-disk0".into(),
            action: IoErrorAction::Pause,
            reason: "enospc".into(),
        },
        NoticeBody::Graphics {
            phase: GraphicsPhase::Initialize,
            local: address(AddressFamily::Ipv4, "127.0.0.1", "5900"),
            remote: address(AddressFamily::Ipv6, "::1", "41784"),
            auth_scheme: "vnc".into(),
            identities: vec![identity("x509dname", "CN=fred"), identity("saslUsername", "fred")],
        },
        NoticeBody::ControlError {},
        NoticeBody::BlockJob {
            disk: "vda".into(),
            job: BlockJobType::Copy,
            status: BlockJobStatus::Ready,
        },
        NoticeBody::DiskChange {
            old_path: Some("/isos/gone.iso".into()),
            new_path: Some("/isos/other.iso".into()),
            alias: "ide0-1-1".into(),
            reason: DiskChangeReason::DropMissingOnStart,
        },
        NoticeBody::TrayChange { alias: "ide0-1-0".into(), reason: TrayChangeReason::Close },
        NoticeBody::PmWakeup { reason: 4 },
        NoticeBody::PmSuspend { target: PmSuspendCause::Disk, reason: 5 },
        NoticeBody::BalloonChange { actual: 524_288 },
        NoticeBody::DeviceRemoved { alias: "net1".into() },
        NoticeBody::DeviceAdded { alias: "net2".into() },
        NoticeBody::DeviceRemovalFailed { alias: "net3".into() },
        NoticeBody::Tunable {
            params: [
                ("blkdeviotune.disk", ParamValue::Text("vda".into())),
                ("blkdeviotune.total_bytes_sec", ParamValue::Int(u64::MAX.into())),
                ("cputune.emulator_period", ParamValue::Int(-1)),
            ]
            .map(|(name, value)| (name.into(), value))
            .into_iter()
            .collect(),
        },
        NoticeBody::AgentLifecycle {
            state: ChannelState::Connected,
            reason: ChannelReason::Channel,
        },
        NoticeBody::ChannelLifecycle {
            channel: "org.qemu.guest_agent.0".into(),
            state: ChannelState::Disconnected,
            reason: ChannelReason::DomainStarted,
        },
        NoticeBody::MigrationIteration { iteration: 3 },
        NoticeBody::JobCompleted {
            params: [
                ("operation", ParamValue::Int(5)),
                ("time_elapsed", ParamValue::Int(1 << 40)),
                ("speed", ParamValue::Double(1.5)),
                ("success", ParamValue::Bool(true)),
            ]
            .map(|(name, value)| (name.into(), value))
            .into_iter()
            .collect(),
        },
        NoticeBody::MetadataChange {
            metadata: MetadataType::Element,
            uri: Some("urn:example:meta".into()),
        },
        NoticeBody::BlockThreshold {
            disk: "vda[3]".into(),
            path: Some("/var/lib/libvirt/images/web.qcow2".into()),
            threshold: 1 << 30,
            excess: 4096,
        },
        NoticeBody::MemoryFailure {
            recipient: MemoryFailureRecipient::Guest,
            action: MemoryFailureAction::Reset,
            action_required: true,
            recursive: false,
            other_flags: 4,
        },
        NoticeBody::MemoryDeviceSizeChange { alias: "virtiomem0".into(), size: 1_048_576 },
        NoticeBody::NicMacChange {
            alias: "net0".into(),
            old_mac: "52:54:00:00:00:01".into(),
            new_mac: "52:54:00:00:00:02".into(),
        },
        NoticeBody::VcpuRemoved { vcpu: 3 },
    ]
}

fn address(family: AddressFamily, node: &str, service: &str) -> GraphicsAddress {
    GraphicsAddress { family, node: node.into(), service: service.into() }
}

fn identity(kind: &str, name: &str) -> GraphicsIdentity {
    GraphicsIdentity { kind: kind.into(), name: name.into() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use virevent::Kind;

    #[test]
    fn notices_has_each_kind_once() {
        let notices = super::notices();
        let kinds: BTreeSet<Kind> = notices.iter().map(|body| body.kind()).collect();
        assert_eq!(kinds.len(), notices.len());
        assert_eq!(kinds.len() + 2, Kind::TYPED.len(), "lifecycle and reboot are no notices");
    }
}
