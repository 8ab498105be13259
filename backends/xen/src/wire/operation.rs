//! The operations of packets.

use std::fmt;

/// The operation of a packet: `enum xsd_sockmsg_type` in Xen's `xs_wire.h`.
///
/// It can hold any number. Those known up to Xen 4.21 have names.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Operation(pub u32);

macro_rules! operations {
    ($($(#[$doc:meta])+ $number:literal = $name:ident)+) => {
        impl Operation {
            $( $(#[$doc])+ pub const $name: Self = Self($number); )+

            /// Xen's name, without its `XS_`; `None` for an unknown number.
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $( Self::$name => Some(stringify!($name)), )+
                    _ => None,
                }
            }
        }
    };
}

operations! {
    /// Controls the daemon itself: `command`, arguments. Reply: text.
    0 = CONTROL
    /// `path`. Reply: the names of the children, or E2BIG if they do not fit in one packet.
    1 = DIRECTORY
    /// `path`. Reply: the bytes of the value, without a NUL.
    2 = READ
    /// `path`. Reply: permissions, the owner's first: `n0`, `r5`.
    3 = GET_PERMS
    /// `path`, `token`, and since Xen 4.22 `depth`. Reply: `OK`, and one [`WATCH_EVENT`](Self::WATCH_EVENT)
    /// at once.
    4 = WATCH
    /// `path`, `token`. Reply: `OK`.
    5 = UNWATCH
    /// An empty string. Reply: the transaction's number, in decimal.
    6 = TRANSACTION_START
    /// `T` to commit, `F` to abort. Reply: `OK`, or EAGAIN after a conflict.
    7 = TRANSACTION_END
    /// `domid`, `gfn`, `event channel`: introduces a domain, which may use the store from then on. Reply: `OK`.
    8 = INTRODUCE
    /// `domid`. Reply: `OK`.
    9 = RELEASE
    /// `domid`. Reply: `/local/domain/domid`, whether there is such a domain or not.
    10 = GET_DOMAIN_PATH
    /// `path` and, after its NUL, the bytes of the value. Reply: `OK`.
    11 = WRITE
    /// `path`. Reply: `OK`, also if it exists.
    12 = MKDIR
    /// `path`. Reply: `OK`.
    13 = RM
    /// `path`, permissions. Reply: `OK`.
    14 = SET_PERMS
    /// From the server, without a request: `path`, `token`. The node at the path changed, or may have.
    15 = WATCH_EVENT
    /// From the server: the name of the error, see [`error`](super::error).
    16 = ERROR
    /// `domid`. Reply: `T` or `F`.
    17 = IS_DOMAIN_INTRODUCED
    /// `domid`: the domain continues after a suspend. Reply: `OK`.
    18 = RESUME
    /// `domid`, `target domid`. Reply: `OK`.
    19 = SET_TARGET
    /// Removed from Xen.
    20 = RESTRICT
    /// Drops all watches and transactions of the connection. Reply: `OK`.
    21 = RESET_WATCHES
    /// Since Xen 4.9: `path`, `offset`. Reply: see [`DirectoryPart`](super::DirectoryPart).
    22 = DIRECTORY_PART
    /// Since Xen 4.21: nothing, or `domid`. Reply: a sum of bits, in decimal.
    23 = GET_FEATURE
    /// Since Xen 4.21: `domid`, bits. Reply: `OK`.
    24 = SET_FEATURE
    /// Since Xen 4.21: nothing, or `domid`, `name`. Reply: names, or a number.
    25 = GET_QUOTA
    /// Since Xen 4.21: `domid`, `name`, number. Reply: `OK`.
    26 = SET_QUOTA
}

/// The name, or `operation 77`.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "operation {}", self.0),
        }
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
