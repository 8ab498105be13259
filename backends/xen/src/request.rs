//! All requests that are ever sent: reads, watches and questions. None can change a store, but for the watches
//! of this connection.

use crate::wire::{HEADER_LENGTH, Header, Operation};

/// A node of a domain that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DomainNode {
    Vm,
    Name,
    Shutdown,
}

impl DomainNode {
    pub(crate) const ALL: [Self; 3] = [Self::Vm, Self::Name, Self::Shutdown];

    fn path(self) -> &'static str {
        match self {
            Self::Vm => "vm",
            Self::Name => "name",
            Self::Shutdown => "control/shutdown",
        }
    }

    fn letter(self) -> u8 {
        match self {
            Self::Vm => b'v',
            Self::Name => b'n',
            Self::Shutdown => b's',
        }
    }
}

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchTarget {
    /// `@introduceDomain`: a domain is introduced.
    Introduced,
    /// `@releaseDomain`: a domain shut down, crashed, or ended.
    Released,
    /// `/local/domain`: its children alone, where the server offers watches with a depth.
    Children,
    /// A node of a domain.
    Domain(u16, DomainNode),
}

impl WatchTarget {
    pub(crate) const SPECIAL: [Self; 3] = [Self::Introduced, Self::Released, Self::Children];

    fn path(self, out: &mut Vec<u8>) {
        match self {
            Self::Introduced => out.extend_from_slice(b"@introduceDomain\0"),
            Self::Released => out.extend_from_slice(b"@releaseDomain\0"),
            Self::Children => out.extend_from_slice(b"/local/domain\0"),
            Self::Domain(domid, node) => {
                directory(out, domid);
                out.push(b'/');
                out.extend_from_slice(node.path().as_bytes());
                out.push(0);
            }
        }
    }

    fn token(self, out: &mut Vec<u8>) {
        match self {
            Self::Introduced => out.extend_from_slice(b"I\0"),
            Self::Released => out.extend_from_slice(b"R\0"),
            Self::Children => out.extend_from_slice(b"C\0"),
            Self::Domain(domid, node) => {
                out.push(node.letter());
                number(out, domid.into());
                out.push(0);
            }
        }
    }

    /// The target that has this token; `None` for a token that is never sent.
    pub(crate) fn of_token(token: &[u8]) -> Option<Self> {
        let (letter, number) = token.split_first()?;
        let node = match (letter, number) {
            (b'I', b"") => return Some(Self::Introduced),
            (b'R', b"") => return Some(Self::Released),
            (b'C', b"") => return Some(Self::Children),
            (b'v', _) => DomainNode::Vm,
            (b'n', _) => DomainNode::Name,
            (b's', _) => DomainNode::Shutdown,
            _ => return None,
        };
        Some(Self::Domain(crate::decode::domid(number)?, node))
    }
}

/// A request to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreRequest {
    /// Asks for the server's features.
    Features,
    /// Sets a watch, with a depth if there is one.
    Watch(WatchTarget, Option<u8>),
    Unwatch(WatchTarget),
    /// Drops all watches of the connection.
    Reset,
    /// Lists the children of `/local/domain`.
    List,
    /// Lists them from an offset on.
    ListPart(usize),
    /// Asks whether a domain is introduced.
    IsIntroduced(u16),
    /// Reads a node of a domain.
    Read(u16, DomainNode),
    /// Reads a domain's directory: whether it exists.
    ReadDirectory(u16),
    /// Asks for what every server answers.
    Probe,
}

impl StoreRequest {
    pub(crate) fn operation(self) -> Operation {
        match self {
            Self::Features => Operation::GET_FEATURE,
            Self::Watch(..) => Operation::WATCH,
            Self::Unwatch(_) => Operation::UNWATCH,
            Self::Reset => Operation::RESET_WATCHES,
            Self::List => Operation::DIRECTORY,
            Self::ListPart(_) => Operation::DIRECTORY_PART,
            Self::IsIntroduced(_) | Self::Probe => Operation::IS_DOMAIN_INTRODUCED,
            Self::Read(..) | Self::ReadDirectory(_) => Operation::READ,
        }
    }

