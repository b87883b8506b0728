//! The body of `POST /orchestrations`, parsed once into what the engine takes.
//!
//! ```text
//!  {"action":{"type"?,"content"}, "data"?:[{"field","value"}]|null, "timeout"?:dur, "healthCheckGracePeriod"?:dur,   orra's
//!   "webhook"?:url, "plan"?:{…}|[…], "options"?:{"taskAttempts":3,"retryInitial":"1s",…}}                                            ours
//!  dur: "45s" | nanoseconds | {"Duration":nanoseconds}
//! ```
//!
//! Invariant: values of the caller's data keep their JSON; nothing else of a record can be set from outside.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::error::{ApiError, Kind, code};
use super::json::{BadJson, Members};
use crate::config::duration;
use crate::grounding::Asked;
use crate::orchestration::{Action, Options};
use crate::plan::Parameter;
use crate::registry::ids::{digest, hex};

/// Parameters of one submission.
pub const PARAMETERS_MAX: usize = 1_000;
/// Bytes of the action's text.
pub const ACTION_BYTES_MAX: usize = 256 * 1024;

/// A submission, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What is wanted.
    pub action: Action,
    /// Values the caller sent with it; `None` when there were none at all, which the answer repeats as null.
    pub data: Option<Vec<Parameter>>,
    /// A plan the caller brought, as it came.
    pub plan: Option<Value>,
    /// A URL that is told of the end as well. Some clients send an empty one for none.
    pub webhook: Option<String>,
    /// How patient to be.
    pub options: Options,
    /// As the caller gave it.
    pub timeout: Option<Duration>,
    /// As the caller gave it.
    pub grace_period: Option<Duration>,
    /// The same for the same submission, whatever its spacing.
    pub digest: String,
}

impl Request {
    /// What groundings judge.
    pub fn asked(&self) -> Asked<'_> {
        Asked {
            action: &self.action.content,
            data: self.data.as_deref().unwrap_or_default(),
        }
    }
}

/// Reads a submission; what it does not set is as in `defaults`.
pub fn parse(body: &str, defaults: &Options) -> Result<Request, ApiError> {
    let body = Members::of_body(body)?;
    let action = body.object("action")?;
    let action = Action {
        kind: action.string("type")?.unwrap_or_default(),
        content: action.string("content")?.unwrap_or_default(),
    };
    if action.content.len() > ACTION_BYTES_MAX {
        let bytes = action.content.len();
        return Err(invalid(
            "action",
            format!(
                "the action's content has {bytes} bytes: at most {ACTION_BYTES_MAX} are allowed"
            ),
        ));
    }
    let data = body.get("data").map(|_| parameters(&body)).transpose()?;
    let timeout = time(&body, "timeout")?;
    let grace_period = time(&body, "healthCheckGracePeriod")?;
    let mut options = defaults.clone();
    set_millis(&mut options.task_timeout_ms, timeout);
    set_millis(&mut options.grace_ms, grace_period);
    set_options(&mut options, &body.object("options")?)?;
    let plan = body.value("plan")?;
    let webhook = body.string("webhook")?.filter(|url| !url.trim().is_empty());
    let mut given = json!([
        action,
        data,
        plan,
        timeout.map(nanos),
        grace_period.map(nanos),
        body.value("options")?
    ]);
    // Behind the others, and only where there is one: digests of older submissions stay what they were.
    if let (Some(url), Some(given)) = (&webhook, given.as_array_mut()) {
        given.push(json!({ "webhook": url }));
    }
    Ok(Request {
        action,
        data,
        plan,
        webhook,
        options: options.bounded(),
        timeout,
        grace_period,
        digest: hex(&digest("submission", &[given.to_string().as_bytes()])),
    })
}

fn parameters(body: &Members<'_>) -> Result<Vec<Parameter>, ApiError> {
    let elements = body.array("data")?;
    if elements.len() > PARAMETERS_MAX {
        let count = elements.len();
        return Err(invalid(
            "data",
            format!("data has {count} elements: at most {PARAMETERS_MAX} are allowed"),
        ));
    }
    let mut parameters: Vec<Parameter> = Vec::with_capacity(elements.len());
    let mut fields = HashSet::new();
    for element in elements {
        let parameter = parameter(element)?;
        if !fields.insert(parameter.field.clone()) {
            let message = format!(
                "the parameter {:?} is given twice: give each field of data once",
                parameter.field
            );
            return Err(invalid("data", message));
        }
        parameters.push(parameter);
    }
    Ok(parameters)
}

fn parameter(element: &RawValue) -> Result<Parameter, BadJson> {
    let element = Members::of("an element of \"data\"", element)?;
    Ok(Parameter {
        field: element.string("field")?.unwrap_or_default(),
        value: element.value("value")?.unwrap_or(Value::Null),
    })
}

