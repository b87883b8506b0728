//! What a JSON Schema says about the values at a place: their types, their members, what they must have.
//!
//! The answers are cautious: a schema that does not tell is taken to allow everything, so that only what can never be right is refused.
//!
//! Invariant: every walk ends: it follows at most [`VISITS_MAX`] subschemas, [`HOPS_MAX`] deep, and takes what lies beyond to be
//! unknown.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde_json::{Map, Value};

use crate::plan::reference::{Segment, index_of};

/// Subschemas that one question looks at.
const VISITS_MAX: u32 = 10_000;
/// Subschemas of subschemas, references included, that it follows for one value.
const HOPS_MAX: u32 = 100;
/// How deep two schemas are compared.
const COMPARED_DEPTH_MAX: usize = 4;

static ANYTHING: Value = Value::Bool(true);

/// A set of JSON types. Whole numbers and other numbers are told apart: `number` is both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeSet(u8);

impl TypeSet {
    /// No value at all.
    pub const NONE: Self = Self(0);
    /// `null`.
    pub const NULL: Self = Self(1);
    /// `true` and `false`.
    pub const BOOLEAN: Self = Self(2);
    /// Objects.
    pub const OBJECT: Self = Self(4);
    /// Arrays.
    pub const ARRAY: Self = Self(8);
    /// Strings.
    pub const STRING: Self = Self(16);
    /// Whole numbers.
    pub const INTEGER: Self = Self(32);
    /// All numbers.
    pub const NUMBER: Self = Self(96);
    /// Any value.
    pub const ALL: Self = Self(127);

    /// The type of a value.
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::NULL,
            Value::Bool(_) => Self::BOOLEAN,
            Value::Object(_) => Self::OBJECT,
            Value::Array(_) => Self::ARRAY,
            Value::String(_) => Self::STRING,
            Value::Number(number)
                if number.is_f64() && number.as_f64().is_some_and(|n| n.fract() != 0.0) =>
            {
                Self(64)
            }
            Value::Number(_) => Self::INTEGER,
        }
    }

    /// A type by its name in JSON Schema.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "null" => Some(Self::NULL),
            "boolean" => Some(Self::BOOLEAN),
            "object" => Some(Self::OBJECT),
            "array" => Some(Self::ARRAY),
            "string" => Some(Self::STRING),
            "integer" => Some(Self::INTEGER),
            "number" => Some(Self::NUMBER),
            _ => None,
        }
    }

    /// What is in both.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in one of them.
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether some value is of both.
    pub fn meets(self, other: Self) -> bool {
        self.and(other) != Self::NONE
    }
}

impl fmt::Display for TypeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ALL => return f.write_str("anything"),
            Self::NONE => return f.write_str("nothing"),
            _ => {}
        }
        let number = if self.and(Self::NUMBER) == Self::INTEGER {
            Self::INTEGER
        } else {
            Self::NUMBER
        };
        let names = [
            (Self::STRING, "string"),
            (
                number,
                if number == Self::INTEGER {
                    "integer"
                } else {
                    "number"
                },
            ),
            (Self::BOOLEAN, "boolean"),
            (Self::OBJECT, "object"),
            (Self::ARRAY, "array"),
            (Self::NULL, "null"),
        ];
        let named: Vec<_> = names
            .into_iter()
            .filter(|(set, _)| self.meets(*set))
            .map(|(_, name)| name)
            .collect();
        f.write_str(&named.join(" or "))
    }
}

/// What a schema says about a place in its values.
#[derive(Debug, Clone, PartialEq)]
pub enum Place<'a> {
    /// The value there follows one of these schemas.
    Known(Vec<&'a Value>),
    /// There is no such place.
    Closed,
    /// The schema does not say.
    Open,
}

/// A schema with the root that its references start from.
#[derive(Debug, Clone, Copy)]
pub struct Schema<'a> {
    root: &'a Value,
    at: &'a Value,
    hops: u32,
}

impl<'a> Schema<'a> {
    /// A whole schema.
    pub fn root(root: &'a Value) -> Self {
        Self::within(root, root)
    }

    /// A part of the schema that begins at `root`.
    pub fn within(root: &'a Value, at: &'a Value) -> Self {
        Self { root, at, hops: 0 }
    }

    fn part(self, at: &'a Value) -> Self {
        Self {
            root: self.root,
            at,
            hops: self.hops + 1,
        }
    }