    /// Appends the packet. Its length is far below the limit: only numbers vary.
    pub(crate) fn write(self, out: &mut Vec<u8>, id: u32) {
        let start = out.len();
        out.resize(start + HEADER_LENGTH, 0);
        match self {
            Self::Features => {}
            // As libxenstore sends it.
            Self::Reset => out.push(0),
            Self::Watch(target, depth) => {
                target.path(out);
                target.token(out);
                if let Some(depth) = depth {
                    number(out, depth.into());
                    out.push(0);
                }
            }
            Self::Unwatch(target) => {
                target.path(out);
                target.token(out);
            }
            Self::List => WatchTarget::Children.path(out),
            Self::ListPart(offset) => {
                WatchTarget::Children.path(out);
                number(out, offset);
                out.push(0);
            }
            Self::IsIntroduced(domid) => {
                number(out, domid.into());
                out.push(0);
            }
            Self::Read(domid, node) => WatchTarget::Domain(domid, node).path(out),
            Self::ReadDirectory(domid) => {
                directory(out, domid);
                out.push(0);
            }
            // Domain 0 always exists.
            Self::Probe => out.extend_from_slice(b"0\0"),
        }
        let length = out.len() - start - HEADER_LENGTH;
        let header = Header::request(self.operation(), id).to_bytes(length as u32);
        out[start..start + HEADER_LENGTH].copy_from_slice(&header);
    }

    /// The request as text: `READ of /local/domain/5/name`.
    pub(crate) fn to_line(self) -> String {
        let mut bytes = Vec::new();
        self.write(&mut bytes, 0);
        let path = crate::wire::strings(&bytes[HEADER_LENGTH..]).next().unwrap_or_default();
        format!("{} of {}", self.operation(), String::from_utf8_lossy(path))
    }
}

fn directory(out: &mut Vec<u8>, domid: u16) {
    out.extend_from_slice(b"/local/domain/");
    number(out, domid.into());
}

/// Appends a number in decimal. Rust's own formatting takes longer than the rest of a request.
fn number(out: &mut Vec<u8>, number: usize) {
    let start = out.len();
    let mut rest = number;
    loop {
        out.push(b'0' + (rest % 10) as u8);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out[start..].reverse();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Decoder;

    const NODES: [DomainNode; 3] = DomainNode::ALL;

    #[test]
    fn no_request_writes_to_the_store() {
        // A request that is missing here does not compile.
        let check = |request: StoreRequest| match request {
            StoreRequest::Features
            | StoreRequest::Reset
            | StoreRequest::List
            | StoreRequest::Probe => {}
            StoreRequest::Watch(..) | StoreRequest::Unwatch(_) | StoreRequest::ListPart(_) => {}
            StoreRequest::IsIntroduced(_)
            | StoreRequest::Read(..)
            | StoreRequest::ReadDirectory(_) => {}
        };
        let mut requests = vec![
            StoreRequest::Features,
            StoreRequest::Reset,
            StoreRequest::List,
            StoreRequest::Probe,
            StoreRequest::ListPart(9),
        ];
        requests.extend([StoreRequest::IsIntroduced(3), StoreRequest::ReadDirectory(3)]);
        requests.extend(NODES.map(|node| StoreRequest::Read(3, node)));
        for target in
            WatchTarget::SPECIAL.into_iter().chain(NODES.map(|node| WatchTarget::Domain(3, node)))
        {
            requests.extend([
                StoreRequest::Watch(target, None),
                StoreRequest::Watch(target, Some(1)),
                StoreRequest::Unwatch(target),
            ]);
        }
        let harmless = [
            Operation::DIRECTORY,
            Operation::READ,
            Operation::WATCH,
            Operation::UNWATCH,
            Operation::IS_DOMAIN_INTRODUCED,
            Operation::RESET_WATCHES,
            Operation::DIRECTORY_PART,
            Operation::GET_FEATURE,
        ];
        for request in requests {
            check(request);
            let mut bytes = Vec::new();
            request.write(&mut bytes, 7);
            let mut decoder = Decoder::new();
            decoder.push(&bytes);
            let packet = decoder.next_packet().unwrap().unwrap();
            assert!(harmless.contains(&packet.header.operation), "{request:?}");
            assert_eq!(packet.header, Header::request(packet.header.operation, 7));
        }
    }

    #[test]
    fn a_token_leads_back_to_its_watch() {
        let all = WatchTarget::SPECIAL
            .into_iter()
            .chain(NODES.map(|node| WatchTarget::Domain(32751, node)));
        for target in all {
            let mut token = Vec::new();
            target.token(&mut token);
            assert_eq!(WatchTarget::of_token(token.strip_suffix(b"\0").unwrap()), Some(target));
        }
        for token in [&b""[..], b"x", b"I1", b"n", b"n-1", b"n40000", b"n5x"] {
            assert_eq!(WatchTarget::of_token(token), None, "{token:?}");
        }
    }

    #[test]
    fn a_request_as_text_names_operation_and_path() {
        assert_eq!(
            StoreRequest::Read(5, DomainNode::Name).to_line(),
            "READ of /local/domain/5/name"
        );
        let watch = StoreRequest::Watch(WatchTarget::Released, None);
        assert_eq!(watch.to_line(), "WATCH of @releaseDomain");
    }
}
