//! Each test and each file that `docs/guarantees.md` names exists.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// The Rust files below a directory, each with its text.
fn sources(directory: &Path, into: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, into);
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).unwrap();
            into.push((path, text));
        }
    }
}

/// Whether `module::test` is in a file of that module: `module.rs`, or one in `module/`.
fn is_in(path: &Path, module: &str) -> bool {
    path.file_stem().is_some_and(|stem| stem == module)
        || path.parent().is_some_and(|directory| directory.ends_with(module))
}

#[test]
fn each_test_and_file_named_in_the_guarantees_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(root.join("docs/guarantees.md")).unwrap();
    let mut files = Vec::new();
    for part in ["sdk", "backends", "testkit", "examples"] {
        sources(&root.join(part), &mut files);
    }
    let mut named = 0;
    let mut missing = Vec::new();
    for name in page.split('`').skip(1).step_by(2) {
        let path: Vec<&str> = name.split("::").filter(|part| *part != "tests").collect();
        let (test, modules) = path.split_last().unwrap();
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let exists = if name.ends_with(".rs") {
            files.iter().any(|(path, _)| path.ends_with(name))
        } else if test.matches('_').count() >= 2 && test.chars().all(is_word) {
            let function = format!("fn {test}(");
            files.iter().any(|(path, text)| {
                modules.last().is_none_or(|module| is_in(path, module)) && text.contains(&function)
            })
        } else {
            continue;
        };
        named += 1;
        if !exists {
            missing.push(name);
        }
    }
    assert!(named > 100, "only {named} names in the page");
    assert!(missing.is_empty(), "missing: {missing:#?}");
}
