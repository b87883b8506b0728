//! Executions that act on each other: children and their close policies, continue-as-new, retries, signals and cancels to others.

use std::time::Duration;

use anyhow::ensure;
use temporalio_client::errors::WorkflowGetResultError;
use temporalio_client::{WorkflowExecutionStatus, WorkflowStartOptions};
use temporalio_common::RetryPolicy;
use temporalio_common::protos::temporal::api::history::v1::history_event::Attributes as A;

use super::named;
use crate::harness::{DONE, STARTED, Stage, Test, first, name_of};
use crate::workflows::chains::{Child, Counts, Leaves, Parent, Retried, ToOthers};

const BORN: [&str; 3] = [
    "StartChildWorkflowExecutionInitiated",
    "ChildWorkflowExecutionStarted",
    "task",
];

pub fn tests(stage: &Stage) -> Vec<(&'static str, Test<'_>)> {
    named!(stage,
        a_child_gives_its_result_or_its_failure
        a_child_is_signalled_cancelled_and_refused
        what_becomes_of_children_when_their_parent_closes
        signals_and_cancels_reach_others
        continue_as_new_is_a_chain
        a_failed_workflow_is_tried_again
        cron_starts_again
    )
}

async fn a_child_gives_its_result_or_its_failure(stage: &Stage) -> anyhow::Result<()> {
    let test = "a_child_gives_its_result_or_its_failure";
    for (how, said, closed) in [
        (
            "hello",
            "child says hello",
            "ChildWorkflowExecutionCompleted",
        ),
        (
            "again",
            "child says done",
            "ChildWorkflowExecutionCompleted",
        ),
        (
            "fail",
            "failed: the child fails",
            "ChildWorkflowExecutionFailed",
        ),
    ] {
        let (handle, result) = stage.run(Parent::run, how.to_owned()).await?;
        ensure!(result == said, "{result}");
        let expected: Vec<&str> = [STARTED, "task"]
            .into_iter()
            .chain(BORN)
            .chain([closed, "task", DONE])
            .collect();
        stage.check(test, &handle, Some(&expected)).await?;
        let child = stage
            .client
            .get_workflow_handle::<Child>(format!("{}-child", handle.info().workflow_id));
        stage.check(test, &child, None).await?;
    }
    Ok(())
}

async fn a_child_is_signalled_cancelled_and_refused(stage: &Stage) -> anyhow::Result<()> {
    let test = "a_child_is_signalled_cancelled_and_refused";
    for (how, said) in [("signal", "child says wait"), ("cancel", "cancelled")] {
        let (handle, result) = stage.run(Parent::run, how.to_owned()).await?;
        ensure!(result == said, "{how}: {result}");
        stage.check(test, &handle, None).await?;
    }
    let id = stage.id();
    let taken = WorkflowStartOptions::new(stage.queue.clone(), format!("{id}-child")).build();
    let taken = stage
        .client
        .start_workflow(Child::run, "wait".to_owned(), taken)
        .await?;
    let options = WorkflowStartOptions::new(stage.queue.clone(), id).build();
    let handle = stage
        .client
        .start_workflow(Parent::run, "x".to_owned(), options)
        .await?;
    let result = handle.get_result(Default::default()).await?;
    ensure!(result == "taken", "{result}");
    let failed = [
        "StartChildWorkflowExecutionInitiated",
        "StartChildWorkflowExecutionFailed",
        "task",
        DONE,
    ];
    let expected: Vec<&str> = [STARTED, "task"].into_iter().chain(failed).collect();
    stage.check(test, &handle, Some(&expected)).await?;
    taken.terminate(Default::default()).await?;
    Ok(())
}

async fn what_becomes_of_children_when_their_parent_closes(stage: &Stage) -> anyhow::Result<()> {
    for (policy, wanted) in [
        ("terminate", WorkflowExecutionStatus::Terminated),
        ("cancel", WorkflowExecutionStatus::Canceled),
        ("abandon", WorkflowExecutionStatus::Completed),
    ] {
        let (handle, ()) = stage.run(Leaves::run, policy.to_owned()).await?;
        let child = stage
            .client
            .get_workflow_handle::<Child>(format!("{}-child", handle.info().workflow_id));
        if policy == "abandon" {
            child.signal(Child::release, (), Default::default()).await?;
        }
        let ended = stage
            .eventually("the end of the child", async || {
                let status = child.describe(Default::default()).await?.status();
                Ok((status != WorkflowExecutionStatus::Running).then_some(status))
            })
            .await?;
        ensure!(ended == wanted, "{policy}: {ended:?}");
        stage
            .check(
                "what_becomes_of_children_when_their_parent_closes",
                &child,
                None,
            )
            .await?;
    }
    Ok(())
}

