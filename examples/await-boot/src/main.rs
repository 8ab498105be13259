//! `await-boot [--timeout SECONDS] URI DOMAIN -- COMMAND [ARGUMENT]...`; without arguments a demo.
//!
//! Exit status: 0 if the domain runs, 1 if the hypervisor is unreachable or refuses, 2 if the
//! arguments are wrong, 3 if the command failed, 4 if the domain's run ended or the domain is gone,
//! 5 at the deadline.

use std::ffi::OsString;
use std::io::{self, Write};
use std::time::Duration;

use await_boot::{Failure, boot, demo, run};
use lexopt::prelude::*;

const USAGE: &str = "usage: await-boot [--timeout SECONDS] URI DOMAIN -- COMMAND [ARGUMENT]...; no arguments: a demo";

struct Arguments {
    uri: String,
    domain: String,
    limit: Duration,
    command: Vec<OsString>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let status = match serve().await {
        Ok(()) => 0,
        Err((status, line)) => {
            let _ = writeln!(io::stderr(), "await-boot: {line}");
            status
        }
    };
    std::process::exit(status);
}

async fn serve() -> Result<(), (i32, String)> {
    let unwritten = |error| (1, format!("cannot write to standard output: {error}"));
    if std::env::args_os().len() <= 1 {
        return demo(&mut io::stdout()).await.map_err(unwritten);
    }
    let Arguments { uri, domain, limit, command } = arguments().map_err(|what| (2, what))?;
    let failed = |failure: Failure| (failure.status(), failure.to_string());
    let source = virevent_backends::open(&uri).map_err(Failure::from).map_err(failed)?;
    let (domain, state) = boot(&source, &domain, limit, run(command)).await.map_err(failed)?;
    writeln!(io::stdout(), "{domain} is {state}").map_err(unwritten)
}

fn arguments() -> Result<Arguments, String> {
    let wrong = |what: &dyn std::fmt::Display| format!("{what}; {USAGE}");
    let mut parser = lexopt::Parser::from_env();
    let mut values = Vec::new();
    let mut limit = Duration::from_secs(60);
    loop {
        // What follows `--` is the command's, options included.
        if parser.try_raw_args().is_some_and(|args| args.peek().is_some_and(|arg| arg == "--")) {
            break;
        }
        match parser.next().map_err(|error| wrong(&error))? {
            Some(Long("timeout")) => {
                let value = parser.value().and_then(|value| value.parse());
                let seconds = value.map_err(|error| wrong(&format!("--timeout: {error}")))?;
                limit = Duration::from_secs(seconds);
            }
            Some(Value(value)) => {
                values.push(value.into_string().map_err(|_| wrong(&"write it in UTF-8"))?);
            }
            Some(option) => return Err(wrong(&option.unexpected())),
            None => break,
        }
    }
    let rest = parser.raw_args().map_err(|error| wrong(&error))?;
    let command: Vec<_> = rest.skip(1).collect();
    if command.is_empty() {
        return Err(wrong(&"no command is given after --"));
    }
    let [uri, domain] =
        <[String; 2]>::try_from(values).map_err(|_| wrong(&"give one URI and one domain"))?;
    Ok(Arguments { uri, domain, limit, command })
}
