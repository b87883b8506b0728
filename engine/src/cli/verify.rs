//! `orchestrion verify run` (`verify webhooks` stands in `receive`): submit an action, show the plan, and follow it to its end if wanted.

use std::io::{self, Read};
use std::path::Path;

use clap::{Args, Subcommand};
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Map, Value, json};

use super::error::CliError;
use super::input::{self, Parameter};
use super::render::{Column, Look, Tone, cut, json_line};
use super::wire::{Plan, PlannedTask, Submitted};
use super::{Session, client, follow, show, show_json};

/// How much of one input is shown in the plan.
const INPUT_LENGTH: usize = 40;

/// Submit actions.
#[derive(Debug, Subcommand)]
pub enum VerifyCommand {
    /// Submit an action
    Run(RunArgs),
    /// Receive webhooks on this machine
    #[command(subcommand)]
    Webhooks(super::receive::ReceiveCommand),
}

/// An action, and how to run it.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// What to do, in plain words
    pub action: String,

    /// A parameter, name:value or name:=json; may be repeated
    ///
    /// A value is a plain string, whatever it looks like: `quantity:3` and `greeting:Hello, world` are strings (a comma
    /// makes no list). A value that is a JSON object, array or quoted string is taken as that: `item:{"id":7}`,
    /// `tags:["a","b"]`. After `:=` comes any JSON: `quantity:=3`, `gift:=true`, `note:=null`.
    #[arg(short, long = "data", value_name = "NAME:VALUE", value_parser = input::parameter)]
    pub data: Vec<Parameter>,

    /// How long one attempt of a task may take, such as 45s or 2m [default: the server's, 30s]
    #[arg(short, long, value_name = "DURATION", value_parser = input::duration)]
    pub timeout: Option<String>,

    /// How long a task waits for a service that is offline [default: the server's, 30m]
    #[arg(short = 'g', long, value_name = "DURATION", value_parser = input::duration)]
    pub health_check_grace_period: Option<String>,

    /// A URL that the result is posted to as well, beside the project's webhooks
    #[arg(short, long, value_name = "URL")]
    pub webhook: Option<String>,

    /// A file with the plan to run instead of asking a planner (JSON; `-` is standard input)
    #[arg(long, value_name = "FILE")]
    pub plan: Option<String>,

    /// Show progress until the end; the exit code tells how it ended
    #[arg(short, long)]
    pub follow: bool,

    /// Print the id and nothing else
    #[arg(short, long)]
    pub quiet: bool,

    /// The same key again gives the same orchestration, not a second one
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

/// Submits it.
pub async fn run(session: &Session, args: RunArgs) -> Result<(), CliError> {
    let plan = match &args.plan {
        Some(file) => Some(read_plan(file)?),
        None => None,
    };
    let body = submission(&args, plan)?;
    let mut headers = HeaderMap::new();
    if let Some(key) = &args.idempotency_key {
        let value = HeaderValue::from_str(key).map_err(|_| {
            CliError::Usage(
                "--idempotency-key holds characters that no HTTP header can carry".into(),
            )
        })?;
        headers.insert("idempotency-key", value);
    }
    let target = session.target().await?;
    let answer = target
        .client
        .post(&["orchestrations"], Some(&body), headers)
        .await
        .map_err(|error| {
            if args.follow {
                not_actionable(error)
            } else {
                error
            }
        })?;
    let submitted: Submitted = client::read(&answer)?;

    if session.json {
        if args.follow {
            return follow::to_the_end(session, &target.client, &submitted.id, true).await;
        }
        return show_json(&answer);
    }
    if args.quiet {
        show(&format!("{}\n", submitted.id))?;
    } else {
        let next = if args.follow {
            String::new()
        } else {
            session.look.paint(
                Tone::Dim,
                &format!(
                    "\n  See how it goes:  orchestrion inspect {}\n",
                    submitted.id
                ),
            )
        };
        show(&format!(
            "Created orchestration: {}\n{}{next}",
            session.look.heading(&submitted.id),
            plan_table(&session.look, &submitted.plan)
        ))?;
    }
    if args.follow {
        follow::to_the_end(session, &target.client, &submitted.id, args.quiet).await?;
    }
    Ok(())
}

/// The body of `POST /orchestrations`.
fn submission(args: &RunArgs, plan: Option<Value>) -> Result<Value, CliError> {
    if args.action.trim().is_empty() {
        return Err(CliError::Usage(
            "the action is blank: say what to do, in plain words".into(),
        ));
    }
    input::distinct(&args.data).map_err(CliError::Usage)?;
    let mut body = Map::new();
    body.insert("action".into(), json!({ "content": args.action }));
    body.insert("data".into(), json!(args.data));
    if let Some(timeout) = &args.timeout {
        body.insert("timeout".into(), json!(timeout));
    }
    if let Some(grace) = &args.health_check_grace_period {
        body.insert("healthCheckGracePeriod".into(), json!(grace));
    }
    if let Some(webhook) = &args.webhook {
        body.insert("webhook".into(), json!(webhook));
    }
    if let Some(plan) = plan {
        body.insert("plan".into(), plan);
    }
    Ok(Value::Object(body))
}

fn read_plan(file: &str) -> Result<Value, CliError> {
    let (name, text) = if file == "-" {
        let mut text = String::new();
        let read = io::stdin().lock().read_to_string(&mut text);
        ("standard input", read.map(|_| text))
    } else {
        (file, std::fs::read_to_string(Path::new(file)))
    };
    let text =
        text.map_err(|e| CliError::Usage(format!("cannot read the plan from {name}: {e}")))?;
    input::plan(&text, name).map_err(CliError::Usage)
}

