//! What an orchestration is given and what its planning answers: JSON in `json/plain` payloads.
//!
//! Invariant: every constant of time an orchestration obeys is in its [`Options`], recorded with its start; a change of the engine's
//! settings changes no run that has started.
//! Invariant: options that a run uses are [`Options::bounded`]: none of them makes a command the core refuses.

use std::collections::HashMap;

use orchestrion_proto::temporal::api::common::v1::{Payload, Payloads};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::grounding::Applied;
use crate::plan::{Parameter, Plan};

/// The input of an orchestration's run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Submission {
    /// What is wanted.
    pub action: Action,
    /// Values the caller sent with it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub data: Vec<Parameter>,
    /// A plan the caller brought; without one the planner is asked.
    #[serde(default)]
    pub plan: Option<Plan>,
    /// How patient to be.
    #[serde(default, deserialize_with = "null_is_default")]
    pub options: Options,
    /// A URL that is told of the end, beside the project's webhooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// Which rules of the interpreter the run began under; see [`Rules`]. What is not said is the oldest.
    #[serde(default)]
    pub rules: Rules,
    /// Results of another orchestration that this one takes over instead of running their tasks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken_over: Vec<TakenOver>,
    /// The orchestration it was forked from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<Origin>,
}

/// Rules of the interpreter that a replay can see, by number. A run keeps those it began under. Persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rules(u32);

impl Rules {
    /// What new runs begin under.
    pub const NEWEST: Self = Self(2);

    /// From 1 on: a run that was cancelled is `cancelled`; before, it was `aborted`.
    pub fn tell_cancelled(self) -> bool {
        self.0 >= 1
    }

    /// From 2 on: the ids of timers are their numbers, from 1, as SDKs give them and their replayers demand it; before, they named a task.
    pub fn number_timers(self) -> bool {
        self.0 >= 2
    }
}

/// A result that was not come by here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TakenOver {
    /// The task, of the same id in both plans.
    pub task: String,
    /// What it returned there.
    pub output: Value,
}

/// Where an orchestration was forked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The other orchestration.
    pub orchestration: String,
    /// Its run.
    pub run_id: String,
    /// The task from which this one runs anew.
    pub task: String,
}

/// What is wanted, in plain language.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Action {
    /// Free text of the caller.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// The action itself.
    #[serde(default)]
    pub content: String,
}

/// The constants of time of one orchestration, in milliseconds, and its numbers of attempts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// How long one attempt of a task may take.
    pub task_timeout_ms: u64,
    /// How long a task waits for a service that is not connected.
    pub grace_ms: u64,
    /// Attempts of a task.
    pub task_attempts: u32,
    /// The wait before the second attempt of a task.
    pub retry_initial_ms: u64,
    /// The factor of each further wait.
    pub retry_factor: f64,
    /// The longest wait between two attempts of a task.
    pub retry_max_ms: u64,
    /// Attempts of a revert.
    pub compensation_attempts: u32,
    /// The wait before the second attempt of a revert; it doubles.
    pub compensation_initial_ms: u64,
    /// The longest wait between two attempts of a revert.
    pub compensation_max_ms: u64,
    /// How long one attempt of a revert may take.
    pub compensation_timeout_ms: u64,
    /// How long a completed task can be undone when its service names no time.
    pub compensation_ttl_ms: u64,
    /// Attempts of the planning.
    pub planning_attempts: u32,
    /// The wait before the second attempt of the planning; it doubles.
    pub planning_initial_ms: u64,
    /// The longest wait between two attempts of the planning.
    pub planning_max_ms: u64,
    /// How long one attempt of the planning may take.
    pub planning_timeout_ms: u64,
    /// How long the undoing of a run waits for a result after its task timed out; as long as an attempt when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late_result_wait_ms: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            task_timeout_ms: 30_000,
            grace_ms: 1_800_000,
            task_attempts: 5,
            retry_initial_ms: 2_000,
            retry_factor: 2.0,
            retry_max_ms: 30_000,
            compensation_attempts: 10,
            compensation_initial_ms: 2_000,
            compensation_max_ms: 60_000,
            compensation_timeout_ms: 30_000,
            compensation_ttl_ms: 86_400_000,
            planning_attempts: 3,
            planning_initial_ms: 2_000,
            planning_max_ms: 10_000,
            planning_timeout_ms: 90_000,
            late_result_wait_ms: None,
        }
    }
}

