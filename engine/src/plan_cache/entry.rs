//! One kept plan: what it is found by, the template, and its bytes.

use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use orchestrion_history::ids::Timestamp;
use orchestrion_proto::prost::Message;
use orchestrion_proto::v1;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::embedding::{Vector, lexical};
use crate::plan::draft::{Draft, DraftTask};
use crate::plan::{Parameter, Plan, Service};
use crate::planner::Cost;
use crate::registry::ids::hex;

/// What a plan is found by.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// Where the action stands among others.
    pub vector: Vector,
    /// Of everything that planning and validation see of the services.
    pub services_digest: String,
    /// Of the project's groundings; empty without any.
    pub groundings_digest: String,
    /// The names of the caller's values, with their kinds, sorted.
    pub fields: Vec<String>,
    /// What of the action's text must be the same to the letter.
    pub specifics: String,
}

impl Key {
    /// The key of an action.
    pub fn new(
        vector: Vector,
        action: &str,
        data: &[Parameter],
        services: &[Service],
        groundings_digest: String,
    ) -> Self {
        let mut fields: Vec<_> = data
            .iter()
            .map(|parameter| format!("{}:{}", kind_of(&parameter.value), parameter.field))
            .collect();
        fields.sort_unstable();
        let mut specifics = lexical::specifics(action);
        if vector.is_lexical() {
            // Words alone cannot tell who does what to whom: all of them must be there, in order.
            specifics.extend(lexical::content(action));
        }
        Self {
            vector,
            services_digest: services_digest(services),
            groundings_digest,
            fields,
            specifics: specifics.join("\u{1f}"),
        }
    }

    /// Whether everything but the vectors is the same.
    pub(super) fn fits(&self, other: &Self) -> bool {
        !self.is_outdated_by(other)
            && self.fields == other.fields
            && self.specifics == other.specifics
    }

    /// Whether services or rules have changed.
    pub(super) fn is_outdated_by(&self, other: &Self) -> bool {
        self.services_digest != other.services_digest
            || self.groundings_digest != other.groundings_digest
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn services_digest(services: &[Service]) -> String {
    let mut services: Vec<_> = services.iter().collect();
    services.sort_by(|a, b| a.id.cmp(&b.id));
    let mut hash = Sha256::new();
    for service in services {
        for part in [
            &service.id,
            &service.name,
            &service.description,
            &service.input_schema.to_string(),
            &service.output_schema.to_string(),
            &service.revertible.to_string(),
        ] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
    }
    hex(&hash.finalize())
}

/// A plan without the caller's values. Persisted as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Template {
    /// The constants that the planner chose.
    pub constants: Map<String, Value>,
    /// The tasks, in plan order.
    pub tasks: Vec<TemplateTask>,
}

/// A task of a template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TemplateTask {
    /// Its id.
    pub id: String,
    /// The service's id.
    pub service: String,
    /// Literals of the planner, and references.
    pub input: Map<String, Value>,
}

impl Template {
    /// The template of a plan; none if a literal of it holds one of the caller's values: nobody could tell then whether it was meant to
    /// be the value or only equals it, and the next caller must not get the last one's.
    pub fn of(plan: &Plan, data: &[Parameter]) -> Option<Self> {
        let is_parameter = |name: &str| data.iter().any(|parameter| parameter.field == name);
        let template = Self {
            constants: plan
                .task_zero
                .iter()
                .filter(|(name, _)| !is_parameter(name))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            tasks: plan
                .tasks
                .iter()
                .map(|task| TemplateTask {
                    id: task.id.clone(),
                    service: task.service.clone(),
                    input: task.input.clone(),
                })
                .collect(),
        };
        let values: Vec<_> = data
            .iter()
            .flat_map(|parameter| scalars(&parameter.value))
            .collect();
        let inputs = template.tasks.iter().flat_map(|task| task.input.values());
        let mut literals = template.constants.values().chain(inputs).flat_map(scalars);
        let held = literals.any(|literal| values.iter().any(|value| holds(literal, value)));
        (!held).then_some(template)
    }

