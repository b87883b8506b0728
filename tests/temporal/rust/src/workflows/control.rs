//! Workflows that are told things from outside.

use std::time::Duration;

use temporalio_common::MemoValue;
use temporalio_common::error::ApplicationFailure;
use temporalio_common::search_attributes::SearchAttributeKey;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{
    ActivityOptions, CancellableFuture as _, SyncWorkflowContext, TimerResult,
    WorkflowCancellationToken, WorkflowContext, WorkflowContextView, WorkflowResult,
};

use crate::activities::Activities;

#[workflow]
#[derive(Default)]
pub struct Timers;

#[workflow_methods]
impl Timers {
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>) -> WorkflowResult<bool> {
        let long = context.timer(Duration::from_secs(60));
        context.timer(Duration::from_millis(100)).await;
        long.cancel();
        let cancelled = long.await == TimerResult::Cancelled;
        context.timer(Duration::from_millis(50)).await;
        Ok(cancelled)
    }
}

/// Takes signals until one says stop.
#[workflow]
#[derive(Default)]
pub struct Inbox {
    texts: Vec<String>,
}

#[workflow_methods]
impl Inbox {
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>) -> WorkflowResult<Vec<String>> {
        context
            .wait_condition(|inbox| inbox.texts.iter().any(|text| text == "stop"))
            .await?;
        Ok(context.state(|inbox| inbox.texts.clone()))
    }

    #[signal]
    pub fn put(&mut self, _context: &mut SyncWorkflowContext<Self>, text: String) {
        self.texts.push(text);
    }

    #[query]
    pub fn got(&self, _context: &WorkflowContextView) -> Vec<String> {
        self.texts.clone()
    }
}

/// An account: amounts are validated, one of them is unlucky.
#[workflow]
#[derive(Default)]
pub struct Account {
    sum: i64,
    closed: bool,
}

#[workflow_methods]
impl Account {
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>) -> WorkflowResult<i64> {
        let all = context.clone();
        context
            .wait_condition(move |account| account.closed && all.all_handlers_finished())
            .await?;
        Ok(context.state(|account| account.sum))
    }

    #[update_validator(deposit)]
    fn check_deposit(
        &self,
        _context: &WorkflowContextView,
        amount: &i64,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if *amount < 0 {
            Err("negative".into())
        } else {
            Ok(())
        }
    }

    #[update]
    pub async fn deposit(
        context: &mut WorkflowContext<Self>,
        amount: i64,
    ) -> Result<i64, Box<dyn std::error::Error + Send + Sync>> {
        if amount == 13 {
            return Err(ApplicationFailure::new("unlucky").into());
        }
        if amount >= 100 {
            context.timer(Duration::from_millis(300)).await;
        }
        Ok(context.state_mut(|account| {
            account.sum += amount;
            account.sum
        }))
    }

    #[signal]
    pub fn close(&mut self, _context: &mut SyncWorkflowContext<Self>) {
        self.closed = true;
    }
}

/// Cleans up when it is cancelled, with a token that is not.
#[workflow]
#[derive(Default)]
pub struct Careful {
    never: bool,
}

#[workflow_methods]
impl Careful {
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>, swallow: bool) -> WorkflowResult<String> {
        if let Err(cancelled) = context.wait_condition(|careful| careful.never).await {
            let options = ActivityOptions::with_start_to_close_timeout(Duration::from_secs(10))
                .cancellation_token(WorkflowCancellationToken::new())
                .build();
            let cleaned = context
                .execute_activity(Activities::echo, "cleaned up".to_owned(), options)
                .await?;
            return if swallow {
                Ok(cleaned)
            } else {
                Err(cancelled.into())
            };
        }
        Ok("never".to_owned())
    }
}

#[workflow]
#[derive(Default)]
pub struct Patches;

#[workflow_methods]
impl Patches {
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>) -> WorkflowResult<bool> {
        let first = context.patched("newer");
        context.timer(Duration::from_millis(20)).await;
        Ok(first && context.patched("newer"))
    }
}

pub const CUSTOMER: SearchAttributeKey<String> = SearchAttributeKey::keyword("RustCustomer");
pub const AMOUNT: SearchAttributeKey<i64> = SearchAttributeKey::int("RustAmount");

/// An order that changes its own attributes and notes.
#[workflow]
#[derive(Default)]
pub struct Order;

#[workflow_methods]
impl Order {
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>, amount: i64) -> WorkflowResult<String> {
        context.upsert_search_attributes([AMOUNT.value_set(amount)]);
        context.upsert_memo([
            ("stage", Some(MemoValue::new("open".to_owned()))),
            ("gone", None),
        ])?;
        Ok(context
            .search_attributes()
            .get(&CUSTOMER)
            .unwrap_or_default())
    }
}