impl Options {
    /// No time is longer than this: a hundred years.
    pub const TIME_MS_MAX: u64 = 100 * 366 * 24 * 3_600_000;
    /// No number of attempts is greater.
    pub const ATTEMPTS_MAX: u32 = 1_000_000;

    /// The same options within what the core accepts: at least one attempt and one millisecond, no maximum below its initial wait.
    #[must_use]
    pub fn bounded(&self) -> Self {
        let time = |ms: u64| ms.clamp(1, Self::TIME_MS_MAX);
        let attempts = |n: u32| n.clamp(1, Self::ATTEMPTS_MAX);
        let task_timeout_ms = time(self.task_timeout_ms);
        let (retry_initial_ms, compensation_initial_ms) = (
            time(self.retry_initial_ms),
            time(self.compensation_initial_ms),
        );
        let planning_initial_ms = time(self.planning_initial_ms);
        Self {
            task_timeout_ms,
            grace_ms: self.grace_ms.min(Self::TIME_MS_MAX),
            task_attempts: attempts(self.task_attempts),
            retry_initial_ms,
            retry_factor: if self.retry_factor >= 1.0 {
                self.retry_factor.min(1_000.0)
            } else {
                1.0
            },
            retry_max_ms: time(self.retry_max_ms).max(retry_initial_ms),
            compensation_attempts: attempts(self.compensation_attempts),
            compensation_initial_ms,
            compensation_max_ms: time(self.compensation_max_ms).max(compensation_initial_ms),
            compensation_timeout_ms: time(self.compensation_timeout_ms),
            compensation_ttl_ms: time(self.compensation_ttl_ms),
            planning_attempts: attempts(self.planning_attempts),
            planning_initial_ms,
            planning_max_ms: time(self.planning_max_ms).max(planning_initial_ms),
            planning_timeout_ms: time(self.planning_timeout_ms),
            late_result_wait_ms: self.late_result_wait_ms.map(time),
        }
    }

    /// How long the undoing waits for a late result.
    pub fn late_result_wait(&self) -> u64 {
        self.late_result_wait_ms.unwrap_or(self.task_timeout_ms)
    }
}

/// What a planning came to, as its activity's result records it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanningResult {
    /// Whether there is a plan.
    pub outcome: PlanningOutcome,
    /// The plan, when there is one.
    #[serde(default)]
    pub plan: Option<Plan>,
    /// Why there is none.
    #[serde(default)]
    pub reason: Option<String>,
    /// The model that was asked.
    #[serde(default)]
    pub model: String,
    /// SHA-256 of the prompt, hex.
    #[serde(default)]
    pub prompt_digest: String,
    /// Tokens read, as the model counts.
    #[serde(default)]
    pub prompt_tokens: u64,
    /// Tokens written, as the model counts.
    #[serde(default)]
    pub completion_tokens: u64,
    /// Which attempt this is, from 1.
    #[serde(default)]
    pub tries: u32,
    /// How long the model took.
    #[serde(default)]
    pub duration_ms: u64,
    /// What the validator said of the plan.
    #[serde(default)]
    pub verdict: String,
    /// Where it came from.
    #[serde(default)]
    pub source: PlanSource,
    /// The cached plan it was made from; empty when a planner made it.
    #[serde(default)]
    pub cached_plan: String,
    /// How alike the cached plan's action is, at most 1.
    #[serde(default)]
    pub likeness: f64,
    /// Tokens that were not spent because the plan was cached.
    #[serde(default)]
    pub saved_tokens: u64,
    /// The grounding it was made under, with its version and the digests of its rules.
    #[serde(default)]
    pub grounding: Option<Applied>,
}

/// Where a plan came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanSource {
    /// A planner was asked.
    #[default]
    Planner,
    /// One that was made before, with the caller's values.
    Cache,
}

/// Whether a planning gave a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanningOutcome {
    /// It did.
    Planned,
    /// The action cannot be done with the services there are.
    NotActionable,
}

/// A payload that does not hold the JSON it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPayload {
    /// There is none.
    #[error("there is no payload: send one with encoding json/plain")]
    Missing,
    /// It is encoded otherwise.
    #[error("the payload's encoding is {0:?}: send json/plain")]
    Encoding(String),
    /// Its JSON is not what was expected.
    #[error("the payload does not parse: {0}")]
    Json(String),
}

