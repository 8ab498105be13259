//! A validator of JSON Schema, as far as `docs/domain-event.schema.json` needs it.
//!
//! A keyword that it does not know is a failure, so that nothing in the schema goes unchecked.

use serde_json::Value;

pub(crate) struct Schema(Value);

impl Schema {
    pub(crate) fn load() -> Self {
        let text = include_str!("../../../docs/domain-event.schema.json");
        Self(serde_json::from_str(text).unwrap())
    }

    /// Whether `value` satisfies the schema, and has no field that the schema does not describe.
    pub(crate) fn check(&self, value: &Value) -> Result<(), String> {
        let described = self.valid(&self.0, value)?;
        match value.as_object().and_then(|o| o.keys().find(|key| !described.contains(key))) {
            Some(key) => Err(format!("{key} is not described")),
            None => Ok(()),
        }
    }

    /// The properties that the schema describes in `value`, or why `value` is not valid.
    fn valid(&self, schema: &Value, value: &Value) -> Result<Vec<String>, String> {
        let mut described = Vec::new();
        for (keyword, rule) in schema.as_object().unwrap() {
            let ok = match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" | "format" | "pattern" => true,
                "$ref" => {
                    described.extend(self.valid(self.definition(rule), value)?);
                    true
                }
                "type" => match rule {
                    Value::Array(types) => types.iter().any(|t| is_type(t, value)),
                    one => is_type(one, value),
                },
                "const" => rule == value,
                "enum" => rule.as_array().unwrap().contains(value),
                "minimum" => value.as_f64() >= rule.as_f64(),
                "required" => rule
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|f| value.get(f.as_str().unwrap()).is_some()),
                "properties" => {
                    for (field, rule) in rule.as_object().unwrap() {
                        described.push(field.clone());
                        if let Some(value) = value.get(field) {
                            let inner =
                                self.valid(rule, value).map_err(|e| format!("{field}: {e}"))?;
                            let mut fields = value.as_object().into_iter().flat_map(|o| o.keys());
                            let is_described = |key: &&String| inner.contains(key);
                            if rule.get("properties").is_some()
                                && !fields.all(|key| is_described(&key))
                            {
                                return Err(format!(
                                    "{field} has a field that is not described: {value}"
                                ));
                            }
                        }
                    }
                    true
                }
                "oneOf" => {
                    let tried = rule.as_array().unwrap().iter().map(|rule| self.valid(rule, value));
                    let (valid, errors): (Vec<_>, Vec<_>) = tried.partition(Result::is_ok);
                    if valid.len() != 1 {
                        return Err(format!("{} of oneOf match; {errors:?}", valid.len()));
                    }
                    described.extend(valid.into_iter().flatten().flatten());
                    true
                }
                "items" => {
                    let mut items = value.as_array().into_iter().flatten();
                    items.try_for_each(|item| self.valid(rule, item).map(drop))?;
                    true
                }
                "additionalProperties" => {
                    let mut fields = value.as_object().into_iter().flat_map(|o| o.values());
                    fields.try_for_each(|field| self.valid(rule, field).map(drop))?;
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

    /// Every name in an enum, with its field and the change or state that it belongs to (empty for
    /// the others).
    pub(crate) fn enums(&self) -> Vec<(String, String, String)> {
        let mut found = Vec::new();
        let mut schema = self.0.clone();
        schema["$defs"]["notice"] = Value::Null;
        collect(&schema, &mut found);
        assert!(found.len() > 80, "{}", found.len());
        found
    }

    /// Every name in an enum of a notice's data, with the kind and the field.
    pub(crate) fn notice_enums(&self) -> Vec<(String, String, String)> {
        let mut found = Vec::new();
        for notice in self.0["$defs"]["notice"]["oneOf"].as_array().unwrap() {
            let properties = &notice["properties"];
            let kind = properties["kind"]["const"].as_str().unwrap();
            for (field, rule) in properties["data"]["properties"].as_object().unwrap() {
                for name in rule["enum"].as_array().into_iter().flatten() {
                    found.push((kind.to_owned(), field.clone(), name.as_str().unwrap().to_owned()));
                }
            }
        }
        assert!(found.len() > 50, "{}", found.len());
        found
    }

    fn definition(&self, reference: &Value) -> &Value {
        self.0.pointer(&reference.as_str().unwrap()[1..]).unwrap()
    }
}

fn collect(schema: &Value, found: &mut Vec<(String, String, String)>) {
    let properties = &schema["properties"];
    for field in ["cause", "reason", "fault"] {
        let of = ["change", "state"].iter().find_map(|tag| properties[tag]["const"].as_str());
        for name in properties[field]["enum"].as_array().into_iter().flatten() {
            let name = name.as_str().unwrap();
            found.push((of.unwrap_or("").into(), field.into(), name.into()));
        }
    }
    match schema {
        Value::Object(fields) => fields.values().for_each(|schema| collect(schema, found)),
        Value::Array(schemas) => schemas.iter().for_each(|schema| collect(schema, found)),
        _ => {}
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
