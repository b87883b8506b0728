//! `orchestrion webhooks`, and `orchestrion comp-fail webhooks`: the URLs that are told, their secrets, and what came of each try.
//!
//! Secrets are remembered on this machine, in the file that only its owner can read: `verify webhooks start` checks signatures by them.

use clap::Subcommand;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::config::Project;
use super::error::CliError;
use super::render::{Column, Look, Tone, cut, duration};
use super::wire::time;
use super::{Session, Target, client, show, show_json};

/// How much of an error is shown in a list.
const ERROR_LENGTH: usize = 80;
/// Where secrets of submissions' own webhooks are remembered.
pub const SUBMISSIONS: &str = "submissions";

/// Add, list and remove webhooks, change their secrets, and see what came of deliveries.
#[derive(Debug, Subcommand)]
pub enum WebhooksCommand {
    /// Have them posted to a URL
    Add {
        /// Where to post them
        url: String,
    },
    /// List them
    #[command(alias = "list")]
    Ls,
    /// Take one away
    #[command(alias = "remove")]
    Rm {
        /// Its id, or its URL where that is told once
        webhook: String,
    },
    /// Make a new secret; the one before signs along for a while
    Rotate {
        /// Its id, or its URL where that is told once; `submissions` for what signs for `verify run --webhook`
        webhook: String,
        /// How long the one before signs along, such as 1h or 24h
        #[arg(long, value_name = "DURATION", value_parser = super::input::duration, default_value = "24h")]
        overlap: String,
    },
    /// Show its last deliveries, each try of them, newest first
    Deliveries {
        /// Its id, or its URL where that is told once
        webhook: String,
        /// At most so many
        #[arg(short, long, default_value_t = 20)]
        limit: usize,
    },
}

/// Of which list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// Told of the ends of orchestrations.
    Results,
    /// Told of compensations that failed.
    CompensationFailures,
}

impl List {
    fn route(self) -> &'static str {
        match self {
            Self::Results => "webhooks",
            Self::CompensationFailures => "compensation-failure-webhooks",
        }
    }

    fn command(self) -> &'static str {
        match self {
            Self::Results => "webhooks",
            Self::CompensationFailures => "comp-fail webhooks",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Self::Results => "results",
            Self::CompensationFailures => "compensation failures",
        }
    }

    fn told_of(self) -> &'static str {
        match self {
            Self::Results => "Results",
            Self::CompensationFailures => "Compensation failures",
        }
    }

    fn remembered(self, project: &mut Project) -> &mut Vec<String> {
        match self {
            Self::Results => &mut project.webhooks,
            Self::CompensationFailures => &mut project.compensation_failure_webhooks,
        }
    }
}

/// A webhook, as far as it is shown.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Webhook {
    /// Its id.
    pub id: String,
    /// Where it is; empty for the signer of submissions' own.
    pub url: String,
    topic: String,
    #[serde(deserialize_with = "time")]
    created_at: Option<Timestamp>,
    #[serde(deserialize_with = "time")]
    rotated_at: Option<Timestamp>,
    #[serde(deserialize_with = "time")]
    previous_secret_until: Option<Timestamp>,
}

/// A try, as far as it is shown.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Try {
    event_id: String,
    event_type: String,
    #[serde(deserialize_with = "time")]
    timestamp: Option<Timestamp>,
    attempt: i64,
    duration_ms: i64,
    status: Option<i64>,
    delivered: bool,
    error: String,
}

/// Runs one of them.
pub async fn run(session: &Session, command: WebhooksCommand, list: List) -> Result<(), CliError> {
    let target = session.target().await?;
    match command {
        WebhooksCommand::Add { url } => add(session, &target, list, &url).await,
        WebhooksCommand::Ls => {
            let answer = target.client.get(&[list.route()], &[]).await?;
            if session.json {
                return show_json(&answer);
            }
            let webhooks: Vec<Webhook> = client::read(&answer)?;
            show(&listing(session, &target, list, &webhooks))
        }
        WebhooksCommand::Rm { webhook } => {
            let found = find(&target, list, &webhook).await?;
            target.client.delete(&["webhooks", &found.id], &[]).await?;
            session.file.change(|config| {
                let project = config.project_mut(&target.name)?;
                list.remembered(project).retain(|url| *url != found.url);
                project.webhook_secrets.remove(&found.id);
                Ok(())
            })?;
            if session.json {
                return show_json(&json!({ "removed": found.id, "url": found.url }));
            }
            show(&format!(
                "{} {} ({}) is not told any more\n",
                session.look.paint(Tone::Good, "●"),
                found.url,
                found.id
            ))
        }
        WebhooksCommand::Rotate { webhook, overlap } => {
            rotate(session, &target, list, &webhook, &overlap).await
        }
        WebhooksCommand::Deliveries { webhook, limit } => {
            let found = find(&target, list, &webhook).await?;
            let answer = target
                .client
                .get(&["webhooks", &found.id, "deliveries"], &[])
                .await?;
            let mut values: Vec<Value> = client::read(&answer)?;
            values.truncate(limit);
            if session.json {
                return show_json(&Value::Array(values));
            }
            if values.is_empty() {
                return show(&format!("Nothing was delivered to {} yet\n", found.url));
            }
            let tries: Vec<Try> = client::read(&Value::Array(values))?;
            show(&deliveries(&session.look, &tries))
        }
    }
}

