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
//! 6. the schema's default;
//! 7. if it is the only one the service requires, and one of both names says little (`message`, `question`, `text`): the only unused
//!    parameter that fits;
//! 8. if no other is empty and its name says little: the only fitting value that services asked for return and none takes;
//! 9. for an instruction or a question: the action itself;
//! 10. if it is the only one of its type still empty: the only quoted text, or the only number, of the action.
//!
//! A service that gives a value is pulled in when it can be wired itself; for a name as common as `status` only when it is asked for.

mod finish;

use std::collections::BTreeSet;

use serde_json::Value;

use super::choose::{Output, Profile, Wanted};
use super::words::{is_generic, likeness, same_stems, stems_of_name, words};
use crate::plan::Parameter;
use crate::plan::reference::{Segment, escape, is_task_zero};
use crate::plan::schema::{Schema, TypeSet};

/// How many services are tried for one action.
const STEPS_MAX: usize = 2_000;
/// How long a chain of services that are pulled in may be.
const CHAIN_MAX: usize = 12;
/// How deep objects are built.
const OBJECT_DEPTH_MAX: usize = 3;
/// How alike two names must be.
const LIKENESS_MIN: f64 = 0.5;
/// Characters of a value that a reason shows.
const SHOWN_CHARS_MAX: usize = 60;
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
    /// What the data has under that very name, and does not fit.
    given: Option<String>,
    behind: Option<Box<Gap>>,
}

impl Gap {
    /// In one sentence.
    pub(super) fn describe(&self) -> String {
        let Self {
            service,
            input,
            expected,
            given,
            behind,
        } = self;
        let needs = format!("`{service}` needs `{input}` ({expected})");
        if let Some(given) = given {
            return format!("{needs}, and what the data has of that name does not fit: {given}");
        }
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

/// A value as a sentence shows it.
fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
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
            given: self.misfit(slot),
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
            Self::default,
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

    /// What was sent under the name of an input and cannot be put into it.
    fn misfit(&self, slot: Slot<'a>) -> Option<String> {
        let mut named = self.data.iter().filter(|given| given.field == slot.name);
        let value = &named.next()?.value;
        if self.takes(slot, value) {
            return None;
        }
        Some(format!("{} ({})", shortened(value), TypeSet::of(value)))
    }

    fn takes(&self, slot: Slot<'a>, value: &Value) -> bool {
        if slot.depth == 0 {
            self.profiles[slot.service].takes(slot.member, value)
        } else {
            let read = || serde_json::from_str::<Value>(value.as_str()?.trim()).ok();
            let read = read().filter(|value| value.is_number() || value.is_boolean());
            let types = read.map_or(TypeSet::NONE, |value| TypeSet::of(&value));
            slot.schema.types().meets(TypeSet::of(value).or(types))
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
        // What `body` or `text` means depends on the service: what another one took already is not meant again.
        let used = if says_little(&stems) {
            self.used()
        } else {
            BTreeSet::new()
        };
        let candidates = self.data.iter().filter(|parameter| {
            !used.contains(&parameter.field)
                && !self.is_of_another(slot, &stems_of_name(&parameter.field))
                && self.takes(slot, &parameter.value)
        });
        let best = single_best(candidates, |parameter| {
            likeness(&stems, &stems_of_name(&parameter.field))
        })?;
        Some(Filling::Parameter(best.field.clone()))
    }

    /// Whether another input of the service has this name.
    fn is_of_another(&self, slot: Slot<'a>, stems: &[String]) -> bool {
        let properties =
            Schema::root(&self.profiles[slot.service].service.input_schema).properties();
        properties
            .iter()
            .any(|(other, _)| *other != slot.member && same_stems(&stems_of_name(other), stems))
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

    /// The default of the schema.
    fn default(&mut self, slot: Slot<'a>, _: &mut Vec<usize>) -> Option<Filling> {
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
        if let Some(parameter) = self.only_parameter(slot, filled) {
            return Some(Filling::Parameter(parameter.field.clone()));
        }
        if let ([_], Some(filling)) = (empty, self.only_output(slot)) {
            return Some(filling);
        }
        let action = Value::from(self.action);
        if SPOKEN.contains(&slot.name) && self.takes(slot, &action) {
            return Some(Filling::Literal(self.literal(&action)));
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

    /// The only unused parameter for the only input that a service requires, if their names do not speak against it.
    fn only_parameter(
        &self,
        slot: Slot<'a>,
        filled: &[(String, Filling)],
    ) -> Option<&'a Parameter> {
        let asked_for = self
            .wanted
            .iter()
            .any(|wanted| wanted.service == slot.service);
        let required = Schema::root(&self.profiles[slot.service].service.input_schema).required();
        if !asked_for || required.len() != 1 || !filled.is_empty() {
            return None;
        }
        let used = self.used();
        let unused = |parameter: &&Parameter| {
            !used.contains(&parameter.field) && self.takes(slot, &parameter.value)
        };
        let [only] = self.data.iter().filter(unused).collect::<Vec<_>>()[..] else {
            return None;
        };
        let (input, parameter) = (stems_of_name(slot.name), stems_of_name(&only.field));
        if self.is_of_another(slot, &parameter) {
            return None;
        }
        let is_id = |stems: &[String]| stems.last().is_some_and(|stem| stem == "id");
        let vague = SPOKEN.contains(&slot.name) || says_little(&input) || says_little(&parameter);
        (vague && is_id(&input) == is_id(&parameter)).then_some(only)
    }

    /// The only fitting value that services asked for return and none takes, for an input whose name says little.
    fn only_output(&self, slot: Slot<'a>) -> Option<Filling> {
        let wanted = slot.schema.any_of();
        let is_asked_for =
            |service: usize| self.wanted.iter().any(|wanted| wanted.service == service);
        if !is_asked_for(slot.service)
            || !says_little(&stems_of_name(slot.name))
            || slot.schema.types() == TypeSet::ALL
        {
            return None;
        }
        let taken = |service: usize, output: &Output<'_>| {
            let mut fillings = self.nodes.iter().flat_map(|node| &node.inputs);
            fillings.any(|(_, filling)| matches!(filling, Filling::Output { service: by, path } if *by == service && *path == output.path))
        };
        let nodes = self
            .nodes
            .iter()
            .map(|node| node.service)
            .filter(|&service| is_asked_for(service));
        let values = nodes.flat_map(|service| {
            self.profiles[service]
                .outputs
                .iter()
                .map(move |output| (service, output))
        });
        let fitting = values.filter(|(service, output)| {
            let tells =
                output.path.len() == 1 && output.stems.last().is_none_or(|stem| stem != "id");
            tells
                && output.schema.types() == slot.schema.types()
                && output.schema.overlaps(&wanted)
                && !taken(*service, output)
        });
        let [(service, only)] = fitting.collect::<Vec<_>>()[..] else {
            return None;
        };
        Some(Filling::Output {
            service,
            path: only.path.clone(),
        })
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

    fn used(&self) -> BTreeSet<String> {
        let mut used = BTreeSet::new();
        let fillings = self.nodes.iter().flat_map(|node| &node.inputs);
        fillings.for_each(|(_, filling)| note_used(filling, &mut used));
        used
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

/// Whether a name has none but common words.
fn says_little(stems: &[String]) -> bool {
    stems.iter().all(|stem| is_generic(stem))
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
