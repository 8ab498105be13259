//! Patterns of file names: `*` stands for any text and `?` for one character, as in a shell.

use std::fmt;

/// A pattern of file names. As in a shell, a name that begins with a dot is only matched by a
/// pattern that does too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamePattern(Box<str>);

impl NamePattern {
    pub(crate) fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    /// Whether the pattern is exactly this name.
    pub(crate) fn is(&self, name: &str) -> bool {
        *self.0 == *name
    }

    /// Whether a file's name matches.
    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        let is_hidden = name.first() == Some(&b'.');
        (!is_hidden || self.0.starts_with('.')) && matches(self.0.as_bytes(), name)
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Matches each star with as little as possible first, and with more where the rest does not match.
/// Going back to the last star is enough: what an earlier one could take, the last can take as
/// well.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let mut p = 0;
    let mut n = 0;
    // The pattern behind the last star, and up to where that star matches.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some(b'?') => {
                p += 1;
                n = next_char(name, n);
            }
            Some(byte) if *byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((after, taken)) = star else { return false };
                star = Some((after, taken + 1));
                p = after;
                n = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// The index of the character after the one at `at`, in UTF-8.
fn next_char(name: &[u8], at: usize) -> usize {
    let rest = name[at + 1..].iter();
    at + 1 + rest.take_while(|byte| **byte & 0xc0 == 0x80).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_matches_any_text_and_a_question_mark_one_character() {
        let table = [
            ("*.sock", &["a.sock", "a.b.sock", "é.sock"][..], &["sock", "a.sock2", ".sock"][..]),
            ("vm?.*", &["vm1.sock", "vmé.x"], &["vm.sock", "vm12.sock"]),
            ("a*b*c", &["abc", "aXbYbZc", "abbcc"], &["ab", "acb", "abcd"]),
            ("*", &["a", "."][..1], &[".a", "."]),
            (".*", &[".a"], &["a"]),
            ("mon", &["mon"], &["monitor", "mo", ""]),
        ];
        for (pattern, yes, no) in table {
            let fits = |name: &&&str| NamePattern::new(pattern).matches(name.as_bytes());
            assert_eq!(yes.iter().filter(fits).count(), yes.len(), "{pattern} {yes:?}");
            assert_eq!(no.iter().filter(fits).count(), 0, "{pattern} {no:?}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_is_matched_in_no_time() {
        let pattern = "*a".repeat(100) + "b";
        let name = "a".repeat(255);
        assert!(!NamePattern::new(&pattern).matches(name.as_bytes()));
    }

    #[test]
    fn a_name_that_is_no_text_is_matched() {
        assert!(NamePattern::new("*.sock").matches(b"\xff\xfe.sock"));
        assert!(NamePattern::new("?.sock").matches(b"\xff.sock"));
    }
}
