//! What operators do: reverts run again, secrets rotated, keys revoked, services deleted; each across a crash where it has to last.
#![allow(clippy::unwrap_used)]

use orchestrion::outbox::is_signed_by;
use orchestrion::registry::ids::WebhookSecret;
use orchestrion_tests::cli::Cli;
use orchestrion_tests::engine::{Engine, Launch, free_ports};
use orchestrion_tests::fake_sdk::{Asked, FakeSdk, FakeSocket, service};
use orchestrion_tests::plan::Plan;
use orchestrion_tests::project::{Action, Project, text};
use orchestrion_tests::settings::ms;
use orchestrion_tests::wait::until;
use orchestrion_tests::webhooks::{Delivery, WebhookReceiver};
use reqwest::Method;
use serde_json::{Value, json};

const DAY_MS: u64 = 86_400_000;

/// A service that can be reverted, and a run that it has to be reverted in.
struct Undoing {
    reserve: FakeSdk,
    socket: FakeSocket,
    orchestration: String,
    /// The first request to revert.
    first: Asked,
}

impl Undoing {
    async fn begin(project: &Project) -> Self {
        let mut revertible = service("reserve", &["id"], &["id"]);
        revertible["revertible"] = json!(true);
        let reserve = FakeSdk::register_as(project, &revertible).await;
        let stop = FakeSdk::register(project, "stop", &["id"], &["id"]).await;
        let (mut socket, mut stopping) = (reserve.connect().await, stop.connect().await);
        let plan = Plan::new()
            .task("task1", &reserve.id, json!({"id": "r"}))
            .task("task2", &stop.id, json!({"id": "$task1.id"}));
        let run = project.submit(&Action::planned(plan)).await;
        let asked = socket.request().await;
        let data = json!({"originalTask": {"id": "r"}, "taskResult": {"id": "r"}});
        socket
            .complete_revertibly(&asked, json!({"id": "r"}), data, DAY_MS)
            .await;
        let asked = stopping.request().await;
        stopping.abort(&asked, json!({"reason": "enough"})).await;
        let first = socket.request().await;
        Self {
            reserve,
            socket,
            orchestration: run.id,
            first,
        }
    }

    /// Every attempt of the revert is answered with an error.
    async fn fail_for_good(&mut self, project: &Project) -> String {
        let mut asked = self.first.clone();
        for attempt in 1..=3 {
            self.socket.fail(&asked, "no road").await;
            if attempt < 3 {
                asked = self.socket.request().await;
            }
        }
        let records = project.compensation_failures(1).await;
        text(&records[0], "id")
    }
}

async fn record(project: &Project, id: &str) -> Value {
    project.get(&format!("/compensation-failures/{id}")).await
}

async fn settled(project: &Project, id: &str) -> Value {
    until("the retry to end", || async {
        let record = record(project, id).await;
        let retry = record["retries"].as_array()?.last()?.clone();
        (retry["status"] != "processing").then_some(record)
    })
    .await
}

