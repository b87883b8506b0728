//! The command line against a real engine: what people see, what programs read, and the exit codes of both.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use orchestrion_tests::cli::Cli;
use orchestrion_tests::engine::Engine;
use orchestrion_tests::plan::Plan;
use orchestrion_tests::py_service::PyService;
use serde_json::{Value, json};

/// The engine, a command line with a project, and the services of that project.
struct Desk {
    engine: Engine,
    cli: Cli,
    services: PyService,
}

impl Desk {
    async fn set(services: &[&str]) -> Self {
        let engine = Engine::start().await;
        let cli = Cli::with_project(&engine).await;
        let services = PyService::steps(&cli.project(&engine), services).await;
        Self {
            engine,
            cli,
            services,
        }
    }

    fn plan_file(&self, plan: Plan) -> String {
        let path = self.engine.folder().join("plan.json");
        fs::write(&path, Value::from(plan).to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn chain(&self) -> String {
        self.plan_file(
            Plan::new()
                .task(
                    "task1",
                    &self.services.id("first"),
                    json!({"id": "$task0.order", "updates": 2}),
                )
                .task(
                    "task2",
                    &self.services.id("second"),
                    json!({"id": "s", "after": ["$task1.id"]}),
                ),
        )
    }
}

#[tokio::test]
async fn a_run_is_started_followed_listed_inspected_and_replayed() {
    let desk = Desk::set(&["first", "second"]).await;
    let cli = &desk.cli;

    let plan = desk.chain();
    let said = cli
        .ok(&[
            "verify",
            "run",
            "Do both",
            "-d",
            "order:o-1",
            "--plan",
            &plan,
            "--follow",
        ])
        .await;
    assert!(
        said.out.contains("task1") && said.out.contains("task2"),
        "{}",
        said.out
    );
    let id = said
        .out
        .split_whitespace()
        .find(|word| word.starts_with("o_"))
        .expect("the id is told")
        .to_owned();
    assert_eq!(desk.services.ids("executed"), ["o-1", "s"]);

    let said = cli.ok(&["ps"]).await;
    assert!(
        said.out.contains(&id) && said.out.contains("Completed"),
        "{}",
        said.out
    );
    let listed = cli.ok(&["ps", "--json"]).await.json();
    assert_eq!(listed["completed"][0]["id"], id.as_str());

    let said = cli.ok(&["inspect", &id]).await;
    assert!(
        said.out.contains("first") && said.out.contains("second"),
        "{}",
        said.out
    );
    let said = cli.ok(&["inspect", &id, "-d", "-u"]).await;
    assert!(said.out.contains("o-1"), "{}", said.out);
    cli.ok(&["inspect", &id, "-d", "--long-updates"]).await;
    assert_eq!(
        cli.ok(&["inspect", &id, "--json"]).await.json()["status"],
        "completed"
    );

    let said = cli.ok(&["replay", &id]).await;
    assert!(
        said.out.contains("ActivityTaskScheduled")
            && said.out.contains("WorkflowExecutionCompleted"),
        "{}",
        said.out
    );
    let said = cli.ok(&["replay", &id, "--until", "3"]).await;
    assert!(
        !said.out.contains("WorkflowExecutionCompleted"),
        "{}",
        said.out
    );
    cli.ok(&["replay", &id, "--json"]).await.json();
}

#[tokio::test]
async fn what_becomes_of_a_followed_run_is_in_the_exit_code() {
    let desk = Desk::set(&["first", "second"]).await;
    let plan = desk.plan_file(Plan::new().task(
        "task1",
        &desk.services.id("first"),
        json!({"id": "a", "abort_with": "no"}),
    ));
    let said = desk
        .cli
        .fails(&["verify", "run", "Stop", "--plan", &plan, "--follow"])
        .await;
    assert_eq!(said.code, 5, "{said:#?}");
    assert!(
        said.out.contains("no") || said.err.contains("no"),
        "{said:#?}"
    );
    let plan = desk.plan_file(Plan::new().task(
        "task1",
        &desk.services.id("first"),
        json!({"id": "b", "fail_times": 99}),
    ));
    let said = desk
        .cli
        .fails(&[
            "verify", "run", "Fail", "--plan", &plan, "--follow", "--json",
        ])
        .await;
    assert_eq!(said.code, 4, "{said:#?}");
    assert_eq!(said.json()["status"], "failed", "{said:#?}");
    let said = desk
        .cli
        .ok(&[
            "verify",
            "run",
            "Go",
            "-d",
            "order:o-2",
            "--plan",
            &desk.chain(),
            "-q",
        ])
        .await;
    assert!(
        said.out.starts_with("o_") && said.out.trim_end().len() == 24,
        "quiet: {}",
        said.out
    );
}

#[tokio::test]
async fn projects_keys_and_webhooks_are_added_and_listed() {
    let engine = Engine::start().await;
    let cli = Cli::with_project(&engine).await;
    let config = cli.config_dir().join("config.json");
    assert_eq!(
        fs::metadata(&config).unwrap().permissions().mode() & 0o777,
        0o600
    );

    cli.ok(&["projects", "add", "second", "--server", &engine.url()])
        .await;
    let said = cli.ok(&["projects", "ls"]).await;
    assert!(
        said.out.contains("shop") && said.out.contains("second"),
        "{}",
        said.out
    );
    cli.ok(&["projects", "use", "second"]).await;
    cli.ok(&["projects", "use", "shop"]).await;
    cli.fails(&["projects", "use", "third"]).await;
    // The current one can be let go of like any other, and its name is free again.
    cli.ok(&["projects", "use", "second"]).await;
    cli.ok(&["projects", "forget", "second"]).await;
    let said = cli.fails(&["ps"]).await;
    assert!(said.err.contains("orchestrion projects use"), "{said:?}");
    assert_eq!(cli.fails(&["projects", "forget", "second"]).await.code, 2);
    cli.ok(&["projects", "add", "second", "--server", &engine.url()])
        .await;
    cli.ok(&["projects", "use", "shop"]).await;
    // What takes an admin says how a server gets one.
    let said = cli.fails(&["backup", "--server", &engine.url()]).await;
    assert!(said.err.contains("with --admin-key"), "{said:?}");
    let said = cli
        .fails(&["dev", "--admin-key", "a-key-of-some-length"])
        .await;
    assert!(
        said.code == 2 && said.err.contains("use `orchestrion server`"),
        "{said:?}"
    );

    let said = cli.ok(&["api-keys", "gen", "worker"]).await;
    assert!(said.out.contains("sk-orra-v1-"), "{}", said.out);
    assert!(cli.ok(&["api-keys", "ls"]).await.out.contains("worker"));
    cli.ok(&["webhooks", "add", "http://127.0.0.1:9/hook"])
        .await;
    assert!(
        cli.ok(&["webhooks", "ls"])
            .await
            .out
            .contains("http://127.0.0.1:9/hook")
    );
    cli.fails(&["webhooks", "add", "not an address"]).await;
}

#[tokio::test]
async fn mistakes_are_told_apart_from_refusals() {
    let engine = Engine::start().await;
    let nothing = Cli::fresh(&engine);
    let said = nothing.fails(&["ps"]).await;
    assert!(said.err.contains("projects add"), "{}", said.err);
    assert_eq!(said.code, 2);
    assert_eq!(nothing.fails(&["no-such-command"]).await.code, 2);

    let cli = Cli::with_project(&engine).await;
    let unknown = cli.fails(&["inspect", "o_2222222222222222222222"]).await;
    assert!(
        unknown.out.is_empty(),
        "errors go to standard error: {unknown:#?}"
    );
    assert!(unknown.err.contains("`orchestrion ps`"), "{}", unknown.err);
    cli.fails(&["replay", "o_2222222222222222222222"]).await;
    let address = ["dev", "--http-addr", "0.0.0.0:0"];
    assert_eq!(
        cli.fails(&address).await.code,
        2,
        "a setting that cannot be right"
    );
    assert_eq!(cli.fails(&["server"]).await.code, 2);
    assert_eq!(
        cli.fails(&["verify", "run", "x", "-d", "no colon"])
            .await
            .code,
        2
    );
    let refused = cli.fails(&["verify", "run", "Do something"]).await;
    assert_eq!(refused.code, 1, "{refused:#?}");
    assert!(refused.err.contains("service"), "{}", refused.err);

    drop(engine);
    assert_eq!(cli.fails(&["ps"]).await.code, 3);
}

#[tokio::test]
async fn a_server_of_another_version_is_told_of() {
    let engine = Engine::start().await;
    let cli = Cli::with_project(&engine).await;
    let newer = || async { ([("x-orchestrion-version", "99.1.0")], "{}") };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = axum::Router::new().fallback(newer);
    let server = tokio::spawn(async move { axum::serve(listener, routes).await });
    let path = cli.config_dir().join("config.json");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, config.replace(&engine.url(), &url)).unwrap();

    let said = cli.ok(&["ps"]).await;
    assert!(
        said.err.contains("99.1.0") && said.err.contains("0.1.0"),
        "{said:#?}"
    );
    assert!(!said.out.contains("99.1.0"), "for people alone: {said:#?}");
    server.abort();
}

#[tokio::test]
async fn version() {
    let engine = Engine::start().await;
    let said = Cli::fresh(&engine).ok(&["version"]).await;
    assert!(said.out.contains("0.1.0"), "{}", said.out);
}
