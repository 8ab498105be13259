//! A copy of a store, to be written into another daemon.

use super::backend::DaemonBackend;
use crate::toolstack::{
    INTRODUCE, MKDIR, RM, SET_PERMS, Toolstack, ToolstackBackend, ToolstackError, WRITE, terminated,
};

const GET_PERMS: u32 = 3;

#[derive(Clone, Debug, Default)]
pub(super) struct Dump {
    /// Parents before their children, children in the daemon's order.
    nodes: Vec<Node>,
    introduced: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Node {
    path: String,
    value: Vec<u8>,
    /// As `GET_PERMS` answers: each with a NUL behind it.
    permissions: Vec<u8>,
}

impl Dump {
    pub(super) fn read(toolstack: &Toolstack) -> Result<Self, ToolstackError> {
        let backend = toolstack.backend();
        let mut nodes = Vec::new();
        // A stack: the last is the next to be visited.
        let mut ahead = vec![String::from("/")];
        while let Some(path) = ahead.pop() {
            let parent = if path == "/" { "" } else { &path };
            let children = backend.list(&path)?;
            // In reverse onto the stack, so that they are visited in the daemon's order.
            ahead.extend(children.iter().rev().map(|child| format!("{parent}/{child}")));
            let value = backend.read(&path)?;
            let permissions = backend.call_if_there(GET_PERMS, &terminated(&[&path]))?;
            if let (Some(value), Some(permissions)) = (value, permissions) {
                nodes.push(Node { path, value, permissions });
            }
        }
        let introduced = toolstack.domains()?.into_iter().filter(|known| known.introduced);
        Ok(Self { nodes, introduced: introduced.map(|known| known.domid).collect() })
    }

    /// Writes the nodes and introduces the domains, except those of domains that are gone: the
    /// daemon would have removed them.
    pub(super) fn write_back(&self, backend: &DaemonBackend) -> Result<(), ToolstackError> {
        let backend: &dyn ToolstackBackend = backend;
        let mut gone: Vec<String> = Vec::new();
        for Node { path, value, permissions } in &self.nodes {
            if gone.iter().any(|gone| path.starts_with(gone)) {
                continue;
            }
            let named = &terminated(&[path])[..];
            // MKDIR makes an empty node as WRITE would, and leaves one alone that exists already.
            match &value[..] {
                [] => backend.call(MKDIR, 0, named)?,
                value => backend.call(WRITE, 0, &[named, value].concat())?,
            };
            // ENOENT: the owner is gone.
            if backend.call_if_there(SET_PERMS, &[named, permissions].concat())?.is_none() {
                backend.call(RM, 0, named)?;
                gone.push(format!("{path}/"));
            }
        }
        for domid in &self.introduced {
            match backend.call(INTRODUCE, 0, &terminated(&[&domid.to_string(), "1000", "3"])) {
                // The domain has gone from the hypervisor meanwhile.
                Err(ToolstackError::Refused { .. }) => {}
                outcome => drop(outcome?),
            }
        }
        Ok(())
    }
}