async fn add(session: &Session, target: &Target, list: List, url: &str) -> Result<(), CliError> {
    let answer = target
        .client
        .post(
            &[list.route()],
            Some(&json!({ "url": url })),
            Default::default(),
        )
        .await?;
    let (id, secret) = (text(&answer, "id"), text(&answer, "secret"));
    session.file.change(|config| {
        let project = config.project_mut(&target.name)?;
        let remembered = list.remembered(project);
        if !remembered.iter().any(|known| known == url) {
            remembered.push(url.to_owned());
        }
        if let (Some(id), Some(secret)) = (id, secret) {
            project
                .webhook_secrets
                .insert(id.to_owned(), vec![secret.to_owned()]);
        }
        Ok(())
    })?;
    if session.json {
        return show_json(&answer);
    }
    show(&added(&session.look, list, &target.name, url, &answer))
}

async fn rotate(
    session: &Session,
    target: &Target,
    list: List,
    webhook: &str,
    overlap: &str,
) -> Result<(), CliError> {
    let body = json!({ "overlap": overlap });
    let answer = if webhook == SUBMISSIONS {
        let route = ["submission-webhook-secret"];
        let sent = target.client.post(&route, Some(&body), Default::default());
        sent.await?
    } else {
        let found = find(target, list, webhook).await?;
        let route = ["webhooks", &found.id, "rotate"];
        let sent = target.client.post(&route, Some(&body), Default::default());
        sent.await?
    };
    let (id, secret) = (
        text(&answer, "id").unwrap_or_default(),
        text(&answer, "secret").unwrap_or_default(),
    );
    session.file.change(|config| {
        let project = config.project_mut(&target.name)?;
        let secrets = project.webhook_secrets.entry(id.to_owned()).or_default();
        // The one before signs along for a while.
        secrets.insert(0, secret.to_owned());
        secrets.truncate(2);
        Ok(())
    })?;
    if session.json {
        return show_json(&answer);
    }
    let until = text(&answer, "previousSecretUntil").and_then(|until| until.parse().ok());
    show(&format!(
        "{} {id} has a new signing secret, shown this once:  {secret}\n  {}\n",
        session.look.paint(Tone::Good, "●"),
        session.look.paint(
            Tone::Dim,
            &format!(
                "The one before signs along until {}.",
                session.look.instant(until)
            )
        )
    ))
}

/// The project's webhooks of a list.
pub async fn all(target: &Target, list: List) -> Result<Vec<Webhook>, CliError> {
    let answer = target.client.get(&[list.route()], &[]).await?;
    client::read(&answer)
}

async fn find(target: &Target, list: List, named: &str) -> Result<Webhook, CliError> {
    pick(all(target, list).await?, list, named)
}

fn pick(webhooks: Vec<Webhook>, list: List, named: &str) -> Result<Webhook, CliError> {
    let mut found: Vec<Webhook> = webhooks
        .into_iter()
        .filter(|webhook| webhook.id == named || webhook.url == named)
        .collect();
    match (found.pop(), found.is_empty()) {
        (Some(webhook), true) => Ok(webhook),
        (Some(_), false) => Err(CliError::Usage(format!(
            "{named} is told more than once: say which by its id (`orchestrion {} ls` shows them)",
            list.command()
        ))),
        (None, _) => Err(CliError::Usage(format!(
            "no webhook is called {named:?}: `orchestrion {} ls` shows what there is",
            list.command()
        ))),
    }
}

fn text<'a>(answer: &'a Value, member: &str) -> Option<&'a str> {
    answer.get(member).and_then(Value::as_str)
}

fn added(look: &Look, list: List, project: &str, url: &str, answer: &Value) -> String {
    let mut said = format!(
        "{} {} of {project} will be posted to {url}\n",
        look.paint(Tone::Good, "●"),
        list.told_of()
    );
    if let Some(secret) = text(answer, "secret") {
        said.push_str(&format!(
            "\n  Signing secret, shown this once:  {secret}\n  {}\n",
            look.paint(
                Tone::Dim,
                "Each delivery is signed with it as Standard Webhooks has it: check the webhook-signature header."
            )
        ));
    }
    said
}

fn listing(session: &Session, target: &Target, list: List, webhooks: &[Webhook]) -> String {
    if webhooks.is_empty() {
        return format!(
            "{} has no webhooks for {}. Add one with:  orchestrion {} add <url>\n",
            target.name,
            list.about(),
            list.command()
        );
    }
    format!(
        "{}{}",
        session.title("Webhooks", target),
        table(&session.look, webhooks)
    )
}

