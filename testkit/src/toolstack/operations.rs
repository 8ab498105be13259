//! The deeds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use virevent::Uuid;

use super::backend::{
    INTRODUCE, MKDIR, RELEASE, RESUME, RM, SET_PERMS, TRANSACTION_END, TRANSACTION_START, WRITE,
    strings, terminated,
};
use super::{Blueprint, Known, Power, RunState, ToolstackBackend, ToolstackError};

type Outcome<T = ()> = Result<T, ToolstackError>;

/// A toolstack, with write access of its own to a store daemon, and the hypervisor's part beside it.
///
/// Its deeds return when the store daemon has taken notice: what it tells other clients of them is on
/// its way then.
///
/// # Errors
/// Every deed fails when the daemon does not answer or refuses it: see [`ToolstackError`].
#[derive(Debug)]
pub struct Toolstack {
    backend: Box<dyn ToolstackBackend>,
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    /// The domains that were made here and are in the store, by id.
    domains: BTreeMap<u32, Blueprint>,
    /// The ids of all that were ever made here.
    ids: BTreeSet<u32>,
}

impl Toolstack {
    pub(crate) fn new(backend: Box<dyn ToolstackBackend>) -> Self {
        Self { backend, ledger: Mutex::default() }
    }

    pub(crate) fn backend(&self) -> &dyn ToolstackBackend {
        &*self.backend
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The blueprint of a domain that was made here; else of a nameless one.
    fn blueprint(&self, domid: u32) -> Blueprint {
        let known = self.ledger().domains.get(&domid).cloned();
        known.unwrap_or_else(|| Blueprint::named(&format!("Domain-{domid}")).domid(domid))
    }
}

/// From nothing to a running domain.
#[expect(clippy::missing_errors_doc, reason = "told once, of all of them")]
impl Toolstack {
    /// Makes a domain, and has it run: [`prepare`](Self::prepare), then [`announce`](Self::announce).
    /// Returns its id.
    pub fn introduce(&self, blueprint: impl Into<Blueprint>) -> Outcome<u32> {
        let domid = self.prepare(blueprint)?;
        self.announce(domid)?;
        Ok(domid)
    }

    /// Makes a domain as far as it is in the store and not introduced: one transaction writes what it
    /// is, then come its memory and its port. Returns its id.
    pub fn prepare(&self, blueprint: impl Into<Blueprint>) -> Outcome<u32> {
        let blueprint = blueprint.into();
        let mut ledger = self.ledger();
        let next = ledger.ids.last().map_or(1, |last| last + 1);
        let domid = blueprint.domid.unwrap_or(next);
        ledger.ids.insert(domid);
        ledger.domains.insert(domid, blueprint.clone());
        drop(ledger);
        self.set_run_state(domid, Some(RunState::Running))?;
        self.write_down(domid, &blueprint)?;
        self.write(&format!("/local/domain/{domid}/memory/target"), "131072")?;
        self.write(&format!("/local/domain/{domid}/store/port"), "1")?;
        Ok(domid)
    }

    /// Introduces a domain to the store daemon, and writes its console's nodes. Of one that is
    /// introduced already the daemon tells nobody.
    pub fn announce(&self, domid: u32) -> Outcome {
        self.backend().call(INTRODUCE, 0, &terminated(&[&domid.to_string(), "1000", "3"]))?;
        self.write(&format!("/local/domain/{domid}/console/ring-ref"), "2000")
    }

    /// Writes what a [`Blueprint`] had left out, its name and its `vm`.
    pub fn complete(&self, domid: u32) -> Outcome {
        let (home, blueprint) = (format!("/local/domain/{domid}"), self.blueprint(domid));
        if !blueprint.with_vm {
            let vm = format!("/vm/{}", blueprint.uuid);
            self.write(&format!("{vm}/uuid"), blueprint.uuid.to_string())?;
            self.write(&format!("{home}/vm"), &vm)?;
        }
        if !blueprint.with_name {
            self.write(&format!("{home}/name"), &blueprint.name)?;
        }
        Ok(())
    }

    /// Puts another domain under the id of one that is introduced, without a word to the daemon of the
    /// one's end or the other's beginning (to introduce it again is silent).
    pub fn reuse(&self, domid: u32, blueprint: impl Into<Blueprint>) -> Outcome {
        self.forget(domid)?;
        self.introduce(blueprint.into().domid(domid))?;
        Ok(())
    }

