//! A condition over one run, in three values: true, false, and unknown where an attribute is not there.

use std::cmp::Ordering;

use super::check::{Filter, Op, Test};
use crate::visibility::attributes::{Attribute, Value};

/// What a run's attributes are.
pub trait Fields {
    /// The value, if the run has it.
    fn value(&self, attribute: &Attribute) -> Option<Value>;
}

impl Filter {
    /// Whether a run satisfies it.
    pub fn holds(&self, run: &impl Fields) -> bool {
        self.truth(run) == Some(true)
    }

    fn truth(&self, run: &impl Fields) -> Option<bool> {
        match self {
            Self::And(parts) => all(parts.iter().map(|part| part.truth(run)), false),
            Self::Or(parts) => all(parts.iter().map(|part| part.truth(run)), true),
            Self::Not(part) => part.truth(run).map(|is| !is),
            Self::Test(attribute, test) => test.truth(run.value(attribute)),
        }
    }
}

/// The value that decides alone, if one part has it; else unknown, if one part is; else the other.
fn all(parts: impl Iterator<Item = Option<bool>>, decides: bool) -> Option<bool> {
    let mut result = Some(!decides);
    for part in parts {
        match part {
            Some(is) if is == decides => return Some(decides),
            None => result = None,
            Some(_) => {}
        }
    }
    result
}

impl Test {
    fn truth(&self, value: Option<Value>) -> Option<bool> {
        let Some(value) = value else {
            return matches!(self, Self::IsNull).then_some(true);
        };
        Some(match self {
            Self::IsNull => false,
            Self::Compare(Op::Equal, wanted) => equal(&value, wanted),
            Self::Compare(Op::NotEqual, wanted) => !equal(&value, wanted),
            Self::Compare(op, wanted) => {
                let order = order(&value, wanted)?;
                match op {
                    Op::Less => order == Ordering::Less,
                    Op::LessOrEqual => order != Ordering::Greater,
                    Op::Greater => order == Ordering::Greater,
                    Op::GreaterOrEqual => order != Ordering::Less,
                    Op::Equal | Op::NotEqual => order == Ordering::Equal,
                }
            }
            Self::In(wanted) => wanted.iter().any(|wanted| equal(&value, wanted)),
            Self::Between(low, high) => {
                order(&value, low)? != Ordering::Less && order(&value, high)? != Ordering::Greater
            }
            Self::StartsWith(prefix) => match &value {
                Value::Keyword(text) => text.starts_with(prefix.as_str()),
                _ => return None,
            },
        })
    }
}

fn equal(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (Value::KeywordList(texts), Value::Keyword(wanted)) => texts.contains(wanted),
        (Value::Text(text), Value::Keyword(wanted)) => {
            let wanted: Vec<String> = words(wanted).collect();
            words(text).any(|word| wanted.contains(&word))
        }
        (value, wanted) => order(value, wanted) == Some(Ordering::Equal),
    }
}

/// A text's words, without regard to case.
fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

fn order(value: &Value, wanted: &Value) -> Option<Ordering> {
    match (value, wanted) {
        (Value::Keyword(a), Value::Keyword(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Int(b)) | (Value::Datetime(a), Value::Datetime(b)) => Some(a.cmp(b)),
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    }
}
