//! The state machines of a run, one per file, and the two functions that dispatch to them.
//!
//! Each file opens with its transition table; `decide` there asks, then drafts; `apply` there is one match over state
//! and record whose last arm is illegal.

pub mod activity;
pub mod cancel;
pub mod child;
pub mod continue_as_new;
pub mod external;
pub mod pause;
pub mod property;
pub mod reset;
mod retry;
pub mod signal;
pub mod timer;
pub mod update;
pub mod workflow;
pub mod workflow_id;
pub mod workflow_task;

use orchestrion_proto::temporal::api::common::v1::SearchAttributes;
use orchestrion_proto::temporal::api::enums::v1::WorkflowTaskFailedCause;
use orchestrion_proto::temporal::api::history::v1::HistoryEvent;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes as A;
use orchestrion_proto::v1::{Note, note};

use crate::draft::Draft;
use crate::ids::Timestamp;
use crate::limits::Limits;
use crate::record::Record;
use crate::request::{Rejection, Reply, Request, Transition, WorkflowTaskStart};
use crate::state::MutableState;

/// What a decision may know beside the state and the request.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The time of the request.
    pub now: Timestamp,
    /// The start of the pending workflow task, if a worker has it and no record says so yet.
    pub volatile_start: Option<&'a WorkflowTaskStart>,
    /// Whether the run's workflow tasks go to the worker that has it cached: a failure is then no attempt, the next task just goes to any.
    pub sticky: bool,
    /// Whether that worker has not taken the pending workflow task in time.
    pub sticky_expired: bool,
    /// The run's tenant, as its events name it.
    pub namespace: &'a str,
    /// Which search attributes there are; `None` takes any.
    pub search_attributes: Option<&'a dyn SearchAttributeCheck>,
    /// Whether its workflow code is the engine's own: its commands may be as large as what services return.
    pub built_in: bool,
    /// What the run may hold.
    pub limits: &'a Limits,
}

/// Knows which search attributes a namespace has.
pub trait SearchAttributeCheck: std::fmt::Debug {
    /// Says what is wrong with them, if anything is.
    fn check(&self, given: &SearchAttributes) -> Result<(), String>;
}

/// What is wrong with the search attributes of a command, if anything is.
fn search_attributes_fit(
    context: &Context<'_>,
    given: Option<&SearchAttributes>,
) -> Result<(), workflow_task::BadCommand> {
    let (Some(check), Some(given)) = (context.search_attributes, given) else {
        return Ok(());
    };
    check
        .check(given)
        .map_err(|message| workflow_task::BadCommand {
            cause: WorkflowTaskFailedCause::BadSearchAttributes,
            message,
        })
}

impl<'a> Context<'a> {
    /// Without anything volatile.
    pub fn new(now: Timestamp, limits: &'a Limits) -> Self {
        Self {
            now,
            volatile_start: None,
            sticky: false,
            sticky_expired: false,
            namespace: "",
            search_attributes: None,
            built_in: false,
            limits,
        }
    }
}

/// A record that cannot follow in this state: the journal is damaged, or the core has a bug.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {record} ({name}) cannot follow: {why}")]
pub struct Illegal {
    /// Its position in the journal, from 1.
    pub record: u64,
    /// Its type.
    pub name: String,
    /// What it contradicts.
    pub why: String,
}

/// What comes of a request in a state: records and a reply, or a rejection that changes nothing.
pub fn decide(
    state: &MutableState,
    context: &Context<'_>,
    request: &Request,
) -> Result<Transition, Rejection> {
    if let Request::Start(start) = request {
        return workflow::start(state, context, start);
    }
    if !state.is_running() {
        return closed(state, context, request);
    }
    match request {
        Request::Start(_) => unreachable!("answered above"),
        Request::CompleteWorkflowTask(complete) => {
            workflow_task::complete(state, context, complete)
        }
        Request::FailWorkflowTask(fail) => workflow_task::fail(state, context, fail),
        Request::StartActivityAttempt(start) => activity::start(state, context, start),
        Request::CompleteActivity(complete) => activity::complete(state, context, complete),
        Request::FailActivity(fail) => activity::fail(state, context, fail),
        Request::ConfirmActivityCanceled(confirm) => {
            activity::confirm_canceled(state, context, confirm)
        }
        Request::HeartbeatActivity(beat) => activity::heartbeat(state, context, beat),
        Request::ReportActivityProgress(progress) => activity::progress(state, context, progress),
        Request::ReturnActivityAttempt(back) => activity::give_back(state, context, back),
        Request::MarkActivityWaiting(mark) => activity::mark_waiting(state, context, mark),
        Request::PauseActivity(pause) => activity::pause(state, context, pause),
        Request::UnpauseActivity(unpause) => activity::unpause(state, context, unpause),
        Request::ResetActivity(reset) => activity::reset(state, context, reset),
        Request::UpdateActivityOptions(update) => activity::update_options(state, context, update),
        Request::Pause(pause) => pause::pause(state, context, pause),
        Request::Unpause(unpause) => pause::unpause(state, context, unpause),
        Request::Signal(signal) => signal::receive(state, context, signal),
        Request::RequestCancel(cancel) => cancel::request(state, context, cancel),
        Request::Terminate(terminate) => Ok(workflow::terminate(state, context, terminate)),
        Request::FireTimers => Ok(fire(state, context)),
        Request::Attach(attach) => workflow::attach(state, context, attach),
        Request::ChildStarted(started) => child::started(state, context, started),
        Request::ChildStartFailed(failed) => child::start_failed(state, context, failed),
        Request::ChildClosed(closed) => child::closed(state, context, closed),
        Request::Delivered(delivered) => external::delivered(state, context, delivered),
        Request::Reset(request) => Ok(reset::leave(state, context, request)),
        Request::CloseFollowed(_) => Err(Rejection::Invalid(
            "the run is open: nothing of its close can be done".to_owned(),
        )),
    }
}

