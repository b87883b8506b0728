//! What a service says of its attempts, put to the engine: its results, errors, aborts and updates.
//!
//! ```text
//!  execution id --connection's memory--> assignment -+--> request --committed--> Settled::Noted
//!  idempotency key --journal, tenant, queue, check-----'       |------refused----> Settled::Refused   (logged)
//!                                                              '--cannot commit--> Settled::NotNow    (no acknowledgement)
//! ```
//!
//! A success counts whenever it comes: late ones reach an activity that is still open, and a task whose activity has
//! closed without one gets it as a signal, so that what was done can be undone. An error counts for its own attempt only.
//!
//! Invariant: an answer reaches only activities on the queue of the connection's own service, in its own project.

use std::sync::Arc;
use std::time::Duration;

use orchestrion_history::ids::{Namespace, Timestamp};
use orchestrion_history::request::{
    ActivityRef, CompleteActivity, FailActivity, Rejection, ReportActivityProgress, Request,
    SignalWorkflow,
};
use orchestrion_proto::temporal::api::common::v1::{Payload, Payloads};
use orchestrion_proto::temporal::api::failure::v1::failure::FailureInfo;
use orchestrion_proto::temporal::api::failure::v1::{ApplicationFailureInfo, Failure};

use super::locate::{Ending, Lost, locate, locate_event};
use super::{Assignment, Attempt, Outcome, Said};
use crate::engine::handle::{CallError, Handle, Target};
use crate::orchestration::submission::raw_json_payload;
use crate::orchestration::{ABORT_FAILURE_TYPE, LATE_RESULT_SIGNAL};
use crate::registry::ids::derived;
use crate::seams::{self, Clock};

/// The failure type of an error a service reports.
pub const SERVICE_ERROR: &str = "ServiceError";
/// The failure type of a result that the engine cannot keep.
pub const RESULT_REFUSED: &str = "ResultRefused";
/// The failure type of an input that no service can be sent.
pub const INPUT_REFUSED: &str = "InputRefused";
/// Between two offers of an answer to an engine that could not take it, when it does not say.
const OFFER_AGAIN: Duration = Duration::from_millis(100);

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It is committed, or was before.
    Noted,
    /// It is refused for good, and logged. Sending it again would not help.
    Refused,
    /// The engine cannot take it now. It must be sent again.
    NotNow,
}

/// Puts the messages of one service to the engine.
#[derive(Clone)]
pub struct Answering {
    /// The door.
    pub handle: Handle,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The service's project.
    pub namespace: Namespace,
    /// The service: also the name of its queue.
    pub service_id: String,
    /// Shown in history.
    pub identity: String,
    /// By which wire it works: the source of its failures.
    pub wire: &'static str,
    /// How long to offer a message to an engine that is busy.
    pub patience: Duration,
    /// How long a task can be undone when the service does not say.
    pub default_ttl: Duration,
}

impl Answering {
    /// An attempt ended, or so its service says. `known` is what this connection remembers of it.
    pub async fn answer(
        &self,
        attempt: &Attempt,
        known: Option<Assignment>,
        answer: &impl Said,
    ) -> Settled {
        let to = match self.find(attempt, known) {
            Ok(assignment) => assignment,
            Err(settled) => return settled,
        };
        match answer.outcome(&to, self.default_ttl) {
            Outcome::Completed(result) => self.complete(attempt, &to, result).await,
            // A revert cannot abort what is being undone already.
            Outcome::Aborted(_) if to.revert => {
                let text = "the revert handler aborted".to_owned();
                self.fail(attempt, &to, text, false).await
            }
            Outcome::Aborted(payload) => self.abort(attempt, &to, payload).await,
            Outcome::Failed { text, permanent } => self.fail(attempt, &to, text, permanent).await,
        }
    }

    /// A service pushed an update.
    pub async fn update(
        &self,
        attempt: &Attempt,
        known: Option<Assignment>,
        update: Vec<u8>,
    ) -> Settled {
        let to = match self.find(attempt, known) {
            Ok(assignment) => assignment,
            Err(settled) => return settled,
        };
        match self.offer(&to.target, progress(&to, update)).await {
            Ok(()) => Settled::Noted,
            Err(refusal) => self.refused(attempt, "an update", refusal),
        }
    }

    /// An attempt cannot be sent to the service at all.
    pub async fn undeliverable(&self, to: &Assignment, reason: String) {
        let failure = self.failure(reason, INPUT_REFUSED, true, None);
        let refusal = self
            .fail_with(to, failure, ActivityRef::Scheduled(to.scheduled_event_id))
            .await;
        if let Err(refusal) = refusal {
            tracing::warn!(service = %self.service_id, ?refusal, "an attempt that cannot be sent could not be failed");
        }
    }