    /// The transaction in which libxl writes down a domain that it makes.
    fn write_down(&self, domid: u32, blueprint: &Blueprint) -> Outcome {
        let (guest, rights) = (format!("n{domid}"), format!("r{domid}"));
        let home = format!("/local/domain/{domid}");
        let (vm, libxl) = (format!("/vm/{}", blueprint.uuid), format!("/libxl/{domid}"));
        let begun = self.backend().call(TRANSACTION_START, 0, b"\0")?;
        let begun = strings(&begun).first().and_then(|id| id.parse().ok()).unwrap_or_default();
        let call = |operation, arguments: &[&str]| {
            self.backend().call(operation, begun, &terminated(arguments))
        };
        let make = |path: &str, rights: &[&str]| -> Outcome {
            call(MKDIR, &[path])?;
            if !rights.is_empty() {
                call(SET_PERMS, &[&[path], rights].concat())?;
            }
            Ok(())
        };
        let write = |path: &str, value: &str| {
            let payload = [path.as_bytes(), b"\0", value.as_bytes()].concat();
            self.backend().call(WRITE, begun, &payload)
        };
        for path in [&home, &vm, &libxl] {
            // ENOENT where not even the parent is there yet.
            let removed = call(RM, &[path]);
            if !matches!(&removed, Err(ToolstackError::Refused { error, .. }) if error == "ENOENT")
            {
                removed?;
            }
        }
        make(&home, &["n0", &rights])?;
        if blueprint.with_vm {
            make(&vm, &["n0", &rights])?;
        }
        make(&libxl, &["n0"])?;
        if blueprint.with_vm {
            write(&format!("{home}/vm"), &vm)?;
            write(&format!("{vm}/name"), &blueprint.name)?;
            write(&format!("{vm}/uuid"), &blueprint.uuid.to_string())?;
        }
        if blueprint.with_name {
            write(&format!("{home}/name"), &blueprint.name)?;
        }
        for inside in ["cpu", "memory", "device", "control"] {
            make(&format!("{home}/{inside}"), &[])?;
        }
        for of_guest in ["control/shutdown", "control/feature-poweroff", "data", "error"] {
            make(&format!("{home}/{of_guest}"), &[&guest])?;
        }
        write(&format!("{home}/domid"), &domid.to_string())?;
        write(&format!("{libxl}/type"), "pvh")?;
        call(TRANSACTION_END, &["T"])?;
        Ok(())
    }
}

/// In a domain's life.
#[expect(clippy::missing_errors_doc, reason = "told once, of all of them")]
impl Toolstack {
    /// Gives a domain another name.
    pub fn rename(&self, domid: u32, name: &str) -> Outcome {
        self.write(&format!("/local/domain/{domid}/name"), name)?;
        if let Some(blueprint) = self.ledger().domains.get_mut(&domid) {
            name.clone_into(&mut blueprint.name);
        }
        Ok(())
    }

    /// Asks the guest for something. It is free not to heed it.
    pub fn request(&self, domid: u32, power: Power) -> Outcome {
        self.write(&format!("/local/domain/{domid}/control/shutdown"), power.as_str())
    }

    /// What a guest does that has taken notice of a request.
    pub fn acknowledge(&self, domid: u32) -> Outcome {
        self.write(&format!("/local/domain/{domid}/control/shutdown"), "")
    }

    /// The guest shuts down, or suspends itself. The domain is still there, until
    /// [`destroy`](Self::destroy) or [`resume`](Self::resume).
    pub fn shut_down(&self, domid: u32) -> Outcome {
        self.set_run_state(domid, Some(RunState::Shutdown))?;
        self.raise_virq()
    }

    /// The guest crashes. The domain is still there.
    pub fn crash(&self, domid: u32) -> Outcome {
        self.set_run_state(domid, Some(RunState::Crashed))?;
        self.raise_virq()
    }

    /// Lets a domain that has suspended itself run on. The daemon tells nobody.
    pub fn resume(&self, domid: u32) -> Outcome {
        self.set_run_state(domid, Some(RunState::Running))?;
        self.backend().call(RESUME, 0, &terminated(&[&domid.to_string()]))?;
        Ok(())
    }

