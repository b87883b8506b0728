//! Updates: requests that workflow code validates, and answers.
//!
//! ```text
//!  none --Admitted--> Admitted --Accepted--> Accepted --Completed--> Completed        Admitted only behind a reset
//!  none --Accepted--> Accepted
//!  none --a rejection--> none                                                         leaves no record
//!  Admitted --a rejection--> none                                                     a note
//! ```
//!
//! Who waits for an update, and which ones no worker has answered yet, is volatile and the engine's. Here is what a worker's messages make
//! of a run. The outcome stands in the event; the state says which one.
//!
//! Invariant: an update id is accepted once in a run, and completed once.

use orchestrion_proto::prost::Message as _;
use orchestrion_proto::temporal::api::command::v1::Command;
use orchestrion_proto::temporal::api::command::v1::command::Attributes as C;
use orchestrion_proto::temporal::api::enums::v1::{EventType, WorkflowTaskFailedCause};
use orchestrion_proto::temporal::api::failure::v1::failure::FailureInfo;
use orchestrion_proto::temporal::api::failure::v1::{ApplicationFailureInfo, Failure};
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::history::v1::{
    HistoryEvent, WorkflowExecutionUpdateAcceptedEventAttributes,
    WorkflowExecutionUpdateCompletedEventAttributes,
};
use orchestrion_proto::temporal::api::protocol::v1::Message;
use orchestrion_proto::temporal::api::update::v1 as wire;
use orchestrion_proto::v1::{UpdateRejected, note};

use super::Context;
use super::workflow_task::BadCommand;
use crate::draft::Draft;
use crate::limits::Limits;
use crate::record::Record;
use crate::request::{CompleteWorkflowTask, Rejection, SentUpdate, UpdateReport, UpdateStage};
use crate::state::{CarriedUpdate, MutableState, Update};

/// What a run knows of an update that somebody asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Admission {
    /// It was accepted, and maybe completed, before: the caller waits for that, or reads it.
    Known(Update),
    /// Workflow code is to be asked.
    Fresh,
}

/// Whether workflow code is to be asked for this update. `waiting` are those that no worker has answered yet.
pub fn admit(
    state: &MutableState,
    limits: &Limits,
    update_id: &str,
    waiting: usize,
) -> Result<Admission, Rejection> {
    match state.updates.get(update_id) {
        Some(update @ (Update::Accepted { .. } | Update::Completed { .. })) => {
            return Ok(Admission::Known(update.clone()));
        }
        Some(Update::Admitted { .. }) => return Ok(Admission::Fresh),
        None => {}
    }
    if !state.is_running() {
        return Err(Rejection::Closed);
    }
    if update_id.is_empty() || update_id.len() > limits.id_bytes_max {
        return Err(Rejection::Invalid(format!(
            "the update's id is empty or too long: give 1 to {} bytes",
            limits.id_bytes_max
        )));
    }
    let open = |update: &&Update| !matches!(update, Update::Completed { .. });
    if state.updates.values().filter(open).count() + waiting >= limits.updates_in_flight_max {
        return Err(Rejection::Limit {
            what: "updates in flight",
            max: limits.updates_in_flight_max as u64,
            unit: "updates at a time",
        });
    }
    if state.updates.len() + waiting >= limits.updates_max {
        return Err(Rejection::Limit {
            what: "updates",
            max: limits.updates_max as u64,
            unit: "updates in a run",
        });
    }
    Ok(Admission::Fresh)
}

/// The outcome that a completion's event holds, if these records have it.
pub fn outcome_of<'a>(
    records: impl IntoIterator<Item = &'a Record>,
    completed_event_id: i64,
) -> Option<wire::Outcome> {
    let event = records
        .into_iter()
        .filter_map(Record::event)
        .find(|event| event.event_id == completed_event_id)?;
    match &event.attributes {
        Some(Attributes::WorkflowExecutionUpdateCompletedEventAttributes(completed)) => {
            completed.outcome.clone()
        }
        _ => None,
    }
}

/// A worker's message about an update.
enum Said {
    Acceptance(wire::Acceptance),
    Rejection(wire::Rejection),
    Response(wire::Response),
}