/// A duration in any of the forms that orra's clients use. Zero counts as not given.
fn time(body: &Members<'_>, name: &'static str) -> Result<Option<Duration>, ApiError> {
    let Some(raw) = body.get(name) else {
        return Ok(None);
    };
    let nanos = |raw: &RawValue| raw.get().parse::<i64>().ok().and_then(duration::from_nanos);
    let text = raw.get();
    let read = if text.starts_with('"') {
        body.string(name)?.as_deref().and_then(duration::parse)
    } else if text.starts_with('{') {
        match body.object(name)?.get("Duration") {
            Some(raw) => nanos(raw),
            None => Some(Duration::ZERO),
        }
    } else {
        nanos(raw)
    };
    let read = read.ok_or_else(|| {
        invalid(
            name,
            format!(
                "member {name:?} is {text}: give {}, or a number of nanoseconds",
                duration::ACCEPTS
            ),
        )
    })?;
    Ok((!read.is_zero()).then_some(read))
}

/// What a submission may set beside orra's two times.
const OPTIONS: [&str; 15] = [
    "taskTimeout",
    "taskAttempts",
    "retryInitial",
    "retryFactor",
    "retryMax",
    "compensationTimeout",
    "compensationTtl",
    "compensationAttempts",
    "compensationInitial",
    "compensationMax",
    "planningTimeout",
    "planningAttempts",
    "planningInitial",
    "planningMax",
    "lateResultWait",
];

fn set_options(options: &mut Options, given: &Members<'_>) -> Result<(), ApiError> {
    if let Some(unknown) = given
        .names()
        .find(|name| !OPTIONS.iter().any(|known| known.eq_ignore_ascii_case(name)))
    {
        let message = format!(
            "there is no option {unknown:?}: there are {}",
            OPTIONS.join(", ")
        );
        return Err(invalid("options", message));
    }
    set_millis(&mut options.task_timeout_ms, time(given, "taskTimeout")?);
    set_millis(&mut options.retry_initial_ms, time(given, "retryInitial")?);
    set_millis(&mut options.retry_max_ms, time(given, "retryMax")?);
    set_millis(
        &mut options.compensation_timeout_ms,
        time(given, "compensationTimeout")?,
    );
    set_millis(
        &mut options.compensation_ttl_ms,
        time(given, "compensationTtl")?,
    );
    set_millis(
        &mut options.compensation_initial_ms,
        time(given, "compensationInitial")?,
    );
    set_millis(
        &mut options.compensation_max_ms,
        time(given, "compensationMax")?,
    );
    set_millis(
        &mut options.planning_timeout_ms,
        time(given, "planningTimeout")?,
    );
    set_millis(
        &mut options.planning_initial_ms,
        time(given, "planningInitial")?,
    );
    set_millis(&mut options.planning_max_ms, time(given, "planningMax")?);
    if let Some(wait) = time(given, "lateResultWait")? {
        options.late_result_wait_ms = Some(millis(wait));
    }
    set_count(&mut options.task_attempts, given, "taskAttempts")?;
    set_count(
        &mut options.compensation_attempts,
        given,
        "compensationAttempts",
    )?;
    set_count(&mut options.planning_attempts, given, "planningAttempts")?;
    if let Some(raw) = given.get("retryFactor") {
        options.retry_factor = raw
            .get()
            .parse()
            .ok()
            .filter(|factor| (1.0..=1_000.0).contains(factor))
            .ok_or_else(|| {
                invalid(
                    "options",
                    format!("retryFactor is {}: give a number from 1 to 1000", raw.get()),
                )
            })?;
    }
    Ok(())
}

fn set_count(count: &mut u32, given: &Members<'_>, name: &'static str) -> Result<(), ApiError> {
    if let Some(raw) = given.get(name) {
        let max = Options::ATTEMPTS_MAX;
        let read = raw
            .get()
            .parse()
            .ok()
            .filter(|count| (1..=max).contains(count));
        *count = read.ok_or_else(|| {
            invalid(
                "options",
                format!(
                    "{name} is {}: give a whole number from 1 to {max}",
                    raw.get()
                ),
            )
        })?;
    }
    Ok(())
}

