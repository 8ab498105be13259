//! The messages to one browser.
//!
//! The first has everything; each later one what changed since the one before. There is no queue: a
//! browser that reads slowly gets fewer and larger messages, and the server keeps nothing for it
//! but the transitions that the store bounds.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt, stream};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};
use virevent::{Changed, Transition};

use crate::board::Board;
use crate::view::{Activity, Message, Row, Source, key};

/// How long changes are gathered into one message. The eye takes it for at once.
const GATHER: Duration = Duration::from_millis(100);

/// How often the hosts' counters are read.
const SAMPLE: Duration = Duration::from_secs(1);

/// How many changes one message lists as activity.
const ACTIVITY: usize = 50;

struct Feed {
    board: Board,
    changed: Changed,
    sources: Vec<Source>,
    sample: Interval,
    has_begun: bool,
}

/// The messages, as JSON, until the board is closed.
pub(crate) fn messages(board: Board) -> impl Stream<Item = String> {
    let mut sample = interval(SAMPLE);
    sample.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Before the first message: no change falls between the two.
    let changed = board.store.changed();
    let closed = board.clone().closed();
    let feed = Feed { board, changed, sources: Vec::new(), sample, has_begun: false };
    let messages = stream::unfold(feed, async |mut feed| {
        let message = feed.next().await?;
        Some((serde_json::to_string(&message).unwrap_or_default(), feed))
    });
    messages.take_until(closed)
}

impl Feed {
    async fn next(&mut self) -> Option<Message> {
        if !std::mem::replace(&mut self.has_begun, true) {
            self.sources = Source::all(&self.board);
            let now = self.board.store.snapshot();
            let rows = now.iter().map(|stored| Row::of(stored)).collect();
            return Some(Message::All { sources: self.sources.clone(), rows });
        }
        loop {
            let mut first = None;
            tokio::select! {
                change = self.changed.next() => first = Some(change?),
                _ = self.sample.tick() => {}
            }
            let mut changes = Changes::default();
            if let Some(first) = first {
                changes.add(&first);
                sleep(GATHER).await;
                while let Some(Some(change)) = self.changed.next().now_or_never() {
                    changes.add(&change);
                }
            }
            let sources = Source::all(&self.board);
            let sources = (sources != self.sources)
                .then(|| self.sources.clone_from(&sources))
                .map(|()| sources);
            if sources.is_some() || !changes.is_empty() {
                return Some(changes.into_message(sources));
            }
        }
    }
}

/// What several transitions come to: the last state of each domain, and the last of what happened.
#[derive(Default)]
struct Changes {
    rows: BTreeMap<String, Option<Row>>,
    activity: Vec<Activity>,
}

impl Changes {
    fn add(&mut self, change: &Transition) {
        let row = change.after.as_ref().map(|after| Row::of(after));
        self.rows.insert(key(change.domain()), row);
        if let Some(activity) = Activity::of(change) {
            if self.activity.len() >= ACTIVITY {
                self.activity.remove(0);
            }
            self.activity.push(activity);
        }
    }

    fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn into_message(self, sources: Option<Vec<Source>>) -> Message {
        let mut rows = Vec::new();
        let mut gone = Vec::new();
        for (key, row) in self.rows {
            match row {
                Some(row) => rows.push(row),
                None => gone.push(key),
            }
        }
        Message::Changes { sources, rows, gone, activity: self.activity }
    }
}
