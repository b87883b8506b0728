//! Plans as this wire writes them: steps of components, and references in double braces. They become the drafts that every
//! submitted plan is, and are validated like them.
//!
//! ```text
//!  {"steps":[{"id":"s1","component":"payment","action":"…","input":{"sku":"{{s0.output.order.sku}}"},"dependencies":["s0"]}]}
//!  {{s1.output.a.b[0]}}          the output of step s1, at that path          $s1.a.b[0]
//!  {{request.action.content}}    the text of the action                       $task0["request.action.content"]
//!  {{request.data.city}}         a parameter of the submission                $task0.city
//! ```
//!
//! Other texts in double braces stay as they are: they may be some service's own.
//!
//! Invariant: a text that reads as a reference in braces becomes exactly that reference, or the plan is refused.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::problem::{Code, Problem};
use crate::plan::reference::{Segment, display_path};

/// The constant that holds the text of the action, in plans that refer to it.
const ACTION_CONSTANT: &str = "request.action.content";

/// A plan to follow, in place of one that the planner makes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum NewPlan {
    /// Steps of components.
    Steps(StepsPlan),
    /// Tasks of services, as planners write them.
    Tasks(TasksPlan),
}

/// Steps of components.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepsPlan {
    /// In any order: what a step refers to runs before it.
    #[schema(max_items = 1000)]
    pub steps: Vec<NewStep>,
    /// Advisory, and computed anew: references and dependencies decide what runs when.
    #[serde(default)]
    pub parallel_execution_groups: Option<Vec<Vec<String>>>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewStep {
    /// Unique in the plan: a letter, then letters, digits, `_` and `-`.
    pub id: String,
    /// The service: its id, or its name where only one has it.
    pub component: String,
    /// For people; the service is not sent it.
    #[serde(default)]
    pub action: Option<String>,
    /// Literals and references, at any depth.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub input: Option<Map<String, Value>>,
    /// For people; the service's own schema is what counts.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub expected_output: Option<Value>,
    /// Steps that must be complete before this one, beside those its input refers to.
    #[serde(default)]
    pub dependencies: Option<Vec<String>>,
}

/// Tasks of services, as planners write them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TasksPlan {
    /// `{"id","service","input"}`; `task0` holds the constants.
    #[schema(value_type = Vec<Object>, max_items = 1000)]
    pub tasks: Vec<Value>,
    /// The constants, in place of `task0`.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub task_zero: Option<Map<String, Value>>,
}

/// The draft of a plan as it came.
pub fn draft_of(plan: &Value, action: &str) -> Result<Value, Problem> {
    if let Some(steps) = plan.get("steps") {
        let objects = |steps: &Vec<Value>| steps.iter().all(Value::is_object);
        if !steps.as_array().is_some_and(objects) {
            return Err(refused(vec![
                "`steps` must be an array of objects".to_owned(),
            ]));
        }
        let plan: StepsPlan = serde_json::from_value(plan.clone()).map_err(|error| {
            refused(vec![format!(
                "the plan is not what this route takes: {error}"
            )])
        })?;
        return draft_of_steps(plan, action);
    }
    let mut draft = match plan {
        Value::Array(tasks) => json!({"tasks": tasks}),
        other => other.clone(),
    };
    let Some(Value::Array(tasks)) = draft.get_mut("tasks") else {
        return Err(refused(vec![
            "the plan must have an array `steps`, or an array `tasks`".to_owned(),
        ]));
    };
    let ids = tasks
        .iter()
        .filter_map(|task| Some(task.get("id")?.as_str()?.to_owned()));
    let mut translation = Translation::new(ids.collect());
    for task in tasks.iter_mut() {
        let id = task.get("id").and_then(Value::as_str).unwrap_or("?");
        let id = id.to_owned();
        if let Some(input) = task.get_mut("input") {
            translation.value(&id, input);
        }
    }
    if translation.uses_action {
        tasks.insert(0, constants(action));
        merge_task_zeros(tasks);
    }
    translation.end(draft)
}

fn draft_of_steps(plan: StepsPlan, action: &str) -> Result<Value, Problem> {
    let mut translation = Translation::new(plan.steps.iter().map(|step| step.id.clone()).collect());
    let mut tasks = Vec::with_capacity(plan.steps.len() + 1);
    for step in plan.steps {
        let mut input = Value::Object(step.input.unwrap_or_default());
        translation.value(&step.id, &mut input);
        tasks.push(json!({
            "id": step.id, "service": step.component, "input": input, "after": step.dependencies.unwrap_or_default(),
        }));
    }
    if translation.uses_action {
        tasks.insert(0, constants(action));
    }
    translation.end(json!({ "tasks": tasks }))
}

fn constants(action: &str) -> Value {
    json!({"id": "task0", "input": {ACTION_CONSTANT: action}})
}

