//! Workflows that run activities.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use temporalio_common::RetryPolicy;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::workflows::join_all;
use temporalio_sdk::{
    ActivityCancellationType, ActivityExecutionError, ActivityOptions, CancellableFuture as _,
    LocalActivityOptions, SyncWorkflowContext, WorkflowContext, WorkflowResult,
};

use crate::activities::Activities;

const LONG: Duration = Duration::from_secs(10);

/// Tried again at once, so many times; 0 is without end.
pub fn fast(attempts: u32) -> RetryPolicy {
    RetryPolicy::builder()
        .initial_interval(Duration::from_millis(20))
        .backoff_coefficient(1.0)
        .maximum_attempts(attempts)
        .build()
}

fn plain() -> ActivityOptions {
    ActivityOptions::start_to_close_timeout(LONG)
}

#[workflow]
#[derive(Default)]
pub struct OneActivity;

#[workflow_methods]
impl OneActivity {
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>, text: String) -> WorkflowResult<String> {
        Ok(context
            .execute_activity(Activities::echo, text, plain())
            .await?)
    }
}

#[workflow]
#[derive(Default)]
pub struct TenActivities;

#[workflow_methods]
impl TenActivities {
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>, text: String) -> WorkflowResult<String> {
        let mut last = text;
        for _ in 0..10 {
            last = context
                .execute_activity(Activities::echo, last, plain())
                .await?;
        }
        Ok(last)
    }
}

#[workflow]
#[derive(Default)]
pub struct HundredActivities;

#[workflow_methods]
impl HundredActivities {
    #[run]
    pub async fn run(
        context: &mut WorkflowContext<Self>,
        text: String,
    ) -> WorkflowResult<Vec<String>> {
        let calls =
            (0..100).map(|_| context.execute_activity(Activities::echo, text.clone(), plain()));
        let results: Result<Vec<String>, _> = join_all(calls.collect::<Vec<_>>())
            .await
            .into_iter()
            .collect();
        Ok(results?)
    }
}

/// One activity, and how it is to be run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Asked {
    pub name: String,
    pub number: u32,
    pub attempts: u32,
    pub heartbeat_millis: u64,
    pub start_to_close_millis: u64,
}

impl Asked {
    pub fn of(name: &str, number: u32) -> Self {
        Self {
            name: name.to_owned(),
            number,
            attempts: 0,
            heartbeat_millis: 0,
            start_to_close_millis: 10_000,
        }
    }
}

/// Runs one activity and tells its result, or how it failed.
#[workflow]
#[derive(Default)]
pub struct Runs;

#[workflow_methods]
impl Runs {
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>, asked: Asked) -> WorkflowResult<String> {
        let options = ActivityOptions::with_start_to_close_timeout(Duration::from_millis(
            asked.start_to_close_millis,
        ))
        .maybe_heartbeat_timeout(
            (asked.heartbeat_millis > 0).then(|| Duration::from_millis(asked.heartbeat_millis)),
        )
        .retry_policy(fast(asked.attempts))
        .build();
        let result = match asked.name.as_str() {
            "flaky" => context
                .execute_activity(Activities::flaky, (asked.number, false), options)
                .await
                .map(|n| n.to_string()),
            "final" => context
                .execute_activity(Activities::flaky, (asked.number, true), options)
                .await
                .map(|n| n.to_string()),
            "sleepy" => {
                context
                    .execute_activity(Activities::sleepy, u64::from(asked.number), options)
                    .await
            }
            "beating" => context
                .execute_activity(Activities::beating, asked.number, options)
                .await
                .map(|n| n.to_string()),
            "silent" => context
                .execute_activity(Activities::silent, (), options)
                .await
                .map(|n| n.to_string()),
            _ => {
                context
                    .execute_activity(Activities::from_elsewhere, (), options)
                    .await
            }
        };
        match result {
            Ok(result) => Ok(result),
            Err(ActivityExecutionError::Failed(failed)) => {
                let why = match failed.as_timeout() {
                    Some(timeout) => format!("{:?}", timeout.timeout_type()),
                    None => failed.cause().map(ToString::to_string).unwrap_or_default(),
                };
                Ok(format!("{:?}: {why}", failed.retry_state()))
            }
            Err(other) => Err(other.into()),
        }
    }
}

#[workflow]
#[derive(Default)]
pub struct Local;

#[workflow_methods]
impl Local {
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>, fails: u32) -> WorkflowResult<u32> {
        let options = LocalActivityOptions::builder()
            .start_to_close_timeout(LONG)
            .retry_policy(fast(0))
            .build();
        Ok(context
            .execute_local_activity(Activities::flaky, (fails, false), options)
            .await?)
    }
}

/// Cancels its activity when it is told to, in one of the three ways.
#[workflow]
#[derive(Default)]
pub struct Cancels {
    told: bool,
}

#[workflow_methods]
impl Cancels {
    #[run]
    pub async fn run(
        context: &mut WorkflowContext<Self>,
        (stubborn, how): (bool, String),
    ) -> WorkflowResult<String> {
        let how = match how.as_str() {
            "try" => ActivityCancellationType::TryCancel,
            "abandon" => ActivityCancellationType::Abandon,
            _ => ActivityCancellationType::WaitCancellationCompleted,
        };
        let options = ActivityOptions::with_start_to_close_timeout(LONG)
            .heartbeat_timeout(Duration::from_secs(1))
            .cancellation_type(how);
        let running = context.execute_activity(Activities::cancellable, stubborn, options.build());
        context.wait_condition(|cancels| cancels.told).await?;
        running.cancel();
        match running.await {
            Ok(result) => Ok(result),
            Err(ActivityExecutionError::Cancelled(_)) => Ok("cancelled".to_owned()),
            Err(other) => Err(other.into()),
        }
    }

    #[signal]
    pub fn cancel_now(&mut self, _context: &mut SyncWorkflowContext<Self>) {
        self.told = true;
    }
}
