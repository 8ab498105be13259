//! Events as text: a line for people, or a JSON object.

mod clock;
mod table;

use std::sync::Arc;

use virevent::{DomainEvent, EventSource};

pub(crate) use self::clock::Clock;
use self::table::Table;

/// A printer that turns events into lines and keeps them until they are taken.
#[derive(Debug)]
pub(crate) struct Printer {
    format: Format,
    lines: Vec<u8>,
}

#[derive(Debug)]
enum Format {
    Nothing,
    Json,
    People(Table),
}

impl Printer {
    /// A printer of nothing.
    pub(crate) fn nothing() -> Self {
        Self { format: Format::Nothing, lines: Vec::new() }
    }

    /// A printer of one JSON object a line.
    pub(crate) fn json() -> Self {
        Self { format: Format::Json, lines: Vec::new() }
    }

    /// A printer of one aligned line an event, with its source if there are several.
    pub(crate) fn people(sources: &[Arc<dyn EventSource>], clock: Clock) -> Self {
        let table = Table::new(sources.iter().map(|source| source.uri()), clock);
        Self { format: Format::People(table), lines: Vec::new() }
    }

    pub(crate) fn print(&mut self, event: &DomainEvent) {
        match &mut self.format {
            Format::Nothing => {}
            Format::Json => {
                let start = self.lines.len();
                if let Err(error) = serde_json::to_writer(&mut self.lines, event) {
                    self.lines.truncate(start);
                    crate::report(&format!("an event has no JSON form: {error}"));
                    return;
                }
                self.lines.push(b'\n');
            }
            Format::People(table) => {
                self.lines.extend_from_slice(table.row(event).as_bytes());
                self.lines.push(b'\n');
            }
        }
    }

    /// The lines since the last call.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let size = self.lines.len();
        std::mem::replace(&mut self.lines, Vec::with_capacity(size))
    }
}

/// Escapes what could control a terminal: names come from the creators of domains, and may have
/// control characters, or those that change the direction of text or hide it.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' '..='~' => shown.push(c),
            // A combining accent is escaped unless it follows a letter.
            _ => shown.extend(['a', c].iter().collect::<String>().escape_debug().skip(1)),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_control_the_terminal() {
        // Right-to-left override, isolate, zero-width space, soft hyphen, line separator, a tag.
        for c in ['\u{202e}', '\u{2066}', '\u{200b}', '\u{ad}', '\u{2028}', '\u{e0041}', '\u{9b}'] {
            assert_eq!(printable(&format!("a{c}b")), format!("a\\u{{{:x}}}b", c as u32));
        }
        for harmless in ["\"a\" 'b' \\c", "Zürich", "cafe\u{301}", "東京", "שלום"] {
            assert_eq!(printable(harmless), harmless);
        }
    }
}
