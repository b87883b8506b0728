//! `orchestrion comp-fail`: what could not be undone, what people decide about it, and reverts that are run again.

use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::CliError;
use super::render::{self, Column, Look, NOTHING, Tone, cut, mark, words};
use super::wire::{or_default, time};
use super::{Session, Target, client, show, show_json, webhooks};
use crate::seams;

/// How much of a failure is shown in a list.
const FAILURE_LENGTH: usize = 200;
/// Between two looks at a retry that is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(300);

/// Look at compensations that failed, and decide about them.
#[derive(Debug, Subcommand)]
pub enum CompFailCommand {
    /// List them, newest first; only those nobody has decided about, unless told otherwise
    #[command(alias = "list")]
    Ls {
        /// Only of orchestrations whose id contains this
        #[arg(short, long, value_name = "TEXT")]
        orchestration: Option<String>,
        /// Only of services whose name contains this
        #[arg(short, long, value_name = "TEXT")]
        service: Option<String>,
        /// Only in this state
        #[arg(short, long, value_enum)]
        resolution: Option<Resolution>,
        /// At most so many
        #[arg(short, long, default_value_t = 20)]
        limit: usize,
        /// In any state, and as many as there are
        #[arg(long)]
        all: bool,
        /// Show the orchestrations, and failures whole
        #[arg(short, long)]
        wide: bool,
    },
    /// Show one, with its data
    Inspect {
        /// Its id
        id: String,
    },
    /// Note that it is settled: undone by hand, or of no matter
    Resolve {
        /// Its id
        id: String,
        /// How it was settled
        #[arg(short, long, value_name = "TEXT")]
        reason: String,
    },
    /// Note that it stays as it is
    Ignore {
        /// Its id
        id: String,
        /// Why
        #[arg(short, long, value_name = "TEXT")]
        reason: String,
    },
    /// Have its service run the revert again
    Retry {
        /// Its id
        id: String,
        /// Wait for what comes of it
        #[arg(short, long)]
        wait: bool,
    },
    /// The URLs that are told of compensations that failed
    #[command(subcommand)]
    Webhooks(webhooks::WebhooksCommand),
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Resolution {
    /// Nothing yet
    Pending,
    /// It is settled
    Resolved,
    /// It stays as it is
    Ignored,
}

impl Resolution {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Resolved => "resolved",
            Self::Ignored => "ignored",
        }
    }
}

/// A record, as far as it is shown.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Record {
    id: String,
    orchestration_id: String,
    task_id: String,
    service_id: String,
    service_name: String,
    status: String,
    resolution_state: String,
    failure: String,
    resolution: String,
    attempts_made: i64,
    max_attempts: i64,
    #[serde(deserialize_with = "time")]
    timestamp: Option<Timestamp>,
    #[serde(deserialize_with = "time")]
    resolved_at: Option<Timestamp>,
    #[serde(deserialize_with = "or_default")]
    compensation_data: Value,
    #[serde(deserialize_with = "or_default")]
    retries: Vec<Retry>,
}

/// A revert that was run again.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Retry {
    id: String,
    #[serde(deserialize_with = "time")]
    requested_at: Option<Timestamp>,
    status: String,
    failure: String,
}

/// Which of them are listed.
struct Filter<'a> {
    orchestration: &'a str,
    service: String,
    resolution: Option<Resolution>,
    limit: usize,
}

impl Filter<'_> {
    fn keeps(&self, record: &Record) -> bool {
        let state = match record.resolution_state.as_str() {
            "" => "pending",
            state => state,
        };
        record.orchestration_id.contains(self.orchestration)
            && record.service_name.to_lowercase().contains(&self.service)
            && self
                .resolution
                .is_none_or(|wanted| wanted.as_str() == state)
    }
}

