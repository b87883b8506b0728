//! Finds the activity of a message when its connection's memory does not: after a reconnect, after a restart, after a slot was given up.
//!
//! Invariant: nothing is found that is not on the queue of the asking service, in the asking project.

use orchestrion_history::ids::Namespace;
use orchestrion_history::record::Record;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::history::v1::{
    ActivityTaskScheduledEventAttributes, HistoryEvent,
};
use orchestrion_proto::v1::note;

use super::key::ActivityKey;
use super::{Assignment, Attempt};
use crate::engine::handle::{CallError, Handle, Run, Target};
use crate::orchestration::{COMPENSATION_HEADER, REVERT_TYPE_SUFFIX, is_builtin};
use crate::registry::ids::execution_id;

/// How an activity stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It has not ended.
    Open,
    /// It ended with a result.
    WithResult,
    /// It timed out, failed or was cancelled.
    WithoutResult,
}

/// An activity found by its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Which.
    pub assignment: Assignment,
    /// How it stands.
    pub ending: Ending,
    /// Whether it is an orchestration's.
    pub builtin: bool,
}

/// Why nothing was found.
#[derive(Debug, Clone, PartialEq)]
pub enum Lost {
    /// There is no such work of this service.
    Nowhere(&'static str),
    /// The store cannot say now.
    Unreadable(CallError),
}

impl From<CallError> for Lost {
    fn from(error: CallError) -> Self {
        Self::Unreadable(error)
    }
}

/// Finds an activity by the key and the execution id a service echoes.
pub fn locate(
    handle: &Handle,
    namespace: &Namespace,
    service_id: &str,
    attempt: &Attempt,
) -> Result<Located, Lost> {
    let key = ActivityKey::parse(&attempt.idempotency_key)
        .ok_or(Lost::Nowhere("the idempotency key is not one of ours"))?;
    let target = Target {
        namespace: namespace.clone(),
        workflow_id: key.workflow_id.clone(),
        run_id: None,
    };
    let run = handle
        .journal(&target)?
        .ok_or(Lost::Nowhere("there is no such execution"))?;
    if !key.is_of(namespace, run.run_id) {
        return Err(Lost::Nowhere("the idempotency key is not of this run"));
    }
    find(
        &run,
        namespace,
        Some(service_id),
        key.scheduled_event_id,
        &attempt.execution_id,
    )
}

/// How the activity of a known event stands. Without a service, whoever asks may speak for any of the project.
pub fn locate_event(
    handle: &Handle,
    service_id: Option<&str>,
    target: &Target,
    event: i64,
) -> Result<Located, Lost> {
    let run = handle
        .journal(target)?
        .ok_or(Lost::Nowhere("there is no such execution any more"))?;
    find(&run, &target.namespace, service_id, event, "")
}

fn find(
    run: &Run,
    namespace: &Namespace,
    service_id: Option<&str>,
    event: i64,
    execution: &str,
) -> Result<Located, Lost> {
    let scheduled = run
        .records
        .iter()
        .filter_map(Record::event)
        .find_map(|e| scheduled(e, event));
    let scheduled = scheduled.ok_or(Lost::Nowhere("the execution has no such activity"))?;
    let queue = scheduled.task_queue.as_ref().map(|queue| &*queue.name);
    if service_id.is_some() && queue != service_id {
        return Err(Lost::Nowhere("the activity is another service's"));
    }
    let workflow_type = workflow_type(run);
    let revert = is_revert(
        workflow_type,
        scheduled
            .activity_type
            .as_ref()
            .map_or("", |kind| &kind.name),
        scheduled
            .header
            .as_ref()
            .is_some_and(|header| header.fields.contains_key(COMPENSATION_HEADER)),
    );
    let attempt = started_attempts(run, event)
        .find(|n| execution_id(run.run_id, event, *n, revert) == execution);
    let ending = run
        .records
        .iter()
        .filter_map(Record::event)
        .find_map(|e| ending(e, event))
        .unwrap_or(Ending::Open);
    Ok(Located {
        assignment: Assignment {
            target: Target {
                namespace: namespace.clone(),
                workflow_id: run.workflow_id.clone(),
                run_id: Some(run.run_id),
            },
            scheduled_event_id: event,
            attempt,
            activity_id: scheduled.activity_id.clone(),
            revert,
        },
        ending,
        builtin: is_builtin(workflow_type),
    })
}

/// In a plan a service may be named `x.revert`; only a revert of ours has the header as well. Workflow code of others says it by the type.
pub fn is_revert(workflow_type: &str, activity_type: &str, has_context: bool) -> bool {
    activity_type.ends_with(REVERT_TYPE_SUFFIX) && (has_context || !is_builtin(workflow_type))
}

/// The type of the workflow of a run.
fn workflow_type(run: &Run) -> &str {
    let first = run.records.iter().find_map(Record::event);
    match first.and_then(|event| event.attributes.as_ref()) {
        Some(Attributes::WorkflowExecutionStartedEventAttributes(started)) => {
            started.workflow_type.as_ref().map_or("", |kind| &kind.name)
        }
        _ => "",
    }
}

fn scheduled(event: &HistoryEvent, id: i64) -> Option<&ActivityTaskScheduledEventAttributes> {
    match &event.attributes {
        Some(Attributes::ActivityTaskScheduledEventAttributes(scheduled))
            if event.event_id == id =>
        {
            Some(scheduled)
        }
        _ => None,
    }
}

fn ending(event: &HistoryEvent, id: i64) -> Option<Ending> {
    let (scheduled, ending) = match event.attributes.as_ref()? {
        Attributes::ActivityTaskCompletedEventAttributes(e) => {
            (e.scheduled_event_id, Ending::WithResult)
        }
        Attributes::ActivityTaskFailedEventAttributes(e) => {
            (e.scheduled_event_id, Ending::WithoutResult)
        }
        Attributes::ActivityTaskTimedOutEventAttributes(e) => {
            (e.scheduled_event_id, Ending::WithoutResult)
        }
        Attributes::ActivityTaskCanceledEventAttributes(e) => {
            (e.scheduled_event_id, Ending::WithoutResult)
        }
        _ => return None,
    };
    (scheduled == id).then_some(ending)
}

/// The attempts that a worker was given, latest first.
fn started_attempts(run: &Run, event: i64) -> impl Iterator<Item = i32> + '_ {
    run.records
        .iter()
        .rev()
        .filter_map(move |record| match record {
            Record::Note(note) => match &note.kind {
                Some(note::Kind::ActivityAttemptStarted(started))
                    if started.scheduled_event_id == event =>
                {
                    Some(started.attempt)
                }
                _ => None,
            },
            Record::Event(_) => None,
        })
}

