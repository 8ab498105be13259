//! The syntax of libvirt's configuration files: `key = value` lines, with comments behind `#`.
//!
//! ```text
//!   value:  7   -7   "text"   'text'   """text of lines"""   [ value, value, ]
//! ```
//!
//! Strings have no escapes. Within a list, and only there, a value may be on a later line; a comment
//! may not be there. What is accepted is what libvirt 9.0 accepts: a file that fails there fails
//! here, too.

/// How many lists a list may be in. libvirt has no use for any.
const MAX_DEPTH: usize = 8;

/// One `key = value`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The line of the key, from 1.
    pub(super) line: usize,
    pub(super) key: String,
    pub(super) value: Value,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// This client uses none, so what it is does not matter.
    Number,
    Text(String),
    List(Vec<Value>),
}

/// All entries, in order.
///
/// # Errors
/// The line, and what is wrong there.
pub(super) fn parse(text: &str) -> Result<Vec<Entry>, (usize, String)> {
    let mut cursor = Cursor { rest: text, line: 1 };
    let mut entries = Vec::new();
    loop {
        cursor.skip_between();
        if cursor.rest.is_empty() {
            return Ok(entries);
        }
        let line = cursor.line;
        entries.push(cursor.entry(line).map_err(|error| (cursor.line, error))?);
    }
}

struct Cursor<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Cursor<'a> {
    fn entry(&mut self, line: usize) -> Result<Entry, String> {
        let is_key = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let key = self.take_while(is_key);
        if !key.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err("expected a name, as in uri_default = \"qemu:///system\"".into());
        }
        self.skip_blanks();
        if !self.take('=') {
            return Err(format!("expected = after {key}"));
        }
        self.skip_blanks();
        let value = self.value(0)?;
        self.skip_blanks();
        match self.rest.chars().next() {
            None | Some('\n' | '\r' | ';' | '#') => Ok(Entry { line, key: key.into(), value }),
            Some(_) => Err(format!("expected the end of the line after the value of {key}")),
        }
    }

    /// `depth`: how many lists it is in.
    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if self.take('[') {
            return self.list(depth);
        }
        if let Some(quote) = self.rest.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            return self.text(quote);
        }
        self.take('-');
        match self.take_while(|c| c.is_ascii_digit()) {
            "" => Err("expected a number, a string in quotes, or a list".into()),
            _ => Ok(Value::Number),
        }
    }

    fn text(&mut self, quote: char) -> Result<Value, String> {
        let is_long = self.rest.starts_with("\"\"\"");
        let mark = if is_long { "\"\"\"" } else { &self.rest[..quote.len_utf8()] };
        let inside = &self.rest[mark.len()..];
        let end = inside.find(mark).map(|end| &inside[..end]);
        match end.filter(|text| is_long || !text.contains('\n')) {
            Some(text) => {
                self.line += text.matches('\n').count();
                self.rest = &inside[text.len() + mark.len()..];
                Ok(Value::Text(text.into()))
            }
            None => Err(format!("this string has no closing {mark}")),
        }
    }

    /// After the opening bracket.
    fn list(&mut self, depth: usize) -> Result<Value, String> {
        if depth >= MAX_DEPTH {
            return Err("too many lists in lists".into());
        }
        let mut items = Vec::new();
        loop {
            self.skip_lines();
            // Also after a comma.
            if self.take(']') {
                return Ok(Value::List(items));
            }
            items.push(self.value(depth + 1)?);
            self.skip_lines();
            if !self.take(',') && !self.rest.starts_with(']') {
                return Err("expected , or ] in this list".into());
            }
        }
    }

    /// Skips what may be between entries: blanks, comments and separators.
    fn skip_between(&mut self) {
        loop {
            self.skip_lines();
            if self.rest.starts_with('#') {
                self.take_while(|c| c != '\n');
            } else if !self.take(';') {
                return;
            }
        }
    }

    /// Skips blanks and ends of lines.
    fn skip_lines(&mut self) {
        loop {
            self.skip_blanks();
            if self.take('\n') {
                self.line += 1;
            } else if !self.take('\r') {
                return;
            }
        }
    }

    fn skip_blanks(&mut self) {
        self.take_while(|c| c == ' ' || c == '\t');
    }

    fn take(&mut self, mark: char) -> bool {
        match self.rest.strip_prefix(mark) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    #[test]
    fn each_form_of_value_is_read() {
        let entries = parse(
            "a=1\r\n b_c = \"x # y\" # z\n\n#d = 1\ne = '\"';f = \"\"\"g\nh\"\"\"\n\
             i = [];\nj = [ 'k' , -1,\n\"m\"\n,]\nk = [[1]]",
        );
        let expected = [
            (1, "a", Value::Number),
            (2, "b_c", text("x # y")),
            (5, "e", text("\"")),
            (5, "f", text("g\nh")),
            (7, "i", Value::List(vec![])),
            (8, "j", Value::List(vec![text("k"), Value::Number, text("m")])),
            (11, "k", Value::List(vec![Value::List(vec![Value::Number])])),
        ];
        let expected = expected.map(|(line, key, value)| Entry { line, key: key.into(), value });
        assert_eq!(entries.unwrap(), expected);
        assert_eq!(parse(" \n#\n").unwrap(), []);
    }

    #[test]
    fn a_syntax_error_has_its_line() {
        let table = [
            ("a", 1, "expected = after a"),
            ("a b", 1, "expected = after a"),
            ("a\n=1", 1, "expected = after a"),
            ("a-b = 1", 1, "expected = after a"),
            ("a.b = 1", 1, "expected = after a"),
            ("a = 1\n= 2", 2, "expected a name"),
            ("1a = 2", 1, "expected a name"),
            ("_a = 2", 1, "expected a name"),
            ("é = 1", 1, "expected a name"),
            ("a = ", 1, "expected a number"),
            ("a=\n1", 1, "expected a number"),
            ("a = -x", 1, "expected a number"),
            ("\n\na = b", 3, "expected a number"),
            ("a = [,]", 1, "expected a number"),
            ("a = [\n1,\n#\n2]", 3, "expected a number"),
            ("a = [1,", 1, "expected a number"),
            ("a = \"b\nc\"", 1, "no closing \""),
            ("a = 'b", 1, "no closing '"),
            ("a = \"\"\"b\n", 1, "no closing \"\"\""),
            ("a = 1 2", 1, "end of the line after the value of a"),
            ("a = 7b", 1, "end of the line after the value of a"),
            ("a = [\n1\n2]", 3, "expected , or ]"),
            ("a = [[[[[[[[[[[[1]]]]]]]]]]]]", 1, "too many lists"),
        ];
        for (text, line, expected) in table {
            let (at, error) = parse(text).unwrap_err();
            assert!(at == line && error.contains(expected), "{text:?}: {at}: {error}");
        }
    }
}
