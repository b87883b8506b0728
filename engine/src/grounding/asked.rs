//! An action as it is compared with use cases: a use case says `order {orderId}`, whoever asks may write the value out.
//!
//! Invariant: only values that were sent as parameters of a use case are left out, so what is left out reaches the planner as a parameter.

use serde_json::Value;

use super::Grounding;
use crate::plan::Parameter;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// In plain language.
    pub action: &'a str,
    /// The values sent with it.
    pub data: &'a [Parameter],
}

impl Asked<'_> {
    /// The action without the values that use cases have parameters for; `None` where it has none of them, or nothing else.
    pub(super) fn without_values<'a>(
        &self,
        groundings: impl Iterator<Item = &'a Grounding> + Clone,
    ) -> Option<String> {
        let is_parameter = |field: &str| {
            let mut cases = groundings.clone().flat_map(|one| &one.spec.use_cases);
            cases.any(|case| case.params.contains_key(field))
        };
        let sent = self.data.iter().filter(|sent| is_parameter(&sent.field));
        let mut values: Vec<String> = sent.filter_map(|sent| written(&sent.value)).collect();
        // Of two values of which one begins with the other, the whole one goes.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        let mut text = self.action.to_owned();
        for value in &values {
            text = without(&text, value);
        }
        (text != self.action && !text.trim().is_empty()).then_some(text)
    }
}

/// A value as somebody writes it into a sentence.
fn written(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}

/// The text without a value, where that stands by itself and is no part of a word.
fn without(text: &str, value: &str) -> String {
    let mut left = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(value) {
        let (before, found) = rest.split_at(at);
        let after = &found[value.len()..];
        left.push_str(before);
        let joined = |side: Option<char>| side.is_some_and(char::is_alphanumeric);
        if joined(left.chars().next_back()) || joined(after.chars().next()) {
            left.push_str(value);
        }
        rest = after;
    }
    left.push_str(rest);
    left
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_go_and_parts_of_words_stay() {
        for (text, value, left) in [
            ("Fly to Mars", "Mars", "Fly to "),
            (
                "Fly to Mars, then to Marshall",
                "Mars",
                "Fly to , then to Marshall",
            ),
            ("Order 7 of 77 for 7", "7", "Order  of 77 for "),
            ("Count one two three", "one two three", "Count "),
            ("äöä ä", "ä", "äöä "),
            ("nothing", "x", "nothing"),
        ] {
            assert_eq!(without(text, value), left, "{text:?} without {value:?}");
        }
    }

    #[test]
    fn only_what_one_writes_into_a_sentence_is_looked_for() {
        assert_eq!(written(&json!(" Mars ")).as_deref(), Some("Mars"));
        assert_eq!(written(&json!(7)).as_deref(), Some("7"));
        for value in [
            json!(""),
            json!(" "),
            json!(true),
            json!(null),
            json!(["Mars"]),
        ] {
            assert_eq!(written(&value), None, "{value}");
        }
    }
}
