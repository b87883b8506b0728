//! `orchestrion plan-cache`: the plans that are kept for later.

use clap::Subcommand;
use serde_json::Value;

use super::error::CliError;
use super::render::{Look, Tone, cut};
use super::{Session, show, show_json};

/// Characters of an action that a line shows.
const ACTION_CHARS_MAX: usize = 70;

/// List and forget the plans that are kept for later.
#[derive(Debug, Subcommand)]
pub enum PlanCacheCommand {
    /// List them, oldest first
    #[command(alias = "list")]
    Ls,
    /// Forget all of them
    Clear,
}

/// Runs one of them.
pub async fn run(session: &Session, command: PlanCacheCommand) -> Result<(), CliError> {
    let target = session.target().await?;
    match command {
        PlanCacheCommand::Ls => {
            let answer = target.client.get(&["plan-cache"], &[]).await?;
            if session.json {
                return show_json(&answer);
            }
            let title = session.title("Cached plans", &target);
            show(&listing(&session.look, &title, &answer))
        }
        PlanCacheCommand::Clear => {
            let answer = target.client.delete(&["plan-cache"], &[]).await?;
            if session.json {
                return show_json(&answer);
            }
            let count = answer["cleared"].as_u64().unwrap_or_default();
            show(&format!(
                "{} Forgot {count} plans of {}\n",
                session.look.paint(Tone::Good, "●"),
                target.name
            ))
        }
    }
}

fn listing(look: &Look, title: &str, answer: &Value) -> String {
    if answer["off"].as_bool() == Some(true) {
        return "The plan cache is off (setting plan_cache.off).\n".to_owned();
    }
    let plans = answer["plans"].as_array().filter(|plans| !plans.is_empty());
    let Some(plans) = plans else {
        return "No plans are kept yet: those that a model makes are.\n".to_owned();
    };
    let mut shown = title.to_owned();
    for plan in plans {
        let number = |member: &str| plan[member].as_u64().unwrap_or_default();
        let at = plan["createdAt"].as_str().and_then(|at| at.parse().ok());
        shown.push_str(&format!(
            "  {}  {}\n",
            cut(
                plan["action"].as_str().unwrap_or_default(),
                ACTION_CHARS_MAX
            ),
            look.paint(
                Tone::Dim,
                &format!(
                    "{} tasks, {} uses, {} tokens each, {}",
                    number("tasks"),
                    number("hits"),
                    number("tokens"),
                    look.age(at)
                )
            )
        ));
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::render::tests::plain;

    #[test]
    fn plans_are_listed_with_what_they_save() {
        let listed = |answer: Value| listing(&plain(), "", &answer);
        assert!(listed(json!({"off": true})).contains("plan_cache.off"));
        assert!(listed(json!({"off": false, "plans": []})).contains("No plans"));
        let one =
            listed(json!({"plans": [{"action": "greet", "tasks": 1, "hits": 3, "tokens": 165}]}));
        assert!(
            one.starts_with("  greet  1 tasks, 3 uses, 165 tokens each, "),
            "{one}"
        );
    }
}
