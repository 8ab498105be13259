//! A daemon's clients and their watches, from its memory report.
//!
//! The report is an indented tree of what is allocated: a line has a name and, from a fixed column
//! on, "contains N bytes in M blocks". A connection has its watches below it, and a watch its path
//! and its token:
//!
//! ```text
//!         struct connection              contains    336 bytes in   7 blocks (ref 0)
//!             struct watch                   contains     77 bytes in   3 blocks (ref 0)
//!                 token                          contains      6 bytes in   1 blocks (ref 0)
//!                 @releaseDomain                 contains     15 bytes in   1 blocks (ref 0)
//! ```

use std::fs;
use std::path::Path;

use crate::toolstack::{ToolstackBackend, ToolstackError, terminated};

const CONTROL: u32 = 0;

/// A watch that a daemon holds.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The connection, by a number that is the same for all its watches within one report.
    pub connection: usize,
    /// The path that is watched.
    pub path: String,
    /// The client's token.
    pub token: String,
}

/// The watches of all connections. The daemon writes its report to `file`.
pub(super) fn read(
    backend: &dyn ToolstackBackend,
    file: &Path,
) -> Result<Vec<Watch>, ToolstackError> {
    Ok(parse(&report(backend, file)?).1)
}

/// The number of connections, without the one that asks.
pub(super) fn connections(
    backend: &dyn ToolstackBackend,
    file: &Path,
) -> Result<usize, ToolstackError> {
    Ok(parse(&report(backend, file)?).0.saturating_sub(1))
}

fn report(backend: &dyn ToolstackBackend, file: &Path) -> Result<String, ToolstackError> {
    // The daemon appends to the file, and has closed it when it replies.
    let _ = fs::remove_file(file);
    backend.call(CONTROL, 0, &terminated(&["memreport", &file.display().to_string()]))?;
    fs::read(file).map(|text| String::from_utf8_lossy(&text).into_owned()).map_err(|source| {
        ToolstackError::Unreachable { request: "the daemon's report".into(), source }
    })
}

/// The connections to a socket, and the watches.
fn parse(report: &str) -> (usize, Vec<Watch>) {
    let mut connections = 0;
    let mut of_domains = 0;
    let mut watches = Vec::new();
    let mut lines = report.lines().map(name);
    while let Some(line) = lines.next() {
        match line {
            "struct connection" => connections += 1,
            // A connection that is a domain's ring.
            "struct domain" => of_domains += 1,
            "struct watch" => {
                // Each was allocated before the one above it: the token last.
                let mut next = || lines.next().unwrap_or_default().to_owned();
                let token = next();
                let path = next();
                watches.push(Watch { connection: connections, path, token });
            }
            _ => {}
        }
    }
    // The rings of domains, dom0's included, are connections too, but none of a client.
    (connections - of_domains.min(connections), watches)
}

/// The name in a line of the report.
fn name(line: &str) -> &str {
    let name = line.rsplit_once(" contains ").map_or(line, |(name, _)| name);
    name.trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report of xenstored 4.17.
    const REPORT: &str = "\
full talloc report on 'null_context' (total 34067 bytes in 25 blocks)
    autofree_context               contains  34020 bytes in  19 blocks (ref 0)
        struct connection              contains    287 bytes in   3 blocks (ref 0)
            struct buffered_data           contains    103 bytes in   2 blocks (ref 0)
                char                           contains     23 bytes in   1 blocks (ref 0)
        struct connection              contains    336 bytes in   7 blocks (ref 0)
            struct watch                   contains     77 bytes in   3 blocks (ref 0)
                R tok                          contains      6 bytes in   1 blocks (ref 0)
                @releaseDomain                 contains     15 bytes in   1 blocks (ref 0)
            struct watch                   contains     75 bytes in   3 blocks (ref 0)
                I                              contains      2 bytes in   1 blocks (ref 0)
                @introduceDomain               contains     17 bytes in   1 blocks (ref 0)
        struct connection              contains    320 bytes in   3 blocks (ref 0)
            struct domain                  contains    136 bytes in   2 blocks (ref 0)
                /local/domain/0                contains     16 bytes in   1 blocks (ref 0)
";

    #[test]
    fn report_yields_connections_and_their_watches() {
        let watch = |path: &str, token: &str| Watch {
            connection: 2,
            path: path.into(),
            token: token.into(),
        };
        let watches = vec![watch("@releaseDomain", "R tok"), watch("@introduceDomain", "I")];
        assert_eq!(parse(REPORT), (2, watches));
    }
}
