//! What notices are made of beside numbers and texts.

use std::fmt;

use super::{AddressFamily, Text};

/// An end of a connection to a graphical console.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphicsAddress {
    /// The family of the address.
    pub family: AddressFamily,
    /// The host's address, or the path of a unix socket.
    pub node: Text,
    /// The port, or another name of the service.
    pub service: Text,
}

/// `node:service`, without what is empty; `[node]:service` of IPv6.
impl fmt::Display for GraphicsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.family {
            AddressFamily::Ipv6 => write!(f, "[{}]", self.node)?,
            _ => f.write_str(&self.node)?,
        }
        if self.service.is_empty() { Ok(()) } else { write!(f, ":{}", self.service) }
    }
}

/// What a client of a graphical console proved to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphicsIdentity {
    /// The type of the identity: `x509dname`, `saslUsername` ...
    pub kind: Text,
    /// The identity.
    pub name: Text,
}

/// Named values of any type (libvirt's typed parameters), in the hypervisor's order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params(pub Vec<(Text, ParamValue)>);

impl Params {
    /// The value with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ParamValue> {
        self.0.iter().find(|(known, _)| &**known == name).map(|(_, value)| value)
    }
}

impl FromIterator<(Text, ParamValue)> for Params {
    fn from_iter<I: IntoIterator<Item = (Text, ParamValue)>>(params: I) -> Self {
        Self(params.into_iter().collect())
    }
}

/// `name=value, name=value`.
impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, value)) in self.0.iter().enumerate() {
            write!(f, "{}{name}={value}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// A value of [`Params`] (`virTypedParameterType`).
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum ParamValue {
    /// A whole number (int, uint, llong, ullong).
    Int(i128),
    /// A number with a fraction.
    Double(f64),
    /// A truth value.
    Bool(bool),
    /// A text.
    Text(Text),
}

impl fmt::Display for ParamValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => write!(f, "{number}"),
            Self::Double(number) => write!(f, "{number}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}
