//! Which use case an action is one of: the one most like it, if that is like enough.
//!
//! ```text
//!  a model compares:  best cosine >= threshold          --> Hit         else NoMatch
//!  words compare:     best cosine >= lexical threshold  --> Hit         else NoMatch
//!  a model should, and cannot: words do; like enough    --> Hit         else Unavailable, to be tried again
//! ```
//!
//! Invariant: an outage of the model lets nothing in that words would not, and refuses nothing for good.

use std::sync::Arc;

use super::{Asked, Grounding, Hit};
use crate::embedding::{Embedder, Vector, lexical};
use crate::plan::Service;
use crate::plan::rules::{Offer, Rule};

/// Which part of a capability a service must speak of, when words are compared.
const LEXICAL_COVERAGE_MIN: f64 = 0.5;

/// From where on two texts are alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Action and use case, by a model.
    pub action: f64,
    /// Action and use case, by words.
    pub lexical_action: f64,
    /// Capability and service, by a model.
    pub capability: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            action: 0.90,
            lexical_action: 0.85,
            capability: 0.75,
        }
    }
}

/// Why an action is no use case.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NoHit {
    /// It is like none.
    #[error(
        "the action is none of the project's use cases: the nearest, {nearest:?} of {authority}, is {score:.2} like it where {threshold:.2} \
         is asked for (compared by {compared_by}); word it like a use case, or apply a grounding that has it"
    )]
    NoMatch {
        /// The action of the use case that is most like it.
        nearest: String,
        /// Its grounding.
        authority: String,
        /// How alike they are.
        score: f64,
        /// How alike they should be.
        threshold: f64,
        /// Who compared.
        compared_by: String,
    },
    /// Nobody could tell.
    #[error("whether the action is one of the project's use cases cannot be told now: {0}")]
    Unavailable(String),
}

/// Compares actions with use cases, and capabilities with services.
#[derive(Debug, Default)]
pub struct Matcher {
    embedder: Arc<Embedder>,
    thresholds: Thresholds,
}

impl Matcher {
    /// With these thresholds.
    pub fn new(embedder: Arc<Embedder>, thresholds: Thresholds) -> Self {
        Self {
            embedder,
            thresholds,
        }
    }

    /// What makes its vectors.
    pub fn embedder(&self) -> &Embedder {
        &self.embedder
    }

    /// The use case of these groundings that an action is; of several that are equally like it the first, by grounding and place.
    pub async fn find(
        &self,
        groundings: &[Arc<Grounding>],
        asked: Asked<'_>,
        services: &[Service],
    ) -> Result<Hit, NoHit> {
        let cases: Vec<(&Arc<Grounding>, usize)> = groundings
            .iter()
            .flat_map(|grounding| {
                (0..grounding.spec.use_cases.len()).map(move |case| (grounding, case))
            })
            .collect();
        let bare: Vec<String> = cases
            .iter()
            .map(|(grounding, case)| grounding.spec.use_cases[*case].bare_action())
            .collect();
        let without_values = asked.without_values(groundings.iter().map(|one| &**one));
        let mut texts = vec![asked.action];
        texts.extend(without_values.as_deref());
        let ways = texts.len();
        texts.extend(bare.iter().map(String::as_str));
        let embedded = self.embedder.embed(&texts).await;
        let Some((of_asked, of_cases)) = embedded.vectors.split_at_checked(ways) else {
            return Err(NoHit::Unavailable("there are no vectors".to_owned()));
        };
        let of_action = &of_asked[0];
        let mut best: Option<(f64, usize)> = None;
        for (at, vector) in of_cases.iter().enumerate() {
            let scores = of_asked.iter().filter_map(|asked| asked.likeness(vector));
            let score = scores.fold(0.0, f64::max).min(1.0);
            if best.is_none_or(|(most, _)| score > most) {
                best = Some((score, at));
            }
        }
        let Some((score, at)) = best else {
            return Err(NoHit::Unavailable("there are no use cases".to_owned()));
        };
        let (grounding, case) = cases[at];
        let threshold = match of_action.is_lexical() {
            true => self.thresholds.lexical_action,
            false => self.thresholds.action,
        };
        // Sums of products of rounded numbers come out a little below what they are.
        if score + 1e-6 >= threshold {
            let offers = self.offers(grounding, case, services).await;
            let compared = (score, of_action.space.clone());
            return Ok(Hit::new(grounding.clone(), case, compared, offers));
        }
        Err(match embedded.outage {
            Some(outage) => NoHit::Unavailable(outage),
            None => NoHit::NoMatch {
                nearest: grounding.spec.use_cases[case].action.clone(),
                authority: grounding.authority(),
                score,
                threshold,
                compared_by: of_action.space.clone(),
            },
        })
    }

    /// Who offers the capabilities of a use case and of its grounding's rules.
    async fn offers(&self, grounding: &Grounding, case: usize, services: &[Service]) -> Vec<Offer> {
        let of_rules = grounding
            .rules
            .rules
            .iter()
            .filter_map(|line| match &line.rule {
                Rule::Capability(capability) => Some(capability),
                _ => None,
            });
        let of_case = grounding.spec.use_cases[case].capabilities.iter();
        let mut capabilities: Vec<&str> = of_case.chain(of_rules).map(String::as_str).collect();
        let mut told = std::collections::HashSet::new();
        capabilities.retain(|capability| told.insert(*capability));
        let about: Vec<String> = services
            .iter()
            .map(|service| format!("{}: {}", service.name, service.description))
            .collect();
        let texts: Vec<&str> = capabilities
            .iter()
            .copied()
            .chain(about.iter().map(String::as_str))
            .collect();
        let vectors = self.embedder.embed(&texts).await.vectors;
        let (of_capabilities, of_services) = vectors.split_at(capabilities.len());
        let offer = |(capability, vector): (&&str, &Vector)| Offer {
            capability: (*capability).to_owned(),
            services: services
                .iter()
                .zip(of_services)
                .filter(|(service, of_service)| match vector.is_lexical() {
                    true => {
                        lexical::coverage(
                            capability,
                            &format!("{} {}", service.name, service.description),
                        ) >= LEXICAL_COVERAGE_MIN
                    }
                    false => vector
                        .likeness(of_service)
                        .is_some_and(|score| score >= self.thresholds.capability),
                })
                .map(|(service, _)| service.id.clone())
                .collect(),
        };
        capabilities
            .iter()
            .zip(of_capabilities)
            .map(offer)
            .collect()
    }
}