#[tokio::test]
async fn a_revert_is_run_again_across_a_crash_and_resolves_its_record() {
    let mut engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let mut undoing = Undoing::begin(&project).await;
    let id = undoing.fail_for_good(&project).await;
    let before = record(&project, &id).await;
    assert_eq!(
        (&before["status"], &before["resolutionState"]),
        (&json!("failed"), &json!("pending"))
    );
    assert_eq!(before.get("retries"), None);

    let retry = format!("/compensation-failures/{id}/retry");
    let (status, body) = project.call(Method::POST, &retry, None).await;
    assert_eq!(status, 202, "{body}");
    let execution = text(&body["retries"][0], "id");
    assert!(execution.starts_with("r_"), "{execution}");
    let (status, refused) = project.call(Method::POST, &retry, None).await;
    assert_eq!(status, 400, "one at a time: {refused}");
    assert!(
        text(&refused["error"], "message").contains(&execution),
        "{refused}"
    );
    engine.kill_and_restart().await;

    let mut socket = undoing.reserve.connect().await;
    let again = socket.request().await;
    assert_eq!(again.member("type"), "compensation_request");
    assert_eq!(again.member("id"), "task1");
    assert_eq!(again.0["input"], undoing.first.0["input"], "verbatim");
    assert_eq!(
        again.0["compensationContext"],
        undoing.first.0["compensationContext"]
    );
    assert_eq!(
        again.member("idempotencyKey"),
        undoing.first.member("idempotencyKey"),
        "the first may have been done: its service knows by the key"
    );
    assert_ne!(
        again.member("executionId"),
        undoing.first.member("executionId")
    );
    socket
        .reverted(&again, json!({"status": "completed"}))
        .await;

    let after = settled(&project, &id).await;
    assert_eq!(after["resolutionState"], "resolved");
    assert!(text(&after, "resolution").contains(&execution), "{after}");
    assert_eq!(after["retries"][0]["status"], "completed");
    let (status, refused) = project.call(Method::POST, &retry, None).await;
    assert_eq!(status, 400, "{refused}");
    let listed = project.listed().await;
    assert_eq!(
        listed,
        [(undoing.orchestration.clone(), "aborted".to_owned())],
        "a retry is no orchestration"
    );
    let (status, replay) = project
        .call(
            Method::GET,
            &format!("/orchestrations/{execution}/replay"),
            None,
        )
        .await;
    assert_eq!((status, &replay["verified"]), (200, &json!(true)));
    engine.kill_and_restart().await;
    assert_eq!(record(&project, &id).await, after);
}