/// What a run that is not open answers.
fn closed(
    state: &MutableState,
    context: &Context<'_>,
    request: &Request,
) -> Result<Transition, Rejection> {
    match request {
        Request::Reset(request) if state.status.is_closed() => {
            Ok(reset::leave(state, context, request))
        }
        Request::CloseFollowed(followed) => Ok(child::close_followed(state, context, *followed)),
        // What the engine asks by itself may be overtaken by the close.
        Request::FireTimers
        | Request::ReturnActivityAttempt(_)
        | Request::MarkActivityWaiting(_) => Ok(Transition::default()),
        // A terminate is a wish for an end that is there; a cancel request too.
        Request::Signal(signal)
            if !signal.request_id.is_empty()
                && state.signal_request_ids.contains(&signal.request_id) =>
        {
            Ok(Transition::nothing(Reply::Repeated))
        }
        _ => Err(Rejection::Closed),
    }
}

pub(crate) fn force_flush(draft: &mut Draft<'_>) {
    workflow_task::force_flush(draft);
}

/// Everything that is due by itself, in one order: the run's end, then timers by time, then activities by scheduling event, then the
/// workflow task.
fn fire(state: &MutableState, context: &Context<'_>) -> Transition {
    let mut draft = Draft::new(state, context);
    if workflow::expired(state, context.now) {
        workflow::time_out(&mut draft);
        return draft.finish(Reply::Done);
    }
    workflow_task::fire_first(&mut draft);
    workflow_task::time_out_due(&mut draft, context);
    timer::fire_due(&mut draft, context);
    activity::fire_due(&mut draft, context);
    draft.finish(Reply::Done)
}

/// Folds one record into the state.
pub fn apply(state: &mut MutableState, record: &Record) -> Result<(), Illegal> {
    apply_sized(state, record, record.encoded_len())
}

/// Like [`apply`], for a record whose message is known to have so many bytes.
pub fn apply_sized(state: &mut MutableState, record: &Record, bytes: usize) -> Result<(), Illegal> {
    debug_assert_eq!(bytes, record.encoded_len(), "{}", record.type_name());
    let applied = match record {
        Record::Event(event) => apply_event(state, event),
        Record::Note(note) => apply_note(state, note),
    };
    if let Err(why) = applied {
        return Err(Illegal {
            record: state.records + 1,
            name: record.type_name(),
            why,
        });
    }
    state.records += 1;
    match record {
        Record::Event(event) => {
            state.next_event_id = event.event_id + 1;
            state.history_bytes += bytes as u64;
        }
        Record::Note(_) => state.note_bytes += bytes as u64,
    }
    Ok(())
}

