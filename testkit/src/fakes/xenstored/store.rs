//! The tree of nodes, and transactions on it.
//!
//! A transaction has its own copy of each node that it has read or changed. Its commit writes them
//! into the store, unless one of them has changed there meanwhile.

use std::collections::HashMap;

use virevent_xen::wire::error::{EAGAIN, EINVAL, ENOENT};

pub(super) type Refused = &'static str;

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Vec<u8>,
    /// The first is the owner's.
    pub(super) permissions: Vec<Permission>,
    /// In the order of creation.
    pub(super) children: Vec<String>,
    /// The generation of the latest change, of its list of children too.
    pub(super) generation: u64,
}

/// A permission: a letter and a domain, as in `n0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Permission {
    pub(super) letter: char,
    pub(super) domid: u32,
}

/// A change that has events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) path: String,
    /// Whether only watches of this very path get an event: the node was removed with a node above
    /// it.
    pub(super) exact: bool,
}

#[derive(Debug)]
pub(super) struct Store {
    nodes: HashMap<String, Node>,
    generation: u64,
}

#[derive(Debug, Default)]
pub(super) struct Transaction {
    seen: HashMap<String, Seen>,
    /// The paths in the order of their first use, which is the order of the events.
    order: Vec<String>,
}

#[derive(Debug)]
struct Seen {
    /// The node's generation in the store at its first use.
    generation: Option<u64>,
    node: Option<Node>,
    changed: bool,
    /// Whether the change has an event, and whether that is exact.
    event: Option<bool>,
}

impl Store {
    /// The store of a daemon that has just started.
    pub(super) fn new() -> Self {
        let permissions = vec![Permission { letter: 'n', domid: 0 }];
        let root = Node { value: vec![], permissions, children: vec![], generation: 0 };
        let mut store = Self { nodes: [("/".into(), root)].into(), generation: 1 };
        store.view(None).write("/tool/xenstored", Some(b""));
        store
    }

    /// The nodes as a transaction sees them, or as they are in the store.
    pub(super) fn view<'a>(&'a mut self, transaction: Option<&'a mut Transaction>) -> View<'a> {
        View { store: self, transaction, changes: Vec::new() }
    }

    /// Commits a transaction and returns its changes.
    pub(super) fn commit(&mut self, transaction: Transaction) -> Result<Vec<Change>, Refused> {
        let now = |path| self.nodes.get(path).map(|node: &Node| node.generation);
        // Nodes that were only read count as well: a transaction sees one state of the store.
        if transaction.seen.iter().any(|(path, seen)| now(path) != seen.generation) {
            return Err(EAGAIN);
        }
        let mut seen = transaction.seen;
        let mut changes = Vec::new();
        for path in transaction.order {
            let Some(seen) = seen.remove(&path) else { continue };
            if seen.changed {
                self.set(&path, seen.node);
            }
            changes.extend(seen.event.map(|exact| Change { path, exact }));
        }
        Ok(changes)
    }

    fn set(&mut self, path: &str, node: Option<Node>) {
        self.generation += 1;
        match node {
            Some(node) => {
                let node = Node { generation: self.generation, ..node };
                self.nodes.insert(path.into(), node);
            }
            None => drop(self.nodes.remove(path)),
        }
    }
}

/// The nodes as one request sees them.
pub(super) struct View<'a> {
    store: &'a mut Store,
    transaction: Option<&'a mut Transaction>,
    changes: Vec<Change>,
}

