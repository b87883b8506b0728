//! Journal records in words, for people who read a replay.
//!
//! Invariant: a line of a story is bounded; what it leaves out is in the record.

use orchestrion_history::record::Record;
use orchestrion_proto::temporal::api::common::v1::{Payload, Payloads};
use orchestrion_proto::temporal::api::failure::v1::Failure;
use orchestrion_proto::temporal::api::history::v1::HistoryEvent;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::v1::{Note, note};

use crate::orchestration::planning::cost_of;

/// Characters of user data that one line shows.
const DATA_CHARS_MAX: usize = 200;

/// What a record says.
pub fn summary(record: &Record) -> String {
    match record {
        Record::Event(event) => of_event(event),
        Record::Note(note) => of_note(note),
    }
}

fn of_event(event: &HistoryEvent) -> String {
    use Attributes as A;
    let Some(attributes) = &event.attributes else {
        return String::new();
    };
    match attributes {
        A::WorkflowExecutionStartedEventAttributes(e) => {
            let kind = e.workflow_type.as_ref().map_or("", |kind| &kind.name);
            format!("{kind} {}", data(e.input.as_ref()))
        }
        A::WorkflowExecutionCompletedEventAttributes(e) => data(e.result.as_ref()),
        A::WorkflowExecutionFailedEventAttributes(e) => failure(e.failure.as_ref()),
        A::WorkflowExecutionTerminatedEventAttributes(e) => shorten(&e.reason),
        A::WorkflowExecutionCancelRequestedEventAttributes(e) => shorten(&e.cause),
        A::WorkflowExecutionSignaledEventAttributes(e) => {
            format!("{} {}", e.signal_name, data(e.input.as_ref()))
        }
        A::WorkflowTaskFailedEventAttributes(e) => failure(e.failure.as_ref()),
        A::ActivityTaskScheduledEventAttributes(e) => {
            let kind = e.activity_type.as_ref().map_or("", |kind| &kind.name);
            let queue = e.task_queue.as_ref().map_or("", |queue| &queue.name);
            format!(
                "{} {kind} on {queue} {}",
                e.activity_id,
                data(e.input.as_ref())
            )
        }
        A::ActivityTaskStartedEventAttributes(e) => {
            format!(
                "of {} attempt {} by {}",
                e.scheduled_event_id, e.attempt, e.identity
            )
        }
        A::ActivityTaskCompletedEventAttributes(e) => {
            format!("of {} {}", e.scheduled_event_id, data(e.result.as_ref()))
        }
        A::ActivityTaskFailedEventAttributes(e) => {
            format!(
                "of {} {}",
                e.scheduled_event_id,
                failure(e.failure.as_ref())
            )
        }
        A::ActivityTaskTimedOutEventAttributes(e) => {
            format!(
                "of {} {}",
                e.scheduled_event_id,
                failure(e.failure.as_ref())
            )
        }
        A::ActivityTaskCancelRequestedEventAttributes(e) => format!("of {}", e.scheduled_event_id),
        A::ActivityTaskCanceledEventAttributes(e) => format!("of {}", e.scheduled_event_id),
        A::TimerStartedEventAttributes(e) => {
            let wait = e
                .start_to_fire_timeout
                .as_ref()
                .map_or(0, |d| d.seconds * 1_000 + i64::from(d.nanos) / 1_000_000);
            format!("{} in {wait} ms", e.timer_id)
        }
        A::TimerFiredEventAttributes(e) => e.timer_id.clone(),
        A::TimerCanceledEventAttributes(e) => e.timer_id.clone(),
        _ => String::new(),
    }
}

