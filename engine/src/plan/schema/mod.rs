//! JSON Schema, in full, for what services take and return: `$ref` and `$defs`, enums, unions, nested and free-form objects.
//!
//! Invariant: nothing is fetched: a `$ref` leads to a place in the same schema, any other is refused at registration.

mod register;
mod walk;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

use jsonschema::Validator;
use serde_json::{Map, Value};

pub use self::register::{FieldError, join, validate_registration};
pub use self::walk::{AnyOf, Place, Schema, TypeSet};

/// Why a schema cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct SchemaError {
    /// A JSON pointer to the place.
    pub at: String,
    /// What is wrong there.
    pub text: String,
}

/// A compiled schema of an input.
#[derive(Debug)]
pub struct Checker {
    validator: Validator,
}

/// The schema of an input, compiled once for all that share it, when it is first asked.
#[derive(Clone)]
pub struct InputSchema {
    schema: Value,
    compiled: Arc<OnceLock<Result<Checker, SchemaError>>>,
}

impl InputSchema {
    /// Its compiled form.
    pub fn checker(&self) -> Result<&Checker, &SchemaError> {
        let compiled = self.compiled.get_or_init(|| Checker::compile(&self.schema));
        compiled.as_ref()
    }
}

impl From<Value> for InputSchema {
    fn from(schema: Value) -> Self {
        Self {
            schema,
            compiled: Arc::default(),
        }
    }
}

impl Deref for InputSchema {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.schema
    }
}

impl DerefMut for InputSchema {
    fn deref_mut(&mut self) -> &mut Value {
        // Another schema, perhaps: it is compiled anew, and not for those it was shared with.
        self.compiled = Arc::default();
        &mut self.schema
    }
}

impl PartialEq for InputSchema {
    fn eq(&self, other: &Self) -> bool {
        self.schema == other.schema
    }
}

impl fmt::Debug for InputSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.schema.fmt(f)
    }
}

/// What a schema has against a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// A JSON pointer to the value.
    pub at: String,
    /// The objection; it does not show the value.
    pub text: String,
}

impl Checker {
    /// Compiles a schema. A schema that names no draft follows the latest one.
    pub fn compile(schema: &Value) -> Result<Self, SchemaError> {
        match jsonschema::options().offline().build(schema) {
            Ok(validator) => Ok(Self { validator }),
            Err(error) => Err(SchemaError {
                at: error.instance_path().as_str().to_owned(),
                text: shortened(error.to_string()),
            }),
        }
    }

    /// What the schema has against the members of an object, but not against the object itself: what it lacks is not told.
    pub fn faults_of_members(&self, object: &Map<String, Value>) -> Vec<Fault> {
        let instance = Value::Object(object.clone());
        let faults = self.validator.iter_errors(&instance).filter_map(|error| {
            let at = error.instance_path().as_str();
            (!at.is_empty()).then(|| Fault {
                at: at.to_owned(),
                text: shortened(error.masked().to_string()),
            })
        });
        faults.collect()
    }

    /// Whether a value may stand as a member.
    pub fn allows_member(&self, name: &str, value: &Value) -> bool {
        let mut object = Map::new();
        object.insert(name.to_owned(), value.clone());
        self.faults_of_members(&object).is_empty()
    }
}

/// Characters of a text about a schema: these texts go to models and into errors.
const TEXT_CHARS_MAX: usize = 300;

fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(TEXT_CHARS_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::reference::{Piece, scan};

    /// What the schema says about the place that `$task1.<path>` names.
    fn at<'a>(schema: &'a Value, path: &str) -> Place<'a> {
        match scan(&format!("$task1.{path}"), &|_| false).as_slice() {
            [Piece::Reference(reference)] => Schema::root(schema).at(&reference.path),
            other => panic!("not a reference: {other:?}"),
        }
    }

    fn types(schema: &Value, path: &str) -> TypeSet {
        match at(schema, path) {
            Place::Known(schemas) => AnyOf {
                root: schema,
                schemas,
            }
            .types(),
            other => panic!("{path}: {other:?}"),
        }
    }

    fn order() -> Value {
        json!({
            "type": "object",
            "properties": {
                "order": {"$ref": "#/$defs/Order"},
                "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "prices": {"type": "object", "additionalProperties": {"type": "number"}},
                "anything": {"type": "object"},
                "free": {"type": "object", "properties": {"a": {}}, "additionalProperties": true},
                "pair": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": false},
                "either": {"oneOf": [{"$ref": "#/$defs/Line"}, {"type": "object", "properties": {"gift": {"type": "boolean"}}}]},
                "both": {"allOf": [{"$ref": "#/$defs/Line"}, {"properties": {"gift": {"type": "boolean"}}}]},
                "tree": {"$ref": "#/$defs/Tree"},
                "level": {"enum": ["low", "high"]},
                "ratio": {"const": 0.5}
            },
            "required": ["order"],
            "$defs": {
                "Order": {"type": "object", "properties": {
                    "total": {"type": "number"}, "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}}}},
                "Line": {"type": "object", "properties": {"sku": {"type": "string"}, "n": {"type": "integer"}}, "required": ["sku"]},
                "Tree": {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}}}
            }
        })
    }

    #[test]
    fn a_path_is_walked_through_references_and_unions() {
        let schema = order();
        assert_eq!(types(&schema, "order"), TypeSet::OBJECT);
        assert_eq!(types(&schema, "order.lines[3].sku"), TypeSet::STRING);
        assert_eq!(types(&schema, "order.lines.3.n"), TypeSet::INTEGER);
        assert_eq!(types(&schema, "note"), TypeSet::STRING.or(TypeSet::NULL));
        assert_eq!(types(&schema, "prices.lamp"), TypeSet::NUMBER);
        assert_eq!(types(&schema, "pair[1]"), TypeSet::INTEGER);
        assert_eq!(types(&schema, "either.sku"), TypeSet::STRING);
        assert_eq!(types(&schema, "either.gift"), TypeSet::BOOLEAN);
        assert_eq!(types(&schema, "both.sku"), TypeSet::STRING);
        assert_eq!(types(&schema, "both.gift"), TypeSet::BOOLEAN);
        assert_eq!(
            types(&schema, "tree.children[0].children[1]"),
            TypeSet::OBJECT
        );
        assert_eq!(types(&schema, "level"), TypeSet::STRING);
        assert_eq!(types(&schema, "ratio"), TypeSet::of(&json!(0.5)));
        for open in ["anything.x", "free.x", "free.a.b"] {
            assert_eq!(at(&schema, open), Place::Open, "{open}");
        }
        for closed in [
            "missing",
            "order.missing",
            "order.lines.sku",
            "note.x",
            "pair[2]",
            "either.x",
            "level.x",
            "both.x",
        ] {
            assert_eq!(at(&schema, closed), Place::Closed, "{closed}");
        }
    }

    #[test]
    fn walks_end() {
        let circle = json!({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}, {"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}}});
        assert_eq!(Schema::root(&circle).types(), TypeSet::ALL);
        assert_eq!(at(&circle, "x"), Place::Open);
        assert!(Schema::root(&circle).required().is_empty());
    }

    #[test]
    fn what_members_are_named_and_required_is_told() {
        let schema = json!({
            "allOf": [{"$ref": "#/$defs/A"}, {"properties": {"c": {}}, "required": ["c", "a"]}],
            "properties": {"b": {}}, "required": ["a"], "$defs": {"A": {"properties": {"a": {}}}}
        });
        assert_eq!(Schema::root(&schema).required(), ["a", "c"]);
        let names: Vec<_> = Schema::root(&schema)
            .properties()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["b", "a", "c"]);
    }

    #[test]
    fn only_what_can_never_be_right_does_not_overlap() {
        let check = |a: Value, b: Value| {
            let (ours, theirs) = (
                AnyOf {
                    root: &a,
                    schemas: vec![&a],
                },
                AnyOf {
                    root: &b,
                    schemas: vec![&b],
                },
            );
            ours.overlaps(&theirs)
        };
        assert!(check(json!({"type": "integer"}), json!({"type": "number"})));
        assert!(check(json!({"type": "number"}), json!({"type": "integer"})));
        assert!(check(
            json!({"type": ["string", "null"]}),
            json!({"type": "string"})
        ));
        assert!(check(json!({}), json!({"type": "string"})));
        assert!(!check(json!({"type": "string"}), json!({"type": "number"})));
        let array = |items: Value| json!({"type": "array", "items": items});
        assert!(!check(
            array(json!({"type": "string"})),
            array(json!({"type": "integer"}))
        ));
        assert!(check(array(json!({})), array(json!({"type": "integer"}))));
        let object = |name: &str| json!({"type": "object", "properties": {name: {"type": "string"}}, "required": [name]});
        assert!(!check(object("a"), object("b")));
        assert!(check(object("a"), object("a")));
        assert!(check(json!({"type": "object"}), object("b")));
    }

    #[test]
    fn types_are_told_in_words() {
        let say = |schema: Value| {
            AnyOf {
                root: &schema,
                schemas: vec![&schema],
            }
            .describe()
        };
        assert_eq!(say(json!({"type": ["null", "number"]})), "number or null");
        assert_eq!(
            say(json!({"type": "array", "items": {"type": "integer"}})),
            "array of integer"
        );
        assert_eq!(say(json!({"type": "array"})), "array");
        assert_eq!(say(json!({})), "anything");
    }

    #[test]
    fn values_are_checked_with_definitions_of_the_root() {
        let schema = order();
        let checker = Checker::compile(&schema).unwrap();
        assert!(checker.allows_member("order", &json!({"lines": [{"sku": "a", "n": 1}]})));
        assert!(!checker.allows_member("order", &json!({"lines": [{"sku": 5}]})));
        assert!(!checker.allows_member("level", &json!("middle")));
        let secret = json!({"order": {"total": "hunter2"}, "level": "low"});
        let faults = checker.faults_of_members(secret.as_object().unwrap());
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].at, "/order/total");
        assert!(!faults[0].text.contains("hunter2"), "{}", faults[0].text);
    }
}
