//! A live page of hosts and their domains, to copy: a store of a fleet, sent to browsers as
//! server-sent events.
//!
//! ```text
//!  members ──▶ Fleet ──▶ DomainStore ──▶ feed (one a browser) ──▶ text/event-stream ──▶ page/app.js
//!                                        what changed since the last message
//! ```

mod board;
mod demo;
mod feed;
mod view;

use std::convert::Infallible;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::header::{REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{AppendHeaders, IntoResponse};
use axum::routing::get;
use futures::{Stream, StreamExt};

pub use self::board::Board;
pub use self::demo::demo;

/// Nothing but what this server serves, so that a domain's name cannot bring a script along.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page, its parts, and its events.
pub fn router(board: Board) -> Router {
    Router::new()
        .route("/", file("text/html; charset=utf-8", include_str!("page/index.html")))
        .route("/style.css", file("text/css; charset=utf-8", include_str!("page/style.css")))
        .route("/app.js", file("text/javascript; charset=utf-8", include_str!("page/app.js")))
        .route("/icon.svg", file("image/svg+xml", include_str!("page/icon.svg")))
        .route("/events", get(events))
        .with_state(board)
}

fn file(kind: &'static str, text: &'static str) -> axum::routing::MethodRouter<Board> {
    get(async move || {
        let headers = AppendHeaders([
            (CONTENT_TYPE, kind),
            (CONTENT_SECURITY_POLICY, POLICY),
            (REFERRER_POLICY, "no-referrer"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            // A page of an older version would not understand the events.
            (CACHE_CONTROL, "no-cache"),
        ]);
        (headers, text).into_response()
    })
}

async fn events(State(board): State<Board>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let messages = feed::messages(board).map(|message| Ok(Event::default().data(message)));
    Sse::new(messages).keep_alive(KeepAlive::default())
}
