//! A workflow that waits in the way that it is told to, while the server is killed.

use std::time::Duration;

use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{
    ActivityOptions, ChildWorkflowOptions, SyncWorkflowContext, WorkflowContext,
    WorkflowContextView, WorkflowResult,
};

use super::steps::fast;
use crate::activities::Activities;

#[workflow]
#[derive(Default)]
pub struct Waits {
    texts: Vec<String>,
}

#[workflow_methods]
impl Waits {
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>, what: String) -> WorkflowResult<String> {
        match what.as_str() {
            "timer" => {
                context.timer(Duration::from_secs(3)).await;
            }
            "activity" => {
                let options = ActivityOptions::with_start_to_close_timeout(Duration::from_secs(60))
                    .heartbeat_timeout(Duration::from_secs(5))
                    .retry_policy(fast(0))
                    .build();
                return Ok(context
                    .execute_activity(Activities::held, (), options)
                    .await?);
            }
            "child" => {
                let id = format!("{}-child", context.workflow_id());
                let child = context
                    .start_child_workflow(
                        Waits::run,
                        "signal".to_owned(),
                        ChildWorkflowOptions::workflow_id(id),
                    )
                    .await?;
                return Ok(child.result().await?);
            }
            "none" => {}
            _ => {
                let all = context.clone();
                context
                    .wait_condition(move |waits| {
                        waits.texts.iter().any(|text| text == "go") && all.all_handlers_finished()
                    })
                    .await?;
            }
        }
        Ok(what)
    }

    #[signal]
    pub fn go(&mut self, _context: &mut SyncWorkflowContext<Self>, text: String) {
        self.texts.push(text);
    }

    #[query]
    pub fn heard(&self, _context: &WorkflowContextView) -> Vec<String> {
        self.texts.clone()
    }

    #[update]
    pub async fn slowly(
        context: &mut WorkflowContext<Self>,
        text: String,
    ) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        context
            .wait_condition(|waits| waits.texts.iter().any(|text| text == "go"))
            .await?;
        Ok(format!("{text} done"))
    }
}
