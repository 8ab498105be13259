#![allow(clippy::unwrap_used)]

use std::process::{Child, Command};

use tempfile::TempDir;

use super::*;

fn sleeper() -> Child {
    Command::new("sleep").arg("600").spawn().unwrap()
}

struct Dir(TempDir, PidFiles);

impl Dir {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let files = PidFiles::new(home.path().into(), "host");
        Self(home, files)
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.0.path().join(file), text).unwrap();
    }

    /// The names and pids of a look.
    fn look(&self, known: &mut Guests) -> Vec<(String, u32)> {
        *known = self.1.look(known).unwrap();
        known.values().map(|guest| (guest.name.clone(), guest.id)).collect()
    }
}

#[test]
fn a_live_process_is_a_guest_until_it_ends() {
    let dir = Dir::new();
    let mut known = Guests::new();
    let mut child = sleeper();
    dir.write("web.pid", &format!("{}\n", child.id()));
    assert_eq!(dir.look(&mut known), [("web".into(), child.id())]);
    // A zombie, until it is waited for.
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&child),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    while !dir.look(&mut known).is_empty() {
        std::thread::yield_now();
    }
    child.wait().unwrap();
    assert_eq!(dir.look(&mut known), []);
}

#[test]
fn a_known_guest_outlives_its_file() {
    let dir = Dir::new();
    let mut known = Guests::new();
    let mut child = sleeper();
    let expected = [("web".to_owned(), child.id())];
    dir.write("web.pid", &child.id().to_string());
    assert_eq!(dir.look(&mut known), expected);
    dir.write("web.pid", "");
    assert_eq!(dir.look(&mut known), expected);
    fs::remove_file(dir.0.path().join("web.pid")).unwrap();
    assert_eq!(dir.look(&mut known), expected);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(dir.look(&mut known), []);
}

#[test]
fn files_without_the_pid_of_a_process_are_no_guests() {
    let dir = Dir::new();
    let own = std::process::id().to_string();
    let long = own.clone() + &" ".repeat(100);
    for (file, text) in [
        ("a.pid", ""),
        ("b.pid", "none"),
        ("c.pid", "0"),
        ("d.pid", "-1"),
        ("e.pid", "4294967295"),
        ("f.pid", &long),
        ("g.log", &own),
        ("h", &own),
    ] {
        dir.write(file, text);
    }
    fs::create_dir(dir.0.path().join("i.pid")).unwrap();
    assert_eq!(dir.look(&mut Guests::new()), []);
}

#[test]
fn a_process_younger_than_the_file_is_another() {
    let dir = Dir::new();
    dir.write("web.pid", &std::process::id().to_string());
    let file = fs::File::options().write(true).open(dir.0.path().join("web.pid")).unwrap();
    let hour = Duration::from_secs(3600);
    file.set_modified(SystemTime::now() - hour).unwrap();
    assert_eq!(dir.look(&mut Guests::new()), []);
    file.set_modified(SystemTime::now()).unwrap();
    assert_eq!(dir.look(&mut Guests::new()).len(), 1);
}

#[test]
fn a_missing_directory_is_an_error_that_says_what_to_do() {
    let files = PidFiles::new("/nowhere/at/all".into(), "host");
    let error = files.look(&Guests::new()).unwrap_err().to_line();
    assert!(error.contains("/nowhere/at/all") && error.contains("-pidfile"), "{error}");
}
