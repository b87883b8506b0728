//! What only the load program runs: an activity that may take two seconds, and sleepers.

use std::time::{Duration, SystemTime};

use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{ActivityOptions, WorkflowContext, WorkflowResult};

use crate::activities::Activities;

/// A result of no use to workflow code: by how many microseconds a timer was late, on the worker's own clock.
type Lateness = u64;

#[workflow]
#[derive(Default)]
pub struct OneBriefActivity;

#[workflow_methods]
impl OneBriefActivity {
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>, text: String) -> WorkflowResult<String> {
        let options = ActivityOptions::start_to_close_timeout(Duration::from_secs(2));
        Ok(context
            .execute_activity(Activities::echo, text, options)
            .await?)
    }
}

#[workflow]
#[derive(Default)]
pub struct Sleeps;

#[workflow_methods]
impl Sleeps {
    #[run]
    pub async fn run(
        context: &mut WorkflowContext<Self>,
        text: String,
    ) -> WorkflowResult<(String, Lateness)> {
        let due = due(context.workflow_time(), 30);
        context.timer(Duration::from_secs(30)).await;
        Ok((text, late(due)))
    }
}

#[workflow]
#[derive(Default)]
pub struct SleepsLong;

#[workflow_methods]
impl SleepsLong {
    #[run]
    pub async fn run(
        context: &mut WorkflowContext<Self>,
        text: String,
    ) -> WorkflowResult<(String, Lateness)> {
        let due = due(context.workflow_time(), 100);
        context.timer(Duration::from_secs(100)).await;
        Ok((text, late(due)))
    }
}

/// The timer is started with the end of the workflow task that began at this time, so this is the earliest that it may fire.
fn due(began: Option<SystemTime>, seconds: u64) -> Option<SystemTime> {
    began.map(|began| began + Duration::from_secs(seconds))
}

/// Only measured, never decided by: replaying it gives the commands it gave.
fn late(due: Option<SystemTime>) -> Lateness {
    let late = due.and_then(|due| SystemTime::now().duration_since(due).ok());
    late.map_or(0, |late| u64::try_from(late.as_micros()).unwrap_or(u64::MAX))
}
