//! `orchestrion diff`: where two orchestrations first part, told in words. What happens at the same time in different steps may come in
//! any order: the steps are compared one by one, and the earliest parting is told.

use std::collections::BTreeMap;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::CliError;
use super::logs::Record;
use super::render::{cut, json_line};
use super::{Session, Target, client, show, show_json};

/// How much of a value is told.
const VALUE_LENGTH: usize = 80;
/// Records asked for at once.
const PAGE: u64 = 1_000;

/// Which two.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// One orchestration's id
    pub a: String,
    /// The other's
    pub b: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Page {
    items: Vec<Record>,
    next_after: Option<u64>,
}

/// Compares them.
pub async fn run(session: &Session, args: DiffArgs) -> Result<(), CliError> {
    let target = session.target().await?;
    let a = moves(&journal(&target, &args.a).await?);
    let b = moves(&journal(&target, &args.b).await?);
    let parting = parting(&a, &b);
    if session.json {
        return show_json(&json!({
            "a": args.a,
            "b": args.b,
            "same": parting.is_none(),
            "step": parting.as_ref().map(|p| p.step.clone()),
            "recordOfA": parting.as_ref().and_then(|p| p.of_a),
            "recordOfB": parting.as_ref().and_then(|p| p.of_b),
            "words": parting.as_ref().map(|p| p.words.clone()),
        }));
    }
    show(&match parting {
        None => format!("{} and {} went the same way\n", args.a, args.b),
        Some(parting) => parting.told(&args),
    })
}

/// All records of an orchestration.
pub(super) async fn journal(target: &Target, id: &str) -> Result<Vec<Record>, CliError> {
    let mut records = Vec::new();
    let mut after = 0;
    loop {
        let query = [("after", after.to_string()), ("limit", PAGE.to_string())];
        let path = ["v1", "orchestrations", id, "records"];
        let page: Page = client::read(&target.client.get(&path, &query).await?)?;
        records.extend(page.items);
        match page.next_after {
            Some(next) => after = next,
            None => return Ok(records),
        }
    }
}

/// One thing that happened and that another run could have done otherwise.
#[derive(Debug, Clone, PartialEq)]
struct Move {
    /// The record that tells of it.
    sequence: u64,
    /// To which step; empty for the run as a whole.
    step: String,
    /// In words, without its data.
    what: &'static str,
    /// What it was done with, or what came of it.
    data: Value,
}

/// What counts in a journal: times, ids and who did it do not.
fn moves(records: &[Record]) -> Vec<Move> {
    records.iter().filter_map(of_record).collect()
}

fn of_record(record: &Record) -> Option<Move> {
    let event = record.record.get("event");
    let (what, data) = match record.name.as_str() {
        "WorkflowExecutionStarted" => {
            let input = payload(event?.pointer("/workflowExecutionStartedEventAttributes/input"));
            let mut asked = input;
            if let Some(members) = asked.as_object_mut() {
                members.remove("forked_from");
                members.remove("taken_over");
                members.remove("rules");
            }
            ("it was asked for", asked)
        }
        "ActivityTaskScheduled" => {
            let attributes = event?.get("activityTaskScheduledEventAttributes")?;
            let input = match record.step.as_deref() {
                // The submission again.
                Some("plan") => Value::Null,
                _ => payload(attributes.get("input")),
            };
            ("it was scheduled with", input)
        }
        "ActivityTaskCompleted" => {
            let result = event?.pointer("/activityTaskCompletedEventAttributes/result");
            let result = payload(result);
            let result = match record.step.as_deref() {
                Some("plan") => result.get("plan").cloned().unwrap_or(result),
                _ => result.get("task").cloned().unwrap_or(result),
            };
            ("it completed with", result)
        }
        "ActivityTaskFailed" => (
            "it failed:",
            event?
                .pointer("/activityTaskFailedEventAttributes/failure/message")
                .cloned()
                .unwrap_or_default(),
        ),
        "ActivityTaskTimedOut" => ("it gave no answer in time", Value::Null),
        "ActivityTaskCanceled" => ("it was called off", Value::Null),
        "ActivityAttemptFailed" => (
            "an attempt of it failed:",
            record
                .record
                .pointer("/note/activityAttemptFailed/failure/message")
                .cloned()
                .unwrap_or_default(),
        ),
        "WorkflowExecutionCancelRequested" => (
            "its end was asked for:",
            event?
                .pointer("/workflowExecutionCancelRequestedEventAttributes/cause")
                .cloned()
                .unwrap_or_default(),
        ),
        "WorkflowExecutionSignaled" => (
            "it was sent the signal",
            event?
                .pointer("/workflowExecutionSignaledEventAttributes/signalName")
                .cloned()
                .unwrap_or_default(),
        ),
        "WorkflowExecutionCompleted" => (
            "it ended well with",
            payload(event?.pointer("/workflowExecutionCompletedEventAttributes/result")),
        ),
        "WorkflowExecutionFailed" => (
            "it ended as failed:",
            event?
                .pointer("/workflowExecutionFailedEventAttributes/failure/message")
                .cloned()
                .unwrap_or_default(),
        ),
        "WorkflowExecutionCanceled" => ("it ended as cancelled", Value::Null),
        "WorkflowExecutionTerminated" => ("it was terminated", Value::Null),
        _ => return None,
    };
    Some(Move {
        sequence: record.sequence,
        step: record.step.clone().unwrap_or_default(),
        what,
        data,
    })
}

