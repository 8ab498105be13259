//! Scripts in TOML files.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use toml::{Spanned, Value};
use virevent::{StartCause, StopCause};

use super::{Script, ScriptError, Step};

/// The greatest length of a text, in bytes.
const TEXT_MAX: usize = 4 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    ends: Option<bool>,
    #[serde(default)]
    step: Vec<Spanned<Fields>>,
}

type Fields = BTreeMap<Spanned<String>, Spanned<Value>>;

/// A field's name, with its place, and its value.
type Field<T> = (Spanned<String>, T);

type MakeStep = fn(Box<str>) -> Step;

/// Steps with the name of a domain and nothing else.
const OF_A_DOMAIN: [(&str, MakeStep); 10] = [
    ("define", Step::Define),
    ("create", Step::Create),
    ("suspend", Step::Suspend),
    ("resume", Step::Resume),
    ("pm_suspend", Step::PmSuspend),
    ("wake_up", Step::WakeUp),
    ("shut_down", Step::ShutDown),
    ("crash", Step::Crash),
    ("undefine", Step::Undefine),
    ("reboot", Step::Reboot),
];

/// Steps without a domain.
const FLAGS: [(&str, Step); 4] = [
    ("lose_connection", Step::LoseConnection),
    ("go_down", Step::GoDown),
    ("restore", Step::Restore),
    ("go_silent", Step::GoSilent),
];

const ALLOWED: &str = "at or after; one of define, create, start, suspend, resume, pm_suspend, \
    wake_up, shut_down, stop, crash, undefine, rename, reboot (= the name of a domain) or \
    lose_connection, go_down, restore, go_silent (= true); cause with start and stop; to with \
    rename";

pub(super) fn parse(text: &str) -> Result<Script, ScriptError> {
    if text.len() > TEXT_MAX {
        let problem = format!("the script is longer than {TEXT_MAX} bytes: split it");
        return Err(ScriptError::Text { line: 1, problem });
    }
    let file: File = toml::from_str(text).map_err(|error| {
        let line = line_of(text, error.span().map_or(0, |span| span.start));
        ScriptError::Text { line, problem: one_line(error.message()) }
    })?;
    let mut script = Script::new().ends(file.ends.unwrap_or(true));
    // Counted from step to step: counting from the beginning each time would be quadratic.
    let mut line = 1;
    let mut counted = 0;
    for step in file.step {
        let start = step.span().start;
        line += newlines(text.as_bytes().get(counted..start).unwrap_or_default());
        counted = start;
        script = Reader { text, line, fields: step.into_inner() }.read(script)?;
        // At each step, so that the error has the step's own line.
        script
            .check_writing()
            .map_err(|mistake| ScriptError::Text { line, problem: mistake.to_string() })?;
    }
    script.check()?;
    Ok(script)
}

/// The reader of one step.
struct Reader<'a> {
    text: &'a str,
    line: usize,
    fields: Fields,
}

