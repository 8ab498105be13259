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
fn change_without_only_asks_for_lifecycle_alone() {
    let kinds = |line: &str| args(line).options.filter.kinds.unwrap();
    assert_eq!(kinds("--change started,pm_suspended --change stopped"), Kind::Lifecycle.into());
    let both = [Kind::Lifecycle, Kind::IoError].into();
    assert_eq!(kinds("--change started --only lifecycle,io-error"), both);
    assert_eq!(kinds("--only all --change started"), Kinds::all());
}

#[test]
fn a_dash_is_the_script_on_standard_input() {
    assert_eq!(args("--script -").script, Some(ScriptFile::StandardInput));
    assert_eq!(args("--script ./-").script, Some(ScriptFile::Path("./-".into())));
}

#[test]
fn an_argument_that_is_not_utf8_names_its_option() {
    for option in ["--only", "--change", "--domain", "--count", "--for", "the URI"] {
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
