//! Canned histories, numbered event by event: what happens outside, and what the interpreter makes of it. Workflow tasks take ids too.

mod again;
mod cancelling;
mod numbering;
mod planning;
mod replaying;
mod running;
mod undoing;

use orchestrion_history::ids::Timestamp;
use orchestrion_proto::temporal::api::enums::v1::{EventType, RetryState, TimeoutType};
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::history::v1::{
    ActivityTaskScheduledEventAttributes, HistoryEvent, MarkerRecordedEventAttributes,
};
use orchestrion_proto::v1::CompensationFailure;
use serde_json::{Value, json};

use super::world::*;
use super::{Effect, Interpreter};
use crate::orchestration::Options;
use crate::orchestration::submission::{json_or_null, json_payloads};
use crate::plan::PlanTask;

fn not_revertible(mut task: PlanTask) -> PlanTask {
    task.revertible = false;
    task
}

fn scheduled<'a>(world: &'a World, activity: &str) -> &'a ActivityTaskScheduledEventAttributes {
    let of = |event: &'a HistoryEvent| match &event.attributes {
        Some(Attributes::ActivityTaskScheduledEventAttributes(a)) if a.activity_id == activity => {
            Some(a)
        }
        _ => None,
    };
    world
        .events
        .iter()
        .rev()
        .find_map(of)
        .expect("it was scheduled")
}

fn record<'a>(world: &'a World, task: &str) -> &'a CompensationFailure {
    let of = |effect: &'a Effect| match effect {
        Effect::CompensationFailed(record) if record.task_id == task => Some(record),
        _ => None,
    };
    world
        .effects
        .iter()
        .find_map(of)
        .expect("there is a record of it")
}

fn planned(plan: Option<crate::plan::Plan>, reason: Option<&str>) -> Value {
    let outcome = if plan.is_some() {
        "planned"
    } else {
        "not_actionable"
    };
    json!({"outcome": outcome, "plan": plan, "reason": reason, "model": "m", "prompt_digest": "d", "prompt_tokens": 1,
           "completion_tokens": 2, "tries": 1, "duration_ms": 3, "verdict": "valid"})
}

/// Three tasks of which the third joins the other two; the first two are done, the second last.
fn joined() -> World {
    let mut world = World::of_tasks(&[
        task("task1", &[]),
        task("task2", &[]),
        task("task3", &["task1", "task2"]),
    ]);
    world
        .completed("task1", done(1))
        .turn()
        .completed("task2", done(2))
        .turn();
    world
}