/// Runs one of them.
pub async fn run(session: &Session, command: CompFailCommand) -> Result<(), CliError> {
    match command {
        CompFailCommand::Ls {
            orchestration,
            service,
            resolution,
            limit,
            all,
            wide,
        } => {
            let target = session.target().await?;
            let filter = Filter {
                orchestration: orchestration.as_deref().unwrap_or_default(),
                service: service.unwrap_or_default().to_lowercase(),
                resolution: match (resolution, all) {
                    (None, false) => Some(Resolution::Pending),
                    (resolution, _) => resolution,
                },
                limit: if all { usize::MAX } else { limit },
            };
            list(session, &target, &filter, wide).await
        }
        CompFailCommand::Inspect { id } => {
            let target = session.target().await?;
            let answer = target
                .client
                .get(&["compensation-failures", &id], &[])
                .await?;
            tell(session, &answer, detail)
        }
        CompFailCommand::Resolve { id, reason } => decide(session, &id, "resolve", reason).await,
        CompFailCommand::Ignore { id, reason } => decide(session, &id, "ignore", reason).await,
        CompFailCommand::Retry { id, wait } => retry(session, &id, wait).await,
        CompFailCommand::Webhooks(command) => {
            webhooks::run(session, command, webhooks::List::CompensationFailures).await
        }
    }
}

/// What became of the compensations of one orchestration that failed: the orchestration itself does not know.
pub async fn of_orchestration(look: &Look, target: &Target, id: &str) -> Result<String, CliError> {
    let answer = target.client.get(&["compensation-failures"], &[]).await?;
    let all: Vec<Record> = client::read::<Option<Vec<Record>>>(&answer)?.unwrap_or_default();
    let its: Vec<&Record> = all.iter().filter(|it| it.orchestration_id == id).collect();
    if its.is_empty() {
        return Ok(String::new());
    }
    let mut text = format!("\n{}\n\n", look.heading("Reverts that failed"));
    for record in its {
        let (tone, state) = resolution(&record.resolution_state);
        let more = match record.resolution_state.as_str() {
            "resolved" | "ignored" => record.resolution.clone(),
            _ => format!("orchestrion comp-fail retry {}", record.id),
        };
        text.push_str(&format!(
            "  {}  {}  {}\n",
            look.paint(Tone::Strong, &record.task_id),
            look.paint(tone, &state),
            look.paint(Tone::Dim, &more)
        ));
    }
    Ok(text)
}

async fn list(
    session: &Session,
    target: &Target,
    filter: &Filter<'_>,
    wide: bool,
) -> Result<(), CliError> {
    let answer = target.client.get(&["compensation-failures"], &[]).await?;
    let all: Vec<Value> = client::read::<Option<Vec<Value>>>(&answer)?.unwrap_or_default();
    let total = all.len();
    let mut kept = Vec::new();
    for value in all {
        let record: Record = client::read(&value)?;
        if filter.keeps(&record) && kept.len() < filter.limit {
            kept.push((value, record));
        }
    }
    if session.json {
        let values: Vec<Value> = kept.into_iter().map(|(value, _)| value).collect();
        return show_json(&Value::Array(values));
    }
    if kept.is_empty() {
        return show(&match total {
            0 => format!("No compensation failures of {}\n", target.name),
            _ => format!(
                "No such compensation failures of {}, of {total} in all:  orchestrion comp-fail ls --all\n",
                target.name
            ),
        });
    }
    let records: Vec<Record> = kept.into_iter().map(|(_, record)| record).collect();
    show(&format!(
        "{}{}",
        session.title("Compensation failures", target),
        listing(&session.look, &records, wide)
    ))
}

async fn decide(session: &Session, id: &str, verb: &str, reason: String) -> Result<(), CliError> {
    if reason.trim().is_empty() {
        return Err(CliError::Usage(
            "the reason is blank: say in a few words how it was settled".into(),
        ));
    }
    let target = session.target().await?;
    let answer = target
        .client
        .post(
            &["compensation-failures", id, verb],
            Some(&json!({ "reason": reason })),
            Default::default(),
        )
        .await?;
    tell(session, &answer, |look, record| {
        format!(
            "{} {} is {}: {}\n",
            look.paint(Tone::Good, "●"),
            look.heading(&record.id),
            record.resolution_state,
            record.resolution
        )
    })
}

