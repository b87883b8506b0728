//! Audit exports of a running engine, and the commands that look into a run: logs, diff, fork, replay of a file.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use orchestrion_tests::cli::Cli;
use orchestrion_tests::engine::Engine;
use orchestrion_tests::fake_sdk::{FakeSdk, FakeSocket, service};
use orchestrion_tests::project::{Project, text};
use orchestrion_tests::wait::until;
use serde_json::{Value, json};

/// An engine, a command line with a project, and a service `echo` that answers when a test says so.
struct Desk {
    engine: Engine,
    cli: Cli,
    project: Project,
    socket: FakeSocket,
}

impl Desk {
    async fn set() -> Self {
        let engine = Engine::start().await;
        let cli = Cli::with_project(&engine).await;
        let config = fs::read(cli.config_dir().join("config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        let known = &config["projects"]["shop"];
        let project = Project::known(&engine, &text(known, "id"), &text(known, "cli_auth"));
        let mut echo = service("echo", &["text"], &["text"]);
        echo["revertible"] = json!(true);
        let socket = FakeSdk::register_as(&project, &echo).await.connect().await;
        Self {
            engine,
            cli,
            project,
            socket,
        }
    }

    /// Three steps, each of which needs the one before.
    async fn submit(&self, word: &str) -> String {
        let body = json!({"action": {"content": "Say it thrice"}, "data": [{"field": "word", "value": word}],
            "options": {"taskAttempts": 1, "compensationAttempts": 1}, "plan": {"steps": [
            {"id": "one", "component": "echo", "input": {"text": "{{request.data.word}}"}},
            {"id": "two", "component": "echo", "input": {"text": "{{one.output.text}} two"}},
            {"id": "three", "component": "echo", "input": {"text": "{{two.output.text}} three"}},
        ]}});
        let (status, answer) = self.project.post("/v1/orchestrations", &body).await;
        assert_eq!(status, 202, "{answer}");
        text(&answer, "executionId")
    }

    /// Answers so many requests as an echo; what was asked.
    async fn answer(&mut self, count: usize) -> Vec<String> {
        let mut asked_for = Vec::new();
        for _ in 0..count {
            let asked = self.socket.request().await;
            let said = asked.0["input"]["text"].as_str().unwrap().to_owned();
            let output = json!({"text": said});
            self.socket
                .complete_revertibly(&asked, output, json!({"undo": said}), 86_400_000)
                .await;
            asked_for.push(said);
        }
        asked_for
    }

    async fn ended(&self, id: &str) -> Value {
        until("the orchestration to close", || async {
            let shown = self.project.get(&format!("/v1/orchestrations/{id}")).await;
            (shown["closed"] == true).then_some(shown)
        })
        .await
    }

    fn file(&self, name: &str) -> PathBuf {
        self.engine.folder().join(name)
    }

    async fn export(&self, name: &str, arguments: &[&str]) -> String {
        let path = self.file(name).to_str().unwrap().to_owned();
        let mut all = vec!["audit", "export", "--output", &path];
        all.extend(arguments);
        self.cli.ok(&all).await;
        path
    }
}

#[tokio::test]
async fn an_export_verifies_in_every_format_and_each_kind_of_tampering_is_found() {
    let mut desk = Desk::set().await;
    let id = desk.submit("hello").await;
    let asked = desk.socket.request().await;
    desk.socket
        .send_acked(&desk.socket.answer(
            &asked,
            "task_interim_result",
            json!({"result": {"task": {"progress": 50}}}),
        ))
        .await;
    desk.socket.complete(&asked, json!({"text": "hello"})).await;
    desk.answer(2).await;
    desk.ended(&id).await;
    let key = desk.cli.ok(&["audit", "key"]).await.out.trim().to_owned();

    let file = desk.export("all.jsonl", &[]).await;
    let whole = fs::read_to_string(&file).unwrap();
    for expected in [
        "\"type\":\"ActivityProgress\"",
        "\"type\":\"ActivityAttemptStarted\"",
        "\"type\":\"WorkflowExecutionCompleted\"",
        "\"type\":\"service registered\"",
        "\"type\":\"audit exported\"",
    ] {
        assert!(whole.contains(expected), "{expected} in {whole}");
    }
    for format in ["jsonl", "csv", "parquet"] {
        let file = desk
            .export(&format!("all.{format}"), &["--format", format])
            .await;
        let said = desk
            .cli
            .ok(&["audit", "verify", &file, "--key", &key, "--json"])
            .await;
        let verified = said.json();
        assert_eq!(verified["redacted"], 0, "{format}");
        assert!(
            verified["records"].as_u64().unwrap() > 20,
            "{format}: {verified}"
        );
    }

    // The verifier needs no server.
    desk.engine.kill();
    let lines: Vec<&str> = whole.lines().collect();
    let middle = lines.len() / 2;
    let mut swapped = lines.clone();
    swapped.swap(middle, middle + 1);
    let mut missing = lines.clone();
    missing.remove(middle);
    let mut added = lines.clone();
    added.insert(middle, lines[middle]);
    let flipped = lines[middle].replacen("\"payloadDigest\":\"", "\"payloadDigest\":\"0", 1);
    let mut changed = lines.clone();
    changed[middle] = &flipped;
    let other_word = whole.replacen("hello", "hullo", 1);
    let other_word: Vec<&str> = other_word.lines().collect();
    for (what, tampered) in [
        ("swapped", swapped),
        ("missing", missing),
        ("added", added),
        ("changed", changed),
        ("another word", other_word),
        ("cut off", lines[..lines.len() - 1].to_vec()),
        ("without a beginning", lines[1..].to_vec()),
    ] {
        let path = desk.file("tampered.jsonl");
        fs::write(&path, tampered.join("\n") + "\n").unwrap();
        let said = desk
            .cli
            .fails(&["audit", "verify", path.to_str().unwrap()])
            .await;
        assert_eq!(said.code, 1, "{what}: {said:?}");
        assert!(
            said.err.contains("is not what was exported"),
            "{what}: {said:?}"
        );
    }
    for (format, text) in [
        ("jsonl", whole.clone()),
        ("csv", fs::read_to_string(desk.file("all.csv")).unwrap()),
    ] {
        let path = desk.file(&format!("shorter.{format}"));
        fs::write(&path, &text[..text.len() - 1]).unwrap();
        let said = desk
            .cli
            .fails(&["audit", "verify", path.to_str().unwrap()])
            .await;
        assert!(
            said.err.contains("cut off"),
            "one byte of {format}: {said:?}"
        );
    }
    let other_key = "a".repeat(64);
    let said = desk
        .cli
        .fails(&["audit", "verify", &file, "--key", &other_key])
        .await;
    assert!(said.code == 1 || said.code == 2, "{said:?}");
    desk.cli
        .ok(&["audit", "verify", &file, "--key", &key])
        .await;
}

#[tokio::test]
async fn payloads_are_left_out_at_once_or_later_and_the_chain_holds() {
    let mut desk = Desk::set().await;
    let id = desk.submit("a secret word").await;
    desk.answer(3).await;
    desk.ended(&id).await;

    let without = desk.export("without.jsonl", &[&id, "--no-payloads"]).await;
    let text = fs::read_to_string(&without).unwrap();
    assert!(
        !text.contains("secret") && !text.contains("\"salt\":\"\""),
        "{text}"
    );
    let with = desk.export("with.jsonl", &[&id]).await;
    assert!(fs::read_to_string(&with).unwrap().contains("secret"));
    let redacted = desk.file("redacted.csv").to_str().unwrap().to_owned();
    desk.cli
        .ok(&[
            "audit", "redact", &with, "--output", &redacted, "--format", "csv",
        ])
        .await;
    assert!(!fs::read_to_string(&redacted).unwrap().contains("secret"));
    for file in [&without, &redacted] {
        let verified = desk
            .cli
            .ok(&["audit", "verify", file, "--json"])
            .await
            .json();
        assert_eq!(verified["redacted"], verified["records"], "{file}");
    }

    // An id that is not there takes nothing out, and must not look as if it had.
    let none = desk.file("none.jsonl");
    let said = desk
        .cli
        .fails(&[
            "audit",
            "redact",
            &with,
            "--execution",
            &id,
            "--execution",
            "o_another",
            "--output",
            none.to_str().unwrap(),
        ])
        .await;
    assert!(
        said.code == 1 && said.err.contains("no records of o_another"),
        "{said:?}"
    );
    assert!(!none.exists());

    // Somebody else's execution is nobody's, and leaves no file.
    let stranger = Cli::with_project(&desk.engine).await;
    let path = desk.file("stolen.jsonl");
    let said = stranger
        .fails(&["audit", "export", &id, "--output", path.to_str().unwrap()])
        .await;
    assert!(said.err.contains("404"), "{said:?}");
    assert!(!path.exists());
}

#[tokio::test]
async fn the_key_survives_a_crash_and_old_exports_still_verify() {
    let mut desk = Desk::set().await;
    let before = desk.cli.ok(&["audit", "key"]).await.out;
    let file = desk.export("before.jsonl", &[]).await;
    desk.engine.kill_and_restart().await;
    let after = desk.cli.ok(&["audit", "key"]).await.out;
    assert_eq!(before, after);
    desk.cli
        .ok(&["audit", "verify", &file, "--key", after.trim()])
        .await;
}

#[tokio::test]
async fn logs_are_followed_and_an_exported_run_replays_without_a_server() {
    let mut desk = Desk::set().await;
    let id = desk.submit("hello").await;
    let first = desk.cli.ok(&["logs", &id]).await;
    assert!(first.out.contains("WorkflowExecutionStarted"), "{first:?}");
    let follow = ["logs", &id, "--follow"];
    let cli = &desk.cli;
    let socket = &mut desk.socket;
    let work = async {
        for _ in 0..3 {
            let asked = socket.request().await;
            let output = json!({"text": asked.0["input"]["text"]});
            socket.complete(&asked, output).await;
        }
    };
    let (followed, ()) = tokio::join!(cli.ok(&follow), work);
    let last = followed.out.lines().last().unwrap();
    assert!(last.contains("WorkflowExecutionCompleted"), "{followed:?}");
    assert!(
        followed.out.contains("three (echo) ActivityTaskCompleted"),
        "{followed:?}"
    );
    let numbers: Vec<u64> = followed
        .out
        .lines()
        .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());

    let file = desk.export("run.jsonl", &[&id]).await;
    desk.engine.kill();
    let said = desk
        .cli
        .ok(&["replay", "--file", &file, "--json"])
        .await
        .json();
    assert_eq!(said["verified"], true);
    assert_eq!(said["records"].as_array().unwrap().len(), numbers.len());
}

#[tokio::test]
async fn a_fork_asks_services_only_for_what_depends_on_the_change() {
    let mut desk = Desk::set().await;
    let id = desk.submit("hello").await;
    assert_eq!(
        desk.answer(3).await,
        ["hello", "hello two", "hello two three"]
    );
    desk.ended(&id).await;

    let said = desk
        .cli
        .ok(&[
            "fork",
            &id,
            "--from",
            "two",
            "--input",
            "{\"text\":\"$one.text zwei\"}",
            "--json",
        ])
        .await
        .json();
    assert_eq!(said["takenOver"], json!(["one"]));
    assert_eq!(said["toRun"], json!(["two", "three"]));
    let fork = text(&said, "executionId");
    assert_eq!(desk.answer(2).await, ["hello zwei", "hello zwei three"]);
    let ended = desk.ended(&fork).await;
    assert_eq!(ended["result"], json!({"text": "hello zwei three"}));
    assert_eq!(ended["forkedFrom"]["executionId"], id.as_str());
    assert_eq!(ended["stepResults"][0]["takenOver"], true);
    assert_eq!(
        desk.ended(&id).await["result"],
        json!({"text": "hello two three"})
    );

    let said = desk.cli.ok(&["diff", &id, &fork]).await;
    let place =
        r#"they differ at plan.tasks[1].input.text: A has "$one.text two", B has "$one.text zwei""#;
    assert!(said.out.contains(place), "{said:?}");
    let said = desk.cli.ok(&["diff", &id, &id]).await;
    assert!(said.out.contains("same way"), "{said:?}");

    // The journal of a fork stands for itself.
    let file = desk.export("fork.jsonl", &[&fork]).await;
    let all = desk.export("all.jsonl", &[]).await;
    desk.engine.kill();
    let said = desk.cli.ok(&["replay", "--file", &file]).await;
    assert!(said.out.contains("its journal replays"), "{said:?}");
    let said = desk.cli.fails(&["replay", "--file", &all]).await;
    assert!(said.err.contains(&fork), "{said:?}");
    desk.cli.ok(&["replay", "--file", &all, &id]).await;
}

#[tokio::test]
async fn a_fork_of_an_undone_run_runs_what_was_undone_again() {
    let mut desk = Desk::set().await;
    let id = desk.submit("hello").await;
    desk.answer(2).await;
    let three = desk.socket.request().await;
    let too_early = desk.cli.fails(&["fork", &id, "--from", "three"]).await;
    assert!(too_early.err.contains("still goes on"), "{too_early:?}");
    desk.socket.fail(&three, "no").await;
    for _ in 0..2 {
        let revert = desk.socket.request().await;
        assert_eq!(revert.0["type"], "compensation_request");
        desk.socket
            .reverted(&revert, json!({"status": "completed"}))
            .await;
    }
    desk.ended(&id).await;
    let said = desk
        .cli
        .ok(&["fork", &id, "--from", "three", "--json"])
        .await
        .json();
    assert_eq!(
        said["takenOver"],
        json!([]),
        "what was undone is not there to be used"
    );
    assert_eq!(desk.answer(3).await.len(), 3);
    assert_eq!(
        desk.ended(&text(&said, "executionId")).await["status"],
        "COMPLETED"
    );

    for (arguments, word) in [
        (["fork", &id, "--from", "nine"], "no step"),
        (
            ["fork", "o_nobody", "--from", "one"],
            "unknown orchestration",
        ),
    ] {
        let said = desk.cli.fails(&arguments).await;
        assert!(said.err.contains(word), "{said:?}");
    }
    let said = desk
        .cli
        .fails(&["fork", &id, "--from", "one", "--input", "{\"words\":1}"])
        .await;
    assert!(said.err.contains("words"), "{said:?}");
}

#[tokio::test]
async fn a_cancelled_run_is_listed_as_such() {
    let mut desk = Desk::set().await;
    let id = desk.submit("hello").await;
    desk.answer(1).await;
    let second = desk.socket.request().await;
    desk.cli
        .ok(&["cancel", &id, "--reason", "enough", "--keep"])
        .await;
    desk.socket.fail(&second, "stopped").await;
    let ended = desk.ended(&id).await;
    assert_eq!(ended["compensation"]["total"], 0, "{ended}");
    let said = desk.cli.ok(&["ps"]).await;
    assert!(
        said.out.contains(&id) && said.out.contains("Cancelled"),
        "{said:?}"
    );
    let said = desk.cli.fails(&["cancel", &id]).await;
    assert!(said.err.contains("has ended already"), "{said:?}");
}
