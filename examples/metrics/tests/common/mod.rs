//! A client of the exporter.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What an HTTP server answers to a GET of this path: the head, and the body.
pub(crate) fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    connection.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.into(), body.into())
}

/// One scrape: its samples, each as its name without `virevent_` and its labels but the source, and
/// its value.
pub(crate) struct Scrape(pub(crate) String);

impl Scrape {
    pub(crate) fn of(address: SocketAddr) -> Self {
        let (head, body) = get(address, "/metrics");
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        assert!(head.contains("content-type: application/openmetrics-text"), "{head}");
        assert!(body.ends_with("# EOF\n"), "{body}");
        Self(body)
    }

    /// Whether the series of the source have these values.
    pub(crate) fn says(&self, source: &str, values: &[(&str, f64)]) -> bool {
        values.iter().all(|(series, value)| self.value(source, series) == Some(*value))
    }

    /// The value of a series of the source: `up`, or `domains` with `domains,state="running"`.
    pub(crate) fn value(&self, source: &str, series: &str) -> Option<f64> {
        let (name, labels) = series.split_once(',').unwrap_or((series, ""));
        let comma = if labels.is_empty() { "" } else { "," };
        let start = format!("virevent_{name}{{source=\"{source}\"{comma}{labels}}} ");
        self.0.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok())
    }

    /// Whether there is any series of the source.
    pub(crate) fn has(&self, source: &str) -> bool {
        self.0.contains(&format!("source=\"{source}\""))
    }
}