    /// As the only alternative.
    pub fn any_of(self) -> AnyOf<'a> {
        AnyOf {
            root: self.root,
            schemas: vec![self.at],
        }
    }

    /// The types its values may have.
    pub fn types(self) -> TypeSet {
        self.types_within(&Cell::new(VISITS_MAX))
    }

    fn types_within(self, visits: &Cell<u32>) -> TypeSet {
        let Some(keywords) = self.enter(visits) else {
            return if self.at == &Value::Bool(false) {
                TypeSet::NONE
            } else {
                TypeSet::ALL
            };
        };
        let mut types = match keywords.get("type") {
            Some(Value::String(name)) => TypeSet::named(name).unwrap_or(TypeSet::ALL),
            Some(Value::Array(names)) => names
                .iter()
                .filter_map(|name| TypeSet::named(name.as_str()?))
                .fold(TypeSet::NONE, TypeSet::or),
            _ => TypeSet::ALL,
        };
        if let Some(value) = keywords.get("const") {
            types = types.and(TypeSet::of(value));
        }
        if let Some(Value::Array(values)) = keywords.get("enum") {
            types = types.and(
                values
                    .iter()
                    .map(TypeSet::of)
                    .fold(TypeSet::NONE, TypeSet::or),
            );
        }
        for part in self.every(keywords) {
            types = types.and(part.types_within(visits));
        }
        for alternatives in self.choices(keywords) {
            types = types.and(
                alternatives
                    .map(|part| part.types_within(visits))
                    .fold(TypeSet::NONE, TypeSet::or),
            );
        }
        types
    }

    /// The members that its objects must have, in the order the schema lists them.
    pub fn required(self) -> Vec<&'a str> {
        let mut names = Vec::new();
        self.required_within(&Cell::new(VISITS_MAX), &mut names);
        let mut seen = HashSet::new();
        names.retain(|name| seen.insert(*name));
        names
    }

    fn required_within(self, visits: &Cell<u32>, names: &mut Vec<&'a str>) {
        let Some(keywords) = self.enter(visits) else {
            return;
        };
        if let Some(Value::Array(required)) = keywords.get("required") {
            names.extend(required.iter().filter_map(Value::as_str));
        }
        for part in self.every(keywords) {
            part.required_within(visits, names);
        }
    }

    /// The members it names, with their schemas, in its order.
    pub fn properties(self) -> Vec<(&'a str, Schema<'a>)> {
        let mut found = Vec::new();
        self.properties_within(&Cell::new(VISITS_MAX), &mut found);
        let mut seen = HashSet::new();
        found.retain(|(name, _)| seen.insert(*name));
        found
    }

    fn properties_within(self, visits: &Cell<u32>, found: &mut Vec<(&'a str, Schema<'a>)>) {
        let Some(keywords) = self.enter(visits) else {
            return;
        };
        if let Some(Value::Object(properties)) = keywords.get("properties") {
            let properties = properties.iter();
            found.extend(
                properties
                    .map(|(name, property)| (name.as_str(), Self::within(self.root, property))),
            );
        }
        for part in self.every(keywords) {
            part.properties_within(visits, found);
        }
    }

    /// What it says about the place at the end of a path.
    pub fn at(self, path: &[Segment]) -> Place<'a> {
        place_at(self.root, vec![self.at], path)
    }

    /// The first value that a `const`, a `default` or an `enum` of one gives, following references.
    pub fn keyword(self, name: &str) -> Option<&'a Value> {
        let mut schema = self;
        for _ in 0..COMPARED_DEPTH_MAX {
            let keywords = schema.at.as_object()?;
            if let Some(value) = keywords.get(name) {
                return Some(value);
            }
            schema = schema.part(target(self.root, keywords.get("$ref")?)?);
        }
        None
    }

    fn enter(self, visits: &Cell<u32>) -> Option<&'a Map<String, Value>> {
        visits.set(visits.get().checked_sub(1)?);
        if self.hops > HOPS_MAX {
            return None;
        }
        self.at.as_object()
    }

    /// The schemas that apply together with this one.
    fn every(self, keywords: &'a Map<String, Value>) -> impl Iterator<Item = Schema<'a>> {
        let referred = keywords
            .get("$ref")
            .map(|reference| target(self.root, reference).unwrap_or(&ANYTHING));
        let all = keywords
            .get("allOf")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        referred
            .into_iter()
            .chain(all)
            .map(move |part| self.part(part))
    }

    /// For each keyword that offers alternatives, those.
    fn choices(
        self,
        keywords: &'a Map<String, Value>,
    ) -> impl Iterator<Item = impl Iterator<Item = Schema<'a>>> {
        ["anyOf", "oneOf"]
            .into_iter()
            .filter_map(|keyword| keywords.get(keyword)?.as_array())
            .map(move |parts| parts.iter().map(move |part| self.part(part)))
    }

    fn step(self, segment: &Segment, visits: &Cell<u32>) -> Step<'a> {
        let Some(keywords) = self.enter(visits) else {
            return if self.at == &Value::Bool(false) {
                Step::Closed
            } else {
                Step::Open
            };
        };
        let mut result = own_step(keywords, segment);
        for part in self.every(keywords) {
            result = result.both(part.step(segment, visits));
        }
        for alternatives in self.choices(keywords) {
            let container = container(segment);
            let steps = alternatives
                .filter(|part| part.types_within(visits).meets(container))
                .map(|part| part.step(segment, visits))
                .collect();
            result = result.both(Step::either(steps));
        }
        for keyword in ["then", "else"] {
            if let (Some(branch), false) = (keywords.get(keyword), matches!(result, Step::Known(_)))
            {
                match self.part(branch).step(segment, visits) {
                    Step::Known(mut schemas) => {
                        schemas.push(&ANYTHING);
                        result = Step::Known(schemas);
                    }
                    Step::Open => result = Step::Open,
                    Step::Closed | Step::Silent => {}
                }
            }
        }
        result
    }
}

