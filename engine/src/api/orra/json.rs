//! JSON from outside, read as orra's server reads it: member names match without case, null counts as absent, what follows the
//! first value is ignored; and user data stays the bytes it was.
//!
//! Invariant: only members of our own request types are looked up here; inside user data nothing is folded, sorted or renamed.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// Why a text is not the request it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadJson {
    /// Not JSON at all.
    #[error("the request is not JSON: {0}")]
    Syntax(String),
    /// JSON of another kind.
    #[error("{what} must be {expected}")]
    Kind {
        /// The member, or the body.
        what: String,
        /// What it must be.
        expected: &'static str,
    },
    /// There is no body.
    #[error("the request has no body: send a JSON object")]
    Empty,
}

/// The members of an object, in order, their values untouched.
#[derive(Debug, Default)]
pub struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    /// The members of the first JSON value of a text, which must be an object; null is an object without members.
    pub fn of_body(text: &'a str) -> Result<Self, BadJson> {
        if text.trim().is_empty() {
            return Err(BadJson::Empty);
        }
        let mut reader = serde_json::Deserializer::from_str(text);
        let raw =
            <&RawValue>::deserialize(&mut reader).map_err(|e| BadJson::Syntax(e.to_string()))?;
        Self::of("the request body", raw)
    }

    /// The members of an object; null is an object without members.
    pub fn of(what: &str, raw: &'a RawValue) -> Result<Self, BadJson> {
        match raw.get().as_bytes().first() {
            Some(b'{') => {
                serde_json::from_str(raw.get()).map_err(|e| BadJson::Syntax(e.to_string()))
            }
            Some(b'n') => Ok(Self::default()),
            _ => Err(BadJson::Kind {
                what: what.to_owned(),
                expected: "a JSON object",
            }),
        }
    }

    /// The value of a member; of several with the same name the last. Null is absent.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        let found = self
            .0
            .iter()
            .rev()
            .find(|(member, _)| member.eq_ignore_ascii_case(name))?
            .1;
        (found.get() != "null").then_some(found)
    }

    /// The names of all members.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// A member that is an object; absent is one without members.
    pub fn object(&self, name: &str) -> Result<Members<'a>, BadJson> {
        self.get(name).map_or_else(
            || Ok(Members::default()),
            |raw| Members::of(&quoted(name), raw),
        )
    }

    /// A member that is a string.
    pub fn string(&self, name: &str) -> Result<Option<String>, BadJson> {
        self.read(name, "a string")
    }

    /// A member that is true or false.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, BadJson> {
        self.read(name, "true or false")
    }

    /// A member that is an array, by its elements; absent is one without elements.
    pub fn array(&self, name: &str) -> Result<Vec<&'a RawValue>, BadJson> {
        Ok(self.read(name, "an array")?.unwrap_or_default())
    }

    /// A member that is an array of strings; null elements are empty strings, as Go reads them.
    pub fn strings(&self, name: &str) -> Result<Vec<String>, BadJson> {
        let elements: Vec<Option<String>> =
            self.read(name, "an array of strings")?.unwrap_or_default();
        Ok(elements
            .into_iter()
            .map(Option::unwrap_or_default)
            .collect())
    }

    /// A member of any kind.
    pub fn value(&self, name: &str) -> Result<Option<Value>, BadJson> {
        self.read(name, "JSON that is not nested too deeply")
    }

    fn read<T: Deserialize<'a>>(
        &self,
        name: &str,
        expected: &'static str,
    ) -> Result<Option<T>, BadJson> {
        let Some(raw) = self.get(name) else {
            return Ok(None);
        };
        serde_json::from_str(raw.get())
            .map(Some)
            .map_err(|_| BadJson::Kind {
                what: quoted(name),
                expected,
            })
    }
}

fn quoted(name: &str) -> String {
    format!("member {name:?}")
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry::<String, &'de RawValue>()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn member_names_match_without_case_and_user_data_keeps_its_own() {
        let body = Members::of_body(
            r#"{"ACTION":{"Content":"go"},"Data":[{"Field":"X","VALUE":{"Content":1,"content":2}}]}"#,
        );
        let body = body.unwrap();
        assert_eq!(
            body.object("action")
                .unwrap()
                .string("content")
                .unwrap()
                .as_deref(),
            Some("go")
        );
        let data = body.array("data").unwrap();
        let item = Members::of("an element of \"data\"", data[0]).unwrap();
        assert_eq!(
            item.value("value").unwrap(),
            Some(json!({"Content": 1, "content": 2}))
        );
    }

    #[test]
    fn null_is_absent_and_the_last_of_several_wins() {
        let body = Members::of_body(r#"{"data":null,"name":"a","Name":"b"}"#).unwrap();
        assert!(body.array("data").unwrap().is_empty());
        assert_eq!(body.string("name").unwrap().as_deref(), Some("b"));
        assert!(Members::of_body("null").unwrap().get("name").is_none());
    }

    #[test]
    fn what_follows_the_first_value_is_ignored() {
        assert!(
            Members::of_body("{\"url\":\"http://x\"} trailing")
                .unwrap()
                .get("url")
                .is_some()
        );
        assert!(Members::of_body("{\"url\":1}{").is_ok());
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        let error = |text| Members::of_body(text).unwrap_err().to_string();
        assert_eq!(error("  "), "the request has no body: send a JSON object");
        assert_eq!(error("[1]"), "the request body must be a JSON object");
        assert!(error("{\"a\":").starts_with("the request is not JSON: "));
        let body = Members::of_body(r#"{"name":5}"#).unwrap();
        assert_eq!(
            body.string("name").unwrap_err().to_string(),
            "member \"name\" must be a string"
        );
    }

    #[test]
    fn values_are_untouched() {
        let body = Members::of_body(r#"{"v": {"b" : 1.50, "a":"\u00e9"} }"#).unwrap();
        assert_eq!(
            body.get("V").unwrap().get(),
            r#"{"b" : 1.50, "a":"\u00e9"}"#
        );
    }

    #[test]
    fn deep_nesting_is_refused_not_fatal() {
        let deep = format!(
            "{{\"value\":{}{}}}",
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        let body = Members::of_body(&deep).unwrap();
        assert!(body.value("value").is_err());
    }
}
