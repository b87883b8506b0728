//! Which services an action asks for.
//!
//! An action is read clause by clause. The first telling word of a clause, its verb if all goes well, calls a service that has it in its
//! name or as a verb of its description; else the services of its parts ("order" is to reserve and to charge); else one that has a
//! related word. A clause whose verb calls nobody calls the service it says most about. Words count more the fewer services have them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::words::{clauses_of_action, clauses_of_description, parts_of, related, stems_of_name};
use crate::plan::Service;
use crate::plan::reference::Segment;
use crate::plan::schema::{AnyOf, Schema};

/// How deep outputs are searched.
const OUTPUT_DEPTH_MAX: usize = 3;
/// How many values of an output are considered.
const OUTPUTS_MAX: usize = 200;

/// A service as it is searched.
pub(super) struct Profile<'a> {
    pub service: &'a Service,
    /// Of its name.
    pub name: Vec<String>,
    /// First words of the clauses of its description.
    verbs: BTreeSet<String>,
    described: BTreeSet<String>,
    inputs: BTreeSet<String>,
    pub outputs: Vec<Output<'a>>,
}

/// A value that a service returns.
pub(super) struct Output<'a> {
    /// Where it is.
    pub path: Vec<Segment>,
    /// Its own name, the last of the path.
    pub name: &'a str,
    pub stems: Vec<String>,
    pub schema: AnyOf<'a>,
}

impl<'a> Profile<'a> {
    pub(super) fn new(service: &'a Service) -> Self {
        let clauses = clauses_of_description(&service.description);
        let mut outputs = Vec::new();
        collect_outputs(
            Schema::root(&service.output_schema),
            &mut Vec::new(),
            &mut outputs,
        );
        let inputs = Schema::root(&service.input_schema).properties();
        Self {
            service,
            name: stems_of_name(&service.name),
            verbs: clauses
                .iter()
                .filter_map(|clause| clause.first().cloned())
                .collect(),
            described: clauses.into_iter().flatten().collect(),
            inputs: inputs
                .into_iter()
                .flat_map(|(name, _)| stems_of_name(name))
                .collect(),
            outputs,
        }
    }

    /// Whether a value may be one of its inputs; a caller's text may stand for what it reads as.
    pub(super) fn takes(&self, input: &str, value: &Value) -> bool {
        let Ok(checker) = self.service.input_schema.checker() else {
            return true;
        };
        let read = || {
            let value = serde_json::from_str::<Value>(value.as_str()?.trim()).ok()?;
            (value.is_number() || value.is_boolean()).then(|| checker.allows_member(input, &value))
        };
        checker.allows_member(input, value) || read() == Some(true)
    }

    fn is_called_by(&self, stem: &str) -> bool {
        self.name.iter().any(|own| own == stem) || self.verbs.contains(stem)
    }

    fn is_called_by_related(&self, stem: &str) -> bool {
        self.is_named_by_related(stem) || self.verbs.iter().any(|own| related(own, stem))
    }

    fn is_named_by_related(&self, stem: &str) -> bool {
        self.name.iter().any(|own| related(own, stem))
    }

    /// How much it has to do with a word.
    fn weight(&self, stem: &str) -> f64 {
        if self.name.iter().any(|own| own == stem) {
            3.0
        } else if self.verbs.contains(stem) {
            2.5
        } else if self.described.contains(stem) {
            2.0
        } else if self.is_called_by_related(stem) {
            1.25
        } else if self.inputs.contains(stem) {
            1.0
        } else if self
            .outputs
            .iter()
            .any(|output| output.stems.iter().any(|own| own == stem))
        {
            0.5
        } else {
            0.0
        }
    }
}

fn collect_outputs<'a>(schema: Schema<'a>, path: &mut Vec<Segment>, outputs: &mut Vec<Output<'a>>) {
    if path.len() >= OUTPUT_DEPTH_MAX {
        return;
    }
    let properties = schema.properties();
    for (name, member) in &properties {
        if outputs.len() >= OUTPUTS_MAX {
            return;
        }
        path.push(Segment::Field((*name).to_owned()));
        let schema = member.any_of();
        outputs.push(Output {
            path: path.clone(),
            name,
            stems: stems_of_name(name),
            schema,
        });
        path.pop();
    }
    for (name, member) in properties {
        path.push(Segment::Field(name.to_owned()));
        collect_outputs(member, path, outputs);
        path.pop();
    }
}

