//! Where payloads stand in a record. A place that is not listed here keeps its payloads inline, however large.

use orchestrion_proto::temporal::api::common::v1::{
    Header, Memo, Payload, Payloads, SearchAttributes,
};
use orchestrion_proto::temporal::api::failure::v1::Failure;
use orchestrion_proto::temporal::api::failure::v1::failure::FailureInfo as F;
use orchestrion_proto::temporal::api::history::v1::HistoryEvent;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes as A;
use orchestrion_proto::temporal::api::update;
use orchestrion_proto::v1::note::Kind as K;

use crate::record::Record;

type Visit<'v> = &'v mut dyn FnMut(&mut Payload);

/// Shows every payload of a record to `visit`, which may replace it.
pub(super) fn payloads_of(record: &mut Record, visit: Visit<'_>) {
    match record {
        Record::Event(event) => of_event(event, visit),
        Record::Note(note) => match &mut note.kind {
            Some(K::ActivityAttemptFailed(n)) => failure(&mut n.failure, visit),
            Some(K::ActivityHeartbeat(n)) => payloads(&mut n.details, visit),
            Some(K::ActivityProgress(n)) => n.update.iter_mut().for_each(visit),
            Some(K::EventBuffered(n)) => {
                if let Some(event) = &mut n.event {
                    of_event(event, visit);
                }
            }
            Some(K::WorkflowTaskAttemptFailed(n)) => failure(&mut n.failure, visit),
            _ => {}
        },
    }
}

fn of_event(event: &mut HistoryEvent, visit: Visit<'_>) {
    if let Some(metadata) = &mut event.user_metadata {
        metadata.summary.iter_mut().for_each(&mut *visit);
        metadata.details.iter_mut().for_each(&mut *visit);
    }
    let Some(attributes) = &mut event.attributes else {
        return;
    };
    match attributes {
        A::WorkflowExecutionStartedEventAttributes(a) => {
            payloads(&mut a.input, visit);
            payloads(&mut a.last_completion_result, visit);
            failure(&mut a.continued_failure, visit);
            described(&mut a.header, &mut a.memo, &mut a.search_attributes, visit);
        }
        A::WorkflowExecutionCompletedEventAttributes(a) => payloads(&mut a.result, visit),
        A::WorkflowExecutionFailedEventAttributes(a) => failure(&mut a.failure, visit),
        A::WorkflowExecutionCanceledEventAttributes(a) => payloads(&mut a.details, visit),
        A::WorkflowExecutionTerminatedEventAttributes(a) => payloads(&mut a.details, visit),
        A::WorkflowExecutionContinuedAsNewEventAttributes(a) => {
            payloads(&mut a.input, visit);
            payloads(&mut a.last_completion_result, visit);
            described(&mut a.header, &mut a.memo, &mut a.search_attributes, visit);
        }
        A::WorkflowTaskFailedEventAttributes(a) => failure(&mut a.failure, visit),
        A::ActivityTaskScheduledEventAttributes(a) => {
            payloads(&mut a.input, visit);
            described(&mut a.header, &mut None, &mut None, visit);
        }
        A::ActivityTaskStartedEventAttributes(a) => failure(&mut a.last_failure, visit),
        A::ActivityTaskCompletedEventAttributes(a) => payloads(&mut a.result, visit),
        A::ActivityTaskFailedEventAttributes(a) => failure(&mut a.failure, visit),
        A::ActivityTaskTimedOutEventAttributes(a) => failure(&mut a.failure, visit),
        A::ActivityTaskCanceledEventAttributes(a) => payloads(&mut a.details, visit),
        A::MarkerRecordedEventAttributes(a) => {
            let details = a.details.values_mut().flat_map(|p| &mut p.payloads);
            details.for_each(&mut *visit);
            failure(&mut a.failure, visit);
            described(&mut a.header, &mut None, &mut None, visit);
        }
        A::WorkflowExecutionSignaledEventAttributes(a) => {
            payloads(&mut a.input, visit);
            described(&mut a.header, &mut None, &mut None, visit);
        }
        A::SignalExternalWorkflowExecutionInitiatedEventAttributes(a) => {
            payloads(&mut a.input, visit);
            described(&mut a.header, &mut None, &mut None, visit);
        }
        A::UpsertWorkflowSearchAttributesEventAttributes(a) => {
            described(&mut None, &mut None, &mut a.search_attributes, visit);
        }
        A::WorkflowPropertiesModifiedEventAttributes(a) => {
            described(&mut None, &mut a.upserted_memo, &mut None, visit);
        }
        A::StartChildWorkflowExecutionInitiatedEventAttributes(a) => {
            payloads(&mut a.input, visit);
            described(&mut a.header, &mut a.memo, &mut a.search_attributes, visit);
        }
        A::ChildWorkflowExecutionStartedEventAttributes(a) => {
            described(&mut a.header, &mut None, &mut None, visit);
        }
        A::ChildWorkflowExecutionCompletedEventAttributes(a) => payloads(&mut a.result, visit),
        A::ChildWorkflowExecutionFailedEventAttributes(a) => failure(&mut a.failure, visit),
        A::ChildWorkflowExecutionCanceledEventAttributes(a) => payloads(&mut a.details, visit),
        A::WorkflowExecutionUpdateAcceptedEventAttributes(a) => {
            let input = a.accepted_request.as_mut().and_then(|r| r.input.as_mut());
            if let Some(input) = input {
                payloads(&mut input.args, visit);
                described(&mut input.header, &mut None, &mut None, visit);
            }
        }
        A::WorkflowExecutionUpdateCompletedEventAttributes(a) => {
            use update::v1::outcome::Value;
            match a.outcome.as_mut().and_then(|o| o.value.as_mut()) {
                Some(Value::Success(success)) => {
                    success.payloads.iter_mut().for_each(visit);
                }
                Some(Value::Failure(f)) => of_failure(f, visit),
                None => {}
            }
        }
        _ => {}
    }
}

fn payloads(payloads: &mut Option<Payloads>, visit: Visit<'_>) {
    let payloads = payloads.iter_mut().flat_map(|p| &mut p.payloads);
    payloads.for_each(visit);
}

fn described(
    header: &mut Option<Header>,
    memo: &mut Option<Memo>,
    attributes: &mut Option<SearchAttributes>,
    visit: Visit<'_>,
) {
    let header = header.iter_mut().flat_map(|h| h.fields.values_mut());
    let memo = memo.iter_mut().flat_map(|m| m.fields.values_mut());
    let attributes = attributes
        .iter_mut()
        .flat_map(|a| a.indexed_fields.values_mut());
    header.chain(memo).chain(attributes).for_each(visit);
}

fn failure(failure: &mut Option<Failure>, visit: Visit<'_>) {
    if let Some(failure) = failure {
        of_failure(failure, visit);
    }
}

fn of_failure(failure: &mut Failure, visit: Visit<'_>) {
    let mut next = Some(failure);
    while let Some(failure) = next {
        failure.encoded_attributes.iter_mut().for_each(&mut *visit);
        match &mut failure.failure_info {
            Some(F::ApplicationFailureInfo(info)) => payloads(&mut info.details, visit),
            Some(F::TimeoutFailureInfo(info)) => payloads(&mut info.last_heartbeat_details, visit),
            Some(F::CanceledFailureInfo(info)) => payloads(&mut info.details, visit),
            Some(F::ResetWorkflowFailureInfo(info)) => {
                payloads(&mut info.last_heartbeat_details, visit);
            }
            _ => {}
        }
        next = failure.cause.as_deref_mut();
    }
}
