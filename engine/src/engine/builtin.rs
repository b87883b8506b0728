//! Built-in workflow code takes its turn in process, in the transaction that woke it.
//!
//! To the journal it is a worker like any other: Scheduled, Started, Completed, then its commands' events.

use std::borrow::Cow;

use orchestrion_history::ids::ShardId;
use orchestrion_history::request::{
    ActivityRef, CompleteWorkflowTask, FailActivity, Request, SignalWorkflow, TerminateWorkflow,
    WorkflowTaskStart,
};
use orchestrion_history::state::WorkflowTask;
use orchestrion_history::store::Key;
use orchestrion_history::{Context, decide};
use orchestrion_proto::prost::Message;
use orchestrion_proto::temporal::api::enums::v1::EventType;
use orchestrion_proto::temporal::api::failure::v1::failure::FailureInfo;
use orchestrion_proto::temporal::api::failure::v1::{ApplicationFailureInfo, Failure};

use super::core::Core;
use super::handle::{CallError, Target};
use super::matching::Waiting;
use super::round::{Inner, Round, RunKey};
use crate::orchestration::{
    self, CANCEL_SIGNAL, Effect, INTERRUPTED_FAILURE_TYPE, PLANNER_QUEUE, UNKEYED_MEMO,
    WORKFLOW_QUEUE, sdk_metadata,
};

const IDENTITY: &str = "orchestrion";

/// Whether the engine runs this workflow type itself.
pub(super) fn is_builtin(workflow_type: &str) -> bool {
    orchestration::is_builtin(workflow_type)
}

/// Whether the engine's own workers serve this queue, for every tenant.
pub(super) fn is_shared_queue(queue: &str) -> bool {
    matches!(queue, WORKFLOW_QUEUE | PLANNER_QUEUE)
}

/// A request as a built-in run takes it. The signal that asks for its end leaves a cancel request as well: a workflow that ends as
/// cancelled without one is nothing that SDKs can replay.
pub(super) fn taken(request: &Request) -> Cow<'_, Request> {
    match request {
        Request::Signal(signal) if signal.name == CANCEL_SIGNAL => {
            Cow::Owned(Request::Signal(Box::new(SignalWorkflow {
                cancels: true,
                ..(**signal).clone()
            })))
        }
        _ => Cow::Borrowed(request),
    }
}

/// Completes the workflow task of a built-in run, as often as one is scheduled.
pub(super) fn take_turns(
    core: &mut Core,
    round: &mut Round,
    run: &RunKey,
) -> Result<(), CallError> {
    loop {
        let Some(execution) = core.executions.get_mut(run) else {
            return Ok(());
        };
        let Some(interpreter) = &mut execution.interpreter else {
            return Ok(());
        };
        let WorkflowTask::Scheduled {
            scheduled_event_id,
            attempt,
            ..
        } = execution.state.workflow_task
        else {
            return Ok(());
        };
        let start = WorkflowTaskStart {
            scheduled_event_id,
            attempt,
            scheduled_at: round.now,
            at: round.now,
            request_id: format!("{scheduled_event_id}"),
            identity: IDENTITY.to_owned(),
            last_event_id: execution.state.next_event_id - 1,
            history_bytes: i64::try_from(execution.state.history_bytes).unwrap_or(i64::MAX),
            ..WorkflowTaskStart::default()
        };
        let first = execution.state.previous_started_event_id == 0;
        let turn = interpreter.turn(round.now);
        let complete = CompleteWorkflowTask {
            start,
            commands: turn.commands,
            identity: IDENTITY.to_owned(),
            sdk_metadata: first.then(sdk_metadata),
            ..CompleteWorkflowTask::default()
        };
        let context = Context {
            namespace: run.0.as_str(),
            built_in: true,
            ..Context::new(round.now, &core.options.limits)
        };
        let transition = decide(
            &execution.state,
            &context,
            &Request::CompleteWorkflowTask(Box::new(complete)),
        )?;
        let refused = transition
            .records
            .iter()
            .filter_map(|record| record.event())
            .find_map(|event| {
                (event.event_type() == EventType::WorkflowTaskFailed)
                    .then(|| format!("{:?}", event.attributes))
            });
        if let Some(reason) = refused {
            // The interpreter would say the same again: the run cannot go on, and must not look as if it did.
            tracing::error!(workflow_id = %execution.workflow_id, %reason, "the interpreter's commands were refused");
            return terminate(core, round, run, reason);
        }
        core.advance(round, run, transition.records)?;
        for effect in turn.effects {
            carry_out(core, round, run, &effect);
        }
    }
}

/// A planning that was asked for before this process took over, without a key to ask again by: its caller's connection is gone and it will
/// ask anew, so a plan made now would run beside that one.
pub(super) fn interrupted(core: &mut Core, waiting: &Waiting) -> Option<Inner> {
    let target = Target {
        namespace: waiting.namespace.clone(),
        workflow_id: waiting.workflow_id.clone(),
        run_id: Some(waiting.run_id),
    };
    let run = core.find(&target).ok()?;
    let state = &core.executions.get(&run)?.state;
    let planning = state.activities.get(&waiting.event_id)?.task_queue == PLANNER_QUEUE;
    if !planning
        || state.started_at >= core.recovered_at.0
        || !state.memo.contains_key(UNKEYED_MEMO)
    {
        return None;
    }
    let failure = Failure {
        message: "interrupted while planning".to_owned(),
        source: "Server".to_owned(),
        failure_info: Some(FailureInfo::ApplicationFailureInfo(
            ApplicationFailureInfo {
                r#type: INTERRUPTED_FAILURE_TYPE.to_owned(),
                non_retryable: true,
                ..Default::default()
            },
        )),
        ..Default::default()
    };
    let request = Request::FailActivity(Box::new(FailActivity {
        activity: ActivityRef::Scheduled(waiting.event_id),
        failure,
        identity: IDENTITY.to_owned(),
        last_heartbeat: None,
    }));
    Some(Inner {
        namespace: waiting.namespace.clone(),
        workflow_id: waiting.workflow_id.clone(),
        run_id: waiting.run_id,
        request,
    })
}

fn terminate(
    core: &mut Core,
    round: &mut Round,
    run: &RunKey,
    reason: String,
) -> Result<(), CallError> {
    let Some(execution) = core.executions.get(run) else {
        return Ok(());
    };
    let context = Context::new(round.now, &core.options.limits);
    let request = Request::Terminate(Box::new(TerminateWorkflow {
        reason: format!("commands refused: {reason}"),
        details: None,
        identity: IDENTITY.to_owned(),
    }));
    let transition = decide(&execution.state, &context, &request)?;
    core.advance(round, run, transition.records)
}

/// What a turn wants to leave the engine joins its batch.
fn carry_out(core: &mut Core, round: &mut Round, run: &RunKey, effect: &Effect) {
    if let Effect::CompensationFailed(record) = effect {
        let key = Key::Compensation {
            shard: ShardId::REGISTRY,
            namespace: run.0.clone(),
            id: record.id.clone(),
        };
        round.put(ShardId::REGISTRY, key, record.encode_to_vec().into());
    }
    for (key, value) in core.surroundings.outbox_entries(&run.0, effect) {
        round.outbox.push(key.clone());
        round.put(ShardId::REGISTRY, key, value);
    }
}
