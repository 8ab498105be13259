//! The access of a toolstack to a store daemon and to the hypervisor behind it.

use std::fmt;
use std::io;

use super::RunState;

// Operations of the protocol (`xen/include/public/io/xs_wire.h`).
pub(super) const DIRECTORY: u32 = 1;
pub(super) const READ: u32 = 2;
pub(super) const TRANSACTION_START: u32 = 6;
pub(super) const TRANSACTION_END: u32 = 7;
pub(crate) const INTRODUCE: u32 = 8;
pub(super) const RELEASE: u32 = 9;
pub(crate) const WRITE: u32 = 11;
pub(crate) const MKDIR: u32 = 12;
pub(crate) const RM: u32 = 13;
pub(crate) const SET_PERMS: u32 = 14;
pub(super) const IS_DOMAIN_INTRODUCED: u32 = 17;
pub(super) const RESUME: u32 = 18;
pub(super) const DIRECTORY_PART: u32 = 22;

/// The failure of an operation of a toolstack.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum ToolstackError {
    /// The store daemon refused a request.
    #[error("xenstored refuses {request}: {error}")]
    Refused {
        /// The request.
        request: String,
        /// The daemon's name of the error: `ENOENT`.
        error: String,
    },
    /// The store daemon did not answer, or the simulated hypervisor could not be changed.
    #[error("{request} failed without an answer: is xenstored running?")]
    Unreachable {
        /// The operation.
        request: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

/// The body of a reply, or the name of an error.
pub(crate) type Answer = Result<Vec<u8>, String>;

/// The store daemon and hypervisor that a [`Toolstack`](super::Toolstack) acts on.
pub(crate) trait ToolstackBackend: fmt::Debug + Send + Sync {
    /// Sends a request and waits for its reply.
    fn request(&self, operation: u32, transaction: u32, payload: &[u8]) -> io::Result<Answer>;

    /// Sets a domain's run state, or `None` to remove it. The daemon sees it at the next VIRQ.
    fn set_state(&self, domid: u32, state: Option<RunState>) -> io::Result<()>;

    /// Makes the daemon read the run states of its domains.
    fn raise_virq(&self) -> io::Result<()>;
}

impl dyn ToolstackBackend + '_ {
    /// Sends a request and returns the body of its reply.
    pub(crate) fn call(
        &self,
        operation: u32,
        transaction: u32,
        payload: &[u8],
    ) -> Result<Vec<u8>, ToolstackError> {
        let request = || format!("{} {}", name(operation), payload.escape_ascii());
        match self.request(operation, transaction, payload) {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(error)) => Err(ToolstackError::Refused { request: request(), error }),
            Err(source) => Err(ToolstackError::Unreachable { request: request(), source }),
        }
    }

    /// As [`call`](Self::call) outside a transaction, with `None` for `ENOENT`.
    pub(crate) fn call_if_there(
        &self,
        operation: u32,
        payload: &[u8],
    ) -> Result<Option<Vec<u8>>, ToolstackError> {
        match self.call(operation, 0, payload) {
            Ok(body) => Ok(Some(body)),
            Err(ToolstackError::Refused { error, .. }) if error == "ENOENT" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A node's value, or `None` if there is no such node.
    pub(crate) fn read(&self, path: &str) -> Result<Option<Vec<u8>>, ToolstackError> {
        self.call_if_there(READ, &terminated(&[path]))
    }

    /// The names of a node's children, in the daemon's order. None if there is no such node.
    pub(crate) fn list(&self, path: &str) -> Result<Vec<String>, ToolstackError> {
        let names = match self.call_if_there(DIRECTORY, &terminated(&[path])) {
            Err(ToolstackError::Refused { error, .. }) if error == "E2BIG" => {
                self.list_in_parts(path)?
            }
            names => names?.unwrap_or_default(),
        };
        Ok(strings(&names))
    }

    /// A list that is longer than a packet.
    fn list_in_parts(&self, path: &str) -> Result<Vec<u8>, ToolstackError> {
        let mut names = Vec::new();
        let mut generation = Vec::new();
        loop {
            let offset = names.len().to_string();
            let part = self.call(DIRECTORY_PART, 0, &terminated(&[path, &offset]))?;
            let end = part.iter().position(|byte| *byte == 0).unwrap_or(part.len());
            let (now, rest) = part.split_at(end);
            // Parts of two generations do not fit together: a name could be missing or double.
            if !names.is_empty() && now != generation {
                // The list has changed between two parts: begin again.
                names.clear();
                continue;
            }
            generation = now.to_vec();
            names.extend(rest.iter().skip(1));
            // An empty name ends the last part.
            if rest.len() < 2 || names.ends_with(b"\0\0") {
                return Ok(names);
            }
        }
    }

    pub(crate) fn is_introduced(&self, domid: u32) -> Result<bool, ToolstackError> {
        let answer = self.call(IS_DOMAIN_INTRODUCED, 0, &terminated(&[&domid.to_string()]))?;
        Ok(answer.starts_with(b"T"))
    }
}

fn name(operation: u32) -> &'static str {
    match operation {
        DIRECTORY => "DIRECTORY",
        READ => "READ",
        TRANSACTION_START => "TRANSACTION_START",
        TRANSACTION_END => "TRANSACTION_END",
        INTRODUCE => "INTRODUCE",
        RELEASE => "RELEASE",
        WRITE => "WRITE",
        MKDIR => "MKDIR",
        RM => "RM",
        SET_PERMS => "SET_PERMS",
        IS_DOMAIN_INTRODUCED => "IS_DOMAIN_INTRODUCED",
        RESUME => "RESUME",
        DIRECTORY_PART => "DIRECTORY_PART",
        _ => "a request",
    }
}

/// The strings, each with a NUL behind it.
pub(crate) fn terminated(strings: &[&str]) -> Vec<u8> {
    strings.iter().flat_map(|string| [string.as_bytes(), b"\0"].concat()).collect()
}

/// The strings of a payload, each of which has a NUL behind it.
pub(crate) fn strings(bytes: &[u8]) -> Vec<String> {
    let parts = bytes.split(|byte| *byte == 0).filter(|part| !part.is_empty());
    parts.map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}
