//! A record as a line of a story.

use orchestrion_history::record::Record;
use orchestrion_proto::temporal::api::failure::v1::failure::FailureInfo;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes as A;
use orchestrion_proto::v1::note;

pub fn line(record: &Record, now: i64) -> String {
    let name = record.type_name();
    match record {
        Record::Event(event) => {
            let more = match event.attributes.as_ref().unwrap() {
                A::ActivityTaskScheduledEventAttributes(a) => format!(" {}", a.activity_id),
                A::ActivityTaskStartedEventAttributes(a) => {
                    format!(" {}#{}", a.scheduled_event_id, a.attempt)
                }
                A::ActivityTaskCompletedEventAttributes(a) => {
                    format!(" {} after {}", a.scheduled_event_id, a.started_event_id)
                }
                A::ActivityTaskFailedEventAttributes(a) => {
                    format!(
                        " {} after {} {:?}",
                        a.scheduled_event_id,
                        a.started_event_id,
                        a.retry_state()
                    )
                }
                A::ActivityTaskTimedOutEventAttributes(a) => {
                    let Some(FailureInfo::TimeoutFailureInfo(info)) =
                        a.failure.clone().unwrap().failure_info
                    else {
                        panic!()
                    };
                    format!(" {} {:?}", a.scheduled_event_id, info.timeout_type())
                }
                A::ActivityTaskCancelRequestedEventAttributes(a) => {
                    format!(" {}", a.scheduled_event_id)
                }
                A::ActivityTaskCanceledEventAttributes(a) => format!(" {}", a.scheduled_event_id),
                A::TimerStartedEventAttributes(a) => format!(" {}", a.timer_id),
                A::TimerFiredEventAttributes(a) => format!(" {}", a.timer_id),
                A::TimerCanceledEventAttributes(a) => format!(" {}", a.timer_id),
                A::WorkflowExecutionSignaledEventAttributes(a) => format!(" {}", a.signal_name),
                A::WorkflowTaskScheduledEventAttributes(a) if a.attempt > 1 => {
                    format!(" #{}", a.attempt)
                }
                A::WorkflowExecutionFailedEventAttributes(a) => format!(" {:?}", a.retry_state()),
                A::WorkflowExecutionTimedOutEventAttributes(a) => format!(" {:?}", a.retry_state()),
                A::StartChildWorkflowExecutionInitiatedEventAttributes(a) => {
                    format!(" {}", a.workflow_id)
                }
                A::StartChildWorkflowExecutionFailedEventAttributes(a) => {
                    format!(" {} {:?}", a.initiated_event_id, a.cause())
                }
                A::ChildWorkflowExecutionStartedEventAttributes(a) => {
                    format!(" {}", a.initiated_event_id)
                }
                A::ChildWorkflowExecutionCompletedEventAttributes(a) => {
                    format!(" {} after {}", a.initiated_event_id, a.started_event_id)
                }
                A::ChildWorkflowExecutionFailedEventAttributes(a) => {
                    format!(" {} after {}", a.initiated_event_id, a.started_event_id)
                }
                A::ExternalWorkflowExecutionSignaledEventAttributes(a) => {
                    format!(" {}", a.initiated_event_id)
                }
                A::SignalExternalWorkflowExecutionFailedEventAttributes(a) => {
                    format!(" {} {:?}", a.initiated_event_id, a.cause())
                }
                A::ExternalWorkflowExecutionCancelRequestedEventAttributes(a) => {
                    format!(" {}", a.initiated_event_id)
                }
                A::WorkflowTaskFailedEventAttributes(a) => format!(" {:?}", a.cause()),
                A::WorkflowTaskTimedOutEventAttributes(a) => format!(" {:?}", a.timeout_type()),
                _ => String::new(),
            };
            format!("{:>2} {name}{more}", event.event_id)
        }
        Record::Note(note) => {
            let more = match note.kind.as_ref().unwrap() {
                note::Kind::ActivityAttemptStarted(n) => {
                    format!(" {}#{}", n.scheduled_event_id, n.attempt)
                }
                note::Kind::ActivityAttemptFailed(n) => {
                    format!(
                        " {}#{} retry in {} ms",
                        n.scheduled_event_id,
                        n.attempt,
                        (n.retry_at - now) / 1_000_000
                    )
                }
                note::Kind::ActivityAttemptReturned(n) => {
                    format!(" {}#{}", n.scheduled_event_id, n.attempt)
                }
                note::Kind::ActivityPaused(n) => format!(" {}", n.scheduled_event_id),
                note::Kind::ActivityUnpaused(n) => format!(" {}", n.scheduled_event_id),
                note::Kind::ActivityReset(n) => format!(" {}", n.scheduled_event_id),
                note::Kind::ActivityOptionsUpdated(n) => format!(" {}", n.scheduled_event_id),
                note::Kind::CloseFollowed(n) => format!(" {}", n.initiated_event_id),
                note::Kind::WorkflowTaskRetried(n) => format!(" #{}", n.attempt),
                note::Kind::WorkflowTaskAttemptFailed(n) => format!(" #{}", n.attempt),
                note::Kind::EventBuffered(n) => {
                    format!(
                        " {}",
                        Record::Event(Box::new(n.event.clone().unwrap())).type_name()
                    )
                }
                _ => String::new(),
            };
            format!(" - {name}{more}")
        }
    }
}
