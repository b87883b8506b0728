//! Activities: retries, time-outs, heartbeats, cancellation, completion from elsewhere, local ones.

use anyhow::ensure;
use temporalio_client::{ActivityIdentifier, Client, WorkflowHandle};
use temporalio_common::HasWorkflowDefinition;
use temporalio_common::protos::temporal::api::enums::v1::PendingActivityState;
use temporalio_common::protos::temporal::api::history::v1::history_event::Attributes as A;

use super::named;
use crate::harness::{DONE, STARTED, Stage, Test, first, name_of};
use crate::workflows::steps::{
    Asked, Cancels, HundredActivities, Local, OneActivity, Runs, TenActivities,
};

const PLAIN: [&str; 7] = [
    STARTED,
    "task",
    "ActivityTaskScheduled",
    "ActivityTaskStarted",
    "ActivityTaskCompleted",
    "task",
    DONE,
];

pub fn tests(stage: &Stage) -> Vec<(&'static str, Test<'_>)> {
    named!(stage,
        an_activity_runs_once
        ten_in_turn_and_a_hundred_at_once
        failures_are_tried_again_and_only_the_end_is_written
        attempts_are_bounded_and_a_failure_may_be_final
        start_to_close_is_a_time_out
        heartbeat_details_reach_the_next_attempt
        a_heart_that_stops_is_a_time_out
        activities_are_cancelled_in_three_ways
        completion_from_elsewhere
        local_activities_are_markers
    )
}

async fn an_activity_runs_once(stage: &Stage) -> anyhow::Result<()> {
    let (handle, result) = stage.run(OneActivity::run, "hello".to_owned()).await?;
    ensure!(result == "hello", "{result}");
    let events = stage
        .check("an_activity_runs_once", &handle, Some(&PLAIN))
        .await?;
    let A::ActivityTaskScheduledEventAttributes(scheduled) =
        first(&events, "ActivityTaskScheduled")?
    else {
        unreachable!()
    };
    ensure!(
        scheduled.schedule_to_close_timeout.is_some() && scheduled.heartbeat_timeout.is_some(),
        "no time-out is null"
    );
    ensure!(scheduled.retry_policy.is_some(), "the policy is filled in");
    Ok(())
}

async fn ten_in_turn_and_a_hundred_at_once(stage: &Stage) -> anyhow::Result<()> {
    let test = "ten_in_turn_and_a_hundred_at_once";
    let (handle, _) = stage.run(TenActivities::run, "x".to_owned()).await?;
    stage.check(test, &handle, None).await?;
    let (handle, results) = stage.run(HundredActivities::run, "x".to_owned()).await?;
    ensure!(results.len() == 100, "{}", results.len());
    let events = stage.check(test, &handle, None).await?;
    ensure!(
        events
            .iter()
            .filter(|event| name_of(event) == "ActivityTaskCompleted")
            .count()
            == 100
    );
    Ok(())
}

async fn failures_are_tried_again_and_only_the_end_is_written(stage: &Stage) -> anyhow::Result<()> {
    let (handle, result) = stage.run(Runs::run, Asked::of("flaky", 3)).await?;
    ensure!(result == "4", "{result}");
    let test = "failures_are_tried_again_and_only_the_end_is_written";
    let events = stage.check(test, &handle, Some(&PLAIN)).await?;
    let A::ActivityTaskStartedEventAttributes(started) = first(&events, "ActivityTaskStarted")?
    else {
        unreachable!()
    };
    ensure!(
        started.attempt == 4
            && started
                .last_failure
                .as_ref()
                .is_some_and(|failure| failure.message == "try 3"),
        "{started:?}"
    );
    Ok(())
}

async fn attempts_are_bounded_and_a_failure_may_be_final(stage: &Stage) -> anyhow::Result<()> {
    let mut failed = PLAIN;
    failed[4] = "ActivityTaskFailed";
    let test = "attempts_are_bounded_and_a_failure_may_be_final";
    let (handle, result) = stage
        .run(
            Runs::run,
            Asked {
                attempts: 3,
                ..Asked::of("flaky", 9)
            },
        )
        .await?;
    ensure!(result == "MaximumAttemptsReached: try 3", "{result}");
    stage.check(test, &handle, Some(&failed)).await?;
    let (handle, result) = stage.run(Runs::run, Asked::of("final", 9)).await?;
    ensure!(result == "NonRetryableFailure: try 1", "{result}");
    stage.check(test, &handle, Some(&failed)).await?;
    Ok(())
}