fn table(look: &Look, webhooks: &[Webhook]) -> String {
    let columns = [
        Column::whole("ID"),
        Column::text("URL"),
        Column::whole("ADDED"),
        Column::text("SECRET"),
    ];
    let rows = webhooks.iter().map(|webhook| {
        let url = if webhook.url.is_empty() {
            format!("(signs for the urls of submissions: {})", webhook.topic)
        } else {
            webhook.url.clone()
        };
        let secret = match (webhook.rotated_at, webhook.previous_secret_until) {
            (None, _) => "as added".to_owned(),
            (rotated, None) => format!("rotated {}", look.age(rotated)),
            (rotated, Some(_)) => format!("rotated {}, both sign", look.age(rotated)),
        };
        vec![
            (Tone::Plain, webhook.id.clone()),
            (Tone::Plain, url),
            (Tone::Dim, look.age(webhook.created_at)),
            (Tone::Dim, secret),
        ]
    });
    look.table(&columns, rows.collect())
}

fn deliveries(look: &Look, tries: &[Try]) -> String {
    let columns = [
        Column::whole("AT"),
        Column::text("EVENT"),
        Column::whole("TRY"),
        Column::whole("ANSWER"),
        Column::whole("TOOK"),
        Column::text("ERROR"),
    ];
    let rows = tries.iter().map(|tried| {
        let (icon, tone) = if tried.delivered {
            ("●", Tone::Good)
        } else {
            ("✕", Tone::Bad)
        };
        let status = tried
            .status
            .map_or_else(|| "none".to_owned(), |status| status.to_string());
        vec![
            (Tone::Dim, look.age(tried.timestamp)),
            (
                Tone::Plain,
                format!("{} {}", tried.event_type, tried.event_id),
            ),
            (Tone::Plain, tried.attempt.to_string()),
            (tone, format!("{icon} {status}")),
            (
                Tone::Plain,
                duration(tried.duration_ms.saturating_mul(1_000_000).max(1)),
            ),
            (Tone::Bad, cut(&tried.error, ERROR_LENGTH)),
        ]
    });
    look.table(&columns, rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::tests::plain;

    #[test]
    fn a_secret_is_shown_where_there_is_one() {
        let url = "http://h/hook";
        assert_eq!(
            added(&plain(), List::Results, "shop", url, &json!({ "url": url })),
            "● Results of shop will be posted to http://h/hook\n"
        );
        let signed = added(
            &plain(),
            List::CompensationFailures,
            "shop",
            url,
            &json!({ "url": url, "secret": "whsec_x" }),
        );
        assert!(signed.starts_with("● Compensation failures of"), "{signed}");
        assert!(signed.contains("shown this once:  whsec_x\n"), "{signed}");
    }

    #[test]
    fn a_webhook_is_named_by_id_or_by_its_url_where_that_is_clear() {
        let webhook = |id: &str, url: &str| Webhook {
            id: id.into(),
            url: url.into(),
            ..Webhook::default()
        };
        let all = vec![
            webhook("w_1", "http://a"),
            webhook("w_2", "http://b"),
            webhook("w_3", "http://b"),
        ];
        let picked = |named| pick(all.clone(), List::Results, named).map(|webhook| webhook.id);
        assert_eq!(picked("w_3").unwrap(), "w_3");
        assert_eq!(picked("http://a").unwrap(), "w_1");
        for (named, says) in [("http://b", "more than once"), ("w_9", "webhooks ls")] {
            let error = picked(named).unwrap_err();
            assert_eq!(error.code(), 2);
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn lists() {
        let webhooks: Vec<Webhook> = serde_json::from_value(json!([
            {"id":"w_1","url":"http://a","topic":"orchestration","createdAt":"2026-03-04T11:00:00Z"},
            {"id":"w_2","url":"","topic":"submission","createdAt":"2026-03-04T11:00:00Z",
             "rotatedAt":"2026-03-04T11:30:00Z","previousSecretUntil":"2026-03-05T11:30:00Z"}
        ]))
        .unwrap();
        let text = table(&plain(), &webhooks);
        assert!(text.contains("w_1  http://a "), "{text}");
        assert!(text.contains("rotated 30m, both sign"), "{text}");
        let tries: Vec<Try> = serde_json::from_value(json!([
            {"eventId":"o_1-completed-1","eventType":"orchestration.completed","timestamp":"2026-03-04T11:00:00Z",
             "attempt":2,"durationMs":31,"status":200,"delivered":true},
            {"eventId":"o_1-completed-1","eventType":"orchestration.completed","timestamp":"2026-03-04T10:59:00Z",
             "attempt":1,"durationMs":0,"delivered":false,"error":"connection refused"}
        ]))
        .unwrap();
        let text = deliveries(&plain(), &tries);
        assert!(text.contains("● 200   31ms"), "{text}");
        assert!(
            text.contains("✕ none") && text.contains("connection refused"),
            "{text}"
        );
    }
}