    async fn complete(&self, attempt: &Attempt, to: &Assignment, result: Vec<u8>) -> Settled {
        match self
            .offer(&to.target, self.completion(to, result.clone()))
            .await
        {
            Ok(()) => Settled::Noted,
            Err(Refusal::Rejected(Rejection::NotFound { .. })) if !to.revert => {
                self.late(attempt, to, &result).await
            }
            Err(Refusal::Rejected(
                rejection @ (Rejection::Invalid(_) | Rejection::Limit { .. }),
            )) => {
                // The service holds it for done and would send the same again: better an error that says why.
                let text = format!(
                    "the result of {} bytes cannot be kept: {rejection}",
                    result.len()
                );
                let failure = self.failure(text, RESULT_REFUSED, true, None);
                let activity = ActivityRef::Scheduled(to.scheduled_event_id);
                match self.fail_with(to, failure, activity).await {
                    Ok(()) => Settled::Noted,
                    Err(refusal) => self.refused(attempt, "a result", refusal),
                }
            }
            Err(refusal) => self.refused(attempt, "a result", refusal),
        }
    }

    /// A task's success for an activity that is not open. If it closed without one, the run must know: something was done.
    async fn late(&self, attempt: &Attempt, to: &Assignment, result: &[u8]) -> Settled {
        let event = to.scheduled_event_id;
        let service = Some(self.service_id.as_str());
        let located = match locate_event(&self.handle, service, &to.target, event) {
            Ok(located) => located,
            Err(lost) => return self.lost(attempt, lost),
        };
        // Workflow code of others knows nothing of late results.
        if located.ending != Ending::WithoutResult || !located.builtin {
            tracing::debug!(service = %self.service_id, execution = %attempt.execution_id, "a result came twice, or too late");
            return Settled::Refused;
        }
        let request_id = signal_id(attempt, to);
        let request = late_result(&to.activity_id, result, self.identity.clone(), request_id);
        match self.offer(&to.target, request).await {
            Ok(()) => Settled::Noted,
            Err(refusal) => self.refused(attempt, "a late result", refusal),
        }
    }

    async fn abort(&self, attempt: &Attempt, to: &Assignment, payload: Vec<u8>) -> Settled {
        match self.offer(&to.target, self.abortion(to, payload)).await {
            Ok(()) => Settled::Noted,
            Err(refusal) => self.refused(attempt, "an abort", refusal),
        }
    }

    /// An error is of one attempt. If that one is not running any more it counted already, unless it went back to its queue
    /// uncounted because its connection was lost: then it counts now.
    async fn fail(
        &self,
        attempt: &Attempt,
        to: &Assignment,
        text: String,
        permanent: bool,
    ) -> Settled {
        let Some(number) = to.attempt else {
            tracing::info!(service = %self.service_id, execution = %attempt.execution_id, "an error of an unknown attempt");
            return Settled::Refused;
        };
        let event = to.scheduled_event_id;
        let failure = self.failure(text, SERVICE_ERROR, permanent, None);
        let running = ActivityRef::Attempt {
            scheduled_event_id: event,
            attempt: number,
        };
        match self.fail_with(to, failure.clone(), running).await {
            Ok(()) => return Settled::Noted,
            Err(Refusal::Rejected(Rejection::NotFound { .. })) => {}
            Err(refusal) => return self.refused(attempt, "an error", refusal),
        }
        let waits_again = match self.handle.state(to.target.clone()).await {
            Ok(state) => state
                .activities
                .get(&event)
                .is_some_and(|activity| activity.attempt == number),
            Err(error) => return self.refused(attempt, "an error", error.into()),
        };
        if !waits_again {
            tracing::debug!(service = %self.service_id, execution = %attempt.execution_id, "an error came late");
            return Settled::Refused;
        }
        match self
            .fail_with(to, failure, ActivityRef::Scheduled(event))
            .await
        {
            Ok(()) => Settled::Noted,
            Err(refusal) => self.refused(attempt, "an error", refusal),
        }
    }

    async fn fail_with(
        &self,
        to: &Assignment,
        failure: Failure,
        activity: ActivityRef,
    ) -> Result<(), Refusal> {
        self.offer(&to.target, self.failing(activity, failure))
            .await
    }

    /// The request of a success.
    pub fn completion(&self, to: &Assignment, result: Vec<u8>) -> Request {
        Request::CompleteActivity(Box::new(CompleteActivity {
            activity: ActivityRef::Scheduled(to.scheduled_event_id),
            result: Some(Payloads {
                payloads: vec![raw_json_payload(result)],
            }),
            identity: self.identity.clone(),
        }))
    }

    /// The request of an abort.
    pub fn abortion(&self, to: &Assignment, payload: Vec<u8>) -> Request {
        let text = "the service aborted the task".to_owned();
        let details = Some(raw_json_payload(payload));
        let failure = self.failure(text, ABORT_FAILURE_TYPE, true, details);
        self.failing(ActivityRef::Scheduled(to.scheduled_event_id), failure)
    }