async fn retry(session: &Session, id: &str, wait: bool) -> Result<(), CliError> {
    let target = session.target().await?;
    let route = ["compensation-failures", id];
    let mut answer = target
        .client
        .post(&[route[0], id, "retry"], None, Default::default())
        .await?;
    let asked: Record = client::read(&answer)?;
    let Some(execution) = asked.retries.last().map(|retry| retry.id.clone()) else {
        return Err(CliError::Failed(
            "the server does not say what it runs: are both of the same version?".into(),
        ));
    };
    if !wait {
        return tell(session, &answer, |look, record| {
            format!(
                "{} The revert of {} is run again, as {}\n{}",
                look.paint(Tone::Active, "◎"),
                look.heading(&record.id),
                look.heading(&execution),
                look.paint(
                    Tone::Dim,
                    &format!(
                        "  What came of it:  orchestrion comp-fail inspect {}\n",
                        record.id
                    )
                )
            )
        });
    }
    loop {
        let record: Record = client::read(&answer)?;
        let ended = record
            .retries
            .iter()
            .find(|retry| retry.id == execution && retry.status != "processing");
        if let Some(ended) = ended {
            let undone = matches!(ended.status.as_str(), "completed" | "partial");
            tell(session, &answer, detail)?;
            return if undone {
                Ok(())
            } else {
                Err(CliError::Failed(format!(
                    "the revert is not done: {}",
                    if ended.failure.is_empty() {
                        &ended.status
                    } else {
                        &ended.failure
                    }
                )))
            };
        }
        seams::sleep(LOOK_INTERVAL).await;
        answer = target.client.get(&route, &[]).await?;
    }
}

fn tell(
    session: &Session,
    answer: &Value,
    words: impl FnOnce(&Look, &Record) -> String,
) -> Result<(), CliError> {
    if session.json {
        return show_json(answer);
    }
    show(&words(&session.look, &client::read(answer)?))
}

/// The icon of a decision, as orra's command line has it.
fn resolution(state: &str) -> (Tone, String) {
    let (icon, tone) = match state {
        "resolved" => ("●", Tone::Good),
        "ignored" => ("⊖", Tone::Dim),
        _ => ("○", Tone::Warning),
    };
    (
        tone,
        format!(
            "{icon} {}",
            words(if state.is_empty() { "pending" } else { state })
        ),
    )
}

fn listing(look: &Look, records: &[Record], wide: bool) -> String {
    let mut columns = vec![
        Column::whole("ID"),
        Column::text("TASK"),
        Column::whole("STATUS"),
        Column::whole("RESOLUTION"),
        Column::whole("AT"),
    ];
    if wide {
        columns.push(Column::whole("ORCHESTRATION"));
        columns.push(Column::text("FAILURE"));
    }
    let rows = records.iter().map(|record| {
        let (icon, tone) = mark(&record.status);
        let mut row = vec![
            (Tone::Plain, record.id.clone()),
            (
                Tone::Plain,
                format!("{} {}", record.task_id, record.service_name),
            ),
            (tone, format!("{icon} {}", words(&record.status))),
            resolution(&record.resolution_state),
            (Tone::Dim, look.age(record.timestamp)),
        ];
        if wide {
            row.push((Tone::Plain, record.orchestration_id.clone()));
            row.push((Tone::Bad, cut(&record.failure, FAILURE_LENGTH)));
        }
        row
    });
    look.table(&columns, rows.collect())
}

