//! The tree of nodes, and transactions on it.
//!
//! A transaction has its own copy of each node that it looked at or changed. At its end they become
//! the store's, unless one of them has changed there in between.

use std::collections::HashMap;

use virevent_xen::wire::error::{EAGAIN, EINVAL, ENOENT};

pub(super) type Refused = &'static str;

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Vec<u8>,
    /// The owner's first.
    pub(super) permissions: Vec<Permission>,
    /// In the order in which they came.
    pub(super) children: Vec<String>,
    /// Of its latest change, one of its list of children included.
    pub(super) generation: u64,
}

/// `n0`: a letter and a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Permission {
    pub(super) letter: char,
    pub(super) domid: u32,
}

/// A change to be told to watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) path: String,
    /// Only to those that watch this very path, not to those above it: a node that went with the one
    /// that was removed.
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
    /// The paths, as they were first looked at: the order in which changes are told.
    order: Vec<String>,
}

#[derive(Debug)]
struct Seen {
    /// What the store had at first.
    generation: Option<u64>,
    node: Option<Node>,
    changed: bool,
    /// Whether to tell, and whether exactly.
    told: Option<bool>,
}

impl Store {
    /// As a daemon begins.
    pub(super) fn new() -> Self {
        let permissions = vec![Permission { letter: 'n', domid: 0 }];
        let root = Node { value: vec![], permissions, children: vec![], generation: 0 };
        let mut store = Self { nodes: [("/".into(), root)].into(), generation: 1 };
        store.view(None).write("/tool/xenstored", Some(b""));
        store
    }

    /// The nodes as a transaction sees them, or as they are.
    pub(super) fn view<'a>(&'a mut self, transaction: Option<&'a mut Transaction>) -> View<'a> {
        View { store: self, transaction, changes: Vec::new() }
    }

    /// Ends a transaction. Returns the changes to be told.
    pub(super) fn commit(&mut self, transaction: Transaction) -> Result<Vec<Change>, Refused> {
        let now = |path| self.nodes.get(path).map(|node: &Node| node.generation);
        if transaction.seen.iter().any(|(path, seen)| now(path) != seen.generation) {
            return Err(EAGAIN);
        }
        let (mut seen, mut changes) = (transaction.seen, Vec::new());
        for path in transaction.order {
            let Some(seen) = seen.remove(&path) else { continue };
            if seen.changed {
                self.set(&path, seen.node);
            }
            changes.extend(seen.told.map(|exact| Change { path, exact }));
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
    /// What is to be told now: of a transaction's changes nothing.
    pub(super) fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    pub(super) fn node(&mut self, path: &str) -> Option<Node> {
        let of_store = self.store.nodes.get(path);
        let Some(transaction) = &mut self.transaction else { return of_store.cloned() };
        if !transaction.seen.contains_key(path) {
            let (generation, node) = (of_store.map(|node| node.generation), of_store.cloned());
            transaction
                .seen
                .insert(path.into(), Seen { generation, node, changed: false, told: None });
            transaction.order.push(path.into());
        }
        transaction.seen.get(path)?.node.clone()
    }

    /// The node that a client names. Of one that is missing the daemon looks at those above it, up to
    /// one that is there.
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
        // So that it is among the seen ones.
        self.node(path);
        match self.transaction.as_mut().and_then(|transaction| transaction.seen.get_mut(path)) {
            Some(seen) => (seen.node, seen.changed) = (node, true),
            None => self.store.set(path, node),
        }
    }

    fn tell(&mut self, path: &str, exact: bool) {
        match self.transaction.as_mut().and_then(|transaction| transaction.seen.get_mut(path)) {
            Some(seen) => seen.told = Some(exact),
            None => self.changes.push(Change { path: path.into(), exact }),
        }
    }

    /// Gives a node a value, or with `None` sees that it exists. What is missing above it is made too,
    /// silently.
    pub(super) fn write(&mut self, path: &str, value: Option<&[u8]>) {
        match (self.named(path), value) {
            (Some(_), None) => return,
            (Some(node), Some(value)) => self.set(path, Some(Node { value: value.into(), ..node })),
            (None, value) => self.make(path, value.unwrap_or_default()),
        }
        self.tell(path, false);
    }

    fn make(&mut self, path: &str, value: &[u8]) {
        let (parent, name) = split(path);
        if self.node(parent).is_none() {
            self.make(parent, b"");
        }
        let Some(mut above) = self.node(parent) else { return };
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
        self.tell(path, false);
        Ok(())
    }

    /// Makes the node another generation, as if it had changed.
    pub(super) fn touch(&mut self, path: &str) {
        if let Some(node) = self.node(path) {
            self.set(path, Some(node));
        }
    }

    /// Removes a node and all below it. One that is missing is as good, if its parent is not.
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
        for child in self.node(path).map(|node| node.children).unwrap_or_default() {
            self.remove_below(&join(path, &child), true);
        }
        self.set(path, None);
        self.tell(path, exact);
    }

