//! References: how the input of a task names what tasks before it returned. `$task1.order.lines[0].sku`, `$task0.city`.
//!
//! A *candidate* in a text is one match of
//!
//! ```text
//!  (\$+)(ID)((?:FIELD|KEY)(?:FIELD|KEY|INDEX)*)       leftmost first, each part as long as it can be
//!  ID     [A-Za-z][A-Za-z0-9_-]*                      the id of a task
//!  FIELD  \.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?
//!  KEY    \[STRING\]                                  STRING is a JSON string with its quotes: any member name at all
//!  INDEX  \[(?:0|[1-9][0-9]{0,8})\]
//! ```
//!
//! It *counts* when its id is that of a task of the plan, when its id is `task` and digits (in any case, so that one that names no
//! task is found out), or when it is the whole text. One that does not count is text, as is every other `$`: `$5.00` is money.
//! Of the n dollars of one that counts, each pair is one dollar of text; if n is odd the last one begins a reference, if n is even the
//! id and path are text. So `$task1.x` refers, `$$task1.x` is the text `$task1.x`, and `$$$task1.x` is a dollar and then a reference.
//!
//! A path leads from the output of the task (for `task0`, in any case: from the constants) to a value. `.a` and `["a"]` pick the member
//! `a` of an object; on an array they pick an item when `a` is written as INDEX allows. `[0]` picks an item of an array.
//!
//! * A text that is one reference and nothing else becomes the value, with its type. At the top level of an input the member is left
//!   out when there is no such value; anywhere else that is an error.
//! * Other references become text within the text: strings as they are, other values as compact JSON (no blanks, no escapes but those
//!   that JSON needs).
//! * Texts in objects and arrays are resolved too, at any depth; member names are not.
//!
//! Invariant: what a reference was replaced by is never scanned: no value of a caller or a service can smuggle in a reference.

use std::fmt;

use serde_json::{Map, Value};

/// The id of the task that holds the constants.
pub const TASK_ZERO: &str = "task0";

/// Whether an id means the constants: `task0`, in any case.
pub fn is_task_zero(id: &str) -> bool {
    id.eq_ignore_ascii_case(TASK_ZERO)
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// A member of an object, or an item of an array if it is a number.
    Field(String),
    /// An item of an array.
    Index(usize),
}

/// What a reference says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The task whose output is meant, as it is written.
    pub task: String,
    /// From the output to the value; never empty, and its first step is a field.
    pub path: Vec<Segment>,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}{}", self.task, display_path(&self.path, true))
    }
}

/// A path as it is written: `order.lines[0]`, with a dot in front of the first name if `dotted`.
pub fn display_path(path: &[Segment], dotted: bool) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Field(name) if field_end(name) == Some(name.len()) => {
                if dotted || !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
            }
            Segment::Field(name) => {
                text.push('[');
                text.push_str(&Value::String(name.clone()).to_string());
                text.push(']');
            }
            Segment::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// Where in an input a reference stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// From the input to the text; its first step is a member of the input.
    pub at: Vec<Segment>,
    /// The reference.
    pub reference: Reference,
    /// Whether it is the whole text and so gives its value with its type, or a part of a longer one.
    pub whole: bool,
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text that stays, unescaped.
    Text(String),
    /// A reference to replace.
    Reference(Reference),
}

/// Why an input could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The task has not returned anything yet.
    #[error("input `{at}`: `{reference}` needs the output of `{task}`, and there is none")]
    NoOutput {
        /// Where the reference stands.
        at: String,
        /// As it is written.
        reference: String,
        /// The task it names.
        task: String,
    },
    /// The output has nothing at the end of the path.
    #[error("input `{at}`: `{reference}` leads nowhere in the output of `{task}`")]
    NoValue {
        /// Where the reference stands.
        at: String,
        /// As it is written.
        reference: String,
        /// The task it names.
        task: String,
    },
}

