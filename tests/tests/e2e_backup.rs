//! A backup of a running engine: of one moment, whole, and something to start from.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use orchestrion_tests::cli::Cli;
use orchestrion_tests::engine::{Engine, Launch};
use orchestrion_tests::fake_sdk::FakeSdk;
use orchestrion_tests::plan::Plan;
use orchestrion_tests::project::{Action, Project};
use orchestrion_tests::py_service::PyService;
use reqwest::Method;
use serde_json::json;

const ADMIN: &str = "an-admin-key-of-enough-letters";

fn server() -> Launch {
    Launch::server().env("ORCHESTRION_ADMIN_KEY", ADMIN)
}

#[tokio::test]
async fn an_engine_starts_from_a_backup_as_it_was_at_that_moment() {
    let mut engine = server().start().await;
    let cli = Cli::fresh(&engine);
    let url = engine.url();
    let backup = ["--json", "backup", "--server", &url];
    assert_eq!(cli.fails(&backup).await.code, 2, "it takes the admin key");
    cli.ok(&["login", "--server", &url, "--admin-key", ADMIN])
        .await;
    cli.ok(&["projects", "add", "shop", "--server", &url]).await;
    let project = cli.project(&engine);
    let refused = project.call(Method::POST, "/admin/backups", None).await;
    assert_eq!(refused.0, 403, "a project's key is not the admin's");

    let services = PyService::steps(&project, &["first"]).await;
    let absent = FakeSdk::register(&project, "absent", &["id"], &["id"]).await;
    let plan = |id: &str| {
        let step = json!({"id": id, "result_bytes": 300_000});
        Plan::new().task("task1", &services.id("first"), step)
    };
    let before = project.submit(&Action::planned(plan("before"))).await;
    before.completes().await;
    let waiting = Plan::new().task("task1", &absent.id, json!({"id": "w"}));
    let waiting = project.submit(&Action::planned(waiting)).await;
    let left_over = engine.data_dir().join("backups/2000-01-01.partial");
    fs::create_dir_all(&left_over).unwrap();

    let made = cli.ok(&backup).await.json();
    let folder = PathBuf::from(made["folder"].as_str().unwrap());
    let mode = fs::metadata(&folder).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "its owner's alone");
    assert!(!left_over.exists(), "what did not become whole is removed");
    let after = project.submit(&Action::planned(plan("after"))).await;
    after.completes().await;
    let again = cli.ok(&backup).await.json();
    assert_ne!(again["folder"], made["folder"]);
    let key = cli.ok(&["audit", "key"]).await.out;
    engine.kill();

    let restored = from(&folder).await;
    let restored_project = Project::known(&restored, &project.id, &project.key);
    let listed = restored_project.listed().await;
    let mut ids: Vec<&str> = listed.iter().map(|(id, _)| id.as_str()).collect();
    ids.sort_unstable();
    let mut expected = [before.id.as_str(), waiting.id.as_str()];
    expected.sort_unstable();
    assert_eq!(ids, expected, "nothing of later is there");
    let run = restored_project.run(&before.id, json!(null));
    run.completes().await;

    let there = Cli::fresh(&restored);
    let config = fs::read_to_string(cli.config_dir().join("config.json")).unwrap();
    fs::create_dir_all(there.config_dir()).unwrap();
    fs::write(
        there.config_dir().join("config.json"),
        config.replace(&url, &restored.url()),
    )
    .unwrap();
    let replayed = there.ok(&["replay", &before.id]).await;
    assert!(replayed.out.contains("equals the stored one"));
    assert_eq!(there.ok(&["audit", "key"]).await.out, key);

    // What waited goes on there.
    let mut socket = FakeSdk::known(&restored_project, &absent.id)
        .connect()
        .await;
    let asked = socket.request().await;
    socket.complete(&asked, json!({"id": "w"})).await;
    let run = restored_project.run(&waiting.id, json!(null));
    run.completes().await;
}

/// An engine on a copy of this folder.
async fn from(folder: &Path) -> Engine {
    let mut engine = server().prepare();
    fs::rename(folder, engine.data_dir()).unwrap();
    engine.restart().await;
    engine
}
