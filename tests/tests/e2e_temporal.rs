//! The Temporal API with its unmodified SDKs: the files of `tests/temporal` are tests, run by Temporal's Python, TypeScript and Rust SDKs.
//!
//! The histories are checked there, event by event, and replayed by the SDK's own replayer. A file may ask for a `kill -9` of the engine.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Stdio;

use orchestrion_tests::engine::{Engine, Launch, engine_binary, free_ports};
use orchestrion_tests::py_service::python;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

const LOG_LINES_SHOWN: usize = 60;

/// Runs one file against an engine of its own.
async fn python_sdk(file: &str) {
    let engine = Engine::start().await;
    let command = python_file(&engine, file);
    all_pass(engine, command).await;
}

/// Runs a file whose tests use orra's wire as well. The engine plans with a model that the file serves.
async fn both_wires(file: &str) {
    let (model_port, _) = free_ports();
    let model = format!("http://127.0.0.1:{model_port}/v1");
    let launch = Launch::dev()
        .env("LLM_API_BASE_URL", model)
        .env("LLM_MODEL", "fake-planner")
        .env("LLM_API_KEY", "sk-unused");
    let engine = launch.start().await;
    let mut command = python_file(&engine, file);
    command
        .env("ENGINE_URL", engine.url())
        .env("ENGINE_BINARY", engine_binary())
        .env("MODEL_PORT", model_port.to_string());
    all_pass(engine, command).await;
}

fn python_file(engine: &Engine, file: &str) -> Command {
    let mut command = Command::new(python());
    let arguments = ["-B", "run.py", &engine.grpc_address(), "default", file];
    command.args(arguments).current_dir(folder("python"));
    command
}

/// Runs files in one process against an engine of their own: bundling the workflows takes longer than most tests.
async fn typescript_sdk(files: &[&str]) {
    let engine = Engine::start().await;
    let mut command = Command::new("node");
    command
        .args(["run.cjs", &engine.grpc_address(), "default"])
        .args(files)
        .current_dir(folder("typescript"))
        .env("NODE_PATH", node_packages());
    all_pass(engine, command).await;
}

fn folder(sdk: &str) -> PathBuf {
    orchestrion_tests::root().join("tests/temporal").join(sdk)
}

/// Runs the tests of the crate `tests/temporal/rust`, which is built beside the workspace.
async fn rust_sdk(file: &str) {
    let program = from_setup("ORCHESTRION_TEMPORAL_RUST", "temporal-rust/debug").join("check");
    assert!(
        program.is_file(),
        "{} is not there: it is built by `make test` (setup/temporal-rust.sh)",
        program.display()
    );
    let engine = Engine::start().await;
    let mut command = Command::new(program);
    command.args([&engine.grpc_address(), "default", file]);
    all_pass(engine, command).await;
}

/// A folder that setup names, or where it is by default.
fn from_setup(variable: &str, in_cache: &str) -> PathBuf {
    let Some(path) = std::env::var_os(variable) else {
        let home = std::env::var_os("HOME").expect("HOME is set");
        return PathBuf::from(home)
            .join(".cache/orchestrion")
            .join(in_cache);
    };
    PathBuf::from(path)
}

fn node_packages() -> PathBuf {
    let path = from_setup("ORCHESTRION_NODE_PATH", "node/node_modules");
    let there = path.join("@temporalio/worker").is_dir();
    assert!(
        there,
        "{} holds no packages: run `make setup`",
        path.display()
    );
    path
}

/// Every test that the command runs must pass.
async fn all_pass(mut engine: Engine, mut command: Command) {
    let mut process = command
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
        let mut text = Vec::new();
        let _ = stderr.read_to_end(&mut text).await;
        String::from_utf8_lossy(&text).into_owned()
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
    let ended = process.wait().await.unwrap();
    assert!(
        whole,
        "{command:?} did not run to its end: it says {done:?} tests are done, {passed} passed, and it ended with {ended}"
    );
}

macro_rules! files {
    ($($name:ident = $sdk:ident($files:expr))*) => {
        $(#[tokio::test]
        async fn $name() {
            $sdk($files).await;
        })*
    };
}

files! {
    activities_of_the_python_sdk = python_sdk("activities")
    timers_signals_queries_and_starts_of_the_python_sdk = python_sdk("control")
    children_and_chains_of_the_python_sdk = python_sdk("chains")
    updates_of_the_python_sdk = python_sdk("updates")
    update_with_start_of_the_python_sdk = python_sdk("update_with_start")
    resets_of_the_python_sdk = python_sdk("resets")
    descriptions_of_the_python_sdk = python_sdk("pending")
    listings_of_the_python_sdk = python_sdk("listing")
    hostile_clients_of_the_python_sdk = python_sdk("hostile")
    deletions_of_the_python_sdk = python_sdk("removal")
    situations_of_the_python_sdk = python_sdk("situations")
    races_of_the_python_sdk = python_sdk("races")
    corners_of_the_python_sdk = python_sdk("corners")
    workers_of_the_python_sdk_that_leave = python_sdk("leaving")
    heartbeats_of_workers_of_the_python_sdk = python_sdk("heartbeats")
    operators_of_the_python_sdk = python_sdk("operators")
    what_operators_of_the_python_sdk_said_survives_a_kill = python_sdk("crashed_operators")
    workers_of_the_python_sdk_that_die = python_sdk("deaths")
    a_killed_server_loses_nothing_of_the_python_sdk = python_sdk("crashes")
    orchestrations_replay_with_the_python_sdk = both_wires("orchestrations")
    service_queues_of_the_python_sdk = both_wires("service_queues")
    calls_of_the_python_sdk_that_a_killed_server_answers = python_sdk("crashed_calls")
    the_typescript_sdk = typescript_sdk(&["activities", "control", "chains", "updates", "listing"])
    a_killed_server_loses_nothing_of_the_typescript_sdk = typescript_sdk(&["crashes"])
    the_rust_sdk = rust_sdk("all")
    a_killed_server_loses_nothing_of_the_rust_sdk = rust_sdk("crashes")
}
