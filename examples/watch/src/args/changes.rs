//! The changes that `--change` names.

use virevent::Change;

/// Every name of a change, as in the JSON form but with `-`.
pub(super) const NAMES: [&str; 11] = [
    "existing",
    "defined",
    "undefined",
    "started",
    "suspended",
    "resumed",
    "shutting-down",
    "stopped",
    "pm-suspended",
    "crashed",
    "unknown",
];

/// A set of changes, whatever their causes.
#[derive(Debug, Default)]
pub(super) struct Changes(Vec<&'static str>);

impl Changes {
    /// Adds the changes with these names, which are separated by commas. `_` stands for `-`, too.
    ///
    /// # Errors
    /// A name that no change has, with those that there are.
    pub(super) fn add(&mut self, names: &str) -> Result<(), String> {
        for text in names.split(',').map(str::trim) {
            let name = NAMES.into_iter().find(|name| *name == text.replace('_', "-"));
            let wrong = || format!("{text:?} is not a change: give one of {}", NAMES.join(", "));
            self.0.push(name.ok_or_else(wrong)?);
        }
        Ok(())
    }

    pub(super) fn contain(&self, change: Change) -> bool {
        let same = |name: &&str| {
            let mut bytes = name.bytes().map(|byte| if byte == b'-' { b'_' } else { byte });
            bytes.by_ref().eq(change.as_str().bytes())
        };
        self.0.iter().any(same)
    }
}

#[cfg(test)]
mod tests {
    use virevent::{RunningReason, State};

    use super::*;

    #[test]
    fn each_change_has_a_name_that_selects_it_alone() {
        let existing = Change::Existing(State::Running(RunningReason::Booted));
        let changes = (0..10).map(|event| Change::from_codes(event, 0)).chain([existing]);
        let mut names = Vec::new();
        for change in changes {
            let selects = |name: &&str| {
                let mut one = Changes::default();
                one.add(name).unwrap();
                one.contain(change)
            };
            let selecting: Vec<_> = NAMES.into_iter().filter(selects).collect();
            assert_eq!(selecting.len(), 1, "{change}");
            names.extend(selecting);
        }
        names.sort_unstable();
        let mut all = NAMES;
        all.sort_unstable();
        assert_eq!(names, all);
    }
}
