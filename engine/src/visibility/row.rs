//! One row of the index: its attributes, and as the wire shows it.

use orchestrion_history::ids::RunId;
use orchestrion_proto::prost_wkt_types::{Duration, Timestamp};
use orchestrion_proto::temporal::api::common::v1::{WorkflowExecution, WorkflowType};
use orchestrion_proto::temporal::api::enums::v1::WorkflowExecutionStatus;
use orchestrion_proto::temporal::api::workflow::v1::WorkflowExecutionInfo;
use orchestrion_proto::v1::Visibility;

use super::attributes::{self, Attribute, Field, Value};
use super::query::{Fields, status_name};

impl Fields for Visibility {
    fn value(&self, attribute: &Attribute) -> Option<Value> {
        match attribute {
            Attribute::Field(field) => self.field(*field),
            Attribute::Kept { name, kind } => {
                let fields = &self.search_attributes.as_ref()?.indexed_fields;
                // A value that was kept under another type is as good as none.
                attributes::read(*kind, fields.get(&**name)?).ok()
            }
        }
    }
}

trait Known {
    fn field(&self, field: Field) -> Option<Value>;
    fn closed(&self) -> Option<i64>;
}

impl Known for Visibility {
    fn field(&self, field: Field) -> Option<Value> {
        let keyword = |text: &str| Some(Value::Keyword(text.to_owned()));
        let some = |text: &str| (!text.is_empty()).then(|| Value::Keyword(text.to_owned()));
        let own = |text: &str, own: String| {
            let text = if text.is_empty() {
                own
            } else {
                text.to_owned()
            };
            Some(Value::Keyword(text))
        };
        match field {
            Field::WorkflowId => keyword(&self.workflow_id),
            Field::RunId => Some(Value::Keyword(run_id(self))),
            Field::WorkflowType => keyword(&self.workflow_type),
            Field::StartTime => Some(Value::Datetime(self.started_at)),
            Field::ExecutionTime => Some(Value::Datetime(execution_at(self))),
            Field::CloseTime => self.closed().map(Value::Datetime),
            Field::ExecutionStatus => status_name(self.status).and_then(keyword),
            Field::TaskQueue => keyword(&self.task_queue),
            Field::HistoryLength => self.closed().map(|_| Value::Int(self.history_length)),
            Field::HistorySizeBytes => self.closed().map(|_| Value::Int(self.history_bytes)),
            Field::ExecutionDuration => self
                .closed()
                .map(|at| Value::Int(at.saturating_sub(execution_at(self)).max(0))),
            Field::StateTransitionCount => {
                self.closed().map(|_| Value::Int(self.state_transitions))
            }
            Field::ParentWorkflowId => some(&self.parent_workflow_id),
            Field::ParentRunId => some(&self.parent_run_id),
            Field::RootWorkflowId => own(&self.root_workflow_id, self.workflow_id.clone()),
            Field::RootRunId => own(&self.root_run_id, run_id(self)),
        }
    }

    fn closed(&self) -> Option<i64> {
        const OPEN: [i32; 2] = [
            WorkflowExecutionStatus::Running as i32,
            WorkflowExecutionStatus::Paused as i32,
        ];
        (!OPEN.contains(&self.status)).then_some(self.closed_at)
    }
}

fn execution_at(row: &Visibility) -> i64 {
    row.execution_at.max(row.started_at)
}

fn run_id(row: &Visibility) -> String {
    let bytes = <[u8; 16]>::try_from(&row.run_id[..]).unwrap_or_default();
    RunId(bytes).to_string()
}

/// As clients of the Temporal API are shown it.
pub fn info(row: Visibility) -> WorkflowExecutionInfo {
    let closed = row.closed();
    let run_id = run_id(&row);
    let of = |workflow_id: &str, run_id: &str| WorkflowExecution {
        workflow_id: workflow_id.to_owned(),
        run_id: run_id.to_owned(),
    };
    let parent = (!row.parent_workflow_id.is_empty())
        .then(|| of(&row.parent_workflow_id, &row.parent_run_id));
    let root = if row.root_workflow_id.is_empty() {
        of(&row.workflow_id, &run_id)
    } else {
        of(&row.root_workflow_id, &row.root_run_id)
    };
    WorkflowExecutionInfo {
        execution: Some(of(&row.workflow_id, &run_id)),
        first_run_id: row.first_run_id.clone(),
        start_time: Some(timestamp(row.started_at)),
        execution_time: Some(timestamp(execution_at(&row))),
        close_time: closed.map(timestamp),
        execution_duration: closed.map(|at| {
            let nanos = at.saturating_sub(execution_at(&row)).max(0);
            Duration {
                seconds: nanos / 1_000_000_000,
                nanos: (nanos % 1_000_000_000) as i32,
            }
        }),
        r#type: Some(WorkflowType {
            name: row.workflow_type,
        }),
        status: row.status,
        history_length: row.history_length,
        history_size_bytes: row.history_bytes,
        state_transition_count: row.state_transitions,
        parent_execution: parent,
        root_execution: Some(root),
        memo: row.memo,
        search_attributes: row.search_attributes,
        task_queue: row.task_queue,
        ..Default::default()
    }
}

fn timestamp(nanos: i64) -> Timestamp {
    Timestamp {
        seconds: nanos.div_euclid(1_000_000_000),
        nanos: nanos.rem_euclid(1_000_000_000) as i32,
    }
}
