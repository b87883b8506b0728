//! Planning by a model that answers well, badly, late or not at all.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use orchestrion_tests::engine::{Engine, Launch};
use orchestrion_tests::fake_llm::{Answer, FakeLlm, SECRET};
use orchestrion_tests::fake_sdk::{FakeSdk, FakeSocket};
use orchestrion_tests::plan::Plan;
use orchestrion_tests::project::{Action, Project, text};
use orchestrion_tests::settings::{PLANNING_CALL_TIMEOUT, ms};
use serde_json::{Value, json};

/// An engine that plans with a fake model, and a service `echo` with a socket.
struct Stage {
    engine: Engine,
    llm: FakeLlm,
    project: Project,
    echo: FakeSdk,
    socket: FakeSocket,
}

impl Stage {
    async fn set() -> Self {
        Self::with(Launch::dev()).await
    }

    async fn with(launch: Launch) -> Self {
        let llm = FakeLlm::start().await;
        let engine = llm.plans_for(launch).start().await;
        let project = Project::add(&engine).await;
        let echo = FakeSdk::register(&project, "echo", &["message"], &["echo"]).await;
        let socket = echo.connect().await;
        Self {
            engine,
            llm,
            project,
            echo,
            socket,
        }
    }

    fn action() -> Action {
        Action::new("Say hello back").data("message", "hello")
    }

    fn good(&self) -> Plan {
        Plan::new().constant("message", "hello").task(
            "task1",
            &self.echo.id,
            json!({"message": "$task0.message"}),
        )
    }

    fn bad(&self) -> Plan {
        Plan::new().constant("message", "hello").task(
            "task1",
            &self.echo.id,
            json!({"volume": "$task0.message"}),
        )
    }

    /// The action is planned, executed with the caller's value, and completes.
    async fn runs(&mut self) {
        let run = self.project.submit(&Self::action()).await;
        let asked = self.socket.request().await;
        assert_eq!(asked.0["input"], json!({"message": "hello"}));
        self.socket.complete(&asked, json!({"echo": "hello"})).await;
        run.completes().await;
    }

    /// The action is refused with this code, and stays listed under this status. The message.
    async fn refuses(&self, status: u16, code: &str, listed_as: &str) -> String {
        let (answered, refusal) = self.project.try_submit(&Self::action()).await;
        assert_eq!(
            (answered, refusal["error"]["code"].as_str()),
            (status, Some(code)),
            "{refusal}"
        );
        let listed = self.project.listed().await;
        assert_eq!(listed.len(), 1, "{listed:?}");
        assert_eq!(listed[0].1, listed_as);
        let view = self.project.run(&listed[0].0, Value::Null).inspect().await;
        assert_eq!(view.status(), listed_as);
        assert!(
            self.socket.requests().is_empty(),
            "nothing of a refused plan starts"
        );
        text(&refusal["error"], "message")
    }
}

#[tokio::test]
async fn a_fenced_plan_runs() {
    let mut stage = Stage::set().await;
    stage.llm.answers([Answer::plan(stage.good())]);
    stage.runs().await;
    assert_eq!(stage.llm.calls().len(), 1);
    assert_eq!(stage.llm.calls()[0]["model"], "fake-planner");
    let prompt = stage.llm.prompt(0);
    for part in [
        "Say hello back",
        "message",
        stage.echo.id.as_str(),
        "echo",
        "Performs echo",
    ] {
        assert!(
            prompt.contains(part),
            "{part:?} is not in the prompt:\n{prompt}"
        );
    }
    assert!(!stage.engine.log().contains(SECRET));
}

#[tokio::test]
async fn a_bare_plan_runs() {
    let mut stage = Stage::set().await;
    stage.llm.answers([Answer::Bare(stage.good().into())]);
    stage.runs().await;
}

#[tokio::test]
async fn what_a_model_thinks_aloud_is_not_its_plan() {
    let mut stage = Stage::set().await;
    let (bad, good): (Value, Value) = (stage.bad().into(), stage.good().into());
    let thought =
        format!("<think>maybe\n```json\n{bad}\n```\nno, better:</think>\n```json\n{good}\n```");
    stage.llm.answers([Answer::Text(thought)]);
    stage.runs().await;
    assert_eq!(stage.llm.calls().len(), 1);
}

#[tokio::test]
async fn a_server_without_structured_output_is_asked_without_it() {
    let mut stage = Stage::set().await;
    let refusal = json!({"error": {"message": "response_format is not supported", "type": "invalid_request_error"}});
    stage
        .llm
        .answers([Answer::Status(400, refusal), Answer::plan(stage.good())]);
    stage.runs().await;
    let calls = stage.llm.calls();
    assert!(
        calls[0]["response_format"].is_object() && calls[1]["response_format"].is_null(),
        "{calls:#?}"
    );
}

#[tokio::test]
async fn the_validators_reasons_go_back_to_the_model() {
    let mut stage = Stage::set().await;
    stage
        .llm
        .answers([Answer::plan(stage.bad()), Answer::plan(stage.good())]);
    stage.runs().await;
    assert_eq!(stage.llm.calls().len(), 2);
    assert!(!stage.llm.prompt(0).contains("volume"));
    assert!(
        stage.llm.prompt(1).contains("volume"),
        "{}",
        stage.llm.prompt(1)
    );
}

#[tokio::test]
async fn three_malformed_answers_are_enough() {
    let stage = Stage::set().await;
    stage
        .llm
        .answers([Answer::Text("I would rather not.".into())]);
    stage
        .refuses(500, "Orra:ActionCannotExecute", "failed")
        .await;
    assert_eq!(stage.llm.calls().len(), 3);
}