/// A plan has one `task0`: the caller's constants join ours.
fn merge_task_zeros(tasks: &mut Vec<Value>) {
    let is_zero = |task: &Value| {
        task.get("id")
            .and_then(Value::as_str)
            .is_some_and(crate::plan::reference::is_task_zero)
    };
    let Some(theirs) = (1..tasks.len()).find(|&at| is_zero(&tasks[at])) else {
        return;
    };
    let ours = tasks.remove(0);
    let text = ours["input"][ACTION_CONSTANT].clone();
    if let Some(Value::Object(input)) = tasks[theirs - 1].get_mut("input") {
        input.insert(ACTION_CONSTANT.to_owned(), text);
    } else {
        tasks[theirs - 1]["input"] = json!({ ACTION_CONSTANT: text });
    }
}

fn refused(reasons: Vec<String>) -> Problem {
    Problem::new(Code::PlanRefused, "the plan is refused")
        .param("plan")
        .reasons(reasons)
}

struct Translation {
    ids: HashSet<String>,
    uses_action: bool,
    faults: Vec<String>,
}

impl Translation {
    fn new(ids: HashSet<String>) -> Self {
        Self {
            ids,
            uses_action: false,
            faults: Vec::new(),
        }
    }

    fn end(self, draft: Value) -> Result<Value, Problem> {
        if self.faults.is_empty() {
            Ok(draft)
        } else {
            Err(refused(self.faults))
        }
    }

