//! XDR (RFC 4506), as far as libvirt uses it.
//!
//! Every value takes a multiple of four bytes. Values borrow from the message, so that no length in
//! a message causes an allocation.

use virevent::Uuid;

/// The longest string of libvirt's protocol, in bytes (`REMOTE_STRING_MAX`).
pub const MAX_STRING: usize = 4 * 1024 * 1024;

/// The body of a message does not have the layout of its procedure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{expected} is missing")]
pub struct Malformed {
    /// The value that should be there, with its article.
    pub expected: &'static str,
}

/// Reads the values of a body one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `body` from its start.
    #[must_use]
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// The bytes that have not been read.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Reads bytes without a length before them, such as those of a uuid.
    ///
    /// # Errors
    /// The body is too short.
    #[inline]
    pub fn fixed<const N: usize>(&mut self) -> Result<&'a [u8; N], Malformed> {
        let (head, rest) =
            self.rest.split_first_chunk().ok_or(Malformed { expected: "a value" })?;
        self.rest = rest;
        Ok(head)
    }

    /// Reads an unsigned int.
    ///
    /// # Errors
    /// The body is too short.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.fixed().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// Reads an int, a bool or an enumeration.
    ///
    /// # Errors
    /// The body is too short.
    #[inline]
    pub fn i32(&mut self) -> Result<i32, Malformed> {
        self.fixed().map(|bytes| i32::from_be_bytes(*bytes))
    }

    /// Reads an unsigned hyper, or any other value of eight bytes.
    ///
    /// # Errors
    /// The body is too short.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.fixed().map(|bytes| u64::from_be_bytes(*bytes))
    }

    /// Reads a hyper.
    ///
    /// # Errors
    /// The body is too short.
    pub fn i64(&mut self) -> Result<i64, Malformed> {
        self.fixed().map(|bytes| i64::from_be_bytes(*bytes))
    }

    /// Reads a uuid.
    ///
    /// # Errors
    /// The body is too short.
    #[inline]
    pub fn uuid(&mut self) -> Result<Uuid, Malformed> {
        self.fixed().map(|bytes| Uuid::from_bytes(*bytes))
    }

    /// Reads the bytes of a string. They are usually UTF-8, but the protocol does not demand it.
    ///
    /// # Errors
    /// The body is too short, or the string is longer than [`MAX_STRING`].
    #[inline]
    pub fn string(&mut self) -> Result<&'a [u8], Malformed> {
        const ERROR: Malformed = Malformed { expected: "a string" };
        let length = self.u32()? as usize;
        if length > MAX_STRING {
            return Err(ERROR);
        }
        let bytes = self.rest.get(..length).ok_or(ERROR)?;
        // Zeros fill up the last four bytes. They must be there, and their value does not matter.
        self.rest = self.rest.get(length.next_multiple_of(4)..).ok_or(ERROR)?;
        Ok(bytes)
    }

    /// Reads a value that may be absent.
    ///
    /// # Errors
    /// The body is too short, or does not say whether the value is present.
    pub fn optional<T>(
        &mut self,
        value: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        match self.u32()? {
            0 => Ok(None),
            1 => value(self).map(Some),
            _ => Err(Malformed { expected: "an optional value" }),
        }
    }

    /// Reads the number of items in an array, at most `max`. Each item has at least `size` bytes,
    /// so the number is never more than the body can contain.
    ///
    /// # Errors
    /// The body is too short for that many items.
    pub fn count(&mut self, max: usize, size: usize) -> Result<usize, Malformed> {
        let count = self.u32()? as usize;
        // Before anything is allocated for the items.
        if count > max || count.saturating_mul(size) > self.rest.len() {
            return Err(Malformed { expected: "an array" });
        }
        Ok(count)
    }
}

/// Appends values to a message.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Appends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Appends an unsigned int.
    pub fn u32(&mut self, value: u32) {
        self.raw(&value.to_be_bytes());
    }

    /// Appends an int, a bool or an enumeration.
    pub fn i32(&mut self, value: i32) {
        self.raw(&value.to_be_bytes());
    }

    /// Appends an unsigned hyper, or any other value of eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.raw(&value.to_be_bytes());
    }

    /// Appends a hyper.
    pub fn i64(&mut self, value: i64) {
        self.raw(&value.to_be_bytes());
    }

    /// Appends a uuid.
    pub fn uuid(&mut self, uuid: Uuid) {
        self.raw(uuid.as_bytes());
    }

    /// Appends a string, or any other bytes with their length before them.
    pub fn string(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.u32(bytes.len() as u32);
        self.raw(bytes);
        let padding = bytes.len().next_multiple_of(4) - bytes.len();
        self.raw(&[0; 3][..padding]);
    }

    /// Appends a value that may be absent.
    pub fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.u32(value.is_some().into());
        if let Some(value) = value {
            write(self, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_back_as_they_were_written() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.i32(-1);
        writer.u64(u64::MAX - 1);
        writer.i64(-5);
        for text in ["", "a", "ab", "abc", "abcd"] {
            writer.string(text);
        }
        writer.optional(Some(7), Writer::i32);
        writer.optional(None, Writer::i32);
        writer.uuid(Uuid::from_u128(5));
        assert_eq!(out.len() % 4, 0);

        let mut reader = Reader::new(&out);
        assert_eq!(reader.i32(), Ok(-1));
        assert_eq!(reader.u64(), Ok(u64::MAX - 1));
        assert_eq!(reader.i64(), Ok(-5));
        for text in ["", "a", "ab", "abc", "abcd"] {
            assert_eq!(reader.string(), Ok(text.as_bytes()));
        }
        assert_eq!(reader.optional(Reader::i32), Ok(Some(7)));
        assert_eq!(reader.optional(Reader::i32), Ok(None));
        assert_eq!(reader.uuid(), Ok(Uuid::from_u128(5)));
        assert!(reader.rest().is_empty());
    }

    #[test]
    fn a_value_longer_than_the_body_is_malformed() {
        let long = (MAX_STRING as u32 + 1).to_be_bytes();
        assert!(Reader::new(&[0, 0, 0]).u32().is_err());
        assert!(Reader::new(&[0, 0, 0, 1]).string().is_err());
        assert!(Reader::new(&[0, 0, 0, 1, b'a']).string().is_err(), "the padding is missing");
        assert!(Reader::new(&[&long[..], &vec![0; MAX_STRING + 4]].concat()).string().is_err());
        assert!(Reader::new(&[0, 0, 0, 2, 0, 0, 0, 0]).optional(Reader::i32).is_err());
        assert!(Reader::new(&[0, 0, 0, 2, 0, 0, 0, 0]).count(2, 4).is_err());
        assert!(Reader::new(&[0, 0, 0, 2, 0, 0, 0, 0]).count(1, 1).is_err());
        assert_eq!(Reader::new(&[0, 0, 0, 1, 0, 0, 0, 0]).count(1, 4), Ok(1));
        assert!(Reader::new(&[255; 8]).count(usize::MAX, usize::MAX).is_err());
    }
}
