//! A validator of JSON Schema, as far as `docs/domain-event.schema.json` needs it.
//!
//! A keyword, a pattern or a format that it does not know is a failure, so that nothing in the
//! schema goes unchecked. It is stricter than the schema in one thing: every object has only fields
//! that the schema describes, as with `"unevaluatedProperties": false` everywhere.

mod contents;

use std::any::type_name;
use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::{Map, Value};
use virevent::Uuid;

/// The schema, or one of its definitions.
pub(crate) struct Schema {
    whole: &'static Value,
    /// The path to what values are checked against; empty for the whole, which is an event.
    pointer: String,
}

type Fields = BTreeSet<String>;

impl Schema {
    pub(crate) fn load() -> Self {
        static WHOLE: LazyLock<Value> = LazyLock::new(|| {
            let text = include_str!("../../../../docs/domain-event.schema.json");
            serde_json::from_str(text).unwrap()
        });
        Self { whole: &WHOLE, pointer: String::new() }
    }

    /// One of `$defs`.
    #[track_caller]
    pub(crate) fn definition(self, name: &str) -> Self {
        let pointer = format!("/$defs/{name}");
        assert!(self.whole.pointer(&pointer).is_some(), "the schema has no definition of {name}");
        Self { pointer, ..self }
    }

    /// The definition of a type's form: its name is the type's.
    #[track_caller]
    pub(crate) fn of<T>() -> Self {
        let name = type_name::<T>().rsplit("::").next().unwrap();
        match name {
            "DomainEvent" => Self::load(),
            name => Self::load().definition(&snake_case(name)),
        }
    }

    /// Whether `value` satisfies the schema, and has no field that the schema does not describe.
    pub(crate) fn check(&self, value: &Value) -> Result<(), String> {
        self.closed(self.whole.pointer(&self.pointer).unwrap(), value)
    }

    /// As `check`. Where the rule says nothing about an object's fields, any are allowed.
    fn closed(&self, rule: &Value, value: &Value) -> Result<(), String> {
        const ABOUT_FIELDS: [&str; 6] =
            ["$ref", "properties", "oneOf", "anyOf", "allOf", "additionalProperties"];
        let described = self.valid(rule, value)?;
        let is_open = !ABOUT_FIELDS.iter().any(|keyword| rule.get(keyword).is_some());
        match fields(value).find(|(key, _)| !is_open && !described.contains(*key)) {
            Some((key, _)) => Err(format!("{key} is not described: {value}")),
            None => Ok(()),
        }
    }

    /// The fields of `value` that the rule describes, or why `value` is not valid.
    fn valid(&self, rule: &Value, value: &Value) -> Result<Fields, String> {
        let Some(keywords) = rule.as_object() else {
            return match rule {
                Value::Bool(true) => Ok(Fields::new()),
                rule => Err(format!("{value} is against {rule}")),
            };
        };
        let mut described = Fields::new();
        for (keyword, rule) in keywords {
            let ok = match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" | "then" => true,
                "$ref" => {
                    described.extend(self.valid(self.referred(rule), value)?);
                    true
                }
                "type" => match rule {
                    Value::Array(types) => types.iter().any(|t| is_type(t, value)),
                    one => is_type(one, value),
                },
                "const" => rule == value,
                "enum" => list(rule).contains(value),
                "minimum" => value.as_f64() >= rule.as_f64(),
                "pattern" => value.as_str().is_some_and(|text| has_pattern(rule, text)),
                "format" => value.as_str().is_some_and(|text| has_format(rule, text)),
                "required" => list(rule).iter().all(|f| value.get(f.as_str().unwrap()).is_some()),
                "properties" => {
                    described.extend(self.properties(rule, value)?);
                    true
                }
                "additionalProperties" => {
                    let named =
                        |key| keywords.get("properties").is_some_and(|p| p.get(key).is_some());
                    for (key, value) in fields(value).filter(|(key, _)| !named(*key)) {
                        self.closed(rule, value).map_err(|error| format!("{key}: {error}"))?;
                        described.insert(key.clone());
                    }
                    true
                }
                "items" => {
                    let mut items = value.as_array().into_iter().flatten();
                    items.try_for_each(|item| self.closed(rule, item))?;
                    true
                }
                "oneOf" => {
                    described.extend(self.one_of(list(rule), value)?);
                    true
                }
                "anyOf" => {
                    let valid = list(rule).iter().filter_map(|rule| self.valid(rule, value).ok());
                    let valid: Vec<_> = valid.collect();
                    let any = !valid.is_empty();
                    described.extend(valid.into_iter().flatten());
                    any
                }
                "allOf" => {
                    for rule in list(rule) {
                        described.extend(self.valid(rule, value)?);
                    }
                    true
                }
                "if" => {
                    if self.valid(rule, value).is_ok() {
                        described.extend(self.valid(&keywords["then"], value)?);
                    }
                    true
                }
                other => panic!("the checker does not know {other}"),
            };
            if !ok {
                return Err(format!("{value} is against {keyword} {rule}"));
            }
        }
        Ok(described)
    }

    fn properties(&self, rules: &Value, value: &Value) -> Result<Fields, String> {
        let mut described = Fields::new();
        for (field, rule) in fields(rules) {
            described.insert(field.clone());
            if let Some(value) = value.get(field) {
                self.closed(rule, value).map_err(|error| format!("{field}: {error}"))?;
            }
        }
        Ok(described)
    }

    fn one_of(&self, rules: &[Value], value: &Value) -> Result<Fields, String> {
        let tried = rules.iter().map(|rule| self.valid(rule, value));
        let (mut valid, errors): (Vec<_>, Vec<_>) = tried.partition(Result::is_ok);
        match valid.len() {
            1 => valid.remove(0),
            matches => Err(format!("{matches} of oneOf match; {errors:?}")),
        }
    }

    fn referred(&self, reference: &Value) -> &Value {
        let reference = reference.as_str().unwrap();
        let referred = self.whole.pointer(reference.strip_prefix('#').unwrap());
        referred.unwrap_or_else(|| panic!("the schema has no {reference}"))
    }
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

fn list(rule: &Value) -> &[Value] {
    rule.as_array().unwrap()
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn has_pattern(pattern: &Value, text: &str) -> bool {
    let is_hex = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
    match pattern.as_str().unwrap() {
        "^([0-9a-f]{2})*$" => text.len() % 2 == 0 && text.bytes().all(is_hex),
        "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{6}Z$" => {
            let form = "0000-00-00T00:00:00.000000Z";
            let fits = |(a, b): (u8, u8)| if b == b'0' { a.is_ascii_digit() } else { a == b };
            text.len() == form.len() && text.bytes().zip(form.bytes()).all(fits)
        }
        "^other(:.+)?$" => {
            text == "other" || text.strip_prefix("other:").is_some_and(|name| !name.is_empty())
        }
        "^\\?.+$" => text.len() > 1 && text.starts_with('?'),
        other => panic!("the checker does not know the pattern {other}"),
    }
}

fn has_format(format: &Value, text: &str) -> bool {
    match format.as_str().unwrap() {
        "uuid" => text.parse::<Uuid>().is_ok(),
        // The pattern beside it says more.
        "date-time" => true,
        other => panic!("the checker does not know the format {other}"),
    }
}

fn is_type(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap() {
        "object" => value.is_object(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        other => panic!("the checker does not know the type {other}"),
    }
}
