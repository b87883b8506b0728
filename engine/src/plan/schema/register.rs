//! What a registration of a service or agent must be.
//!
//! Invariant: a schema that passed compiles offline, and no value makes its checking endless: no subschema applies to a value through
//! itself, and none through more than [`APPLIED_MAX`] others or [`APPLIED_DEPTH_MAX`] deep.

use std::collections::HashMap;
use std::fmt;

use serde_json::{Map, Value};

use super::walk::target;
use super::{Checker, Schema, TypeSet};

/// Characters of a name, at least.
pub const NAME_CHARS_MIN: usize = 3;
/// Characters of a name, at most.
pub const NAME_CHARS_MAX: usize = 63;
/// Bytes of a description.
pub const DESCRIPTION_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one schema, as compact JSON.
pub const SCHEMA_BYTES_MAX: usize = 256 * 1024;
/// Subschemas that apply to one value at once.
const APPLIED_MAX: u32 = 5_000;
/// Subschemas of subschemas, references included, that apply to one value.
const APPLIED_DEPTH_MAX: u32 = 64;
/// The keywords that lead elsewhere.
const REFERRING: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];

/// One thing wrong with a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The field, with dots: `schema.input`.
    pub path: String,
    /// What is wrong with it.
    pub text: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: INVALID({})", self.path, self.text)
    }
}

