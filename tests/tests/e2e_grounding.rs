//! Groundings, rules and the plan cache, over the real binary with a model and an embeddings server on loopback.
#![allow(clippy::unwrap_used)]

use orchestrion_tests::cli::Cli;
use orchestrion_tests::engine::{Engine, Launch};
use orchestrion_tests::fake_llm::{Answer, FakeLlm, SECRET};
use orchestrion_tests::fake_sdk::FakeSdk;
use orchestrion_tests::plan::Plan;
use orchestrion_tests::project::{Action, Project, text};
use reqwest::Method;
use serde_json::{Value, json};

/// An engine that plans with a fake model, and the services `check` and `refund`.
struct Stage {
    engine: Engine,
    llm: FakeLlm,
    project: Project,
    check: FakeSdk,
    refund: FakeSdk,
}

/// As orra's command line sends what it reads from a YAML file.
fn refunds(version: &str, constraints: &[&str]) -> Value {
    json!({
        "name": "refunds", "domain": "e-commerce", "version": version,
        "useCases": [{
            "action": "Process a refund for order {orderId}", "params": {"orderId": "ORD123"},
            "capabilities": ["performs refund"], "intent": "the customer gets the money back",
        }],
        "constraints": constraints,
    })
}

const ACTION: &str = "Process a refund for the order";

impl Stage {
    async fn with(launch: Launch) -> Self {
        let llm = FakeLlm::start().await;
        let engine = llm.plans_for(launch).start().await;
        let project = Project::add(&engine).await;
        let check = FakeSdk::register(&project, "check", &["orderId"], &["orderId"]).await;
        let refund = FakeSdk::register(&project, "refund", &["orderId"], &["refundId"]).await;
        Self {
            engine,
            llm,
            project,
            check,
            refund,
        }
    }

    async fn set() -> Self {
        Self::with(Launch::dev()).await
    }

    fn action(order: &str) -> Action {
        Action::new(ACTION).data("orderId", order)
    }

    /// Both, one after the other.
    fn good(&self) -> Plan {
        Plan::new()
            .task(
                "task1",
                &self.check.id,
                json!({"orderId": "$task0.orderId"}),
            )
            .task(
                "task2",
                &self.refund.id,
                json!({"orderId": "$task1.orderId"}),
            )
    }

    /// Both at the same time.
    fn unordered(&self) -> Plan {
        Plan::new()
            .task(
                "task1",
                &self.check.id,
                json!({"orderId": "$task0.orderId"}),
            )
            .task(
                "task2",
                &self.refund.id,
                json!({"orderId": "$task0.orderId"}),
            )
    }

    async fn apply(&self, grounding: &Value) -> Value {
        let (status, body) = self.project.post("/groundings", grounding).await;
        assert_eq!(status, 201, "{body}");
        body
    }

    async fn planning(&self, id: &str) -> Value {
        let path = format!("/orchestrations/inspections/{id}");
        self.project.get(&path).await["planning"].clone()
    }
}