impl Reader<'_> {
    fn read(mut self, script: Script) -> Result<Script, ScriptError> {
        let script = self.time(script)?;
        let step = self.step()?;
        // Both have taken out the fields that they read: what is left over is a mistake.
        if let Some((field, _)) = self.fields.first_key_value() {
            let problem = match field.get_ref().as_str() {
                "cause" => "goes with start or stop".to_owned(),
                "to" => "goes with rename".to_owned(),
                other if is_verb(other) => {
                    "the step has another action: give this one a [[step]] of its own".to_owned()
                }
                _ => format!("there is no such field; a step has {ALLOWED}"),
            };
            return Err(self.wrong(field, problem));
        }
        let line = Some(self.line);
        Ok(match step {
            Some(step) => script.step_of_line(step, line),
            None => script,
        })
    }

    fn time(&mut self, script: Script) -> Result<Script, ScriptError> {
        // Checked here too, for the line and the field: the script knows only the step's number.
        match (self.duration("at")?, self.duration("after")?) {
            (Some(_), Some((field, _))) => {
                Err(self.wrong(&field, "give at or after, not both".into()))
            }
            (Some((field, time)), None) if time < script.time => {
                let before = humantime::format_duration(script.time);
                Err(self
                    .wrong(&field, format!("is before the step before it, which is at {before}")))
            }
            (Some((_, time)), None) => Ok(script.at(time)),
            (None, Some((_, time))) => Ok(script.after(time)),
            (None, None) => Ok(script),
        }
    }

    fn step(&mut self) -> Result<Option<Step>, ScriptError> {
        for (verb, step) in OF_A_DOMAIN {
            if let Some((_, name)) = self.string(verb)? {
                return Ok(Some(step(name)));
            }
        }
        if let Some((_, name)) = self.string("start")? {
            let cause = self.cause(
                StartCause::from_name,
                "booted, migrated, restored, \
                from_snapshot, wakeup or recreated",
            )?;
            return Ok(Some(Step::Start(name, cause.unwrap_or(StartCause::Booted))));
        }
        if let Some((_, name)) = self.string("stop")? {
            let cause = self.cause(
                StopCause::from_name,
                "shutdown, destroyed, crashed, migrated, \
                saved, failed, from_snapshot or recreated",
            )?;
            return Ok(Some(Step::Stop(name, cause.unwrap_or(StopCause::Destroyed))));
        }
        if let Some((field, old)) = self.string("rename")? {
            let Some((_, new)) = self.string("to")? else {
                return Err(self.wrong(&field, "give the new name: to = \"...\"".into()));
            };
            return Ok(Some(Step::Rename(old, new)));
        }
        for (verb, step) in FLAGS {
            if let Some((field, value)) = self.fields.remove_entry(verb) {
                return match value.get_ref() {
                    Value::Boolean(true) => Ok(Some(step)),
                    _ => Err(self.wrong(&field, "takes true and nothing else".into())),
                };
            }
        }
        Ok(None)
    }

    fn cause<T>(
        &mut self,
        from_name: fn(&str) -> Option<T>,
        allowed: &str,
    ) -> Result<Option<T>, ScriptError> {
        let Some((field, name)) = self.string("cause")? else { return Ok(None) };
        match from_name(&name) {
            Some(cause) => Ok(Some(cause)),
            None => Err(self.wrong(&field, format!("{name:?} is no cause: give {allowed}"))),
        }
    }

    fn duration(&mut self, field: &str) -> Result<Option<Field<Duration>>, ScriptError> {
        let Some((field, text)) = self.string(field)? else { return Ok(None) };
        match parse_duration(&text) {
            Some(time) => Ok(Some((field, time))),
            None => {
                let problem =
                    format!("{text:?} is no duration: give \"1.5s\", \"200ms\", \"1m 30s\"");
                Err(self.wrong(&field, problem))
            }
        }
    }

    fn string(&mut self, field: &str) -> Result<Option<Field<Box<str>>>, ScriptError> {
        match self.fields.remove_entry(field) {
            None => Ok(None),
            Some((field, value)) => match value.into_inner() {
                Value::String(text) => Ok(Some((field, text.into()))),
                other => {
                    let problem = format!("takes a string in quotes, not {}", other.type_str());
                    Err(self.wrong(&field, problem))
                }
            },
        }
    }

    fn wrong(&self, field: &Spanned<String>, problem: String) -> ScriptError {
        let line = line_of(self.text, field.span().start);
        ScriptError::Field { line, field: field.get_ref().clone(), problem }
    }
}

fn is_verb(field: &str) -> bool {
    matches!(field, "start" | "stop" | "rename")
        || OF_A_DOMAIN.iter().any(|(verb, _)| *verb == field)
        || FLAGS.iter().any(|(verb, _)| *verb == field)
}

