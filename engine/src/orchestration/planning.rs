//! The planning worker: it takes planning activities of every tenant, asks the planner once per attempt, and answers with what came of
//! it. The retries are the activity's.
//!
//! ```text
//!  Dispatch (submission, what was wrong before) --desk--> Made      --> CompleteActivity PlanningResult
//!                                                         PlanError --> FailActivity Invalid | Malformed | TimedOut | Unavailable | Refused
//! ```
//!
//! Invariant: a planning is recorded before anybody hears of it; an answer whose attempt is over is dropped.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use orchestrion_history::ids::TaskQueueName;
use orchestrion_history::request::{ActivityRef, CompleteActivity, FailActivity, Request};
use orchestrion_proto::temporal::api::common::v1::Payloads;
use orchestrion_proto::temporal::api::failure::v1::failure::FailureInfo;
use orchestrion_proto::temporal::api::failure::v1::{ApplicationFailureInfo, Failure};

use super::PLANNER_QUEUE;
use super::desk::{Desk, Wanted};
use super::submission::{Submission, json_or_null, json_payload, json_payloads, read_json};
use crate::engine::handle::{CallError, Dispatch, Handle, Session, SessionId, Target};
use crate::planner::{Cost, FailedAttempt, PlanError};
use crate::seams;

/// Plannings that may run at once, of all tenants together.
const WINDOW: u32 = 64;
const IDENTITY: &str = "orchestrion planner";
/// The source of a planning's failures. Persisted.
const FAILURE_SOURCE: &str = "planner";
/// How often an answer is offered to an engine that cannot take it.
const OFFERS_MAX: u32 = 6;
const OFFER_WAIT_INITIAL: Duration = Duration::from_millis(100);
const ATTACH_WAIT: Duration = Duration::from_millis(500);

/// Plans for every tenant until the engine stops, with what a tenant has at the moment of the attempt.
pub async fn serve(handle: Handle, desk: Arc<Desk>) {
    let Some(mut session) = attach(&handle).await else {
        return;
    };
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased; // The same things happen in the same order.
            task = session.tasks.recv() => match task {
                Some(task) => running.push(work(&handle, &desk, session.id, task)),
                None => return,
            },
            Some(()) = running.next(), if !running.is_empty() => {}
        }
    }
}

/// `None` when the engine stops.
async fn attach(handle: &Handle) -> Option<Session> {
    let queue =
        TaskQueueName::parse(PLANNER_QUEUE).expect("the name of the planner's queue is a name");
    loop {
        match handle
            .attach(None, queue.clone(), IDENTITY.to_owned(), WINDOW)
            .await
        {
            Ok(session) => return Some(session),
            Err(CallError::ShuttingDown) => return None,
            Err(error) => {
                tracing::warn!(%error, "the planner cannot attach to its queue; it tries again");
                seams::sleep(ATTACH_WAIT).await;
            }
        }
    }
}

async fn work(handle: &Handle, desk: &Desk, session: SessionId, task: Dispatch) {
    let made = match read_json::<Submission>(task.input.as_ref()) {
        Ok(submission) => {
            let feedback = feedback_of(task.last_failure.as_ref());
            let wanted = Wanted {
                action: &submission.action.content,
                data: &submission.data,
                feedback: feedback.as_deref(),
                attempt: u32::try_from(task.attempt).unwrap_or(1),
            };
            desk.plan(&task.namespace, wanted).await
        }
        Err(bad) => Err(FailedAttempt {
            error: PlanError::Refused(format!("the submission cannot be read: {bad}")),
            cost: Cost::default(),
        }),
    };
    let activity = ActivityRef::Attempt {
        scheduled_event_id: task.scheduled_event_id,
        attempt: task.attempt,
    };
    let identity = IDENTITY.to_owned();
    let (request, made) = match made {
        Ok(made) => {
            let complete = CompleteActivity {
                activity,
                result: Some(json_payloads(&made.result)),
                identity,
            };
            (Request::CompleteActivity(Box::new(complete)), Some(made))
        }
        Err(failed) => {
            let fail = FailActivity {
                activity,
                failure: *failure_of(&failed),
                identity,
                last_heartbeat: None,
            };
            (Request::FailActivity(Box::new(fail)), None)
        }
    };
    let namespace = task.namespace.clone();
    let target = Target {
        namespace: task.namespace,
        workflow_id: task.workflow_id,
        run_id: Some(task.run_id),
    };
    offer(handle, &target, request).await;
    handle.release(session);
    if let Some(made) = made {
        // The plan is recorded already: nobody waits for its being kept.
        desk.keep(&namespace, made).await;
    }
}