#[tokio::test]
async fn groundings_are_applied_listed_and_removed_as_orras_clients_expect() {
    let mut stage = Stage::set().await;
    let get = || stage.project.get("/groundings");
    assert_eq!(get().await, Value::Null);
    let (status, refusal) = stage
        .project
        .call(Method::DELETE, "/groundings/none", None)
        .await;
    assert_eq!(
        (status, refusal["error"]["kind"].as_str()),
        (500, Some("unanticipated error"))
    );
    let applied = stage
        .apply(&refunds("1.0", &["be kind", "rule: check before refund"]))
        .await;
    assert_eq!(applied["projectID"], stage.project.id);
    assert_eq!(applied["useCases"][0]["params"]["orderId"], "ORD123");
    assert_eq!(applied["enforced"], json!(["check before refund"]));
    assert_eq!(applied["notEnforced"], json!(["be kind"]));

    let (status, refusal) = stage
        .project
        .post("/groundings", &refunds("1.0", &[]))
        .await;
    let message = text(&refusal["error"], "message");
    assert_eq!(
        (status, refusal["error"]["kind"].as_str()),
        (400, Some("invalid operation"))
    );
    assert_eq!(refusal["error"]["param"], "version");
    assert!(
        message.contains("already has a grounding spec with name refunds and version 1.0"),
        "{message}"
    );

    for (wrong, param) in [
        (
            json!({"name": "X", "domain": "shop", "version": "1"}),
            "name",
        ),
        (
            json!({"name": "abc", "domain": "shop", "version": "1", "useCases": []}),
            "use-cases",
        ),
        (refunds("2.0", &["rule: hop"]), "constraints"),
        (refunds(" ", &[]), "version"),
    ] {
        let (status, refusal) = stage.project.post("/groundings", &wrong).await;
        let error = &refusal["error"];
        assert_eq!(
            (status, error["kind"].as_str(), error["param"].as_str()),
            (400, Some("invalid request error"), Some(param)),
            "{refusal}"
        );
    }
    // Capital letters in member names and a null, as Go programs may send.
    let go = json!({"Name": "a-first", "Domain": "shop", "Version": "1", "Constraints": null, "UseCases": [
        {"Action": "Echo", "Params": null, "Capabilities": ["echo"], "Intent": "echo"},
    ]});
    stage.apply(&go).await;
    stage.apply(&refunds("1.1", &[])).await;

    stage.engine.kill();
    stage.engine.restart().await;
    let listed = stage.project.get("/groundings").await;
    let names: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|g| (text(g, "name"), text(g, "version")))
        .collect();
    assert_eq!(
        names,
        [
            ("a-first".into(), "1".into()),
            ("refunds".into(), "1.1".into())
        ]
    );

    let foreign = Project::add(&stage.engine).await;
    assert_eq!(foreign.get("/groundings").await, Value::Null);
    foreign.call(Method::DELETE, "/groundings", None).await;
    let (status, _) = stage
        .project
        .call(Method::DELETE, "/groundings/unknown", None)
        .await;
    assert_eq!(status, 204);
    let (status, _) = stage
        .project
        .call(Method::DELETE, "/groundings/refunds", None)
        .await;
    assert_eq!(
        (
            status,
            stage
                .project
                .get("/groundings")
                .await
                .as_array()
                .map(Vec::len)
        ),
        (204, Some(1))
    );
    let (status, _) = stage
        .project
        .call(Method::DELETE, "/groundings", None)
        .await;
    assert_eq!(
        (status, stage.project.get("/groundings").await),
        (204, Value::Null)
    );
}

#[tokio::test]
async fn a_grounding_is_an_allow_list_for_planned_and_for_own_plans() {
    let stage = Stage::set().await;
    stage.apply(&refunds("1.0", &[])).await;
    stage.llm.answers([Answer::plan(stage.good())]);
    let other = Action::new("Ship a lamp to the moon").data("orderId", "o");
    let (status, refusal) = stage.project.try_submit(&other).await;
    assert_eq!(
        (status, refusal["error"]["code"].as_str()),
        (500, Some("Orra:ActionCannotExecute")),
        "{refusal}"
    );
    assert!(
        text(&refusal["error"], "message").contains("Process a refund for order {orderId}"),
        "{refusal}"
    );
    assert_eq!(stage.llm.calls().len(), 0, "no model is asked");
    assert_eq!(stage.project.only_listed().await.1, "failed");

    let own = Action::planned(stage.good()).data("orderId", "o");
    let (status, refusal) = stage.project.try_submit(&own).await;
    assert_eq!(
        (status, refusal["error"]["param"].as_str()),
        (400, Some("action")),
        "{refusal}"
    );
    assert_eq!(stage.project.listed().await.len(), 1, "it leaves no trace");

    let run = stage.project.submit(&Stage::action("ORD9")).await;
    let hit = &run.accepted["groundingHit"];
    assert_eq!(hit["name"], "refunds");
    assert_eq!(
        hit["useCases"]["action"],
        "Process a refund for order {orderId}"
    );
    let planning = stage.planning(&run.id).await;
    assert_eq!(planning["grounding"]["version"], "1.0");
    assert_eq!(planning["grounding"]["comparedBy"], "lexical-1");
    assert_eq!(planning["verdict"], "valid, and keeps the rules");
}