/// All of it in one text, as clients print it.
pub fn join(errors: &[FieldError]) -> String {
    errors
        .iter()
        .map(FieldError::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Checks the parts of a registration; `schema` is its member of that name, `{"input": …, "output": …}`.
pub fn validate_registration(
    name: &str,
    description: &str,
    schema: &Value,
) -> Result<(), Vec<FieldError>> {
    let mut errors = Vec::new();
    let mut refuse = |path: &str, text: String| {
        errors.push(FieldError {
            path: path.to_owned(),
            text,
        })
    };
    if let Some(text) = fault_of_name(name) {
        refuse("name", text);
    }
    if description.trim().is_empty() {
        refuse(
            "description",
            "must not be empty: planners choose services by it".to_owned(),
        );
    } else if description.len() > DESCRIPTION_BYTES_MAX {
        refuse(
            "description",
            format!(
                "has {} bytes, at most {DESCRIPTION_BYTES_MAX} are allowed",
                description.len()
            ),
        );
    }
    for side in ["input", "output"] {
        if let Err(error) = check_side(schema.get(side)) {
            refuse(&format!("schema.{side}{}", error.path), error.text);
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

fn fault_of_name(name: &str) -> Option<String> {
    let chars = name.chars().count();
    if !(NAME_CHARS_MIN..=NAME_CHARS_MAX).contains(&chars) {
        return Some(format!(
            "must have {NAME_CHARS_MIN} to {NAME_CHARS_MAX} characters, has {chars}"
        ));
    }
    let inner = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-')
    };
    let outer =
        |byte: Option<&u8>| byte.is_some_and(|byte| inner(*byte) && byte.is_ascii_alphanumeric());
    let bytes = name.as_bytes();
    if bytes.iter().all(|&byte| inner(byte)) && outer(bytes.first()) && outer(bytes.last()) {
        None
    } else {
        Some("must consist of lower-case letters, digits, '-' and '.', and start and end with a letter or digit".to_owned())
    }
}

/// The path in the answer is relative to the side.
fn check_side(schema: Option<&Value>) -> Result<(), FieldError> {
    let refuse = |path: &str, text: String| {
        Err(FieldError {
            path: path.to_owned(),
            text,
        })
    };
    let schema = match schema {
        None | Some(Value::Null) => {
            return refuse(
                "",
                "is missing: a JSON Schema of type object is needed".to_owned(),
            );
        }
        Some(schema @ Value::Object(_)) => schema,
        Some(_) => return refuse("", "must be a JSON Schema, a JSON object".to_owned()),
    };
    let bytes = schema.to_string().len();
    if bytes > SCHEMA_BYTES_MAX {
        return refuse(
            "",
            format!("has {bytes} bytes, at most {SCHEMA_BYTES_MAX} are allowed"),
        );
    }
    let mut survey = Survey {
        root: schema,
        error: None,
    };
    survey.visit(schema, &mut String::new());
    if let Some(error) = survey.error {
        return Err(error);
    }
    if let Err(text) = check_application(schema) {
        return refuse("", text);
    }
    if let Err(error) = Checker::compile(schema) {
        return refuse(&error.at.replace('/', "."), error.text);
    }
    if Schema::root(schema).types() != TypeSet::OBJECT {
        return refuse(".type", "must be \"object\"".to_owned());
    }
    Ok(())
}

/// Looks at every subschema for what cannot be followed.
struct Survey<'a> {
    root: &'a Value,
    error: Option<FieldError>,
}

impl Survey<'_> {
    fn visit(&mut self, schema: &Value, path: &mut String) {
        let Some(keywords) = schema.as_object() else {
            return;
        };
        for keyword in REFERRING {
            if let Some(Value::String(reference)) = keywords.get(keyword)
                && let Some(text) = self.fault_of_reference(reference)
            {
                self.refuse(format!("{path}.{keyword}"), text);
            }
        }
        if !path.is_empty() && keywords.get("$id").is_some_and(Value::is_string) {
            self.refuse(
                format!("{path}.$id"),
                "only the whole schema may have an $id: use $defs".to_owned(),
            );
        }
        let length = path.len();
        for (name, part) in parts(keywords) {
            path.push_str(&name);
            self.visit(part, path);
            path.truncate(length);
        }
    }

    fn fault_of_reference(&self, reference: &str) -> Option<String> {
        if reference != "#" && !reference.starts_with("#/") {
            let shown: String = reference.chars().take(80).collect();
            return Some(format!(
                "refers to {shown:?}: nothing is fetched, put it under $defs and refer to \"#/$defs/…\""
            ));
        }
        let lost = target(self.root, &Value::String(reference.to_owned())).is_none();
        let shown: String = reference.chars().take(80).collect();
        lost.then(|| format!("refers to {shown:?}, a place that is not in the schema"))
    }

    fn refuse(&mut self, path: String, text: String) {
        self.error.get_or_insert(FieldError { path, text });
    }
}

/// The subschemas directly under a schema, each with its path.
fn parts(keywords: &Map<String, Value>) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for (keyword, value) in keywords {
        match (keyword.as_str(), value) {
            (
                "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas"
                | "dependencies",
                Value::Object(members),
            ) => found.extend(
                members
                    .iter()
                    .map(|(name, part)| (format!(".{keyword}.{name}"), part)),
            ),
            ("allOf" | "anyOf" | "oneOf" | "prefixItems" | "items", Value::Array(items)) => {
                found.extend(
                    items
                        .iter()
                        .enumerate()
                        .map(|(index, part)| (format!(".{keyword}[{index}]"), part)),
                );
            }
            (
                "items"
                | "additionalItems"
                | "unevaluatedItems"
                | "contains"
                | "additionalProperties"
                | "unevaluatedProperties"
                | "propertyNames"
                | "not"
                | "if"
                | "then"
                | "else"
                | "contentSchema",
                part,
            ) => found.push((format!(".{keyword}"), part)),
            _ => {}
        }
    }
    found
}

/// How many subschemas apply to one value, and how deep.
#[derive(Clone, Copy)]
struct Applied {
    count: u32,
    depth: u32,
}

/// Refuses a schema that applies to a value through itself, or through very many others.
fn check_application(root: &Value) -> Result<(), String> {
    let mut known = HashMap::new();
    let mut pending = vec![root];
    while let Some(schema) = pending.pop() {
        applied(root, schema, 0, &mut known)?;
        if let Some(keywords) = schema.as_object() {
            pending.extend(parts(keywords).into_iter().map(|(_, part)| part));
        }
    }
    Ok(())
}

/// What applies to a value that this schema applies to. In `known`, `None` marks a schema whose counting has begun.
fn applied(
    root: &Value,
    schema: &Value,
    above: u32,
    known: &mut HashMap<*const Value, Option<Applied>>,
) -> Result<Applied, String> {
    let mut sum = Applied { count: 1, depth: 0 };
    let Some(keywords) = schema.as_object() else {
        return Ok(sum);
    };
    match known.get(&std::ptr::from_ref(schema)) {
        Some(Some(sum)) => return Ok(*sum),
        Some(None) => {
            return Err(
                "has a $ref that leads back to itself without a property or an item between"
                    .to_owned(),
            );
        }
        None => {}
    }
    known.insert(schema, None);
    let referred = REFERRING
        .into_iter()
        .filter_map(|keyword| target(root, keywords.get(keyword)?));
    let within = parts(keywords)
        .into_iter()
        .filter(|(name, _)| applies_in_place(name))
        .map(|(_, part)| part);
    for part in referred.chain(within) {
        if above >= APPLIED_DEPTH_MAX {
            return Err(format!(
                "applies subschemas to one value more than {APPLIED_DEPTH_MAX} deep"
            ));
        }
        let part = applied(root, part, above + 1, known)?;
        sum = Applied {
            count: sum.count.saturating_add(part.count),
            depth: sum.depth.max(part.depth + 1),
        };
        if sum.count > APPLIED_MAX || sum.depth > APPLIED_DEPTH_MAX {
            return Err(format!(
                "applies more than {APPLIED_MAX} subschemas to one value, or {APPLIED_DEPTH_MAX} deep"
            ));
        }
    }
    known.insert(schema, Some(sum));
    Ok(sum)
}

/// Whether the subschema at this path applies to the same value as the schema around it.
fn applies_in_place(path: &str) -> bool {
    let keyword = path
        .trim_start_matches('.')
        .split(['.', '['])
        .next()
        .unwrap_or_default();
    matches!(
        keyword,
        "allOf"
            | "anyOf"
            | "oneOf"
            | "not"
            | "if"
            | "then"
            | "else"
            | "dependentSchemas"
            | "dependencies"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object() -> Value {
        json!({"type": "object", "properties": {"a": {"type": "string"}}})
    }

    fn check(name: &str, description: &str, input: Value) -> String {
        match validate_registration(
            name,
            description,
            &json!({"input": input, "output": object()}),
        ) {
            Ok(()) => String::new(),
            Err(errors) => join(&errors),
        }
    }

    #[test]
    fn names_follow_the_rule() {
        for good in ["abc", "a.b", "0-9", &"a".repeat(63), "echo-service.v2"] {
            assert_eq!(check(good, "d", object()), "", "{good}");
        }
        for bad in [
            "",
            "ab",
            "Abc",
            "a_b",
            "-ab",
            "ab.",
            "a b",
            "äbc",
            &"a".repeat(64),
        ] {
            assert!(
                check(bad, "d", object()).starts_with("name: INVALID("),
                "{bad}"
            );
        }
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let schema = json!({"input": {"type": "string"}});
        let errors = validate_registration("A", "  ", &schema).unwrap_err();
        assert_eq!(
            join(&errors),
            "name: INVALID(must have 3 to 63 characters, has 1), \
             description: INVALID(must not be empty: planners choose services by it), \
             schema.input.type: INVALID(must be \"object\"), \
             schema.output: INVALID(is missing: a JSON Schema of type object is needed)"
        );
    }

    #[test]
    fn full_schemas_are_accepted() {
        let schemas = [
            json!({"type": "object"}),
            json!({"type": "object", "properties": {"n": {"type": "number", "minimum": 0.5}, "any": {}, "list": {"type": "array"}}}),
            json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"type": "string", "enum": ["x", "y"]}}}),
            json!({"type": "object", "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "null"}]}}),
            json!({"$ref": "#/$defs/Node", "$defs": {"Node": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}}}}}),
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "definitions": {"A": {"type": "object"}}, "properties": {"a": {"$ref": "#/definitions/A"}}}),
            json!({"type": "object", "properties": {"$ref": {"type": "string"}, "example": {"default": {"$ref": "http://x/y"}}}}),
        ];
        for schema in schemas {
            assert_eq!(check("svc", "d", schema.clone()), "", "{schema}");
        }
    }

    #[test]
    fn schemas_that_cannot_be_followed_are_refused() {
        let cases = [
            (json!([]), "schema.input: INVALID(must be a JSON Schema"),
            (
                json!({"type": ["object", "null"]}),
                "schema.input.type: INVALID(must be \"object\")",
            ),
            (json!({"properties": {"a": {}}}), "schema.input.type"),
            (
                json!({"type": "object", "properties": {"a": {"type": "text"}}}),
                "schema.input.properties.a.type: INVALID(",
            ),
            (
                json!({"type": "object", "properties": {"a": {"$ref": "https://x.example/s.json"}}}),
                "schema.input.properties.a.$ref: INVALID(refers to \"https://x.example/s.json\"",
            ),
            (
                json!({"type": "object", "allOf": [{"$ref": "#/$defs/B"}]}),
                "schema.input.allOf[0].$ref: INVALID(refers to ",
            ),
            (
                json!({"type": "object", "properties": {"a": {"$id": "http://x/y"}}}),
                "schema.input.properties.a.$id",
            ),
            (
                json!({"type": "object", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}}),
                "schema.input: INVALID(has a $ref that leads back",
            ),
            (
                json!({"type": "object", "description": "x".repeat(SCHEMA_BYTES_MAX)}),
                "schema.input: INVALID(has 262",
            ),
        ];
        for (schema, expected) in cases {
            let answer = check("svc", "d", schema);
            assert!(answer.starts_with(expected), "{answer}");
        }
    }

    #[test]
    fn schemas_that_multiply_are_refused() {
        let mut defs = Map::new();
        for level in 0..40 {
            let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
            defs.insert(format!("d{level}"), json!({"anyOf": [next.clone(), next]}));
        }
        defs.insert("d40".into(), json!({"type": "string"}));
        let answer = check(
            "svc",
            "d",
            json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": defs}),
        );
        assert!(answer.contains("applies more than"), "{answer}");
    }
}
