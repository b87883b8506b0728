//! Messages of the stream, between their bytes and what the engine knows.
//!
//! Invariant: payloads keep their bytes; that they are JSON is checked before they are recorded.

use std::time::Duration;

use bytes::Bytes;
use orchestrion_proto::temporal::api::common::v1::Payloads;
use orchestrion_proto::worker::from_worker::Message;
use orchestrion_proto::worker::{self as wire, RevertStatus, Task, Undoing};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::api::work::answering::RESULT_REFUSED;
use crate::api::work::{Assignment, Attempt, MESSAGE_BYTES_MAX, Outcome, Said, context_of, key};
use crate::engine::handle::Dispatch;
use crate::orchestration::REVERT_ID_PREFIX;
use crate::orchestration::submission::{BadPayload, json_text, payload_text};
use crate::registry::ids::execution_id;

/// What a message may be beyond its payload.
const HEAD_BYTES_MAX: usize = 4 * 1024;

/// The attempt a message is about; `None` for `open` and `drain`, which are about none.
pub fn attempt_of(message: &Message) -> Option<&wire::Attempt> {
    match message {
        Message::Completed(m) => m.attempt.as_ref(),
        Message::Failed(m) => m.attempt.as_ref(),
        Message::Aborted(m) => m.attempt.as_ref(),
        Message::Reverted(m) => m.attempt.as_ref(),
        Message::Progress(m) => m.attempt.as_ref(),
        Message::Heartbeat(m) => m.attempt.as_ref(),
        Message::Open(_) | Message::Drain(_) => None,
    }
}

/// As the other wires name it.
pub fn named(attempt: &wire::Attempt) -> Attempt {
    Attempt {
        execution_id: attempt.execution_id.clone(),
        idempotency_key: attempt.idempotency_key.clone(),
    }
}

/// Whether the message ends its attempt.
pub fn ends(message: &Message) -> bool {
    matches!(
        message,
        Message::Completed(_) | Message::Failed(_) | Message::Aborted(_) | Message::Reverted(_)
    )
}

/// A message that ends an attempt.
pub struct Ending<'a>(pub &'a Message);

impl Said for Ending<'_> {
    fn outcome(&self, to: &Assignment, default_ttl: Duration) -> Outcome {
        match self.0 {
            Message::Completed(done) if to.revert => {
                reverted(RevertStatus::Completed, "", &done.result)
            }
            Message::Completed(done) => completed(done, default_ttl),
            Message::Reverted(done) if to.revert => {
                reverted(done.status(), &done.error, &done.details)
            }
            Message::Reverted(_) => refused("reverted is no end of a task that undoes nothing"),
            Message::Aborted(aborted) => match json_or_null(&aborted.payload) {
                Some(payload) => Outcome::Aborted(payload.to_vec()),
                None => refused("the payload of the abort is not JSON"),
            },
            Message::Failed(failed) => Outcome::Failed {
                text: failed.error.clone(),
                permanent: failed.permanent,
            },
            Message::Open(_) | Message::Progress(_) | Message::Heartbeat(_) | Message::Drain(_) => {
                refused("the message ends no attempt")
            }
        }
    }
}

/// What no further attempt would make better.
fn refused(why: &str) -> Outcome {
    Outcome::Failed {
        text: format!("{RESULT_REFUSED}: {why}"),
        permanent: true,
    }
}

/// Nothing is null; `None` when it is something else than JSON.
fn json_or_null(text: &[u8]) -> Option<&[u8]> {
    if text.is_empty() {
        return Some(b"null");
    }
    is_json(text).then_some(text)
}

