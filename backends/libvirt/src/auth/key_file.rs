//! The format of libvirt's auth file.
//!
//! libvirt reads it by GLib's `GKeyFile` since 6.x, so GLib's rules hold, also the odd ones: only `#`
//! starts a comment, and only at the start of a line; a trailing space and quotes belong to the
//! value; a backslash starts an escape; of two equal keys the later one counts; one line that is
//! none of these makes the whole file invalid.

use std::collections::HashMap;

use zeroize::Zeroizing;

/// A value, which may be a password.
type Value = Zeroizing<String>;

/// The groups of a key file.
#[derive(Default)]
pub(super) struct KeyFile<'a> {
    groups: HashMap<&'a str, HashMap<&'a str, &'a str>>,
}

/// A line that makes the file invalid.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadLine {
    /// Counted from 1.
    pub(super) number: usize,
    /// What is wrong, without the line's content, which may be a password.
    pub(super) problem: &'static str,
}

impl<'a> KeyFile<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, BadLine> {
        let mut file = Self::default();
        let mut group = None;
        for (at, line) in text.split('\n').enumerate() {
            let line = line.strip_suffix('\r').unwrap_or(line);
            let bad = |problem| BadLine { number: at + 1, problem };
            let line = line.trim_start_matches(is_space);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(header) = line.strip_prefix('[') {
                let name = group_name(header).ok_or(bad("it is no [group]"))?;
                // Two groups of one name are one.
                file.groups.entry(name).or_default();
                group = Some(name);
                continue;
            }
            let (key, value) = line
                .split_once('=')
                .ok_or(bad("it is no [group], no key=value and no # comment"))?;
            let key = key.trim_end_matches(is_space);
            if !is_key(key) {
                return Err(bad("a key is missing or has a bracket before ="));
            }
            let values = group.and_then(|group| file.groups.get_mut(group));
            let values = values.ok_or(bad("a [group] must come before it"))?;
            values.insert(key, value.trim_start_matches(is_space));
        }
        Ok(file)
    }

    pub(super) fn has_group(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    pub(super) fn value(&self, group: &str, key: &str) -> Option<Value> {
        self.groups.get(group)?.get(key).map(|raw| unescaped(raw))
    }
}

/// `g_ascii_isspace`, for a text that contains no newline.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\x0c' | '\n')
}

/// The name in a group's line, behind its first bracket.
fn group_name(header: &str) -> Option<&str> {
    let (name, rest) = header.split_once(']')?;
    let is_name = !name.is_empty() && !name.contains('[') && !name.chars().any(char::is_control);
    let is_end = rest.chars().all(|c| matches!(c, ' ' | '\t'));
    (is_name && is_end).then_some(name)
}

/// A key; one in brackets at its end is for a language.
fn is_key(key: &str) -> bool {
    let name = match key.strip_suffix(']').and_then(|rest| rest.split_once('[')) {
        Some((name, language)) if !language.is_empty() => name,
        _ => key,
    };
    !name.is_empty() && !name.contains(['[', ']'])
}

/// The value that the text in the file stands for. GLib keeps an escape that it does not know as it
/// is, and drops a backslash at the end.
fn unescaped(raw: &str) -> Value {
    // Never longer than the text, so no copy stays behind in a buffer that grew.
    let mut value = Zeroizing::new(String::with_capacity(raw.len()));
    let mut rest = raw.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            value.push(c);
            continue;
        }
        match rest.next() {
            Some('s') => value.push(' '),
            Some('n') => value.push('\n'),
            Some('t') => value.push('\t'),
            Some('r') => value.push('\r'),
            Some('\\') => value.push('\\'),
            Some(other) => value.extend(['\\', other]),
            None => {}
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of `password` in the group `a`.
    fn password(text: &str) -> Option<String> {
        let file = KeyFile::parse(text).unwrap_or_else(|bad| panic!("{text:?}: {bad:?}"));
        file.value("a", "password").map(|value| value.to_string())
    }

    #[test]
    fn a_value_is_what_glib_makes_of_its_line() {
        let table = [
            ("[a]\npassword=sekrit\n", "sekrit"),
            ("[a]\npassword=sekrit", "sekrit"),
            ("[a]\r\npassword=sekrit\r\n", "sekrit"),
            ("\n# c\n  # c\n[a]\n\n  password \t=\t sekrit\n", "sekrit"),
            ("  [a] \t\npassword=sekrit\n", "sekrit"),
            ("[a]\npassword=sekrit \n", "sekrit "),
            ("[a]\npassword=sekrit\t\n", "sekrit\t"),
            ("[a]\npassword=\"sekrit\"\n", "\"sekrit\""),
            ("[a]\npassword=sek#rit;=x\n", "sek#rit;=x"),
            ("[a]\npassword=\n", ""),
            ("[a]\npassword=\\ssek\\\\s\\trit\\q\\\n", " sek\\s\trit\\q"),
            ("[a]\npassword=no\npassword=sekrit\n", "sekrit"),
            ("[a]\nx=1\n[b]\npassword=no\n[a]\npassword=sekrit\n", "sekrit"),
            ("[a]\npassword=sekrit\nsp ace=1\nk[de]=1\npassword[de]=no\n", "sekrit"),
            ("[a]\npassword=sékrit\n", "sékrit"),
        ];
        for (text, expected) in table {
            assert_eq!(password(text).as_deref(), Some(expected), "{text:?}");
        }
        for text in ["", "\n", "[a]\nPassword=x\n", "[A]\npassword=x\n", "[b]\npassword=x\n"] {
            assert_eq!(password(text), None, "{text:?}");
        }
    }

    #[test]
    fn one_bad_line_makes_the_file_invalid() {
        let table = [
            "; c", "junk", "=x", " =x", "[", "[]", "[a", "[a[b]", "[a] # c", "[a]x", "k]=x",
            "k[]=x",
        ];
        for line in table {
            let text = format!("[a]\npassword=s3cr3t\n{line}\n");
            let bad = KeyFile::parse(&text).err().unwrap_or_else(|| panic!("{line} is accepted"));
            assert_eq!(bad.number, 3, "{line}");
        }
        assert_eq!(KeyFile::parse("password=x\n[a]\n").err().map(|bad| bad.number), Some(1));
    }

    #[test]
    fn garbage_causes_no_panic() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..20_000 {
            let text: String = (0..random.usize(..40))
                .filter_map(|_| {
                    random.choice(['[', ']', '=', '\\', ' ', '\n', '\r', 'a', '#', 'é'])
                })
                .collect();
            if let Ok(file) = KeyFile::parse(&text) {
                let _ = file.value("a", "a");
            }
        }
    }
}