/// The input of a task with every reference replaced. `outputs` gives what a task returned, `task_zero` holds the constants.
pub fn resolve<'a>(
    input: &Map<String, Value>,
    task_zero: &'a Map<String, Value>,
    outputs: &dyn Fn(&str) -> Option<&'a Value>,
) -> Result<Map<String, Value>, ResolveError> {
    let scope = Scope { task_zero, outputs };
    let mut resolved = Map::new();
    for (name, value) in input {
        let mut at = vec![Segment::Field(name.clone())];
        if let Some(value) = scope.resolve_member(value, &mut at)? {
            resolved.insert(name.clone(), value);
        }
    }
    Ok(resolved)
}

struct Scope<'a, 'f> {
    task_zero: &'a Map<String, Value>,
    outputs: &'f dyn Fn(&str) -> Option<&'a Value>,
}

impl<'a> Scope<'a, '_> {
    /// A member of the input itself; `None` leaves it out.
    fn resolve_member(
        &self,
        value: &Value,
        at: &mut Vec<Segment>,
    ) -> Result<Option<Value>, ResolveError> {
        if let Value::String(text) = value
            && let [Piece::Reference(reference)] = self.scan(text).as_slice()
        {
            return match self.value_of(reference, at) {
                Ok(value) => Ok(Some(value.clone())),
                Err(ResolveError::NoValue { .. }) => Ok(None),
                Err(error) => Err(error),
            };
        }
        self.resolve_nested(value, at).map(Some)
    }

    fn resolve_nested(&self, value: &Value, at: &mut Vec<Segment>) -> Result<Value, ResolveError> {
        match value {
            Value::String(text) => self.resolve_text(text, at),
            Value::Array(items) => {
                let mut resolved = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    at.push(Segment::Index(index));
                    resolved.push(self.resolve_nested(item, at)?);
                    at.pop();
                }
                Ok(Value::Array(resolved))
            }
            Value::Object(members) => {
                let mut resolved = Map::new();
                for (name, member) in members {
                    at.push(Segment::Field(name.clone()));
                    resolved.insert(name.clone(), self.resolve_nested(member, at)?);
                    at.pop();
                }
                Ok(Value::Object(resolved))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(value.clone()),
        }
    }

    fn resolve_text(&self, text: &str, at: &[Segment]) -> Result<Value, ResolveError> {
        let pieces = self.scan(text);
        if let [Piece::Reference(reference)] = pieces.as_slice() {
            return self.value_of(reference, at).cloned();
        }
        let mut resolved = String::new();
        for piece in &pieces {
            match piece {
                Piece::Text(text) => resolved.push_str(text),
                Piece::Reference(reference) => {
                    resolved.push_str(&as_text(self.value_of(reference, at)?))
                }
            }
        }
        Ok(Value::String(resolved))
    }

    fn scan(&self, text: &str) -> Vec<Piece> {
        scan(text, &|id| is_task_zero(id) || (self.outputs)(id).is_some())
    }

    fn value_of(&self, reference: &Reference, at: &[Segment]) -> Result<&'a Value, ResolveError> {
        let found = if is_task_zero(&reference.task) {
            value_in(self.task_zero, &reference.path)
        } else {
            match (self.outputs)(&reference.task) {
                Some(output) => value_at(output, &reference.path),
                None => {
                    return Err(ResolveError::NoOutput {
                        at: display_path(at, false),
                        reference: reference.to_string(),
                        task: reference.task.clone(),
                    });
                }
            }
        };
        found.ok_or_else(|| ResolveError::NoValue {
            at: display_path(at, false),
            reference: reference.to_string(),
            task: reference.task.clone(),
        })
    }
}

/// A value within a text.
pub(super) fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The value at the end of a path that begins in an object.
pub(super) fn value_in<'a>(object: &'a Map<String, Value>, path: &[Segment]) -> Option<&'a Value> {
    match path.split_first()? {
        (Segment::Field(name), rest) => value_at(object.get(name)?, rest),
        (Segment::Index(_), _) => None,
    }
}

/// The value at the end of a path.
pub fn value_at<'a>(value: &'a Value, path: &[Segment]) -> Option<&'a Value> {
    path.iter()
        .try_fold(value, |value, segment| match (value, segment) {
            (Value::Object(members), Segment::Field(name)) => members.get(name),
            (Value::Array(items), Segment::Index(index)) => items.get(*index),
            (Value::Array(items), Segment::Field(name)) => items.get(index_of(name)?),
            _ => None,
        })
}