fn detail(look: &Look, record: &Record) -> String {
    let (icon, tone) = mark(&record.status);
    let (decided, decision) = resolution(&record.resolution_state);
    let mut lines = vec![
        ("Orchestration", record.orchestration_id.clone()),
        ("Task", record.task_id.clone()),
        (
            "Service",
            format!("{} ({})", record.service_name, record.service_id),
        ),
        (
            "Status",
            look.paint(tone, &format!("{icon} {}", words(&record.status))),
        ),
        (
            "Attempts",
            format!("{} of {}", record.attempts_made, record.max_attempts),
        ),
        ("Failed", look.moment(record.timestamp)),
        (
            "Failure",
            if record.failure.is_empty() {
                NOTHING.to_owned()
            } else {
                record.failure.clone()
            },
        ),
        ("Resolution", look.paint(decided, &decision)),
    ];
    if !record.resolution.is_empty() {
        lines.push(("Reason", record.resolution.clone()));
        lines.push(("Decided", look.moment(record.resolved_at)));
    }
    let mut text = format!(
        "{}\n\n",
        look.heading(&format!("Compensation failure {}", record.id))
    );
    for (name, value) in lines {
        text.push_str(&format!(
            "  {} {value}\n",
            look.paint(Tone::Dim, &format!("{name:<14}"))
        ));
    }
    if !record.retries.is_empty() {
        text.push_str(&format!("\n{}\n\n", look.heading("Run again")));
        for retry in &record.retries {
            let failure = match retry.failure.as_str() {
                "" => String::new(),
                failure => format!(": {failure}"),
            };
            text.push_str(&format!(
                "  {} {} {}{failure}\n",
                look.moment(retry.requested_at),
                retry.id,
                look.status(&retry.status)
            ));
        }
    }
    for (title, member) in [("Data", "data"), ("Context", "context")] {
        let value = record.compensation_data.get(member).unwrap_or(&Value::Null);
        text.push_str(&format!(
            "\n{}\n\n{}",
            look.heading(title),
            render::json(value, 2)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::tests::plain;

    /// As orra 0.2.6 writes one.
    fn orras() -> Record {
        serde_json::from_value(json!({
            "id":"c_1","projectId":"p_1","orchestrationId":"o_abc","taskId":"task1","serviceId":"s_a","serviceName":"Inventory",
            "compensationData":{"data":{"originalTask":{"n":1}},"context":{"reason":"failed"},"ttl":5},
            "status":"failed","resolutionState":"pending","failure":"no\nway","attemptsMade":10,"maxAttempts":10,
            "timestamp":"2026-03-04T11:00:00Z","resolvedAt":"0001-01-01T00:00:00Z"
        }))
        .unwrap()
    }

    fn filter(
        orchestration: &'static str,
        service: &str,
        resolution: Option<Resolution>,
    ) -> Filter<'static> {
        Filter {
            orchestration,
            service: service.to_owned(),
            resolution,
            limit: 20,
        }
    }

    #[test]
    fn filters() {
        let record = orras();
        let pending = Some(Resolution::Pending);
        assert!(filter("", "", pending).keeps(&record));
        assert!(filter("ab", "invent", None).keeps(&record));
        assert!(!filter("xy", "", None).keeps(&record));
        assert!(!filter("", "pay", None).keeps(&record));
        assert!(!filter("", "", Some(Resolution::Ignored)).keeps(&record));
        let bare = Record::default();
        assert!(filter("", "", pending).keeps(&bare), "no state is pending");
    }

    #[test]
    fn a_list_of_them() {
        assert_eq!(
            listing(&plain(), &[orras()], false),
            "  ID   TASK             STATUS    RESOLUTION  AT\n  \
             c_1  task1 Inventory  ✕ Failed  ○ Pending   1h\n"
        );
        let wide = listing(&plain(), &[orras()], true);
        assert!(wide.contains("o_abc") && wide.contains("no way"), "{wide}");
    }

    #[test]
    fn a_list_fits_a_narrow_screen() {
        let mut record = orras();
        record.id = format!("c_{}", "x".repeat(22));
        record.service_name = "a-service-with-quite-a-long-name".into();
        let narrow = Look {
            width: Some(80),
            ..plain()
        };
        let text = listing(&narrow, &[record], false);
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
    }

    #[test]
    fn one_of_them_with_what_was_done() {
        let mut record = orras();
        record.resolution_state = "resolved".into();
        record.resolution = "by hand".into();
        record.retries.push(Retry {
            id: "r_1".into(),
            status: "failed".into(),
            failure: "still no".into(),
            ..Retry::default()
        });
        let text = detail(&plain(), &record);
        for part in [
            "Compensation failure c_1\n",
            "  Attempts       10 of 10\n",
            "  Resolution     ● Resolved\n",
            "  Reason         by hand\n",
            "r_1 ✕ Failed: still no\n",
            "\"originalTask\"",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    }
}