impl View<'_> {
    /// The changes that have events now: none within a transaction.
    pub(super) fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    pub(super) fn node(&mut self, path: &str) -> Option<Node> {
        let of_store = self.store.nodes.get(path);
        let Some(transaction) = &mut self.transaction else { return of_store.cloned() };
        if !transaction.seen.contains_key(path) {
            let generation = of_store.map(|node| node.generation);
            let seen = Seen { generation, node: of_store.cloned(), changed: false, event: None };
            transaction.seen.insert(path.into(), seen);
            transaction.order.push(path.into());
        }
        transaction.seen.get(path)?.node.clone()
    }

    /// The node that a client names. If it is missing, the daemon reads the nodes above it, up to
    /// one that exists, which thus belong to the transaction.
    pub(super) fn named(&mut self, path: &str) -> Option<Node> {
        let found = self.node(path);
        let mut above = path;
        while found.is_none() && above != "/" {
            above = split(above).0;
            if self.node(above).is_some() {
                break;
            }
        }
        found
    }

    fn set(&mut self, path: &str, node: Option<Node>) {
        // Adds the node to the transaction's.
        self.node(path);
        match self.transaction.as_mut().and_then(|transaction| transaction.seen.get_mut(path)) {
            Some(seen) => {
                seen.node = node;
                seen.changed = true;
            }
            None => self.store.set(path, node),
        }
    }

    fn note_change(&mut self, path: &str, exact: bool) {
        match self.transaction.as_mut().and_then(|transaction| transaction.seen.get_mut(path)) {
            Some(seen) => seen.event = Some(exact),
            None => self.changes.push(Change { path: path.into(), exact }),
        }
    }

    /// Sets a node's value, or makes the node if `value` is `None`. Missing nodes above it are made
    /// without an event.
    pub(super) fn write(&mut self, path: &str, value: Option<&[u8]>) {
        match (self.named(path), value) {
            // MKDIR of a node that exists changes nothing and has no event.
            (Some(_), None) => return,
            // A write of the same value is a change too, with its event.
            (Some(node), Some(value)) => self.set(path, Some(Node { value: value.into(), ..node })),
            (None, value) => self.make(path, value.unwrap_or_default()),
        }
        self.note_change(path, false);
    }

    fn make(&mut self, path: &str, value: &[u8]) {
        let (parent, name) = split(path);
        if self.node(parent).is_none() {
            self.make(parent, b"");
        }
        let Some(mut above) = self.node(parent) else { return };
        // A new node inherits the permissions of its parent.
        let permissions = above.permissions.clone();
        above.children.push(name.into());
        self.set(parent, Some(above));
        let node = Node { value: value.into(), permissions, children: vec![], generation: 0 };
        self.set(path, Some(node));
    }

    pub(super) fn permit(
        &mut self,
        path: &str,
        permissions: Vec<Permission>,
    ) -> Result<(), Refused> {
        let node = self.named(path).ok_or(ENOENT)?;
        self.set(path, Some(Node { permissions, ..node }));
        self.note_change(path, false);
        Ok(())
    }

    /// Gives the node another generation, as if it had changed.
    pub(super) fn touch(&mut self, path: &str) {
        if let Some(node) = self.node(path) {
            self.set(path, Some(node));
        }
    }

    /// Removes a node and all below it. It is no error if the node is missing and its parent is
    /// not.
    pub(super) fn remove(&mut self, path: &str) -> Result<(), Refused> {
        if path == "/" {
            return Err(EINVAL);
        }
        let (parent, name) = split(path);
        let found = self.named(path).is_some();
        let mut above = self.node(parent).ok_or(ENOENT)?;
        if found {
            self.remove_below(path, false);
            above.children.retain(|child| child != name);
            self.set(parent, Some(above));
        }
        Ok(())
    }

    fn remove_below(&mut self, path: &str, exact: bool) {
        // Children first, which is the order of the daemon's events.
        for child in self.node(path).map(|node| node.children).unwrap_or_default() {
            self.remove_below(&join(path, &child), true);
        }
        self.set(path, None);
        self.note_change(path, exact);
    }

    /// Removes all nodes that a domain owns.
    pub(super) fn remove_owned(&mut self, domid: u32) {
        let mut ahead = vec![String::from("/")];
        while let Some(path) = ahead.pop() {
            let Some(node) = self.node(&path) else { continue };
            if node.permissions.first().is_some_and(|owner| owner.domid == domid) {
                // Cannot fail: the walk has come from its parent.
                let _ = self.remove(&path);
            } else {
                ahead.extend(node.children.iter().rev().map(|child| join(&path, child)));
            }
        }
    }
}

