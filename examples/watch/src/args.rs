//! The command line.

use std::ffi::OsString;
use std::num::{IntErrorKind, ParseIntError};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use lexopt::prelude::*;
use virevent::{Kind, Kinds, Options};
use virevent_backends::Settings;

pub(crate) const HELP: &str = "\
Prints the events of virtual machines.

Usage: watch [OPTIONS] [URI]...

  URI   a hypervisor: qemu:///system, test:///default ... (libvirt's own URIs,
        to its daemon), qmp:/run/vm.sock (one QEMU's monitor),
        qmp-dir:/run/qemu (the monitors in a directory), xenstore: or
        xenstore:/path (a Xen host, without libvirt), fake:
        Several are watched together.
        Without a URI, a fake hypervisor plays a demo that ends by itself.

What to watch:
  --only KIND,...     only these kinds of event, by the names of
                      virsh event --list: lifecycle, reboot, io-error,
                      block-job ...; other:NUMBER or other:NAME (one without a
                      type of its own), other (all of those), all (whatever the
                      hypervisor can report); default: lifecycle,reboot
  --domain NAME|UUID  only this domain; may be given several times
  --no-existing       do not begin with the existing domains
  --wait              if a hypervisor is unreachable at the start, do not fail:
                      print a gap and wait until it is reachable
  --verify SECONDS    the interval at which known domains are compared with the
                      hypervisor's list; default: 60; 0: never
  --script FILE       play this script (TOML) on the fake hypervisor

When to end (also at Ctrl-C):
  --count N           after N events; existing domains, synced and gap are not
                      counted
  --for SECONDS       this time after the start; may have a fraction

What to print:
  --json              one JSON object a line, for programs (docs/json.md)
  --quiet             no events
  --stats             at the end, on stderr, one JSON object: events counted,
                      wall_s and cpu_s from the first to the last of them, and
                      max_rss_kib

  --capacity N        the number of unread events that are held before outdated
                      ones are dropped, which prints a gap; default: 1024
  -h, --help          this text
  -V, --version       the version

Environment:
  VIREVENT_LOG        warn, info or debug: print the library's log on stderr;
                      unset: print only warnings that need an action
  VIREVENT_LIBVIRT_USER, VIREVENT_LIBVIRT_PASSWORD
                      for a libvirt daemon that demands SASL (feature sasl),
                      where libvirt's auth file has no user; nothing is asked

Exit status: 0 after a normal end, 1 if a hypervisor is unreachable or refuses,
2 if the command line is wrong.
";

/// The command line's request.
#[derive(Debug)]
pub(crate) enum Command {
    Watch(Box<Args>),
    Help,
    Version,
}

#[derive(Debug, Default)]
pub(crate) struct Args {
    pub(crate) uris: Vec<String>,
    pub(crate) options: Options,
    pub(crate) settings: Settings,
    pub(crate) script: Option<PathBuf>,
    pub(crate) count: Option<u64>,
    pub(crate) duration: Option<Duration>,
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    pub(crate) stats: bool,
}

/// Parses the command line, without the program's name.
///
/// # Errors
/// The mistake, in one line.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    read(lexopt::Parser::from_args(args)).map_err(|error| format!("{error}; see watch --help"))
}

fn read(mut parser: lexopt::Parser) -> Result<Command, lexopt::Error> {
    let mut args = Args::default();
    while let Some(arg) = parser.next()? {
        match arg {
            Value(uri) => args.uris.push(utf8("the URI", uri)?),
            Long("only") => {
                for kind in utf8("--only", parser.value()?)?.split(',') {
                    args.options = match kind.trim() {
                        "all" => args.options.kinds(Kinds::all()),
                        name => {
                            let kind = name.parse::<Kind>().map_err(|error| error.to_string())?;
                            args.options.kind(kind)
                        }
                    };
                }
            }
            Long("domain") => match utf8("--domain", parser.value()?)? {
                name if name.is_empty() => return Err("--domain: give a name or a uuid".into()),
                name => args.options = args.options.domain(name),
            },
            Long("no-existing") => args.options = args.options.existing(false),
            Long("wait") => args.options = args.options.wait(true),
            Long("capacity") => {
                let capacity = number("--capacity", parser.value()?)?;
                args.options = args.options.capacity(capacity);
            }
            Long("verify") => {
                let interval = seconds("--verify", parser.value()?)?;
                args.settings = args.settings.verify(Some(interval));
            }
            Long("script") => args.script = Some(parser.value()?.into()),
            Long("count") => args.count = Some(number("--count", parser.value()?)?),
            Long("for") => args.duration = Some(seconds("--for", parser.value()?)?),
            Long("json") => args.json = true,
            Long("quiet") => args.quiet = true,
            Long("stats") => args.stats = true,
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            _ => return Err(arg.unexpected()),
        }
    }
    Ok(Command::Watch(Box::new(args)))
}

