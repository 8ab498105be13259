//! The bodies of calls, replies and events.

use virevent::Uuid;

use super::xdr::{Malformed, Reader, Writer};

/// The most domains in one list (`REMOTE_DOMAIN_LIST_MAX`).
pub const MAX_DOMAINS: usize = 16_384;

/// The most typed parameters that are read for one domain; libvirt sends far fewer.
const MAX_PARAMS: usize = 65_536;

/// A domain. Servers use only its uuid to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain<'a> {
    /// Its name; usually UTF-8.
    pub name: &'a [u8],
    /// Its uuid.
    pub uuid: Uuid,
    /// Its id; -1 when it does not run.
    pub id: i32,
}

impl<'a> Domain<'a> {
    /// The size of the shortest domain, in bytes.
    const SIZE: usize = 24;

    /// Reads one.
    ///
    /// # Errors
    /// The body does not begin with one.
    #[inline]
    pub fn read(body: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Self { name: body.string()?, uuid: body.uuid()?, id: body.i32()? })
    }

    /// Appends it.
    pub fn write(&self, body: &mut Writer<'_>) {
        body.string(self.name);
        body.uuid(self.uuid);
        body.i32(self.id);
    }

    /// Reads an array of domains.
    ///
    /// # Errors
    /// The body does not begin with one, or it has more than [`MAX_DOMAINS`].
    pub fn read_all(body: &mut Reader<'a>) -> Result<Vec<Self>, Malformed> {
        let count = body.count(MAX_DOMAINS, Self::SIZE)?;
        (0..count).map(|_| Self::read(body)).collect()
    }

    /// Appends an array of domains.
    pub fn write_all(domains: &[Self], body: &mut Writer<'_>) {
        body.u32(domains.len() as u32);
        domains.iter().for_each(|domain| domain.write(body));
    }
}

/// The arguments of `CONNECT_OPEN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open<'a> {
    /// The hypervisor's URI as the server knows it: without transport and host.
    pub name: Option<&'a [u8]>,
    /// 1: read-only.
    pub flags: u32,
}

impl<'a> Open<'a> {
    /// Reads one.
    ///
    /// # Errors
    /// The body does not begin with one.
    pub fn read(body: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Self { name: body.optional(Reader::string)?, flags: body.u32()? })
    }

    /// Appends it.
    pub fn write(&self, body: &mut Writer<'_>) {
        body.optional(self.name, |body, name| body.string(name));
        body.u32(self.flags);
    }
}

/// The arguments of `CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register<'a> {
    /// The event id.
    pub event: i32,
    /// The domain whose events are sent; those of all domains when absent.
    pub domain: Option<Domain<'a>>,
}

impl<'a> Register<'a> {
    /// Reads one.
    ///
    /// # Errors
    /// The body does not begin with one.
    pub fn read(body: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Self { event: body.i32()?, domain: body.optional(Domain::read)? })
    }

    /// Appends it.
    pub fn write(&self, body: &mut Writer<'_>) {
        body.i32(self.event);
        body.optional(self.domain, |body, domain| domain.write(body));
    }
}

/// The arguments of `CONNECT_LIST_ALL_DOMAINS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListAllDomains {
    /// Whether to list the domains, or only to count them.
    pub need_results: bool,
    /// Which domains: see the constants; 0 for all.
    pub flags: u32,
}

impl ListAllDomains {
    /// Only the persistent domains.
    pub const PERSISTENT: u32 = 4;

    /// Reads one.
    ///
    /// # Errors
    /// The body does not begin with one.
    pub fn read(body: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { need_results: body.i32()? != 0, flags: body.u32()? })
    }

    /// Appends it.
    pub fn write(&self, body: &mut Writer<'_>) {
        body.i32(self.need_results.into());
        body.u32(self.flags);
    }
}

/// The arguments of `CONNECT_GET_ALL_DOMAIN_STATS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsRequest<'a> {
    /// The domains; all when empty.
    pub domains: Vec<Domain<'a>>,
    /// The groups of statistics.
    pub stats: u32,
    /// Flags.
    pub flags: u32,
}

impl<'a> StatsRequest<'a> {
    /// The group with the state and its reason.
    pub const STATE: u32 = 1;

    /// Reads one.
    ///
    /// # Errors
    /// The body does not begin with one.
    pub fn read(body: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Self { domains: Domain::read_all(body)?, stats: body.u32()?, flags: body.u32()? })
    }

    /// Appends it.
    pub fn write(&self, body: &mut Writer<'_>) {
        Domain::write_all(&self.domains, body);
        body.u32(self.stats);
        body.u32(self.flags);
    }
}

/// A domain's state in a reply with statistics. Reading skips all other statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateStats<'a> {
    /// The domain.
    pub domain: Domain<'a>,
    /// Its state, if the reply has it.
    pub state: Option<i32>,
    /// The reason for the state, if the reply has it.
    pub reason: Option<i32>,
}

impl<'a> StateStats<'a> {
    /// Reads one.
    ///
    /// # Errors
    /// The body does not begin with one.
    pub fn read(body: &mut Reader<'a>) -> Result<Self, Malformed> {
        let domain = Domain::read(body)?;
        let mut state = None;
        let mut reason = None;
        // A parameter is a name, a type and a value: 12 bytes at least.
        for _ in 0..body.count(MAX_PARAMS, 12)? {
            let name = body.string()?;
            let value = read_param(body)?;
            match name {
                b"state.state" => state = value,
                b"state.reason" => reason = value,
                _ => {}
            }
        }
        Ok(Self { domain, state, reason })
    }