#[tokio::test]
async fn three_invalid_plans_are_enough_and_the_reason_is_told() {
    let stage = Stage::set().await;
    stage.llm.answers([Answer::plan(stage.bad())]);
    let message = stage
        .refuses(500, "Orra:ActionCannotExecute", "failed")
        .await;
    assert!(message.contains("volume"), "{message}");
    assert_eq!(stage.llm.calls().len(), 3);
    let listed = stage.project.only_listed().await;
    let view = stage
        .project
        .get(&format!("/orchestrations/inspections/{}", listed.0))
        .await;
    let planning = &view["planning"];
    assert_eq!(
        (
            planning["tries"].as_u64(),
            planning["promptTokens"].as_u64(),
            planning["completionTokens"].as_u64()
        ),
        (Some(3), Some(360), Some(135)),
        "what failed attempts cost is told: {planning}"
    );
    assert_eq!(planning["failedAttempts"][2]["model"], "fake-planner");
    let replay = stage
        .project
        .get(&format!("/orchestrations/{}/replay", listed.0))
        .await;
    assert!(
        replay.to_string().contains("120 tokens read, 45 written"),
        "{replay}"
    );
}

#[tokio::test]
async fn an_empty_answer_fails() {
    let stage = Stage::set().await;
    stage.llm.answers([Answer::Text(String::new())]);
    stage
        .refuses(500, "Orra:ActionCannotExecute", "failed")
        .await;
}

#[tokio::test]
async fn a_plan_without_tasks_fails() {
    let stage = Stage::set().await;
    stage
        .llm
        .answers([Answer::plan(Plan::new().constant("message", "hello"))]);
    stage
        .refuses(500, "Orra:ActionCannotExecute", "failed")
        .await;
}

#[tokio::test]
async fn a_model_that_does_not_answer_in_time_fails() {
    let stage = Stage::with(Launch::dev().set(PLANNING_CALL_TIMEOUT, ms(300))).await;
    stage.llm.answers([Answer::Never]);
    stage
        .refuses(500, "Orra:ActionCannotExecute", "failed")
        .await;
}

#[tokio::test]
async fn a_slow_model_is_waited_for() {
    let mut stage = Stage::set().await;
    stage.llm.answers([Answer::Slow(
        Duration::from_millis(800),
        Box::new(Answer::plan(stage.good())),
    )]);
    stage.runs().await;
}

#[tokio::test]
async fn a_broken_model_server_fails_and_its_key_stays_secret() {
    let stage = Stage::set().await;
    let answer = json!({"error": {"message": format!("Incorrect API key provided: {SECRET}"), "type": "auth"}});
    stage.llm.answers([Answer::Status(401, answer)]);
    let message = stage
        .refuses(500, "Orra:ActionCannotExecute", "failed")
        .await;
    assert!(!message.contains(SECRET), "{message}");
    assert!(!stage.engine.log().contains(SECRET));
}

#[tokio::test]
async fn an_action_that_cannot_be_done_is_not_actionable() {
    let stage = Stage::set().await;
    let plan = json!({"tasks": [
        {"id": "task0", "input": {"message": "hello"}},
        {"id": "final", "input": {"error": "no service can fly"}},
    ], "parallel_groups": []});
    stage.llm.answers([Answer::Fenced(plan)]);
    let message = stage
        .refuses(400, "Orra:ActionNotActionable", "not_actionable")
        .await;
    assert!(message.contains("no service can fly"), "{message}");
    assert_eq!(stage.llm.calls().len(), 1, "it is not asked again");
    assert_eq!(
        stage.project.list().await["notActionable"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn a_model_cannot_change_what_the_caller_said() {
    let mut stage = Stage::set().await;
    let plan = Plan::new().constant("message", "INVENTED").task(
        "task1",
        &stage.echo.id,
        json!({"message": "$task0.message"}),
    );
    stage.llm.answers([Answer::plan(plan)]);
    stage.runs().await;
}

#[tokio::test]
async fn the_built_in_planner_says_what_is_missing() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    FakeSdk::register(
        &project,
        "charge-card",
        &["customerId", "total"],
        &["paymentId"],
    )
    .await;

    let (status, refusal) = project
        .try_submit(&Action::new("Charge the card").data("customerId", "c1"))
        .await;

    assert_eq!(
        (status, refusal["error"]["code"].as_str()),
        (400, Some("Orra:ActionNotActionable")),
        "{refusal}"
    );
    assert!(
        text(&refusal["error"], "message").contains("total"),
        "{refusal}"
    );
    assert_eq!(project.only_listed().await.1, "not_actionable");
}

#[tokio::test]
async fn the_built_in_planner_chains_backwards() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let reserve = FakeSdk::register(
        &project,
        "inventory",
        &["productId"],
        &["reservationId", "total"],
    )
    .await;
    let charge = FakeSdk::register(
        &project,
        "payment",
        &["customerId", "total"],
        &["paymentId"],
    )
    .await;
    let deliver = FakeSdk::register(
        &project,
        "delivery",
        &["reservationId", "paymentId", "address"],
        &["trackingId"],
    )
    .await;
    FakeSdk::register(&project, "weather", &["city"], &["forecast"]).await;

    let action = Action::new("Arrange the delivery of the product")
        .data("productId", "p")
        .data("customerId", "c")
        .data("address", "a");
    let run = project.submit(&action).await;

    let tasks = run.accepted["plan"]["tasks"].as_array().unwrap();
    let services: Vec<&str> = tasks
        .iter()
        .map(|task| task["service"].as_str().unwrap())
        .collect();
    assert_eq!(services, [&reserve.id, &charge.id, &deliver.id]);
    assert_eq!(tasks[1]["input"]["total"], "$task1.total");
    assert_eq!(
        tasks[2]["input"],
        json!({"reservationId": "$task1.reservationId", "paymentId": "$task2.paymentId", "address": "$task0.address"})
    );
}
