//! Frames of the socket, as orra's SDKs write and read them.
//!
//! ```text
//!  service -> engine   {"id":"msg_0_e_…","payload":{"type":"task_result",…}}   wrapped
//!                      {"type":"task_result",…}                               bare: what the JS SDK queued while away
//!  engine -> service   {"type":"task_request",…}                              always bare
//! ```
//!
//! Invariant: inputs, results, compensation data and updates keep their bytes; only what is ours is taken apart.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::api::orra::json::Members;
use crate::api::work::{Assignment, Attempt, Outcome, Said};

/// What the engine sends.
#[derive(Debug, Serialize)]
#[serde(tag = "type")]
pub enum Outbound<'a> {
    /// Work.
    #[serde(rename = "task_request")]
    Task(Work<'a>),
    /// Work to undo.
    #[serde(rename = "compensation_request", rename_all = "camelCase")]
    Compensation {
        /// What to undo.
        #[serde(flatten)]
        work: Work<'a>,
        /// Why.
        compensation_context: &'a RawValue,
    },
    /// Are you there?
    #[serde(rename = "ping", rename_all = "camelCase")]
    Ping {
        /// The SDK ignores a ping for another service.
        service_id: &'a str,
    },
    /// A message was taken care of.
    #[serde(rename = "ACK")]
    Ack {
        /// As the message had it.
        id: &'a str,
    },
}

/// An attempt, as the service sees it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Work<'a> {
    /// The task's id in its plan.
    pub id: &'a str,
    /// Verbatim.
    pub input: &'a RawValue,
    /// Of this attempt.
    pub execution_id: &'a str,
    /// Of all attempts.
    pub idempotency_key: &'a str,
    /// Whose work it is.
    pub service_id: &'a str,
}

impl Outbound<'_> {
    /// The frame's text.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("strings and verified JSON always serialise")
    }
}

/// What a service sent.
#[derive(Debug)]
pub struct Inbound<'a> {
    /// To be acknowledged by; empty when it had none.
    pub id: String,
    /// What it says.
    pub message: Message<'a>,
}

impl Inbound<'_> {
    /// Whether the sender waits for an acknowledgement.
    pub fn wants_ack(&self) -> bool {
        self.id != PONG_ID
    }
}

/// The SDKs wait for no acknowledgement of a message with this id.
const PONG_ID: &str = "pong";

/// What a message says.
#[derive(Debug)]
pub enum Message<'a> {
    /// I am here.
    Pong,
    /// An attempt goes on.
    Status {
        /// Which.
        attempt: Attempt,
        /// Always `in_progress` so far.
        status: String,
    },
    /// An update on the way.
    Interim {
        /// Of which attempt.
        attempt: Attempt,
        /// Verbatim.
        update: &'a RawValue,
    },
    /// An attempt ended.
    Answer {
        /// Which.
        attempt: Attempt,
        /// How.
        answer: Answer<'a>,
    },
    /// Something a later SDK knows.
    Unknown {
        /// Its type.
        kind: String,
    },
}

/// How an attempt ended, as the service says.
#[derive(Debug, Clone)]
pub enum Answer<'a> {
    /// It worked. What the result means depends on what was asked.
    Success {
        /// Verbatim; a missing one is null.
        result: &'a RawValue,
    },
    /// It did not.
    Error {
        /// Why.
        text: String,
    },
    /// The service ends the whole orchestration.
    Abort {
        /// Verbatim; a missing one is null.
        payload: &'a RawValue,
    },
}

impl Said for Answer<'_> {
    fn outcome(&self, to: &Assignment, default_ttl: Duration) -> Outcome {
        match self {
            Self::Success { result } if to.revert => {
                Outcome::Completed(result.get().as_bytes().to_vec())
            }
            Self::Success { result } => {
                let ttl_ms = u64::try_from(default_ttl.as_millis()).unwrap_or(u64::MAX);
                match TaskResult::read(result, ttl_ms) {
                    TaskResult::Done(result) => Outcome::Completed(result.into_bytes()),
                    TaskResult::Aborted(payload) => Outcome::Aborted(payload.into_bytes()),
                }
            }
            Self::Abort { payload } => Outcome::Aborted(payload.get().as_bytes().to_vec()),
            Self::Error { text } => Outcome::Failed {
                text: text.clone(),
                permanent: false,
            },
        }
    }
}

