//! `orchestrion fork`: the same plan once more, from one task on.

use clap::Args;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::CliError;
use super::{Session, client, follow, show, show_json};

/// What to fork.
#[derive(Debug, Args)]
pub struct ForkArgs {
    /// The orchestration's id
    pub id: String,
    /// The task from which it runs anew
    #[arg(long, value_name = "TASK")]
    pub from: String,
    /// Members of that task's input, in place of those it had: a JSON object
    #[arg(long, value_name = "JSON")]
    pub input: Option<String>,
    /// Follow the fork to its end
    #[arg(short, long)]
    pub follow: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Forked {
    execution_id: String,
    taken_over: Vec<String>,
    to_run: Vec<String>,
}

/// Forks it.
pub async fn run(session: &Session, args: ForkArgs) -> Result<(), CliError> {
    let input = args.input.as_deref().map(object).transpose()?;
    let target = session.target().await?;
    let body = json!({"from": args.from, "input": input});
    let path = ["v1", "orchestrations", &args.id, "fork"];
    let answer = target
        .client
        .post(&path, Some(&body), HeaderMap::new())
        .await?;
    let forked: Forked = client::read(&answer)?;
    if session.json && !args.follow {
        return show_json(&answer);
    }
    if !session.json {
        show(&told(&args.id, &forked))?;
    }
    if args.follow {
        follow::to_the_end(session, &target.client, &forked.execution_id, false).await?;
    }
    Ok(())
}

fn object(text: &str) -> Result<Value, CliError> {
    serde_json::from_str(text)
        .ok()
        .filter(Value::is_object)
        .ok_or_else(|| {
            CliError::Usage(format!(
                "--input is {text:?}: give a JSON object such as '{{\"amount\":5}}'"
            ))
        })
}

fn told(of: &str, forked: &Forked) -> String {
    let list = |tasks: &[String]| match tasks {
        [] => "nothing".to_owned(),
        tasks => tasks.join(", "),
    };
    format!(
        "Forked {of}: {}\n  runs        {}\n  taken over  {}\n",
        forked.execution_id,
        list(&forked.to_run),
        list(&forked.taken_over)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_input_is_an_object() {
        assert!(object("{\"a\":1}").is_ok());
        for wrong in ["", "1", "[1]", "{a:1}"] {
            assert!(object(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_runs_and_what_does_not_is_told() {
        let forked = Forked {
            execution_id: "o_2".into(),
            taken_over: vec!["task1".into()],
            to_run: vec!["task2".into(), "task3".into()],
        };
        assert_eq!(
            told("o_1", &forked),
            "Forked o_1: o_2\n  runs        task2, task3\n  taken over  task1\n"
        );
    }
}
