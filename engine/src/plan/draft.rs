//! Drafts: plans before they are validated, as a model wrote them in its reply or as a caller submitted them.
//!
//! ```text
//!  reply:       <think> … </think>? then ```json {plan} ``` or {plan}
//!  submission:  {plan} | [task, …]
//!  plan:        {"tasks": [task, …], "task_zero"?: {constants}, anything else is ignored}
//!  task:        {"id": "task0", "input": {constants}} | {"id": …, "service": …, "input": {…}, "after"?: [ids], of callers only}
//!  refusal:     a task with the id "final"; its input's "error" says why the action cannot be done
//! ```

use serde_json::{Map, Value};

use super::reference::is_task_zero;

/// Tasks of a plan.
pub const TASKS_MAX: usize = 1_000;
/// Bytes of a draft's text.
pub const TEXT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The id that says that an action cannot be done.
const FINAL: &str = "final";

/// A plan that may be wrong.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Draft {
    /// The constants: the input of `task0`.
    pub task_zero: Map<String, Value>,
    /// Whether `task0` is there more than once, or names a service.
    pub task_zero_faults: Vec<TaskZeroFault>,
    /// The other tasks, as they came.
    pub tasks: Vec<DraftTask>,
    /// Whether services may be named instead of identified.
    pub services_by_name: bool,
}

/// What can be wrong with `task0` itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskZeroFault {
    /// There is more than one.
    Repeated,
    /// It names a service.
    HasService(String),
}

/// A task of a draft.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DraftTask {
    /// Not yet known to be unique.
    pub id: String,
    /// The service's id, or its name if the draft allows that.
    pub service: Option<String>,
    /// Literals and references.
    pub input: Map<String, Value>,
    /// Tasks that come before it although it refers to nothing of theirs. Only callers say so.
    pub after: Vec<String>,
}

/// What a draft turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Parsed {
    /// A plan to validate.
    Draft(Draft),
    /// The action cannot be done, and why.
    NotActionable(String),
}

/// Why there is no draft.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    /// There is more than anyone plans.
    #[error("the plan has {bytes} bytes, at most {TEXT_BYTES_MAX} are allowed")]
    TooLong {
        /// How many.
        bytes: usize,
    },
    /// There is no JSON where it should be.
    #[error("the answer has no plan: answer with one JSON object inside a ```json fence")]
    NoJson,
    /// The reply ends while the model still thinks.
    #[error("the answer ends inside its <think> block, before any plan")]
    Unfinished,
    /// It does not parse.
    #[error("the plan is not valid JSON: {text}")]
    NotJson {
        /// What the parser says.
        text: String,
    },
    /// The JSON is something else.
    #[error("{at} must be {expected}")]
    Shape {
        /// Where.
        at: String,
        /// What must be there.
        expected: &'static str,
    },
    /// There are more tasks than a plan may have.
    #[error("the plan has {tasks} tasks, at most {TASKS_MAX} are allowed")]
    TooManyTasks {
        /// How many.
        tasks: usize,
    },
}

/// The plan in a model's reply.
pub fn parse_reply(reply: &str) -> Result<Parsed, DraftError> {
    if reply.len() > TEXT_BYTES_MAX {
        return Err(DraftError::TooLong { bytes: reply.len() });
    }
    let json = json_of(after_thinking(reply.trim())?).ok_or(DraftError::NoJson)?;
    // What follows the first value is not looked at: the end of the fence, a kind word.
    match serde_json::Deserializer::from_str(json)
        .into_iter::<Value>()
        .next()
    {
        Some(Ok(value)) => parse(&value, false),
        Some(Err(error)) => Err(DraftError::NotJson {
            text: error.to_string(),
        }),
        None => Err(DraftError::NoJson),
    }
}

/// The plan that a caller submitted.
pub fn parse_submission(plan: &Value) -> Result<Parsed, DraftError> {
    parse(plan, true)
}

fn after_thinking(reply: &str) -> Result<&str, DraftError> {
    const END: &str = "</think>";
    match reply.find(END) {
        Some(end) if reply.starts_with("<think>") => Ok(&reply[end + END.len()..]),
        None if reply.starts_with("<think>") => Err(DraftError::Unfinished),
        _ => Ok(reply),
    }
}

fn json_of(reply: &str) -> Option<&str> {
    const FENCE: &str = "```json";
    let reply = reply.trim();
    if reply.starts_with('{') {
        return Some(reply);
    }
    let fenced = &reply[reply.find(FENCE)? + FENCE.len()..];
    fenced
        .trim_start()
        .starts_with(['{', '[', '"'])
        .then_some(fenced)
}