/// A frame nobody can make sense of. It is dropped without an acknowledgement, as orra does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable(pub String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'a> Inbound<'a> {
    /// Reads a text frame.
    pub fn parse(text: &'a str) -> Result<Self, Unreadable> {
        let unreadable = |error: &dyn fmt::Display| Unreadable(error.to_string());
        let outer = Members::of_body(text).map_err(|e| unreadable(&e))?;
        let id = outer.string("id").ok().flatten().unwrap_or_default();
        let message = match outer.get("payload") {
            Some(payload) => Message::read(
                &Members::of("member \"payload\"", payload).map_err(|e| unreadable(&e))?,
            ),
            None if outer.get("type").is_some() => Message::read(&outer),
            None => {
                return Err(Unreadable(
                    "the frame has neither a payload nor a type".to_owned(),
                ));
            }
        };
        Ok(Self { id, message })
    }
}

impl<'a> Message<'a> {
    fn read(payload: &Members<'a>) -> Self {
        let text = |name: &str| payload.string(name).ok().flatten().unwrap_or_default();
        let attempt = || Attempt {
            execution_id: text("executionId"),
            idempotency_key: text("idempotencyKey"),
        };
        let result = payload.get("result");
        match text("type").as_str() {
            "pong" => Self::Pong,
            "task_status" => Self::Status {
                attempt: attempt(),
                status: text("status"),
            },
            "task_interim_result" => Self::Interim {
                attempt: attempt(),
                update: task_of(result),
            },
            "task_abort_result" => Self::Answer {
                attempt: attempt(),
                answer: Answer::Abort {
                    payload: task_of(result),
                },
            },
            "task_result" => {
                let answer = match error_text(payload) {
                    Some(text) => Answer::Error { text },
                    None => Answer::Success {
                        result: result.unwrap_or(RawValue::NULL),
                    },
                };
                Self::Answer {
                    attempt: attempt(),
                    answer,
                }
            }
            kind => Self::Unknown {
                kind: kind.to_owned(),
            },
        }
    }
}

/// A non-empty error decides; one that is not a string counts by its JSON.
fn error_text(payload: &Members<'_>) -> Option<String> {
    let error = payload.get("error")?;
    let text = payload
        .string("error")
        .ok()
        .flatten()
        .unwrap_or_else(|| error.get().to_owned());
    (!text.is_empty()).then_some(text)
}

/// The member `task` of a result.
fn task_of(result: Option<&RawValue>) -> &RawValue {
    let members = result.and_then(|result| Members::of("member \"result\"", result).ok());
    members
        .and_then(|members| members.get("task"))
        .unwrap_or(RawValue::NULL)
}

/// The result of a task, taken apart as far as the engine looks.
#[derive(Debug)]
pub enum TaskResult {
    /// The task is done: `{"task":…,"compensation":null|{"data":…,"ttl":ms}}`.
    Done(String),
    /// The JS SDK answers the repeat of an aborted task like this.
    Aborted(String),
}

impl TaskResult {
    /// Reads the `result` of a task's success. `default_ttl_ms` is for a service that names none.
    pub fn read(result: &RawValue, default_ttl_ms: u64) -> Self {
        let Ok(members) = Members::of("member \"result\"", result) else {
            // A result that is no object has no task in it: the value itself is all there is.
            return Self::Done(format!(
                "{{\"task\":{},\"compensation\":null}}",
                result.get()
            ));
        };
        let task = members.get("task").unwrap_or(RawValue::NULL).get();
        if members.string("status").ok().flatten().as_deref() == Some("aborted") {
            return Self::Aborted(task.to_owned());
        }
        let compensation =
            compensation(&members, default_ttl_ms).unwrap_or_else(|| "null".to_owned());
        Self::Done(format!(
            "{{\"task\":{task},\"compensation\":{compensation}}}"
        ))
    }
}