#[tokio::test]
async fn a_revert_that_was_answered_is_asked_anew_and_may_fail_again() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let stranger = Project::add(&engine).await;
    let mut undoing = Undoing::begin(&project).await;
    let first = undoing.first.clone();
    let refusal = json!({"status": "failed", "error": "the shop is closed"});
    undoing.socket.reverted(&first, refusal.clone()).await;
    let records = project.compensation_failures(1).await;
    let id = text(&records[0], "id");
    let retry = format!("/compensation-failures/{id}/retry");
    let (status, _) = stranger.call(Method::POST, &retry, None).await;
    assert_eq!(status, 400, "another project's record is unknown");

    let (status, body) = project.call(Method::POST, &retry, None).await;
    assert_eq!(status, 202, "{body}");
    let again = undoing.socket.request().await;
    assert_ne!(
        again.member("idempotencyKey"),
        first.member("idempotencyKey"),
        "under the same key its SDK would repeat the answer"
    );
    undoing.socket.reverted(&again, refusal).await;
    let after = settled(&project, &id).await;
    assert_eq!(
        after["resolutionState"], "pending",
        "it is still to be decided"
    );
    assert_eq!(after["retries"][0]["status"], "failed");
    assert_eq!(after["retries"][0]["failure"], "the shop is closed");

    let (status, body) = project.call(Method::POST, &retry, None).await;
    assert_eq!(status, 202, "and may be tried once more: {body}");
    let third = undoing.socket.request().await;
    let partial = json!({"status": "partial", "partial": {"completed": [], "remaining": []}});
    undoing.socket.reverted(&third, partial).await;
    let after = settled(&project, &id).await;
    assert_eq!(after["resolutionState"], "resolved");
    assert_eq!(after["retries"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_command_line_works_on_compensation_failures() {
    let engine = Engine::start().await;
    let cli = Cli::with_project(&engine).await;
    let config = std::fs::read(cli.config_dir().join("config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    let known = &config["projects"]["shop"];
    let project = Project::known(&engine, &text(known, "id"), &text(known, "cli_auth"));
    let mut undoing = Undoing::begin(&project).await;
    let id = undoing.fail_for_good(&project).await;

    let listed = cli.ok(&["comp-fail", "ls"]).await.out;
    assert!(
        listed.contains(&id) && listed.contains("reserve"),
        "{listed}"
    );
    assert!(listed.contains("○ Pending"), "{listed}");
    let none = cli.ok(&["comp-fail", "ls", "-s", "other"]).await.out;
    assert!(!none.contains(&id), "{none}");
    let shown = cli.ok(&["comp-fail", "inspect", &id]).await.out;
    assert!(
        shown.contains("no road") && shown.contains("originalTask"),
        "{shown}"
    );
    let shown: Value =
        serde_json::from_str(&cli.ok(&["--json", "comp-fail", "inspect", &id]).await.out).unwrap();
    let orchestration = text(&shown, "orchestrationId");
    let inspected = cli.ok(&["inspect", &orchestration]).await.out;
    let way_out = format!("orchestrion comp-fail retry {id}");
    assert!(inspected.contains(&way_out), "{inspected}");
    assert_eq!(cli.fails(&["comp-fail", "resolve", &id]).await.code, 2);
    cli.ok(&["comp-fail", "ignore", &id, "-r", "it does not matter"])
        .await;
    let listed = cli.ok(&["comp-fail", "ls"]).await.out;
    assert!(!listed.contains(&id), "only what is pending: {listed}");
    let listed = cli.ok(&["comp-fail", "ls", "-r", "ignored"]).await.out;
    assert!(listed.contains(&id), "{listed}");

    let arguments = ["comp-fail", "retry", &id, "--wait"];
    let (said, ()) = tokio::join!(cli.ok(&arguments), async {
        let again = undoing.socket.request().await;
        let result = json!({"status": "completed"});
        undoing.socket.reverted(&again, result).await;
    });
    assert!(said.out.contains("● Resolved"), "{}", said.out);
    let listed = cli.ok(&["--json", "comp-fail", "ls", "--all"]).await.out;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["resolutionState"], "resolved");
    let inspected = cli.ok(&["inspect", &orchestration]).await.out;
    assert!(
        inspected.contains("● Resolved") && !inspected.contains(&way_out),
        "{inspected}"
    );
    let unknown = cli
        .fails(&["comp-fail", "resolve", "c_none", "-r", "x"])
        .await;
    assert_eq!(unknown.code, 1);
}

fn signed_by(delivery: &Delivery, secret: &str) -> bool {
    let secret = WebhookSecret::parse(secret).unwrap();
    let seconds = delivery.header("webhook-timestamp").parse().unwrap();
    is_signed_by(
        &secret,
        delivery.header("webhook-signature"),
        delivery.header("webhook-id"),
        seconds,
        std::str::from_utf8(&delivery.raw).unwrap(),
    )
}

/// Runs the Python of `docs/security.md` on a delivery.
fn the_documentation_says_it_is_valid(delivery: &Delivery, secret: &str) -> bool {
    let guide = orchestrion_tests::root().join("docs/security.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let code = guide.split("```python\n").nth(1).unwrap();
    let code = code.split("```").next().unwrap();
    let headers = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    let headers: serde_json::Map<String, Value> = headers
        .map(|name| (name.to_owned(), json!(delivery.header(name))))
        .into_iter()
        .collect();
    let input = json!([secret, headers, std::str::from_utf8(&delivery.raw).unwrap()]);
    let program = format!(
        "{code}\nimport json, sys\nsecret, headers, body = json.loads(sys.argv[1])\n\
         sys.exit(0 if verify(secret, headers, body.encode()) else 1)\n"
    );
    let run = std::process::Command::new("python3")
        .args(["-c", &program, &input.to_string()])
        .output()
        .unwrap();
    assert!(
        run.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    run.status.success()
}

/// A project with an echo that answers whatever it is asked, until the test ends.
async fn echo(project: &Project) -> (FakeSdk, tokio::task::JoinHandle<()>) {
    let echo = FakeSdk::register(project, "echo", &["id"], &["id"]).await;
    let mut socket = echo.connect().await;
    let answering = tokio::spawn(async move {
        loop {
            let asked = socket.request().await;
            socket.complete(&asked, json!({"id": "e"})).await;
        }
    });
    (echo, answering)
}

fn echo_plan(echo: &FakeSdk) -> Action {
    Action::planned(Plan::new().task("task1", &echo.id, json!({"id": "x"})))
}

#[tokio::test]
async fn a_rotated_secret_and_a_submissions_own_webhook_survive_a_crash() {
    let mut engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let all = WebhookReceiver::failing_first(1).await;
    let own = WebhookReceiver::start().await;
    let added = project.add_webhook(&all.url).await;
    let rotate = format!("/webhooks/{}/rotate", text(&added, "id"));
    let (status, rotated) = project.post(&rotate, &json!({"overlap": "1h"})).await;
    assert_eq!(status, 200, "{rotated}");
    let (_, signer) = project.post("/submission-webhook-secret", &json!({})).await;
    engine.kill_and_restart().await;
    let (echo, answering) = echo(&project).await;

    let run = project
        .submit(&echo_plan(&echo).with("webhook", own.url.as_str()))
        .await;
    assert_eq!(run.accepted["webhook"], own.url.as_str());
    let told = all.accepted(&run.id).await;
    for secret in [&added["secret"], &rotated["secret"]] {
        assert!(signed_by(&told, secret.as_str().unwrap()));
    }
    for (secret, valid) in [
        (added["secret"].as_str().unwrap(), true),
        (rotated["secret"].as_str().unwrap(), true),
        (signer["secret"].as_str().unwrap(), false),
    ] {
        assert_eq!(the_documentation_says_it_is_valid(&told, secret), valid);
    }
    let own_told = own.accepted(&run.id).await;
    assert!(signed_by(&own_told, signer["secret"].as_str().unwrap()));
    assert!(!signed_by(&own_told, added["secret"].as_str().unwrap()));
    assert_eq!(own_told.event_id(), told.event_id());

    let log = format!("/webhooks/{}/deliveries", text(&added, "id"));
    let tries = until("both tries to be in the log", || async {
        let tries = project.get(&log).await;
        (tries.as_array().unwrap().len() == 2).then_some(tries)
    })
    .await;
    assert_eq!(
        (&tries[0]["status"], &tries[0]["delivered"]),
        (&json!(200), &json!(true))
    );
    assert_eq!(
        (&tries[1]["status"], &tries[1]["attempt"]),
        (&json!(503), &json!(1))
    );
    engine.kill_and_restart().await;
    assert_eq!(project.get(&log).await, tries);
    answering.abort();
}

#[tokio::test]
async fn a_revoked_key_and_a_deleted_service_lose_their_sockets() {
    let mut engine = Launch::dev()
        .set("retention.key_use_interval", ms(30))
        .start()
        .await;
    let project = Project::add(&engine).await;
    let (_, made) = project.post("/apikeys", &json!({"name": "worker"})).await;
    let worker = project.with_key(&text(&made, "apiKey"));
    let echo = FakeSdk::register(&worker, "echo", &["id"], &["id"]).await;
    let socket = echo.connect().await;
    let used = until("the key's use to be noted", || async {
        let keys = project.get("/apikeys").await;
        let key = keys
            .as_array()?
            .iter()
            .find(|key| key["id"] == made["id"])?;
        key.get("lastUsedAt").cloned()
    })
    .await;
    engine.kill_and_restart().await;
    let keys = project.get("/apikeys").await;
    let kept = keys
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["id"] == made["id"]);
    assert!(kept.unwrap()["lastUsedAt"].as_str() >= used.as_str());
    drop(socket);

    let socket = echo.connect().await;
    let revoke = format!("/apikeys/{}", text(&made, "id"));
    assert_eq!(project.call(Method::DELETE, &revoke, None).await.0, 204);
    let close = socket.closed().await.expect("a close frame");
    assert_eq!(u16::from(close.code), 1008);
    let (status, _) = worker.call(Method::GET, "/services", None).await;
    assert_eq!(status, 400, "the key is unknown now");

    let plain = FakeSdk::register(&project, "plain", &["id"], &["id"]).await;
    let socket = plain.connect().await;
    let delete = format!("/services/{}", plain.id);
    let listed = project.get("/services").await;
    let healthy = listed
        .as_array()
        .unwrap()
        .iter()
        .filter(|s| s["healthy"] == true);
    assert_eq!(healthy.count(), 1, "{listed}");
    let (status, refused) = project.call(Method::DELETE, &delete, None).await;
    assert_eq!(status, 400, "{refused}");
    let force = format!("{delete}?force=true");
    assert_eq!(project.call(Method::DELETE, &force, None).await.0, 204);
    let close = socket.closed().await.expect("a close frame");
    assert_eq!(u16::from(close.code), 1008);
    engine.kill_and_restart().await;
    let listed = project.get("/services").await;
    let ids: Vec<&Value> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["id"])
        .collect();
    assert_eq!(ids, [&json!(echo.id)]);
}

#[tokio::test]
async fn a_server_guards_its_network_and_has_an_admin() {
    let admin = "an-admin-key-of-enough-letters";
    let engine = Launch::server()
        .env("ORCHESTRION_ADMIN_KEY", admin)
        .start()
        .await;
    let cli = Cli::fresh(&engine);
    let url = engine.url();
    let refused = cli
        .fails(&[
            "login",
            "--server",
            &url,
            "--admin-key",
            "a-guess-at-the-key",
        ])
        .await;
    assert_eq!(refused.code, 2, "{refused:?}");
    cli.fails(&["projects", "add", "shop", "--server", &url])
        .await;
    cli.ok(&["login", "--server", &url, "--admin-key", admin])
        .await;
    cli.ok(&["projects", "add", "shop", "--server", &url]).await;
    let listed = cli.ok(&["projects", "ls", "--server", &url]).await.out;
    assert!(listed.contains("shop"), "{listed}");

    let hook = "http://127.0.0.1:9/hook";
    let said = cli.fails(&["webhooks", "add", hook]).await;
    assert!(said.err.contains("outbox.allow_private"), "{}", said.err);
    let said = cli
        .fails(&["verify", "run", "anything", "-w", "http://169.254.169.254/"])
        .await;
    assert!(said.err.contains("not a public address"), "{}", said.err);

    let other = Cli::fresh(&engine);
    other
        .ok(&["login", "--server", &url, "--admin-key", admin])
        .await;
    let projects = other
        .ok(&["--json", "projects", "ls", "--server", &url])
        .await;
    let projects: Value = serde_json::from_str(&projects.out).unwrap();
    let id = text(&projects[0], "id");
    other.ok(&["projects", "join", &id, "--server", &url]).await;
    // Its name is taken now: what is said is what it can be used by.
    let again = ["--json", "projects", "join", &id, "--server", &url];
    let again = other.ok(&again).await.json();
    assert_eq!(text(&again, "name"), id);
    other.ok(&["-p", &id, "ps"]).await;
    let keys = other.ok(&["--json", "api-keys", "ls", "--all"]).await.out;
    assert!(keys.contains("command line"), "{keys}");
    other.ok(&["logout", "--server", &url]).await;
    other.fails(&["projects", "ls", "--server", &url]).await;
}

#[tokio::test]
async fn the_command_line_receives_webhooks_and_checks_them() {
    let engine = Engine::start().await;
    let cli = Cli::with_project(&engine).await;
    let config = std::fs::read(cli.config_dir().join("config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    let known = &config["projects"]["shop"];
    let project = Project::known(&engine, &text(known, "id"), &text(known, "cli_auth"));
    let url = format!("http://localhost:{}/hook", free_ports().0);
    let refused = cli.fails(&["verify", "webhooks", "start", &url]).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    cli.ok(&["webhooks", "add", &url]).await;
    let (echo, answering) = echo(&project).await;

    let arguments = [
        "--json", "verify", "webhooks", "start", &url, "--count", "1",
    ];
    let action = echo_plan(&echo);
    let (said, run) = tokio::join!(cli.ok(&arguments), project.submit(&action));
    let received: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(received["signature"], "valid", "{received}");
    assert_eq!(received["body"]["orchestration_id"], run.id.as_str());

    let rotated = cli.ok(&["webhooks", "rotate", &url]).await.out;
    assert!(rotated.contains("whsec_"), "{rotated}");
    let deliveries = cli.ok(&["webhooks", "deliveries", &url]).await.out;
    assert!(
        deliveries.contains("orchestration.completed"),
        "{deliveries}"
    );
    cli.ok(&["webhooks", "rm", &url]).await;
    assert!(!cli.ok(&["webhooks", "ls"]).await.out.contains(&url));
    let services = cli.ok(&["services", "ls"]).await.out;
    assert!(services.contains("● connected"), "{services}");
    answering.abort();

    cli.ok(&["api-keys", "gen", "worker"]).await;
    cli.ok(&["api-keys", "revoke", "worker"]).await;
    assert!(!cli.ok(&["api-keys", "ls"]).await.out.contains("worker"));
    let version = cli.ok(&["version"]).await.out;
    assert!(version.contains("server 0.1.0 at"), "{version}");
    let script = cli.ok(&["completions", "bash"]).await.out;
    assert!(script.contains("comp-fail"));
    assert!(cli.ok(&["man"]).await.out.contains(".TH"));
}