fn parse(plan: &Value, by_caller: bool) -> Result<Parsed, DraftError> {
    let (tasks, members) = match plan {
        Value::Array(tasks) if by_caller => (tasks, None),
        Value::Object(members) => match members.get("tasks") {
            Some(Value::Array(tasks)) => (tasks, Some(members)),
            _ => return shape("`tasks` of the plan", "an array of tasks"),
        },
        _ => return shape("the plan", "a JSON object with an array `tasks`"),
    };
    if tasks.len() > TASKS_MAX {
        return Err(DraftError::TooManyTasks { tasks: tasks.len() });
    }
    let mut draft = Draft {
        services_by_name: by_caller,
        ..Draft::default()
    };
    let mut has_task_zero = false;
    if let Some(constants) =
        members.and_then(|members| members.get("task_zero").or_else(|| members.get("taskZero")))
    {
        match constants {
            Value::Object(constants) if by_caller => draft.task_zero = constants.clone(),
            Value::Null => {}
            _ if !by_caller => {}
            _ => return shape("`task_zero` of the plan", "a JSON object"),
        }
    }
    for (index, task) in tasks.iter().enumerate() {
        let task = parse_task(task, index, by_caller)?;
        if task.id.eq_ignore_ascii_case(FINAL) {
            return Ok(Parsed::NotActionable(refusal(&task.input)));
        }
        if !is_task_zero(&task.id) {
            draft.tasks.push(task);
            continue;
        }
        if has_task_zero {
            draft.task_zero_faults.push(TaskZeroFault::Repeated);
        }
        if let Some(service) = task.service {
            draft
                .task_zero_faults
                .push(TaskZeroFault::HasService(service));
        }
        has_task_zero = true;
        draft.task_zero.extend(task.input);
    }
    Ok(Parsed::Draft(draft))
}

fn parse_task(task: &Value, index: usize, by_caller: bool) -> Result<DraftTask, DraftError> {
    let at = |member: &str| format!("`{member}` of task number {}", index + 1);
    let Value::Object(members) = task else {
        return shape(
            format!("task number {} of the plan", index + 1),
            "a JSON object",
        );
    };
    let Some(Value::String(id)) = members.get("id") else {
        return shape(at("id"), "a string");
    };
    let named = members.get("service").filter(|service| !service.is_null());
    let service = match named.or_else(|| members.get("service_name").filter(|_| by_caller)) {
        None | Some(Value::Null) => None,
        Some(Value::String(service)) if service.trim().is_empty() => None,
        Some(Value::String(service)) => Some(service.trim().to_owned()),
        Some(_) => return shape(at("service"), "the id of a service, a string"),
    };
    let input = match members.get("input") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(input)) => input.clone(),
        Some(_) => return shape(at("input"), "a JSON object"),
    };
    let after = match members.get("after").filter(|_| by_caller) {
        None | Some(Value::Null) => Vec::new(),
        Some(after) => match serde_json::from_value(after.clone()) {
            Ok(after) => after,
            Err(_) => return shape(at("after"), "an array of ids of tasks"),
        },
    };
    Ok(DraftTask {
        id: id.trim().to_owned(),
        service,
        input,
        after,
    })
}

fn refusal(input: &Map<String, Value>) -> String {
    match input.get("error") {
        Some(Value::String(reason)) if !reason.trim().is_empty() => reason.trim().to_owned(),
        None | Some(Value::Null | Value::String(_)) => "no reason was given".to_owned(),
        Some(other) => other.to_string(),
    }
}

