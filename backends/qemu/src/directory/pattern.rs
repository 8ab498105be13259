//! Patterns of file names: `*` stands for any text and `?` for one character, as in a shell.

use std::fmt;

/// A pattern. As in a shell, a name that begins with a dot is only matched by one that does too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(Box<str>);

impl Pattern {
    pub(crate) fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    /// Whether it is this name, and matches no other.
    pub(crate) fn is(&self, name: &str) -> bool {
        *self.0 == *name
    }

    /// Whether a file's name matches.
    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        let hidden = name.first() == Some(&b'.');
        (!hidden || self.0.starts_with('.')) && matches(self.0.as_bytes(), name)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Each star first takes as little as it can, and more where the rest does not fit: the last one is
/// enough to go back to.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some(b'?') => (p, n) = (p + 1, next(name, n)),
            Some(byte) if *byte == name[n] => (p, n) = (p + 1, n + 1),
            _ => {
                let Some((after, taken)) = star else { return false };
                star = Some((after, taken + 1));
                (p, n) = (after, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Where the character after the one at `at` begins.
fn next(name: &[u8], at: usize) -> usize {
    let rest = name[at + 1..].iter();
    at + 1 + rest.take_while(|byte| **byte & 0xc0 == 0x80).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text_and_a_question_mark_one_character() {
        let table = [
            ("*.sock", &["a.sock", "a.b.sock", "é.sock"][..], &["sock", "a.sock2", ".sock"][..]),
            ("vm?.*", &["vm1.sock", "vmé.x"], &["vm.sock", "vm12.sock"]),
            ("a*b*c", &["abc", "aXbYbZc", "abbcc"], &["ab", "acb", "abcd"]),
            ("*", &["a", "."][..1], &[".a", "."]),
            (".*", &[".a"], &["a"]),
            ("mon", &["mon"], &["monitor", "mo", ""]),
        ];
        for (pattern, yes, no) in table {
            let fits = |name: &&&str| Pattern::new(pattern).matches(name.as_bytes());
            assert_eq!(yes.iter().filter(fits).count(), yes.len(), "{pattern} {yes:?}");
            assert_eq!(no.iter().filter(fits).count(), 0, "{pattern} {no:?}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let (pattern, name) = ("*a".repeat(100) + "b", "a".repeat(255));
        assert!(!Pattern::new(&pattern).matches(name.as_bytes()));
    }

    #[test]
    fn a_name_need_not_be_text() {
        assert!(Pattern::new("*.sock").matches(b"\xff\xfe.sock"));
        assert!(Pattern::new("?.sock").matches(b"\xff.sock"));
    }
}