const ENCODING: &str = "encoding";
const JSON_PLAIN: &[u8] = b"json/plain";

/// A `json/plain` payload of a value.
///
/// # Panics
/// When the value has a map whose keys are not strings, which none of ours has.
pub fn json_payload<T: Serialize + ?Sized>(value: &T) -> Payload {
    raw_json_payload(serde_json::to_vec(value).expect("our JSON types have string keys only"))
}

/// A `json/plain` payload of JSON text, kept byte for byte.
pub fn raw_json_payload(text: Vec<u8>) -> Payload {
    Payload {
        metadata: HashMap::from([(ENCODING.to_owned(), JSON_PLAIN.to_vec())]),
        data: text,
        ..Default::default()
    }
}

/// One `json/plain` payload, as arguments and results carry it.
pub fn json_payloads<T: Serialize + ?Sized>(value: &T) -> Payloads {
    Payloads {
        payloads: vec![json_payload(value)],
    }
}

/// The JSON text of the first payload.
pub fn json_text(payloads: Option<&Payloads>) -> Result<&[u8], BadPayload> {
    let payload = payloads
        .and_then(|p| p.payloads.first())
        .ok_or(BadPayload::Missing)?;
    payload_text(payload)
}

/// The JSON text of a payload.
pub fn payload_text(payload: &Payload) -> Result<&[u8], BadPayload> {
    match payload.metadata.get(ENCODING) {
        Some(encoding) if encoding == JSON_PLAIN => Ok(&payload.data),
        Some(encoding) => Err(BadPayload::Encoding(
            String::from_utf8_lossy(encoding).into_owned(),
        )),
        None => Err(BadPayload::Encoding(String::new())),
    }
}

/// Reads the JSON of the first payload.
pub fn read_json<T: DeserializeOwned>(payloads: Option<&Payloads>) -> Result<T, BadPayload> {
    serde_json::from_slice(json_text(payloads)?).map_err(|e| BadPayload::Json(e.to_string()))
}

/// Reads a payload's JSON; what is not JSON is null.
pub fn json_or_null(payload: Option<&Payload>) -> Value {
    let text = payload.map(payload_text).and_then(Result::ok);
    text.and_then(|text| serde_json::from_slice(text).ok())
        .unwrap_or(Value::Null)
}

fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_has_its_default() {
        let text = r#"{"action":{"content":"echo"},"data":null,"options":{"task_timeout_ms":50}}"#;
        let submission: Submission = serde_json::from_str(text).unwrap();
        assert_eq!(submission.data, []);
        assert_eq!(submission.plan, None);
        assert_eq!(
            submission.options,
            Options {
                task_timeout_ms: 50,
                ..Options::default()
            }
        );
        assert_eq!(submission.options.late_result_wait(), 50);
        assert_eq!(
            read_json::<Submission>(Some(&json_payloads(&submission))),
            Ok(submission)
        );
    }

    #[test]
    fn bounded_options_make_valid_policies() {
        let wild = Options {
            task_timeout_ms: 0,
            task_attempts: 0,
            retry_initial_ms: 9_000,
            retry_max_ms: 10,
            retry_factor: f64::NAN,
            compensation_timeout_ms: u64::MAX,
            ..Options::default()
        };
        let bounded = wild.bounded();
        assert_eq!((bounded.task_timeout_ms, bounded.task_attempts), (1, 1));
        assert_eq!(
            (
                bounded.retry_initial_ms,
                bounded.retry_max_ms,
                bounded.retry_factor
            ),
            (9_000, 9_000, 1.0)
        );
        assert_eq!(bounded.compensation_timeout_ms, Options::TIME_MS_MAX);
        assert_eq!(Options::default().bounded(), Options::default());
    }

    #[test]
    fn a_payload_of_another_encoding_is_refused() {
        let mut payload = json_payload("x");
        payload
            .metadata
            .insert(ENCODING.to_owned(), b"binary/plain".to_vec());
        let payloads = Payloads {
            payloads: vec![payload],
        };
        assert_eq!(
            read_json::<Value>(Some(&payloads)),
            Err(BadPayload::Encoding("binary/plain".to_owned()))
        );
        assert_eq!(read_json::<Value>(None), Err(BadPayload::Missing));
    }
}
