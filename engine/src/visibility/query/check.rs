//! A query's tree against the attributes there are: names are known, values are of their types, each type has its tests.
//!
//! | type               | = != | < <= > >= BETWEEN | IN | STARTS_WITH | what = asks                        |
//! |--------------------|------|-------------------|----|-------------|------------------------------------|
//! | Keyword            | yes  | yes               | yes| yes         | the same text                      |
//! | ExecutionStatus    | yes  |                   | yes|             | the same status, by name or number |
//! | KeywordList        | yes  |                   | yes|             | one of its texts is that text      |
//! | Text               | yes  |                   |    |             | it holds one of the words          |
//! | Int, Double        | yes  | yes               | yes|             | the same number                    |
//! | Datetime           | yes  | yes               | yes|             | the same instant                   |
//! | Bool               | yes  |                   | yes|             | the same                           |
//!
//! `IS NULL` is there for every type.

use orchestrion_proto::temporal::api::enums::v1::WorkflowExecutionStatus;

use super::parser::{At, Literal, Parsed, RawTest, Tree};
use super::{Located, Query};
use crate::visibility::attributes::{Attribute, Catalogue, Field, Value, ValueType, instant};

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// What is asked of one attribute. The values are of its type (for a list and a text: keywords).
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// A comparison.
    Compare(Op, Value),
    /// One of these.
    In(Vec<Value>),
    /// Not less than the first, nor greater than the second.
    Between(Value, Value),
    /// Begins so.
    StartsWith(String),
    /// Is not there.
    IsNull,
}

/// A condition over one run.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// All of these.
    And(Vec<Filter>),
    /// One of these.
    Or(Vec<Filter>),
    /// The contrary.
    Not(Box<Filter>),
    /// What one attribute must satisfy.
    Test(Attribute, Test),
}

const STATUSES: [(&str, WorkflowExecutionStatus); 8] = [
    ("Running", WorkflowExecutionStatus::Running),
    ("Completed", WorkflowExecutionStatus::Completed),
    ("Failed", WorkflowExecutionStatus::Failed),
    ("Canceled", WorkflowExecutionStatus::Canceled),
    ("Terminated", WorkflowExecutionStatus::Terminated),
    ("ContinuedAsNew", WorkflowExecutionStatus::ContinuedAsNew),
    ("TimedOut", WorkflowExecutionStatus::TimedOut),
    ("Paused", WorkflowExecutionStatus::Paused),
];

/// The name of a status in queries and counts.
pub(crate) fn status_name(number: i32) -> Option<&'static str> {
    let known = STATUSES.iter().find(|(_, status)| *status as i32 == number);
    known.map(|(name, _)| *name)
}

/// The number of a status by its name in queries.
pub fn status_of_name(name: &str) -> Option<i32> {
    let known = STATUSES.iter().find(|(known, _)| *known == name);
    known.map(|(_, status)| *status as i32)
}

pub(super) fn check(parsed: Parsed, catalogue: &Catalogue) -> Located<Query> {
    let filter = parsed
        .tree
        .map(|tree| filter(tree, catalogue))
        .transpose()?;
    if let Some(end) = parsed.group_by.as_ref()
        && !catalogue.is_of_runs()
    {
        return Err((
            end.at,
            "only runs are grouped: leave GROUP BY out".to_owned(),
        ));
    }
    if let Some((end, _)) = parsed.order_by.as_ref()
        && !catalogue.is_of_runs()
    {
        return Err((
            end.at,
            "only runs are ordered: leave ORDER BY out".to_owned(),
        ));
    }
    if let Some(group) = &parsed.group_by
        && group.it != Field::ExecutionStatus.name()
    {
        return Err((
            group.at,
            format!(
                "runs are counted by ExecutionStatus only, not by {}",
                group.it
            ),
        ));
    }
    if let Some((name, descending)) = &parsed.order_by
        && (name.it != Field::StartTime.name() || !descending)
    {
        return Err((
            name.at,
            "runs are listed newest first: leave ORDER BY out, or write ORDER BY StartTime DESC"
                .to_owned(),
        ));
    }
    Ok(Query {
        filter,
        by_status: parsed.group_by.is_some(),
    })
}

