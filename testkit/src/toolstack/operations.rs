//! The operations of a toolstack.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use virevent::Uuid;

use super::backend::{
    INTRODUCE, MKDIR, RELEASE, RESUME, RM, SET_PERMS, TRANSACTION_END, TRANSACTION_START, WRITE,
    strings, terminated,
};
use super::{Blueprint, Known, Power, RunState, ToolstackBackend, ToolstackError};

type Outcome<T = ()> = Result<T, ToolstackError>;

/// A toolstack that acts on a store daemon and on the hypervisor behind it.
///
/// An operation returns when the store daemon has processed it: the watch events for other clients
/// are queued or sent by then.
///
/// # Errors
/// Every operation fails if the daemon refuses it or does not answer: see [`ToolstackError`].
#[derive(Debug)]
pub struct Toolstack {
    backend: Box<dyn ToolstackBackend>,
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    /// The domains that this toolstack made and that are in the store, by id.
    domains: BTreeMap<u32, Blueprint>,
    /// The ids of all domains that this toolstack ever made.
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

    /// The blueprint of a domain of this toolstack, or a generic one.
    fn blueprint(&self, domid: u32) -> Blueprint {
        let known = self.ledger().domains.get(&domid).cloned();
        known.unwrap_or_else(|| Blueprint::named(&format!("Domain-{domid}")).domid(domid))
    }
}

/// Making domains.
#[expect(clippy::missing_errors_doc, reason = "they are the type's: see there")]
impl Toolstack {
    /// Makes and runs a domain, by [`prepare`](Self::prepare) and [`announce`](Self::announce).
    /// Returns its id.
    pub fn introduce(&self, blueprint: impl Into<Blueprint>) -> Outcome<u32> {
        let domid = self.prepare(blueprint)?;
        self.announce(domid)?;
        Ok(domid)
    }

    /// Makes a domain and writes it into the store without introducing it: first its identity in
    /// one transaction, then its memory and its port. Returns its id.
    pub fn prepare(&self, blueprint: impl Into<Blueprint>) -> Outcome<u32> {
        let blueprint = blueprint.into();
        let mut ledger = self.ledger();
        // Never the id of a domain that is gone, as in Xen, unless the blueprint demands it.
        let next = ledger.ids.last().map_or(1, |last| last + 1);
        let domid = blueprint.domid.unwrap_or(next);
        ledger.ids.insert(domid);
        ledger.domains.insert(domid, blueprint.clone());
        // Released before the requests, which block until the daemon answers.
        drop(ledger);
        // The hypervisor's domain exists before the store has it, and xenstored refuses permissions
        // for a domain that does not exist.
        self.set_run_state(domid, Some(RunState::Running))?;
        self.write_identity(domid, &blueprint)?;
        self.write(&format!("/local/domain/{domid}/memory/target"), "131072")?;
        self.write(&format!("/local/domain/{domid}/store/port"), "1")?;
        Ok(domid)
    }

    /// Introduces a domain to the store daemon and writes its console's nodes. For a domain that is
    /// introduced already the daemon sends no event.
    pub fn announce(&self, domid: u32) -> Outcome {
        self.backend().call(INTRODUCE, 0, &terminated(&[&domid.to_string(), "1000", "3"]))?;
        self.write(&format!("/local/domain/{domid}/console/ring-ref"), "2000")
    }

