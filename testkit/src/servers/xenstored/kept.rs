//! What is in a store, to be written into another one.

use super::client::Client;
use crate::xen::{
    Hands, INTRODUCE, MKDIR, RM, SET_PERMS, Toolstack, ToolstackError, WRITE, terminated,
};

const GET_PERMS: u32 = 3;

#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    /// Parents before their children, and these in their order.
    nodes: Vec<Node>,
    introduced: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Node {
    path: String,
    value: Vec<u8>,
    /// As they came: each with a NUL behind it.
    permissions: Vec<u8>,
}

impl Kept {
    pub(super) fn read(toolstack: &Toolstack) -> Result<Self, ToolstackError> {
        let (hands, mut nodes) = (toolstack.hands(), Vec::new());
        // The first is the next to be visited.
        let mut ahead = vec![String::from("/")];
        while let Some(path) = ahead.pop() {
            let parent = if path == "/" { "" } else { &path };
            let children = hands.list(&path)?;
            ahead.extend(children.iter().rev().map(|child| format!("{parent}/{child}")));
            let value = hands.read(&path)?;
            let permissions = hands.call_if_there(GET_PERMS, &terminated(&[&path]))?;
            if let (Some(value), Some(permissions)) = (value, permissions) {
                nodes.push(Node { path, value, permissions });
            }
        }
        let introduced = toolstack.domains()?.into_iter().filter(|known| known.introduced);
        Ok(Self { nodes, introduced: introduced.map(|known| known.domid).collect() })
    }

    /// Leaves out what belongs to domains that have gone since, which a daemon would have removed.
    pub(super) fn write_back(&self, client: &Client) -> Result<(), ToolstackError> {
        let hands: &dyn Hands = client;
        let mut gone: Vec<String> = Vec::new();
        for Node { path, value, permissions } in &self.nodes {
            if gone.iter().any(|gone| path.starts_with(gone)) {
                continue;
            }
            let named = &terminated(&[path])[..];
            match &value[..] {
                [] => hands.call(MKDIR, 0, named)?,
                value => hands.call(WRITE, 0, &[named, value].concat())?,
            };
            // Its owner is no more.
            if hands.call_if_there(SET_PERMS, &[named, permissions].concat())?.is_none() {
                hands.call(RM, 0, named)?;
                gone.push(format!("{path}/"));
            }
        }
        for domid in &self.introduced {
            match hands.call(INTRODUCE, 0, &terminated(&[&domid.to_string(), "1000", "3"])) {
                Err(ToolstackError::Refused { .. }) => {}
                outcome => drop(outcome?),
            }
        }
        Ok(())
    }
}