#[cfg(test)]
mod tests {
    use orchestrion_history::ids::{RunId, WorkflowId};
    use orchestrion_proto::temporal::api::common::v1::{
        ActivityType, Header, Payload, WorkflowType,
    };
    use orchestrion_proto::temporal::api::history::v1::{
        ActivityTaskCompletedEventAttributes, ActivityTaskTimedOutEventAttributes,
        WorkflowExecutionStartedEventAttributes,
    };
    use orchestrion_proto::temporal::api::taskqueue::v1::TaskQueue;
    use orchestrion_proto::v1::{ActivityAttemptStarted, Note};

    use super::*;
    use crate::orchestration::WORKFLOW_TYPE;

    const RUN: RunId = RunId([5; 16]);

    fn event(event_id: i64, attributes: Attributes) -> Record {
        Record::Event(Box::new(HistoryEvent {
            event_id,
            attributes: Some(attributes),
            ..Default::default()
        }))
    }

    fn schedule(event_id: i64, id: &str, kind: &str, revert: bool) -> Record {
        let header = Header {
            fields: [(COMPENSATION_HEADER.to_owned(), Payload::default())]
                .into_iter()
                .collect(),
        };
        event(
            event_id,
            Attributes::ActivityTaskScheduledEventAttributes(
                ActivityTaskScheduledEventAttributes {
                    activity_id: id.to_owned(),
                    activity_type: Some(ActivityType {
                        name: kind.to_owned(),
                    }),
                    task_queue: Some(TaskQueue {
                        name: "s_a".to_owned(),
                        ..Default::default()
                    }),
                    header: revert.then_some(header),
                    ..Default::default()
                },
            ),
        )
    }