async fn signals_and_cancels_reach_others(stage: &Stage) -> anyhow::Result<()> {
    for cancel in [false, true] {
        let other = stage.start(Child::run, "wait".to_owned()).await?;
        stage.until(&other, "task", 1).await?;
        let (handle, sent) = stage
            .run(ToOthers::run, (other.info().workflow_id.clone(), cancel))
            .await?;
        ensure!(sent);
        match other.get_result(Default::default()).await {
            Ok(result) => ensure!(!cancel && result == "child says wait", "{result}"),
            Err(WorkflowGetResultError::Cancelled { .. }) => ensure!(cancel),
            Err(other) => anyhow::bail!("{other}"),
        }
        stage
            .check("signals_and_cancels_reach_others", &handle, None)
            .await?;
        let (nobody, sent) = stage.run(ToOthers::run, (stage.id(), cancel)).await?;
        ensure!(!sent, "what is sent to nobody fails");
        stage
            .check("signals_and_cancels_reach_others", &nobody, None)
            .await?;
    }
    Ok(())
}

async fn continue_as_new_is_a_chain(stage: &Stage) -> anyhow::Result<()> {
    let (handle, result) = stage.run(Counts::run, (0, 3)).await?;
    ensure!(result == 3, "{result}");
    let last = stage
        .client
        .get_workflow_handle::<Counts>(handle.info().workflow_id.clone());
    let events = stage
        .check(
            "continue_as_new_is_a_chain",
            &last,
            Some(&[STARTED, "task", DONE]),
        )
        .await?;
    let A::WorkflowExecutionStartedEventAttributes(begun) = first(&events, STARTED)? else {
        unreachable!()
    };
    ensure!(
        !begun.continued_execution_run_id.is_empty()
            && Some(begun.first_execution_run_id.as_str()) == handle.run_id(),
        "{begun:?}"
    );
    Ok(())
}

async fn a_failed_workflow_is_tried_again(stage: &Stage) -> anyhow::Result<()> {
    let retry = |attempts| {
        RetryPolicy::builder()
            .initial_interval(Duration::from_millis(50))
            .maximum_attempts(attempts)
            .build()
    };
    let options = WorkflowStartOptions::new(stage.queue.clone(), stage.id())
        .retry_policy(retry(5))
        .build();
    let handle = stage
        .client
        .start_workflow(Retried::run, 2, options)
        .await?;
    ensure!(handle.get_result(Default::default()).await? == 3);
    let options = WorkflowStartOptions::new(stage.queue.clone(), stage.id())
        .retry_policy(retry(2))
        .build();
    let handle = stage
        .client
        .start_workflow(Retried::run, 9, options)
        .await?;
    let failed = handle.get_result(Default::default()).await;
    ensure!(
        matches!(&failed, Err(WorkflowGetResultError::Failed(why)) if why.to_string().contains("try 2")),
        "{failed:?}"
    );
    Ok(())
}

async fn cron_starts_again(stage: &Stage) -> anyhow::Result<()> {
    let options = WorkflowStartOptions::new(stage.queue.clone(), stage.id())
        .cron_schedule("@every 1s".to_owned())
        .build();
    let handle = stage
        .client
        .start_workflow(Counts::run, (1, 1), options)
        .await?;
    let current = stage
        .client
        .get_workflow_handle::<Counts>(handle.info().workflow_id.clone());
    stage
        .eventually("a second run", async || {
            let events = stage.events(&current).await?;
            let A::WorkflowExecutionStartedEventAttributes(begun) = first(&events, STARTED)? else {
                unreachable!()
            };
            Ok((!begun.continued_execution_run_id.is_empty()
                && begun.last_completion_result.is_some())
            .then_some(()))
        })
        .await?;
    current.terminate(Default::default()).await?;
    let runs = stage.events(&current).await?;
    ensure!(
        runs.last()
            .is_some_and(|event| name_of(event) == "WorkflowExecutionTerminated")
    );
    Ok(())
}