fn read(message: &Message) -> Result<Said, BadCommand> {
    let body = message
        .body
        .as_ref()
        .ok_or_else(|| bad(format!("message {:?} has no body", message.id)))?;
    let name = body.type_url.rsplit('/').next().unwrap_or_default();
    let undecodable = |error| bad(format!("message {:?} does not decode: {error}", message.id));
    match name {
        "temporal.api.update.v1.Acceptance" => wire::Acceptance::decode(&body.value[..])
            .map(Said::Acceptance)
            .map_err(undecodable),
        "temporal.api.update.v1.Rejection" => wire::Rejection::decode(&body.value[..])
            .map(Said::Rejection)
            .map_err(undecodable),
        "temporal.api.update.v1.Response" => wire::Response::decode(&body.value[..])
            .map(Said::Response)
            .map_err(undecodable),
        other => Err(bad(format!(
            "message {:?} is a {other:?}, which is no answer to an update",
            message.id
        ))),
    }
}

fn bad(message: String) -> BadCommand {
    BadCommand {
        cause: WorkflowTaskFailedCause::BadUpdateWorkflowExecutionMessage,
        message,
    }
}

/// The messages of one completion: commands name some, the rest follows the commands.
pub(super) struct Messages<'a> {
    messages: Vec<&'a Message>,
    sent: &'a [SentUpdate],
    reports: Vec<UpdateReport>,
    /// Accepted by this completion, with the event that says so.
    accepted: Vec<(String, i64)>,
    completed: Vec<String>,
}

impl<'a> Messages<'a> {
    pub(super) fn of(complete: &'a CompleteWorkflowTask) -> Self {
        Self {
            messages: complete.messages.iter().collect(),
            sent: &complete.updates,
            reports: Vec::new(),
            accepted: Vec::new(),
            completed: Vec::new(),
        }
    }

    /// A command stands where a message's event is to stand.
    pub(super) fn carry_out(
        &mut self,
        draft: &mut Draft<'_>,
        context: &Context<'_>,
        message_id: &str,
    ) -> Result<(), BadCommand> {
        let index = self
            .messages
            .iter()
            .position(|message| message.id == message_id)
            .ok_or_else(|| {
                bad(format!(
                    "a command names message {message_id:?}, which is not there"
                ))
            })?;
        let message = self.messages.remove(index);
        self.take(draft, context, message)
    }

    /// What no command named, in order; a run that has closed only hears of rejections. Updates that the worker did not answer at all are
    /// rejected: its SDK does not know them.
    pub(super) fn finish(
        mut self,
        draft: &mut Draft<'_>,
        context: &Context<'_>,
    ) -> Result<Vec<UpdateReport>, BadCommand> {
        for message in std::mem::take(&mut self.messages) {
            self.take(draft, context, message)?;
        }
        if !draft.is_closed() {
            self.reject_unanswered(draft.state);
        }
        Ok(self.reports)
    }

    fn reject_unanswered(&mut self, state: &MutableState) {
        for sent in self.sent {
            let answered = self
                .reports
                .iter()
                .any(|report| report.update_id == sent.update_id)
                || matches!(
                    state.updates.get(&sent.update_id),
                    Some(Update::Accepted { .. } | Update::Completed { .. })
                );
            if !answered {
                let failure = Failure {
                    message:
                        "the worker did not handle the update: its SDK may not support updates"
                            .to_owned(),
                    source: "Server".to_owned(),
                    failure_info: Some(FailureInfo::ApplicationFailureInfo(
                        ApplicationFailureInfo {
                            r#type: "UnprocessedUpdate".to_owned(),
                            non_retryable: true,
                            ..Default::default()
                        },
                    )),
                    ..Default::default()
                };
                self.report(&sent.update_id, UpdateStage::Rejected(Box::new(failure)));
            }
        }
    }

    fn report(&mut self, update_id: &str, stage: UpdateStage) {
        self.reports.push(UpdateReport {
            update_id: update_id.to_owned(),
            stage,
        });
    }

