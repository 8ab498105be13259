//! The answer to each call.

use std::sync::Arc;

use virevent::driver::Listed;
use virevent_libvirt::wire::procs::{self, auth};
use virevent_libvirt::wire::xdr::{Malformed, Reader};
use virevent_libvirt::wire::{
    Domain, ListAllDomains, Open, Register, RemoteError, SaslReply, SaslStart, StateStats,
    StatsRequest, code,
};

use super::encode::{ints, string, wire_domain, written};
use super::faults::{Faults, remote_error};
use super::registrations::Registrations;
use super::state::Shared;
use crate::Host;

// Procedures that virsh calls. A client of domain events needs none of them.
const GET_TYPE: i32 = 3;
const GET_URI: i32 = 110;
const GET_LIB_VERSION: i32 = 157;
const CLOSE_CALLBACK_REGISTER: i32 = 360;
const CLOSE_CALLBACK_UNREGISTER: i32 = 361;

/// The body of a reply, or the error that is sent in its place.
type Answer = Result<Vec<u8>, RemoteError>;

/// One client as the calls see it: what it has done so far. No I/O.
pub(super) struct Client {
    shared: Arc<Shared>,
    pub(super) registered: Registrations,
    authenticated: bool,
    opened: bool,
    /// The client has said goodbye: the connection ends after the reply.
    pub(super) closing: bool,
    /// The client has been answered a list; `LIST_ALL_DOMAINS` is its last call.
    pub(super) has_listed: bool,
}

