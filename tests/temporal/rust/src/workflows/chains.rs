//! Workflows that act on others.

use std::time::Duration;

use temporalio_common::error::ApplicationFailure;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{
    ChildWorkflowOptions, ChildWorkflowStartError, ContinueAsNewOptions, ParentClosePolicy,
    SyncWorkflowContext, WorkflowContext, WorkflowResult,
};

#[workflow]
#[derive(Default)]
pub struct Child {
    go: bool,
}

#[workflow_methods]
impl Child {
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>, how: String) -> WorkflowResult<String> {
        match how.as_str() {
            "fail" => return Err(ApplicationFailure::new("the child fails").into()),
            "wait" => context.wait_condition(|child| child.go).await?,
            "again" => {
                context.continue_as_new("done".to_owned(), ContinueAsNewOptions::default())?;
            }
            _ => {}
        }
        Ok(format!("child says {how}"))
    }

    #[signal]
    pub fn release(&mut self, _context: &mut SyncWorkflowContext<Self>) {
        self.go = true;
    }
}

/// Runs a child and tells its result, or how it ended.
#[workflow]
#[derive(Default)]
pub struct Parent;

#[workflow_methods]
impl Parent {
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>, how: String) -> WorkflowResult<String> {
        let id = format!("{}-child", context.workflow_id());
        let asked = if how == "signal" || how == "cancel" {
            "wait".to_owned()
        } else {
            how.clone()
        };
        let started = context
            .start_child_workflow(Child::run, asked, ChildWorkflowOptions::workflow_id(id))
            .await;
        let child = match started {
            Ok(child) => child,
            Err(ChildWorkflowStartError::StartFailed { .. }) => return Ok("taken".to_owned()),
            Err(other) => return Err(other.into()),
        };
        if how == "signal" {
            child.signal(Child::release, (), Default::default()).await?;
        }
        if how == "cancel" {
            child.cancel("not needed".to_owned());
        }
        match child.result().await {
            Ok(result) => Ok(result),
            Err(cancelled) if cancelled.as_cancelled().is_some() => Ok("cancelled".to_owned()),
            Err(failed) => Ok(format!(
                "failed: {}",
                failed.reason().map(ToString::to_string).unwrap_or_default()
            )),
        }
    }
}

/// Starts a child with a policy and ends at once.
#[workflow]
#[derive(Default)]
pub struct Leaves;

#[workflow_methods]
impl Leaves {
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>, policy: String) -> WorkflowResult<()> {
        let policy = match policy.as_str() {
            "abandon" => ParentClosePolicy::Abandon,
            "cancel" => ParentClosePolicy::RequestCancel,
            _ => ParentClosePolicy::Terminate,
        };
        let id = format!("{}-child", context.workflow_id());
        let options = ChildWorkflowOptions::builder()
            .workflow_id(id)
            .parent_close_policy(policy)
            .build();
        let _ = context
            .start_child_workflow(Child::run, "wait".to_owned(), options)
            .await?;
        Ok(())
    }
}

/// Signals or cancels another workflow.
#[workflow]
#[derive(Default)]
pub struct ToOthers;

#[workflow_methods]
impl ToOthers {
    #[run]
    pub async fn run(
        context: &mut WorkflowContext<Self>,
        (id, cancel): (String, bool),
    ) -> WorkflowResult<bool> {
        let other = context.external_workflow(id, None);
        Ok(match cancel {
            true => other.cancel(None).await.is_ok(),
            false => other
                .signal(Child::release, (), Default::default())
                .await
                .is_ok(),
        })
    }
}

#[workflow]
#[derive(Default)]
pub struct Counts;

#[workflow_methods]
impl Counts {
    #[run]
    pub async fn run(
        context: &mut WorkflowContext<Self>,
        (at, upto): (u32, u32),
    ) -> WorkflowResult<u32> {
        if at < upto {
            context.continue_as_new((at + 1, upto), ContinueAsNewOptions::default())?;
        }
        Ok(at)
    }
}

#[workflow]
#[derive(Default)]
pub struct Retried;

#[workflow_methods]
impl Retried {
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>, fails: u32) -> WorkflowResult<u32> {
        let attempt = context.info().attempt();
        context.timer(Duration::from_millis(1)).await;
        if attempt <= fails {
            return Err(ApplicationFailure::new(format!("try {attempt}")).into());
        }
        Ok(attempt)
    }
}
