//! Tests that take minutes because they wait in real time: `make soak`, or `cargo test --test soak -- --ignored`.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use orchestrion_tests::engine::{Engine, Launch};
use orchestrion_tests::load::Load;
use orchestrion_tests::plan::Plan;
use orchestrion_tests::power_cut::PowerCut;
use orchestrion_tests::project::{Action, Project};
use orchestrion_tests::py_service::PyService;
use orchestrion_tests::view::View;
use serde_json::{Value, json};

#[tokio::test]
#[ignore = "takes 150 seconds"]
async fn a_handler_of_150_seconds_keeps_its_socket() {
    let engine = Launch::unscaled().start().await;
    let project = Project::add(&engine).await;
    let services = PyService::steps(&project, &["long"]).await;
    let plan = Plan::new().task(
        "task1",
        &services.id("long"),
        json!({"id": "l", "sleep_ms": 150_000}),
    );

    let run = project
        .submit(&Action::planned(plan).timeout(Duration::from_secs(300)))
        .await;

    let view = ends_within(&project, &run.id, Duration::from_secs(180)).await;
    assert_eq!(view.status(), "completed", "{view:#?}");
    assert_eq!(view.task("task1").history(), ["processing", "completed"]);
    assert_eq!(services.ids("started"), ["l"]);
}

#[tokio::test]
#[ignore = "takes 150 seconds"]
async fn a_handler_of_150_seconds_may_outlive_all_its_attempts() {
    // Five attempts of 30 s, and the pauses between them: the service answers the first while the fifth runs.
    let engine = Launch::unscaled().start().await;
    let project = Project::add(&engine).await;
    let services = PyService::steps(&project, &["long"]).await;
    let plan = Plan::new().task(
        "task1",
        &services.id("long"),
        json!({"id": "l", "sleep_ms": 150_000}),
    );

    let run = project.submit(&Action::planned(plan)).await;

    let view = ends_within(&project, &run.id, Duration::from_secs(200)).await;
    assert_eq!(view.status(), "completed", "{view:#?}");
    assert_eq!(services.ids("started"), ["l"]);
}

#[tokio::test]
#[ignore = "takes 150 seconds"]
async fn a_handler_that_reports_for_minutes_is_executed_once() {
    // The SDK reads nothing while its handler runs: acknowledgements pile up until its library stops answering pings.
    let engine = Launch::unscaled().start().await;
    let project = Project::add(&engine).await;
    let services = PyService::steps(&project, &["reports"]).await;
    let input = json!({"id": "r", "updates": 75, "update_every_ms": 2000});
    let plan = Plan::new().task("task1", &services.id("reports"), input);

    let run = project
        .submit(&Action::planned(plan).timeout(Duration::from_secs(300)))
        .await;

    let view = ends_within(&project, &run.id, Duration::from_secs(240)).await;
    assert_eq!(view.status(), "completed", "{view:#?}");
    assert_eq!(services.ids("executed"), ["r"]);
    let first = &view.task("task1").updates()[0]["step"];
    assert_eq!(first, &json!(1));
}

/// Times that the engine is broken.
const BREAKS: usize = 60;

#[tokio::test]
#[ignore = "takes minutes"]
async fn what_was_accepted_survives_minutes_of_kills_stops_and_power_cuts() {
    let mut engine: Engine = Launch::dev().prepare();
    let power = PowerCut::over(&engine.data_dir(), engine.folder());
    let watched = power
        .as_ref()
        .map(|power| power.env(""))
        .unwrap_or_default();
    engine.set_env(watched);
    engine.restart().await;
    let project = Project::add(&engine).await;
    let load = Load::start(&project, 4, 200).await;
    for n in 0..BREAKS {
        load.goes_on(10 + n % 7).await;
        match (n % 3, &power) {
            (0, Ok(power)) => {
                engine.kill();
                power.strike();
                engine.restart().await;
            }
            (0 | 1, _) => engine.kill_and_restart().await,
            _ => {
                let pid = engine.pid().to_string();
                for name in ["-STOP", "-CONT"] {
                    let sent = std::process::Command::new("kill")
                        .args([name, &pid])
                        .status();
                    assert!(sent.unwrap().success());
                    tokio::time::sleep(Duration::from_millis(700)).await; // As long as it is out.
                }
            }
        }
    }
    load.goes_on(10).await;
    let accepted = load.reckon(Duration::from_secs(300)).await;
    println!(
        "{accepted} orchestrations were accepted over {BREAKS} breaks, and all of them are there once"
    );
}

async fn ends_within(project: &Project, id: &str, patience: Duration) -> View {
    let run = project.run(id, Value::Null);
    let ended = async {
        loop {
            let view = run.inspect().await;
            if view.has_ended() {
                return view;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(patience, ended)
        .await
        .expect("the run ends in time")
}
