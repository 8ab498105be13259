//! What the schema has, for tests that compare it with the code.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Schema, fields, list};

impl Schema {
    /// The names of the definitions.
    pub(crate) fn definitions(&self) -> Vec<String> {
        fields(&self.whole["$defs"]).map(|(name, _)| name.clone()).collect()
    }

    /// Whether a definition is that of an enumeration: its names stand apart, for use in events.
    pub(crate) fn is_enumeration(&self, definition: &str) -> bool {
        self.whole["$defs"][definition]["$defs"].get("name").is_some()
    }

    /// Every `$ref`.
    pub(crate) fn references(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        collect_references(self.whole, &mut found);
        found
    }

    /// The names that an enumeration has in an event.
    pub(crate) fn names_of<T>() -> Vec<String> {
        let schema = Self::of::<T>();
        let rule = schema.whole.pointer(&format!("{}/$defs/name", schema.pointer)).unwrap();
        schema.names(rule)
    }

    /// The names that a rule allows.
    fn names(&self, rule: &Value) -> Vec<String> {
        let own = rule.get("enum").map(list).into_iter().flatten().chain(rule.get("const"));
        let own = own.filter_map(|name| name.as_str().map(str::to_owned));
        let referred = rule.get("$ref").map(|reference| self.names(self.referred(reference)));
        let one_of = rule.get("oneOf").map(list).into_iter().flatten();
        let one_of = one_of.flat_map(|rule| self.names(rule));
        own.chain(referred.into_iter().flatten()).chain(one_of).collect()
    }

    /// Every cause of a change and every reason of a state, as change or state, field, name.
    pub(crate) fn causes(&self) -> Vec<[String; 3]> {
        let mut found = Vec::new();
        for (tag, field) in [("change", "cause"), ("state", "reason")] {
            for branch in list(&self.whole["$defs"][tag]["oneOf"]) {
                let properties = &branch["properties"];
                for of in self.names(&properties[tag]) {
                    let names = self.names(&properties[field]);
                    found.extend(names.into_iter().map(|name| [of.clone(), field.into(), name]));
                }
            }
        }
        assert!(found.len() > 80, "{}", found.len());
        found
    }

    /// Every name in an enumeration of a notice's data, as kind, field, name.
    pub(crate) fn notice_names(&self) -> Vec<[String; 3]> {
        let mut found = Vec::new();
        for notice in list(&self.whole["$defs"]["notice_body"]["oneOf"]) {
            let properties = &notice["properties"];
            let kind = properties["kind"]["const"].as_str().unwrap();
            for (field, rule) in fields(&properties["data"]["properties"]) {
                let names = self.names(rule);
                found.extend(names.into_iter().map(|name| [kind.into(), field.clone(), name]));
            }
        }
        assert!(found.len() > 50, "{}", found.len());
        found
    }

    /// The kinds of notices.
    pub(crate) fn notice_kinds(&self) -> Vec<String> {
        let notices = list(&self.whole["$defs"]["notice_body"]["oneOf"]);
        notices.iter().flat_map(|notice| self.names(&notice["properties"]["kind"])).collect()
    }

    /// The names that a definition allows.
    pub(crate) fn names_in(&self, definition: &str) -> Vec<String> {
        self.names(&self.whole["$defs"][definition])
    }
}

fn collect_references(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").map(|name| name.as_str().unwrap().to_owned()));
            fields.values().for_each(|schema| collect_references(schema, found));
        }
        Value::Array(schemas) => {
            schemas.iter().for_each(|schema| collect_references(schema, found));
        }
        _ => {}
    }
}