    /// Removes what a domain owns, wherever it is.
    pub(super) fn remove_owned(&mut self, domid: u32) {
        let mut ahead = vec![String::from("/")];
        while let Some(path) = ahead.pop() {
            let Some(node) = self.node(&path) else { continue };
            if node.permissions.first().is_some_and(|owner| owner.domid == domid) {
                // Its parent is there: we come from it.
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

/// The path of a node, from what a client says: a relative one is below dom0's home.
pub(super) fn path_of(said: &[u8]) -> Result<String, Refused> {
    let said = std::str::from_utf8(said).map_err(|_| EINVAL)?;
    let path = match said.starts_with('/') {
        true => said.to_owned(),
        false => format!("/local/domain/0/{said}"),
    };
    // What comes behind a domain's home is as long as a guest may make it.
    let home = path.strip_prefix("/local/domain/").and_then(|rest| rest.find('/'));
    let longest = 2_048 + home.map_or(0, |end| "/local/domain/".len() + end + 1);
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-/_@".contains(&byte);
    let sound = path.bytes().all(known)
        && !path.contains("//")
        && (path == "/" || !path.ends_with('/'))
        && path.len() <= longest;
    if sound && !said.starts_with('@') { Ok(path) } else { Err(EINVAL) }
}

/// Permissions, from what a client says.
pub(super) fn permissions_of<'a>(
    said: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<Permission>, Refused> {
    said.map(|one| {
        let one = std::str::from_utf8(one).map_err(|_| EINVAL)?;
        let letter = one.chars().next().filter(|letter| "nrwb".contains(*letter));
        let (letter, domid) = (letter.ok_or(EINVAL)?, one[1..].parse().map_err(|_| EINVAL)?);
        Ok(Permission { letter, domid })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(view: View<'_>) -> Vec<(String, bool)> {
        view.into_changes().into_iter().map(|change| (change.path, change.exact)).collect()
    }

    #[test]
    fn parents_are_made_silently_and_a_removal_is_told_from_below() {
        let mut store = Store::new();
        let mut view = store.view(None);
        view.write("/a/b/c", Some(b"1"));
        view.remove("/a").unwrap();
        let [made, below, between, top] = &told(view)[..] else { panic!() };
        assert_eq!(*made, ("/a/b/c".into(), false));
        assert_eq!(*below, ("/a/b/c".into(), true));
        assert_eq!(*between, ("/a/b".into(), true));
        assert_eq!(*top, ("/a".into(), false));
    }

    #[test]
    fn a_transaction_is_seen_by_nobody_else_and_fails_on_a_conflict() {
        let (mut store, mut one, mut other) =
            (Store::new(), Transaction::default(), Transaction::default());
        store.view(Some(&mut one)).write("/a", Some(b"1"));
        assert!(store.view(None).node("/a").is_none());
        store.view(Some(&mut other)).write("/a", Some(b"2"));
        assert_eq!(store.commit(one).unwrap(), [Change { path: "/a".into(), exact: false }]);
        assert_eq!(store.commit(other), Err(EAGAIN));
        assert_eq!(store.view(None).node("/a").unwrap().value, b"1");
    }

    #[test]
    fn paths_have_a_form() {
        assert_eq!(path_of(b"/a/b-c_d@e").unwrap(), "/a/b-c_d@e");
        assert_eq!(path_of(b"data").unwrap(), "/local/domain/0/data");
        let long = format!("/{}", "p".repeat(3_071));
        for path in [&b""[..], b"/a/", b"//a", b"/a b", b"@a", b"/\xff", long.as_bytes()] {
            assert_eq!(path_of(path), Err(EINVAL), "{path:?}");
        }
    }
}
