//! Errors of scripts.

use std::time::Duration;

use humantime::format_duration;

use crate::OpError;

/// A mistake in a script, or the refusal of one of its steps.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// The text is not a script.
    #[error("line {line}: {problem}")]
    Text {
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what is allowed.
        problem: String,
    },
    /// A field of a step is wrong.
    #[error("line {line}, field {field:?}: {problem}")]
    Field {
        /// The line, from 1.
        line: usize,
        /// The field.
        field: String,
        /// What is wrong, and what is allowed.
        problem: String,
    },
    /// A step's time is before that of the step before it.
    #[error(
        "step {step}: its time {} is before that of the step before it, {}",
        format_duration(*time),
        format_duration(*before)
    )]
    Backwards {
        /// The step, from 1.
        step: usize,
        /// Its time.
        time: Duration,
        /// The time of the step before.
        before: Duration,
    },
    /// A `restore` without a `go_down` before it.
    #[error(
        "step {step}: there is nothing to restore: put go_down before it (after lose_connection the \
         source reconnects by itself)"
    )]
    NotDown {
        /// The step, from 1.
        step: usize,
    },
    /// There are too many steps.
    #[error("a script has at most {limit} steps: split it, or loop in your test")]
    TooManySteps {
        /// The greatest number of steps.
        limit: usize,
    },
    /// The script lasts too long.
    #[error("a script lasts at most {}h", limit.as_secs() / 3600)]
    TooLong {
        /// The greatest length.
        limit: Duration,
    },
    /// The host refused a step.
    #[error("{}step {step}, at {}: {source}", place(*line), format_duration(*at))]
    Step {
        /// The step, from 1.
        step: usize,
        /// The line of the file in which it begins, if there is a file.
        line: Option<usize>,
        /// Its time.
        at: Duration,
        /// The refusal.
        source: OpError,
    },
}

fn place(line: Option<usize>) -> String {
    line.map(|line| format!("line {line}, ")).unwrap_or_default()
}