/// Answers the attempt. If the engine cannot take the answer for long, the attempt times out and another one plans.
async fn offer(handle: &Handle, target: &Target, request: Request) {
    let workflow_id = &target.workflow_id;
    let mut wait = OFFER_WAIT_INITIAL;
    for _ in 0..OFFERS_MAX {
        match handle.request(target.clone(), request.clone()).await {
            Ok(_) | Err(CallError::ShuttingDown) => return,
            Err(CallError::Rejected(why)) => {
                tracing::debug!(%workflow_id, %why, "an answer of the planner came too late");
                return;
            }
            Err(CallError::Quarantined { reason, .. }) => {
                tracing::warn!(%workflow_id, %reason, "an answer of the planner is of no use");
                return;
            }
            Err(error @ (CallError::Busy { .. } | CallError::Unavailable(_))) => {
                tracing::debug!(%workflow_id, %error, "the engine cannot take an answer of the planner; it is offered again");
                seams::sleep(wait).await;
                wait *= 2;
            }
        }
    }
    tracing::warn!(%workflow_id, "the engine did not take an answer of the planner; the attempt will time out");
}

/// How a failed attempt is recorded; what nobody was asked for cost nothing.
fn failure_of(failed: &FailedAttempt) -> Box<Failure> {
    let FailedAttempt { error, cost } = failed;
    let cost = (*cost != Cost::default()).then_some(cost);
    failure(kind_of(error), error.to_string(), error.feedback(), cost)
}

fn kind_of(error: &PlanError) -> &'static str {
    match error {
        PlanError::Invalid { .. } => "Invalid",
        PlanError::Malformed(_) | PlanError::Empty => "Malformed",
        PlanError::TimedOut { .. } => "TimedOut",
        PlanError::Unavailable(_) => "Unavailable",
        PlanError::Refused(_) => "Refused",
    }
}

/// The message is what people read. The first detail is what the next attempt is told, null if nothing; the second is what this one
/// cost, if anybody was asked. Persisted.
fn failure(
    kind: &str,
    message: String,
    feedback: Option<String>,
    cost: Option<&Cost>,
) -> Box<Failure> {
    let mut details = Vec::new();
    if feedback.is_some() || cost.is_some() {
        details.push(json_payload(&feedback));
    }
    details.extend(cost.map(json_payload));
    let info = ApplicationFailureInfo {
        r#type: kind.to_owned(),
        non_retryable: kind == "Refused",
        details: (!details.is_empty()).then_some(Payloads { payloads: details }),
        ..Default::default()
    };
    let failure_info = Some(FailureInfo::ApplicationFailureInfo(info));
    Box::new(Failure {
        message,
        source: FAILURE_SOURCE.to_owned(),
        failure_info,
        ..Default::default()
    })
}

/// What was wrong with the plan of the attempt before.
fn feedback_of(last_failure: Option<&Failure>) -> Option<String> {
    let Some(FailureInfo::ApplicationFailureInfo(info)) = &last_failure?.failure_info else {
        return None;
    };
    let feedback = json_or_null(info.details.as_ref()?.payloads.first());
    feedback.as_str().map(str::to_owned)
}

/// What a failed attempt of a planning cost, if anybody was asked.
pub(crate) fn cost_of(failure: Option<&Failure>) -> Option<Cost> {
    let failure = failure.filter(|failure| failure.source == FAILURE_SOURCE)?;
    let Some(FailureInfo::ApplicationFailureInfo(info)) = &failure.failure_info else {
        return None;
    };
    let cost = info.details.as_ref()?.payloads.get(1)?;
    serde_json::from_value(json_or_null(Some(cost))).ok()
}

#[cfg(test)]
mod tests {
    use orchestrion_history::ids::{Namespace, RunId, Timestamp, WorkflowId};
    use orchestrion_history::request::Rejection;

    use super::*;
    use crate::engine::call::{Call, ReplyTo};
    use crate::grounding::Matcher;
    use crate::orchestration::submission::{PlanningOutcome, PlanningResult};
    use crate::orchestration::{Action, PLAN_ACTIVITY_ID, PLAN_ACTIVITY_TYPE, WORKFLOW_TYPE};
    use crate::plan::Service;
    use crate::planner::Planner;
    use crate::planner::builtin::BuiltinPlanner;

    fn failed(error: PlanError) -> Box<Failure> {
        let cost = Cost {
            model: "m-1".to_owned(),
            prompt_tokens: 11,
            completion_tokens: 7,
            tries: 2,
            ..Cost::default()
        };
        failure_of(&FailedAttempt { error, cost })
    }

    #[test]
    fn what_a_failed_attempt_cost_is_recorded() {
        let failure = failed(PlanError::Unavailable("503".to_owned()));
        let cost = cost_of(Some(&failure)).unwrap();
        assert_eq!(
            (
                cost.model.as_str(),
                cost.prompt_tokens,
                cost.completion_tokens,
                cost.tries
            ),
            ("m-1", 11, 7, 2)
        );
        let unasked = super::failure("Refused", "no services".to_owned(), None, None);
        assert_eq!(cost_of(Some(&unasked)), None);
        assert_eq!(cost_of(None), None);
    }

