//! Indexes rebuilt from the truth equal the kept ones: queues, timers, listings, lines, heads and current runs are what the folds say.

use std::collections::BTreeSet;

use orchestrion::orchestration::is_builtin;
use orchestrion_history::state::MutableState;
use orchestrion_history::store::{Key, LineOf, QueueKind};
use orchestrion_history::tasks;
use orchestrion_proto::prost::Message as _;
use orchestrion_proto::temporal::api::enums::v1::WorkflowExecutionStatus;
use orchestrion_proto::v1::Visibility;

use super::super::ledger::Run;
use super::super::observer::Shadow;
use super::{Check, Invariant, View};

pub(super) struct Indexes;

/// The search attribute that says what of an open run is paused.
const PAUSES: &str = "TemporalPauseInfo";

fn pauses(state: &MutableState) -> BTreeSet<String> {
    let mut said = BTreeSet::new();
    if !state.is_running() {
        return said;
    }
    if let Some(pause) = &state.paused {
        said.insert(format!("Workflow:{}", state.workflow_id));
        said.insert(format!("Reason:{}", pause.reason));
    }
    for activity in state.activities.values() {
        if activity.paused.is_some() {
            said.insert(format!("property:activityType={}", activity.activity_type));
        }
    }
    said
}

fn listed(json: &[u8]) -> BTreeSet<String> {
    serde_json::from_slice(json).unwrap_or_default()
}

/// What the indexes should hold of a run, as lines that can be compared and read.
fn wanted(state: &MutableState) -> BTreeSet<String> {
    let builtin = is_builtin(&state.workflow_type);
    let mut lines = BTreeSet::new();
    for entry in tasks::all(state) {
        if builtin && entry.kind == QueueKind::Workflow {
            continue;
        }
        lines.insert(format!(
            "queue {:?} {} at {} event {} attempt {} waiting {} of {}",
            entry.kind,
            entry.queue,
            entry.at.0,
            entry.event_id,
            entry.attempt,
            entry.waiting,
            state.workflow_id
        ));
    }
    if let Some(due) = state.next_due() {
        lines.insert(format!("timer {} of {}", due.0, state.workflow_id));
    }
    // A paused run is listed as such; its head and its id know it as one that runs.
    let status = match state.paused.is_some() && state.is_running() {
        true => i32::from(WorkflowExecutionStatus::Paused),
        false => i32::from(state.status.wire()),
    };
    let closed = state.status.is_closed();
    let problem = state.is_running() && state.problem.is_some();
    lines.insert(format!(
        "listing {} {} {} {status} {} {} {} {} {} {:?}",
        state.workflow_id,
        state.workflow_type,
        state.task_queue,
        state.started_at,
        state.closed_at,
        if closed { state.next_event_id - 1 } else { 0 },
        state.memo.len(),
        state.search_attributes.len() + usize::from(problem),
        pauses(state),
    ));
    let of_id = LineOf::Workflow(
        orchestrion_history::ids::WorkflowId::parse(&state.workflow_id).expect("it has an id"),
    );
    let of_type = LineOf::Type(state.workflow_type.clone());
    for of in [of_id, of_type, LineOf::Status(status as u8)] {
        lines.insert(format!("line {of} {}", state.started_at));
    }
    lines
}

fn kept(shadow: &Shadow) -> Result<BTreeSet<String>, String> {
    let mut lines = BTreeSet::new();
    for (key, value) in shadow.index.values() {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        lines.insert(match key {
            Key::Queue {
                kind,
                queue,
                at,
                event_id,
                ..
            } => {
                let (attempt, rest) = value
                    .split_first_chunk::<4>()
                    .filter(|(_, rest)| !rest.is_empty())
                    .ok_or_else(|| format!("{key} has no value"))?;
                format!(
                    "queue {kind:?} {queue} at {} event {event_id} attempt {} waiting {} of {}",
                    at.0,
                    i32::from_be_bytes(*attempt),
                    rest[0] != 0,
                    text(&rest[1..])
                )
            }
            Key::Timer { due, .. } => format!("timer {} of {}", due.0, text(value)),
            Key::Visibility { started, .. } => {
                let row = Visibility::decode(&value[..]).map_err(|e| e.to_string())?;
                let attributes = row.search_attributes.unwrap_or_default().indexed_fields;
                let pauses = attributes.get(PAUSES);
                format!(
                    "listing {} {} {} {} {} {} {} {} {} {:?}",
                    row.workflow_id,
                    row.workflow_type,
                    row.task_queue,
                    row.status,
                    started.0,
                    row.closed_at,
                    row.history_length,
                    row.memo.map_or(0, |memo| memo.fields.len()),
                    attributes.len() - usize::from(pauses.is_some()),
                    pauses.map_or_else(BTreeSet::new, |said| listed(&said.data)),
                )
            }
            Key::Line { of, started, .. } => format!("line {of} {}", started.0),
            _ => continue,
        });
    }
    Ok(lines)
}

fn agree(run: &Run, view: &View<'_>) -> Check {
    let Some(shadow) = view.observer.runs.get(run) else {
        return Ok(());
    };
    if shadow.damaged || shadow.left {
        return Ok(());
    }
    let state = &shadow.state;
    if shadow.records.is_empty() {
        return Err(format!("the indexes hold {}, which has no journal", run.1));
    }
    let (wanted, kept) = (wanted(state), kept(shadow)?);
    if wanted != kept {
        let missing: Vec<&String> = wanted.difference(&kept).collect();
        let surplus: Vec<&String> = kept.difference(&wanted).collect();
        return Err(format!(
            "the indexes of {} lack {missing:?} and have {surplus:?} too much",
            state.workflow_id
        ));
    }
    let head = &shadow.head;
    let status = i32::from(state.status.wire());
    if (
        &head.workflow_id,
        head.status,
        head.closed_at,
        head.started_at,
    ) != (
        &state.workflow_id,
        status,
        state.closed_at,
        state.started_at,
    ) || !head.quarantined.is_empty()
    {
        return Err(format!("the head of {} says {head:?}", state.workflow_id));
    }
    let id = (run.0.clone(), state.workflow_id.clone());
    // The newest may leave before one whose child cannot be ended, since it is damaged.
    let stays = state.status.is_closed() && view.observer.is_torn(&state.workflow_id);
    let Some(current) = view.observer.current.get(&id) else {
        if stays {
            return Ok(());
        }
        return Err(format!("{} has no current run", state.workflow_id));
    };
    if current.run_id == run.1.0 && current.status != status {
        return Err(format!(
            "the current run of {} has status {}, its journal {status}",
            state.workflow_id, current.status
        ));
    }
    if current.run_id != run.1.0 && !state.status.is_closed() {
        return Err(format!(
            "{} is open and not the current run of {}",
            run.1, state.workflow_id
        ));
    }
    if current.run_id == run.1.0 && !state.next_run_id.is_empty() {
        return Err(format!(
            "{} goes on in {} and its current run is {}",
            state.workflow_id, state.next_run_id, run.1
        ));
    }
    Ok(())
}

impl Invariant for Indexes {
    fn name(&self) -> &'static str {
        "indexes"
    }

    fn after_step(&mut self, view: &View<'_>) -> Check {
        view.news
            .touched
            .iter()
            .try_for_each(|run| agree(run, view))
    }

    fn of_everything(&mut self, view: &View<'_>) -> Check {
        view.observer
            .runs
            .keys()
            .try_for_each(|run| agree(run, view))
    }
}
