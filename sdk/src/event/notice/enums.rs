//! The enumerations of notices, with libvirt's numbers.

use super::super::codes::codes;

codes! {
    /// What happened when a guest's watchdog fired (`virDomainEventWatchdogAction`).
    WatchdogAction {
        /// Nothing.
        0 = None "none",
        /// The guest was paused.
        1 = Pause "pause",
        /// The guest was reset.
        2 = Reset "reset",
        /// The guest was powered off.
        3 = Poweroff "poweroff",
        /// The guest was asked to shut down.
        4 = Shutdown "shutdown",
        /// Nothing but a message in the hypervisor's log.
        5 = Debug "debug",
        /// A non-maskable interrupt was injected into the guest.
        6 = InjectNmi "inject_nmi",
    }
}

codes! {
    /// What happened after a failed read or write of a disk (`virDomainEventIOErrorAction`).
    IoErrorAction {
        /// The error was ignored.
        0 = None "none",
        /// The guest was paused.
        1 = Pause "pause",
        /// The guest got the error.
        2 = Report "report",
    }
}

codes! {
    /// How far a client of a graphical console is (`virDomainEventGraphicsPhase`).
    GraphicsPhase {
        /// It connected.
        0 = Connect "connect",
        /// It authenticated.
        1 = Initialize "initialize",
        /// It disconnected.
        2 = Disconnect "disconnect",
    }
}

codes! {
    /// The family of an address (`virDomainEventGraphicsAddressType`).
    AddressFamily {
        /// IPv4.
        0 = Ipv4 "ipv4",
        /// IPv6.
        1 = Ipv6 "ipv6",
        /// A unix socket.
        2 = Unix "unix",
    }
}

codes! {
    /// The type of a block job (`virDomainBlockJobType`).
    BlockJobType, unspecified = 0 {
        /// Data is pulled from the backing file into the disk.
        1 = Pull "pull",
        /// The disk is copied to another image.
        2 = Copy "copy",
        /// Data is committed into the backing file.
        3 = Commit "commit",
        /// Data is committed from the active layer.
        4 = ActiveCommit "active_commit",
        /// The disk is backed up.
        5 = Backup "backup",
    }
}

codes! {
    /// The status of a block job (`virConnectDomainEventBlockJobStatus`).
    BlockJobStatus {
        /// It completed.
        0 = Completed "completed",
        /// It failed.
        1 = Failed "failed",
        /// It was canceled.
        2 = Canceled "canceled",
        /// A copy or active commit is ready to be completed.
        3 = Ready "ready",
    }
}

codes! {
    /// Why a disk was changed (`virConnectDomainEventDiskChangeReason`).
    DiskChangeReason {
        /// Its source was missing at the start, and was removed from the configuration of this run.
        0 = MissingOnStart "missing_on_start",
        /// Its source was missing at the start, and the disk was dropped.
        1 = DropMissingOnStart "drop_missing_on_start",
    }
}

codes! {
    /// What happened to the tray of a drive (`virDomainEventTrayChangeReason`).
    TrayChangeReason {
        /// It opened.
        0 = Open "open",
        /// It closed.
        1 = Close "close",
    }
}

codes! {
    /// The state of a channel to the guest (`virConnectDomainEventAgentLifecycleState`).
    ChannelState {
        /// A process in the guest has opened it.
        1 = Connected "connected",
        /// No process in the guest has it open.
        2 = Disconnected "disconnected",
    }
}

codes! {
    /// Why the state of a channel changed (`virConnectDomainEventAgentLifecycleReason`).
    ChannelReason, unspecified = 0 {
        /// The domain started.
        1 = DomainStarted "domain_started",
        /// The channel was opened or closed.
        2 = Channel "channel",
    }
}

codes! {
    /// The metadata that changed (`virDomainMetadataType`).
    MetadataType {
        /// The description.
        0 = Description "description",
        /// The title.
        1 = Title "title",
        /// A custom element.
        2 = Element "element",
    }
}

codes! {
    /// Whose memory failed (`virDomainMemoryFailureRecipientType`).
    MemoryFailureRecipient {
        /// Memory of the hypervisor's process.
        0 = Hypervisor "hypervisor",
        /// Memory of the guest.
        1 = Guest "guest",
    }
}

codes! {
    /// What the hypervisor did about failed memory (`virDomainMemoryFailureActionType`).
    MemoryFailureAction {
        /// Nothing.
        0 = Ignore "ignore",
        /// It injected the failure into the guest.
        1 = Inject "inject",
        /// It ended the guest.
        2 = Fatal "fatal",
        /// It reset the guest.
        3 = Reset "reset",
    }
}