    /// Shuts a domain down for a reboot, destroys it, and makes it anew: the same uuid and name under
    /// another id, which is returned.
    pub fn reboot(&self, domid: u32) -> Outcome<u32> {
        let blueprint = Blueprint { domid: None, ..self.blueprint(domid) };
        self.request(domid, Power::Reboot)?;
        self.acknowledge(domid)?;
        self.shut_down(domid)?;
        self.destroy(domid)?;
        self.introduce(blueprint)
    }
}

/// A domain's end.
#[expect(clippy::missing_errors_doc, reason = "told once, of all of them")]
impl Toolstack {
    /// Destroys a domain as libxl does: out of the store first, then out of the hypervisor.
    pub fn destroy(&self, domid: u32) -> Outcome {
        self.forget(domid)?;
        self.vanish(domid)
    }

    /// Takes a domain out of the hypervisor only. What is left in the store is the daemon's to clean
    /// up; it removes what belongs to the guest, and leaves `/local/domain/N`.
    pub fn vanish(&self, domid: u32) -> Outcome {
        self.set_run_state(domid, None)?;
        self.raise_virq()
    }

    /// Takes a domain out of the store only: `/vm/<uuid>`, `/local/domain/N`, `/libxl/N`.
    pub fn forget(&self, domid: u32) -> Outcome {
        let home = format!("/local/domain/{domid}");
        let vm = self.read(&format!("{home}/vm"))?.unwrap_or_default();
        for path in [&*String::from_utf8_lossy(&vm), &home, &format!("/libxl/{domid}")] {
            if !path.is_empty() {
                self.backend().call_if_there(RM, &terminated(&[path]))?;
            }
        }
        self.ledger().domains.remove(&domid);
        Ok(())
    }

    /// Has the daemon forget that a domain was introduced (`RELEASE`), by hand, which libxl does not.
    pub fn release(&self, domid: u32) -> Outcome {
        self.backend().call(RELEASE, 0, &terminated(&[&domid.to_string()]))?;
        Ok(())
    }
}

/// What deeds are made of.
#[expect(clippy::missing_errors_doc, reason = "told once, of all of them")]
impl Toolstack {
    /// Sets how a domain fares in the hypervisor, or that it has gone, without a word to the daemon:
    /// several such changes may come before one [`raise_virq`](Self::raise_virq).
    pub fn set_run_state(&self, domid: u32, state: Option<RunState>) -> Outcome {
        self.backend().set_state(domid, state).map_err(|source| ToolstackError::Unreachable {
            request: format!("the state of domain {domid}"),
            source,
        })
    }

    /// Has the daemon look how its domains fare, and waits until it has.
    pub fn raise_virq(&self) -> Outcome {
        self.backend()
            .raise_virq()
            .map_err(|source| ToolstackError::Unreachable { request: "the VIRQ".into(), source })?;
        // The daemon looks at its event channel before its sockets. It may have polled them both just
        // before the VIRQ, and then serves our first request without it; not the second.
        for _ in 0..2 {
            self.backend().is_introduced(0)?;
        }
        Ok(())
    }

    /// Writes a node.
    pub fn write(&self, path: &str, value: impl AsRef<[u8]>) -> Outcome {
        self.backend().call(WRITE, 0, &[path.as_bytes(), b"\0", value.as_ref()].concat())?;
        Ok(())
    }

    /// Removes a node, and all below it. Absent is as good.
    pub fn remove(&self, path: &str) -> Outcome {
        self.backend().call_if_there(RM, &terminated(&[path]))?;
        Ok(())
    }

    /// A node's value; `None` where there is none.
    pub fn read(&self, path: &str) -> Outcome<Option<Vec<u8>>> {
        self.backend().read(path)
    }

    /// The names of a node's children, in the daemon's order.
    pub fn list(&self, path: &str) -> Outcome<Vec<String>> {
        self.backend().list(path)
    }

    /// What the daemon knows of each domain, by id: those that are in `/local/domain`, and those that
    /// are introduced and not there. Domain 0 is not among them.
    pub fn domains(&self) -> Outcome<Vec<Known>> {
        let mut domids = self.ledger().ids.clone();
        domids
            .extend(self.list("/local/domain")?.iter().filter_map(|name| name.parse::<u32>().ok()));
        domids.remove(&0);
        let mut all = Vec::new();
        for domid in domids {
            let home = format!("/local/domain/{domid}");
            let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
            let vm = self.read(&format!("{home}/vm"))?.map(text);
            let known = Known {
                domid,
                introduced: self.backend().is_introduced(domid)?,
                name: self.read(&format!("{home}/name"))?.map(text),
                uuid: vm.and_then(|vm| Uuid::try_parse(vm.strip_prefix("/vm/")?.get(..36)?).ok()),
            };
            if known.introduced || self.read(&home)?.is_some() {
                all.push(known);
            }
        }
        Ok(all)
    }
}