    fn value(&mut self, step: &str, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(step, text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(step, item)),
            Value::Object(members) => members
                .values_mut()
                .for_each(|member| self.value(step, member)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn text(&mut self, step: &str, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find("{{") {
            out.push_str(&rest[..start]);
            let inner = &rest[start + 2..];
            let Some(end) = inner.find("}}") else {
                out.push_str(&rest[start..]);
                return out;
            };
            let (written, after) = (&inner[..end], &inner[end + 2..]);
            match self.reference(written.trim()) {
                None => out.push_str(&rest[start..start + end + 4]),
                Some(Ok((task, path))) => {
                    if out.ends_with('$') {
                        self.faults.push(format!(
                            "{step}: a `$` stands right before {{{{{written}}}}}: put a blank between them"
                        ));
                    }
                    out.push_str(&self.written(step, written, &task, path, after));
                }
                Some(Err(fault)) => self
                    .faults
                    .push(format!("{step}: {{{{{written}}}}} {fault}")),
            }
            rest = after;
        }
        out.push_str(rest);
        out
    }

    /// The reference as the plan writes it, such that what follows it in the text does not read on.
    fn written(
        &mut self,
        step: &str,
        braces: &str,
        task: &str,
        path: Vec<Segment>,
        after: &str,
    ) -> String {
        let reads_on = |next: char| next.is_ascii_alphanumeric() || matches!(next, '_' | '-');
        if after.starts_with('[')
            || after
                .strip_prefix('.')
                .is_some_and(|after| after.starts_with(reads_on))
        {
            self.faults.push(format!(
                "{step}: {{{{{braces}}}}} is followed by `{}`, which would read as a part of it: put a blank between them",
                &after[..after.chars().next().map_or(0, char::len_utf8)]
            ));
        }
        match path.split_last() {
            Some((Segment::Field(last), before)) if after.starts_with(reads_on) => {
                let before = display_path(before, true);
                format!("${task}{before}[{}]", Value::String(last.clone()))
            }
            _ => format!("${task}{}", display_path(&path, true)),
        }
    }

    /// What a text in braces refers to; `None` when it is no reference, an error when it is one that leads nowhere.
    #[allow(clippy::type_complexity, reason = "named where it is matched")]
    fn reference(&mut self, text: &str) -> Option<Result<(String, Vec<Segment>), String>> {
        let (head, rest) = text.split_once('.')?;
        if head == "request" {
            return Some(match rest.split_once('.') {
                Some(("action", "content")) => {
                    self.uses_action = true;
                    let path = vec![Segment::Field(ACTION_CONSTANT.to_owned())];
                    Ok(("task0".to_owned(), path))
                }
                Some(("data", path)) => path_of(path).map(|path| ("task0".to_owned(), path)),
                _ => Err(
                    "refers to nothing: there are request.action.content and request.data.<field>"
                        .to_owned(),
                ),
            });
        }
        let path = match rest.strip_prefix("output") {
            Some("") => {
                return Some(Err(
                    "refers to a whole output: name a member of it, as in {{step.output.member}}"
                        .to_owned(),
                ));
            }
            Some(path) => path
                .strip_prefix('.')
                .or(path.strip_prefix('[').map(|_| path))?,
            None => return None,
        };
        if !self.ids.contains(head) {
            let mut known: Vec<&str> = self.ids.iter().map(String::as_str).collect();
            known.sort_unstable();
            return Some(Err(format!(
                "refers to {head:?}, and there is no such step; there are {}",
                known.join(", ")
            )));
        }
        Some(path_of(path).map(|path| (head.to_owned(), path)))
    }
}

/// `a.b[0].c`: names and indexes, of which the first is a name.
fn path_of(text: &str) -> Result<Vec<Segment>, String> {
    let wrong = || format!("has the path {text:?}: write it like order.lines[0].sku");
    let mut path = Vec::new();
    for part in text.split('.') {
        let (name, mut indexes) = match part.find('[') {
            Some(at) => part.split_at(at),
            None => (part, ""),
        };
        if name.is_empty() || name.contains(['{', '}', ']', '"']) {
            return Err(wrong());
        }
        path.push(Segment::Field(name.to_owned()));
        while let Some(rest) = indexes.strip_prefix('[') {
            let (index, rest) = rest.split_once(']').ok_or_else(wrong)?;
            let canonical = index.len() <= 9 && (index == "0" || !index.starts_with('0'));
            let index = index.parse().ok().filter(|_| canonical);
            path.push(Segment::Index(index.ok_or_else(wrong)?));
            indexes = rest;
        }
        if !indexes.is_empty() {
            return Err(wrong());
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(inputs: &[(&str, Value)]) -> Value {
        let steps: Vec<Value> = inputs
            .iter()
            .map(|(id, input)| json!({"id": id, "component": "echo", "input": input}))
            .collect();
        json!({ "steps": steps })
    }

    fn input(text: &str) -> Result<Value, Problem> {
        let plan = plan(&[("s1", json!({})), ("s2", json!({ "text": text }))]);
        let draft = draft_of(&plan, "Order one lamp")?;
        let tasks = draft["tasks"].as_array().unwrap();
        Ok(tasks.last().unwrap()["input"]["text"].clone())
    }

    #[test]
    fn references_in_braces_become_the_plans_own() {
        for (text, expected) in [
            ("{{s1.output.sku}}", "$s1.sku"),
            (
                "{{ s1.output.order.lines[0].sku }}",
                "$s1.order.lines[0].sku",
            ),
            ("{{s1.output.first name}}", "$s1[\"first name\"]"),
            ("To {{s1.output.city}}, now", "To $s1.city, now"),
            ("{{s1.output.city}}wards", "$s1[\"city\"]wards"),
            ("{{s1.output.a}}{{s1.output.b}}", "$s1.a$s1.b"),
            ("{{request.data.city}}", "$task0.city"),
            (
                "{{request.action.content}}",
                "$task0[\"request.action.content\"]",
            ),
            ("{{name}} and {{a.b}}", "{{name}} and {{a.b}}"),
            ("{{unclosed", "{{unclosed"),
            ("$s1.sku", "$s1.sku"),
        ] {
            assert_eq!(input(text).unwrap(), json!(expected), "{text}");
        }
    }

    #[test]
    fn a_reference_that_leads_nowhere_is_refused_by_name() {
        for text in [
            "{{s9.output.x}}",
            "{{s1.output}}",
            "{{s1.output.a[x]}}",
            "{{s1.output.a[01]}}",
            "{{s1.output..b}}",
            "{{request.nothing}}",
            "{{s1.output.a}}.b",
            "{{s1.output.a}}[0]",
            "${{s1.output.a}}",
        ] {
            let problem = format!("{:?}", input(text).unwrap_err());
            assert!(
                problem.contains("PlanRefused") && problem.contains("[\"s2: "),
                "{problem}"
            );
        }
    }

    #[test]
    fn the_action_is_a_constant_of_the_plans_that_refer_to_it() {
        let plan = plan(&[("s1", json!({"text": ["{{request.action.content}}"]}))]);
        let draft = draft_of(&plan, "Order $5 of {{lamps}}").unwrap();
        let zero =
            json!({"id": "task0", "input": {"request.action.content": "Order $5 of {{lamps}}"}});
        assert_eq!(draft["tasks"][0], zero);
        let with_constants = json!({"tasks": [
            {"id": "task0", "input": {"city": "Bern"}},
            {"id": "task1", "service": "echo", "input": {"text": "{{request.action.content}}"}},
        ]});
        let draft = draft_of(&with_constants, "go").unwrap();
        let zero =
            json!({"id": "task0", "input": {"city": "Bern", "request.action.content": "go"}});
        assert_eq!(draft["tasks"][0], zero);
        assert_eq!(draft["tasks"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn dependencies_are_kept() {
        let plan = json!({"steps": [
            {"id": "a", "component": "x"}, {"id": "b", "component": "x", "dependencies": ["a"]},
        ]});
        let draft = draft_of(&plan, "").unwrap();
        assert_eq!(draft["tasks"][1]["after"], json!(["a"]));
    }
}