fn filter(tree: Tree, catalogue: &Catalogue) -> Located<Filter> {
    let all = |trees: Vec<Tree>| -> Located<Vec<Filter>> {
        trees
            .into_iter()
            .map(|tree| filter(tree, catalogue))
            .collect()
    };
    Ok(match tree {
        Tree::And(trees) => Filter::And(all(trees)?),
        Tree::Or(trees) => Filter::Or(all(trees)?),
        Tree::Not(tree) => Filter::Not(Box::new(filter(*tree, catalogue)?)),
        Tree::Test { name, test } => {
            let attribute = catalogue
                .get(&name.it)
                .ok_or_else(|| (name.at, unknown(&name.it, catalogue)))?;
            let test = typed(&attribute, test)?;
            Filter::Test(attribute, test)
        }
    })
}

fn unknown(name: &str, catalogue: &Catalogue) -> String {
    let alike = catalogue
        .names()
        .find(|known| known.eq_ignore_ascii_case(name));
    match alike {
        Some(alike) => format!("search attribute {name} is not defined: did you mean {alike}?"),
        None if !catalogue.is_of_runs() => format!(
            "attribute {name} is not defined: ask for one of {}",
            catalogue.names().collect::<Vec<_>>().join(", ")
        ),
        None => format!(
            "search attribute {name} is not defined in this namespace: add it, or ask for one of {}",
            Field::ALL
                .iter()
                .map(|field| field.name())
                .chain(catalogue.custom().keys().map(String::as_str))
                .take(40)
                .collect::<Vec<_>>()
                .join(", ")
        ),
    }
}

fn typed(attribute: &Attribute, test: At<RawTest>) -> Located<Test> {
    let kind = attribute.kind();
    let is_status = *attribute == Attribute::Field(Field::ExecutionStatus);
    let ordered = !is_status
        && matches!(
            kind,
            ValueType::Keyword | ValueType::Int | ValueType::Double | ValueType::Datetime
        );
    let refuse = |what: &str, accepted: &str| {
        let name = attribute.name();
        Err((
            test.at,
            format!(
                "{name} ({}) has no {what}: {accepted}",
                if is_status { "a status" } else { kind.name() }
            ),
        ))
    };
    let unordered = match kind {
        ValueType::Text => "ask with =, != or IS [NOT] NULL",
        _ => "ask with =, !=, [NOT] IN or IS [NOT] NULL",
    };
    match test.it {
        RawTest::Compare(sign, literal) => {
            let op = match sign {
                "=" => Op::Equal,
                "<" => Op::Less,
                "<=" => Op::LessOrEqual,
                ">" => Op::Greater,
                ">=" => Op::GreaterOrEqual,
                _ => Op::NotEqual,
            };
            if !ordered && !matches!(op, Op::Equal | Op::NotEqual) {
                return refuse("order", unordered);
            }
            Ok(Test::Compare(op, value(attribute, literal)?))
        }
        RawTest::In(_) if kind == ValueType::Text => refuse("IN", unordered),
        RawTest::In(literals) => {
            let values = literals.into_iter().map(|it| value(attribute, it));
            Ok(Test::In(values.collect::<Result<_, _>>()?))
        }
        RawTest::Between(..) if !ordered => refuse("order", unordered),
        RawTest::Between(low, high) => Ok(Test::Between(
            value(attribute, low)?,
            value(attribute, high)?,
        )),
        RawTest::StartsWith(literal) => {
            if kind != ValueType::Keyword || is_status {
                return refuse("beginning", "only attributes of the type Keyword have one");
            }
            match literal.it {
                Literal::Text(prefix) => Ok(Test::StartsWith(prefix)),
                _ => Err((
                    literal.at,
                    "a beginning is a text between quotes".to_owned(),
                )),
            }
        }
        RawTest::IsNull => Ok(Test::IsNull),
    }
}

