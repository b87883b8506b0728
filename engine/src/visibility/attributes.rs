//! What a run can be searched by: the attributes every run has, those that are predefined, and those a namespace added.
//!
//! Invariant: a value that is kept under a name of the catalogue is of the type that the catalogue says.

use std::collections::BTreeMap;
use std::sync::Arc;

use orchestrion_history::ids::ID_BYTES_MAX;
use orchestrion_proto::temporal::api::common::v1::{Payload, SearchAttributes};
use orchestrion_proto::temporal::api::enums::v1::IndexedValueType;
use serde_json::Value as Json;

/// Bytes of one value.
pub const VALUE_BYTES_MAX: usize = 2 * 1024;
/// Bytes of all values of a run.
pub const VALUES_BYTES_MAX: usize = 40 * 1024;
/// Attributes of a run.
pub const VALUES_MAX: usize = 100;
/// Attributes that a namespace may add.
pub const CUSTOM_ATTRIBUTES_MAX: usize = 200;

/// The type of an attribute. The numbers are those of the wire, and persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// Words of a text.
    Text,
    /// A text as a whole.
    Keyword,
    /// A whole number.
    Int,
    /// A number.
    Double,
    /// True or false.
    Bool,
    /// An instant.
    Datetime,
    /// Several texts, each as a whole.
    KeywordList,
}

impl ValueType {
    /// Every type.
    pub const ALL: [Self; 7] = [
        Self::Text,
        Self::Keyword,
        Self::Int,
        Self::Double,
        Self::Bool,
        Self::Datetime,
        Self::KeywordList,
    ];

    /// Its name, as queries' errors and payloads' metadata carry it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "Text",
            Self::Keyword => "Keyword",
            Self::Int => "Int",
            Self::Double => "Double",
            Self::Bool => "Bool",
            Self::Datetime => "Datetime",
            Self::KeywordList => "KeywordList",
        }
    }

    /// As the wire numbers it.
    pub fn wire(self) -> IndexedValueType {
        match self {
            Self::Text => IndexedValueType::Text,
            Self::Keyword => IndexedValueType::Keyword,
            Self::Int => IndexedValueType::Int,
            Self::Double => IndexedValueType::Double,
            Self::Bool => IndexedValueType::Bool,
            Self::Datetime => IndexedValueType::Datetime,
            Self::KeywordList => IndexedValueType::KeywordList,
        }
    }

    /// Of the wire's number.
    pub fn of(number: i32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.wire() as i32 == number)
    }
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Words.
    Text(String),
    /// A text as a whole.
    Keyword(String),
    /// A whole number.
    Int(i64),
    /// A number; never NaN.
    Double(f64),
    /// True or false.
    Bool(bool),
    /// Nanoseconds since the Unix epoch.
    Datetime(i64),
    /// Several texts.
    KeywordList(Vec<String>),
}

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident: $kind:ident,)*) => {
        /// What is known of every run.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Field { $($(#[$doc])* $name,)* }

        impl Field {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name in queries.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// Its type.
            pub fn kind(self) -> ValueType {
                match self { $(Self::$name => ValueType::$kind,)* }
            }
        }
    };
}

fields! {
    /// As callers name the execution.
    WorkflowId: Keyword,
    /// The run.
    RunId: Keyword,
    /// What code runs it.
    WorkflowType: Keyword,
    /// When the run was started.
    StartTime: Datetime,
    /// When its code could first run.
    ExecutionTime: Datetime,
    /// When it closed; none while it is open.
    CloseTime: Datetime,
    /// Where it stands.
    ExecutionStatus: Keyword,
    /// Where its workflow tasks wait.
    TaskQueue: Keyword,
    /// Events; none while it is open.
    HistoryLength: Int,
    /// Bytes of its events; none while it is open.
    HistorySizeBytes: Int,
    /// Nanoseconds from its execution time to its close; none while it is open.
    ExecutionDuration: Int,
    /// Changes of its state, an event each; none while it is open.
    StateTransitionCount: Int,
    /// Of the execution that started it.
    ParentWorkflowId: Keyword,
    /// Of the execution that started it.
    ParentRunId: Keyword,
    /// The first in its line of parents; its own id if it has none.
    RootWorkflowId: Keyword,
    /// The first in its line of parents; its own run if it has none.
    RootRunId: Keyword,
}

