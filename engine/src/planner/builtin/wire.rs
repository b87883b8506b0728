//! Where the inputs of services come from.
//!
//! A required input is filled by the first of these that fits its type:
//!
//! 1. a parameter of its name, then a value of its name that another service returns;
//! 2. a parameter, then a value, whose name has the same words in another form (`customer_id` for `customerId`), or whose service's name
//!    has the missing ones (`id` of `product-catalog` for `productId`);
//! 3. the one value of an enum that the action mentions;
//! 4. the one parameter, then the one value of a service that is asked for, whose name is most alike (`total` for `amount`);
//! 5. for an object: its own required members, each in the same way;
//! 6. for an instruction or a question: the action itself; else the schema's default;
//! 7. if it is the only one still empty: the only unused parameter that fits, the only quoted text, the only number of the action.
//!
//! A service that gives a value is pulled in when it can be wired itself; for a name as common as `status` only when it is asked for.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::choose::{Output, Profile, Wanted};
use super::words::{is_generic, likeness, same_stems, stems_of_name, words};
use crate::plan::Parameter;
use crate::plan::reference::{Reference, Segment, TASK_ZERO, escape, is_task_zero};
use crate::plan::schema::{Schema, TypeSet};

/// How many services are tried for one action.
const STEPS_MAX: usize = 2_000;
/// How long a chain of services that are pulled in may be.
const CHAIN_MAX: usize = 12;
/// How deep objects are built.
const OBJECT_DEPTH_MAX: usize = 3;
/// How alike two names must be.
const LIKENESS_MIN: f64 = 0.5;
/// Inputs that take what a person said.
const SPOKEN: &[&str] = &[
    "action",
    "instruction",
    "instructions",
    "prompt",
    "query",
    "question",
    "request",
    "goal",
    "task",
];

/// What is put into an input.
#[derive(Debug, Clone, PartialEq)]
enum Filling {
    Parameter(String),
    Output { service: usize, path: Vec<Segment> },
    Literal(Value),
    Object(Vec<(String, Filling)>),
}

/// A service with its inputs filled.
#[derive(Debug, Clone)]
struct Node {
    service: usize,
    inputs: Vec<(String, Filling)>,
}

/// An input that nothing fills, and why the service that could have filled it does not.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Gap {
    service: String,
    input: String,
    expected: String,
    behind: Option<Box<Gap>>,
}

impl Gap {
    /// In one sentence.
    pub(super) fn describe(&self) -> String {
        let Self {
            service,
            input,
            expected,
            behind,
        } = self;
        let needs = format!("`{service}` needs `{input}` ({expected})");
        match behind {
            None => format!("{needs}, and neither the data nor another service gives it"),
            Some(gap) => format!(
                "{needs}, which `{}` could give, but {}",
                gap.service,
                gap.describe()
            ),
        }
    }
}

/// The wiring so far.
pub(super) struct Wiring<'a> {
    profiles: &'a [Profile<'a>],
    scores: &'a [f64],
    wanted: &'a [Wanted],
    data: &'a [Parameter],
    action: &'a str,
    /// Each needs only ones before it.
    nodes: Vec<Node>,
    steps_left: usize,
}

/// One input to fill.
#[derive(Clone, Copy)]
struct Slot<'a> {
    service: usize,
    /// The input of the service itself; the value is somewhere in it.
    member: &'a str,
    name: &'a str,
    schema: Schema<'a>,
    depth: usize,
}

