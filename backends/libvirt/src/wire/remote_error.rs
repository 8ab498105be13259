//! The body of an error reply, and whether the same call can succeed later.

use super::Domain;
use super::xdr::{Malformed, Reader, Writer};

/// The error numbers (`virErrorNumber`) that this crate distinguishes.
pub mod code {
    /// Something inside libvirt failed; also the error for an unknown event id.
    pub const INTERNAL_ERROR: i32 = 1;
    /// The hypervisor's driver does not have the call.
    pub const NO_SUPPORT: i32 = 3;
    /// No driver for the URI.
    pub const NO_CONNECT: i32 = 5;
    /// An argument has an invalid value.
    pub const INVALID_ARG: i32 = 8;
    /// The call is not allowed on a read-only connection.
    pub const OPERATION_DENIED: i32 = 29;
    /// A system call failed on the server.
    pub const SYSTEM_ERROR: i32 = 38;
    /// An error of the protocol: unknown procedure, not authenticated ...
    pub const RPC: i32 = 39;
    /// There is no such domain.
    pub const NO_DOMAIN: i32 = 42;
    /// Authentication failed.
    pub const AUTH_FAILED: i32 = 45;
    /// The configuration is not supported.
    pub const CONFIG_UNSUPPORTED: i32 = 67;
    /// The user cancelled authentication.
    pub const AUTH_CANCELLED: i32 = 79;
    /// The host's access rules forbid it.
    pub const ACCESS_DENIED: i32 = 88;
    /// There is no polkit agent to ask the user.
    pub const AUTH_UNAVAILABLE: i32 = 94;
}

/// The error that a server returns when a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteError {
    /// The error's number: see [`code`].
    pub code: i32,
    /// The part of libvirt that reports it (`virErrorDomain`).
    pub domain: i32,
    /// For people, and in the daemon's language.
    pub message: String,
    /// The message's untranslated format, mostly `%s`.
    pub format: String,
    /// A number that comes with some errors, such as an errno.
    pub int1: i32,
}

impl RemoteError {
    /// Reads one.
    ///
    /// # Errors
    /// The body does not begin with one.
    pub fn read(body: &mut Reader<'_>) -> Result<Self, Malformed> {
        // For people only, so bytes that are not UTF-8 are no reason to fail.
        let text = |bytes: Option<&[u8]>| {
            bytes.map_or_else(String::new, |bytes| String::from_utf8_lossy(bytes).into_owned())
        };
        let code = body.i32()?;
        let domain = body.i32()?;
        let message = text(body.optional(Reader::string)?);
        let _level = body.i32()?;
        let _about = body.optional(Domain::read)?;
        let format = text(body.optional(Reader::string)?);
        let _str2 = body.optional(Reader::string)?;
        let _str3 = body.optional(Reader::string)?;
        let int1 = body.i32()?;
        // An int and a network follow, which libvirt does not set in errors to the calls of this
        // crate.
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

/// What an error number means to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorClass {
    /// Whether the same call fails again until something is changed.
    pub is_refusal: bool,
    /// What to do; may be empty.
    pub help: &'static str,
}

/// What an error number means to a client. A call that failed with one that is not in the table may
/// succeed later.
#[rustfmt::skip]
#[must_use] 
pub fn classify(code: i32) -> ErrorClass {
    use self::code as c;
    let (is_refusal, help) = match code {
        c::NO_SUPPORT => (true, "the driver of this hypervisor in libvirt does not support it"),
        c::NO_CONNECT => (true, "check the URI, and that libvirt has a driver for it on the host"),
        c::INVALID_ARG => (true, "check the URI"),
        c::OPERATION_DENIED => (true, "the connection is read-only: open it with read_write()"),
        c::AUTH_FAILED => (true, "check the credentials"),
        c::CONFIG_UNSUPPORTED => (true, ""),
        c::AUTH_CANCELLED => (true, "polkit must allow org.libvirt.unix.monitor to this user"),
        c::ACCESS_DENIED => (true, "the host's access rules must allow it to this user"),
        c::AUTH_UNAVAILABLE => (true, "polkit has no agent to ask: run as root, or write a polkit rule"),
        c::RPC => (false, "client and server disagree on the protocol: check the server's log"),
        _ => (false, ""),
    };
    ErrorClass { is_refusal, help }
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
    fn an_error_that_may_pass_by_itself_is_no_refusal() {
        for code in [code::INTERNAL_ERROR, code::SYSTEM_ERROR, code::RPC, 68, 12345] {
            assert!(!classify(code).is_refusal, "{code}");
        }
        for code in [3, 5, 8, 29, 45, 67, 79, 88, 94] {
            assert!(classify(code).is_refusal, "{code}");
        }
    }
}