/// What a namespace need not add. Workers and the engine set them.
const PREDEFINED: [(&str, ValueType); 15] = [
    ("BatcherNamespace", ValueType::Keyword),
    ("BatcherUser", ValueType::Keyword),
    ("BinaryChecksums", ValueType::KeywordList),
    ("BuildIds", ValueType::KeywordList),
    ("TemporalChangeVersion", ValueType::KeywordList),
    ("TemporalNamespaceDivision", ValueType::Keyword),
    ("TemporalPauseInfo", ValueType::KeywordList),
    ("TemporalReportedProblems", ValueType::KeywordList),
    ("TemporalSchedulePaused", ValueType::Bool),
    ("TemporalScheduledById", ValueType::Keyword),
    ("TemporalScheduledStartTime", ValueType::Datetime),
    (
        "TemporalUsedWorkerDeploymentVersions",
        ValueType::KeywordList,
    ),
    ("TemporalWorkerDeployment", ValueType::Keyword),
    ("TemporalWorkerDeploymentVersion", ValueType::Keyword),
    ("TemporalWorkflowVersioningBehavior", ValueType::Keyword),
];

/// One attribute of a run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// Every run has it.
    Field(Field),
    /// Kept with the run under its name.
    Kept {
        /// Its name.
        name: Arc<str>,
        /// Its type.
        kind: ValueType,
    },
}

impl Attribute {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Field(field) => field.name(),
            Self::Kept { name, .. } => name,
        }
    }

    /// Its type.
    pub fn kind(&self) -> ValueType {
        match self {
            Self::Field(field) => field.kind(),
            Self::Kept { kind, .. } => *kind,
        }
    }
}

/// Why an attribute or a value is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// A run cannot carry it.
    #[error(
        "search attribute {0} is not registered in this namespace: add it first, or check its spelling"
    )]
    Unknown(String),
    /// Only the engine sets it.
    #[error("search attribute {0} is set by the engine: leave it out")]
    ReadOnly(String),
    /// Not of its type.
    #[error("search attribute {name} takes values of type {wanted}: {why}")]
    WrongType {
        /// Which.
        name: String,
        /// Its type.
        wanted: &'static str,
        /// What came.
        why: String,
    },
    /// Too large or too many.
    #[error("{what} of the search attributes: {found}, at most {max} are allowed")]
    TooLarge {
        /// What is limited.
        what: String,
        /// How much came.
        found: usize,
        /// How much may.
        max: usize,
    },
    /// A name no attribute can have.
    #[error("search attribute name {name:?} is refused: {why}")]
    InvalidName {
        /// As given.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// What a query is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Subject {
    /// Runs, with all that is known of each.
    #[default]
    Runs,
    /// Something that has the attributes it is given, and no others.
    Other,
}

/// The attributes of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalogue {
    custom: BTreeMap<String, ValueType>,
    subject: Subject,
}

impl Catalogue {
    /// With these beside the predefined ones.
    pub fn new(custom: BTreeMap<String, ValueType>) -> Self {
        Self {
            custom,
            subject: Subject::Runs,
        }
    }

    /// Of something else than runs.
    pub fn of_other(attributes: impl IntoIterator<Item = (&'static str, ValueType)>) -> Self {
        let named = attributes.into_iter();
        Self {
            custom: named.map(|(name, kind)| (name.to_owned(), kind)).collect(),
            subject: Subject::Other,
        }
    }

    /// Whether it is of runs.
    pub fn is_of_runs(&self) -> bool {
        self.subject == Subject::Runs
    }

    /// Every name that a query may use.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let system = Self::system().filter(|_| self.is_of_runs());
        let custom = self.custom.keys().map(String::as_str);
        system.map(|(name, _)| name).chain(custom)
    }

    /// One more, or one of another type.
    pub(crate) fn add(&mut self, name: String, kind: ValueType) {
        self.custom.insert(name, kind);
    }

    /// One less.
    pub(crate) fn remove(&mut self, name: &str) {
        self.custom.remove(name);
    }

    /// What the namespace added.
    pub fn custom(&self) -> &BTreeMap<String, ValueType> {
        &self.custom
    }