#[tokio::test]
async fn a_plan_that_breaks_a_rule_is_refused_and_the_model_is_told_why() {
    let stage = Stage::set().await;
    stage
        .apply(&refunds(
            "1.0",
            &["rule: check before refund", "be kind to the customer"],
        ))
        .await;
    stage
        .llm
        .answers([Answer::plan(stage.unordered()), Answer::plan(stage.good())]);
    let run = stage.project.submit(&Stage::action("ORD9")).await;
    assert_eq!(stage.llm.calls().len(), 2);
    let (first, second) = (stage.llm.prompt(0), stage.llm.prompt(1));
    assert!(
        first.contains("be kind to the customer") && first.contains("check before refund"),
        "{first}"
    );
    assert!(
        second.contains("nothing makes `task2` (refund) wait for `task1` (check)"),
        "{second}"
    );
    let planning = stage.planning(&run.id).await;
    assert_eq!(
        planning["grounding"]["enforced"],
        json!(["check before refund"])
    );
    assert_eq!(
        planning["grounding"]["rulesDigest"].as_str().map(str::len),
        Some(64)
    );
    assert_eq!(planning["failedAttempts"][0]["promptTokens"], 120);

    let own = Action::new(ACTION)
        .with("plan", stage.unordered())
        .data("orderId", "o");
    let (status, refusal) = stage.project.try_submit(&own).await;
    let message = text(&refusal["error"], "message");
    assert_eq!(status, 400, "{refusal}");
    assert!(
        message.contains("the rule \"check before refund\" of the grounding refunds 1.0 is broken"),
        "{message}"
    );
    let own = Action::new(ACTION)
        .with("plan", stage.good())
        .data("orderId", "o");
    let run = stage.project.submit(&own).await;
    assert_eq!(run.accepted["groundingHit"]["version"], "1.0");
    assert_eq!(
        stage.planning(&run.id).await["grounding"]["name"],
        "refunds"
    );
}

#[tokio::test]
async fn a_test_of_a_grounding_plans_and_neither_applies_nor_runs() {
    let stage = Stage::set().await;
    let socket = stage.check.connect().await;
    stage.llm.answers([Answer::plan(stage.unordered())]);
    let grounding = refunds(
        "1.0",
        &["rule: check before refund", "rule: nobody before refund"],
    );
    let (status, tested) = stage.project.post("/grounding-tests", &grounding).await;
    assert_eq!(
        (status, tested["passed"].as_bool()),
        (200, Some(false)),
        "{tested}"
    );
    assert_eq!(tested["cases"][0]["outcome"], "failed");
    assert_eq!(tested["cases"][0]["tries"], 3);
    assert!(
        text(&tested["cases"][0], "reason").contains("check before refund"),
        "{tested}"
    );
    assert!(
        tested["warnings"][0]
            .as_str()
            .unwrap()
            .contains("names nobody"),
        "{tested}"
    );

    stage.llm.answers([Answer::plan(stage.good())]);
    let (_, tested) = stage
        .project
        .post(
            "/grounding-tests",
            &refunds("1.0", &["rule: check before refund"]),
        )
        .await;
    assert_eq!(
        (
            tested["passed"].as_bool(),
            tested["cases"][0]["plan"]["tasks"].as_array().map(Vec::len)
        ),
        (Some(true), Some(2))
    );
    assert_eq!(stage.project.get("/groundings").await, Value::Null);
    assert!(stage.project.listed().await.is_empty() && socket.requests().is_empty());
    assert_eq!(stage.project.get("/plan-cache").await["plans"], json!([]));
}

