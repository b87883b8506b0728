//! The Temporal API with its unmodified SDKs: each file of `tests/temporal/python` is a test, run by Temporal's Python SDK.
//!
//! The histories are checked there, event by event, and replayed by the SDK's own replayer. A file may ask for a `kill -9` of the engine.
#![allow(missing_docs, clippy::unwrap_used)]

use std::process::Stdio;

use orchestrion_tests::engine::Engine;
use orchestrion_tests::py_service::python;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

const LOG_LINES_SHOWN: usize = 60;

/// Runs a file against an engine of its own; every test of it must pass.
async fn python_sdk(file: &str) {
    let mut engine = Engine::start().await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/temporal/python");
    let mut process = Command::new(python())
        .args(["-B", "run.py", &engine.grpc_address(), "default", file])
        .current_dir(folder)
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut answers = process.stdin.take().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    // What workers log is worth reading only when something fails.
    let mut stderr = process.stderr.take().unwrap();
    let log = tokio::spawn(async move {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text).await;
        text
    });
    let (mut failed, mut passed, mut done) = (Vec::new(), 0, None);
    while let Some(line) = lines.next_line().await.unwrap() {
        let Ok(said) = serde_json::from_str::<Value>(&line) else {
            continue; // Something a worker printed.
        };
        if said["ask"] == "kill" {
            engine.kill_and_restart().await;
            answers.write_all(b"back\n").await.unwrap();
        } else if let Some(count) = said["done"].as_u64() {
            done = Some(count);
        } else if let Some(error) = said["error"].as_str() {
            failed.push(format!("{}: {error}", said["test"]));
        } else {
            passed += 1;
        }
    }
    let whole = done == Some(passed) && failed.is_empty();
    if !whole {
        let log = log.await.unwrap();
        let lines: Vec<&str> = log.lines().collect();
        eprintln!(
            "{}",
            lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
        );
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    assert!(whole, "{file}.py did not run to its end");
}

macro_rules! files {
    ($($name:ident = $file:literal)*) => {
        $(#[tokio::test]
        async fn $name() {
            python_sdk($file).await;
        })*
    };
}

files! {
    activities_of_the_python_sdk = "activities"
    timers_signals_queries_and_starts_of_the_python_sdk = "control"
    children_and_chains_of_the_python_sdk = "chains"
    updates_of_the_python_sdk = "updates"
    update_with_start_of_the_python_sdk = "update_with_start"
    resets_of_the_python_sdk = "resets"
    descriptions_of_the_python_sdk = "pending"
    listings_of_the_python_sdk = "listing"
    hostile_clients_of_the_python_sdk = "hostile"
    deletions_of_the_python_sdk = "removal"
    a_killed_server_loses_nothing_of_the_python_sdk = "crashes"
}