async fn start_to_close_is_a_time_out(stage: &Stage) -> anyhow::Result<()> {
    let asked = Asked {
        attempts: 2,
        start_to_close_millis: 300,
        ..Asked::of("sleepy", 1_500)
    };
    let (handle, result) = stage.run(Runs::run, asked).await?;
    ensure!(result == "MaximumAttemptsReached: StartToClose", "{result}");
    let mut late = PLAIN;
    late[4] = "ActivityTaskTimedOut";
    stage
        .check("start_to_close_is_a_time_out", &handle, Some(&late))
        .await?;
    Ok(())
}

async fn heartbeat_details_reach_the_next_attempt(stage: &Stage) -> anyhow::Result<()> {
    let (handle, result) = stage
        .run(
            Runs::run,
            Asked {
                heartbeat_millis: 2_000,
                ..Asked::of("beating", 4)
            },
        )
        .await?;
    ensure!(result != "0", "the second attempt began at {result}");
    stage
        .check(
            "heartbeat_details_reach_the_next_attempt",
            &handle,
            Some(&PLAIN),
        )
        .await?;
    Ok(())
}

async fn a_heart_that_stops_is_a_time_out(stage: &Stage) -> anyhow::Result<()> {
    let (handle, result) = stage
        .run(
            Runs::run,
            Asked {
                heartbeat_millis: 400,
                ..Asked::of("silent", 0)
            },
        )
        .await?;
    ensure!(result == "7", "{result}");
    stage
        .check("a_heart_that_stops_is_a_time_out", &handle, Some(&PLAIN))
        .await?;
    Ok(())
}

async fn activities_are_cancelled_in_three_ways(stage: &Stage) -> anyhow::Result<()> {
    let test = "activities_are_cancelled_in_three_ways";
    for how in ["wait", "try", "abandon"] {
        let (handle, result) = cancelled(stage, false, how).await?;
        ensure!(result == "cancelled", "{how}: {result}");
        let events = stage.check(test, &handle, None).await?;
        let has = |name: &str| events.iter().any(|event| name_of(event) == name);
        ensure!(
            has("ActivityTaskCancelRequested") == (how != "abandon"),
            "{how}"
        );
        ensure!(how != "wait" || has("ActivityTaskCanceled"), "{how}");
    }
    let (handle, result) = cancelled(stage, true, "wait").await?;
    ensure!(result == "done all the same", "{result}");
    stage.check(test, &handle, None).await?;
    Ok(())
}

/// Cancels an activity that a worker has.
async fn cancelled(
    stage: &Stage,
    stubborn: bool,
    how: &str,
) -> anyhow::Result<(
    WorkflowHandle<Client, impl HasWorkflowDefinition + use<>>,
    String,
)> {
    let handle = stage
        .start(Cancels::run, (stubborn, how.to_owned()))
        .await?;
    stage
        .eventually("the activity at work", async || {
            let told = handle.describe(Default::default()).await?;
            let pending = told.raw().pending_activities.first();
            let started = pending.is_some_and(|one| one.state() == PendingActivityState::Started);
            Ok(started.then_some(()))
        })
        .await?;
    handle
        .signal(Cancels::cancel_now, (), Default::default())
        .await?;
    let result = handle.get_result(Default::default()).await?;
    Ok((handle, result))
}

async fn completion_from_elsewhere(stage: &Stage) -> anyhow::Result<()> {
    for by_id in [false, true] {
        let handle = stage
            .start(
                Runs::run,
                Asked {
                    attempts: 1,
                    ..Asked::of("from_elsewhere", 0)
                },
            )
            .await?;
        let id = handle.info().workflow_id.clone();
        let tokens = stage.activities.tokens.clone();
        let token = stage
            .eventually("a token", async || {
                Ok(tokens.lock().unwrap().get(&id).cloned())
            })
            .await?;
        let identifier = match by_id {
            true => {
                ActivityIdentifier::by_id_workflow(id, handle.run_id().unwrap_or_default(), "1")
            }
            false => ActivityIdentifier::from_task_token(token.into()),
        };
        stage
            .client
            .get_async_activity_handle(identifier)
            .complete(Some("from elsewhere".to_owned()), Default::default())
            .await?;
        let result = handle.get_result(Default::default()).await?;
        ensure!(result == "from elsewhere", "{result}");
        stage
            .check("completion_from_elsewhere", &handle, Some(&PLAIN))
            .await?;
    }
    Ok(())
}

async fn local_activities_are_markers(stage: &Stage) -> anyhow::Result<()> {
    let (handle, result) = stage.run(Local::run, 2).await?;
    ensure!(result == 3, "{result}");
    stage
        .check(
            "local_activities_are_markers",
            &handle,
            Some(&[STARTED, "task", "MarkerRecorded", DONE]),
        )
        .await?;
    Ok(())
}
