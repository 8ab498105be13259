//! The body of a reply that says no, and whether asking again can help.

use super::Domain;
use super::xdr::{Malformed, Reader, Writer};

/// Error numbers (`virErrorNumber`) that mean something to a client.
pub mod code {
    /// Something inside libvirt failed; also what it says to an unsupported event id.
    pub const INTERNAL_ERROR: i32 = 1;
    /// The hypervisor's driver lacks the call.
    pub const NO_SUPPORT: i32 = 3;
    /// No driver for the URI.
    pub const NO_CONNECT: i32 = 5;
    /// An argument has a value that it cannot have.
    pub const INVALID_ARG: i32 = 8;
    /// Not on a read-only connection.
    pub const OPERATION_DENIED: i32 = 29;
    /// A system call failed on the server.
    pub const SYSTEM_ERROR: i32 = 38;
    /// The protocol itself: unknown procedure, not authenticated ...
    pub const RPC: i32 = 39;
    /// There is no such domain.
    pub const NO_DOMAIN: i32 = 42;
    /// Authentication failed.
    pub const AUTH_FAILED: i32 = 45;
    /// The configuration cannot be had here.
    pub const CONFIG_UNSUPPORTED: i32 = 67;
    /// The user called authentication off.
    pub const AUTH_CANCELLED: i32 = 79;
    /// The access rules of the host say no.
    pub const ACCESS_DENIED: i32 = 88;
    /// Nobody is there to ask the user for authentication.
    pub const AUTH_UNAVAILABLE: i32 = 94;
}

/// What a server says when a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteError {
    /// The error's number: see [`code`].
    pub code: i32,
    /// The part of libvirt that it comes from (`virErrorDomain`).
    pub domain: i32,
    /// For people, and in the daemon's language.
    pub message: String,
    /// The message's untranslated format, mostly `%s`.
    pub format: String,
    /// What else comes with some errors: an errno, for one.
    pub int1: i32,
}

impl RemoteError {
    /// Reads one.
    ///
    /// # Errors
    /// There is none.
    pub fn read(body: &mut Reader<'_>) -> Result<Self, Malformed> {
        let text = |bytes: Option<&[u8]>| {
            bytes.map_or_else(String::new, |bytes| String::from_utf8_lossy(bytes).into_owned())
        };
        let (code, domain) = (body.i32()?, body.i32()?);
        let message = text(body.optional(Reader::string)?);
        let _level = body.i32()?;
        let _about = body.optional(Domain::read)?;
        let format = text(body.optional(Reader::string)?);
        let _str2 = body.optional(Reader::string)?;
        let _str3 = body.optional(Reader::string)?;
        let int1 = body.i32()?;
        // An int and a network follow, which no error that we can meet fills in.
        Ok(Self { code, domain, message, format, int1 })
    }

    /// Appends it.
    pub fn write(&self, body: &mut Writer<'_>) {
        let text = |text: &String| (!text.is_empty()).then(|| text.clone());
        body.i32(self.code);
        body.i32(self.domain);
        body.optional(text(&self.message), |body, text| body.string(text));
        body.i32(2); // level: an error, not a warning
        body.u32(0); // no domain
        body.optional(text(&self.format), |body, text| body.string(text));
        body.u32(0); // no str2
        body.u32(0); // no str3
        body.i32(self.int1);
        body.i32(0); // int2
        body.u32(0); // no network
    }
}

/// What to make of an error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether asking again cannot help.
    pub refusal: bool,
    /// What to do; may be empty.
    pub help: &'static str,
}

/// What to make of an error number. One that is not in the table may pass by itself.
#[rustfmt::skip]
pub fn verdict(code: i32) -> Verdict {
    use self::code as c;
    let (refusal, help) = match code {
        c::NO_SUPPORT => (true, "this hypervisor's driver in libvirt cannot do it"),
        c::NO_CONNECT => (true, "check the URI, and that the host has libvirt's driver for this hypervisor"),
        c::INVALID_ARG => (true, "check the URI"),
        c::OPERATION_DENIED => (true, "the connection is read-only: open it with read_write()"),
        c::AUTH_FAILED => (true, "check the credentials"),
        c::CONFIG_UNSUPPORTED => (true, ""),
        c::AUTH_CANCELLED => (true, "polkit must let this user in: see org.libvirt.unix.monitor"),
        c::ACCESS_DENIED => (true, "the host's access rules for libvirt must let this user in"),
        c::AUTH_UNAVAILABLE => (true, "polkit has no agent to ask the user: run as root, or write a polkit rule"),
        c::RPC => (false, "client and server do not understand each other: check the server's log"),
        _ => (false, ""),
    };
    Verdict { refusal, help }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_back_as_it_was_written() {
        let error = RemoteError {
            code: code::RPC,
            domain: 7,
            message: "authentication required".into(),
            format: "%s".into(),
            int1: -1,
        };
        let mut out = Vec::new();
        error.write(&mut Writer::new(&mut out));
        assert_eq!(RemoteError::read(&mut Reader::new(&out)), Ok(error));
    }

    #[test]
    fn what_may_pass_by_itself_is_no_refusal() {
        for code in [code::INTERNAL_ERROR, code::SYSTEM_ERROR, code::RPC, 68, 12345] {
            assert!(!verdict(code).refusal, "{code}");
        }
        for code in [3, 5, 8, 29, 45, 67, 79, 88, 94] {
            assert!(verdict(code).refusal, "{code}");
        }
    }
}
