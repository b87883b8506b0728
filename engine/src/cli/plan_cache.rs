//! `orchestrion plan-cache`: the plans that are kept for later.

use clap::Subcommand;
use serde_json::Value;

use super::error::CliError;
use super::render::{Column, Look, Tone, count, cut};
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
            let cleared = answer["cleared"].as_u64().unwrap_or_default();
            show(&format!(
                "{} Forgot {} of {}\n",
                session.look.paint(Tone::Good, "●"),
                count(cleared, "plan"),
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
    let columns = [
        Column::text("ACTION"),
        Column::whole("TASKS"),
        Column::whole("USES"),
        Column::whole("TOKENS"),
        Column::whole("MADE"),
    ];
    let rows = plans.iter().map(|plan| {
        let number = |member: &str| {
            let number = plan[member].as_u64().unwrap_or_default();
            (Tone::Plain, number.to_string())
        };
        let at = plan["createdAt"].as_str().and_then(|at| at.parse().ok());
        let action = plan["action"].as_str().unwrap_or_default();
        vec![
            (Tone::Plain, cut(action, ACTION_CHARS_MAX)),
            number("tasks"),
            number("hits"),
            number("tokens"),
            (Tone::Dim, look.age(at)),
        ]
    });
    format!("{title}{}", look.table(&columns, rows.collect()))
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
        let lines: Vec<Vec<&str>> = one
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(lines[0], ["ACTION", "TASKS", "USES", "TOKENS", "MADE"]);
        assert_eq!(lines[1], ["greet", "1", "3", "165", "─"]);
    }
}