/// The JSON of the first payload, or how the payload is written where it is none.
fn payload(payloads: Option<&Value>) -> Value {
    let first = payloads.and_then(|payloads| payloads.pointer("/payloads/0"));
    match first {
        Some(payload) => payload.get("json").unwrap_or(payload).clone(),
        None => Value::Null,
    }
}

/// Where two runs part.
#[derive(Debug, PartialEq)]
struct Parting {
    step: String,
    of_a: Option<u64>,
    of_b: Option<u64>,
    words: String,
}

impl Parting {
    fn told(&self, args: &DiffArgs) -> String {
        let place = |record: Option<u64>| {
            record.map_or_else(|| "no such record".to_owned(), |n| format!("record {n}"))
        };
        let at = if self.step.is_empty() {
            "in the run as a whole".to_owned()
        } else {
            format!("at {}", self.step)
        };
        format!(
            "They part {at}.\n  A is {} ({})\n  B is {} ({})\n{}",
            args.a,
            place(self.of_a),
            args.b,
            place(self.of_b),
            self.words
        )
    }
}

fn parting(a: &[Move], b: &[Move]) -> Option<Parting> {
    let (by_a, by_b) = (by_step(a), by_step(b));
    let steps = by_a.keys().chain(by_b.keys());
    let mut found: Vec<Parting> = steps
        .filter_map(|step| {
            let none = Vec::new();
            let of_a = by_a.get(step).unwrap_or(&none);
            let of_b = by_b.get(step).unwrap_or(&none);
            part(step, of_a, of_b)
        })
        .collect();
    found.sort_by_key(|parting| {
        let first = [parting.of_a, parting.of_b].into_iter().flatten().min();
        first.unwrap_or(u64::MAX)
    });
    found.into_iter().next()
}

fn by_step(moves: &[Move]) -> BTreeMap<&str, Vec<&Move>> {
    let mut steps: BTreeMap<&str, Vec<&Move>> = BTreeMap::new();
    for one in moves {
        steps.entry(&one.step).or_default().push(one);
    }
    steps
}

fn part(step: &str, a: &[&Move], b: &[&Move]) -> Option<Parting> {
    let at = (0..a.len().max(b.len())).find(|&at| match (a.get(at), b.get(at)) {
        (Some(a), Some(b)) => a.what != b.what || a.data != b.data,
        _ => true,
    })?;
    let (of_a, of_b) = (a.get(at), b.get(at));
    let mut words = format!("  A: {}\n  B: {}\n", told(of_a), told(of_b));
    if let (Some(a), Some(b)) = (of_a, of_b)
        && a.what == b.what
        && let Some(difference) = difference(&a.data, &b.data, String::new())
    {
        words.push_str(&format!("  {difference}\n"));
    }
    Some(Parting {
        step: step.to_owned(),
        of_a: of_a.map(|one| one.sequence),
        of_b: of_b.map(|one| one.sequence),
        words,
    })
}

