//! Where a plan comes from: the groundings say whether the action is one at all and which rules hold, the cache may have a plan for it,
//! and the planner is asked otherwise.
//!
//! ```text
//!  action --groundings?--> NoHit ------------------------------------> Refused, or Unavailable while embeddings cannot be had
//!                 '------> Hit, or no groundings --cache--> template, validated under today's rules --> plan (source cache)
//!                                                    '----> planner, its plan validated --------------> plan (source planner), kept
//! ```
//!
//! Invariant: services, groundings and rules of one attempt are those of one moment; whatever the source, the plan is valid under them.

use std::sync::Arc;

use orchestrion_history::ids::Namespace;

use super::submission::{PlanSource, PlanningOutcome, PlanningResult};
use crate::grounding::{Asked, Grounding, Hit, Matcher, NoHit};
use crate::plan::{Parameter, Plan, Service, validate_under};
use crate::plan_cache::{Key, PlanCache, Template};
use crate::planner::{Answer, Cost, FailedAttempt, PlanError, PlanRequest, Planner};

/// Reads something of a tenant as it is now.
pub type Of<T> = Box<dyn Fn(&Namespace) -> T + Send + Sync>;

/// Makes plans.
pub struct Desk {
    /// Who is asked.
    pub planner: Planner,
    /// What a tenant's services are.
    pub services: Of<Arc<[Service]>>,
    /// What a tenant's groundings are, by name.
    pub groundings: Of<Vec<Arc<Grounding>>>,
    /// Compares actions with use cases.
    pub matcher: Matcher,
    /// Plans that were made before; none where there is no store.
    pub cache: Option<PlanCache>,
}

/// What is to be planned.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// What is wanted, in plain language.
    pub action: &'a str,
    /// The values the caller sent with it.
    pub data: &'a [Parameter],
    /// What was wrong with the attempt before.
    pub feedback: Option<&'a str>,
    /// The first attempt is 1.
    pub attempt: u32,
}

impl<'a> Wanted<'a> {
    fn asked(&self) -> Asked<'a> {
        Asked {
            action: self.action,
            data: self.data,
        }
    }
}

/// A planning, and what of it is worth keeping.
#[derive(Debug)]
pub struct Made {
    /// What is recorded.
    pub result: PlanningResult,
    keep: Option<Keep>,
}

#[derive(Debug)]
struct Keep {
    action: String,
    key: Key,
    template: Template,
    cost: Cost,
}

impl Desk {
    /// Makes a plan, or says why there is none.
    pub async fn plan(
        &self,
        namespace: &Namespace,
        wanted: Wanted<'_>,
    ) -> Result<Made, FailedAttempt> {
        let services = (self.services)(namespace);
        let groundings = (self.groundings)(namespace);
        if services.is_empty() {
            return Err(unasked(PlanError::Refused(
                "the project has no services: register one first".to_owned(),
            )));
        }
        let hit = self
            .hit(&groundings, wanted.asked(), &services)
            .await
            .map_err(unasked)?;
        let digest = Grounding::digest_of_all(groundings.iter().map(|grounding| &**grounding));
        let key = self.key(wanted, &services, digest).await;
        if let (Some(key), None) = (&key, wanted.feedback)
            && let Some(result) = self.cached(namespace, wanted, key, hit.as_ref(), &services)
        {
            return Ok(Made { result, keep: None });
        }
        self.ask(wanted, key, hit, &services).await
    }

    /// Plans without anything that is kept or recorded: no cache, and these groundings instead of those in force.
    pub async fn try_out(
        &self,
        namespace: &Namespace,
        groundings: &[Arc<Grounding>],
        wanted: Wanted<'_>,
    ) -> Result<PlanningResult, FailedAttempt> {
        let services = (self.services)(namespace);
        if services.is_empty() {
            return Err(unasked(PlanError::Refused(
                "the project has no services: register one first".to_owned(),
            )));
        }
        let hit = self
            .hit(groundings, wanted.asked(), &services)
            .await
            .map_err(unasked)?;
        Ok(self.ask(wanted, None, hit, &services).await?.result)
    }

    /// The use case that an action is; `None` for a project without groundings.
    pub async fn hit(
        &self,
        groundings: &[Arc<Grounding>],
        asked: Asked<'_>,
        services: &[Service],
    ) -> Result<Option<Hit>, PlanError> {
        if groundings.is_empty() {
            return Ok(None);
        }
        let found = self.matcher.find(groundings, asked, services).await;
        let outcome = match &found {
            Ok(_) => "hit",
            Err(NoHit::NoMatch { .. }) => "no_match",
            Err(NoHit::Unavailable(_)) => "unavailable",
        };
        metrics::counter!("orchestrion_grounding_matches_total", "outcome" => outcome).increment(1);
        let hit = found.map_err(|none| match none {
            NoHit::NoMatch { .. } => PlanError::Refused(none.to_string()),
            NoHit::Unavailable(_) => PlanError::Unavailable(none.to_string()),
        })?;
        if let Some(capability) = hit.missing_capability() {
            return Err(PlanError::Refused(format!(
                "no registered service offers {capability:?}, which {} asks for (compared by {}): register one, or say it in a service's description",
                hit.grounding.authority(),
                hit.compared_by
            )));
        }
        Ok(Some(hit))
    }