/// The index that a name writes, if it does: no sign, no leading zero, at most nine digits.
pub(super) fn index_of(name: &str) -> Option<usize> {
    let canonical = matches!(name.len(), 1..=9)
        && name.bytes().all(|byte| byte.is_ascii_digit())
        && (name.len() == 1 || !name.starts_with('0'));
    if canonical { name.parse().ok() } else { None }
}

/// Every reference in an input, in order. `is_task` knows the ids of the plan.
pub fn references(input: &Map<String, Value>, is_task: &dyn Fn(&str) -> bool) -> Vec<Located> {
    let mut found = Vec::new();
    for (name, value) in input {
        collect(
            value,
            &mut vec![Segment::Field(name.clone())],
            is_task,
            &mut found,
        );
    }
    found
}

fn collect(
    value: &Value,
    at: &mut Vec<Segment>,
    is_task: &dyn Fn(&str) -> bool,
    found: &mut Vec<Located>,
) {
    match value {
        Value::String(text) => {
            let pieces = scan(text, is_task);
            let whole = pieces.len() == 1;
            found.extend(pieces.into_iter().filter_map(|piece| match piece {
                Piece::Text(_) => None,
                Piece::Reference(reference) => Some(Located {
                    at: at.clone(),
                    reference,
                    whole,
                }),
            }));
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                at.push(Segment::Index(index));
                collect(item, at, is_task, found);
                at.pop();
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                at.push(Segment::Field(name.clone()));
                collect(member, at, is_task, found);
                at.pop();
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A text's parts. Adjacent text is one piece; an empty text is one empty piece.
pub fn scan(text: &str, is_task: &dyn Fn(&str) -> bool) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('$') {
        plain.push_str(&rest[..start]);
        let from_dollars = &rest[start..];
        let dollars = from_dollars
            .bytes()
            .take_while(|&byte| byte == b'$')
            .count();
        let Some((reference, length)) = candidate(&from_dollars[dollars..]) else {
            plain.push_str(&from_dollars[..dollars]);
            rest = &from_dollars[dollars..];
            continue;
        };
        let end = dollars + length;
        let written = &from_dollars[..end];
        if is_task(&reference.task)
            || is_numbered_task(&reference.task)
            || written.len() == text.len()
        {
            plain.push_str(&written[..dollars / 2]);
            if dollars % 2 == 1 {
                if !plain.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                }
                pieces.push(Piece::Reference(reference));
            } else {
                plain.push_str(&written[dollars..]);
            }
        } else {
            plain.push_str(written);
        }
        rest = &from_dollars[end..];
    }
    plain.push_str(rest);
    if !plain.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    pieces
}

/// A text in which nothing counts as a reference and that reads as `text` when it is resolved.
pub fn escape(text: &str, is_task: &dyn Fn(&str) -> bool) -> String {
    let mut escaped = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('$') {
        escaped.push_str(&rest[..start]);
        let from_dollars = &rest[start..];
        let dollars = from_dollars
            .bytes()
            .take_while(|&byte| byte == b'$')
            .count();
        let Some((reference, length)) = candidate(&from_dollars[dollars..]) else {
            escaped.push_str(&from_dollars[..dollars]);
            rest = &from_dollars[dollars..];
            continue;
        };
        let end = dollars + length;
        if is_task(&reference.task) || is_numbered_task(&reference.task) || end == text.len() {
            escaped.push_str(&from_dollars[..dollars]);
        }
        escaped.push_str(&from_dollars[..end]);
        rest = &from_dollars[end..];
    }
    escaped.push_str(rest);
    escaped
}

fn is_numbered_task(id: &str) -> bool {
    id.get(..4)
        .is_some_and(|head| head.eq_ignore_ascii_case("task"))
        && id.len() > 4
        && id[4..].bytes().all(|byte| byte.is_ascii_digit())
}

/// The id and path at the start of a text, and how long they are.
fn candidate(text: &str) -> Option<(Reference, usize)> {
    if !text.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return None;
    }
    let mut end = text
        .bytes()
        .take_while(|&byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        .count();
    let task = text[..end].to_owned();
    let mut path = Vec::new();
    while let Some((segment, length)) = accessor(&text[end..], path.is_empty()) {
        path.push(segment);
        end += length;
    }
    if path.is_empty() {
        None
    } else {
        Some((Reference { task, path }, end))
    }
}

/// One step of a path at the start of a text, and how long it is.
fn accessor(text: &str, first: bool) -> Option<(Segment, usize)> {
    if let Some(after) = text.strip_prefix('.') {
        let end = field_end(after)?;
        return Some((Segment::Field(after[..end].to_owned()), 1 + end));
    }
    let after = text.strip_prefix('[')?;
    if after.starts_with('"') {
        let end = string_end(after)?;
        let name = serde_json::from_str(&after[..end]).ok()?;
        return after[end..]
            .starts_with(']')
            .then_some((Segment::Field(name), end + 2));
    }
    let end = after.bytes().take_while(u8::is_ascii_digit).count();
    match index_of(&after[..end]) {
        Some(index) if !first && after[end..].starts_with(']') => {
            Some((Segment::Index(index), end + 2))
        }
        _ => None,
    }
}

/// Where the name at the start of a text ends: letters, digits, `_` and, inside, `-`.
fn field_end(text: &str) -> Option<usize> {
    if text.starts_with('-') {
        return None;
    }
    let run = text
        .bytes()
        .take_while(|&byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        .count();
    let end = text[..run].trim_end_matches('-').len();
    (end > 0).then_some(end)
}

/// Where the quoted string at the start of a text ends.
fn string_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(members) => members,
            other => panic!("not an object: {other}"),
        }
    }

    /// Resolves against task0 `{city, n, note}`, task1 and a task called `reserve`.
    fn check(input: Value) -> Result<Value, ResolveError> {
        let task_zero =
            object(json!({"city": "Bern", "n": 2, "note": "$task1.secret", "unit price": 5}));
        let task1 = json!({
            "id": "o-1", "secret": "s", "none": null, "first-name": "Ada", "0": "zero",
            "order": {"lines": [{"sku": "lamp"}, {"sku": "desk"}], "total": 12.5}
        });
        let reserve = json!({"ok": true});
        let outputs = |id: &str| match id {
            "task1" => Some(&task1),
            "reserve" => Some(&reserve),
            _ => None,
        };
        resolve(&object(input), &task_zero, &outputs).map(Value::Object)
    }

    #[test]
    fn whole_references_keep_the_type() {
        let input = json!({
            "a": "$task0.n", "b": "$task1.order", "c": "$task1.order.lines[1].sku", "d": "$task1.order.lines.0.sku",
            "e": "$task1.none", "f": "$TASK0.city", "g": "$reserve.ok", "h": "$task1.0", "i": "$task1[\"first-name\"]",
            "j": "$task0[\"unit price\"]"
        });
        let expected = json!({
            "a": 2, "b": {"lines": [{"sku": "lamp"}, {"sku": "desk"}], "total": 12.5}, "c": "desk", "d": "lamp",
            "e": null, "f": "Bern", "g": true, "h": "zero", "i": "Ada", "j": 5
        });
        assert_eq!(check(input).unwrap(), expected);
    }

    #[test]
    fn references_in_longer_texts_become_text() {
        let cases = [
            ("To $task0.city.", "To Bern."),
            (
                "$task0.n lamps, $task1.order.total in all",
                "2 lamps, 12.5 in all",
            ),
            (
                "lines: $task1.order.lines",
                r#"lines: [{"sku":"lamp"},{"sku":"desk"}]"#,
            ),
            ("$task1.first-name- and $task1.none", "Ada- and null"),
            ("$task0.city$task0.n", "Bern2"),
            ("about $$$task1.order.total", "about $12.5"),
            ("write $$task1.id", "write $task1.id"),
            ("write $$$$task1.id", "write $$task1.id"),
            ("$$task1.id", "$task1.id"),
            ("$$other.id", "$other.id"),
            (
                "$5.00 or $$5.00, $HOME.bin, $, $$, $task1",
                "$5.00 or $$5.00, $HOME.bin, $, $$, $task1",
            ),
            (
                "$task1[0] $task1.[id] é$task0.city",
                "$task1[0] $task1.[id] éBern",
            ),
            ("", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(
                check(json!({"a": text})).unwrap(),
                json!({"a": expected}),
                "{text}"
            );
        }
    }

    #[test]
    fn arrays_and_objects_are_resolved_at_any_depth() {
        let input = json!({"list": ["$task0.n", {"$task0.n": "in $task0.city", "deep": ["$task1.order.total"]}, 1, null]});
        let expected = json!({"list": [2, {"$task0.n": "in Bern", "deep": [12.5]}, 1, null]});
        assert_eq!(check(input).unwrap(), expected);
    }

    #[test]
    fn replaced_values_are_not_scanned() {
        assert_eq!(
            check(json!({"a": "$task0.note", "b": "n: $task0.note"})).unwrap(),
            json!({"a": "$task1.secret", "b": "n: $task1.secret"})
        );
    }

    #[test]
    fn an_absent_member_is_left_out_only_at_the_top() {
        assert_eq!(
            check(json!({"a": "$task1.nothing", "b": "$task0.nothing.x", "c": 1})).unwrap(),
            json!({"c": 1})
        );
        for input in [
            json!({"a": ["$task1.nothing"]}),
            json!({"a": "x $task1.nothing"}),
            json!({"a": "$$$task1.nothing"}),
        ] {
            assert!(matches!(check(input), Err(ResolveError::NoValue { .. })));
        }
        let error = check(json!({"a": {"b": ["$task1.order.lines[7]"]}})).unwrap_err();
        assert_eq!(
            error.to_string(),
            "input `a.b[0]`: `$task1.order.lines[7]` leads nowhere in the output of `task1`"
        );
    }

    #[test]
    fn a_task_without_output_is_an_error() {
        for text in ["$task9.x", "a $task9.x", "$somebody.x", "a $TASK9.x"] {
            assert!(
                matches!(
                    check(json!({"a": text})),
                    Err(ResolveError::NoOutput { .. })
                ),
                "{text}"
            );
        }
        assert_eq!(
            check(json!({"a": "hi $somebody.x"})).unwrap(),
            json!({"a": "hi $somebody.x"})
        );
    }

    #[test]
    fn references_are_listed_with_their_place() {
        let input = object(
            json!({"a": "$task1.x", "b": ["c $task2.y[0] $task0.z", "$$task3.w"], "d": {"e": "$pay.id"}}),
        );
        let found: Vec<_> = references(&input, &|id| id == "pay")
            .into_iter()
            .map(|found| {
                (
                    display_path(&found.at, false),
                    found.reference.to_string(),
                    found.whole,
                )
            })
            .collect();
        let expected = [
            ("a", "$task1.x", true),
            ("b[0]", "$task2.y[0]", false),
            ("b[0]", "$task0.z", false),
            ("d.e", "$pay.id", true),
        ];
        assert_eq!(
            found,
            expected.map(|(at, reference, whole)| (at.to_owned(), reference.to_owned(), whole))
        );
    }

    #[test]
    fn odd_names_are_written_as_keys() {
        let reference = Reference {
            task: "task1".into(),
            path: vec![
                Segment::Field("a b".into()),
                Segment::Field("c".into()),
                Segment::Index(3),
                Segment::Field("-".into()),
            ],
        };
        assert_eq!(reference.to_string(), r#"$task1["a b"].c[3]["-"]"#);
        assert_eq!(
            scan(&reference.to_string(), &|_| false),
            [Piece::Reference(reference)]
        );
    }

    proptest::proptest! {
        #[test]
        fn escaped_text_reads_as_it_was(text in "[$a-c1.\\[\\]\" ]{0,12}|(\\$|task1|\\.x|a|\\[0\\]| ){0,8}") {
            let escaped = escape(&text, &|id| id == "a");
            proptest::prop_assert_eq!(scan(&escaped, &|id| id == "a"), [Piece::Text(text)]);
        }
    }
}