impl<'a> Wiring<'a> {
    pub(super) fn new(
        profiles: &'a [Profile<'a>],
        scores: &'a [f64],
        wanted: &'a [Wanted],
        data: &'a [Parameter],
        action: &'a str,
    ) -> Self {
        Self {
            profiles,
            scores,
            wanted,
            data,
            action,
            nodes: Vec::new(),
            steps_left: STEPS_MAX,
        }
    }

    /// Whether any service is wired.
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds a service and those it needs; on failure nothing is added.
    pub(super) fn add(&mut self, service: usize) -> Result<(), Gap> {
        self.add_within(service, &mut Vec::new())
    }

    fn add_within(&mut self, service: usize, chain: &mut Vec<usize>) -> Result<(), Gap> {
        if self.nodes.iter().any(|node| node.service == service) {
            return Ok(());
        }
        let known = self.nodes.len();
        chain.push(service);
        let inputs = self.fill_all(service, chain);
        chain.pop();
        match inputs {
            Ok(inputs) => {
                self.nodes.push(Node { service, inputs });
                Ok(())
            }
            Err(gap) => {
                self.nodes.truncate(known);
                Err(gap)
            }
        }
    }

    fn fill_all(
        &mut self,
        service: usize,
        chain: &mut Vec<usize>,
    ) -> Result<Vec<(String, Filling)>, Gap> {
        let schema = Schema::root(&self.profiles[service].service.input_schema);
        let properties = schema.properties();
        let mut filled = Vec::new();
        let mut empty = Vec::new();
        for name in schema.required() {
            let Some((_, part)) = properties.iter().find(|(property, _)| *property == name) else {
                continue;
            };
            let slot = Slot {
                service,
                member: name,
                name,
                schema: *part,
                depth: 0,
            };
            match self.fill(slot, chain) {
                Ok(filling) => filled.push((name.to_owned(), filling)),
                Err(gap) => empty.push((slot, gap)),
            }
        }
        let slots: Vec<_> = empty.iter().map(|(slot, _)| *slot).collect();
        for (slot, gap) in empty {
            let filling = self.last_resort(slot, &slots, &filled).ok_or(gap)?;
            filled.push((slot.name.to_owned(), filling));
        }
        Ok(filled)
    }

    fn fill(&mut self, slot: Slot<'a>, chain: &mut Vec<usize>) -> Result<Filling, Gap> {
        let mut gap = Gap {
            service: self.profiles[slot.service].service.name.clone(),
            input: slot.name.to_owned(),
            expected: slot.schema.any_of().describe(),
            behind: None,
        };
        if let Some(value) = slot.schema.keyword("const") {
            return Ok(Filling::Literal(self.literal(value)));
        }
        let stems = stems_of_name(slot.name);
        let own_name = |output: &Output<'_>, _: &Profile<'_>| output.name == slot.name;
        let own_stems = |output: &Output<'_>, provider: &Profile<'_>| {
            same_stems(&output.stems, &stems) || is_qualified(&output.stems, &provider.name, &stems)
        };
        if let Some(filling) = self.parameter(slot, &|name| name == slot.name) {
            return Ok(filling);
        }
        if let Some(filling) = self.output(slot, chain, &mut gap, &own_name) {
            return Ok(filling);
        }
        let own = &self.profiles[slot.service].name;
        let like = |name: &str| {
            let parameter = stems_of_name(name);
            same_stems(&parameter, &stems) || is_qualified(&stems, own, &parameter)
        };
        if let Some(filling) = self.parameter(slot, &like) {
            return Ok(filling);
        }
        if let Some(filling) = self.output(slot, chain, &mut gap, &own_stems) {
            return Ok(filling);
        }
        let others = [
            Self::mentioned,
            Self::alike_parameter,
            Self::alike_output,
            Self::object,
            Self::spoken,
        ];
        others
            .into_iter()
            .find_map(|other| other(self, slot, chain))
            .ok_or(gap)
    }

    /// A parameter of a fitting name.
    fn parameter(&self, slot: Slot<'a>, fits: &dyn Fn(&str) -> bool) -> Option<Filling> {
        let fitting = self
            .data
            .iter()
            .find(|parameter| fits(&parameter.field) && self.takes(slot, &parameter.value));
        fitting.map(|parameter| Filling::Parameter(parameter.field.clone()))
    }

    fn takes(&self, slot: Slot<'a>, value: &Value) -> bool {
        if slot.depth == 0 {
            self.profiles[slot.service].takes(slot.member, value)
        } else {
            slot.schema.types().meets(TypeSet::of(value))
        }
    }

    /// A value of a fitting name that another service returns; the service is pulled in if it is not there.
    fn output(
        &mut self,
        slot: Slot<'a>,
        chain: &mut Vec<usize>,
        gap: &mut Gap,
        fits: &dyn Fn(&Output<'_>, &Profile<'_>) -> bool,
    ) -> Option<Filling> {
        let profiles = self.profiles;
        let wanted = slot.schema.any_of();
        let is_common = stems_of_name(slot.name).iter().all(|stem| is_generic(stem));
        for provider in self.providers(chain, !is_common) {
            let profile = &profiles[provider];
            let fitting =
                |output: &&Output<'_>| fits(output, profile) && output.schema.overlaps(&wanted);
            let Some(output) = profile.outputs.iter().find(fitting) else {
                continue;
            };
            if chain.len() >= CHAIN_MAX || self.steps_left == 0 {
                return None;
            }
            self.steps_left -= 1;
            match self.add_within(provider, chain) {
                Ok(()) => {
                    return Some(Filling::Output {
                        service: provider,
                        path: output.path.clone(),
                    });
                }
                Err(missing) => {
                    gap.behind.get_or_insert(Box::new(missing));
                }
            }
        }
        None
    }

    /// Services that may give a value: those that are wired, those that are asked for, and, if they may be pulled in, all others, the
    /// ones that the action says most about first.
    fn providers(&self, chain: &[usize], pull_in: bool) -> Vec<usize> {
        let mut providers: Vec<_> = self.nodes.iter().map(|node| node.service).collect();
        providers.extend(self.wanted.iter().map(|wanted| wanted.service));
        if pull_in {
            let mut others: Vec<_> = (0..self.profiles.len()).collect();
            others.sort_by(|&a, &b| self.scores[b].total_cmp(&self.scores[a]).then(a.cmp(&b)));
            providers.extend(others);
        }
        let mut seen: BTreeSet<_> = chain.iter().copied().collect();
        providers.retain(|&provider| seen.insert(provider));
        providers
    }

    /// The one value of an enum that the action mentions.
    fn mentioned(&mut self, slot: Slot<'a>, _: &mut Vec<usize>) -> Option<Filling> {
        let values = slot.schema.keyword("enum")?.as_array()?;
        let said = words(self.action);
        let is_said = |value: &&Value| {
            let value = value.as_str().map(words).unwrap_or_default();
            !value.is_empty() && said.windows(value.len()).any(|window| window == value)
        };
        let [only] = values.iter().filter(is_said).collect::<Vec<_>>()[..] else {
            return None;
        };
        Some(Filling::Literal(self.literal(only)))
    }

    /// The one parameter whose name is most alike, unless another input of the service has that name.
    fn alike_parameter(&mut self, slot: Slot<'a>, _: &mut Vec<usize>) -> Option<Filling> {
        let stems = stems_of_name(slot.name);
        let properties =
            Schema::root(&self.profiles[slot.service].service.input_schema).properties();
        let of_another = |name: &str| {
            let parameter = stems_of_name(name);
            properties.iter().any(|(other, _)| {
                *other != slot.member && same_stems(&stems_of_name(other), &parameter)
            })
        };
        let candidates = self
            .data
            .iter()
            .filter(|p| !of_another(&p.field) && self.takes(slot, &p.value));
        let best = single_best(candidates, |parameter| {
            likeness(&stems, &stems_of_name(&parameter.field))
        })?;
        Some(Filling::Parameter(best.field.clone()))
    }

    /// The one value whose name is most alike, of the first service that is wired or asked for and has the most alike one.
    fn alike_output(&mut self, slot: Slot<'a>, chain: &mut Vec<usize>) -> Option<Filling> {
        let (profiles, stems, wanted) = (
            self.profiles,
            stems_of_name(slot.name),
            slot.schema.any_of(),
        );
        let mut found: Vec<(f64, usize, &Output<'_>)> = Vec::new();
        for provider in self.providers(chain, false) {
            let fitting = profiles[provider]
                .outputs
                .iter()
                .filter(|output| output.schema.overlaps(&wanted));
            if let Some(output) = single_best(fitting, |output| likeness(&stems, &output.stems)) {
                found.push((likeness(&stems, &output.stems), provider, output));
            }
        }
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (_, provider, output) in found {
            if chain.len() >= CHAIN_MAX || self.steps_left == 0 {
                return None;
            }
            self.steps_left -= 1;
            if self.add_within(provider, chain).is_ok() {
                return Some(Filling::Output {
                    service: provider,
                    path: output.path.clone(),
                });
            }
        }
        None
    }

    /// An object of which every required member can be filled.
    fn object(&mut self, slot: Slot<'a>, chain: &mut Vec<usize>) -> Option<Filling> {
        let properties = slot.schema.properties();
        if slot.depth >= OBJECT_DEPTH_MAX
            || properties.is_empty()
            || !slot.schema.types().meets(TypeSet::OBJECT)
        {
            return None;
        }
        let required = slot.schema.required();
        let known = self.nodes.len();
        let mut members = Vec::new();
        for (name, schema) in properties {
            let member = Slot {
                name,
                schema,
                depth: slot.depth + 1,
                ..slot
            };
            if required.contains(&name) {
                match self.fill(member, chain) {
                    Ok(filling) => members.push((name.to_owned(), filling)),
                    Err(_) => {
                        self.nodes.truncate(known);
                        return None;
                    }
                }
            } else if let Some(filling) = self.parameter(member, &|parameter| parameter == name) {
                members.push((name.to_owned(), filling));
            }
        }
        (!members.is_empty()).then_some(Filling::Object(members))
    }

    /// The action itself for an instruction, or the default of the schema.
    fn spoken(&mut self, slot: Slot<'a>, _: &mut Vec<usize>) -> Option<Filling> {
        if SPOKEN.contains(&slot.name) && self.takes(slot, &Value::from(self.action)) {
            return Some(Filling::Literal(self.literal(&Value::from(self.action))));
        }
        slot.schema
            .keyword("default")
            .map(|value| Filling::Literal(self.literal(value)))
    }

    /// What is left for an input when it is the only empty one of its kind.
    fn last_resort(
        &self,
        slot: Slot<'a>,
        empty: &[Slot<'a>],
        filled: &[(String, Filling)],
    ) -> Option<Filling> {
        if let [_] = empty {
            let mut used = self.used();
            filled
                .iter()
                .for_each(|(_, filling)| note_used(filling, &mut used));
            let unused = |parameter: &&Parameter| {
                !used.contains(&parameter.field) && self.takes(slot, &parameter.value)
            };
            if let [only] = self.data.iter().filter(unused).collect::<Vec<_>>()[..] {
                return Some(Filling::Parameter(only.field.clone()));
            }
        }
        let value_of = |kind: TypeSet, values: Vec<Value>| match &values[..] {
            [only] if slot.schema.types().meets(kind) && self.takes(slot, only) => {
                let alone = empty
                    .iter()
                    .filter(|other| other.schema.types().meets(kind))
                    .count()
                    == 1;
                alone.then(|| Filling::Literal(self.literal(only)))
            }
            _ => None,
        };
        value_of(TypeSet::STRING, quoted_texts(self.action))
            .or_else(|| value_of(TypeSet::NUMBER, numbers(self.action)))
    }

    /// A literal that is no reference, whatever it holds.
    fn literal(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(escape(text, &is_task_zero)),
            Value::Array(items) => {
                Value::Array(items.iter().map(|item| self.literal(item)).collect())
            }
            Value::Object(members) => Value::Object(
                members
                    .iter()
                    .map(|(name, member)| (name.clone(), self.literal(member)))
                    .collect(),
            ),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    /// Fills optional inputs: with parameters of their name, and with values of their name that services before return.
    pub(super) fn fill_optional(&mut self) {
        for at in 0..self.nodes.len() {
            for (name, schema) in self.empty_inputs(at) {
                let slot = Slot {
                    service: self.nodes[at].service,
                    member: name,
                    name,
                    schema,
                    depth: 0,
                };
                let stems = stems_of_name(name);
                let filling = self
                    .parameter(slot, &|parameter| parameter == name)
                    .or_else(|| {
                        self.parameter(slot, &|parameter| {
                            same_stems(&stems_of_name(parameter), &stems)
                        })
                    })
                    .or_else(|| self.earlier_output(slot, at));
                if let Some(filling) = filling {
                    self.nodes[at].inputs.push((name.to_owned(), filling));
                }
            }
        }
    }

    fn earlier_output(&self, slot: Slot<'a>, at: usize) -> Option<Filling> {
        if stems_of_name(slot.name).iter().all(|stem| is_generic(stem)) {
            return None;
        }
        let wanted = slot.schema.any_of();
        self.nodes[..at].iter().find_map(|node| {
            let outputs = &self.profiles[node.service].outputs;
            let output = outputs
                .iter()
                .find(|output| output.name == slot.name && output.schema.overlaps(&wanted))?;
            Some(Filling::Output {
                service: node.service,
                path: output.path.clone(),
            })
        })
    }

    fn empty_inputs(&self, at: usize) -> Vec<(&'a str, Schema<'a>)> {
        let node = &self.nodes[at];
        let properties =
            Schema::root(&self.profiles[node.service].service.input_schema).properties();
        properties
            .into_iter()
            .filter(|(name, _)| !node.inputs.iter().any(|(filled, _)| filled == name))
            .collect()
    }

    /// Finds a use for parameters that have none: a further service that the action speaks of, or an optional input of a name that is
    /// alike. Gives those that remain.
    pub(super) fn use_rest(&mut self) -> Vec<&'a str> {
        for parameter in self.data {
            if self.used().contains(&parameter.field) {
                continue;
            }
            let stems = stems_of_name(&parameter.field);
            let mut takers: Vec<_> = (0..self.profiles.len())
                .filter(|&at| self.scores[at] > 0.0 && self.has_input(at, parameter))
                .collect();
            takers.sort_by(|&a, &b| self.scores[b].total_cmp(&self.scores[a]).then(a.cmp(&b)));
            for taker in takers {
                if !self.nodes.iter().any(|node| node.service == taker) && self.add(taker).is_ok() {
                    self.fill_optional();
                    break;
                }
            }
            if self.used().contains(&parameter.field) {
                continue;
            }
            let slots: Vec<_> = (0..self.nodes.len())
                .flat_map(|at| {
                    self.empty_inputs(at)
                        .into_iter()
                        .map(move |(name, schema)| (at, name, schema))
                })
                .filter(|(at, name, _)| {
                    self.profiles[self.nodes[*at].service].takes(name, &parameter.value)
                })
                .collect();
            let best = single_best(slots.iter(), |(_, name, _)| {
                likeness(&stems, &stems_of_name(name))
            });
            if let Some((at, name, _)) = best {
                let filling = Filling::Parameter(parameter.field.clone());
                self.nodes[*at].inputs.push(((*name).to_owned(), filling));
            }
        }
        let used = self.used();
        self.data
            .iter()
            .map(|parameter| parameter.field.as_str())
            .filter(|field| !used.contains(*field))
            .collect()
    }

    fn has_input(&self, service: usize, parameter: &Parameter) -> bool {
        let profile = &self.profiles[service];
        let stems = stems_of_name(&parameter.field);
        Schema::root(&profile.service.input_schema)
            .properties()
            .into_iter()
            .any(|(name, _)| {
                (name == parameter.field || same_stems(&stems_of_name(name), &stems))
                    && profile.takes(name, &parameter.value)
            })
    }

    fn used(&self) -> BTreeSet<String> {
        let mut used = BTreeSet::new();
        let fillings = self.nodes.iter().flat_map(|node| &node.inputs);
        fillings.for_each(|(_, filling)| note_used(filling, &mut used));
        used
    }

    /// The services in an order in which they can run, each with its input; `id` names the task of a service.
    pub(super) fn into_inputs(
        self,
        id: &dyn Fn(usize) -> String,
    ) -> Vec<(usize, Map<String, Value>)> {
        let position = |service: usize| {
            self.nodes
                .iter()
                .position(|node| node.service == service)
                .unwrap_or(0)
        };
        let input = |node: &Node| -> Map<String, Value> {
            node.inputs
                .iter()
                .map(|(name, filling)| (name.clone(), written(filling, &position, id)))
                .collect()
        };
        self.nodes
            .iter()
            .map(|node| (node.service, input(node)))
            .collect()
    }
}

fn written(
    filling: &Filling,
    position: &dyn Fn(usize) -> usize,
    id: &dyn Fn(usize) -> String,
) -> Value {
    let refer =
        |task: String, path: Vec<Segment>| Value::String(Reference { task, path }.to_string());
    match filling {
        Filling::Parameter(field) => {
            refer(TASK_ZERO.to_owned(), vec![Segment::Field(field.clone())])
        }
        Filling::Output { service, path } => refer(id(position(*service)), path.clone()),
        Filling::Literal(value) => value.clone(),
        Filling::Object(members) => Value::Object(
            members
                .iter()
                .map(|(name, filling)| (name.clone(), written(filling, position, id)))
                .collect(),
        ),
    }
}

fn note_used(filling: &Filling, used: &mut BTreeSet<String>) {
    match filling {
        Filling::Parameter(field) => {
            used.insert(field.clone());
        }
        Filling::Object(members) => members
            .iter()
            .for_each(|(_, filling)| note_used(filling, used)),
        Filling::Output { .. } | Filling::Literal(_) => {}
    }
}

/// Whether `full` is `short` with words in front that the owner's name has: `productId` is the `id` of `product-catalog`.
fn is_qualified(short: &[String], owner: &[String], full: &[String]) -> bool {
    short.len() < full.len()
        && short.iter().all(|stem| full.contains(stem))
        && full
            .iter()
            .all(|stem| short.contains(stem) || owner.contains(stem))
}

/// The one with the highest rating, if it is high enough and no other has the same.
fn single_best<T: Copy>(items: impl Iterator<Item = T>, rating: impl Fn(T) -> f64) -> Option<T> {
    let mut rated: Vec<_> = items
        .map(|item| (rating(item), item))
        .filter(|(rating, _)| *rating >= LIKENESS_MIN)
        .collect();
    rated.sort_by(|a, b| b.0.total_cmp(&a.0));
    match rated.as_slice() {
        [(_, only)] => Some(*only),
        [(first, best), (second, _), ..] if first > second => Some(*best),
        _ => None,
    }
}

/// What stands in quotes in a text.
fn quoted_texts(text: &str) -> Vec<Value> {
    let mut found = Vec::new();
    for (open, close) in [('"', '"'), ('“', '”'), ('«', '»')] {
        let mut rest = text;
        while let Some((_, after)) = rest.split_once(open)
            && let Some((inner, after)) = after.split_once(close)
        {
            found.push(Value::from(inner));
            rest = after;
        }
    }
    found
}

/// The numbers of a text that are words of their own.
fn numbers(text: &str) -> Vec<Value> {
    let words = text
        .split(|char: char| char.is_whitespace() || matches!(char, ',' | ';' | '(' | ')' | '"'));
    let words = words.map(|word| {
        word.trim_end_matches(['.', '!', '?', ':'])
            .trim_start_matches('$')
    });
    words
        .filter_map(|word| serde_json::from_str(word).ok())
        .filter(Value::is_number)
        .collect()
}