#[tokio::test]
async fn a_grounding_is_tried_out_over_v1_and_leaves_no_trace() {
    let stage = Stage::set().await;
    let socket = stage.check.connect().await;
    stage.llm.answers([
        Answer::plan(stage.unordered()),
        Answer::plan(stage.good()),
        Answer::plan(stage.good()),
    ]);
    let grounding = refunds(
        "1.0",
        &[
            "be kind",
            "rule: check before refund",
            "rule: nobody before refund",
        ],
    );
    let project = &stage.project;
    let (status, tested) = project.post("/v1/grounding-tests", &grounding).await;
    assert_eq!((status, &tested["passed"]), (200, &json!(true)), "{tested}");
    assert_eq!(tested["notEnforced"], json!(["be kind"]));
    let warning = tested["warnings"][0].as_str().unwrap();
    assert!(warning.contains("names nobody"), "{tested}");
    let case = &tested["cases"][0];
    assert_eq!(text(case, "action"), "Process a refund for order ORD123");
    assert_eq!(
        case["data"],
        json!([{"field": "orderId", "value": "ORD123"}])
    );
    assert_eq!(
        (&case["outcome"], &case["attempts"], &case["reasons"]),
        (&json!("planned"), &json!(2), &json!([])),
        "the second answer keeps the rule: {tested}"
    );
    assert_eq!(
        case["promptTokens"].as_u64().unwrap() + case["completionTokens"].as_u64().unwrap(),
        2 * 165,
        "both answers are paid for: {tested}"
    );
    let steps = &case["plan"]["steps"];
    assert_eq!(steps[1]["component"], "refund");
    assert_eq!(steps[1]["dependencies"], json!(["task1"]));

    stage.llm.answers([Answer::plan(stage.unordered())]);
    let (status, broken) = project.post("/v1/grounding-tests", &grounding).await;
    let case = &broken["cases"][0];
    assert_eq!(
        (status, &broken["passed"], &case["outcome"], &case["plan"]),
        (200, &json!(false), &json!("failed"), &Value::Null)
    );
    let reason = case["reasons"][0].as_str().unwrap();
    assert!(reason.contains("check before refund"), "{broken}");

    let unclear = refunds("1.0", &["rule: hop"]);
    let (status, refused) = project.post("/v1/grounding-tests", &unclear).await;
    assert_eq!(
        (status, text(&refused, "code"), text(&refused, "param")),
        (422, "grounding_refused".into(), "constraints".into())
    );

    assert_eq!(project.get("/groundings").await, Value::Null);
    assert!(project.listed().await.is_empty() && socket.requests().is_empty());
    assert_eq!(project.get("/plan-cache").await["plans"], json!([]));
    let (_, applied) = project.post("/v1/groundings", &grounding).await;
    assert_eq!(applied["digest"], tested["digest"], "what was tried is it");
}

