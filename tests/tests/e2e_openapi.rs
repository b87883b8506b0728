//! The OpenAPI document against the server that serves it: schemathesis makes requests from it, right ones and wrong ones, and holds every
//! answer against what the document says.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::Stdio;

use orchestrion_tests::engine::Engine;
use orchestrion_tests::fake_sdk::service;
use orchestrion_tests::project::Project;
use orchestrion_tests::py_service::python;
use serde_json::json;

/// Seconds that requests are made for.
const SECONDS: &str = "25";

/// Statuses that a well-formed request may be answered with: the project is nearly empty, so most of them find nothing.
const CONFIG: &str = r#"
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "404", "409", "422", "5xx"]
"#;

#[tokio::test]
async fn every_answer_is_one_that_the_document_describes() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    project
        .add_service(&service("echo", &["text"], &["text"]))
        .await;
    let grounding = json!({
        "name": "echoes", "domain": "tests", "version": "1", "constraints": ["rule: at most 3 echo"],
        "useCases": [{"action": "Echo {text}", "params": {"text": "a"}, "capabilities": ["echoes"], "intent": "hear it"}],
    });
    let (status, answer) = project.post("/v1/groundings", &grounding).await;
    assert_eq!(status, 201, "{answer}");
    let config = engine.folder().join("schemathesis.toml");
    fs::write(&config, CONFIG).unwrap();
    let program = python().parent().unwrap().join("schemathesis");
    assert!(
        program.is_file(),
        "{} is missing: run `make setup`",
        program.display()
    );
    let output = tokio::process::Command::new(program)
        .arg("--config-file")
        .arg(&config)
        .arg("run")
        .arg(format!("{}/v1/openapi.json", engine.url()))
        .arg("--header")
        .arg(format!("Authorization: Bearer {}", project.key))
        .args(["--seed", "1", "--max-time", SECONDS, "--no-color"])
        .args(["--phases", "coverage,fuzzing", "--continue-on-failure"])
        // It would take away the key that it asks with.
        .args(["--exclude-operation-id", "revokeKey"])
        .current_dir(engine.folder())
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    // A run that asked for nothing would succeed as well.
    assert!(said.contains(" passed"), "{said}");
    let health = engine.http.get(format!("{}/health", engine.url()));
    assert!(health.send().await.unwrap().status().is_success());
}

#[tokio::test]
async fn the_document_is_of_version_3_1_and_names_every_operation() {
    let engine = Engine::start().await;
    let document = Project::add(&engine).await.get("/v1/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        assert!(path.starts_with("/v1/"), "{path}");
        for operation in operations.as_object().unwrap().values() {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            assert!(operation["summary"].is_string(), "{id} has no summary");
            ids.push(id);
        }
    }
    let named = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), named, "an operation id is there twice");
    assert!(named >= 32, "{ids:?}");
}