    /// What is there without being added: fields of every run, and predefined names.
    pub fn system<'a>() -> impl Iterator<Item = (&'a str, ValueType)> {
        let fields = Field::ALL.iter().map(|field| (field.name(), field.kind()));
        fields.chain(PREDEFINED)
    }

    /// The attribute of a name.
    pub fn get(&self, name: &str) -> Option<Attribute> {
        let fields = Field::ALL.iter().filter(|_| self.is_of_runs());
        if let Some(field) = fields.into_iter().find(|field| field.name() == name) {
            return Some(Attribute::Field(*field));
        }
        let kind = self.kept(name)?;
        Some(Attribute::Kept {
            name: name.into(),
            kind,
        })
    }

    fn kept(&self, name: &str) -> Option<ValueType> {
        let predefined = PREDEFINED.iter().filter(|_| self.is_of_runs());
        predefined
            .into_iter()
            .find(|(known, _)| *known == name)
            .map(|(_, kind)| *kind)
            .or_else(|| self.custom.get(name).copied())
    }

    /// Checks a name that a namespace wants to add.
    pub fn check_name(name: &str) -> Result<(), AttributeError> {
        let refuse = |why| {
            Err(AttributeError::InvalidName {
                name: name.to_owned(),
                why,
            })
        };
        if name.is_empty() {
            return refuse("it is empty");
        }
        if name.len() > ID_BYTES_MAX {
            return refuse("it is too long");
        }
        if Self::system().any(|(known, _)| known == name) {
            return refuse("it is predefined, so there is no need to add it");
        }
        if name.starts_with("Temporal") {
            return refuse("names that begin with Temporal are reserved");
        }
        if name.chars().any(|c| c.is_control() || c == '`') {
            return refuse("it holds a control character or a backtick");
        }
        Ok(())
    }

    /// Checks what a start or an upsert gives, and notes the type beside each value, as clients expect to read it back.
    pub fn admit(&self, given: &mut SearchAttributes) -> Result<(), AttributeError> {
        if given.indexed_fields.len() > VALUES_MAX {
            return Err(AttributeError::TooLarge {
                what: "the number".to_owned(),
                found: given.indexed_fields.len(),
                max: VALUES_MAX,
            });
        }
        let mut bytes = 0;
        // In the order of their names, so that the same request is refused for the same reason.
        let mut fields: Vec<_> = given.indexed_fields.iter_mut().collect();
        fields.sort_by(|a, b| a.0.cmp(b.0));
        for (name, payload) in fields {
            if Field::ALL.iter().any(|field| field.name() == name) {
                return Err(AttributeError::ReadOnly(name.clone()));
            }
            let kind = self
                .kept(name)
                .ok_or_else(|| AttributeError::Unknown(name.clone()))?;
            let size = payload.data.len();
            if size > VALUE_BYTES_MAX {
                return Err(AttributeError::TooLarge {
                    what: format!("the bytes of {name}"),
                    found: size,
                    max: VALUE_BYTES_MAX,
                });
            }
            bytes += name.len() + size;
            if !removes(payload) {
                read(kind, payload).map_err(|why| AttributeError::WrongType {
                    name: name.clone(),
                    wanted: kind.name(),
                    why,
                })?;
            }
            payload
                .metadata
                .insert("type".to_owned(), kind.name().as_bytes().to_vec());
        }
        if bytes > VALUES_BYTES_MAX {
            return Err(AttributeError::TooLarge {
                what: "the bytes".to_owned(),
                found: bytes,
                max: VALUES_BYTES_MAX,
            });
        }
        Ok(())
    }
}

/// Whether an upsert of this payload takes the attribute away.
pub fn removes(payload: &Payload) -> bool {
    matches!(&payload.data[..], b"" | b"null" | b"[]")
}

/// The value a payload carries, if it is of this type.
pub fn read(kind: ValueType, payload: &Payload) -> Result<Value, String> {
    if let Some(said) = payload.metadata.get("type")
        && !said.is_empty()
        && said != kind.name().as_bytes()
        // Clients of old versions call a list of keywords by the type of its members.
        && !(kind == ValueType::KeywordList && said == ValueType::Keyword.name().as_bytes())
    {
        return Err(format!(
            "its metadata says {}",
            String::from_utf8_lossy(said)
        ));
    }
    let json: Json =
        serde_json::from_slice(&payload.data).map_err(|e| format!("its data is not JSON: {e}"))?;
    of_json(kind, &json).ok_or_else(|| {
        let mut shown = json.to_string();
        if shown.len() > 60 {
            let cut = (0..=60).rev().find(|at| shown.is_char_boundary(*at));
            shown.truncate(cut.unwrap_or(0));
            shown.push_str("...");
        }
        format!("{shown} is none")
    })
}

