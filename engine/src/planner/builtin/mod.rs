//! The planner that needs no model and no network: it reads the action for words that services have in their names, descriptions and
//! schemas, and wires their inputs backwards to the data and to what other services return.
//!
//! It can: call the services that the verbs of an action name; know plain forms and some related words of English; add the services
//! that give what is missing; build objects of their parts; take an enum's value, a quoted text or a number from the action; say what
//! is missing when something is.
//!
//! It cannot: understand. It runs each service at most once, repeats nothing over lists, decides nothing by results, does no arithmetic
//! and no text of its own; "the second one", "it" and "unless" mean nothing to it. What it cannot wire with some certainty it refuses.
//!
//! It knows of rules only that its plan is checked against them: what breaks one it refuses.
//!
//! Invariant: the same action, data and services give the same answer, whatever order the services come in.

mod choose;
mod wire;
pub(crate) mod words;

use self::choose::{Profile, choose, scores};
use self::wire::Wiring;
use super::{Answer, PlanRequest, Planned};
use crate::plan::draft::{Draft, DraftTask};
use crate::plan::{Service, describe, validate_under};

/// Its name, where a model's would stand.
pub const MODEL: &str = "builtin";
/// Services that a refusal lists.
const LISTED_MAX: usize = 20;

/// The planner. It has no state.
#[derive(Debug, Clone, Copy, Default)]
pub struct BuiltinPlanner;

impl BuiltinPlanner {
    /// Plans; feedback changes nothing, and neither does another attempt.
    pub fn plan(&self, request: PlanRequest<'_>) -> Planned {
        Planned {
            answer: answer(request),
            model: MODEL.to_owned(),
            prompt_digest: String::new(),
            prompt_tokens: 0,
            completion_tokens: 0,
            duration_ms: 0,
            tries: request.attempt.max(1),
        }
    }
}

fn answer(request: PlanRequest<'_>) -> Answer {
    let PlanRequest {
        action,
        data,
        services,
        ..
    } = request;
    let mut services: Vec<_> = services.iter().collect();
    services.sort_by(|a, b| a.id.cmp(&b.id));
    let profiles: Vec<_> = services
        .iter()
        .map(|service| Profile::new(service))
        .collect();
    let scores = scores(&profiles, action);
    let wanted = choose(&profiles, &scores, action);
    if wanted.is_empty() {
        return Answer::NotActionable(no_service(&services));
    }
    let mut wiring = Wiring::new(&profiles, &scores, &wanted, data, action);
    let mut first_gap = None;
    for wanted in &wanted {
        match wiring.add(wanted.service) {
            Ok(()) => {}
            Err(gap) if wanted.optional => {
                first_gap.get_or_insert(gap);
            }
            Err(gap) => return Answer::NotActionable(gap.describe()),
        }
    }
    if let (true, Some(gap)) = (wiring.is_empty(), first_gap) {
        return Answer::NotActionable(gap.describe());
    }
    wiring.fill_optional();
    if let Some(field) = wiring.use_rest().first() {
        return Answer::NotActionable(format!(
            "no service that the action asks for takes the value `{field}` of the data"
        ));
    }
    let id = |position: usize| format!("task{}", position + 1);
    let inputs = wiring.into_inputs(&id).into_iter().enumerate();
    let tasks = inputs
        .map(|(position, (service, input))| DraftTask {
            id: id(position),
            service: Some(services[service].id.clone()),
            input,
            after: Vec::new(),
        })
        .collect();
    let services: Vec<_> = services.into_iter().cloned().collect();
    let draft = Draft {
        tasks,
        ..Draft::default()
    };
    match validate_under(&draft, &services, data, request.ruling()) {
        Ok(plan) => Answer::Planned(plan),
        Err(reasons) => Answer::NotActionable(describe(&reasons)),
    }
}

fn no_service(services: &[&Service]) -> String {
    if services.is_empty() {
        return "no service is registered".to_owned();
    }
    let mut names: Vec<_> = services
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    let more = names.len().saturating_sub(LISTED_MAX);
    names.truncate(LISTED_MAX);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!(
        "no registered service fits the action; there are {}{more}",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests;