    /// Writes the name and the `vm` that the [`Blueprint`] left out.
    pub fn complete(&self, domid: u32) -> Outcome {
        let home = format!("/local/domain/{domid}");
        let blueprint = self.blueprint(domid);
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

    /// Replaces an introduced domain by another one under the same id. The daemon sends no event:
    /// it is not notified of the end, and a second introduction is silent.
    pub fn reuse(&self, domid: u32, blueprint: impl Into<Blueprint>) -> Outcome {
        self.forget(domid)?;
        self.introduce(blueprint.into().domid(domid))?;
        Ok(())
    }

    /// The transaction in which libxl writes the identity of a new domain.
    fn write_identity(&self, domid: u32, blueprint: &Blueprint) -> Outcome {
        let guest = format!("n{domid}");
        let rights = format!("r{domid}");
        let home = format!("/local/domain/{domid}");
        let vm = format!("/vm/{}", blueprint.uuid);
        let libxl = format!("/libxl/{domid}");
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
        // As libxl: a domain before it may have left nodes under the same id.
        for path in [&home, &vm, &libxl] {
            // xenstored answers ENOENT only if the parent is missing too.
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

/// Acting on running domains.
#[expect(clippy::missing_errors_doc, reason = "they are the type's: see there")]
impl Toolstack {
    /// Renames a domain.
    pub fn rename(&self, domid: u32, name: &str) -> Outcome {
        self.write(&format!("/local/domain/{domid}/name"), name)?;
        if let Some(blueprint) = self.ledger().domains.get_mut(&domid) {
            name.clone_into(&mut blueprint.name);
        }
        Ok(())
    }

    /// Sends a request to the guest, which may ignore it.
    pub fn request(&self, domid: u32, power: Power) -> Outcome {
        self.write(&format!("/local/domain/{domid}/control/shutdown"), power.as_str())
    }

    /// Clears the request, as a guest does that accepts it.
    pub fn acknowledge(&self, domid: u32) -> Outcome {
        self.write(&format!("/local/domain/{domid}/control/shutdown"), "")
    }

    /// The guest shuts down or suspends itself. The domain still exists, until
    /// [`destroy`](Self::destroy) or [`resume`](Self::resume).
    pub fn shut_down(&self, domid: u32) -> Outcome {
        self.set_run_state(domid, Some(RunState::Shutdown))?;
        self.raise_virq()
    }

    /// The guest crashes. The domain still exists.
    pub fn crash(&self, domid: u32) -> Outcome {
        self.set_run_state(domid, Some(RunState::Crashed))?;
        self.raise_virq()
    }

    /// Resumes a domain that has suspended itself. The daemon sends no event.
    pub fn resume(&self, domid: u32) -> Outcome {
        self.set_run_state(domid, Some(RunState::Running))?;
        self.backend().call(RESUME, 0, &terminated(&[&domid.to_string()]))?;
        Ok(())
    }

    /// Reboots a domain: shuts it down, destroys it and makes it again, with the same uuid and name
    /// under another id, which is returned.
    pub fn reboot(&self, domid: u32) -> Outcome<u32> {
        let blueprint = Blueprint { domid: None, ..self.blueprint(domid) };
        // A reboot has no operation of its own: it is an end and a beginning under the same uuid.
        self.request(domid, Power::Reboot)?;
        self.acknowledge(domid)?;
        self.shut_down(domid)?;
        self.destroy(domid)?;
        self.introduce(blueprint)
    }
}

/// Ending domains.
#[expect(clippy::missing_errors_doc, reason = "they are the type's: see there")]
impl Toolstack {
    /// Destroys a domain as libxl does: first in the store, then in the hypervisor.
    pub fn destroy(&self, domid: u32) -> Outcome {
        self.forget(domid)?;
        self.vanish(domid)
    }

    /// Removes a domain from the hypervisor only. The daemon then removes the guest's own nodes
    /// from the store, and leaves `/local/domain/N`.
    pub fn vanish(&self, domid: u32) -> Outcome {
        self.set_run_state(domid, None)?;
        self.raise_virq()
    }

    /// Removes a domain from the store only: `/vm/<uuid>`, `/local/domain/N`, `/libxl/N`.
    pub fn forget(&self, domid: u32) -> Outcome {
        let home = format!("/local/domain/{domid}");
        // Read first: the path of the vm is in the nodes that are removed here.
        let vm = self.read(&format!("{home}/vm"))?.unwrap_or_default();
        for path in [&*String::from_utf8_lossy(&vm), &home, &format!("/libxl/{domid}")] {
            if !path.is_empty() {
                self.backend().call_if_there(RM, &terminated(&[path]))?;
            }
        }
        self.ledger().domains.remove(&domid);
        Ok(())
    }

    /// Releases a domain (`RELEASE`): the daemon no longer counts it as introduced. libxl never
    /// does so.
    pub fn release(&self, domid: u32) -> Outcome {
        self.backend().call(RELEASE, 0, &terminated(&[&domid.to_string()]))?;
        Ok(())
    }
}

/// The steps of the operations above.
#[expect(clippy::missing_errors_doc, reason = "they are the type's: see there")]
impl Toolstack {
    /// Sets a domain's state in the hypervisor, `None` to remove it. The daemon is not notified:
    /// several changes may precede one [`raise_virq`](Self::raise_virq).
    pub fn set_run_state(&self, domid: u32, state: Option<RunState>) -> Outcome {
        self.backend().set_state(domid, state).map_err(|source| ToolstackError::Unreachable {
            request: format!("setting the state of domain {domid}"),
            source,
        })
    }

    /// Makes the daemon read the states of its domains, and waits until it has.
    pub fn raise_virq(&self) -> Outcome {
        self.backend()
            .raise_virq()
            .map_err(|source| ToolstackError::Unreachable { request: "the VIRQ".into(), source })?;
        // The daemon reads its event channel before its sockets. It may have polled both just
        // before the VIRQ, and then answers the first request without having seen it, but not the
        // second.
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

    /// Removes a node and all below it. It is no error if there is none.
    pub fn remove(&self, path: &str) -> Outcome {
        self.backend().call_if_there(RM, &terminated(&[path]))?;
        Ok(())
    }

    /// A node's value, or `None` if there is no such node.
    pub fn read(&self, path: &str) -> Outcome<Option<Vec<u8>>> {
        self.backend().read(path)
    }

    /// The names of a node's children, in the daemon's order.
    pub fn list(&self, path: &str) -> Outcome<Vec<String>> {
        self.backend().list(path)
    }

    /// The daemon's domains, by id: those in `/local/domain`, and those that are introduced without
    /// being there. Domain 0 is left out.
    pub fn domains(&self) -> Outcome<Vec<Known>> {
        // The daemon has no list of introduced domains, so those of the past are asked for too.
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