    /// The draft that the template and the caller's values make.
    pub fn draft(&self) -> Draft {
        Draft {
            task_zero: self.constants.clone(),
            tasks: self
                .tasks
                .iter()
                .map(|task| DraftTask {
                    id: task.id.clone(),
                    service: Some(task.service.clone()),
                    input: task.input.clone(),
                    ..DraftTask::default()
                })
                .collect(),
            ..Draft::default()
        }
    }
}

/// The texts, numbers and truth values in a value.
fn scalars(value: &Value) -> Vec<&Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(elements) => elements.iter().flat_map(scalars).collect(),
        Value::Object(members) => members.values().flat_map(scalars).collect(),
        scalar => vec![scalar],
    }
}

/// Whether a literal is, or as a text contains, a value. References are none: `$task0.city` does not hold "city".
fn holds(literal: &Value, value: &Value) -> bool {
    if literal == value {
        return true;
    }
    let plain = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    match literal {
        Value::String(text) => {
            let value = plain(value).to_lowercase();
            let text = without_references(text).to_lowercase();
            !value.trim().is_empty() && contains_word(&text, value.trim())
        }
        other => plain(other) == plain(value),
    }
}

/// A value of one or two characters counts only where it stands alone: every text has an `a`.
fn contains_word(text: &str, value: &str) -> bool {
    if value.chars().count() > 2 {
        return text.contains(value);
    }
    text.split(|char: char| !char.is_alphanumeric())
        .any(|word| word == value)
        || text.trim() == value
}

fn without_references(text: &str) -> String {
    use crate::plan::reference::{Piece, is_task_zero, scan};
    let pieces = scan(text, &is_task_zero).into_iter();
    let texts = pieces.filter_map(|piece| match piece {
        Piece::Text(text) => Some(text),
        Piece::Reference(_) => None,
    });
    texts.collect::<Vec<_>>().join(" ")
}

/// A kept plan.
#[derive(Debug)]
pub struct Entry {
    /// `c_` and 24 hex digits.
    pub id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// The action it was made for.
    pub action: String,
    /// What it is found by.
    pub key: Key,
    /// The plan.
    pub template: Template,
    /// What making it cost.
    pub cost: Cost,
    /// How often it served since the engine started.
    pub hits: AtomicU64,
}

impl Entry {
    pub(super) fn encode(&self) -> Bytes {
        let template =
            serde_json::to_string(&self.template).expect("a template has string keys only");
        let values = self.key.vector.values.iter();
        let record = v1::PlanCacheEntry {
            id: self.id.clone(),
            created_at: self.created_at.0,
            action: self.action.clone(),
            space: self.key.vector.space.clone(),
            vector: values.flat_map(|value| value.to_le_bytes()).collect(),
            services_digest: self.key.services_digest.clone(),
            groundings_digest: self.key.groundings_digest.clone(),
            fields: self.key.fields.clone(),
            specifics: self.key.specifics.clone(),
            template_json: template,
            model: self.cost.model.clone(),
            prompt_digest: self.cost.prompt_digest.clone(),
            prompt_tokens: self.cost.prompt_tokens,
            completion_tokens: self.cost.completion_tokens,
            duration_ms: self.cost.duration_ms,
        };
        record.encode_to_vec().into()
    }

    pub(super) fn decode(value: &Bytes) -> Result<Self, String> {
        let record = v1::PlanCacheEntry::decode(value.clone()).map_err(|e| e.to_string())?;
        let template = serde_json::from_str(&record.template_json)
            .map_err(|e| format!("its template does not parse: {e}"))?;
        let (floats, rest) = record.vector.as_chunks::<4>();
        if !rest.is_empty() {
            return Err("its vector is cut off".to_owned());
        }
        Ok(Self {
            id: record.id,
            created_at: Timestamp(record.created_at),
            action: record.action,
            key: Key {
                vector: Vector {
                    space: record.space,
                    values: floats
                        .iter()
                        .map(|bytes| f32::from_le_bytes(*bytes))
                        .collect(),
                },
                services_digest: record.services_digest,
                groundings_digest: record.groundings_digest,
                fields: record.fields,
                specifics: record.specifics,
            },
            template,
            cost: Cost {
                model: record.model,
                prompt_digest: record.prompt_digest,
                prompt_tokens: record.prompt_tokens,
                completion_tokens: record.completion_tokens,
                duration_ms: record.duration_ms,
                tries: 1,
            },
            hits: AtomicU64::default(),
        })
    }
}
