//! All that is ever sent: reads, watches, and questions. Nothing here can change a store but for the
//! watches of our own connection.

use crate::wire::{HEADER_LENGTH, Header, Operation};

/// A node of a domain that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Vm,
    Name,
    Shutdown,
}

impl Node {
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
pub(crate) enum Target {
    /// `@introduceDomain`: a domain began to use the store.
    Introduced,
    /// `@releaseDomain`: a domain shut down, crashed, or ended.
    Released,
    /// `/local/domain`: its children alone, where a watch can be held to those.
    Children,
    /// A node of a domain.
    Domain(u16, Node),
}

impl Target {
    pub(crate) const SPECIAL: [Self; 3] = [Self::Introduced, Self::Released, Self::Children];

    fn path(self, out: &mut Vec<u8>) {
        match self {
            Self::Introduced => out.extend_from_slice(b"@introduceDomain\0"),
            Self::Released => out.extend_from_slice(b"@releaseDomain\0"),
            Self::Children => out.extend_from_slice(b"/local/domain\0"),
            Self::Domain(domid, node) => {
                home(out, domid);
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

    /// Whose token it is; `None` for none of ours.
    pub(crate) fn of_token(token: &[u8]) -> Option<Self> {
        let (letter, number) = token.split_first()?;
        let node = match (letter, number) {
            (b'I', b"") => return Some(Self::Introduced),
            (b'R', b"") => return Some(Self::Released),
            (b'C', b"") => return Some(Self::Children),
            (b'v', _) => Node::Vm,
            (b'n', _) => Node::Name,
            (b's', _) => Node::Shutdown,
            _ => return None,
        };
        Some(Self::Domain(crate::decode::domid(number)?, node))
    }
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Which features the server has.
    Features,
    /// To tell when something changes; with a depth, not below it.
    Watch(Target, Option<u8>),
    Unwatch(Target),
    /// To drop all watches of the connection.
    Reset,
    /// The children of `/local/domain`.
    List,
    /// The same from an offset on.
    ListPart(usize),
    /// Whether a domain uses the store.
    IsIntroduced(u16),
    /// A node of a domain.
    Read(u16, Node),
    /// Whether a domain's own directory is there.
    ReadHome(u16),
    /// Whether the server lives.
    Probe,
}

impl Ask {
    pub(crate) fn operation(self) -> Operation {
        match self {
            Self::Features => Operation::GET_FEATURE,
            Self::Watch(..) => Operation::WATCH,
            Self::Unwatch(_) => Operation::UNWATCH,
            Self::Reset => Operation::RESET_WATCHES,
            Self::List => Operation::DIRECTORY,
            Self::ListPart(_) => Operation::DIRECTORY_PART,
            Self::IsIntroduced(_) | Self::Probe => Operation::IS_DOMAIN_INTRODUCED,
            Self::Read(..) | Self::ReadHome(_) => Operation::READ,
        }
    }

    /// Appends the packet. None comes near the limit: all that varies are numbers.
    pub(crate) fn write(self, out: &mut Vec<u8>, id: u32) {
        let start = out.len();
        out.resize(start + HEADER_LENGTH, 0);
        match self {
            Self::Features => {}
            // What libxenstore sends.
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
            Self::List => Target::Children.path(out),
            Self::ListPart(offset) => {
                Target::Children.path(out);
                number(out, offset);
                out.push(0);
            }
            Self::IsIntroduced(domid) => {
                number(out, domid.into());
                out.push(0);
            }
            Self::Read(domid, node) => Target::Domain(domid, node).path(out),
            Self::ReadHome(domid) => {
                home(out, domid);
                out.push(0);
            }
            // Domain 0 is asked for because it is always there.
            Self::Probe => out.extend_from_slice(b"0\0"),
        }
        let length = out.len() - start - HEADER_LENGTH;
        let header = Header::request(self.operation(), id).to_bytes(length as u32);
        out[start..start + HEADER_LENGTH].copy_from_slice(&header);
    }

    /// What is asked, for people: `READ of /local/domain/5/name`.
    pub(crate) fn to_line(self) -> String {
        let mut bytes = Vec::new();
        self.write(&mut bytes, 0);
        let path = crate::wire::strings(&bytes[HEADER_LENGTH..]).next().unwrap_or_default();
        format!("{} of {}", self.operation(), String::from_utf8_lossy(path))
    }
}

fn home(out: &mut Vec<u8>, domid: u16) {
    out.extend_from_slice(b"/local/domain/");
    number(out, domid.into());
}

/// In decimal. Rust's own formatting takes longer than all the rest of a request.
fn number(out: &mut Vec<u8>, number: usize) {
    let (start, mut rest) = (out.len(), number);
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

    const NODES: [Node; 3] = Node::ALL;

    #[test]
    fn nothing_that_can_be_sent_writes_to_the_store() {
        // An Ask without a place here does not compile.
        let every = |ask: Ask| match ask {
            Ask::Features | Ask::Reset | Ask::List | Ask::Probe => {}
            Ask::Watch(..) | Ask::Unwatch(_) | Ask::ListPart(_) => {}
            Ask::IsIntroduced(_) | Ask::Read(..) | Ask::ReadHome(_) => {}
        };
        let mut asks = vec![Ask::Features, Ask::Reset, Ask::List, Ask::Probe, Ask::ListPart(9)];
        asks.extend([Ask::IsIntroduced(3), Ask::ReadHome(3)]);
        asks.extend(NODES.map(|node| Ask::Read(3, node)));
        for target in Target::SPECIAL.into_iter().chain(NODES.map(|node| Target::Domain(3, node))) {
            asks.extend([
                Ask::Watch(target, None),
                Ask::Watch(target, Some(1)),
                Ask::Unwatch(target),
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
        for ask in asks {
            every(ask);
            let mut bytes = Vec::new();
            ask.write(&mut bytes, 7);
            let mut decoder = Decoder::new();
            decoder.push(&bytes);
            let packet = decoder.next_packet().unwrap().unwrap();
            assert!(harmless.contains(&packet.header.operation), "{ask:?}");
            assert_eq!((packet.header.request, packet.header.transaction), (7, 0));
        }
    }

    #[test]
    fn a_token_leads_back_to_what_is_watched() {
        let all = Target::SPECIAL.into_iter().chain(NODES.map(|node| Target::Domain(32751, node)));
        for target in all {
            let mut token = Vec::new();
            target.token(&mut token);
            assert_eq!(Target::of_token(token.strip_suffix(b"\0").unwrap()), Some(target));
        }
        for token in [&b""[..], b"x", b"I1", b"n", b"n-1", b"n40000", b"n5x"] {
            assert_eq!(Target::of_token(token), None, "{token:?}");
        }
    }

    #[test]
    fn a_request_reads_as_what_it_asks() {
        assert_eq!(Ask::Read(5, Node::Name).to_line(), "READ of /local/domain/5/name");
        let watch = Ask::Watch(Target::Released, None);
        assert_eq!(watch.to_line(), "WATCH of @releaseDomain");
    }
}