/// Reads humantime's form, or a decimal with one unit, which humantime does not know.
fn parse_duration(text: &str) -> Option<Duration> {
    if let Ok(time) = humantime::parse_duration(text) {
        return Some(time);
    }
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let unit = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let number: f64 = number.trim().parse().ok()?;
    // Not from_secs_f64, which panics on negative, huge and NaN values.
    Duration::try_from_secs_f64(number * unit).ok()
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + newlines(text.as_bytes().get(..offset).unwrap_or_default())
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

fn one_line(message: &str) -> String {
    message.trim().replace('\n', "; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn file_equals_the_same_script_in_code() {
        let text = r#"
            ends = false
            [[step]]
            define = "web"
            [[step]]
            start = "web"
            cause = "restored"
            [[step]]
            after = "500ms"
            stop = "web"
            [[step]]
            at = "1.5s"
            rename = "web"
            to = "www"
            [[step]]
            lose_connection = true
            [[step]]
            go_down = true
            [[step]]
            after = "1s"
            restore = true
        "#;
        let mut read = Script::from_toml(text).unwrap();
        read.steps.iter_mut().for_each(|step| step.line = None);
        let written = Script::new()
            .ends(false)
            .define("web")
            .start_as("web", StartCause::Restored)
            .after(Duration::from_millis(500))
            .stop("web")
            .at(Duration::from_millis(1500))
            .rename("web", "www")
            .lose_connection()
            .go_down()
            .after(Duration::from_secs(1))
            .restore();
        assert_eq!(read, written);
    }

    #[test]
    fn mistake_names_its_line_and_field_and_what_is_allowed() {
        let unknown = mistake("[[step]]\nat = \"1s\"\nstrat = \"web\"\n");
        assert!(
            unknown.starts_with("line 3, field \"strat\": there is no such field"),
            "{unknown}"
        );
        assert!(unknown.contains("start"), "{unknown}");
        assert_eq!(
            mistake("[[step]]\nat = \"soon\"\ndefine = \"web\"\n"),
            "line 2, field \"at\": \"soon\" is no duration: give \"1.5s\", \"200ms\", \"1m 30s\""
        );
        assert_eq!(
            mistake("[[step]]\nstart = 5\n"),
            "line 2, field \"start\": takes a string in quotes, not integer"
        );
        assert_eq!(
            mistake("[[step]]\ndefine = \"web\"\n[[step]]\nrename = \"web\"\n"),
            "line 4, field \"rename\": give the new name: to = \"...\""
        );
        assert_eq!(
            mistake("[[step]]\ndefine = \"a\"\nstart = \"a\"\n"),
            "line 3, field \"start\": the step has another action: give this one a [[step]] of its \
             own"
        );
        assert_eq!(
            mistake("[[step]]\ndefine = \"a\"\ncause = \"booted\"\n"),
            "line 3, field \"cause\": goes with start or stop"
        );
        assert!(
            mistake("[[step]]\nstop = \"a\"\ncause = \"x\"\n").contains("give shutdown, destroyed")
        );
        assert_eq!(
            mistake("[[step]]\nrestore = false\n"),
            "line 2, field \"restore\": takes true and nothing else"
        );
        assert_eq!(
            mistake("[[step]]\nat = \"2s\"\n[[step]]\nat = \"1s\"\n"),
            "line 4, field \"at\": is before the step before it, which is at 2s"
        );
        let restored = mistake("[[step]]\nlose_connection = true\n[[step]]\nrestore = true\n");
        assert!(restored.starts_with("line 3: step 2: there is nothing to restore"), "{restored}");
        assert!(mistake("[[step]]\nat = \"1s\"\nafter = \"1s\"\n").ends_with("not both"));
        assert!(
            mistake("[[step]]\nafter = \"25h\"\n").starts_with("line 1: a script lasts at most")
        );
    }

    #[test]
    fn invalid_toml_and_unknown_tables_name_their_line() {
        assert!(mistake("[[step]]\nstart = \"web\n").starts_with("line 2: "));
        let other = mistake("ends = true\nsteps = 3\n");
        assert!(other.starts_with("line 2: ") && other.contains("step"), "{other}");
        assert!(mistake("step = 3\n").starts_with("line 1: "));
    }

    #[test]
    fn step_that_the_host_refuses_names_its_line() {
        let text = "[[step]]\ndefine = \"web\"\n\n[[step]]\nat = \"1s\"\nstop = \"web\"\n";
        assert_eq!(
            mistake(text),
            "line 4, step 2, at 1s: cannot stop \"web\": it is shutoff; start it first"
        );
    }

    #[test]
    fn times_may_have_decimals_and_invalid_ones_do_not_panic() {
        assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_duration("1m 30s"), Some(Duration::from_secs(90)));
        for text in ["", "-1s", "1e400s", "NaNs", "infs", "s", "1", "1.5", "99999999999999999h"] {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }
}