fn told(one: Option<&&Move>) -> String {
    match one {
        None => "nothing more happened".to_owned(),
        Some(one) => match &one.data {
            Value::Null => one.what.to_owned(),
            Value::String(text) => format!("{} {text}", one.what),
            data => format!("{} {}", one.what, json_line(data, VALUE_LENGTH)),
        },
    }
}

/// The first place where two values differ, with both.
fn difference(a: &Value, b: &Value, at: String) -> Option<String> {
    let name = |at: &str| {
        if at.is_empty() {
            "they differ".to_owned()
        } else {
            format!("they differ at {}", at.trim_start_matches('.'))
        }
    };
    match (a, b) {
        _ if a == b => None,
        (Value::Object(of_a), Value::Object(of_b)) => of_a
            .keys()
            .chain(of_b.keys().filter(|key| !of_a.contains_key(*key)))
            .find_map(|key| {
                let at = format!("{at}.{key}");
                match (of_a.get(key), of_b.get(key)) {
                    (Some(a), Some(b)) => difference(a, b, at),
                    (Some(a), None) => Some(format!(
                        "{}: A has {}, B has nothing there",
                        name(&at),
                        quoted(a)
                    )),
                    (None, b) => Some(format!(
                        "{}: A has nothing there, B has {}",
                        name(&at),
                        quoted(b.unwrap_or(&Value::Null))
                    )),
                }
            }),
        (Value::Array(of_a), Value::Array(of_b)) if of_a.len() == of_b.len() => {
            let pairs = of_a.iter().zip(of_b).enumerate();
            pairs
                .into_iter()
                .find_map(|(index, (a, b))| difference(a, b, format!("{at}[{index}]")))
        }
        _ => Some(format!(
            "{}: A has {}, B has {}",
            name(&at),
            quoted(a),
            quoted(b)
        )),
    }
}

/// As JSON, so that a number is told from its digits.
fn quoted(value: &Value) -> String {
    cut(&value.to_string(), VALUE_LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happened(sequence: u64, step: &str, what: &'static str, data: Value) -> Move {
        Move {
            sequence,
            step: step.to_owned(),
            what,
            data,
        }
    }

    fn run_of(result: &Value) -> Vec<Move> {
        vec![
            happened(1, "", "it was asked for", json!({"action": "x"})),
            happened(5, "task1", "it was scheduled with", json!({"n": 1})),
            happened(6, "task2", "it was scheduled with", json!({"n": 2})),
            happened(8, "task1", "it completed with", result.clone()),
            happened(9, "task2", "it completed with", json!({"ok": true})),
        ]
    }

    #[test]
    fn runs_that_went_the_same_way_in_another_order_do_not_part() {
        let a = run_of(&json!({"total": 5}));
        let mut b = a.clone();
        b.swap(3, 4);
        assert_eq!(parting(&a, &b), None);
    }

    #[test]
    fn the_first_parting_is_told_with_the_place_in_the_data() {
        let a = run_of(&json!({"total": 5, "lines": [{"sku": "lamp"}]}));
        let b = run_of(&json!({"total": 5, "lines": [{"sku": "desk"}]}));
        let parting = parting(&a, &b).unwrap();
        assert_eq!((parting.step.as_str(), parting.of_a), ("task1", Some(8)));
        assert!(
            parting
                .words
                .ends_with("they differ at lines[0].sku: A has \"lamp\", B has \"desk\"\n"),
            "{}",
            parting.words
        );
    }

    #[test]
    fn a_run_that_stopped_parts_where_nothing_followed() {
        let a = run_of(&json!({}));
        let parting = parting(&a, &a[..4]).unwrap();
        assert_eq!((parting.of_a, parting.of_b), (Some(9), None));
        assert!(
            parting.words.contains("B: nothing more happened"),
            "{}",
            parting.words
        );
    }

    #[test]
    fn another_end_of_a_step_is_told_in_words() {
        let a = run_of(&json!({}));
        let mut b = a.clone();
        b[3] = happened(8, "task1", "it failed:", json!("card declined"));
        let parting = parting(&a, &b).unwrap();
        assert_eq!(
            parting.words,
            "  A: it completed with {}\n  B: it failed: card declined\n"
        );
    }
}
