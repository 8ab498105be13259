//! The bodies of the SASL calls (`remote_auth_sasl_start_args` and the like).
//!
//! Their data is an array of chars, not opaque bytes: each byte travels as an int of four bytes,
//! sign-extended where the server's `char` is signed. A flag says whether there is any data, since
//! no data and empty data differ in SASL.

use std::fmt;

use super::xdr::{Malformed, Reader, Writer};

/// The most bytes of SASL data in a message (`REMOTE_AUTH_SASL_DATA_MAX`).
pub const MAX_SASL_DATA: usize = 65_536;

/// The most bytes of a list of mechanisms that this crate reads. The protocol has no limit, and a
/// name has at most 20 bytes.
pub const MAX_MECHANISMS: usize = 4096;

/// The arguments of `AUTH_SASL_START`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SaslStart<'a> {
    /// The mechanism.
    pub mechanism: &'a [u8],
    /// The first data of the client, if it has any. It may contain a password.
    pub data: Option<&'a [u8]>,
}

/// Without the data, which may contain a password.
impl fmt::Debug for SaslStart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mechanism = String::from_utf8_lossy(self.mechanism);
        f.debug_struct("SaslStart").field("mechanism", &mechanism).finish_non_exhaustive()
    }
}

impl SaslStart<'_> {
    /// How many bytes [`write`](Self::write) appends.
    #[must_use]
    pub fn size(&self) -> usize {
        4 + self.mechanism.len().next_multiple_of(4) + SaslStep { data: self.data }.size()
    }

    /// Appends it.
    pub fn write(&self, body: &mut Writer<'_>) {
        body.string(self.mechanism);
        write_data(self.data, body);
    }
}

/// The arguments of `AUTH_SASL_STEP`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SaslStep<'a> {
    /// The next data of the client, if it has any.
    pub data: Option<&'a [u8]>,
}

/// Without the data, which may contain a password.
impl fmt::Debug for SaslStep<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaslStep").finish_non_exhaustive()
    }
}

impl SaslStep<'_> {
    /// How many bytes [`write`](Self::write) appends.
    #[must_use]
    pub fn size(&self) -> usize {
        8 + 4 * self.data.map_or(0, <[u8]>::len)
    }

    /// Appends it.
    pub fn write(&self, body: &mut Writer<'_>) {
        write_data(self.data, body);
    }
}

/// The reply to `AUTH_SASL_START` and `AUTH_SASL_STEP`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaslReply {
    /// Whether the server accepts the client.
    pub complete: bool,
    /// The data of the server, if it has any.
    pub data: Option<Vec<u8>>,
}

impl SaslReply {
    /// Reads one.
    ///
    /// # Errors
    /// The body does not begin with one, its data is longer than [`MAX_SASL_DATA`], or its flags
    /// contradict it.
    pub fn read(body: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { complete: read_flag(body)?, data: read_data(body)? })
    }

    /// Appends it.
    pub fn write(&self, body: &mut Writer<'_>) {
        body.i32(self.complete.into());
        write_data(self.data.as_deref(), body);
    }
}

impl<'a> SaslStart<'a> {
    /// Reads the mechanism and the data.
    ///
    /// # Errors
    /// The body does not begin with them.
    pub fn read(body: &mut Reader<'a>) -> Result<(&'a [u8], Option<Vec<u8>>), Malformed> {
        Ok((body.string()?, read_data(body)?))
    }
}

impl SaslStep<'_> {
    /// Reads the data.
    ///
    /// # Errors
    /// The body does not begin with it.
    pub fn read(body: &mut Reader<'_>) -> Result<Option<Vec<u8>>, Malformed> {
        read_data(body)
    }
}

fn read_flag(body: &mut Reader<'_>) -> Result<bool, Malformed> {
    match body.u32()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed { expected: "a flag" }),
    }
}

fn read_data(body: &mut Reader<'_>) -> Result<Option<Vec<u8>>, Malformed> {
    const ERROR: Malformed = Malformed { expected: "SASL data" };
    let is_nil = read_flag(body)?;
    let count = body.count(MAX_SASL_DATA, 4)?;
    if is_nil {
        return if count == 0 { Ok(None) } else { Err(ERROR) };
    }
    let byte = |value: i32| match value {
        // A server whose char is unsigned, as on Arm, does not extend the sign.
        -128..=255 => Ok(value as u8),
        _ => Err(ERROR),
    };
    (0..count).map(|_| byte(body.i32()?)).collect::<Result<_, _>>().map(Some)
}

fn write_data(data: Option<&[u8]>, body: &mut Writer<'_>) {
    let bytes = data.unwrap_or_default();
    body.i32(data.is_none().into());
    body.u32(bytes.len() as u32);
    bytes.iter().for_each(|byte| body.i32((*byte as i8).into()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut Writer::new(&mut out));
        out
    }

    #[test]
    fn sasl_bodies_read_back_as_they_were_written() {
        for data in [None, Some(&b""[..]), Some(b"n,,n=fred"), Some(b"\0\xff\x80\x7f")] {
            let start = SaslStart { mechanism: b"PLAIN", data };
            let bytes = written(|body| start.write(body));
            assert_eq!(bytes.len(), start.size());
            let read = SaslStart::read(&mut Reader::new(&bytes)).unwrap();
            assert_eq!(read, (&b"PLAIN"[..], data.map(<[u8]>::to_vec)));

            let step = SaslStep { data };
            let bytes = written(|body| step.write(body));
            assert_eq!(bytes.len(), step.size());
            assert_eq!(SaslStep::read(&mut Reader::new(&bytes)).unwrap().as_deref(), data);

            let reply = SaslReply { complete: true, data: data.map(<[u8]>::to_vec) };
            let bytes = written(|body| reply.write(body));
            assert_eq!(SaslReply::read(&mut Reader::new(&bytes)), Ok(reply));
        }
    }

    #[test]
    fn flags_and_data_that_contradict_each_other_are_malformed() {
        let reply = |words: &[i32]| {
            let bytes = written(|body| words.iter().for_each(|word| body.i32(*word)));
            SaslReply::read(&mut Reader::new(&bytes))
        };
        assert_eq!(reply(&[0, 0, 1, 255]).unwrap().data, Some(vec![255]), "an unsigned char");
        assert!(reply(&[2, 1, 0]).is_err(), "complete is no flag");
        assert!(reply(&[0, 2, 0]).is_err(), "nil is no flag");
        assert!(reply(&[0, 1, 1, 7]).is_err(), "nil, but there is data");
        assert!(reply(&[0, 0, 1, 256]).is_err(), "no char");
        assert!(reply(&[0, 0, 1, -129]).is_err(), "no char");
        assert!(reply(&[0, 0, 2, 7]).is_err(), "too short");
        assert!(reply(&[0, 0, -1]).is_err(), "longer than the body");
        assert!(reply(&[0, 0]).is_err() && reply(&[0]).is_err() && reply(&[]).is_err());
    }

    #[test]
    fn data_longer_than_libvirts_limit_is_malformed() {
        let reply = |length| {
            let reply = SaslReply { complete: false, data: Some(vec![0; length]) };
            SaslReply::read(&mut Reader::new(&written(|body| reply.write(body))))
        };
        assert!(reply(MAX_SASL_DATA).is_ok());
        assert!(reply(MAX_SASL_DATA + 1).is_err());
    }
}
