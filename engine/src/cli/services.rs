//! `orchestrion services`: who works for the project, and whether they are there.

use clap::Subcommand;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::error::CliError;
use super::render::{Column, Look, NOTHING, Tone};
use super::wire::time;
use super::{Session, client, show, show_json};

/// List and delete services and agents.
#[derive(Debug, Subcommand)]
pub enum ServicesCommand {
    /// List them with their health
    #[command(alias = "list")]
    Ls {
        /// Show kinds, versions, and when they registered
        #[arg(short, long)]
        wide: bool,
    },
    /// Show one with its schemas (JSON)
    Inspect {
        /// Its id, or its name where only one is called so
        service: String,
    },
    /// Delete one: the planner is not offered it any more, and its connections are closed
    #[command(alias = "remove")]
    Rm {
        /// Its id, or its name where only one is called so
        service: String,
        /// Also when it is connected, or tasks wait for it: those fail when their grace period ends
        #[arg(long)]
        force: bool,
    },
}

/// A service, as far as it is shown.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Service {
    id: String,
    name: String,
    kind: String,
    version: i64,
    revertible: bool,
    sessions: u64,
    healthy: bool,
    #[serde(deserialize_with = "time")]
    absent_since: Option<Timestamp>,
    #[serde(deserialize_with = "time")]
    updated_at: Option<Timestamp>,
}

/// Runs one of them.
pub async fn run(session: &Session, command: ServicesCommand) -> Result<(), CliError> {
    let target = session.target().await?;
    let answer = target.client.get(&["services"], &[]).await?;
    let services: Vec<Service> = client::read(&answer)?;
    match command {
        ServicesCommand::Ls { .. } if session.json => show_json(&answer),
        ServicesCommand::Ls { .. } if services.is_empty() => show(&format!(
            "No services of {} have registered yet: start one with a key of the project (`orchestrion api-keys gen <name>`)\n",
            target.name
        )),
        ServicesCommand::Ls { wide } => show(&format!(
            "{}{}",
            session.title("Services", &target),
            listing(&session.look, &services, wide)
        )),
        ServicesCommand::Inspect { service } => {
            let id = pick(&services, &service)?;
            show_json(&target.client.get(&["services", &id], &[]).await?)
        }
        ServicesCommand::Rm { service, force } => {
            let id = pick(&services, &service)?;
            let query = force.then(|| ("force", "true".to_owned()));
            target
                .client
                .delete(&["services", &id], query.as_slice())
                .await?;
            if session.json {
                return show_json(&json!({ "deleted": id }));
            }
            show(&format!(
                "{} {id} is deleted\n",
                session.look.paint(Tone::Good, "●")
            ))
        }
    }
}

fn pick(services: &[Service], named: &str) -> Result<String, CliError> {
    let found: Vec<&Service> = services
        .iter()
        .filter(|service| service.id == named || service.name == named)
        .collect();
    match found[..] {
        [service] => Ok(service.id.clone()),
        [] => Err(CliError::Usage(format!(
            "no service is called {named:?}: `orchestrion services ls` shows what there is"
        ))),
        _ => Err(CliError::Usage(format!(
            "several services are called {named:?}: say which by its id (`orchestrion services ls` shows them)"
        ))),
    }
}

fn listing(look: &Look, services: &[Service], wide: bool) -> String {
    let mut columns = vec![
        Column::whole("ID"),
        Column::text("NAME"),
        Column::text("HEALTH"),
    ];
    if wide {
        columns.extend(["KIND", "VERSION", "REVERTS", "REGISTERED"].map(Column::whole));
    }
    let rows = services.iter().map(|service| {
        let mut row = vec![
            (Tone::Plain, service.id.clone()),
            (Tone::Strong, service.name.clone()),
            health(look, service),
        ];
        if wide {
            let reverts = if service.revertible { "yes" } else { NOTHING };
            row.extend([
                (Tone::Plain, service.kind.clone()),
                (Tone::Plain, service.version.to_string()),
                (Tone::Plain, reverts.to_owned()),
                (Tone::Dim, look.age(service.updated_at)),
            ]);
        }
        row
    });
    look.table(&columns, rows.collect())
}

fn health(look: &Look, service: &Service) -> (Tone, String) {
    match (service.healthy, service.absent_since) {
        (true, _) => {
            let more = match service.sessions {
                0 | 1 => String::new(),
                sessions => format!(" ({sessions} connections)"),
            };
            (Tone::Good, format!("● connected{more}"))
        }
        (false, None) => (Tone::Warning, "○ not seen since the start".to_owned()),
        (false, since) => (Tone::Warning, format!("○ absent for {}", look.age(since))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::tests::plain;

    fn sample() -> Vec<Service> {
        serde_json::from_value(json!([
            {"id":"s_a","name":"echo","kind":"service","version":3,"revertible":true,"sessions":2,"healthy":true,
             "updatedAt":"2026-03-04T11:00:00Z"},
            {"id":"s_b","name":"pay","kind":"agent","version":1,"revertible":false,"sessions":0,"healthy":false,
             "absentSince":"2026-03-04T11:55:00Z"},
            {"id":"s_c","name":"pay","kind":"agent","version":1,"healthy":false}
        ]))
        .unwrap()
    }

    #[test]
    fn health_is_told() {
        let wide = listing(&plain(), &sample(), true);
        assert!(wide.contains("agent") && wide.contains("yes"), "{wide}");
        let text = listing(&plain(), &sample(), false);
        for part in [
            "● connected (2 connections)",
            "○ absent for 5m",
            "○ not seen since the start",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_list_fits_a_narrow_screen() {
        let mut services = sample();
        services[0].id = format!("s_{}", "x".repeat(28));
        services[0].name = "a-service-with-quite-a-long-name".into();
        let narrow = Look {
            width: Some(80),
            ..plain()
        };
        let text = listing(&narrow, &services, false);
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
    }

    #[test]
    fn a_service_is_named_by_id_or_by_its_name_where_that_is_clear() {
        let services = sample();
        assert_eq!(pick(&services, "echo").unwrap(), "s_a");
        assert_eq!(pick(&services, "s_c").unwrap(), "s_c");
        assert!(
            pick(&services, "pay")
                .unwrap_err()
                .to_string()
                .contains("several")
        );
        assert_eq!(pick(&services, "none").unwrap_err().code(), 2);
    }
}