/// The types of value that a step can be taken in.
fn container(segment: &Segment) -> TypeSet {
    match segment {
        Segment::Index(_) => TypeSet::ARRAY,
        Segment::Field(name) if index_of(name).is_some() => TypeSet::ARRAY.or(TypeSet::OBJECT),
        Segment::Field(_) => TypeSet::OBJECT,
    }
}

/// What one of several schemas says about the place at the end of a path.
fn place_at<'a>(root: &'a Value, start: Vec<&'a Value>, path: &[Segment]) -> Place<'a> {
    let visits = Cell::new(VISITS_MAX);
    let mut schemas = start;
    for segment in path {
        let container = container(segment);
        let steps = schemas
            .iter()
            .map(|at| Schema::within(root, at))
            .filter(|schema| schema.types_within(&visits).meets(container))
            .map(|schema| schema.step(segment, &visits))
            .collect();
        match Step::either(steps) {
            Step::Known(found) => schemas = found,
            Step::Closed => return Place::Closed,
            Step::Open | Step::Silent => return Place::Open,
        }
    }
    Place::Known(schemas)
}

/// What one schema says about one step.
enum Step<'a> {
    Known(Vec<&'a Value>),
    Closed,
    Open,
    /// It has nothing to say; another part of the schema may.
    Silent,
}

impl<'a> Step<'a> {
    /// Both schemas apply.
    fn both(self, other: Self) -> Self {
        match (self, other) {
            (Self::Known(mut schemas), Self::Known(more)) => {
                schemas.extend(more);
                Self::Known(schemas)
            }
            (Self::Known(schemas), _) | (_, Self::Known(schemas)) => Self::Known(schemas),
            (Self::Open, _) | (_, Self::Open) => Self::Open,
            (Self::Closed, _) | (_, Self::Closed) => Self::Closed,
            (Self::Silent, Self::Silent) => Self::Silent,
        }
    }

    /// One of the schemas applies.
    fn either(steps: Vec<Self>) -> Self {
        let (mut known, mut closed, mut open, mut silent) = (Vec::new(), false, false, false);
        for step in steps {
            match step {
                Self::Known(schemas) => known.extend(schemas),
                Self::Closed => closed = true,
                Self::Open => open = true,
                Self::Silent => silent = true,
            }
        }
        if !known.is_empty() {
            if open || silent {
                known.push(&ANYTHING);
            }
            Self::Known(known)
        } else if open || (silent && closed) {
            Self::Open
        } else if silent {
            Self::Silent
        } else {
            Self::Closed
        }
    }
}

fn own_step<'a>(keywords: &'a Map<String, Value>, segment: &Segment) -> Step<'a> {
    match segment {
        Segment::Index(index) => own_item(keywords, *index),
        Segment::Field(name) => match (own_member(keywords, name), index_of(name)) {
            (Step::Closed | Step::Silent, Some(index)) if allows_array(keywords) => {
                own_item(keywords, index)
            }
            (step, _) => step,
        },
    }
}

fn allows_array(keywords: &Map<String, Value>) -> bool {
    match keywords.get("type") {
        Some(Value::String(name)) => name == "array",
        Some(Value::Array(names)) => names.iter().any(|name| name == "array"),
        _ => !keywords.contains_key("properties"),
    }
}

