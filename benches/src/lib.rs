//! Journals to measure with, made by the core itself.

use orchestrion_history::ids::Timestamp;
use orchestrion_history::limits::Limits;
use orchestrion_history::record::Record;
use orchestrion_history::request::{
    CompleteWorkflowTask, Request, SignalWorkflow, StartWorkflow, WorkflowTaskStart,
};
use orchestrion_history::state::MutableState;
use orchestrion_history::{Context, apply, decide};
use orchestrion_proto::prost_wkt_types::Duration;
use orchestrion_proto::temporal::api::command::v1::command::Attributes;
use orchestrion_proto::temporal::api::command::v1::{
    Command, ScheduleActivityTaskCommandAttributes,
};
use orchestrion_proto::temporal::api::common::v1::{ActivityType, Payload, Payloads};
use orchestrion_proto::temporal::api::enums::v1::CommandType;
use orchestrion_proto::temporal::api::taskqueue::v1::TaskQueue;

const EPOCH: i64 = 1_700_000_000_000_000_000;

/// A request in a state, decided and applied.
///
/// # Panics
/// When the core refuses what a benchmark asks.
pub fn step(state: &mut MutableState, at: i64, request: &Request) -> Vec<Record> {
    let limits = Limits::default();
    let context = Context::new(Timestamp(EPOCH + at), &limits);
    let transition =
        decide(state, &context, request).expect("a benchmark asks nothing that is refused");
    for record in &transition.records {
        apply(state, record).expect("decide yields only what apply accepts");
    }
    transition.records
}

/// The start of a run.
pub fn start() -> Request {
    Request::Start(Box::new(StartWorkflow {
        run_id: "00000000-0000-7000-8000-000000000001".to_owned(),
        workflow_id: "bench".to_owned(),
        workflow_type: "bench".to_owned(),
        task_queue: "bench".to_owned(),
        request_id: "bench".to_owned(),
        ..Default::default()
    }))
}

/// A JSON string of 100 letters.
fn payloads() -> Payloads {
    let metadata = [("encoding".to_owned(), b"json/plain".to_vec())].into();
    let data = format!("\"{}\"", "x".repeat(100)).into_bytes();
    let payload = Payload {
        metadata,
        data,
        ..Default::default()
    };
    Payloads {
        payloads: vec![payload],
    }
}

/// A signal with a JSON string of 100 letters.
pub fn signal() -> Request {
    Request::Signal(Box::new(SignalWorkflow {
        name: "bench".to_owned(),
        input: Some(payloads()),
        ..Default::default()
    }))
}

/// The answer to a workflow task that asks for so many activities.
pub fn complete_with_activities(start: WorkflowTaskStart, count: usize) -> CompleteWorkflowTask {
    let command = |number: usize| {
        let attributes = ScheduleActivityTaskCommandAttributes {
            activity_id: number.to_string(),
            activity_type: Some(ActivityType {
                name: "bench".to_owned(),
            }),
            task_queue: Some(TaskQueue {
                name: "bench".to_owned(),
                ..Default::default()
            }),
            input: Some(payloads()),
            start_to_close_timeout: Some(Duration {
                seconds: 3_600,
                nanos: 0,
            }),
            ..Default::default()
        };
        Command {
            command_type: CommandType::ScheduleActivityTask.into(),
            attributes: Some(Attributes::ScheduleActivityTaskCommandAttributes(
                attributes,
            )),
            ..Default::default()
        }
    };
    CompleteWorkflowTask {
        start,
        commands: (0..count).map(command).collect(),
        ..Default::default()
    }
}

/// The journal of a run with so many signals.
pub fn journal(signals: usize) -> Vec<Record> {
    let mut state = MutableState::default();
    let mut records = step(&mut state, 0, &start());
    for at in 1..=signals {
        records.extend(step(&mut state, at as i64, &signal()));
    }
    records
}
