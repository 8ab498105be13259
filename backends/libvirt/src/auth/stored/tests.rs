use std::fs;

use super::*;

const GOOD: &str =
    "[auth-libvirt-host]\ncredentials=x\n[credentials-x]\nauthname=fred\npassword=s3cr3t\n";

fn places(variables: &[(&'static str, &str)]) -> Places {
    let find = |name| variables.iter().find(|(key, _)| *key == name);
    let mut places = Places::of(|name| find(name).map(|(_, value)| value.into())).unwrap();
    places.host = "/nonexistent/auth.conf".into();
    places
}

/// User and password as `user:password`, or the line of the error.
fn found(places: &Places, authfile: Option<&str>, host: &str) -> Option<String> {
    match find(places, authfile, host) {
        Ok(found) => found.map(|found| {
            assert!(!format!("{found:?}").contains("s3cr3t"));
            format!("{}:{}", found.credentials.user(), found.credentials.password())
        }),
        Err(error) => {
            let line = error.to_line();
            assert!(error.is_refusal() && !line.contains("s3cr3t"), "{line}");
            Some(line)
        }
    }
}

fn looked_up(text: &str, host: &str) -> Option<String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("auth.conf");
    fs::write(&path, text).unwrap();
    found(&places(&[]), Some(path.to_str().unwrap()), host)
}

#[test]
fn the_group_of_the_host_goes_before_the_default_one() {
    let text = "[credentials-a]\nauthname=ann\npassword=1\n[credentials-b]\nauthname=bob\n\
                password=2\n[auth-libvirt-default]\ncredentials=b\n[auth-libvirt-[::1]]\n";
    // A bracket in a group's name is an error of GLib, so an IPv6 address has none here.
    assert!(looked_up(text, "host").unwrap().contains("no [group] in line 9"));
    let text = text.replace("[::1]", "::1") + "credentials=a\n";
    assert_eq!(looked_up(&text, "::1").unwrap(), "ann:1");
    assert_eq!(looked_up(&text, "host").unwrap(), "bob:2");
    assert_eq!(looked_up(GOOD, "host").unwrap(), "fred:s3cr3t");
    assert_eq!(looked_up(GOOD, "HOST"), None);
    assert_eq!(looked_up("", "host"), None);
}

#[test]
fn a_wrong_auth_file_is_an_error_that_names_the_groups() {
    let table = [
        (GOOD.replace("credentials=x", ""), &["[auth-libvirt-host]", "credentials=NAME"][..]),
        (GOOD.replace("s-x]", "s-y]"), &["[auth-libvirt-host]", "[credentials-x]"]),
        (
            GOOD.replace("password=s3cr3t", ""),
            &["[credentials-x]", "[auth-libvirt-host]", "password="],
        ),
        (GOOD.replace("authname=fred", ""), &["[credentials-x]", "authname="]),
        (GOOD.replace("s3cr3t", ""), &["the password is empty"]),
        (format!("{GOOD};s3cr3t"), &["line 6", "libvirt ignores the whole file"]),
        (format!("{GOOD}s3cr3t"), &["line 6"]),
    ];
    for (text, parts) in table {
        let line = looked_up(&text, "host").unwrap();
        assert!(parts.iter().all(|part| line.contains(part)), "{text}: {line}");
        assert!(line.contains("auth.conf") && !line.contains('\n'), "{line}");
    }
}

#[test]
fn the_first_place_of_an_auth_file_decides() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, user: &str| {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, GOOD.replace("fred", user)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let named = write("named", "named");
    let parameter = write("parameter", "parameter");
    write("xdg/libvirt/auth.conf", "xdg");
    write("home/.config/libvirt/auth.conf", "home");
    let etc = write("etc", "etc");
    let xdg = directory.path().join("xdg").to_str().unwrap().to_owned();
    let home = directory.path().join("home").to_str().unwrap().to_owned();
    let none = directory.path().join("none").to_str().unwrap().to_owned();

    let table = [
        (Some(&named), Some(&parameter), Some(&xdg), "named"),
        (None, Some(&parameter), Some(&xdg), "parameter"),
        (None, None, Some(&xdg), "xdg"),
        (None, None, None, "home"),
        (None, None, Some(&none), "etc"),
    ];
    for (variable, parameter, xdg, expected) in table {
        let mut variables = vec![("HOME", &*home)];
        variables.extend(variable.map(|path| ("LIBVIRT_AUTH_FILE", &**path)));
        variables.extend(xdg.map(|path| ("XDG_CONFIG_HOME", &**path)));
        let mut places = places(&variables);
        places.host = etc.clone().into();
        let user = found(&places, parameter.map(|path| &**path), "host").unwrap();
        assert_eq!(user, format!("{expected}:s3cr3t"));
    }
    assert_eq!(found(&places(&[]), None, "host"), None);
}

#[test]
fn an_auth_file_that_is_named_must_be_readable() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let missing = format!("{path}/none");
    let line = found(&places(&[("LIBVIRT_AUTH_FILE", &missing)]), None, "host").unwrap();
    assert!(line.contains(&missing) && line.contains("LIBVIRT_AUTH_FILE names it"), "{line}");
    assert!(found(&places(&[("LIBVIRT_AUTH_FILE", "")]), None, "host").unwrap().contains("read"));
    let line = found(&places(&[]), Some(&missing), "host").unwrap();
    assert!(line.contains("authfile= in the URI names it"), "{line}");
    assert!(found(&places(&[]), Some(path), "host").unwrap().contains("not a regular file"));
    let long = directory.path().join("long");
    fs::write(&long, vec![b'\n'; MAX_FILE + 1]).unwrap();
    assert!(found(&places(&[]), long.to_str(), "host").unwrap().contains("more than 1 MiB"));
    fs::write(&long, b"[a]\nx=\xff\n").unwrap();
    assert!(found(&places(&[]), long.to_str(), "host").unwrap().contains("not UTF-8"));
}

#[test]
fn the_environment_is_the_last_place() {
    let variables = [(USER_VARIABLE, "eve"), (PASSWORD_VARIABLE, "s3cr3t")];
    assert_eq!(found(&places(&variables), None, "host").unwrap(), "eve:s3cr3t");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("auth.conf");
    fs::write(&path, GOOD).unwrap();
    assert_eq!(found(&places(&variables), path.to_str(), "host").unwrap(), "fred:s3cr3t");
    assert_eq!(found(&places(&variables), path.to_str(), "other").unwrap(), "eve:s3cr3t");
    for (only, lacking) in [(0, PASSWORD_VARIABLE), (1, USER_VARIABLE)] {
        let line = found(&places(&[variables[only]]), None, "host").unwrap();
        assert!(line.contains(&format!("{lacking} is not: set both")), "{line}");
    }
    assert_eq!(found(&places(&[(USER_VARIABLE, ""), (PASSWORD_VARIABLE, "")]), None, "host"), None);
}
