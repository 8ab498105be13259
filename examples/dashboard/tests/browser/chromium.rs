//! A headless Chromium, driven by chromedriver, both of Debian's packages.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

pub(crate) struct Chromium {
    pub(crate) page: Client,
    driver: Child,
    _profile: TempDir,
}

impl Chromium {
    /// Starts a browser of its own, with this size of its window.
    pub(crate) async fn start(width: u32, height: u32) -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is installed");
        let profile = TempDir::new().unwrap();
        let address = format!("http://127.0.0.1:{}", port(&mut driver));
        let arguments = [
            "--headless",
            // It runs as root in CI, where Chromium has no sandbox.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            &format!("--user-data-dir={}", profile.path().display()),
            &format!("--window-size={width},{height}"),
        ];
        let capabilities = Map::from_iter([(
            "goog:chromeOptions".to_owned(),
            json!({ "args": arguments, "binary": "/usr/bin/chromium" }),
        )]);
        let page = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&address)
            .await
            .unwrap();
        Self { page, driver, _profile: profile }
    }

    /// The value of an expression in the page.
    pub(crate) async fn value(&self, expression: &str) -> Value {
        self.page.execute(&format!("return {expression};"), Vec::new()).await.unwrap()
    }

    /// Waits until an expression is true in the page. It may be one of a page that is still loading.
    pub(crate) async fn until(&self, expression: &str) {
        let is_true = async {
            let script = format!("try {{ return !!({expression}) }} catch {{ return false }}");
            while self.page.execute(&script, Vec::new()).await.unwrap() != Value::Bool(true) {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        let patience = std::time::Duration::from_secs(30);
        if tokio::time::timeout(patience, is_true).await.is_err() {
            let text = self.value("document.body.innerText").await;
            panic!("never true: {expression}; the page has {text}");
        }
    }

    pub(crate) async fn end(self) {
        self.page.clone().close().await.unwrap();
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The port that chromedriver chose.
fn port(driver: &mut Child) -> u16 {
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
    let named = |line: String| {
        line.split_once("started successfully on port ")?.1.trim_end_matches('.').parse().ok()
    };
    let port = lines.by_ref().find_map(named).expect("chromedriver names its port");
    // It must not block on a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    port
}
