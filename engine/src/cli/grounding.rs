//! `orchestrion grounding`: what a project's actions may be, and the rules of their plans: written in a file, tried out, applied.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::CliError;
use super::render::{Look, Tone, cut};
use super::{Session, show, show_json};

/// Bytes of a file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Characters of a text that a line shows.
const LINE_CHARS_MAX: usize = 100;

/// Apply, list, remove and try out groundings.
#[derive(Debug, Subcommand)]
pub enum GroundingCommand {
    /// Put a grounding in force: from then on the project plans the use cases of its groundings and nothing else
    Apply {
        /// The grounding, in YAML or JSON
        #[arg(short, long, value_name = "FILE")]
        filename: PathBuf,
    },
    /// List the groundings in force, with the rules that are enforced
    #[command(alias = "list")]
    Ls,
    /// Take a grounding out of force
    #[command(alias = "remove")]
    Rm {
        /// Its name
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        name: Option<String>,
        /// All of them
        #[arg(long)]
        all: bool,
    },
    /// Plan every use case of a file with its example values; nothing is applied and nothing runs
    Test {
        /// The grounding, in YAML or JSON
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// A grounding as its author writes it. orra's files say `use-cases`, its wire says `useCases`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all(serialize = "camelCase"))]
struct GroundingFile {
    name: String,
    domain: String,
    version: String,
    #[serde(rename(deserialize = "use-cases"), alias = "useCases")]
    use_cases: Vec<UseCaseFile>,
    #[serde(default)]
    constraints: Option<Vec<String>>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct UseCaseFile {
    action: String,
    #[serde(default)]
    params: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    capabilities: Vec<String>,
    #[serde(default)]
    intent: String,
}

/// Runs one of them.
pub async fn run(session: &Session, command: GroundingCommand) -> Result<(), CliError> {
    match command {
        GroundingCommand::Apply { filename } => {
            let body = read_file(&filename)?;
            let target = session.target().await?;
            let answer = target
                .client
                .post(&["groundings"], Some(&body), Default::default())
                .await?;
            if session.json {
                return show_json(&answer);
            }
            show(&applied(&session.look, &target.name, &answer))
        }
        GroundingCommand::Ls => {
            let target = session.target().await?;
            let answer = target.client.get(&["groundings"], &[]).await?;
            if session.json {
                return show_json(
                    &json!({ "groundings": answer.as_array().cloned().unwrap_or_default() }),
                );
            }
            let title = session.title("Groundings", &target);
            show(&listing(&session.look, &title, &answer))
        }
        GroundingCommand::Rm { name, all: _ } => {
            let target = session.target().await?;
            // orra's route does not say that there was none of that name, ours does.
            let segments: Vec<&str> = match &name {
                Some(name) => vec!["v1", "groundings", name],
                None => vec!["groundings"],
            };
            target.client.delete(&segments, &[]).await?;
            if session.json {
                return show_json(&json!({ "removed": name }));
            }
            let what = name.as_deref().unwrap_or("all groundings");
            show(&format!(
                "{} Removed {what} of {}\n",
                session.look.paint(Tone::Good, "●"),
                target.name
            ))
        }
        GroundingCommand::Test { file } => {
            let body = read_file(&file)?;
            let target = session.target().await?;
            let answer = target
                .client
                .post(&["grounding-tests"], Some(&body), Default::default())
                .await?;
            if session.json {
                show_json(&answer)?;
            } else {
                show(&tested(&session.look, &answer))?;
            }
            match answer["passed"].as_bool() {
                Some(true) => Ok(()),
                _ => Err(CliError::Failed(
                    "not every use case can be planned".to_owned(),
                )),
            }
        }
    }
}

fn read_file(path: &Path) -> Result<Value, CliError> {
    let unreadable =
        |why: String| CliError::Usage(format!("cannot read {}: {why}", path.display()));
    let size = std::fs::metadata(path)
        .map_err(|e| unreadable(e.to_string()))?
        .len();
    if size > FILE_BYTES_MAX {
        return Err(unreadable(format!(
            "it has {size} bytes, at most {FILE_BYTES_MAX} are taken"
        )));
    }
    let text = std::fs::read_to_string(path).map_err(|e| unreadable(e.to_string()))?;
    parse(&text).map_err(unreadable)
}

/// JSON is YAML as well.
fn parse(text: &str) -> Result<Value, String> {
    let file: GroundingFile =
        serde_saphyr::from_str(text).map_err(|e| format!("it is no grounding: {e}"))?;
    serde_json::to_value(file).map_err(|e| e.to_string())
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}

fn lines(value: &Value) -> impl Iterator<Item = &str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

fn applied(look: &Look, project: &str, answer: &Value) -> String {
    let mut shown = format!(
        "{} {} {} is in force for {project}\n",
        look.paint(Tone::Good, "●"),
        text(answer, "name"),
        text(answer, "version")
    );
    shown.push_str(&constraints(look, answer));
    shown
}

fn constraints(look: &Look, grounding: &Value) -> String {
    let mut shown = String::new();
    for rule in lines(&grounding["enforced"]) {
        shown.push_str(&format!(
            "  {}  {rule}\n",
            look.paint(Tone::Good, "enforced    ")
        ));
    }
    for told in lines(&grounding["notEnforced"]) {
        let told = cut(told, LINE_CHARS_MAX);
        shown.push_str(&format!(
            "  {}  {told}\n",
            look.paint(Tone::Dim, "not enforced")
        ));
    }
    shown
}

fn listing(look: &Look, title: &str, answer: &Value) -> String {
    let groundings = answer
        .as_array()
        .filter(|groundings| !groundings.is_empty());
    let Some(groundings) = groundings else {
        return "No groundings: the project plans any action. Apply one with:  orchestrion grounding apply -f <file>\n"
            .to_owned();
    };
    let mut shown = title.to_owned();
    for grounding in groundings {
        shown.push_str(&format!(
            "{} {} {}\n",
            look.heading(text(grounding, "name")),
            text(grounding, "version"),
            look.paint(Tone::Dim, text(grounding, "domain"))
        ));
        for case in grounding["useCases"].as_array().into_iter().flatten() {
            let action = cut(text(case, "action"), LINE_CHARS_MAX);
            shown.push_str(&format!(
                "  {}  {action}\n",
                look.paint(Tone::Dim, "use case    ")
            ));
        }
        shown.push_str(&constraints(look, grounding));
        shown.push('\n');
    }
    shown
}

fn tested(look: &Look, answer: &Value) -> String {
    let mut shown = format!(
        "{} {}\n{}\n",
        look.heading(text(answer, "name")),
        text(answer, "version"),
        constraints(look, answer)
    );
    for warning in lines(&answer["warnings"]) {
        shown.push_str(&format!("{} {warning}\n", look.paint(Tone::Warning, "!")));
    }
    for case in answer["cases"].as_array().into_iter().flatten() {
        let (icon, tone) = match text(case, "outcome") {
            "planned" => ("●", Tone::Good),
            _ => ("✕", Tone::Bad),
        };
        shown.push_str(&format!(
            "{} {}: {}\n",
            look.paint(tone, icon),
            text(case, "outcome"),
            cut(text(case, "action"), LINE_CHARS_MAX)
        ));
        for line in text(case, "reason").lines() {
            shown.push_str(&format!("    {line}\n"));
        }
        for task in case["plan"]["tasks"].as_array().into_iter().flatten() {
            let after: Vec<_> = lines(&task["depends_on"]).collect();
            let after = if after.is_empty() {
                String::new()
            } else {
                look.paint(Tone::Dim, &format!("  after {}", after.join(", ")))
            };
            shown.push_str(&format!(
                "    {}  {}{after}\n",
                text(task, "id"),
                text(task, "service_name")
            ));
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cli::render::tests::plain;

    const FILE: &str = "
name: refunds
domain: e-commerce
version: 1.0
use-cases:
  - action: \"Process a refund for order {orderId}\"
    params:
      orderId: ORD123
    capabilities:
      - refund an order
    intent: Give the money back
constraints:
  - be kind
  - \"rule: check before refund\"
";

    #[test]
    fn yaml_and_json_say_the_same() {
        let expected = json!({
            "name": "refunds", "domain": "e-commerce", "version": "1.0",
            "useCases": [{
                "action": "Process a refund for order {orderId}", "params": {"orderId": "ORD123"},
                "capabilities": ["refund an order"], "intent": "Give the money back",
            }],
            "constraints": ["be kind", "rule: check before refund"],
        });
        assert_eq!(parse(FILE).unwrap(), expected);
        assert_eq!(parse(&expected.to_string()).unwrap(), expected);
    }

    #[test]
    fn what_is_no_grounding_is_told() {
        for (file, said) in [
            ("name: x", "missing"),
            ("{", ""),
            ("name: a\ndomain: b\nversion: c\nusecases: []", "usecases"),
        ] {
            let error = parse(file).unwrap_err();
            assert!(
                error.starts_with("it is no grounding") && error.contains(said),
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn whatever_a_file_holds_is_a_grounding_or_refused(
            at in 0..FILE.len(),
            cut in 0usize..40,
            noise in r#"([-:&*!|>{}\[\]'"\#%@`?,~\n ]|[a-z<0-9]|<<: \*a|&a |!!binary ){0,24}"#,
        ) {
            let end = (at + cut).min(FILE.len());
            let file = format!("{}{noise}{}", &FILE[..at], &FILE[end..]);
            if let Err(error) = parse(&file) {
                prop_assert!(error.starts_with("it is no grounding"), "{}", error);
            }
        }
    }

    /// Aliases that grow tenfold at each level, and brackets without end.
    #[test]
    fn a_file_that_would_fill_the_memory_is_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..10 {
            let ten = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{ten}]\n"));
        }
        let bombs = [
            format!("{bomb}constraints: *a9\n{FILE}"),
            "[".repeat(200_000),
            format!("name: {}", "{a: ".repeat(100_000)),
        ];
        for bomb in bombs {
            let error = parse(&bomb).unwrap_err();
            assert!(error.len() < 2_000, "{} characters", error.len());
        }
    }

    #[test]
    fn a_test_shows_plans_and_reasons() {
        let answer = json!({
            "name": "refunds", "version": "1.0", "enforced": ["check before refund"], "notEnforced": ["be kind"],
            "warnings": ["the rule names nobody"],
            "cases": [
                {"action": "a", "outcome": "planned", "plan": {"tasks": [
                    {"id": "task1", "service_name": "check", "depends_on": []},
                    {"id": "task2", "service_name": "refund", "depends_on": ["task1"]},
                ]}},
                {"action": "b", "outcome": "failed", "reason": "the rule is broken"},
            ],
        });
        assert_eq!(
            tested(&plain(), &answer),
            "refunds 1.0\n  enforced      check before refund\n  not enforced  be kind\n\n! the rule names nobody\n\
             ● planned: a\n    task1  check\n    task2  refund  after task1\n✕ failed: b\n    the rule is broken\n"
        );
    }

    #[test]
    fn a_listing_says_what_is_enforced() {
        assert!(listing(&plain(), "", &Value::Null).contains("plans any action"));
        let groundings = json!([{
            "name": "refunds", "version": "1.0", "domain": "shop", "useCases": [{"action": "refund {x}"}],
            "enforced": ["a before b"], "notEnforced": [],
        }]);
        assert_eq!(
            listing(&plain(), "", &groundings),
            "refunds 1.0 shop\n  use case      refund {x}\n  enforced      a before b\n\n"
        );
    }
}
