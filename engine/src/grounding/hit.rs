//! The use case that an action is one of, and what follows from it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Grounding, UseCase};
use crate::plan::rules::{ForeignParameter, Offer, Ruling};

/// A use case that an action is one of.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Its grounding.
    pub grounding: Arc<Grounding>,
    /// Its place there.
    pub case: usize,
    /// How alike they are, at most 1.
    pub score: f64,
    /// Who compared them: a model, or words.
    pub compared_by: String,
    /// What plans for it are judged by.
    pub ruling: Ruling,
}

impl Hit {
    pub(super) fn new(
        grounding: Arc<Grounding>,
        case: usize,
        (score, compared_by): (f64, String),
        offers: Vec<Offer>,
    ) -> Self {
        let use_case = &grounding.spec.use_cases[case];
        let others = grounding
            .spec
            .use_cases
            .iter()
            .filter(|other| *other != use_case);
        let foreign_parameters = others.flat_map(|other| {
            let names = other.params.keys();
            let foreign = names.filter(|name| !use_case.params.contains_key(*name));
            foreign.map(|name| ForeignParameter {
                name: name.clone(),
                case: other.action.clone(),
            })
        });
        let ruling = Ruling {
            authority: grounding.authority(),
            rules: grounding.rules.rules.clone(),
            capabilities: use_case.capabilities.clone(),
            offers,
            foreign_parameters: foreign_parameters.collect(),
        };
        Self {
            grounding,
            case,
            score,
            compared_by,
            ruling,
        }
    }

    /// The use case.
    pub fn use_case(&self) -> &UseCase {
        &self.grounding.spec.use_cases[self.case]
    }

    /// A capability that nobody who is registered offers: no plan can be had.
    pub fn missing_capability(&self) -> Option<&str> {
        let mut offers = self.ruling.offers.iter();
        let missing = offers.find(|offer| offer.services.is_empty())?;
        Some(&missing.capability)
    }

    /// What is recorded of it with the plan.
    pub fn applied(&self) -> Applied {
        let spec = &self.grounding.spec;
        Applied {
            name: spec.name.clone(),
            domain: spec.domain.clone(),
            version: spec.version.clone(),
            digest: self.grounding.digest.clone(),
            rules_digest: self.grounding.rules.digest(),
            use_case: self.use_case().clone(),
            constraints: spec.constraints.clone(),
            enforced: self
                .grounding
                .rules
                .rules
                .iter()
                .map(|line| line.text.clone())
                .collect(),
            not_enforced: self.grounding.rules.told.clone(),
            score: self.score,
            compared_by: self.compared_by.clone(),
        }
    }
}

/// What is recorded with a plan of the grounding it was made under. Persisted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// The grounding.
    pub name: String,
    /// What it is about.
    pub domain: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of it, hex.
    pub digest: String,
    /// SHA-256 of its constraints, hex.
    pub rules_digest: String,
    /// The use case.
    pub use_case: UseCase,
    /// Its constraints, as they were written.
    pub constraints: Vec<String>,
    /// Those that the plan was checked against.
    pub enforced: Vec<String>,
    /// Those that only the planner was told.
    pub not_enforced: Vec<String>,
    /// How alike action and use case are.
    pub score: f64,
    /// Who compared them.
    pub compared_by: String,
}