fn join(parent: &str, name: &str) -> String {
    format!("{}/{name}", parent.trim_end_matches('/'))
}

/// A path's parent and its name.
fn split(path: &str) -> (&str, &str) {
    match path.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((parent, name)) => (parent, name),
        None => ("/", path),
    }
}

/// The path of a node in a request: a relative path is below dom0's home.
pub(super) fn path_of(given: &[u8]) -> Result<String, Refused> {
    let given = std::str::from_utf8(given).map_err(|_| EINVAL)?;
    let path = match given.starts_with('/') {
        true => given.to_owned(),
        false => format!("/local/domain/0/{given}"),
    };
    // The limit of a relative path (2,048) also holds behind a domain's home.
    let home = path.strip_prefix("/local/domain/").and_then(|rest| rest.find('/'));
    let longest = 2_048 + home.map_or(0, |end| "/local/domain/".len() + end + 1);
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-/_@".contains(&byte);
    let sound = path.bytes().all(known)
        && !path.contains("//")
        && (path == "/" || !path.ends_with('/'))
        && path.len() <= longest;
    if sound && !given.starts_with('@') { Ok(path) } else { Err(EINVAL) }
}

/// The permissions in a request.
pub(super) fn permissions_of<'a>(
    given: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<Permission>, Refused> {
    let parse = |one: &[u8]| {
        let one = std::str::from_utf8(one).map_err(|_| EINVAL)?;
        let letter = one.chars().next().filter(|letter| "nrwb".contains(*letter));
        let letter = letter.ok_or(EINVAL)?;
        let domid = one[1..].parse().map_err(|_| EINVAL)?;
        Ok(Permission { letter, domid })
    };
    given.map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(view: View<'_>) -> Vec<(String, bool)> {
        view.into_changes().into_iter().map(|change| (change.path, change.exact)).collect()
    }

    #[test]
    fn only_the_named_node_of_a_removal_is_an_inexact_change() {
        let mut store = Store::new();
        let mut view = store.view(None);
        view.write("/a/b/c", Some(b"1"));
        view.remove("/a").unwrap();
        let [made, below, between, top] = &changes(view)[..] else { panic!() };
        assert_eq!(*made, ("/a/b/c".into(), false));
        assert_eq!(*below, ("/a/b/c".into(), true));
        assert_eq!(*between, ("/a/b".into(), true));
        assert_eq!(*top, ("/a".into(), false));
    }

    #[test]
    fn transaction_is_isolated_and_fails_on_a_conflict() {
        let mut store = Store::new();
        let mut one = Transaction::default();
        let mut other = Transaction::default();
        store.view(Some(&mut one)).write("/a", Some(b"1"));
        assert!(store.view(None).node("/a").is_none());
        store.view(Some(&mut other)).write("/a", Some(b"2"));
        assert_eq!(store.commit(one).unwrap(), [Change { path: "/a".into(), exact: false }]);
        assert_eq!(store.commit(other), Err(EAGAIN));
        assert_eq!(store.view(None).node("/a").unwrap().value, b"1");
    }

    #[test]
    fn malformed_paths_are_refused() {
        assert_eq!(path_of(b"/a/b-c_d@e").unwrap(), "/a/b-c_d@e");
        assert_eq!(path_of(b"data").unwrap(), "/local/domain/0/data");
        let long = format!("/{}", "p".repeat(3_071));
        for path in [&b""[..], b"/a/", b"//a", b"/a b", b"@a", b"/\xff", long.as_bytes()] {
            assert_eq!(path_of(path), Err(EINVAL), "{path:?}");
        }
    }
}