    fn take(
        &mut self,
        draft: &mut Draft<'_>,
        context: &Context<'_>,
        message: &Message,
    ) -> Result<(), BadCommand> {
        let update_id = message.protocol_instance_id.as_str();
        if update_id.is_empty() {
            return Err(bad(format!("message {:?} names no update", message.id)));
        }
        match read(message)? {
            Said::Rejection(rejection) => {
                if self.accepted_event_id(draft.state, update_id).is_some() {
                    return Err(bad(format!(
                        "update {update_id:?} is rejected after it was accepted"
                    )));
                }
                let failure = rejection.failure.unwrap_or_default();
                self.report(update_id, UpdateStage::Rejected(Box::new(failure)));
                if is_admitted(draft.state, update_id) && !draft.is_closed() {
                    draft.note(note::Kind::UpdateRejected(UpdateRejected {
                        update_id: update_id.to_owned(),
                    }));
                }
                Ok(())
            }
            Said::Acceptance(_) | Said::Response(_) if draft.is_closed() => Ok(()),
            Said::Acceptance(acceptance) => self.accept(draft, context, update_id, acceptance),
            Said::Response(response) => self.respond(draft, update_id, response),
        }
    }

    fn accepted_event_id(&self, state: &MutableState, update_id: &str) -> Option<i64> {
        let here = self.accepted.iter().find(|(id, _)| id == update_id);
        match (here, state.updates.get(update_id)) {
            (Some((_, event_id)), _) => Some(*event_id),
            (
                None,
                Some(
                    Update::Accepted { accepted_event_id }
                    | Update::Completed {
                        accepted_event_id, ..
                    },
                ),
            ) => Some(*accepted_event_id),
            (None, Some(Update::Admitted { .. }) | None) => None,
        }
    }

    fn accept(
        &mut self,
        draft: &mut Draft<'_>,
        context: &Context<'_>,
        update_id: &str,
        acceptance: wire::Acceptance,
    ) -> Result<(), BadCommand> {
        let state = draft.state;
        if self.accepted_event_id(state, update_id).is_some() {
            return Err(bad(format!("update {update_id:?} is accepted twice")));
        }
        if state.updates.len() + self.accepted.len() >= context.limits.updates_max
            && !state.updates.contains_key(update_id)
        {
            return Err(bad(format!(
                "a run may have {} updates",
                context.limits.updates_max
            )));
        }
        let sent = self.sent.iter().find(|sent| sent.update_id == update_id);
        let admitted = match state.updates.get(update_id) {
            Some(Update::Admitted { request }) => request.get(),
            _ => None,
        };
        let request = sent
            .map(|sent| sent.request.clone())
            .or(acceptance.accepted_request)
            .or(admitted)
            .ok_or_else(|| {
                bad(format!(
                    "update {update_id:?} is accepted, and nobody asked for it"
                ))
            })?;
        let event_id = draft.event(
            EventType::WorkflowExecutionUpdateAccepted,
            Attributes::WorkflowExecutionUpdateAcceptedEventAttributes(
                WorkflowExecutionUpdateAcceptedEventAttributes {
                    protocol_instance_id: update_id.to_owned(),
                    accepted_request_message_id: acceptance.accepted_request_message_id,
                    accepted_request_sequencing_event_id: acceptance
                        .accepted_request_sequencing_event_id,
                    accepted_request: Some(request),
                },
            ),
        );
        self.accepted.push((update_id.to_owned(), event_id));
        self.report(update_id, UpdateStage::Accepted { event_id });
        Ok(())
    }

    fn respond(
        &mut self,
        draft: &mut Draft<'_>,
        update_id: &str,
        response: wire::Response,
    ) -> Result<(), BadCommand> {
        let accepted_event_id =
            self.accepted_event_id(draft.state, update_id)
                .ok_or_else(|| {
                    bad(format!(
                        "update {update_id:?} is completed, and was not accepted"
                    ))
                })?;
        let completed = self.completed.iter().any(|id| id == update_id)
            || matches!(
                draft.state.updates.get(update_id),
                Some(Update::Completed { .. })
            );
        if completed {
            return Err(bad(format!("update {update_id:?} is completed twice")));
        }
        let Some(outcome) = response.outcome else {
            return Err(bad(format!(
                "update {update_id:?} is completed without an outcome"
            )));
        };
        let mut meta = response.meta.unwrap_or_default();
        update_id.clone_into(&mut meta.update_id);
        let event_id = draft.event(
            EventType::WorkflowExecutionUpdateCompleted,
            Attributes::WorkflowExecutionUpdateCompletedEventAttributes(
                WorkflowExecutionUpdateCompletedEventAttributes {
                    meta: Some(meta),
                    accepted_event_id,
                    outcome: Some(outcome.clone()),
                },
            ),
        );
        self.completed.push(update_id.to_owned());
        self.report(
            update_id,
            UpdateStage::Completed {
                event_id,
                outcome: Box::new(outcome),
            },
        );
        Ok(())
    }
}