/// Whether bytes are one JSON value.
pub fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// `{"task":…,"compensation":null|{"data":…,"ttl":ms}}`
fn completed(done: &wire::Completed, default_ttl: Duration) -> Outcome {
    let Some(task) = json_or_null(&done.result) else {
        return refused("the result is not JSON");
    };
    let mut text = Vec::with_capacity(task.len() + 64);
    text.extend_from_slice(br#"{"task":"#);
    text.extend_from_slice(task);
    text.extend_from_slice(br#","compensation":"#);
    match &done.compensation {
        None => text.extend_from_slice(b"null"),
        Some(compensation) => {
            let Some(data) = json_or_null(&compensation.data) else {
                return refused("the data of the compensation is not JSON");
            };
            let ttl_ms = match compensation.ttl_ms {
                0 => u64::try_from(default_ttl.as_millis()).unwrap_or(u64::MAX),
                ms => ms,
            };
            text.reserve(data.len());
            text.extend_from_slice(br#"{"data":"#);
            text.extend_from_slice(data);
            text.extend_from_slice(format!(r#","ttl":{ttl_ms}}}"#).as_bytes());
        }
    }
    text.push(b'}');
    Outcome::Completed(text)
}

fn reverted(status: RevertStatus, error: &str, details: &[u8]) -> Outcome {
    let status = match status {
        RevertStatus::Completed => "completed",
        RevertStatus::Partial => "partial",
        RevertStatus::Failed => "failed",
        RevertStatus::Expired => "expired",
        RevertStatus::Unspecified => return refused("the revert has no status"),
    };
    let mut answer = Map::new();
    answer.insert("status".to_owned(), status.into());
    if !error.is_empty() {
        answer.insert("error".to_owned(), error.into());
    }
    if !details.is_empty() {
        let Ok(details) = serde_json::from_slice::<Value>(details) else {
            return refused("the details of the revert are not JSON");
        };
        answer.insert(status.to_owned(), details);
    }
    Outcome::Completed(Value::Object(answer).to_string().into_bytes())
}

/// An attempt as its worker gets it, or why it cannot.
pub fn task(ticket: u64, mut dispatch: Dispatch, revert: bool) -> Result<Task, String> {
    let undoing = revert
        .then(|| {
            payload_text(&context_of(&dispatch))
                .map(|text| Undoing {
                    context: Bytes::copy_from_slice(text),
                })
                .map_err(|e| format!("the compensation context is unreadable: {e}"))
        })
        .transpose()?;
    let input = match json_text(dispatch.input.as_ref()) {
        Ok(_) => taken(dispatch.input.take()),
        Err(BadPayload::Missing) => Bytes::from_static(b"{}"),
        Err(error) => return Err(format!("the input cannot be sent to a service: {error}")),
    };
    if input.len() > MESSAGE_BYTES_MAX - HEAD_BYTES_MAX {
        return Err(format!(
            "the input has {} bytes: services take {} at most",
            input.len(),
            MESSAGE_BYTES_MAX - HEAD_BYTES_MAX
        ));
    }
    let heartbeat_details = match json_text(dispatch.heartbeat_details.as_ref()) {
        Ok(_) => taken(dispatch.heartbeat_details.take()),
        Err(_) => Bytes::new(),
    };
    let event = dispatch.scheduled_event_id;
    let idempotency_key = key::of_dispatch(&dispatch, revert);
    let task_id = match dispatch.activity_id.strip_prefix(REVERT_ID_PREFIX) {
        Some(undone) if revert => undone.to_owned(),
        _ => std::mem::take(&mut dispatch.activity_id),
    };
    Ok(Task {
        ticket,
        execution_id: execution_id(dispatch.run_id, event, dispatch.attempt, revert),
        idempotency_key,
        task_id,
        input,
        attempt: dispatch.attempt,
        undoing,
        timeout_ms: millis(dispatch.start_to_close),
        heartbeat_ms: millis(dispatch.heartbeat),
        heartbeat_details,
    })
}

fn taken(payloads: Option<Payloads>) -> Bytes {
    payloads
        .and_then(|payloads| payloads.payloads.into_iter().next())
        .map(|payload| Bytes::from(payload.data))
        .unwrap_or_default()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use orchestrion_history::ids::{Namespace, RunId, WorkflowId};

    use super::*;
    use crate::engine::handle::Target;

    fn to(revert: bool) -> Assignment {
        Assignment {
            target: Target {
                namespace: Namespace::parse("p_1").unwrap(),
                workflow_id: WorkflowId::parse("o_1").unwrap(),
                run_id: Some(RunId([1; 16])),
            },
            scheduled_event_id: 5,
            attempt: Some(1),
            activity_id: "task1".into(),
            revert,
        }
    }

    fn outcome(message: Message, revert: bool) -> Result<String, String> {
        match Ending(&message).outcome(&to(revert), Duration::from_secs(60)) {
            Outcome::Completed(text) | Outcome::Aborted(text) => {
                Ok(String::from_utf8(text).unwrap())
            }
            Outcome::Failed { text, .. } => Err(text),
        }
    }

    fn done(result: &'static str, compensation: Option<(&'static str, u64)>) -> Message {
        Message::Completed(wire::Completed {
            attempt: None,
            result: result.into(),
            compensation: compensation.map(|(data, ttl_ms)| wire::Compensation {
                data: data.into(),
                ttl_ms,
            }),
        })
    }

    #[test]
    fn results_are_recorded_byte_for_byte() {
        let text = outcome(done(r#"{"b" : 1.0}"#, Some((r#"{"x":1e3}"#, 5))), false).unwrap();
        assert_eq!(
            text,
            r#"{"task":{"b" : 1.0},"compensation":{"data":{"x":1e3},"ttl":5}}"#
        );
        let text = outcome(done("", Some(("", 0))), false).unwrap();
        assert_eq!(
            text,
            r#"{"task":null,"compensation":{"data":null,"ttl":60000}}"#
        );
    }

    #[test]
    fn what_is_not_json_fails_for_good_and_says_why() {
        for message in [
            done("{", None),
            done("1 2", None),
            done("1", Some(("}", 1))),
            Message::Aborted(wire::Aborted {
                attempt: None,
                payload: "no".into(),
            }),
            Message::Reverted(wire::Reverted::default()),
        ] {
            let Err(text) = outcome(message, false) else {
                panic!("taken")
            };
            assert!(text.starts_with(RESULT_REFUSED), "{text}");
        }
    }

    #[test]
    fn reverts_say_how_far_they_came() {
        let partial = Message::Reverted(wire::Reverted {
            status: RevertStatus::Partial.into(),
            error: "the letter is gone".into(),
            details: r#"{"completed":["refund"]}"#.into(),
            ..Default::default()
        });
        assert_eq!(
            outcome(partial, true).unwrap(),
            r#"{"status":"partial","error":"the letter is gone","partial":{"completed":["refund"]}}"#
        );
        assert_eq!(
            outcome(done("", None), true).unwrap(),
            r#"{"status":"completed"}"#
        );
        assert!(outcome(Message::Reverted(wire::Reverted::default()), true).is_err());
    }
}
