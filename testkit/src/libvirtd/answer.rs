//! What libvirtd answers to each call.

use virevent::driver::Listed;
use virevent_libvirt::wire::procs::{self, auth};
use virevent_libvirt::wire::xdr::{Malformed, Reader, Writer};
use virevent_libvirt::wire::{
    Domain, ListAllDomains, Open, Register, RemoteError, StateStats, StatsRequest, code,
};

use super::connection::Connection;
use super::faults::{Faults, remote_error};

/// Procedures that no client of events needs, but others that may be tried against this daemon.
const GET_TYPE: i32 = 3;
const GET_URI: i32 = 110;
const GET_LIB_VERSION: i32 = 157;
const CLOSE_CALLBACK_REGISTER: i32 = 360;
const CLOSE_CALLBACK_UNREGISTER: i32 = 361;

/// A body, or the error that is sent in its place.
type Answer = Result<Vec<u8>, RemoteError>;

impl Connection {
    /// The body of the reply.
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
        let authenticating = (procs::AUTH_LIST..=procs::AUTH_POLKIT).contains(&procedure);
        if !authenticating && faults.auth != auth::NONE && !self.authenticated {
            return Err(remote_error(code::RPC, "authentication required"));
        }
        let mut args = Reader::new(body);
        match procedure {
            procs::AUTH_LIST => Ok(ints(&[1, faults.auth])),
            procs::AUTH_POLKIT if faults.auth == auth::POLKIT => {
                self.authenticated = true;
                Ok(ints(&[1]))
            }
            procs::CONNECT_SUPPORTS_FEATURE => {
                let feature = args.i32().map_err(malformed)?;
                // The only one that may be asked for before opening.
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
                self.closing = true;
                Ok(Vec::new())
            }
            procs::CONNECT_GET_HOSTNAME => Ok(string(self.host().name())),
            GET_TYPE => Ok(string("TEST")),
            GET_URI => Ok(string("test:///default")),
            GET_LIB_VERSION => Ok(written(|body| body.u64(9_000_000))),
            CLOSE_CALLBACK_REGISTER | CLOSE_CALLBACK_UNREGISTER => Ok(Vec::new()),
            procs::CONNECT_LIST_ALL_DOMAINS => self.list(args),
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
            procs::DOMAIN_IS_PERSISTENT => {
                Ok(ints(&[i32::from(self.find(args)?.persistent != Some(false))]))
            }
            procs::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY => {
                let register = Register::read(args).map_err(malformed)?;
                self.register(register.event).map(|callback| ints(&[callback]))
            }
            procs::CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY => {
                let callback = args.i32().map_err(malformed)?;
                self.deregister(|known| known.callback == Some(callback))
            }
            procs::CONNECT_DOMAIN_EVENT_REGISTER => self.register_legacy(0).map(|()| ints(&[0])),
            procs::CONNECT_DOMAIN_EVENT_DEREGISTER => {
                self.deregister(|known| known.callback.is_none() && known.event == 0)?;
                Ok(ints(&[0]))
            }
            procs::CONNECT_DOMAIN_EVENT_REGISTER_ANY => {
                let event = args.i32().map_err(malformed)?;
                self.register_legacy(event).map(|()| Vec::new())
            }
            procs::CONNECT_DOMAIN_EVENT_DEREGISTER_ANY => {
                let event = args.i32().map_err(malformed)?;
                self.deregister(|known| known.callback.is_none() && known.event == event)
            }
            _ => Err(unknown(procedure)),
        }
    }

    fn list(&self, args: &mut Reader<'_>) -> Answer {
        let asked = ListAllDomains::read(args).map_err(malformed)?;
        let wanted = |entry: &&Listed| {
            let active = entry.domain.is_active();
            let persistent = entry.persistent != Some(false);
            // Each pair of flags is a condition, unless neither or both are set.
            let passes = |flags: u32, first: bool| match asked.flags & flags {
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
            Domain::write_all(if asked.need_results { &domains } else { &[] }, body);
            body.u32(u32::try_from(domains.len()).unwrap_or(u32::MAX));
        }))
    }

    fn stats(&self, args: &mut Reader<'_>) -> Answer {
        let asked = StatsRequest::read(args).map_err(malformed)?;
        let domains = self.host().domains();
        let told = asked.stats == 0 || asked.stats & StatsRequest::STATE != 0;
        let all: Vec<_> = domains
            .iter()
            .filter(|entry| {
                let same = |domain: &Domain<'_>| domain.uuid == entry.domain.uuid();
                asked.domains.is_empty() || asked.domains.iter().any(same)
            })
            .map(|entry| {
                let (state, reason) = entry.state.codes();
                let (state, reason) = (told.then_some(state), told.then_some(reason));
                StateStats { domain: wire_domain(&entry.domain), state, reason }
            })
            .collect();
        Ok(written(|body| StateStats::write_all(&all, body)))
    }

    fn find(&self, args: &mut Reader<'_>) -> Result<Listed, RemoteError> {
        self.find_by_uuid(Domain::read(args).map_err(malformed)?.uuid)
    }

    fn find_by_uuid(&self, uuid: virevent::Uuid) -> Result<Listed, RemoteError> {
        let found = self.host().domains().into_iter().find(|entry| entry.domain.uuid() == uuid);
        found.ok_or_else(|| remote_error(code::NO_DOMAIN, "Domain not found"))
    }
}

pub(super) fn wire_domain(domain: &virevent::Domain) -> Domain<'_> {
    let id = domain.id().and_then(|id| i32::try_from(id).ok()).unwrap_or(-1);
    Domain { name: domain.name().as_bytes(), uuid: domain.uuid(), id }
}

pub(super) fn written(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut body = Vec::new();
    write(&mut Writer::new(&mut body));
    body
}

fn ints(values: &[i32]) -> Vec<u8> {
    written(|body| values.iter().for_each(|value| body.i32(*value)))
}

fn string(text: &str) -> Vec<u8> {
    written(|body| body.string(text))
}

fn malformed(_: Malformed) -> RemoteError {
    remote_error(code::RPC, "Unable to decode message payload")
}

fn unknown(procedure: i32) -> RemoteError {
    remote_error(code::RPC, &format!("unknown procedure: {procedure}"))
}
