//! Orchestrations: plans run as ordinary workflow executions of one built-in type.
//!
//! ```text
//!   submission --WorkflowExecutionStarted--> history events --apply--> Interpreter --turn--> Commands (history again)
//!                                                                                    '-----> Effects  (webhooks, records)
//!   planner    <--activity plan.generate---- planning::serve
//!   callers    <--inspection, listing ------ view::View::fold(journal)
//! ```
//!
//! Invariant: nothing of an orchestration is decided outside its history: the interpreter reads no clock, no registry and no
//! store, and what it wants done are the commands and effects of a turn.
//! Invariant: effects come from live turns only; a replay sends nothing a second time.

pub mod desk;
pub mod dry_run;
pub mod effect;
pub mod interpreter;
pub mod planning;
pub mod revert;
pub mod submission;
pub mod view;

mod outcome;

pub use self::effect::{Effect, StatusChange};
pub use self::interpreter::{Interpreter, NonDeterminism, Turn};
pub use self::outcome::RevertStatus;
pub use self::outcome::{NoTaskResult, task_result_of};
pub use self::submission::{Action, Options, PlanningResult, Rules, Submission};

use orchestrion_history::ids::Timestamp;
use orchestrion_proto::temporal::api::history::v1::HistoryEvent;
use orchestrion_proto::temporal::api::sdk::v1::WorkflowTaskCompletedMetadata;

/// The workflow type of every orchestration. Persisted.
pub const WORKFLOW_TYPE: &str = "orchestrion.plan";
/// The workflow type of a revert that is run again by itself. Persisted.
pub const REVERT_WORKFLOW_TYPE: &str = "orchestrion.revert";
/// Whether the engine runs executions of this type itself: nobody outside starts one.
pub fn is_builtin(workflow_type: &str) -> bool {
    matches!(workflow_type, WORKFLOW_TYPE | REVERT_WORKFLOW_TYPE)
}

/// Where its workflow tasks wait; closed to foreign pollers. Persisted.
pub const WORKFLOW_QUEUE: &str = "orchestrion.plan";
/// Where planning activities wait; closed to foreign pollers. Persisted.
pub const PLANNER_QUEUE: &str = "orchestrion.planner";
/// The activity type of a planning. Persisted.
pub const PLAN_ACTIVITY_TYPE: &str = "plan.generate";
/// The activity id of a planning. Persisted.
pub const PLAN_ACTIVITY_ID: &str = "plan";
/// The signal that carries a result which came after its activity had closed: `{"task":id,"result":{task,compensation}}`. Persisted.
pub const LATE_RESULT_SIGNAL: &str = "orchestrion.late_result";
/// The signal that asks for the end of an orchestration and says whether what was done is undone:
/// `{"reason":text,"compensate":bool}`. A cancel request asks for the end and the undoing. Persisted.
pub const CANCEL_SIGNAL: &str = "orchestrion.cancel";
/// The reason of a cancel for which nobody gave one.
pub const UNREASONED: &str = "no reason was given";
/// The header field of a revert: why it is asked for. Persisted.
pub const COMPENSATION_HEADER: &str = "orchestrion-compensation";
/// The header field of a revert that is run again: the idempotency key of the one before, where the service may have done it. Persisted.
pub const IDEMPOTENCY_HEADER: &str = "orchestrion-idempotency-key";
/// What stands before a task's id in the activity id of its revert. Persisted.
pub const REVERT_ID_PREFIX: &str = "revert:";
/// What stands before a task's id in the id of the timer that waits for its late result, in runs whose rules number no timers. Persisted.
pub const LATE_TIMER_PREFIX: &str = "late:";
/// What stands behind a service's name in the activity type of its reverts. Persisted.
pub const REVERT_TYPE_SUFFIX: &str = ".revert";
/// The memo field of a run that was submitted without an idempotency key: nobody can ask for its planning again. Persisted.
pub const UNKEYED_MEMO: &str = "unkeyed";
/// The memo field of the grounding under which a submitted plan was checked. Persisted.
pub const GROUNDING_MEMO: &str = "grounding";
/// The failure type of a planning whose caller was lost with the engine.
pub const INTERRUPTED_FAILURE_TYPE: &str = "InterruptedWhilePlanning";
/// The failure type with which a service aborts an orchestration; its details are the payload. Persisted.
pub const ABORT_FAILURE_TYPE: &str = "abort";

/// What the first `WorkflowTaskCompleted` of an orchestration carries. The flags are those of the SDK core: without the first, a
/// replayer checks neither ids nor types of activities; without the third, it drops commands behind a terminal one.
pub fn sdk_metadata() -> WorkflowTaskCompletedMetadata {
    WorkflowTaskCompletedMetadata {
        core_used_flags: vec![1, 2, 3],
        lang_used_flags: Vec::new(),
        sdk_name: "orchestrion".to_owned(),
        sdk_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// When an event happened.
fn time_of(event: &HistoryEvent) -> Timestamp {
    let nanos = |at: &orchestrion_proto::prost_wkt_types::Timestamp| {
        at.seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::from(at.nanos))
    };
    Timestamp(event.event_time.as_ref().map_or(0, nanos))
}