impl Client {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            registered: Registrations::default(),
            authenticated: false,
            opened: false,
            closing: false,
            has_listed: false,
        }
    }

    fn host(&self) -> &Host {
        &self.shared.host
    }

    fn faults(&self) -> Faults {
        self.shared.state.lock().faults.clone()
    }

    /// The body of the reply to a call.
    pub(super) fn answer(&mut self, procedure: i32, body: &[u8]) -> Answer {
        let faults = self.faults();
        let answer = self.honest_answer(&faults, procedure, body)?;
        Ok(faults.bodies.get(&procedure).cloned().unwrap_or(answer))
    }

    fn honest_answer(&mut self, faults: &Faults, procedure: i32, body: &[u8]) -> Answer {
        if let Some(error) = faults.errors.get(&procedure) {
            return Err(error.clone());
        }
        if faults.lacks.contains(&procedure) {
            return Err(unknown(procedure));
        }
        // Before authentication libvirtd refuses every call but those that authenticate.
        let authenticating = (procs::AUTH_LIST..=procs::AUTH_POLKIT).contains(&procedure);
        if !authenticating && faults.auth != auth::NONE && !self.authenticated {
            return Err(remote_error(code::RPC, "authentication required"));
        }
        let mut args = Reader::new(body);
        match procedure {
            // A list of one kind: libvirtd offers the one that its configuration demands.
            procs::AUTH_LIST => Ok(ints(&[1, faults.auth])),
            procs::AUTH_POLKIT if faults.auth == auth::POLKIT => {
                self.authenticated = true;
                Ok(ints(&[1]))
            }
            procs::AUTH_SASL_INIT if faults.auth == auth::SASL => Ok(string(&faults.mechanisms)),
            procs::AUTH_SASL_START if faults.auth == auth::SASL => {
                let (mechanism, data) = SaslStart::read(&mut args).map_err(malformed)?;
                // No identity to act as, the user, the password.
                let data = data.and_then(|data| String::from_utf8(data).ok()).unwrap_or_default();
                let user = data.strip_prefix('\0').and_then(|data| data.split_once('\0'));
                let is_known = user.is_some_and(|(user, password)| {
                    faults.users.get(user).is_some_and(|known| known == password)
                });
                if mechanism != b"PLAIN" || !is_known {
                    let message = "authentication failed: authentication failed";
                    return Err(remote_error(code::AUTH_FAILED, message));
                }
                self.authenticated = true;
                Ok(written(|body| SaslReply { complete: true, data: None }.write(body)))
            }
            procs::CONNECT_SUPPORTS_FEATURE => {
                let feature = args.i32().map_err(malformed)?;
                // The only feature that libvirtd lets a client ask for before it opens.
                if feature != procs::feature::KEEPALIVE {
                    self.check_open()?;
                }
                Ok(ints(&[i32::from(faults.features.contains(&feature))]))
            }
            procs::CONNECT_OPEN => self.open(&mut args),
            _ => {
                self.check_open()?;
                self.answer_opened(procedure, &mut args)
            }
        }
    }

    fn open(&mut self, args: &mut Reader<'_>) -> Answer {
        let open = Open::read(args).map_err(malformed)?;
        if self.opened {
            return Err(remote_error(code::INTERNAL_ERROR, "connection already open"));
        }
        if open.name.is_none() {
            return Err(remote_error(code::INTERNAL_ERROR, "connection not open"));
        }
        self.opened = true;
        Ok(Vec::new())
    }

    fn check_open(&self) -> Result<(), RemoteError> {
        match self.opened {
            true => Ok(()),
            false => Err(remote_error(code::INTERNAL_ERROR, "hypervisor connection not open")),
        }
    }

    fn answer_opened(&mut self, procedure: i32, args: &mut Reader<'_>) -> Answer {
        match procedure {
            procs::CONNECT_CLOSE => {
                // The daemon hangs up only after it has sent the reply.
                self.closing = true;
                Ok(Vec::new())
            }
            procs::CONNECT_GET_HOSTNAME => Ok(string(self.host().name())),
            GET_TYPE => Ok(string("TEST")),
            GET_URI => Ok(string("test:///default")),
            GET_LIB_VERSION => Ok(written(|body| body.u64(9_000_000))),
            CLOSE_CALLBACK_REGISTER | CLOSE_CALLBACK_UNREGISTER => Ok(Vec::new()),
            procs::CONNECT_LIST_ALL_DOMAINS => {
                self.has_listed = true;
                self.list(args)
            }
            procs::CONNECT_GET_ALL_DOMAIN_STATS => self.stats(args),
            procs::DOMAIN_GET_STATE => {
                let (state, reason) = self.find(args)?.state.codes();
                Ok(ints(&[state, reason]))
            }
            procs::DOMAIN_LOOKUP_BY_UUID => {
                let uuid = args.uuid().map_err(malformed)?;
                let found = self.find_by_uuid(uuid)?;
                Ok(written(|body| wire_domain(&found.domain).write(body)))
            }
            // What is unknown counts as persistent, as in `list` below: both must agree.
            procs::DOMAIN_IS_PERSISTENT => {
                Ok(ints(&[i32::from(self.find(args)?.persistent != Some(false))]))
            }
            procs::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY => {
                let register = Register::read(args).map_err(malformed)?;
                let last = self.faults().last_event;
                // The counter is the daemon's, not the connection's: so ids are not small numbers
                // that a client could take for an index.
                let next = || {
                    self.shared.state.change(|state| {
                        state.next_callback += 1;
                        state.next_callback - 1
                    })
                };
                self.registered
                    .register(register.event, last, next)
                    .map(|callback| ints(&[callback]))
            }
            procs::CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY => {
                let callback = args.i32().map_err(malformed)?;
                self.registered.deregister(|known| known.callback == Some(callback))?;
                Ok(Vec::new())
            }
            // The oldest registration, for lifecycle events only. libvirtd 9.0 answers 0, not the
            // number of callbacks.
            procs::CONNECT_DOMAIN_EVENT_REGISTER => {
                let last = self.faults().last_event;
                self.registered.register_legacy(0, last).map(|()| ints(&[0]))
            }
            procs::CONNECT_DOMAIN_EVENT_DEREGISTER => {
                self.registered.deregister(|known| known.callback.is_none() && known.event == 0)?;
                Ok(ints(&[0]))
            }
            procs::CONNECT_DOMAIN_EVENT_REGISTER_ANY => {
                let event = args.i32().map_err(malformed)?;
                let last = self.faults().last_event;
                self.registered.register_legacy(event, last).map(|()| Vec::new())
            }
            procs::CONNECT_DOMAIN_EVENT_DEREGISTER_ANY => {
                let event = args.i32().map_err(malformed)?;
                self.registered
                    .deregister(|known| known.callback.is_none() && known.event == event)?;
                Ok(Vec::new())
            }
            _ => Err(unknown(procedure)),
        }
    }

    fn list(&self, args: &mut Reader<'_>) -> Answer {
        let request = ListAllDomains::read(args).map_err(malformed)?;
        let wanted = |entry: &&Listed| {
            let active = entry.domain.is_active();
            let persistent = entry.persistent != Some(false);
            // Each pair of flags is a condition, unless neither or both are set (`virsh list --all`
            // sets both).
            let passes = |flags: u32, first: bool| match request.flags & flags {
                0 => true,
                set if set == flags => true,
                set => (set == flags & flags.wrapping_neg()) == first,
            };
            passes(1 | 2, active) && passes(4 | 8, persistent)
        };
        let domains = self.host().domains();
        let domains: Vec<_> =
            domains.iter().filter(wanted).map(|entry| wire_domain(&entry.domain)).collect();
        Ok(written(|body| {
            Domain::write_all(if request.need_results { &domains } else { &[] }, body);
            body.u32(u32::try_from(domains.len()).unwrap_or(u32::MAX));
        }))
    }

    fn stats(&self, args: &mut Reader<'_>) -> Answer {
        let request = StatsRequest::read(args).map_err(malformed)?;
        let domains = self.host().domains();
        let with_state = request.stats == 0 || request.stats & StatsRequest::STATE != 0;
        let all: Vec<_> = domains
            .iter()
            .filter(|entry| {
                let same = |domain: &Domain<'_>| domain.uuid == entry.domain.uuid();
                request.domains.is_empty() || request.domains.iter().any(same)
            })
            .map(|entry| {
                let (state, reason) = entry.state.codes();
                StateStats {
                    domain: wire_domain(&entry.domain),
                    state: with_state.then_some(state),
                    reason: with_state.then_some(reason),
                }
            })
            .collect();
        Ok(written(|body| StateStats::write_all(&all, body)))
    }

    // libvirt looks domains up by their uuid alone, and ignores the name and the id in the call.
    fn find(&self, args: &mut Reader<'_>) -> Result<Listed, RemoteError> {
        self.find_by_uuid(Domain::read(args).map_err(malformed)?.uuid)
    }

    fn find_by_uuid(&self, uuid: virevent::Uuid) -> Result<Listed, RemoteError> {
        let found = self.host().domains().into_iter().find(|entry| entry.domain.uuid() == uuid);
        found.ok_or_else(|| remote_error(code::NO_DOMAIN, "Domain not found"))
    }
}

fn malformed(_: Malformed) -> RemoteError {
    remote_error(code::RPC, "Unable to decode message payload")
}

fn unknown(procedure: i32) -> RemoteError {
    remote_error(code::RPC, &format!("unknown procedure: {procedure}"))
}