fn utf8(option: &str, value: OsString) -> Result<String, String> {
    value.into_string().map_err(|value| format!("{option} {value:?}: write it in UTF-8"))
}

/// Parses a whole number that is not 0.
fn number<T>(option: &str, value: OsString) -> Result<T, String>
where
    T: FromStr<Err = ParseIntError> + Default + PartialEq,
{
    let text = utf8(option, value)?;
    match text.parse() {
        Ok(number) if number != T::default() => Ok(number),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => {
            Err(format!("{option} {text}: give at most {}", u64::MAX))
        }
        _ => Err(format!("{option} {text}: give a whole number, 1 or more")),
    }
}

fn seconds(option: &str, value: OsString) -> Result<Duration, String> {
    let text = utf8(option, value)?;
    let seconds = text.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    seconds.ok_or_else(|| format!("{option} {text}: give a number of seconds, 0 or more"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn args(line: &str) -> Args {
        match parse(line.split_whitespace().map(OsString::from)).unwrap() {
            Command::Watch(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    fn error(line: &str) -> String {
        parse(line.split(' ').map(OsString::from)).unwrap_err()
    }

    #[test]
    fn options_and_uris_come_in_any_order() {
        let args = args(
            "test:///default --only lifecycle,io-error,other:99 --domain a --count=3 fake: --domain b --for 0.5 \
             --wait --verify 5",
        );
        assert_eq!(args.settings.verify, Some(Some(Duration::from_secs(5))));
        assert_eq!(args.uris, ["test:///default", "fake:"]);
        assert_eq!(args.count, Some(3));
        assert_eq!(args.duration, Some(Duration::from_millis(500)));
        let wanted = Options::default().domain("a").domain("b").wait(true);
        let wanted = wanted.kind(Kind::Lifecycle).kind(Kind::IoError);
        let wanted = wanted.kind("other:99".parse().unwrap());
        assert_eq!(args.options, wanted);
    }

    #[test]
    fn only_takes_every_name_of_virsh_and_all() {
        let names = "lifecycle,reboot,rtc-change,watchdog,io-error,graphics,io-error-reason,\
            control-error,block-job,disk-change,tray-change,pm-wakeup,pm-suspend,balloon-change,\
            pm-suspend-disk,device-removed,block-job-2,tunable,agent-lifecycle,device-added,\
            migration-iteration,job-completed,device-removal-failed,metadata-change,\
            block-threshold,memory-failure,memory-device-size-change,nic-mac-change,vcpu-removed,\
            channel-lifecycle";
        let kinds = args(&format!("--only {names},other")).options.filter.kinds.unwrap();
        assert_eq!(kinds, Kinds::all());
        assert_eq!(args("--only all").options.filter.kinds, Some(kinds));
    }

    #[test]
    fn an_argument_that_is_not_utf8_names_its_option() {
        for option in ["--only", "--domain", "--count", "--for", "the URI"] {
            let value = OsString::from_vec(b"a\xff".to_vec());
            let option_itself = option.starts_with('-').then(|| option.into());
            let error = parse(option_itself.into_iter().chain([value])).unwrap_err();
            assert!(error.starts_with(&format!("{option} \"a\\xFF\": ")), "{error}");
            assert!(error.contains("UTF-8"), "{error}");
        }
    }

    #[test]
    fn a_mistake_names_the_option_and_the_value() {
        for (line, expected) in [
            ("--frobnicate", "--frobnicate"),
            ("-x", "-x"),
            ("--count", "--count"),
            ("--count 0", "--count 0: give a whole number"),
            ("--count -1", "--count"),
            ("--capacity 0", "--capacity 0"),
            ("--count 99999999999999999999", "give at most 18446744073709551615"),
            ("--capacity 99999999999999999999", "give at most 18446744073709551615"),
            ("--for soon", "--for soon"),
            ("--for -1", "--for"),
            ("--verify often", "--verify often: give a number of seconds"),
            ("--for nan", "--for nan"),
            ("--for 1e300", "--for 1e300"),
            ("--only lifecycle,,reboot", "\"\""),
            (
                "--only started",
                "\"started\" is not a kind: give other, other:NAME, or one of lifecycle",
            ),
            ("--only other:8", "\"other:8\" is not a kind: give block-job"),
            ("--domain ", "give a name"),
            ("--json=yes", "--json"),
        ] {
            let error = error(line);
            assert!(error.contains(expected) && error.contains("--help"), "{line}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