/// A service that an action asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Among the profiles.
    pub service: usize,
    /// Whether the action can do without it: it was called by other words than a verb.
    pub optional: bool,
}

/// How much each service has to do with an action.
pub(super) fn scores(profiles: &[Profile<'_>], action: &str) -> Vec<f64> {
    let clauses = clauses_of_action(action);
    let mut stems = BTreeMap::new();
    for clause in &clauses {
        for (at, stem) in clause.iter().enumerate() {
            let weight = if at == 0 { 1.5 } else { 1.0 };
            let best: &mut f64 = stems.entry(stem.as_str()).or_insert(weight);
            *best = best.max(weight);
        }
    }
    let mut scores = vec![0.0; profiles.len()];
    for (stem, weight) in stems {
        let weights: Vec<_> = profiles
            .iter()
            .map(|profile| profile.weight(stem))
            .collect();
        let holders = weights.iter().filter(|&&weight| weight > 0.0).count();
        if holders > 0 {
            let rarity = (1.0 + profiles.len() as f64 / holders as f64).ln();
            scores
                .iter_mut()
                .zip(weights)
                .for_each(|(score, own)| *score += own * weight * rarity);
        }
    }
    scores
}

/// The services that an action asks for, in the order it speaks of them.
pub(super) fn choose(profiles: &[Profile<'_>], scores: &[f64], action: &str) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut want = |service: usize, optional: bool| match wanted
        .iter_mut()
        .find(|wanted| wanted.service == service)
    {
        Some(known) => known.optional &= optional,
        None => wanted.push(Wanted { service, optional }),
    };
    let words = clauses_of_action(action);
    let said: BTreeSet<_> = words.iter().flatten().map(String::as_str).collect();
    let best = |fits: &dyn Fn(&Profile<'_>) -> bool| best(profiles, scores, &said, fits);
    for clause in &words {
        let verb = clause[0].as_str();
        if let Some(service) = best(&|profile| profile.is_called_by(verb)) {
            want(service, false);
            continue;
        }
        let parts = parts_of(verb).into_iter();
        let parts: Vec<_> = parts
            .filter_map(|stems| {
                best(&|profile| stems.iter().any(|stem| profile.is_called_by(stem)))
            })
            .collect();
        if !parts.is_empty() {
            parts.into_iter().for_each(|service| want(service, false));
        } else if let Some(service) = best(&|profile| profile.is_named_by_related(verb))
            .or_else(|| best(&|profile| profile.is_called_by_related(verb)))
        {
            want(service, false);
        } else if let Some(service) =
            best(&|profile| clause.iter().any(|stem| profile.is_called_by(stem)))
        {
            want(service, true);
        }
    }
    if wanted.is_empty() {
        let mentioned = |profile: &Profile<'_>| said.iter().any(|stem| profile.weight(stem) > 0.0);
        wanted.extend(best(&mentioned).map(|service| Wanted {
            service,
            optional: false,
        }));
    }
    wanted
}

/// The service with the highest score of those that fit; of equal ones the one whose name has the fewest other words, then the first.
fn best(
    profiles: &[Profile<'_>],
    scores: &[f64],
    said: &BTreeSet<&str>,
    fits: &dyn Fn(&Profile<'_>) -> bool,
) -> Option<usize> {
    let unsaid = |profile: &Profile<'_>| {
        profile
            .name
            .iter()
            .filter(|stem| !said.contains(stem.as_str()))
            .count()
    };
    (0..profiles.len())
        .filter(|&at| fits(&profiles[at]))
        .min_by(|&a, &b| {
            scores[b]
                .total_cmp(&scores[a])
                .then_with(|| unsaid(&profiles[a]).cmp(&unsaid(&profiles[b])))
                .then(a.cmp(&b))
        })
}