    /// Appends it.
    pub fn write(&self, body: &mut Writer<'_>) {
        self.domain.write(body);
        let params = [("state.state", self.state), ("state.reason", self.reason)];
        body.u32(params.iter().filter(|(_, value)| value.is_some()).count() as u32);
        for (name, value) in params {
            if let Some(value) = value {
                body.string(name);
                body.i32(1);
                body.i32(value);
            }
        }
    }

    /// Reads an array of them.
    ///
    /// # Errors
    /// The body does not begin with one, or it has more than [`MAX_DOMAINS`].
    pub fn read_all(body: &mut Reader<'a>) -> Result<Vec<Self>, Malformed> {
        let count = body.count(MAX_DOMAINS, Domain::SIZE + 4)?;
        (0..count).map(|_| Self::read(body)).collect()
    }

    /// Appends an array of them.
    pub fn write_all(all: &[Self], body: &mut Writer<'_>) {
        body.u32(all.len() as u32);
        all.iter().for_each(|stats| stats.write(body));
    }
}

/// Reads the value of a typed parameter (`virTypedParameterType`). `None` if it is no int.
fn read_param(body: &mut Reader<'_>) -> Result<Option<i32>, Malformed> {
    match body.i32()? {
        // A boolean (6) travels as an int, a double (5) as eight bytes.
        1 => body.i32().map(Some),
        2 | 6 => body.u32().map(|_| None),
        3..=5 => body.u64().map(|_| None),
        7 => body.string().map(|_| None),
        _ => Err(Malformed { expected: "a typed parameter" }),
    }
}

/// A lifecycle event, without the callback id (a legacy event has none).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifecycle<'a> {
    /// The domain.
    pub domain: Domain<'a>,
    /// What happened (`virDomainEventType`).
    pub event: i32,
    /// Why it happened; the values depend on `event`.
    pub detail: i32,
}

impl<'a> Lifecycle<'a> {
    /// Reads the part after the callback id.
    ///
    /// # Errors
    /// The body does not begin with one.
    #[inline]
    pub fn read(body: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Self { domain: Domain::read(body)?, event: body.i32()?, detail: body.i32()? })
    }

    /// Appends it.
    pub fn write(&self, body: &mut Writer<'_>) {
        self.domain.write(body);
        body.i32(self.event);
        body.i32(self.detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: Domain<'static> = Domain { name: b"web", uuid: Uuid::from_u128(1), id: 3 };

    fn written(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut Writer::new(&mut out));
        out
    }

    #[test]
    fn bodies_read_back_as_they_were_written() {
        let open = Open { name: Some(b"test:///default"), flags: 1 };
        assert_eq!(Open::read(&mut Reader::new(&written(|w| open.write(w)))), Ok(open));

        let register = Register { event: 5, domain: Some(WEB) };
        let bytes = written(|w| register.write(w));
        assert_eq!(Register::read(&mut Reader::new(&bytes)), Ok(register));

        let list = ListAllDomains { need_results: true, flags: ListAllDomains::PERSISTENT };
        assert_eq!(ListAllDomains::read(&mut Reader::new(&written(|w| list.write(w)))), Ok(list));

        let request = StatsRequest { domains: vec![WEB], stats: StatsRequest::STATE, flags: 0 };
        let bytes = written(|w| request.write(w));
        assert_eq!(StatsRequest::read(&mut Reader::new(&bytes)), Ok(request));

        let stats = [
            StateStats { domain: WEB, state: Some(1), reason: Some(2) },
            StateStats { domain: WEB, state: None, reason: None },
        ];
        let bytes = written(|w| StateStats::write_all(&stats, w));
        assert_eq!(StateStats::read_all(&mut Reader::new(&bytes)), Ok(stats.to_vec()));

        let event = Lifecycle { domain: WEB, event: 2, detail: 0 };
        assert_eq!(Lifecycle::read(&mut Reader::new(&written(|w| event.write(w)))), Ok(event));
    }

    #[test]
    fn other_statistics_are_skipped() {
        let bytes = written(|w| {
            WEB.write(w);
            w.u32(4);
            w.string("cpu.time");
            w.i32(4);
            w.u64(1 << 40);
            w.string("note");
            w.i32(7);
            w.string("busy");
            w.string("state.state");
            w.i32(1);
            w.i32(3);
            w.string("load");
            w.i32(5);
            w.u64(0);
        });
        let stats = StateStats::read(&mut Reader::new(&bytes)).unwrap();
        assert_eq!((stats.state, stats.reason), (Some(3), None));
    }

    #[test]
    fn a_list_longer_than_libvirts_limit_is_malformed() {
        let domains = vec![WEB; MAX_DOMAINS + 1];
        let bytes = written(|w| Domain::write_all(&domains, w));
        assert!(Domain::read_all(&mut Reader::new(&bytes)).is_err());
        let bytes = written(|w| Domain::write_all(&domains[1..], w));
        assert!(Domain::read_all(&mut Reader::new(&bytes)).is_ok());
    }

    #[test]
    fn garbage_causes_no_panic() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..20_000 {
            let garbage: Vec<u8> = (0..random.usize(..120))
                .map(|_| random.choice([0, 0, 0, 1, 4, 7, 255]).unwrap_or(0))
                .collect();
            let reader = Reader::new(&garbage);
            let _ = StateStats::read_all(&mut reader.clone());
            let _ = StatsRequest::read(&mut reader.clone());
            let _ = Register::read(&mut reader.clone());
            let _ = Open::read(&mut reader.clone());
            let _ = Lifecycle::read(&mut reader.clone());
            let _ = super::super::RemoteError::read(&mut reader.clone());
        }
    }
}
