//! The procedure numbers of libvirt's main program (`remote_protocol.x`), and the table of its
//! domain events.

macro_rules! procedures {
    ($( $(#[$meta:meta])* $name:ident = $number:literal; )+) => {
        $( $(#[$meta])* pub const $name: i32 = $number; )+

        /// The name of a procedure that this crate calls; for error messages.
        pub fn name(procedure: i32) -> &'static str {
            match procedure {
                $( $number => stringify!($name), )+
                _ => "a call",
            }
        }
    };
}

procedures! {
    /// Opens a hypervisor: [`Open`](super::Open).
    CONNECT_OPEN = 1;
    /// Closes the hypervisor; the server closes the connection after its reply.
    CONNECT_CLOSE = 2;
    /// uuid → [`Domain`](super::Domain).
    DOMAIN_LOOKUP_BY_UUID = 24;
    /// → string: the host's name.
    CONNECT_GET_HOSTNAME = 59;
    /// int → bool: whether the server has a feature.
    CONNECT_SUPPORTS_FEATURE = 60;
    /// → array of int: the methods of authentication that the server accepts; see [`auth`].
    AUTH_LIST = 66;
    /// → string: the SASL mechanisms that the server accepts, separated by commas.
    AUTH_SASL_INIT = 67;
    /// [`SaslStart`](super::SaslStart) → [`SaslReply`](super::SaslReply).
    AUTH_SASL_START = 68;
    /// [`SaslStep`](super::SaslStep) → [`SaslReply`](super::SaslReply).
    AUTH_SASL_STEP = 69;
    /// → bool: authenticates the client by the host's polkit.
    AUTH_POLKIT = 70;
    /// Registers for lifecycle events, at servers before 1.2.1.
    CONNECT_DOMAIN_EVENT_REGISTER = 105;
    /// Deregisters from them.
    CONNECT_DOMAIN_EVENT_DEREGISTER = 106;
    /// [`Domain`](super::Domain) → bool: whether it is persistent.
    DOMAIN_IS_PERSISTENT = 151;
    /// int event id: registers for events without a callback id, at servers before 1.2.1.
    CONNECT_DOMAIN_EVENT_REGISTER_ANY = 167;
    /// int event id: deregisters from them.
    CONNECT_DOMAIN_EVENT_DEREGISTER_ANY = 168;
    /// [`Domain`](super::Domain), unsigned flags → int state, int reason.
    DOMAIN_GET_STATE = 212;
    /// [`ListAllDomains`](super::ListAllDomains) → array of [`Domain`](super::Domain), unsigned
    /// count.
    CONNECT_LIST_ALL_DOMAINS = 273;
    /// [`Register`](super::Register) → int callback id.
    CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY = 316;
    /// int callback id: deregisters it.
    CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY = 317;
    /// [`StatsRequest`](super::StatsRequest) → array of [`StateStats`](super::StateStats).
    CONNECT_GET_ALL_DOMAIN_STATS = 344;
}

/// The lifecycle event: [`Lifecycle`](super::Lifecycle).
pub const EVENT_LIFECYCLE: i32 = 318;
/// The reboot event: a callback id and a [`Domain`](super::Domain).
pub const EVENT_REBOOT: i32 = 319;
/// The lifecycle event of servers before 1.2.1, without a callback id.
pub const LEGACY_LIFECYCLE: i32 = 107;
/// The reboot event of servers before 1.2.1, without a callback id.
pub const LEGACY_REBOOT: i32 = 169;

/// Keepalive program: asks for a [`PONG`].
pub const PING: i32 = 1;
/// Keepalive program: answers a [`PING`].
pub const PONG: i32 = 2;

/// Methods of authentication.
pub mod auth {
    /// None is needed.
    pub const NONE: i32 = 0;
    /// SASL: a user and a secret.
    pub const SASL: i32 = 1;
    /// The rules of the host's polkit.
    pub const POLKIT: i32 = 2;
}

/// Features of a server.
pub mod feature {
    /// The keepalive program. No other feature may be asked for before `CONNECT_OPEN`. After the
    /// question the server sends pings of its own.
    pub const KEEPALIVE: i32 = 10;
    /// Registrations with callback ids, since 1.2.1.
    pub const EVENT_CALLBACK: i32 = 14;
}

/// A kind of domain event, by libvirt's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// libvirt's event id (`virDomainEventID`), for which a client registers.
    pub id: u32,
    /// The procedure of its messages.
    pub procedure: i32,
    /// The procedure of its messages without a callback id; events above 15 have none.
    pub legacy: Option<i32>,
    /// Whether an int, the reason, comes before the domain.
    pub reason_first: bool,
}

impl Event {
    const fn new(id: u32, procedure: i32, legacy: i32) -> Self {
        // 0 stands for none in the table: no procedure has this number.
        let legacy = if legacy == 0 { None } else { Some(legacy) };
        Self { id, procedure, legacy, reason_first: matches!(id, 11 | 12 | 14) }
    }
}

/// Every domain event up to libvirt 12.8, by id.
#[rustfmt::skip]
pub static EVENTS: [Event; 30] = [
    Event::new(0, EVENT_LIFECYCLE, LEGACY_LIFECYCLE),
    Event::new(1, EVENT_REBOOT, LEGACY_REBOOT),
    Event::new(2, 320, 170),  // rtc-change
    Event::new(3, 321, 171),  // watchdog
    Event::new(4, 322, 172),  // io-error
    Event::new(5, 323, 173),  // graphics
    Event::new(6, 324, 195),  // io-error-reason
    Event::new(7, 325, 224),  // control-error
    Event::new(8, 326, 241),  // block-job
    Event::new(9, 327, 248),  // disk-change
    Event::new(10, 328, 268), // tray-change
    Event::new(11, 329, 269), // pmwakeup
    Event::new(12, 330, 270), // pmsuspend
    Event::new(13, 331, 276), // balloon-change
    Event::new(14, 332, 292), // pmsuspend-disk
    Event::new(15, 333, 311), // device-removed
    Event::new(16, 339, 0),   // block-job-2
    Event::new(17, 346, 0),   // tunable
    Event::new(18, 348, 0),   // agent-lifecycle
    Event::new(19, 354, 0),   // device-added
    Event::new(20, 359, 0),   // migration-iteration
    Event::new(21, 363, 0),   // job-completed
    Event::new(22, 367, 0),   // device-removal-failed
    Event::new(23, 379, 0),   // metadata-change
    Event::new(24, 385, 0),   // block-threshold
    Event::new(25, 423, 0),   // memory-failure
    Event::new(26, 438, 0),   // memory-device-size-change
    Event::new(27, 453, 0),   // nic-mac-change
    Event::new(28, 454, 0),   // vcpu-removed
    Event::new(29, 455, 0),   // channel-lifecycle
];

/// The event whose messages have this procedure, and whether they are legacy ones without a
/// callback id.
#[must_use]
pub fn event_of(procedure: i32) -> Option<(&'static Event, bool)> {
    EVENTS.iter().find_map(|event| {
        let legacy = event.legacy == Some(procedure);
        (legacy || event.procedure == procedure).then_some((event, legacy))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_ordered_by_id_and_has_each_procedure_once() {
        assert!(EVENTS.iter().enumerate().all(|(at, event)| event.id as usize == at));
        for event in &EVENTS {
            assert_eq!(event_of(event.procedure), Some((event, false)));
            if let Some(legacy) = event.legacy {
                assert_eq!(event_of(legacy), Some((event, true)));
            }
        }
    }
}