fn of_note(note: &Note) -> String {
    use note::Kind as K;
    match &note.kind {
        None => String::new(),
        Some(K::RunCreated(n)) => format!("by request {}", shorten(&n.request_id)),
        Some(K::CloseFollowed(n)) if n.initiated_event_id == 0 => "its parent knows".to_owned(),
        Some(K::CloseFollowed(n)) => format!("the child of {}", n.initiated_event_id),
        Some(K::RunReset(n)) => format!("as run {}", n.new_run_id),
        Some(K::ActivityAttemptStarted(n)) => {
            format!(
                "of {} attempt {} by {}",
                n.scheduled_event_id, n.attempt, n.identity
            )
        }
        Some(K::ActivityAttemptFailed(n)) => {
            format!(
                "of {} attempt {} {}",
                n.scheduled_event_id,
                n.attempt,
                failure(n.failure.as_ref())
            )
        }
        Some(K::ActivityAttemptReturned(n)) => {
            format!(
                "of {} attempt {}: {}",
                n.scheduled_event_id,
                n.attempt,
                shorten(&n.reason)
            )
        }
        Some(K::ActivityHeartbeat(n)) => {
            format!(
                "of {} attempt {} {}",
                n.scheduled_event_id,
                n.attempt,
                data(n.details.as_ref())
            )
        }
        Some(K::ActivityProgress(n)) => {
            format!(
                "of {} attempt {} {}",
                n.scheduled_event_id,
                n.attempt,
                payload(n.update.as_ref())
            )
        }
        Some(K::ActivityWaiting(n)) => {
            format!(
                "of {} attempt {}: {}",
                n.scheduled_event_id,
                n.attempt,
                shorten(&n.reason)
            )
        }
        Some(K::ActivityPaused(n)) => {
            format!(
                "of {} by {}: {}",
                n.scheduled_event_id,
                n.identity,
                shorten(&n.reason)
            )
        }
        Some(K::ActivityUnpaused(n)) => format!("of {} by {}", n.scheduled_event_id, n.identity),
        Some(K::ActivityReset(n)) => format!("of {} by {}", n.scheduled_event_id, n.identity),
        Some(K::ActivityOptionsUpdated(n)) => {
            format!("of {} by {}", n.scheduled_event_id, n.identity)
        }
        Some(K::UpdateRejected(n)) => n.update_id.clone(),
        Some(K::EventBuffered(n)) => match &n.event {
            Some(event) => {
                let record = Record::Event(Box::new(event.clone()));
                format!("{} {}", record.type_name(), of_event(event))
            }
            None => String::new(),
        },
        Some(K::WorkflowTaskRetried(n)) => format!("attempt {}", n.attempt),
        Some(K::WorkflowTaskAttemptFailed(n)) => {
            format!(
                "of {} attempt {} {}",
                n.scheduled_event_id,
                n.attempt,
                failure(n.failure.as_ref())
            )
        }
    }
}

fn data(payloads: Option<&Payloads>) -> String {
    payloads.map_or_else(String::new, |payloads| {
        let texts: Vec<String> = payloads.payloads.iter().map(|p| payload(Some(p))).collect();
        texts.join(" ")
    })
}

fn payload(payload: Option<&Payload>) -> String {
    let Some(payload) = payload else {
        return String::new();
    };
    match std::str::from_utf8(&payload.data) {
        Ok(text) => shorten(text),
        Err(_) => format!("{} bytes", payload.data.len()),
    }
}

fn failure(failure: Option<&Failure>) -> String {
    let Some(failure) = failure else {
        return String::new();
    };
    let text = format!("{:?}", shorten(&failure.message));
    match cost_of(Some(failure)) {
        Some(cost) => format!(
            "{text} (try {} of {}: {} tokens read, {} written, {} ms)",
            cost.tries, cost.model, cost.prompt_tokens, cost.completion_tokens, cost.duration_ms
        ),
        None => text,
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(DATA_CHARS_MAX) {
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], text.len()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use orchestrion_proto::temporal::api::history::v1::ActivityTaskFailedEventAttributes;
    use orchestrion_proto::v1::ActivityProgress;

    use super::*;

    #[test]
    fn a_failure_reads_as_a_line_of_a_log() {
        let attributes = ActivityTaskFailedEventAttributes {
            scheduled_event_id: 5,
            failure: Some(Failure {
                message: "card declined".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let event = HistoryEvent {
            attributes: Some(Attributes::ActivityTaskFailedEventAttributes(attributes)),
            ..Default::default()
        };
        assert_eq!(
            summary(&Record::Event(Box::new(event))),
            "of 5 \"card declined\""
        );
    }

    #[test]
    fn long_data_is_cut() {
        let update = Payload {
            data: "é".repeat(500).into_bytes(),
            ..Default::default()
        };
        let progress = ActivityProgress {
            scheduled_event_id: 5,
            attempt: 1,
            update: Some(update),
        };
        let text = summary(&Record::Note(Box::new(Note {
            at: 0,
            kind: Some(note::Kind::ActivityProgress(progress)),
        })));
        assert!(text.ends_with("… (1000 bytes)"), "{text}");
        assert!(text.chars().count() < 250);
    }
}