fn apply_event(state: &mut MutableState, event: &HistoryEvent) -> Result<(), String> {
    if event.event_id != state.next_event_id.max(1) {
        return Err(format!(
            "its event id is {}, expected {}",
            event.event_id,
            state.next_event_id.max(1)
        ));
    }
    if state.status.is_closed() {
        return Err(format!("the run is closed ({:?})", state.status));
    }
    let Some(attributes) = &event.attributes else {
        return Err("it has no attributes".to_owned());
    };
    let at = event
        .event_time
        .as_ref()
        .map_or(0, |t| t.seconds * 1_000_000_000 + i64::from(t.nanos));
    let started = matches!(attributes, A::WorkflowExecutionStartedEventAttributes(_));
    if started != (state.records == 0) {
        return Err("a run begins with WorkflowExecutionStarted, and only once".to_owned());
    }
    match attributes {
        A::WorkflowExecutionStartedEventAttributes(_)
        | A::WorkflowExecutionCompletedEventAttributes(_)
        | A::WorkflowExecutionFailedEventAttributes(_)
        | A::WorkflowExecutionCanceledEventAttributes(_)
        | A::WorkflowExecutionTerminatedEventAttributes(_)
        | A::WorkflowExecutionTimedOutEventAttributes(_)
        | A::WorkflowExecutionContinuedAsNewEventAttributes(_)
        | A::WorkflowExecutionOptionsUpdatedEventAttributes(_) => {
            workflow::apply(state, at, event, attributes)
        }
        A::StartChildWorkflowExecutionInitiatedEventAttributes(_)
        | A::StartChildWorkflowExecutionFailedEventAttributes(_)
        | A::ChildWorkflowExecutionStartedEventAttributes(_)
        | A::ChildWorkflowExecutionCompletedEventAttributes(_)
        | A::ChildWorkflowExecutionFailedEventAttributes(_)
        | A::ChildWorkflowExecutionCanceledEventAttributes(_)
        | A::ChildWorkflowExecutionTimedOutEventAttributes(_)
        | A::ChildWorkflowExecutionTerminatedEventAttributes(_) => child::apply(state, at, event),
        A::SignalExternalWorkflowExecutionInitiatedEventAttributes(_)
        | A::SignalExternalWorkflowExecutionFailedEventAttributes(_)
        | A::ExternalWorkflowExecutionSignaledEventAttributes(_)
        | A::RequestCancelExternalWorkflowExecutionInitiatedEventAttributes(_)
        | A::RequestCancelExternalWorkflowExecutionFailedEventAttributes(_)
        | A::ExternalWorkflowExecutionCancelRequestedEventAttributes(_) => {
            external::apply(state, at, event)
        }
        A::WorkflowTaskScheduledEventAttributes(_)
        | A::WorkflowTaskStartedEventAttributes(_)
        | A::WorkflowTaskCompletedEventAttributes(_)
        | A::WorkflowTaskFailedEventAttributes(_)
        | A::WorkflowTaskTimedOutEventAttributes(_) => {
            workflow_task::apply(state, event.event_id, at, attributes)
        }
        A::ActivityTaskScheduledEventAttributes(_)
        | A::ActivityTaskStartedEventAttributes(_)
        | A::ActivityTaskCompletedEventAttributes(_)
        | A::ActivityTaskFailedEventAttributes(_)
        | A::ActivityTaskTimedOutEventAttributes(_)
        | A::ActivityTaskCancelRequestedEventAttributes(_)
        | A::ActivityTaskCanceledEventAttributes(_) => {
            activity::apply(state, event.event_id, at, attributes)
        }
        A::TimerStartedEventAttributes(_)
        | A::TimerFiredEventAttributes(_)
        | A::TimerCanceledEventAttributes(_) => timer::apply(state, event.event_id, at, attributes),
        A::WorkflowExecutionSignaledEventAttributes(signaled) => {
            signal::apply(state, signaled);
            Ok(())
        }
        A::WorkflowExecutionCancelRequestedEventAttributes(_) => cancel::apply(state),
        A::WorkflowExecutionPausedEventAttributes(_)
        | A::WorkflowExecutionUnpausedEventAttributes(_) => pause::apply(state, at, attributes),
        A::WorkflowExecutionUpdateAdmittedEventAttributes(_)
        | A::WorkflowExecutionUpdateAcceptedEventAttributes(_)
        | A::WorkflowExecutionUpdateCompletedEventAttributes(_) => update::apply(state, event),
        A::WorkflowPropertiesModifiedEventAttributes(_)
        | A::UpsertWorkflowSearchAttributesEventAttributes(_)
        | A::MarkerRecordedEventAttributes(_) => property::apply(state, attributes),
        other => Err(format!("no machine knows {other:?}")),
    }
}

fn apply_note(state: &mut MutableState, note: &Note) -> Result<(), String> {
    if let Some(note::Kind::CloseFollowed(followed)) = &note.kind {
        return child::apply_followed(state, followed);
    }
    if let Some(note::Kind::RunReset(left)) = &note.kind {
        reset::apply_left(state, left);
        return Ok(());
    }
    if !state.is_running() {
        return Err(format!("the run is not open ({:?})", state.status));
    }
    match &note.kind {
        Some(note::Kind::EventBuffered(buffered)) => workflow_task::apply_buffered(state, buffered),
        Some(note::Kind::UpdateRejected(rejected)) => update::apply_rejected(state, rejected),
        Some(note::Kind::WorkflowTaskAttemptFailed(failed)) => {
            workflow_task::apply_attempt_failed(state, failed)
        }
        Some(note::Kind::WorkflowTaskRetried(retried)) => {
            workflow_task::apply_retried(state, note.at, retried)
        }
        Some(note::Kind::RunCreated(created)) => workflow::apply_created(state, note.at, created),
        Some(kind) => activity::apply_note(state, note.at, kind),
        None => Err("the note is of a kind this version does not know".to_owned()),
    }
}
