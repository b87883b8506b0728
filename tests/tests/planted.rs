//! The planted bugs of `tests/planted/`: each still fits the sources, has its own switch, and stands in the table of `docs/simulation.md`.
//!
//! Nothing is compiled here, and nothing but the sources is needed: that each bug is found is what `setup/planted.sh` shows.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use orchestrion_tests::root;

/// The patch that brings the switch of all others.
const SWITCH: &str = "00_switch";
/// Lines of context that may differ at either end of a hunk, as `setup/planted.sh` has it.
const FUZZ_MAX: usize = 3;

/// Lines that are to be found, and what stands there afterwards.
struct Hunk {
    file: String,
    /// Where the old lines began, from 0.
    at: usize,
    /// As in the patch, with its first column.
    lines: Vec<String>,
}

/// Patches by name, in the order in which they are planted.
fn patches() -> BTreeMap<String, String> {
    let found: BTreeMap<String, String> = fs::read_dir(root().join("tests/planted"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    assert!(found.len() > 20 && found.contains_key(SWITCH), "{found:?}");
    found
}

fn hunks(patch: &str) -> Vec<Hunk> {
    let mut found: Vec<Hunk> = Vec::new();
    let mut file = String::new();
    let mut is_open = false;
    for line in patch.lines() {
        if let Some(name) = line.strip_prefix("+++ b/") {
            (file, is_open) = (name.to_owned(), false);
        } else if let Some(place) = line.strip_prefix("@@ -") {
            let first: String = place.chars().take_while(char::is_ascii_digit).collect();
            let at = first.parse::<usize>().unwrap().saturating_sub(1);
            let file = file.clone();
            found.push(Hunk {
                file,
                at,
                lines: Vec::new(),
            });
            is_open = true;
        } else if is_open && line.starts_with([' ', '+', '-']) && !line.starts_with("--- ") {
            found.last_mut().unwrap().lines.push(line.to_owned());
        }
    }
    found
}

/// Plants one hunk as near to its place as it fits; whether it did.
fn plant(hunk: &Hunk, text: &mut Vec<String>) -> bool {
    let context = |line: &&String| line.starts_with(' ');
    let before = hunk.lines.iter().take_while(context).count();
    let after = hunk.lines.iter().rev().take_while(context).count();
    for fuzz in 0..=FUZZ_MAX {
        let (skip, drop) = (fuzz.min(before), fuzz.min(after));
        let Some(lines) = hunk.lines.get(skip..hunk.lines.len() - drop) else {
            return false;
        };
        let side = |other: char| -> Vec<String> {
            let kept = lines.iter().filter(|line| !line.starts_with(other));
            kept.map(|line| line[1..].to_owned()).collect()
        };
        let (old, new) = (side('+'), side('-'));
        let fits = |at: &usize| text[*at..].starts_with(&old);
        let place = (0..=text.len().saturating_sub(old.len()))
            .filter(fits)
            .min_by_key(|at| at.abs_diff(hunk.at + skip));
        if let Some(at) = place {
            text.splice(at..at + old.len(), new);
            return true;
        }
    }
    false
}

fn source(file: &str) -> Vec<String> {
    // A patch may bring a file of its own.
    let text = fs::read_to_string(root().join(file)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn every_planted_bug_fits_the_sources() {
    let mut sources: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, patch) in patches() {
        let hunks = hunks(&patch);
        assert!(!hunks.is_empty(), "{name}.patch changes nothing");
        for hunk in hunks {
            let file = &hunk.file;
            let text = sources.entry(file.clone()).or_insert_with(|| source(file));
            assert!(
                plant(&hunk, text),
                "tests/planted/{name}.patch does not fit {file} any more, around line {}: plant its bug anew",
                hunk.at + 1
            );
        }
    }
}

#[test]
fn a_hunk_fits_where_its_lines_stand_and_nowhere_else() {
    let patch = "+++ b/a.rs\n@@ -2,3 +2,4 @@ fn a\n one\n-two\n+2\n+zwei\n three\n";
    let hunks = hunks(patch);
    assert_eq!((hunks[0].file.as_str(), hunks[0].at), ("a.rs", 1));
    for (text, planted) in [
        ("zero one two three", Some("zero one 2 zwei three")),
        (
            "one two three one two three",
            Some("one 2 zwei three one two three"),
        ),
        ("uno two three", Some("uno 2 zwei three")),
        ("one deux three", None),
        ("one", None),
    ] {
        let mut lines: Vec<String> = text.split(' ').map(str::to_owned).collect();
        let fits = plant(&hunks[0], &mut lines);
        assert_eq!(fits.then(|| lines.join(" ")).as_deref(), planted, "{text}");
    }
}

#[test]
fn every_planted_bug_has_a_switch_of_its_own() {
    for (name, patch) in patches().iter().filter(|(name, _)| *name != SWITCH) {
        let switch = format!("planted::is(\"{name}\")");
        let woken = patch.lines().filter(|line| line.contains("planted::is("));
        let own: Vec<bool> = woken.map(|line| line.contains(&switch)).collect();
        assert!(
            !own.is_empty() && own.iter().all(|own| *own),
            "{name}.patch is not woken by {switch}"
        );
    }
}

#[test]
fn the_table_has_every_planted_bug() {
    let text = fs::read_to_string(root().join("docs/simulation.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let told: BTreeSet<String> = rows
        .filter_map(|row| row.split_once("`: "))
        .map(|(name, _)| name.to_owned())
        .collect();
    let planted: BTreeSet<String> = patches()
        .into_keys()
        .filter(|name| name != SWITCH)
        .collect();
    assert_eq!(told, planted, "docs/simulation.md and tests/planted differ");
}
