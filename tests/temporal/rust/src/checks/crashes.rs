//! The server is killed as a power cut would, in each wait of a workflow; the worker is not restarted, and everything ends well.

use std::time::Duration;

use anyhow::{bail, ensure};

use super::named;
use crate::harness::{DONE, STARTED, Stage, Test, name_of};
use crate::workflows::waits::Waits;

pub fn tests(stage: &Stage) -> Vec<(&'static str, Test<'_>)> {
    named!(stage,
        in_a_timer
        while_an_activity_runs
        while_it_waits_for_a_signal
        while_a_child_runs
        while_an_accepted_update_waits
    )
}

/// Clients ask again while the server is away; some errors of a broken connection reach the caller all the same.
async fn patiently<T, E: std::fmt::Debug>(
    mut ask: impl AsyncFnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    let mut last = String::new();
    for _ in 0..200 {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => {
                last = format!("{error:?}");
                let broken = [
                    "Unavailable",
                    "Unknown",
                    "Cancelled",
                    "DeadlineExceeded",
                    "transport",
                ];
                ensure!(broken.iter().any(|word| last.contains(word)), "{last}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    bail!("the server does not come back: {last}")
}

async fn in_a_timer(stage: &Stage) -> anyhow::Result<()> {
    let handle = stage.start(Waits::run, "timer".to_owned()).await?;
    stage.until(&handle, "TimerStarted", 1).await?;
    stage.kill().await?;
    let result = patiently(async || handle.get_result(Default::default()).await).await?;
    ensure!(result == "timer", "{result}");
    stage
        .check(
            "in_a_timer",
            &handle,
            Some(&[STARTED, "task", "TimerStarted", "TimerFired", "task", DONE]),
        )
        .await?;
    Ok(())
}

async fn while_an_activity_runs(stage: &Stage) -> anyhow::Result<()> {
    let handle = stage.start(Waits::run, "activity".to_owned()).await?;
    let id = handle.info().workflow_id.clone();
    let attempts = stage.activities.attempts.clone();
    stage
        .eventually("its attempt", async || {
            Ok(attempts.lock().unwrap().get(&id).copied())
        })
        .await?;
    stage.kill().await?;
    stage.activities.opened.lock().unwrap().insert(id.clone());
    let result = patiently(async || handle.get_result(Default::default()).await).await?;
    ensure!(result == format!("{id} done"), "{result}");
    let three = [
        "ActivityTaskScheduled",
        "ActivityTaskStarted",
        "ActivityTaskCompleted",
    ];
    let expected: Vec<&str> = [STARTED, "task"]
        .into_iter()
        .chain(three)
        .chain(["task", DONE])
        .collect();
    stage
        .check("while_an_activity_runs", &handle, Some(&expected))
        .await?;
    Ok(())
}

async fn while_it_waits_for_a_signal(stage: &Stage) -> anyhow::Result<()> {
    let handle = stage.start(Waits::run, "signal".to_owned()).await?;
    handle
        .signal(Waits::go, "before".to_owned(), Default::default())
        .await?;
    stage.kill().await?;
    let heard =
        patiently(async || handle.query(Waits::heard, (), Default::default()).await).await?;
    ensure!(heard == ["before"], "{heard:?}");
    patiently(async || {
        handle
            .signal(Waits::go, "go".to_owned(), Default::default())
            .await
    })
    .await?;
    patiently(async || handle.get_result(Default::default()).await).await?;
    let events = stage
        .check("while_it_waits_for_a_signal", &handle, None)
        .await?;
    ensure!(
        events
            .iter()
            .filter(|event| name_of(event) == "WorkflowExecutionSignaled")
            .count()
            == 2
    );
    Ok(())
}

async fn while_a_child_runs(stage: &Stage) -> anyhow::Result<()> {
    let handle = stage.start(Waits::run, "child".to_owned()).await?;
    stage
        .until(&handle, "ChildWorkflowExecutionStarted", 1)
        .await?;
    stage.kill().await?;
    let child = stage
        .client
        .get_workflow_handle::<Waits>(format!("{}-child", handle.info().workflow_id));
    patiently(async || {
        child
            .signal(Waits::go, "go".to_owned(), Default::default())
            .await
    })
    .await?;
    let result = patiently(async || handle.get_result(Default::default()).await).await?;
    ensure!(result == "signal", "{result}");
    stage.check("while_a_child_runs", &handle, None).await?;
    stage.check("while_a_child_runs", &child, None).await?;
    Ok(())
}

async fn while_an_accepted_update_waits(stage: &Stage) -> anyhow::Result<()> {
    let handle = stage.start(Waits::run, "update".to_owned()).await?;
    let update = handle
        .start_update(Waits::slowly, "it".to_owned(), Default::default())
        .await?;
    stage.kill().await?;
    patiently(async || {
        handle
            .signal(Waits::go, "go".to_owned(), Default::default())
            .await
    })
    .await?;
    let outcome = patiently(async || update.get_result(Default::default()).await).await?;
    ensure!(outcome == "it done", "{outcome}");
    patiently(async || handle.get_result(Default::default()).await).await?;
    let events = stage
        .check("while_an_accepted_update_waits", &handle, None)
        .await?;
    ensure!(
        events
            .iter()
            .filter(|event| name_of(event) == "WorkflowExecutionUpdateAccepted")
            .count()
            == 1
    );
    Ok(())
}
