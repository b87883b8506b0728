//! House rules as tests: what must be absent is looked for.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let root = orchestrion_tests::root().join(folder);
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push((path.clone(), fs::read_to_string(path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has no sources");
    found
}

/// Lines of code (not comments, not unit tests at the foot) that hold one of these words.
fn offences(folder: &str, words: &[&str], allowed: &[&str]) -> Vec<String> {
    let mut offences = Vec::new();
    for (path, text) in sources(folder) {
        let name = path.to_string_lossy().into_owned();
        if allowed.iter().any(|end| name.ends_with(end))
            || name.contains("/tests")
            || name.contains("test")
        {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap();
        for (number, line) in code.lines().enumerate() {
            let line = line.trim();
            if !line.starts_with("//") && words.iter().any(|word| line.contains(word)) {
                offences.push(format!("{name}:{}: {line}", number + 1));
            }
        }
    }
    offences
}

#[test]
fn the_core_knows_no_clock_no_chance_and_no_disk() {
    let words = [
        "Instant::now",
        "SystemTime",
        "rand::",
        "std::fs",
        "std::net",
        "tokio",
        "std::thread",
    ];
    let allowed = [
        "store/rocksdb/mod.rs",
        "store/rocksdb/log.rs",
        "store/rocksdb/lock.rs",
        "store/rocksdb/tuning.rs",
    ];
    assert_eq!(
        offences("history/src", &words, &allowed),
        Vec::<String>::new()
    );
}

#[test]
fn time_and_tasks_come_in_through_the_seams() {
    let words = [
        "Instant::now",
        "SystemTime::now",
        "tokio::spawn",
        "tokio::time::sleep(",
    ];
    assert_eq!(
        offences("engine/src", &words, &["seams.rs", "cli/follow.rs"]),
        Vec::<String>::new()
    );
}

#[test]
fn every_file_says_what_lives_in_it() {
    for folder in [
        "proto/src",
        "proto/build",
        "history/src",
        "engine/src",
        "worker-sdk/src",
        "tests/src",
    ] {
        for (path, text) in sources(folder) {
            assert!(
                text.starts_with("//!"),
                "{} does not open with //!",
                path.display()
            );
        }
    }
}