fn of_json(kind: ValueType, json: &Json) -> Option<Value> {
    // A list of one is that one, as clients of old versions send them.
    let json = match (kind, json) {
        (ValueType::KeywordList, json) => json,
        (_, Json::Array(items)) if items.len() == 1 => &items[0],
        (_, json) => json,
    };
    Some(match kind {
        ValueType::Text => Value::Text(json.as_str()?.to_owned()),
        ValueType::Keyword => Value::Keyword(json.as_str()?.to_owned()),
        ValueType::Int => Value::Int(json.as_i64()?),
        ValueType::Double => Value::Double(json.as_f64()?),
        ValueType::Bool => Value::Bool(json.as_bool()?),
        ValueType::Datetime => Value::Datetime(instant(json.as_str()?)?),
        ValueType::KeywordList => match json {
            Json::String(one) => Value::KeywordList(vec![one.clone()]),
            Json::Array(items) => {
                let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
                Value::KeywordList(texts.collect::<Option<_>>()?)
            }
            _ => return None,
        },
    })
}

/// Nanoseconds since the Unix epoch of an RFC 3339 text.
pub fn instant(text: &str) -> Option<i64> {
    let at: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(at.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(data: &str) -> Payload {
        Payload {
            metadata: [("encoding".to_owned(), b"json/plain".to_vec())].into(),
            data: data.as_bytes().to_vec(),
            ..Default::default()
        }
    }

    fn catalogue() -> Catalogue {
        let custom = ValueType::ALL.map(|kind| (format!("My{}", kind.name()), kind));
        Catalogue::new(custom.into())
    }

    fn admit(name: &str, data: &str) -> Result<SearchAttributes, AttributeError> {
        let mut given = SearchAttributes {
            indexed_fields: [(name.to_owned(), payload(data))].into(),
        };
        catalogue().admit(&mut given).map(|()| given)
    }

    #[test]
    fn values_are_of_their_type_or_refused() {
        let good = [
            ("MyText", "\"a b\""),
            ("MyKeyword", "\"a\""),
            ("MyKeyword", "[\"a\"]"),
            ("MyInt", "-3"),
            ("MyDouble", "3"),
            ("MyBool", "true"),
            ("MyDatetime", "\"2026-01-02T03:04:05.000000006+02:00\""),
            ("MyKeywordList", "[\"a\",\"b\"]"),
            ("MyKeywordList", "\"a\""),
            ("MyInt", "null"),
            ("MyInt", ""),
            ("BuildIds", "[\"x\"]"),
        ];
        for (name, data) in good {
            let admitted = admit(name, data).unwrap_or_else(|e| panic!("{name} {data}: {e}"));
            let kept = &admitted.indexed_fields[name];
            assert!(kept.metadata.contains_key("type"), "{name}");
        }
        let bad = [
            ("MyText", "1"),
            ("MyKeyword", "[\"a\",\"b\"]"),
            ("MyInt", "1.5"),
            ("MyInt", "9223372036854775808"),
            ("MyDouble", "\"1\""),
            ("MyBool", "1"),
            ("MyDatetime", "\"yesterday\""),
            ("MyDatetime", "5"),
            ("MyKeywordList", "[1]"),
            ("MyKeyword", "{"),
        ];
        for (name, data) in bad {
            let error = admit(name, data).unwrap_err();
            assert!(
                matches!(error, AttributeError::WrongType { .. }),
                "{name} {data}: {error}"
            );
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn unknown_and_engine_set_names_are_refused_by_name() {
        let error = admit("Nowhere", "1").unwrap_err().to_string();
        assert!(
            error.contains("Nowhere") && error.contains("not registered"),
            "{error}"
        );
        assert_eq!(
            admit("RunId", "\"a\""),
            Err(AttributeError::ReadOnly("RunId".to_owned()))
        );
    }

    #[test]
    fn values_are_bounded() {
        let long = format!("\"{}\"", "x".repeat(VALUE_BYTES_MAX));
        assert!(matches!(
            admit("MyKeyword", &long),
            Err(AttributeError::TooLarge { .. })
        ));
    }

    #[test]
    fn a_payload_that_says_another_type_is_refused() {
        let mut lying = payload("\"a\"");
        lying.metadata.insert("type".to_owned(), b"Int".to_vec());
        assert!(read(ValueType::Keyword, &lying).is_err());
        assert!(read(ValueType::Keyword, &payload("\"a\"")).is_ok());
    }

    #[test]
    fn names_that_are_taken_or_reserved_cannot_be_added() {
        for name in ["", "RunId", "BuildIds", "TemporalMine", "a`b", "a\nb"] {
            assert!(Catalogue::check_name(name).is_err(), "{name:?}");
        }
        assert!(Catalogue::check_name("Customer Id").is_ok());
    }
}
