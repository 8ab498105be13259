//! What the program does, shown on a fake hypervisor: a copy needs neither this nor the testkit.

use std::io::{self, Write};
use std::time::Duration;

use tokio::time::sleep;
use virevent::StopCause;
use virevent_testkit::{FakeHypervisor, OpError};

use crate::{Failure, boot};

/// The limit of each start.
const LIMIT: Duration = Duration::from_secs(2);

/// Starts some domains, each of which fares differently.
///
/// # Errors
/// The lines cannot be written to `out`.
///
/// # Cancel safety
/// Dropping the future ends the demo.
pub async fn demo(out: &mut impl Write) -> io::Result<()> {
    type Act = fn(&FakeHypervisor) -> Result<(), OpError>;
    let acts: [(&str, Act); 4] = [
        ("starts", |fake| fake.start("web").map(drop)),
        ("fails to start", |fake| {
            fake.start("web")?;
            fake.stop_as("web", StopCause::Failed).map(drop)
        }),
        ("is never started", |_| Ok(())),
        ("starts in an outage", |fake| {
            fake.go_down();
            fake.start("web").map(drop)
        }),
    ];
    for (title, act) in acts {
        let fake = FakeHypervisor::new();
        fake.define("web").map_err(io::Error::other)?;
        let start = async {
            sleep(LIMIT / 4).await;
            act(&fake).map_err(|error| error.to_string())
        };
        writeln!(out, "a domain that {title}:")?;
        report(out, boot(&fake, "web", LIMIT, start).await)?;
    }
    let fake = FakeHypervisor::new();
    writeln!(out, "a command that fails:")?;
    report(out, boot(&fake, "web", LIMIT, async { Err("no such domain".into()) }).await)
}

fn report<T: std::fmt::Display, S: std::fmt::Display>(
    out: &mut impl Write,
    outcome: Result<(T, S), Failure>,
) -> io::Result<()> {
    match outcome {
        Ok((domain, state)) => writeln!(out, "    status 0: {domain} is {state}"),
        Err(failure) => writeln!(out, "    status {}: {failure}", failure.status()),
    }
}