    fn start(event: i64, attempt: i32) -> Record {
        let kind = note::Kind::ActivityAttemptStarted(ActivityAttemptStarted {
            scheduled_event_id: event,
            attempt,
            ..Default::default()
        });
        Record::Note(Box::new(Note {
            at: 1,
            kind: Some(kind),
        }))
    }

    /// ```text
    ///   1  WorkflowExecutionStarted
    ///   5  ActivityTaskScheduled  task1 on s_a          attempts 1, 2
    ///   6  ActivityTaskScheduled  revert:task1 on s_a   attempt 1
    ///   7  ActivityTaskTimedOut   task1
    ///   8  ActivityTaskScheduled  task2 on s_a, service "x.revert"
    ///   9  ActivityTaskCompleted  task2
    /// ```
    fn run() -> Run {
        let timed_out = ActivityTaskTimedOutEventAttributes {
            scheduled_event_id: 5,
            ..Default::default()
        };
        let completed = ActivityTaskCompletedEventAttributes {
            scheduled_event_id: 8,
            ..Default::default()
        };
        Run {
            workflow_id: WorkflowId::parse("o_1").unwrap(),
            run_id: RUN,
            records: vec![
                begun(WORKFLOW_TYPE),
                schedule(5, "task1", "echo", false),
                start(5, 1),
                start(5, 2),
                schedule(6, "revert:task1", "echo.revert", true),
                start(6, 1),
                event(
                    7,
                    Attributes::ActivityTaskTimedOutEventAttributes(timed_out),
                ),
                schedule(8, "task2", "x.revert", false),
                event(
                    9,
                    Attributes::ActivityTaskCompletedEventAttributes(completed),
                ),
            ],
        }
    }

    fn found(event: i64, execution: &str) -> Result<Located, Lost> {
        find(
            &run(),
            &Namespace::parse("p_1").unwrap(),
            Some("s_a"),
            event,
            execution,
        )
    }

    #[test]
    fn an_attempt_is_known_by_its_execution_id() {
        let located = found(5, &execution_id(RUN, 5, 2, false)).unwrap();
        assert_eq!(located.assignment.attempt, Some(2));
        assert_eq!(located.assignment.activity_id, "task1");
        assert_eq!(located.ending, Ending::WithoutResult);
        assert_eq!(found(5, "e_else").unwrap().assignment.attempt, None);
    }

    fn begun(workflow_type: &str) -> Record {
        event(
            1,
            Attributes::WorkflowExecutionStartedEventAttributes(
                WorkflowExecutionStartedEventAttributes {
                    workflow_type: Some(WorkflowType {
                        name: workflow_type.to_owned(),
                    }),
                    ..Default::default()
                },
            ),
        )
    }

    #[test]
    fn workflow_code_of_others_says_by_the_type_that_it_undoes() {
        let mut run = run();
        run.records[0] = begun("Shop");
        let found = |event| {
            let namespace = Namespace::parse("p_1").unwrap();
            find(&run, &namespace, Some("s_a"), event, "").unwrap()
        };
        assert!(found(8).assignment.revert);
        assert!(!found(5).assignment.revert && !found(5).builtin);
    }

    #[test]
    fn a_revert_is_told_from_a_service_of_that_name() {
        let located = found(6, &execution_id(RUN, 6, 1, true)).unwrap();
        assert!(located.assignment.revert);
        assert_eq!(
            (located.assignment.attempt, located.ending),
            (Some(1), Ending::Open)
        );
        let located = found(8, "").unwrap();
        assert!(!located.assignment.revert);
        assert_eq!(located.ending, Ending::WithResult);
    }

    #[test]
    fn another_services_activity_is_not_found() {
        let located = find(
            &run(),
            &Namespace::parse("p_1").unwrap(),
            Some("s_b"),
            5,
            "",
        );
        assert_eq!(
            located,
            Err(Lost::Nowhere("the activity is another service's"))
        );
        assert!(matches!(found(7, ""), Err(Lost::Nowhere(_))));
        assert!(matches!(found(99, ""), Err(Lost::Nowhere(_))));
    }
}