/// The literal as a value that can be compared with the attribute's.
fn value(attribute: &Attribute, literal: At<Literal>) -> Located<Value> {
    let At { at, it } = literal;
    let wrong = |accepted: &str| {
        let name = attribute.name();
        Err((at, format!("{name} is compared with {accepted}")))
    };
    if let Attribute::Field(Field::ExecutionStatus) = attribute {
        let name = match it {
            Literal::Text(text) => {
                let known = STATUSES
                    .iter()
                    .find(|(known, _)| known.eq_ignore_ascii_case(&text));
                known.map(|(name, _)| *name)
            }
            Literal::Int(number) => i32::try_from(number).ok().and_then(status_name),
            _ => None,
        };
        let names = STATUSES.map(|(name, _)| name).join(", ");
        return match name {
            Some(name) => Ok(Value::Keyword(name.to_owned())),
            None => wrong(&format!("one of {names}")),
        };
    }
    if let Attribute::Field(Field::ExecutionDuration) = attribute {
        let nanos = match it {
            Literal::Int(nanos) => Some(nanos),
            Literal::Text(text) => duration(&text),
            _ => None,
        };
        return match nanos {
            Some(nanos) => Ok(Value::Int(nanos)),
            None => wrong("a duration: '1h30m', '01:30:00' or whole nanoseconds"),
        };
    }
    match (attribute.kind(), it) {
        (ValueType::Keyword | ValueType::KeywordList | ValueType::Text, Literal::Text(text)) => {
            Ok(Value::Keyword(text))
        }
        (ValueType::Keyword | ValueType::KeywordList | ValueType::Text, _) => {
            wrong("a text between quotes")
        }
        (ValueType::Int, Literal::Int(number)) => Ok(Value::Int(number)),
        (ValueType::Int, _) => wrong("a whole number"),
        (ValueType::Double, Literal::Int(number)) => Ok(Value::Double(number as f64)),
        (ValueType::Double, Literal::Double(number)) => Ok(Value::Double(number)),
        (ValueType::Double, _) => wrong("a number"),
        (ValueType::Bool, Literal::Bool(is)) => Ok(Value::Bool(is)),
        (ValueType::Bool, Literal::Text(text)) if text.eq_ignore_ascii_case("true") => {
            Ok(Value::Bool(true))
        }
        (ValueType::Bool, Literal::Text(text)) if text.eq_ignore_ascii_case("false") => {
            Ok(Value::Bool(false))
        }
        (ValueType::Bool, _) => wrong("true or false"),
        (ValueType::Datetime, Literal::Int(nanos)) => Ok(Value::Datetime(nanos)),
        (ValueType::Datetime, Literal::Text(text)) => match instant(&text) {
            Some(nanos) => Ok(Value::Datetime(nanos)),
            None => wrong("an instant as of RFC 3339, like '2026-01-31T12:00:00Z'"),
        },
        (ValueType::Datetime, _) => wrong("an instant as of RFC 3339, like '2026-01-31T12:00:00Z'"),
    }
}

/// `1h30m`, `1.5s`, `250ms`, or `hh:mm:ss`.
fn duration(text: &str) -> Option<i64> {
    let parts: Vec<&str> = text.split(':').collect();
    if let [hours, minutes, seconds] = parts[..] {
        let number = |text: &str| text.parse::<u32>().ok().map(i64::from);
        let (hours, minutes, seconds) = (number(hours)?, number(minutes)?, number(seconds)?);
        if minutes > 59 || seconds > 59 {
            return None;
        }
        return ((hours * 60 + minutes) * 60 + seconds).checked_mul(1_000_000_000);
    }
    let mut rest = text;
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "h" => 3_600e9,
            "m" => 60e9,
            "s" => 1e9,
            "ms" => 1e6,
            "us" | "µs" => 1e3,
            "ns" => 1.0,
            "d" => 86_400e9,
            _ => return None,
        };
        nanos += number * unit;
        rest = &rest[end..];
    }
    (!text.is_empty() && nanos < i64::MAX as f64).then_some(nanos as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_each_form() {
        assert_eq!(duration("1h30m"), Some(5_400_000_000_000));
        assert_eq!(duration("1.5s"), Some(1_500_000_000));
        assert_eq!(duration("250ms"), Some(250_000_000));
        assert_eq!(duration("01:00:01"), Some(3_601_000_000_000));
        for bad in [
            "",
            "5",
            "h",
            "1x",
            "1:2",
            "00:61:00",
            "99999999999999h",
            "é1s",
        ] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