fn own_member<'a>(keywords: &'a Map<String, Value>, name: &str) -> Step<'a> {
    let properties = keywords.get("properties").and_then(Value::as_object);
    if let Some(schema) = properties.and_then(|properties| properties.get(name)) {
        return Step::Known(vec![schema]);
    }
    if keywords
        .get("patternProperties")
        .and_then(Value::as_object)
        .is_some_and(|patterns| !patterns.is_empty())
    {
        return Step::Open;
    }
    match keywords
        .get("additionalProperties")
        .or_else(|| keywords.get("unevaluatedProperties"))
    {
        Some(Value::Bool(false)) => Step::Closed,
        Some(Value::Bool(true)) => Step::Open,
        Some(schema) => Step::Known(vec![schema]),
        None if properties.is_some() => Step::Closed,
        None => Step::Silent,
    }
}

fn own_item<'a>(keywords: &'a Map<String, Value>, index: usize) -> Step<'a> {
    let (listed, rest) = match keywords.get("items") {
        Some(Value::Array(listed)) => (Some(listed), keywords.get("additionalItems")),
        rest => (keywords.get("prefixItems").and_then(Value::as_array), rest),
    };
    match (listed.and_then(|listed| listed.get(index)), rest) {
        (Some(schema), _) => Step::Known(vec![schema]),
        (None, Some(Value::Bool(false))) => Step::Closed,
        (None, Some(schema)) => Step::Known(vec![schema]),
        (None, None) => Step::Silent,
    }
}

/// What a `$ref` within the same schema points at.
pub(super) fn target<'a>(root: &'a Value, reference: &Value) -> Option<&'a Value> {
    let pointer = reference.as_str()?.strip_prefix('#')?;
    root.pointer(&percent_decoded(pointer)?)
}

fn percent_decoded(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

/// Schemas of which a value follows one, with the root that their references start from.
#[derive(Debug, Clone)]
pub struct AnyOf<'a> {
    /// Where references start.
    pub root: &'a Value,
    /// The alternatives.
    pub schemas: Vec<&'a Value>,
}

impl<'a> AnyOf<'a> {
    /// The types its values may have.
    pub fn types(&self) -> TypeSet {
        self.parts()
            .map(Schema::types)
            .fold(TypeSet::NONE, TypeSet::or)
    }

    fn parts(&self) -> impl Iterator<Item = Schema<'a>> + '_ {
        self.schemas.iter().map(|at| Schema::within(self.root, at))
    }

    fn place(&self, path: &[Segment]) -> Place<'a> {
        place_at(self.root, self.schemas.clone(), path)
    }

    /// Its values in a few words: `integer`, `array of string or null`.
    pub fn describe(&self) -> String {
        let types = self.types();
        if types == TypeSet::ARRAY
            && let Place::Known(schemas) = self.place(&[Segment::Index(0)])
        {
            let items = AnyOf {
                root: self.root,
                schemas,
            }
            .types();
            if items != TypeSet::ALL {
                return format!("array of {items}");
            }
        }
        types.to_string()
    }

    /// Whether some value follows both. Only a certain no is `false`.
    pub fn overlaps(&self, other: &AnyOf<'_>) -> bool {
        self.overlaps_within(other, COMPARED_DEPTH_MAX)
    }

    /// Whether a value that follows `self` may serve where `wanted` is asked for: as `overlaps`, and objects that certainly lack a
    /// member that is required do not.
    fn overlaps_within(&self, wanted: &AnyOf<'_>, depth: usize) -> bool {
        let types = self.types().and(wanted.types());
        if types == TypeSet::NONE {
            return false;
        }
        if depth == 0 {
            return true;
        }
        let (ours, theirs) = (self.root, wanted.root);
        let overlap = |path: &[Segment]| match (self.place(path), wanted.place(path)) {
            (Place::Known(a), Place::Known(b)) => AnyOf {
                root: ours,
                schemas: a,
            }
            .overlaps_within(
                &AnyOf {
                    root: theirs,
                    schemas: b,
                },
                depth - 1,
            ),
            (Place::Closed, _) => false,
            _ => true,
        };
        match types {
            TypeSet::ARRAY => {
                // An item that the offered array cannot have is no objection: arrays may be empty.
                matches!(self.place(&[Segment::Index(0)]), Place::Closed)
                    || overlap(&[Segment::Index(0)])
            }
            TypeSet::OBJECT => match wanted.schemas.as_slice() {
                [only] => Schema::within(theirs, only)
                    .required()
                    .into_iter()
                    .all(|name| overlap(&[Segment::Field(name.to_owned())])),
                _ => true,
            },
            _ => true,
        }
    }
}
