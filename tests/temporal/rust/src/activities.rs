//! The activities of all tests, and what the tests share with them: they live in one process.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use temporalio_common::error::ApplicationFailure;
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};

/// The ids of workflows whose held activity may end, attempts by workflow id, and tokens of activities that are completed from elsewhere.
#[derive(Clone, Default)]
pub struct Activities {
    pub opened: Arc<Mutex<HashSet<String>>>,
    pub attempts: Arc<Mutex<HashMap<String, u32>>>,
    pub tokens: Arc<Mutex<HashMap<String, Vec<u8>>>>,
}

fn workflow_id(context: &ActivityContext) -> String {
    context.info().workflow_id.clone().unwrap_or_default()
}

#[activities]
impl Activities {
    #[activity]
    pub async fn echo(_context: ActivityContext, text: String) -> Result<String, ActivityError> {
        Ok(text)
    }

    /// Fails so many times; its failures are final when told so.
    #[activity]
    pub async fn flaky(
        context: ActivityContext,
        (fails, is_final): (u32, bool),
    ) -> Result<u32, ActivityError> {
        let attempt = context.info().attempt;
        if attempt > fails {
            return Ok(attempt);
        }
        let failure = ApplicationFailure::builder(format!("try {attempt}"))
            .type_name("again".to_owned())
            .non_retryable(is_final);
        Err(ActivityError::application(failure.build()))
    }

    #[activity]
    pub async fn sleepy(_context: ActivityContext, millis: u64) -> Result<String, ActivityError> {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        Ok("slept".to_owned())
    }

    /// Beats, and fails in the middle of its first attempt; tells where the next one began.
    #[activity]
    pub async fn beating(context: ActivityContext, upto: u32) -> Result<u32, ActivityError> {
        let begin = match context.heartbeat_details().deserialize::<u32>() {
            Ok(Some(last)) => last + 1,
            _ => 0,
        };
        for step in begin..upto {
            context.record_heartbeat(step).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
            if step == 1 && begin == 0 {
                return Err(ActivityError::application(ApplicationFailure::new(
                    "in the middle",
                )));
            }
        }
        Ok(begin)
    }

    /// Beats once, and not again for longer than its time-out, in its first attempt.
    #[activity]
    pub async fn silent(context: ActivityContext) -> Result<u32, ActivityError> {
        if context.info().attempt == 1 {
            context.record_heartbeat(7u32).await?;
            tokio::time::sleep(Duration::from_secs(2)).await;
            return Ok(0);
        }
        Ok(context
            .heartbeat_details()
            .deserialize::<u32>()?
            .unwrap_or_default())
    }

    /// Runs until it is cancelled; a stubborn one ends well all the same.
    #[activity]
    pub async fn cancellable(
        context: ActivityContext,
        stubborn: bool,
    ) -> Result<String, ActivityError> {
        while !context.is_cancelled() {
            context.record_heartbeat("on".to_owned()).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if stubborn {
            Ok("done all the same".to_owned())
        } else {
            Err(ActivityError::cancelled())
        }
    }

    #[activity]
    pub async fn from_elsewhere(
        self: Arc<Self>,
        context: ActivityContext,
    ) -> Result<String, ActivityError> {
        let token = context.info().task_token.clone();
        self.tokens
            .lock()
            .unwrap()
            .insert(workflow_id(&context), token);
        Err(ActivityError::WillCompleteAsync)
    }

    /// Runs until a test opens its gate.
    #[activity]
    pub async fn held(self: Arc<Self>, context: ActivityContext) -> Result<String, ActivityError> {
        let id = workflow_id(&context);
        *self.attempts.lock().unwrap().entry(id.clone()).or_default() += 1;
        while !self.opened.lock().unwrap().contains(&id) {
            context.record_heartbeat("here".to_owned()).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(format!("{id} done"))
    }
}