    fn failing(&self, activity: ActivityRef, failure: Failure) -> Request {
        Request::FailActivity(Box::new(FailActivity {
            activity,
            failure,
            identity: self.identity.clone(),
            last_heartbeat: None,
        }))
    }

    fn failure(
        &self,
        message: String,
        kind: &str,
        non_retryable: bool,
        details: Option<Payload>,
    ) -> Failure {
        Failure {
            message,
            source: self.wire.to_owned(),
            failure_info: Some(FailureInfo::ApplicationFailureInfo(
                ApplicationFailureInfo {
                    r#type: kind.to_owned(),
                    non_retryable,
                    details: details.map(|payload| Payloads {
                        payloads: vec![payload],
                    }),
                    ..Default::default()
                },
            )),
            ..Default::default()
        }
    }

    fn find(&self, attempt: &Attempt, known: Option<Assignment>) -> Result<Assignment, Settled> {
        if let Some(assignment) = known {
            return Ok(assignment);
        }
        match locate(&self.handle, &self.namespace, &self.service_id, attempt) {
            Ok(located) => Ok(located.assignment),
            Err(lost) => Err(self.lost(attempt, lost)),
        }
    }

    fn lost(&self, attempt: &Attempt, lost: Lost) -> Settled {
        match lost {
            Lost::Unreadable(error) => self.refused(attempt, "a message", error.into()),
            Lost::Nowhere(why) => {
                tracing::warn!(service = %self.service_id, execution = %attempt.execution_id, why, "a message about no work of this service");
                Settled::Refused
            }
        }
    }

    fn refused(&self, attempt: &Attempt, what: &'static str, refusal: Refusal) -> Settled {
        match refusal {
            Refusal::NotNow(error) => {
                tracing::warn!(service = %self.service_id, execution = %attempt.execution_id, %error, "{what} could not be committed");
                Settled::NotNow
            }
            Refusal::Rejected(why) => {
                tracing::info!(service = %self.service_id, execution = %attempt.execution_id, %why, "{what} was refused");
                Settled::Refused
            }
            Refusal::Quarantined(why) => {
                tracing::warn!(service = %self.service_id, execution = %attempt.execution_id, why, "{what} was refused");
                Settled::Refused
            }
        }
    }

    /// Offers a request until it is committed or refused, or patience ends.
    async fn offer(&self, target: &Target, request: Request) -> Result<(), Refusal> {
        let until: Timestamp = self.clock.now().plus(self.patience);
        loop {
            let error = match self.handle.request(target.clone(), request.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let wait = match &error {
                CallError::Busy { retry_after } => *retry_after,
                CallError::Unavailable(_) => OFFER_AGAIN,
                CallError::Rejected(_)
                | CallError::ShuttingDown
                | CallError::Quarantined { .. } => {
                    return Err(error.into());
                }
            };
            if self.clock.now().plus(wait) > until {
                return Err(error.into());
            }
            seams::sleep(wait).await;
        }
    }
}

/// Why an offer was not taken.
#[derive(Debug)]
enum Refusal {
    Rejected(Rejection),
    Quarantined(String),
    NotNow(CallError),
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Rejected(rejection) => Self::Rejected(rejection),
            CallError::Quarantined { reason, .. } => Self::Quarantined(reason),
            CallError::Busy { .. } | CallError::Unavailable(_) | CallError::ShuttingDown => {
                Self::NotNow(error)
            }
        }
    }
}

/// The same late result sent again has the same id, whatever a service calls its execution.
fn signal_id(attempt: &Attempt, to: &Assignment) -> String {
    let event = to.scheduled_event_id;
    if attempt.execution_id.starts_with("e_") && attempt.execution_id.len() < 64 {
        return format!("late-{event}-{}", attempt.execution_id);
    }
    format!(
        "late-{event}-{}",
        derived("late result", &[attempt.execution_id.as_bytes()])
    )
}

/// The request of a result that comes after its task's activity has closed without one.
pub fn late_result(task: &str, result: &[u8], identity: String, request_id: String) -> Request {
    let task = serde_json::Value::from(task).to_string();
    let input = [
        br#"{"task":"#,
        task.as_bytes(),
        br#","result":"#,
        result,
        b"}",
    ]
    .concat();
    Request::Signal(Box::new(SignalWorkflow {
        name: LATE_RESULT_SIGNAL.to_owned(),
        input: Some(Payloads {
            payloads: vec![raw_json_payload(input)],
        }),
        identity,
        request_id,
        ..Default::default()
    }))
}

/// The request of an update.
pub fn progress(to: &Assignment, update: Vec<u8>) -> Request {
    Request::ReportActivityProgress(Box::new(ReportActivityProgress {
        activity: ActivityRef::Scheduled(to.scheduled_event_id),
        update: raw_json_payload(update),
    }))
}