fn set_millis(option: &mut u64, given: Option<Duration>) {
    if let Some(given) = given {
        *option = millis(given);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn invalid(param: &'static str, message: String) -> ApiError {
    ApiError::new(Kind::InvalidRequest, message)
        .code(code::JSON)
        .param(param)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Request {
        parse(body, &Options::default()).unwrap()
    }

    /// As orra's command line sends it without `-d`.
    #[test]
    fn the_command_lines_capital_c_and_null_data() {
        let request = read(
            r#"{"action":{"type":"","Content":"Echo this"},"data":null,"timeout":"45s","healthCheckGracePeriod":"1m0s"}"#,
        );
        assert_eq!(request.action.content, "Echo this");
        assert_eq!(request.data, None);
        assert_eq!(request.timeout, Some(Duration::from_secs(45)));
        assert_eq!(
            (request.options.task_timeout_ms, request.options.grace_ms),
            (45_000, 60_000)
        );
    }

    #[test]
    fn data_keeps_its_values() {
        let request = read(
            r#"{"action":{"content":"x"},"data":[{"Field":"order","value":{"Field":[1,null,"a"]}},{"field":"n"}]}"#,
        );
        let expected = vec![
            Parameter {
                field: "order".into(),
                value: json!({"Field": [1, null, "a"]}),
            },
            Parameter {
                field: "n".into(),
                value: Value::Null,
            },
        ];
        assert_eq!(request.data, Some(expected));
    }

    #[test]
    fn a_parameter_is_given_once() {
        let twice = r#"{"data":[{"field":"a","value":1},{"field":"a","value":2}]}"#;
        assert!(format!("{:?}", parse(twice, &Options::default())).contains("given twice"));
    }

    #[test]
    fn durations_come_in_three_forms() {
        for form in [
            "\"1.5s\"",
            "1500000000",
            "{\"Duration\":1500000000}",
            "{\"duration\":1500000000}",
        ] {
            let request = read(&format!(
                "{{\"action\":{{\"content\":\"x\"}},\"timeout\":{form}}}"
            ));
            assert_eq!(request.options.task_timeout_ms, 1_500, "{form}");
        }
        for none in ["0", "\"0s\"", "null", "{}"] {
            let request = read(&format!("{{\"timeout\":{none}}}"));
            assert_eq!(
                (request.timeout, request.options.task_timeout_ms),
                (None, 30_000),
                "{none}"
            );
        }
        for bad in [
            "\"soon\"",
            "\"\"",
            "-1",
            "true",
            "1.5",
            "\"-3s\"",
            "{\"Duration\":\"1s\"}",
        ] {
            let error = parse(&format!("{{\"timeout\":{bad}}}"), &Options::default()).unwrap_err();
            assert!(format!("{error:?}").contains("timeout"), "{bad}: {error:?}");
        }
    }

    #[test]
    fn what_else_a_record_has_cannot_be_set() {
        let request = read(
            r#"{"action":{"content":"x"},"id":"o_mine","status":"completed","groundingHit":{},"results":[1]}"#,
        );
        assert_eq!(
            request,
            Request {
                digest: request.digest.clone(),
                ..read(r#"{"action":{"content":"x"}}"#)
            }
        );
    }

    #[test]
    fn a_submission_names_where_it_wants_to_be_told() {
        let told = read(r#"{"action":{"content":"x"},"Webhook":"http://x/y"}"#);
        let plain = read(r#"{"action":{"content":"x"},"webhook":" "}"#);
        assert_eq!(told.webhook.as_deref(), Some("http://x/y"));
        assert_eq!(plain.webhook, None, "some clients send an empty one");
        assert_ne!(told.digest, plain.digest);
        assert_eq!(plain.digest, read(r#"{"action":{"content":"x"}}"#).digest);
    }

    #[test]
    fn options_are_set_by_name_and_unknown_ones_refused() {
        let request = read(
            r#"{"options":{"taskAttempts":3,"retryInitial":"100ms","RetryFactor":1.5,"lateResultWait":"2s"}}"#,
        );
        assert_eq!(request.options.task_attempts, 3);
        assert_eq!(
            (
                request.options.retry_initial_ms,
                request.options.retry_factor
            ),
            (100, 1.5)
        );
        assert_eq!(request.options.late_result_wait_ms, Some(2_000));
        for bad in [
            r#"{"taskAttempt":3}"#,
            r#"{"taskAttempts":0}"#,
            r#"{"taskAttempts":"3"}"#,
            r#"{"retryFactor":0.5}"#,
        ] {
            assert!(
                parse(&format!("{{\"options\":{bad}}}"), &Options::default()).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn the_digest_knows_the_submission_not_its_spacing() {
        let digest = |body: &str| read(body).digest;
        let plain = digest(r#"{"action":{"content":"x"},"data":[{"field":"a","value":1}]}"#);
        assert_eq!(
            plain,
            digest(r#"{ "data" : [ {"value":1, "field":"a"} ], "action":{"Content":"x"} }"#)
        );
        assert_ne!(
            plain,
            digest(r#"{"action":{"content":"x"},"data":[{"field":"a","value":2}]}"#)
        );
        assert_ne!(
            plain,
            digest(r#"{"action":{"content":"x"},"data":[{"field":"a","value":1}],"timeout":"1s"}"#)
        );
    }
}
