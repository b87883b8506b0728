//! The input of a task as far as it is known before anything has run, and what its schema has against it.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Map, Value};

use crate::plan::reference::{
    Piece, Reference, Segment, as_text, index_of, is_task_zero, scan, value_in,
};
use crate::plan::schema::{Checker, Fault};

/// What an input may refer to.
pub(super) struct Scope<'a> {
    /// The constants.
    pub task_zero: &'a Map<String, Value>,
    /// Which of them are the caller's.
    pub parameters: &'a HashSet<&'a str>,
    /// Knows the ids of the plan.
    pub is_task: &'a dyn Fn(&str) -> bool,
}

/// An input with constants in place of references to them, and nothing in place of others.
pub(super) struct Sample {
    input: Value,
    /// JSON pointers to what is not known.
    unknown: BTreeSet<String>,
    /// JSON pointers to texts of the caller that read as a number or a boolean, with that.
    readings: Vec<(String, Value)>,
}

impl Sample {
    pub(super) fn new(input: &Map<String, Value>, scope: &Scope<'_>) -> Self {
        let mut sample = Self {
            input: Value::Null,
            unknown: BTreeSet::new(),
            readings: Vec::new(),
        };
        let members = input.iter();
        let members = members
            .map(|(name, value)| (name.clone(), sample.value(value, &pointer("", name), scope)));
        let members = members.collect();
        sample.input = Value::Object(members);
        sample
    }

    /// What the schema has against it. A text of the caller is read as a number or a boolean where only that will do.
    pub(super) fn faults(mut self, checker: &Checker) -> Vec<Fault> {
        let faults = self.known_faults(checker);
        let at_fault: HashSet<_> = faults.iter().map(|fault| fault.at.as_str()).collect();
        let (read, _): (Vec<_>, Vec<_>) = std::mem::take(&mut self.readings)
            .into_iter()
            .partition(|(at, _)| at_fault.contains(at.as_str()));
        if read.is_empty() {
            return faults;
        }
        let read_at: HashSet<_> = read.iter().map(|(at, _)| at.clone()).collect();
        for (at, value) in read {
            if let Some(place) = self.input.pointer_mut(&at) {
                *place = value;
            }
        }
        let remaining = self.known_faults(checker);
        let remaining: HashSet<_> = remaining.iter().map(|fault| fault.at.as_str()).collect();
        faults
            .into_iter()
            .filter(|fault| !read_at.contains(&fault.at) || remaining.contains(fault.at.as_str()))
            .collect()
    }

    fn known_faults(&self, checker: &Checker) -> Vec<Fault> {
        let Value::Object(members) = &self.input else {
            return Vec::new();
        };
        let faults = checker.faults_of_members(members).into_iter();
        faults
            .filter(|fault| !self.touches_unknown(&fault.at))
            .collect()
    }

    /// Whether a place holds, is or lies in something that is not known.
    fn touches_unknown(&self, at: &str) -> bool {
        let inside = format!("{at}/");
        let holds = self
            .unknown
            .range(inside.clone()..)
            .next()
            .is_some_and(|unknown| unknown.starts_with(&inside));
        let ends = at
            .char_indices()
            .filter(|(_, char)| *char == '/')
            .map(|(end, _)| end)
            .chain([at.len()]);
        holds
            || ends
                .into_iter()
                .any(|end| self.unknown.contains(&at[..end]))
    }

    fn value(&mut self, value: &Value, at: &str, scope: &Scope<'_>) -> Value {
        match value {
            Value::String(text) => self.text(text, at, scope),
            Value::Array(items) => {
                let items = items.iter().enumerate();
                let items = items
                    .map(|(index, item)| self.value(item, &pointer(at, &index.to_string()), scope));
                Value::Array(items.collect())
            }
            Value::Object(members) => {
                let members = members.iter();
                let members = members.map(|(name, member)| {
                    (name.clone(), self.value(member, &pointer(at, name), scope))
                });
                Value::Object(members.collect())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    fn text(&mut self, text: &str, at: &str, scope: &Scope<'_>) -> Value {
        let pieces = scan(text, scope.is_task);
        let constant = |reference: &Reference| {
            is_task_zero(&reference.task)
                .then(|| value_in(scope.task_zero, &reference.path))
                .flatten()
        };
        if let [Piece::Reference(reference)] = pieces.as_slice()
            && let Some(value) = constant(reference)
        {
            let of_caller = matches!(reference.path.first(), Some(Segment::Field(field)) if scope.parameters.contains(field.as_str()));
            if let (true, Some(reading)) = (of_caller, value.as_str().and_then(read_scalar)) {
                self.readings.push((at.to_owned(), reading));
            }
            return value.clone();
        }
        let mut filled = String::new();
        for piece in &pieces {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Reference(reference) => match constant(reference) {
                    Some(value) => filled.push_str(&as_text(value)),
                    None => {
                        self.unknown.insert(at.to_owned());
                        return Value::Null;
                    }
                },
            }
        }
        Value::String(filled)
    }
}

/// The number or boolean that a text writes.
fn read_scalar(text: &str) -> Option<Value> {
    serde_json::from_str(text.trim())
        .ok()
        .filter(|value: &Value| value.is_number() || value.is_boolean())
}

fn pointer(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// The path that a JSON pointer into an input writes.
pub(super) fn path_of(pointer: &str) -> Vec<Segment> {
    let names = pointer
        .split('/')
        .skip(1)
        .map(|name| name.replace("~1", "/").replace("~0", "~"));
    names
        .enumerate()
        .map(|(depth, name)| match index_of(&name) {
            Some(index) if depth > 0 => Segment::Index(index),
            _ => Segment::Field(name),
        })
        .collect()
}
