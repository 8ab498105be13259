//! The server: its files, and the events that a browser gets, over real HTTP.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use dashboard::{Board, router};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use virevent::EventSource;
use virevent_testkit::FakeHypervisor;

const PATIENCE: Duration = Duration::from_secs(20);

/// A server on a free port; its address and its board.
async fn serve(fakes: &[&FakeHypervisor]) -> (String, Board) {
    let source = |fake: &&FakeHypervisor| Arc::new((*fake).clone()) as Arc<dyn EventSource>;
    let board = Board::of(fakes.iter().map(source).collect()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = router(board.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, board)
}

/// An answer that ends with its connection.
async fn request(address: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn get(address: &str, path: &str) -> String {
    let mut answer = String::new();
    request(address, path).await.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The events of one browser.
struct Browser(BufReader<TcpStream>);

impl Browser {
    async fn open(address: &str) -> Self {
        Self(BufReader::new(request(address, "/events").await))
    }

    /// The next message; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        let read = async {
            let mut line = String::new();
            while self.0.read_line(&mut line).await.unwrap() > 0 {
                if let Some(data) = line.strip_prefix("data: ") {
                    return Some(serde_json::from_str(data).unwrap());
                }
                line.clear();
            }
            None
        };
        timeout(PATIENCE, read).await.unwrap()
    }

    /// The first message for which `wanted` is true.
    async fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.next().await.unwrap();
            if wanted(&message) {
                return message;
            }
        }
    }
}

fn has_row(message: &Value, name: &str, state: &str) -> bool {
    let rows = message["rows"].as_array().unwrap();
    rows.iter().any(|row| row["name"] == name && row["state"] == state)
}

#[tokio::test]
async fn files_are_served_with_a_policy_that_allows_nothing_else() {
    let (address, _board) = serve(&[]).await;
    for (path, kind) in [
        ("/", "text/html"),
        ("/app.js", "text/javascript"),
        ("/style.css", "text/css"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        let answer = get(&address, path).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        assert!(answer.contains(&format!("content-type: {kind}")), "{path}: {answer}");
        assert!(answer.contains("content-security-policy: default-src 'none'"), "{path}");
        assert!(!answer.contains("unsafe-inline"), "{path}");
    }
    assert!(get(&address, "/none").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn a_browser_gets_what_exists_and_then_what_changes() {
    let fake = FakeHypervisor::new();
    fake.define("web").unwrap();
    let (address, board) = serve(&[&fake]).await;
    let mut browser = Browser::open(&address).await;
    let first = browser.next().await.unwrap();
    assert_eq!(first["message"], "all");
    fake.start("web").unwrap();
    let started = browser.until(|message| has_row(message, "web", "running")).await;
    assert!(started["activity"].as_array().unwrap().iter().any(|one| one["kind"] == "started"));
    fake.stop("web").unwrap();
    fake.undefine("web").unwrap();
    browser.until(|message| message["gone"].as_array().is_some_and(|gone| !gone.is_empty())).await;
    // Another browser begins with the present state.
    fake.create("db").unwrap();
    browser.until(|message| has_row(message, "db", "running")).await;
    let all = Browser::open(&address).await.next().await.unwrap();
    assert!(has_row(&all, "db", "running") && !has_row(&all, "web", "shutoff"), "{all}");
    board.close().await;
    while browser.next().await.is_some() {}
}

#[tokio::test]
async fn an_unreachable_host_keeps_its_domains_marked_as_uncertain() {
    let fake = FakeHypervisor::new();
    fake.create("web").unwrap();
    let (address, _board) = serve(&[&fake]).await;
    let mut browser = Browser::open(&address).await;
    browser.until(|message| has_row(message, "web", "running")).await;
    fake.go_down();
    let is_uncertain = |message: &Value| {
        has_row(message, "web", "running") && message["rows"][0]["is_uncertain"] == true
    };
    browser.until(is_uncertain).await;
    let status = |message: &Value| message["sources"][0]["status"].clone();
    let all = Browser::open(&address).await.until(|all| status(all) == "disconnected").await;
    let source = &all["sources"][0];
    assert!(source["fault"].as_str().unwrap().contains("it is down"), "{source}");
    assert!(source["since"].is_u64(), "{source}");
    fake.restore();
    browser.until(|message| status(message) == "synced").await;
}

/// Runs the program, which ends by itself.
fn run(arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dashboard"));
    let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn wrong_arguments_exit_with_2_and_say_what_to_give() {
    let table: [(&[&str], &str); 4] = [
        (&["foo:"], "use one of qemu:"),
        (&["--listen", "here"], "as in 127.0.0.1:8180"),
        (&["--port", "1"], "--port"),
        (&["fake:", "fake:"], "each source once"),
    ];
    for (arguments, expected) in table {
        let (status, stderr) = run(arguments);
        assert_eq!(status, 2, "{stderr}");
        assert!(stderr.starts_with("dashboard: ") && stderr.contains(expected), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn an_address_in_use_exits_with_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (status, stderr) = run(&["--listen", &address]);
    assert_eq!(status, 1, "{stderr}");
    assert!(stderr.contains(&format!("cannot listen on {address}")), "{stderr}");
}