    #[test]
    fn the_next_attempt_is_told_what_was_wrong_with_a_plan_and_not_what_was_wrong_with_the_line() {
        let failed = failed(PlanError::Malformed("it is no JSON".to_owned()));
        assert_eq!(
            failed.message,
            "the planner's answer is no plan: it is no JSON"
        );
        assert_eq!(feedback_of(Some(&failed)).as_deref(), Some("it is no JSON"));
        let failed = super::tests::failed(PlanError::Unavailable("503".to_owned()));
        assert_eq!(feedback_of(Some(&failed)), None);
        assert_eq!(feedback_of(None), None);
    }

    #[test]
    fn a_refusal_is_final() {
        let of = |error| match failed(error).failure_info {
            Some(FailureInfo::ApplicationFailureInfo(info)) => (info.r#type, info.non_retryable),
            _ => panic!("it is an application failure"),
        };
        assert_eq!(
            of(PlanError::Refused("the key is wrong".to_owned())),
            ("Refused".to_owned(), true)
        );
        assert_eq!(
            of(PlanError::TimedOut { limit_ms: 5 }),
            ("TimedOut".to_owned(), false)
        );
    }

    /// An engine that refuses the first answer and takes the second.
    #[tokio::test]
    async fn an_attempt_is_answered_before_its_slot_is_given_back() {
        let (inbox, calls) = crossbeam_channel::bounded(16);
        let store = Arc::new(orchestrion_history::store::MemoryStore::default());
        let handle = Handle {
            inbox,
            store,
            shards: 1,
        };
        let engine = std::thread::spawn(move || {
            let next = || calls.recv().expect("the planner calls");
            let Call::Attach {
                namespace,
                queue,
                poller,
                reply,
            } = next()
            else {
                panic!("it attaches")
            };
            assert_eq!((namespace, queue.as_str()), (None, PLANNER_QUEUE));
            reply.send(SessionId(7)).expect("it waits for its session");
            poller.tasks.send(dispatch()).expect("it waits for tasks");
            let Call::Request {
                reply: ReplyTo::Caller(reply),
                ..
            } = next()
            else {
                panic!("it answers")
            };
            let busy = CallError::Unavailable("the disk is full".to_owned());
            reply.send(Err(busy)).expect("it waits for the commit");
            let Call::Request {
                target,
                request,
                reply: ReplyTo::Caller(reply),
            } = next()
            else {
                panic!("it answers again")
            };
            assert_eq!(target.run_id, Some(RunId([1; 16])));
            reply
                .send(Err(CallError::Rejected(Rejection::Closed)))
                .expect("it waits for the commit");
            let Call::Release { session } = next() else {
                panic!("it gives its slot back")
            };
            assert_eq!(session, SessionId(7));
            *request
        });
        let desk = Desk {
            planner: Planner::Builtin(BuiltinPlanner),
            services: Box::new(|namespace| {
                assert_eq!(namespace.as_str(), "p_1");
                Arc::from([Service {
                    id: "s_echo".to_owned(),
                    name: "echo".to_owned(),
                    description: "echoes".to_owned(),
                    input_schema: serde_json::json!({"type": "object"}).into(),
                    output_schema: serde_json::json!({"type": "object"}),
                    revertible: false,
                }])
            }),
            groundings: Box::new(|_| Vec::new()),
            matcher: Matcher::default(),
            cache: None,
        };
        serve(handle, Arc::new(desk)).await;
        let Ok(Request::CompleteActivity(complete)) = engine.join() else {
            panic!("a planning completes")
        };
        assert_eq!(
            complete.activity,
            ActivityRef::Attempt {
                scheduled_event_id: 5,
                attempt: 1
            }
        );
        let result: PlanningResult = read_json(complete.result.as_ref()).unwrap();
        assert_eq!(
            result.outcome,
            PlanningOutcome::NotActionable,
            "no service bakes"
        );
    }

    fn dispatch() -> Dispatch {
        let submission = Submission {
            webhook: None,
            action: Action {
                content: "bake bread".to_owned(),
                ..Default::default()
            },
            data: Vec::new(),
            plan: None,
            ..Default::default()
        };
        Dispatch {
            namespace: Namespace::parse("p_1").unwrap(),
            workflow_id: WorkflowId::parse("o_1").unwrap(),
            run_id: RunId([1; 16]),
            workflow_type: WORKFLOW_TYPE.to_owned(),
            scheduled_event_id: 5,
            attempt: 1,
            number: 1,
            activity_id: PLAN_ACTIVITY_ID.to_owned(),
            activity_type: PLAN_ACTIVITY_TYPE.to_owned(),
            input: Some(json_payloads(&submission)),
            header: None,
            heartbeat_details: None,
            last_failure: None,
            scheduled_at: Timestamp::ZERO,
            attempt_scheduled_at: Timestamp::ZERO,
            started_at: Timestamp::ZERO,
            start_to_close: Duration::ZERO,
            schedule_to_close: Duration::ZERO,
            heartbeat: Duration::ZERO,
            retry: Default::default(),
            priority: None,
        }
    }
}