fn shape<T>(at: impl Into<String>, expected: &'static str) -> Result<T, DraftError> {
    Err(DraftError::Shape {
        at: at.into(),
        expected,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PLAN: &str = r#"{"tasks":[{"id":"task0","input":{"a":1}},{"id":"task1","service":"s_x","input":{"a":"$task0.a"}}]}"#;

    fn draft(parsed: Result<Parsed, DraftError>) -> Draft {
        match parsed.unwrap() {
            Parsed::Draft(draft) => draft,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_reply_is_read_with_and_without_its_trimmings() {
        let replies = [
            PLAN.to_owned(),
            format!("  \n{PLAN}\nDone."),
            format!("```json\n{PLAN}\n```"),
            format!("Here it is:\n```json{PLAN}```\nAnything else?"),
            format!("<think>\nmaybe ```json {{}} ```?\n</think>\n```json\n{PLAN}\n```"),
            format!("<think></think>{PLAN}"),
        ];
        for reply in replies {
            let draft = draft(parse_reply(&reply));
            assert_eq!(Value::Object(draft.task_zero), json!({"a": 1}), "{reply}");
            assert_eq!(draft.tasks[0].service.as_deref(), Some("s_x"));
            assert!(!draft.services_by_name);
        }
    }

    #[test]
    fn a_fence_within_a_string_is_no_end() {
        let reply = "```json\n{\"tasks\":[{\"id\":\"task1\",\"service\":\"s\",\"input\":{\"code\":\"```\\n```json\"}}]}\n```";
        assert_eq!(
            draft(parse_reply(reply)).tasks[0].input["code"],
            "```\n```json"
        );
    }

    #[test]
    fn what_is_no_plan_is_refused() {
        let cases = [
            ("", "the answer has no plan"),
            ("I cannot do that.", "the answer has no plan"),
            ("```json\n```", "the answer has no plan"),
            ("```\n{\"tasks\":[]}\n```", "the answer has no plan"),
            ("<think> hmm", "the answer ends inside"),
            ("{\"tasks\": [", "the plan is not valid JSON: EOF"),
            (
                "```json\n{tasks: []}\n```",
                "the plan is not valid JSON: key must be",
            ),
            ("{}", "`tasks` of the plan must be an array of tasks"),
            ("```json\n[]\n```", "the plan must be a JSON object"),
            (
                r#"{"tasks":[1]}"#,
                "task number 1 of the plan must be a JSON object",
            ),
            (
                r#"{"tasks":[{"id":"a"},{"id":7}]}"#,
                "`id` of task number 2 must be a string",
            ),
            (
                r#"{"tasks":[{"id":"a","service":7}]}"#,
                "`service` of task number 1 must be",
            ),
            (
                r#"{"tasks":[{"id":"a","input":[]}]}"#,
                "`input` of task number 1 must be a JSON object",
            ),
        ];
        for (reply, expected) in cases {
            let text = parse_reply(reply).unwrap_err().to_string();
            assert!(text.starts_with(expected), "{reply}: {text}");
        }
        assert!(matches!(
            parse_reply(&"x".repeat(TEXT_BYTES_MAX + 1)),
            Err(DraftError::TooLong { .. })
        ));
        let tasks: Vec<_> = (0..=TASKS_MAX)
            .map(|n| json!({"id": format!("task{n}")}))
            .collect();
        assert!(matches!(
            parse_submission(&json!(tasks)),
            Err(DraftError::TooManyTasks { tasks: 1001 })
        ));
    }

    #[test]
    fn a_final_task_says_why_not() {
        let reply = |input: Value| {
            parse_reply(&json!({"tasks": [{"id": "Final", "input": input}]}).to_string()).unwrap()
        };
        assert_eq!(
            reply(json!({"error": " no such service "})),
            Parsed::NotActionable("no such service".into())
        );
        assert_eq!(
            reply(json!({})),
            Parsed::NotActionable("no reason was given".into())
        );
        assert_eq!(
            reply(json!({"error": {"a": 1}})),
            Parsed::NotActionable(r#"{"a":1}"#.into())
        );
    }

    #[test]
    fn a_submission_may_be_a_list_or_a_recorded_plan() {
        let list = draft(parse_submission(
            &json!([{"id": "a", "service": "echo", "input": {"m": "$task0.m"}}]),
        ));
        assert!(list.services_by_name && list.task_zero.is_empty());
        let recorded = json!({
            "task_zero": {"m": 1}, "parallel_groups": [["a"]],
            "tasks": [{"id": "a", "service": "s_x", "service_name": "echo", "revertible": false, "input": {}, "depends_on": []},
                      {"id": "b", "service_name": "echo"}]
        });
        let recorded = draft(parse_submission(&recorded));
        assert_eq!(recorded.task_zero["m"], 1);
        assert_eq!(recorded.tasks[0].service.as_deref(), Some("s_x"));
        assert_eq!(recorded.tasks[1].service.as_deref(), Some("echo"));
        assert!(parse_submission(&json!({"tasks": [], "task_zero": 1})).is_err());
        assert!(parse_submission(&json!("x")).is_err());
    }

    #[test]
    fn faults_of_task0_are_kept_for_the_validator() {
        let twice = json!([{"id": "task0", "service": "s", "input": {"a": 1}}, {"id": "TASK0", "input": {"b": 2}}]);
        let draft = draft(parse_submission(&twice));
        assert_eq!(
            draft.task_zero_faults,
            [
                TaskZeroFault::HasService("s".into()),
                TaskZeroFault::Repeated
            ]
        );
        assert_eq!(Value::Object(draft.task_zero), json!({"a": 1, "b": 2}));
    }
}