/// What becomes of a speculative task that brought nothing but rejections: no record at all.
pub(super) fn rejected_only(
    state: &MutableState,
    complete: &CompleteWorkflowTask,
) -> Result<Option<Vec<UpdateReport>>, BadCommand> {
    if !complete.start.speculative || complete.force_new_task || !state.buffered.is_empty() {
        return Ok(None);
    }
    let named = |command: &Command| match &command.attributes {
        Some(C::ProtocolMessageCommandAttributes(c)) => Some(c.message_id.clone()),
        _ => None,
    };
    let commands: Option<Vec<String>> = complete.commands.iter().map(named).collect();
    let Some(named) = commands else {
        return Ok(None);
    };
    let mut messages = Messages::of(complete);
    for message in &complete.messages {
        match read(message)? {
            // That one leaves a record.
            Said::Rejection(_) if is_admitted(state, &message.protocol_instance_id) => {
                return Ok(None);
            }
            Said::Rejection(rejection) => {
                let failure = rejection.failure.unwrap_or_default();
                messages.report(
                    &message.protocol_instance_id,
                    UpdateStage::Rejected(Box::new(failure)),
                );
            }
            Said::Acceptance(_) | Said::Response(_) => return Ok(None),
        }
    }
    if named
        .iter()
        .any(|id| complete.messages.iter().all(|message| message.id != *id))
    {
        return Ok(None); // It names what is not there, and fails as it would otherwise.
    }
    messages.reject_unanswered(state);
    Ok(Some(messages.reports))
}

/// Whether a reset brought it over, and workflow code has not answered it yet.
fn is_admitted(state: &MutableState, update_id: &str) -> bool {
    matches!(state.updates.get(update_id), Some(Update::Admitted { .. }))
}

pub(super) fn apply_rejected(
    state: &mut MutableState,
    rejected: &UpdateRejected,
) -> Result<(), String> {
    if !is_admitted(state, &rejected.update_id) {
        return Err(format!("update {:?} is not admitted", rejected.update_id));
    }
    state.updates.remove(&rejected.update_id);
    Ok(())
}

pub(super) fn apply(state: &mut MutableState, event: &HistoryEvent) -> Result<(), String> {
    match &event.attributes {
        Some(Attributes::WorkflowExecutionUpdateAdmittedEventAttributes(admitted)) => {
            let request = admitted.request.as_ref();
            let id = request
                .and_then(|request| request.meta.as_ref())
                .map(|meta| meta.update_id.clone())
                .unwrap_or_default();
            match state.updates.get(&id) {
                None => {
                    let request = CarriedUpdate::new(request);
                    state.updates.insert(id, Update::Admitted { request });
                    Ok(())
                }
                Some(update) => Err(format!("update {id:?} is {update:?}")),
            }
        }
        Some(Attributes::WorkflowExecutionUpdateAcceptedEventAttributes(accepted)) => {
            let id = &accepted.protocol_instance_id;
            match state.updates.get(id) {
                None | Some(Update::Admitted { .. }) => {
                    let accepted_event_id = event.event_id;
                    state
                        .updates
                        .insert(id.clone(), Update::Accepted { accepted_event_id });
                    Ok(())
                }
                Some(update) => Err(format!("update {id:?} is {update:?}")),
            }
        }
        Some(Attributes::WorkflowExecutionUpdateCompletedEventAttributes(completed)) => {
            let id = completed
                .meta
                .as_ref()
                .map_or("", |meta| meta.update_id.as_str());
            match state.updates.get_mut(id) {
                Some(update @ Update::Accepted { .. }) => {
                    *update = Update::Completed {
                        accepted_event_id: completed.accepted_event_id,
                        completed_event_id: event.event_id,
                    };
                    Ok(())
                }
                other => Err(format!("update {id:?} is {other:?}")),
            }
        }
        _ => Err("it is no record of an update".to_owned()),
    }
}