#[tokio::test]
async fn a_model_is_asked_once_for_an_action_and_its_plan_serves_other_values() {
    let mut stage = Stage::set().await;
    stage.llm.answers([Answer::plan(stage.good())]);
    let first = stage.project.submit(&Stage::action("FIRST-1")).await;
    assert_eq!(stage.planning(&first.id).await["source"], "planner");
    let kept = stage.kept(&Value::Null).await;
    assert!(!kept.to_string().contains("FIRST-1"), "{kept}");

    stage.engine.kill();
    stage.engine.restart().await;
    let second = stage.project.submit(&Stage::action("SECOND-2")).await;
    assert_eq!(
        stage.llm.calls().len(),
        1,
        "the plan was kept through the crash"
    );
    assert_eq!(second.accepted["taskZero"], json!({"orderId": "SECOND-2"}));
    let planning = stage.planning(&second.id).await;
    assert_eq!(
        (
            planning["source"].as_str(),
            planning["savedTokens"].as_u64()
        ),
        (Some("cache"), Some(165))
    );
    assert_eq!(planning["promptTokens"], 0);
    let metrics = stage
        .engine
        .http
        .get(format!("{}/metrics", stage.engine.url()))
        .send()
        .await
        .unwrap();
    let metrics = metrics.text().await.unwrap();
    for line in [
        "orchestrion_plan_cache_total{outcome=\"hit\"} 1",
        "orchestrion_plan_cache_saved_tokens_total 165",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }

    // A change of the rules, then of the services: each is planned anew.
    stage.apply(&refunds("1.0", &[])).await;
    stage.project.submit(&Stage::action("THIRD-3")).await;
    assert_eq!(stage.llm.calls().len(), 2);
    let kept = stage.kept(&kept).await;
    FakeSdk::register(&stage.project, "other", &["x"], &["y"]).await;
    stage.project.submit(&Stage::action("FOURTH-4")).await;
    assert_eq!(stage.llm.calls().len(), 3);
    stage.kept(&kept).await;

    let (status, cleared) = stage
        .project
        .call(Method::DELETE, "/plan-cache", None)
        .await;
    assert_eq!((status, cleared), (200, json!({"cleared": 1})));
    stage.project.submit(&Stage::action("FIFTH-5")).await;
    assert_eq!(stage.llm.calls().len(), 4);
}

impl Stage {
    /// Waits until one plan is kept, another one than before: it is after the answer.
    async fn kept(&self, before: &Value) -> Value {
        let ids = |cache: &Value| {
            let plans = cache["plans"].as_array().cloned().unwrap_or_default();
            plans
                .iter()
                .map(|plan| text(plan, "id"))
                .collect::<Vec<_>>()
        };
        orchestrion_tests::wait::until("a plan to be kept", || async {
            let cache = self.project.get("/plan-cache").await;
            (ids(&cache).len() == 1 && ids(&cache) != ids(before)).then_some(cache)
        })
        .await
    }
}

#[tokio::test]
async fn simultaneous_submissions_keep_their_own_values() {
    let stage = Stage::set().await;
    stage.llm.answers([Answer::plan(stage.good())]);
    let orders = ["AAA-1", "BBB-2", "CCC-3", "DDD-4"];
    let runs = futures_util::future::join_all(orders.map(|order| {
        let project = stage.project.clone();
        async move { project.submit(&Stage::action(order)).await }
    }))
    .await;
    for (order, run) in orders.iter().zip(&runs) {
        assert_eq!(run.accepted["taskZero"], json!({"orderId": order}));
    }
}

#[tokio::test]
async fn a_cache_that_is_off_keeps_nothing() {
    let stage = Stage::with(Launch::dev().set("plan_cache.off", true)).await;
    stage.llm.answers([Answer::plan(stage.good())]);
    for order in ["A-1", "A-2"] {
        stage.project.submit(&Stage::action(order)).await;
    }
    assert_eq!(stage.llm.calls().len(), 2);
    assert_eq!(stage.project.get("/plan-cache").await["off"], true);
}

