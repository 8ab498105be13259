//! A text of a notice.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// The longest text that is kept in place, in bytes: a [`Text`] then is as large as a `String`.
const IN_PLACE: usize = 22;

/// An immutable text. One of at most 22 bytes, such as the target of a disk, needs no memory of its
/// own, so that a notice of a busy kind is one allocation.
///
/// It derefs to `str`, and is made of one by `into()`.
#[derive(Clone)]
pub struct Text(Repr);

#[derive(Clone)]
enum Repr {
    InPlace { length: u8, bytes: [u8; IN_PLACE] },
    Boxed(Box<str>),
}

impl Text {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::InPlace { length, bytes } => {
                let bytes = bytes.get(..usize::from(*length)).unwrap_or_default();
                // Copied from a `str`: never anything but UTF-8.
                std::str::from_utf8(bytes).unwrap_or_default()
            }
            Repr::Boxed(text) => text,
        }
    }

    /// The memory beside the value itself, in bytes.
    pub(super) fn boxed(&self) -> usize {
        if let Repr::Boxed(text) = &self.0 { text.len() } else { 0 }
    }

    fn in_place(text: &str) -> Option<Self> {
        let mut bytes = [0; IN_PLACE];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Self(Repr::InPlace { length: text.len() as u8, bytes }))
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::in_place(text).unwrap_or_else(|| Self(Repr::Boxed(text.into())))
    }
}

impl From<Box<str>> for Text {
    fn from(text: Box<str>) -> Self {
        Self::in_place(&text).unwrap_or(Self(Repr::Boxed(text)))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::in_place(&text).unwrap_or_else(|| Self(Repr::Boxed(text.into())))
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::from("")
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text {}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_reads_back_whatever_its_length() {
        for length in 0..50 {
            let text = "é".repeat(length / 2) + &"x".repeat(length % 2);
            let kept = Text::from(text.as_str());
            assert_eq!((kept.as_str(), kept.boxed() == 0), (&*text, length <= 22));
            assert_eq!(Text::from(text.clone()), kept);
            assert_eq!(Text::from(text.clone().into_boxed_str()), kept);
            assert_eq!(format!("{kept:?} {kept:>60}"), format!("{text:?} {text:>60}"));
        }
        assert_eq!(size_of::<Text>(), size_of::<String>());
    }
}
