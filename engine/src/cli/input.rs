//! What people type after `-d`, `-t`, `-g` and `--plan`, parsed into what the server is sent.
//! Nothing here talks to anything.

use serde::Serialize;
use serde_json::Value;

/// One parameter of an action.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Parameter {
    /// Its name.
    pub field: String,
    /// Its value, of any JSON type.
    pub value: Value,
}

/// Parses `name:value` or `name:=json`.
///
/// A value is a plain string, commas, colons and digits included, except where it is valid JSON of
/// a kind that nobody types by accident: an object, an array, or a string in double quotes.
pub fn parameter(text: &str) -> Result<Parameter, String> {
    let (name, value) = text.split_once(':').ok_or_else(|| {
        format!("{text:?} has no colon: write name:value, or name:=json for a number, true, false or null")
    })?;
    let name = name.trim();
    if name.is_empty() {
        return Err(format!(
            "{text:?} has no name before its colon: write name:value"
        ));
    }
    let value = match value.strip_prefix('=') {
        Some(json) => serde_json::from_str(json).map_err(|e| {
            format!(
                "{json:?} is not JSON ({e}): after `:=` comes JSON; for a string that begins with `=` write {name}:\"={json}\""
            )
        })?,
        None => plain_or_json(value),
    };
    Ok(Parameter {
        field: name.to_owned(),
        value,
    })
}

fn plain_or_json(text: &str) -> Value {
    let trimmed = text.trim();
    let looks_like_json = [('{', '}'), ('[', ']'), ('"', '"')]
        .iter()
        .any(|&(open, close)| trimmed.starts_with(open) && trimmed.ends_with(close));
    looks_like_json
        .then(|| serde_json::from_str(trimmed).ok())
        .flatten()
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Refuses a name given twice: only one value could win, and nobody would know which.
pub fn distinct(parameters: &[Parameter]) -> Result<(), String> {
    for (at, parameter) in parameters.iter().enumerate() {
        if parameters[..at].iter().any(|p| p.field == parameter.field) {
            return Err(format!(
                "the parameter {:?} is given twice: give it once, or as a list: {}:=[…, …]",
                parameter.field, parameter.field
            ));
        }
    }
    Ok(())
}

/// Checks a duration as the wire writes it (`45s`, `1m30s`, `1.5h`, `300ms`) and hands it on as it
/// was typed. The server reads the same language; checking here saves a round trip.
pub fn duration(text: &str) -> Result<String, String> {
    let wrong = || {
        format!(
            "{text:?} is not a duration: write numbers with their units, such as 300ms, 45s, 1m30s or 2h"
        )
    };
    let mut rest = text;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        number.parse::<f64>().map_err(|_| wrong())?;
        let unit = ["ns", "us", "µs", "ms", "s", "m", "h"]
            .into_iter()
            .filter(|unit| after.starts_with(unit))
            .max_by_key(|unit| unit.len())
            .ok_or_else(wrong)?;
        rest = &after[unit.len()..];
        parts += 1;
    }
    if parts == 0 {
        return Err(wrong());
    }
    Ok(text.to_owned())
}

/// Reads a plan: one JSON object with a list of `tasks`. The server validates the rest.
pub fn plan(text: &str, name: &str) -> Result<Value, String> {
    let plan: Value =
        serde_json::from_str(text).map_err(|e| format!("the plan in {name} is not JSON: {e}"))?;
    if !plan.get("tasks").is_some_and(Value::is_array) {
        return Err(format!(
            "the plan in {name} has no list of tasks: a plan is {{\"tasks\":[{{\"id\",\"service\",\"input\"}}…]}}"
        ));
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parameters() {
        let cases = [
            // A string, whatever it looks like.
            ("message:Hello, world", "message", json!("Hello, world")),
            ("url:http://h:80/x", "url", json!("http://h:80/x")),
            ("quantity:3", "quantity", json!("3")),
            ("flag:true", "flag", json!("true")),
            ("nothing:", "nothing", json!("")),
            ("spaced: a b ", "spaced", json!(" a b ")),
            (" name :v", "name", json!("v")),
            // JSON, where it is one.
            (r#"o:{"a":1,"b":2}"#, "o", json!({"a":1,"b":2})),
            ("l:[1, 2]", "l", json!([1, 2])),
            (r#"s:"[not a list]""#, "s", json!("[not a list]")),
            (r#"s:"=A1""#, "s", json!("=A1")),
            // Almost JSON is a string.
            ("l:[draft] title", "l", json!("[draft] title")),
            ("l:[draft]", "l", json!("[draft]")),
            ("o:{name}", "o", json!("{name}")),
            (r#"q:"it" said"#, "q", json!(r#""it" said"#)),
            // Asked for as JSON.
            ("n:=3", "n", json!(3)),
            ("n:=-1.5e3", "n", json!(-1500.0)),
            ("b:=true", "b", json!(true)),
            ("z:=null", "z", json!(null)),
            (r#"s:="x""#, "s", json!("x")),
            ("l:=[\"a\",\"b\"]", "l", json!(["a", "b"])),
        ];
        for (text, field, value) in cases {
            let parsed = parameter(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(
                (parsed.field.as_str(), parsed.value),
                (field, value),
                "{text}"
            );
        }
    }

    #[test]
    fn parameters_that_make_no_sense_say_what_would() {
        for (text, hint) in [
            ("quantity", "no colon"),
            (":3", "no name"),
            ("n:=three", r#"n:"=three""#),
            ("n:=", "is not JSON"),
        ] {
            let error = parameter(text).unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn a_name_given_twice_is_refused() {
        let twice: Vec<_> = ["a:1", "b:2", "a:3"]
            .into_iter()
            .map(|t| parameter(t).unwrap())
            .collect();
        assert!(distinct(&twice).unwrap_err().contains("\"a\""));
        assert!(distinct(&twice[..2]).is_ok());
    }

    #[test]
    fn durations_as_the_wire_writes_them() {
        for text in [
            "45s", "1m0s", "1h2m3.5s", "300ms", "2h", "10us", "5µs", "0s", "1.5h",
        ] {
            assert_eq!(duration(text).as_deref(), Ok(text));
        }
        for text in ["", "45", "s", "1d", "45 s", "-1s", "1..2s", "1m30"] {
            let error = duration(text).expect_err(text);
            assert!(error.contains("1m30s"), "{error}");
        }
    }

    #[test]
    fn a_plan_is_an_object_with_tasks() {
        assert!(plan(r#"{"tasks":[]}"#, "p.json").is_ok());
        assert!(
            plan("{", "p.json")
                .unwrap_err()
                .contains("p.json is not JSON")
        );
        assert!(
            plan("[]", "p.json")
                .unwrap_err()
                .contains("no list of tasks")
        );
    }
}