#[tokio::test]
async fn embeddings_decide_and_while_they_cannot_be_had_words_do() {
    let llm = FakeLlm::start().await;
    let launch =
        llm.embeds_for(llm.plans_for(Launch::dev().set("embeddings.call_timeout", "\"2s\"")));
    let engine = launch.start().await;
    let project = Project::add(&engine).await;
    let refund = FakeSdk::register(&project, "refund", &["orderId"], &["refundId"]).await;
    let plan = || Plan::new().task("task1", &refund.id, json!({"orderId": "$task0.orderId"}));
    llm.answers([Answer::plan(plan())]);
    let (status, body) = project.post("/groundings", &refunds("1.0", &[])).await;
    assert_eq!(status, 201, "{body}");

    // Words would not find it: the model says that it is the same.
    llm.places(&["money", "refund"], &[1.0, 0.0, 0.0]);
    let money_back = Action::new("Give me my money back").data("orderId", "o-1");
    let run = project.submit(&money_back).await;
    let path = format!("/orchestrations/inspections/{}", run.id);
    assert_eq!(
        project.get(&path).await["planning"]["grounding"]["comparedBy"],
        "fake-embeddings"
    );
    let (status, _) = project
        .try_submit(&Action::new("Fly away").data("orderId", "o"))
        .await;
    assert_eq!(status, 500);

    for broken in [
        Answer::Status(500, json!({"error": format!("no {SECRET}")})),
        Answer::Text("no json".into()),
        Answer::Never,
    ] {
        llm.embeddings(Some(broken));
        let action = Action::new("Process refunds for this order").data("orderId", "o-2");
        let run = project.submit(&action).await;
        let path = format!("/orchestrations/inspections/{}", run.id);
        assert_eq!(
            project.get(&path).await["planning"]["grounding"]["comparedBy"],
            "lexical-1"
        );
        let unknown = Action::new("Return what I paid for this").data("orderId", "o");
        let (status, refusal) = project.try_submit(&unknown).await;
        assert_eq!(status, 500, "{refusal}");
        assert!(
            text(&refusal["error"], "message").contains("cannot be told now"),
            "{refusal}"
        );
    }
    assert!(!engine.log().contains(SECRET));
}

#[tokio::test]
async fn the_command_line_tests_applies_lists_and_removes() {
    let engine = Engine::start().await;
    let cli = Cli::with_project(&engine).await;
    let config: Value =
        serde_json::from_slice(&std::fs::read(cli.config_dir().join("config.json")).unwrap())
            .unwrap();
    let known = &config["projects"]["shop"];
    let project = Project::known(&engine, &text(known, "id"), &text(known, "cli_auth"));
    FakeSdk::register(&project, "refund", &["orderId"], &["refundId"]).await;
    let path = engine.folder().join("refunds.yaml");
    let file = path.to_str().unwrap();
    let yaml = |rule: &str| {
        format!(
            "name: refunds\ndomain: e-commerce\nversion: 1.0\nuse-cases:\n  - action: Refund the order {{orderId}}\n    params:\n      \
             orderId: ORD1\n    capabilities:\n      - performs refund\n    intent: money back\nconstraints:\n  - be kind\n  - \"rule: {rule}\"\n"
        )
    };
    std::fs::write(&path, yaml("refund only after check")).unwrap();
    let said = cli.run(&["grounding", "test", file]).await;
    assert_eq!(said.code, 1, "{said:?}");
    let said = said.out;
    assert!(
        said.contains("not actionable: Refund the order ORD1") && said.contains("names check"),
        "{said}"
    );

    std::fs::write(&path, yaml("at most 1 refund")).unwrap();
    let said = cli.ok(&["grounding", "test", file]).await.out;
    assert!(said.contains("planned: Refund the order ORD1"), "{said}");
    let said = cli.ok(&["grounding", "ls"]).await.out;
    assert!(said.contains("No groundings"), "{said}");
    let said = cli.ok(&["grounding", "apply", "-f", file]).await.out;
    assert!(
        said.contains("refunds 1.0 is in force") && said.contains("not enforced  be kind"),
        "{said}"
    );
    let said = cli.ok(&["grounding", "ls"]).await.out;
    assert!(said.contains("enforced      at most 1 refund"), "{said}");
    let said = cli.fails(&["grounding", "rm", "refund"]).await;
    assert!(
        said.code == 1 && said.err.contains("`orchestrion grounding ls` shows"),
        "{said:?}"
    );
    cli.ok(&["grounding", "rm", "refunds"]).await;
    assert_eq!(project.get("/groundings").await, Value::Null);
    let said = cli.ok(&["plan-cache", "ls"]).await.out;
    assert!(said.contains("No plans are kept"), "{said}");
    let said = cli.ok(&["plan-cache", "clear"]).await.out;
    assert!(said.contains("Forgot 0 plans"), "{said}");
}