fn compensation(members: &Members<'_>, default_ttl_ms: u64) -> Option<String> {
    let compensation = Members::of("member \"compensation\"", members.get("compensation")?).ok()?;
    let data = compensation.get("data").unwrap_or(RawValue::NULL).get();
    let ttl = compensation
        .get("ttl")
        .and_then(|ttl| ttl.get().parse::<f64>().ok())
        .filter(|ttl| *ttl >= 0.0);
    // A float beyond the range saturates.
    let ttl = ttl.map_or(default_ttl_ms, |ttl| ttl as u64);
    Some(format!("{{\"data\":{data},\"ttl\":{ttl}}}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn done(text: &str) -> String {
        match TaskResult::read(&raw(text), 86_400_000) {
            TaskResult::Done(result) => result,
            TaskResult::Aborted(payload) => panic!("aborted with {payload}"),
        }
    }

    #[test]
    fn a_task_request_reads_as_the_sdks_know_it() {
        let input = raw(r#"{"b":1.0,"a":[ 1 ]}"#);
        let work = Work {
            id: "task1",
            input: &input,
            execution_id: "e_1",
            idempotency_key: "o_1.5.aa",
            service_id: "s_a",
        };
        assert_eq!(
            Outbound::Task(work).to_text(),
            concat!(
                r#"{"type":"task_request","id":"task1","input":{"b":1.0,"a":[ 1 ]},"executionId":"e_1","#,
                r#""idempotencyKey":"o_1.5.aa","serviceId":"s_a"}"#
            )
        );
    }

    #[test]
    fn a_compensation_request_carries_its_context() {
        let (input, context) = (
            raw(r#"{"originalTask":{},"taskResult":{}}"#),
            raw(r#"{"reason":"failed"}"#),
        );
        let work = Work {
            id: "t",
            input: &input,
            execution_id: "e_comp_1",
            idempotency_key: "k",
            service_id: "s_a",
        };
        let text = Outbound::Compensation {
            work,
            compensation_context: &context,
        }
        .to_text();
        assert!(
            text.starts_with(r#"{"type":"compensation_request","id":"t","input":{"originalTask""#),
            "{text}"
        );
        assert!(
            text.ends_with(r#""compensationContext":{"reason":"failed"}}"#),
            "{text}"
        );
    }

    #[test]
    fn acks_and_pings() {
        assert_eq!(
            Outbound::Ack { id: "" }.to_text(),
            r#"{"type":"ACK","id":""}"#
        );
        assert_eq!(
            Outbound::Ping { service_id: "s_a" }.to_text(),
            r#"{"type":"ping","serviceId":"s_a"}"#
        );
    }

    /// As `orra-sdk` 0.2.4 for Python writes it.
    #[test]
    fn a_python_result_is_read() {
        let text = concat!(
            r#"{"id": "msg_0_e_abc", "payload": {"type": "task_result", "taskId": "task1", "idempotencyKey": "k", "#,
            r#""executionId": "e_abc", "serviceId": "s_a", "result": {"task": {"said": "hi"}, "compensation": "#,
            r#"{"data": {"originalTask": {"say": "hi"}, "taskResult": {"said": "hi"}}, "ttl": 86400000}}, "error": null}}"#
        );
        let inbound = Inbound::parse(text).unwrap();
        assert_eq!(inbound.id, "msg_0_e_abc");
        assert!(inbound.wants_ack());
        let Message::Answer {
            attempt,
            answer: Answer::Success { result },
        } = inbound.message
        else {
            panic!()
        };
        assert_eq!(
            attempt,
            Attempt {
                execution_id: "e_abc".into(),
                idempotency_key: "k".into()
            }
        );
        assert_eq!(
            done(result.get()),
            concat!(
                r#"{"task":{"said": "hi"},"compensation":{"data":"#,
                r#"{"originalTask": {"say": "hi"}, "taskResult": {"said": "hi"}},"ttl":86400000}}"#
            )
        );
    }

    /// As the JS SDK writes what it queued while its socket was closed: bare.
    #[test]
    fn a_bare_queued_frame_counts() {
        let text = concat!(
            r#"{"type":"task_result","taskId":"task1","executionId":"e_abc","serviceId":"s_a","idempotencyKey":"k","#,
            r#""result":{"task":{"echo":"x"},"compensation":null}}"#
        );
        let inbound = Inbound::parse(text).unwrap();
        assert_eq!(inbound.id, "");
        assert!(inbound.wants_ack());
        let Message::Answer {
            answer: Answer::Success { result },
            ..
        } = inbound.message
        else {
            panic!()
        };
        assert_eq!(
            done(result.get()),
            r#"{"task":{"echo":"x"},"compensation":null}"#
        );
    }

    #[test]
    fn an_error_decides_when_it_says_something() {
        let read = |error: &str| {
            let text = format!(
                r#"{{"id":"m","payload":{{"type":"task_result","result":null,"error":{error}}}}}"#
            );
            match Inbound::parse(&text).unwrap().message {
                Message::Answer {
                    answer: Answer::Error { text },
                    ..
                } => Some(text),
                Message::Answer {
                    answer: Answer::Success { result },
                    ..
                } => {
                    assert_eq!(result.get(), "null");
                    None
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(read("\"card declined\"").as_deref(), Some("card declined"));
        assert_eq!(read(r#"{"code":7}"#).as_deref(), Some(r#"{"code":7}"#));
        assert_eq!(read("\"\""), None);
        assert_eq!(read("null"), None);
    }

    #[test]
    fn aborts_carry_their_payload() {
        let text = r#"{"id":"m","payload":{"type":"task_abort_result","executionId":"e","result":{"task":{"why":"sold out"}}}}"#;
        let Message::Answer {
            answer: Answer::Abort { payload },
            ..
        } = Inbound::parse(text).unwrap().message
        else {
            panic!()
        };
        assert_eq!(payload.get(), r#"{"why":"sold out"}"#);
        let text = r#"{"id":"m","payload":{"type":"task_abort_result","result":{"task":null}}}"#;
        let Message::Answer {
            answer: Answer::Abort { payload },
            ..
        } = Inbound::parse(text).unwrap().message
        else {
            panic!()
        };
        assert_eq!(payload.get(), "null");
    }

    #[test]
    fn the_js_sdks_answer_to_a_repeated_aborted_task_is_an_abort() {
        let result = raw(r#"{"task":{"why":"sold out"},"status":"aborted"}"#);
        let TaskResult::Aborted(payload) = TaskResult::read(&result, 1) else {
            panic!()
        };
        assert_eq!(payload, r#"{"why":"sold out"}"#);
    }

    #[test]
    fn odd_results_still_count() {
        assert_eq!(done("null"), r#"{"task":null,"compensation":null}"#);
        assert_eq!(done("7"), r#"{"task":7,"compensation":null}"#);
        assert_eq!(done("{}"), r#"{"task":null,"compensation":null}"#);
        assert_eq!(
            done(r#"{"compensation":{}}"#),
            r#"{"task":null,"compensation":{"data":null,"ttl":86400000}}"#
        );
        assert_eq!(
            done(r#"{"task":1,"compensation":{"data":2,"ttl":1500.7}}"#),
            r#"{"task":1,"compensation":{"data":2,"ttl":1500}}"#
        );
    }

    #[test]
    fn pongs_want_no_ack_and_unknown_types_do() {
        let pong =
            Inbound::parse(r#"{"id":"pong","payload":{"type":"pong","serviceId":"s_a"}}"#).unwrap();
        assert!(!pong.wants_ack());
        assert!(matches!(pong.message, Message::Pong));
        let strange = Inbound::parse(r#"{"payload":{"type":"dance"}}"#).unwrap();
        assert_eq!(strange.id, "");
        assert!(strange.wants_ack());
        assert!(matches!(strange.message, Message::Unknown { kind } if kind == "dance"));
    }

    #[test]
    fn nonsense_is_unreadable() {
        for text in [
            "",
            "hello",
            "[]",
            "7",
            "{}",
            r#"{"id":"m"}"#,
            r#"{"id":"m","payload":null}"#,
            r#"{"payload":"x"}"#,
        ] {
            assert!(Inbound::parse(text).is_err(), "{text}");
        }
    }
}
