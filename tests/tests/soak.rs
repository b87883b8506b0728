//! Tests that take minutes because they wait in real time: `make soak`, or `cargo test --test soak -- --ignored`.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use orchestrion_tests::bad_lines::Cut;
use orchestrion_tests::engine::Launch;
use orchestrion_tests::load::{Load, Size};
use orchestrion_tests::plan::Plan;
use orchestrion_tests::project::{Action, Project};
use orchestrion_tests::py_service::PyService;
use orchestrion_tests::trouble::{Means, Trouble, Troubled};
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

/// How often everything goes wrong.
const ROUNDS: usize = 10;

#[tokio::test]
#[ignore = "takes minutes"]
async fn what_was_accepted_survives_minutes_of_everything_that_goes_wrong() {
    let means = Means {
        small_disk: Some(256),
        power_cuts: true,
    };
    let mut troubled = Troubled::start(means).await;
    let project = Project::add(&troubled.engine).await;
    let size = Size {
        callers: 3,
        padding: 30_000,
    };
    let load = Load::start(&project, &troubled.lines, size).await;
    let (mut broken, begun) = (0, Instant::now());
    for round in 0..ROUNDS {
        for trouble in [
            Trouble::WithoutPower,
            Trouble::CutOff(Cut::Reset),
            Trouble::Stopped(Duration::from_millis(700)),
            Trouble::DiskFull,
            Trouble::Killed,
            Trouble::Unheard,
            Trouble::CutOff(Cut::Close),
        ] {
            if let Some(why) = troubled.lacks(trouble) {
                println!("skipped, {trouble:?}: {why}");
                continue;
            }
            load.goes_on(5 + (round + broken) % 7).await;
            troubled.suffers(trouble, &load).await;
            broken += 1;
        }
    }
    load.goes_on(10).await;
    let reckoned = load.reckon(Duration::from_secs(300)).await;
    let seconds = begun.elapsed().as_secs();
    println!("{broken} times in {seconds} s something went wrong: {reckoned:?}");
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
