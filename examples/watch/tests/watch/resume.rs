//! `--resume FILE`, on scripts that play in place of a hypervisor.

use crate::run::{path, run, script};
use crate::words;

#[test]
fn a_resumed_run_prints_what_changed_since_the_last() {
    let home = tempfile::TempDir::new().unwrap();
    let file = home.path().join("last.json");
    let file = file.to_str().unwrap();
    let before = script(true, &[r#"define = "web""#, r#"define = "db""#, r#"start = "web""#]);
    let outcome = run(&["--json", "--resume", file, "--script", path(&before)]);
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    // As if the script's domains had been there, and had changed since.
    let after = script(true, &[r#"define = "db""#]);
    let outcome = run(&["--json", "--resume", file, "--script", path(&after)]);
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    assert_eq!(words(&outcome.events())[..3], ["web stopped", "web undefined", "synced"]);
    // A filter chooses what is printed, not what the file keeps.
    let filtered = ["--json", "--resume", file, "--domain", "none", "--script", path(&after)];
    assert_eq!(words(&run(&filtered).events()), ["synced"]);
    let outcome = run(&["--json", "--resume", file, "--script", path(&after)]);
    assert_eq!(words(&outcome.events())[0], "synced");
}

#[test]
fn a_file_to_resume_from_that_is_none_exits_with_1() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let file = file.path().to_str().unwrap();
    std::fs::write(file, r#"{"version":2}"#).unwrap();
    let outcome = run(&["--resume", file, "fake:"]);
    assert_eq!(outcome.status, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("from a newer virevent"), "{outcome:?}");
    assert!(outcome.stderr.contains("remove it to begin without it"), "{outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    let outcome = run(&["--resume", "/nonexistent/last.json", "--for", "0.1", "fake:"]);
    assert_eq!(outcome.status, 1, "it cannot be written: {outcome:?}");
    let outcome = run(&["--resume", file, "--only", "reboot"]);
    assert_eq!(outcome.status, 2, "{outcome:?}");
}