/// To somebody who follows, an action that is refused as not actionable has ended as that.
fn not_actionable(error: CliError) -> CliError {
    match error {
        CliError::Refused { refusal, .. } if refusal.code == "Orra:ActionNotActionable" => {
            let reason = refusal
                .message
                .strip_prefix("preparation failed with status not_actionable: ")
                .unwrap_or(&refusal.message);
            CliError::NotActionable(reason.to_owned())
        }
        error => error,
    }
}

/// The plan, a step for each group of tasks that run together.
fn plan_table(look: &Look, plan: &Plan) -> String {
    if plan.tasks.is_empty() {
        return String::new();
    }
    let mut rows = Vec::new();
    let mut left: Vec<&PlannedTask> = plan.tasks.iter().collect();
    for (index, group) in plan.parallel_groups.iter().enumerate() {
        let (now, later): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|task| group.contains(&task.id));
        left = later;
        for (place, task) in now.into_iter().enumerate() {
            let step = if place == 0 {
                (index + 1).to_string()
            } else {
                String::new()
            };
            rows.push(plan_row(step, task));
        }
    }
    // The groups are a server's word; a task in none of them is still part of the plan.
    rows.extend(left.into_iter().map(|task| plan_row(String::new(), task)));
    let columns = [
        Column::whole("STEP"),
        Column::whole("TASK"),
        Column::whole("SERVICE"),
        Column::text("INPUT"),
    ];
    format!("\n{}", look.table(&columns, rows))
}

fn plan_row(step: String, task: &PlannedTask) -> Vec<(Tone, String)> {
    let service = if task.service_name.is_empty() {
        &task.service
    } else {
        &task.service_name
    };
    let input = match &task.input {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| format!("{name}={}", json_line(value, INPUT_LENGTH)))
            .collect::<Vec<_>>()
            .join("  "),
        Value::Null => String::new(),
        other => cut(&other.to_string(), INPUT_LENGTH),
    };
    vec![
        (Tone::Dim, step),
        (Tone::Strong, task.id.clone()),
        (Tone::Plain, service.clone()),
        (Tone::Dim, input),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::error::Refusal;
    use crate::cli::render::tests::plain;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn args(line: &[&str]) -> RunArgs {
        let line = [&["orchestrion", "verify", "run"], line].concat();
        match Cli::try_parse_from(line).unwrap().command {
            Command::Verify(VerifyCommand::Run(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_action_alone_is_sent_with_empty_data() {
        assert_eq!(
            submission(&args(&["ship it"]), None).unwrap(),
            json!({"action":{"content":"ship it"},"data":[]})
        );
    }

    #[test]
    fn everything_at_once() {
        let args = args(&[
            "ship it",
            "-d",
            "to:Hello, world",
            "-d",
            "n:=3",
            "-t",
            "45s",
            "-g",
            "1m0s",
            "-q",
            "-f",
            "--idempotency-key",
            "k1",
        ]);
        assert!(args.quiet && args.follow);
        assert_eq!(
            submission(&args, Some(json!({"tasks":[]}))).unwrap(),
            json!({
                "action":{"content":"ship it"},
                "data":[{"field":"to","value":"Hello, world"},{"field":"n","value":3}],
                "timeout":"45s","healthCheckGracePeriod":"1m0s","plan":{"tasks":[]}
            })
        );
    }

    #[test]
    fn a_blank_action_and_a_doubled_parameter_are_usage_errors() {
        assert_eq!(submission(&args(&["  "]), None).unwrap_err().code(), 2);
        let twice = args(&["x", "-d", "a:1", "-d", "a:2"]);
        assert_eq!(submission(&twice, None).unwrap_err().code(), 2);
    }

    #[test]
    fn a_plan_that_cannot_be_read_says_which() {
        let error = read_plan("/nonexistent/plan.json").unwrap_err();
        assert_eq!(error.code(), 2);
        assert!(
            error.to_string().contains("/nonexistent/plan.json"),
            "{error}"
        );
    }

    #[test]
    fn not_actionable_is_told_apart_by_its_code() {
        let refused = |code: &str| CliError::Refused {
            status: 400,
            refusal: Refusal {
                code: code.into(),
                message: "preparation failed with status not_actionable: no service flies".into(),
                ..Refusal::default()
            },
        };
        let error = not_actionable(refused("Orra:ActionNotActionable"));
        assert_eq!(error.code(), 6);
        assert_eq!(
            error.to_string(),
            "the action is not actionable: no service flies"
        );
        assert_eq!(
            not_actionable(refused("Orra:ActionCannotExecute")).code(),
            1
        );
    }

    #[test]
    fn the_plan_shows_what_runs_together() {
        let submitted: Submitted = serde_json::from_value(json!({
            "id":"o_1","projectID":"p_1","status":"pending","results":null,
            "plan":{"tasks":[
                {"id":"task1","service":"s_a","service_name":"inventory","input":{"sku":"$task0.sku","n":2}},
                {"id":"task2","service":"s_b","service_name":"payment","input":{"amount":"$task0.amount"}},
                {"id":"task3","service":"s_c","input":{"receipt":"$task2.receipt"}}],
              "parallel_groups":[["task1","task2"],["task3"]]}
        }))
        .unwrap();
        assert_eq!(
            plan_table(&plain(), &submitted.plan),
            "\n\
             \u{20} STEP  TASK   SERVICE    INPUT\n\
             \u{20} 1     task1  inventory  sku=$task0.sku  n=2\n\
             \u{20}       task2  payment    amount=$task0.amount\n\
             \u{20} 2     task3  s_c        receipt=$task2.receipt\n"
        );
        let none: Submitted = serde_json::from_value(json!({"id":"o_1","plan":null})).unwrap();
        assert_eq!(plan_table(&plain(), &none.plan), "");
    }
}
