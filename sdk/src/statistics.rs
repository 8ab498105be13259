//! What a source counts for metrics.

use std::time::Duration;

use crate::{Kind, Origin};

/// The upper bounds of the histogram of calls, in seconds.
#[cfg(feature = "metrics")]
pub(crate) const BOUNDS: [f64; 9] = [0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0];

/// What a source has counted beyond its [`Counters`](crate::Counters): with feature `metrics`.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// Events by kind and origin; those without a type count as [`Kind::Other`].
    pub events: Vec<(Kind, Origin, u64)>,
    /// How long calls took, those that were answered.
    pub calls: Vec<CallTimes>,
}

/// How long the calls of one sort took, from the request to the answer.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct CallTimes {
    /// `register`, `list` or `look`.
    pub call: &'static str,
    /// All of them together.
    pub sum: Duration,
    /// How many took at most 1 ms, 5 ms, 20 ms, 100 ms, 0.5 s, 1 s, 5 s, 10 s, a minute, and longer;
    /// each call counts once.
    pub counts: [u64; 10],
}