    /// What the cache knows the action by. The built-in planner is quicker than any cache.
    async fn key(
        &self,
        wanted: Wanted<'_>,
        services: &[Service],
        groundings_digest: String,
    ) -> Option<Key> {
        let cache = self.cache.as_ref()?;
        if cache.is_off() || matches!(self.planner, Planner::Builtin(_)) {
            return None;
        }
        let embedded = self.matcher.embedder().embed(&[wanted.action]).await;
        let vector = embedded.vectors.into_iter().next()?;
        Some(Key::new(
            vector,
            wanted.action,
            wanted.data,
            services,
            groundings_digest,
        ))
    }

    fn cached(
        &self,
        namespace: &Namespace,
        wanted: Wanted<'_>,
        key: &Key,
        hit: Option<&Hit>,
        services: &[Service],
    ) -> Option<PlanningResult> {
        let cache = self.cache.as_ref()?;
        let Some((entry, score)) = cache.find(namespace, key) else {
            cache.missed(false);
            return None;
        };
        let draft = entry.template.draft();
        match validate_under(&draft, services, wanted.data, hit.map(|hit| &hit.ruling)) {
            Ok(plan) => {
                cache.served(&entry);
                Some(PlanningResult {
                    source: PlanSource::Cache,
                    model: entry.cost.model.clone(),
                    prompt_digest: entry.cost.prompt_digest.clone(),
                    tries: wanted.attempt,
                    cached_plan: entry.id.clone(),
                    likeness: score,
                    saved_tokens: entry.cost.prompt_tokens + entry.cost.completion_tokens,
                    ..planned(plan, hit)
                })
            }
            Err(reasons) => {
                tracing::debug!(%namespace, entry = %entry.id, reasons = %crate::plan::describe(&reasons), "a cached plan is not valid for these values");
                cache.missed(true);
                None
            }
        }
    }

    async fn ask(
        &self,
        wanted: Wanted<'_>,
        key: Option<Key>,
        hit: Option<Hit>,
        services: &[Service],
    ) -> Result<Made, FailedAttempt> {
        let request = PlanRequest {
            action: wanted.action,
            data: wanted.data,
            services,
            grounding: hit.as_ref(),
            feedback: wanted.feedback,
            attempt: wanted.attempt,
        };
        let answered = self.planner.plan_once(request).await?;
        let cost = Cost {
            model: answered.model,
            prompt_digest: answered.prompt_digest,
            prompt_tokens: answered.prompt_tokens,
            completion_tokens: answered.completion_tokens,
            duration_ms: answered.duration_ms,
            tries: wanted.attempt,
        };
        let mut result = match answered.answer {
            Answer::Planned(plan) => planned(plan, hit.as_ref()),
            Answer::NotActionable(reason) => PlanningResult {
                outcome: PlanningOutcome::NotActionable,
                plan: None,
                reason: Some(reason),
                verdict: "not actionable".to_owned(),
                ..planned_nothing(hit.as_ref())
            },
        };
        let keep = result.plan.as_ref().zip(key).and_then(|(plan, key)| {
            Some(Keep {
                action: wanted.action.to_owned(),
                key,
                template: Template::of(plan, wanted.data)?,
                cost: cost.clone(),
            })
        });
        result.model = cost.model;
        result.prompt_digest = cost.prompt_digest;
        result.prompt_tokens = cost.prompt_tokens;
        result.completion_tokens = cost.completion_tokens;
        result.duration_ms = cost.duration_ms;
        result.tries = cost.tries;
        Ok(Made { result, keep })
    }

    /// Keeps what is worth keeping. A plan that is not kept is made again: nothing is lost by it.
    pub async fn keep(&self, namespace: &Namespace, made: Made) {
        let (Some(cache), Some(keep)) = (&self.cache, made.keep) else {
            return;
        };
        let Keep {
            action,
            key,
            template,
            cost,
        } = keep;
        if let Err(error) = cache.keep(namespace, &action, key, template, cost).await {
            tracing::warn!(%namespace, %error, "a plan was not kept for later");
        }
    }
}

fn planned(plan: Plan, hit: Option<&Hit>) -> PlanningResult {
    PlanningResult {
        plan: Some(plan),
        ..planned_nothing(hit)
    }
}

fn planned_nothing(hit: Option<&Hit>) -> PlanningResult {
    PlanningResult {
        outcome: PlanningOutcome::Planned,
        plan: None,
        reason: None,
        model: String::new(),
        prompt_digest: String::new(),
        prompt_tokens: 0,
        completion_tokens: 0,
        tries: 0,
        duration_ms: 0,
        verdict: match hit {
            Some(_) => "valid, and keeps the rules".to_owned(),
            None => "valid".to_owned(),
        },
        source: PlanSource::Planner,
        cached_plan: String::new(),
        likeness: 0.0,
        saved_tokens: 0,
        grounding: hit.map(Hit::applied),
    }
}

/// Nobody was asked, so nothing was spent.
fn unasked(error: PlanError) -> FailedAttempt {
    FailedAttempt {
        error,
        cost: Cost::default(),
    }
}
