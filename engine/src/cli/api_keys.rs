//! `orchestrion api-keys`: keys for services and agents. The server keeps digests, names and last uses; the keys themselves are
//! remembered here, in a file that only its owner can read.

use std::collections::BTreeMap;

use clap::Subcommand;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client;
use super::config::Project;
use super::error::CliError;
use super::render::{Column, Look, NOTHING, Tone};
use super::wire::time;
use super::{Session, show, show_json};
use crate::registry::ids::{KeyDigest, api_key_id};

/// Make and list keys.
#[derive(Debug, Subcommand)]
pub enum ApiKeysCommand {
    /// Make a key
    Gen {
        /// What to call it on this machine
        name: String,
    },
    /// List the keys made on this machine
    #[command(alias = "list")]
    Ls {
        /// All keys of the project, as the server knows them: names, ages and last uses
        #[arg(long)]
        all: bool,
    },
    /// Take a key away: requests with it are refused, connections that came with it are closed
    Revoke {
        /// Its name on this machine, or its id (`api-keys ls --all` shows those)
        key: String,
    },
}

/// A key as the server knows it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Known {
    id: String,
    name: String,
    current: bool,
    #[serde(deserialize_with = "time")]
    created_at: Option<Timestamp>,
    #[serde(deserialize_with = "time")]
    last_used_at: Option<Timestamp>,
}

/// The answer to `POST /apikeys`.
#[derive(serde::Deserialize)]
struct Made {
    #[serde(rename = "apiKey")]
    api_key: String,
}

/// Runs one of them.
pub async fn run(session: &Session, command: ApiKeysCommand) -> Result<(), CliError> {
    match command {
        ApiKeysCommand::Gen { name } => {
            let target = session.target().await?;
            free(session.file.load()?.project(Some(&target.name))?.1, &name)?;
            let answer = target
                .client
                .post(
                    &["apikeys"],
                    Some(&json!({ "name": name })),
                    Default::default(),
                )
                .await?;
            let made: Made = client::read(&answer)?;
            session.file.change(|config| {
                let project = config.project_mut(&target.name)?;
                free(project, &name)?;
                project.api_key.insert(name.clone(), made.api_key.clone());
                Ok(())
            })?;
            if session.json {
                return show_json(&json!({ "name": name, "key": made.api_key }));
            }
            show(&entry(&session.look, &name, &made.api_key))
        }
        ApiKeysCommand::Ls { all: true } => {
            let target = session.target().await?;
            let answer = target.client.get(&["apikeys"], &[]).await?;
            if session.json {
                return show_json(&answer);
            }
            let keys: Vec<Known> = client::read(&answer)?;
            show(&format!(
                "{}{}",
                session.title("API keys", &target),
                table(&session.look, &keys)
            ))
        }
        ApiKeysCommand::Revoke { key } => revoke(session, &key).await,
        ApiKeysCommand::Ls { all: false } => {
            let config = session.file.load()?;
            let (name, project) = config.project(session.project.as_deref())?;
            if session.json {
                let keys: Vec<Value> = project
                    .api_key
                    .iter()
                    .map(|(name, key)| json!({ "name": name, "key": key }))
                    .collect();
                return show_json(&json!({ "keys": keys }));
            }
            show(&listing(&session.look, name, &project.api_key))
        }
    }
}

async fn revoke(session: &Session, named: &str) -> Result<(), CliError> {
    let target = session.target().await?;
    let config = session.file.load()?;
    let kept = &config.project(Some(&target.name))?.1.api_key;
    let answer = target.client.get(&["apikeys"], &[]).await?;
    let keys: Vec<Known> = client::read(&answer)?;
    let key = pick(&keys, kept, named)?;
    if key.current {
        return Err(CliError::Usage(format!(
            "{named} is the key that this command line itself uses for {}: revoke it from elsewhere",
            target.name
        )));
    }
    target.client.delete(&["apikeys", &key.id], &[]).await?;
    session.file.change(|config| {
        let project = config.project_mut(&target.name)?;
        project.api_key.retain(|_, kept| id_of(kept) != key.id);
        Ok(())
    })?;
    if session.json {
        return show_json(&json!({ "revoked": key.id }));
    }
    show(&format!(
        "{} {} {} is revoked\n",
        session.look.paint(Tone::Good, "●"),
        key.id,
        key.name
    ))
}

/// A key by its id, by its name on this machine, or by its name on the server where only one is called so.
fn pick<'a>(
    keys: &'a [Known],
    kept: &BTreeMap<String, String>,
    named: &str,
) -> Result<&'a Known, CliError> {
    let id = kept.get(named).map(|key| id_of(key));
    let id = id.as_deref().unwrap_or(named);
    if let Some(key) = keys.iter().find(|key| key.id == id) {
        return Ok(key);
    }
    let called: Vec<&Known> = keys.iter().filter(|key| key.name == named).collect();
    match called[..] {
        [key] => Ok(key),
        [] => Err(CliError::Usage(format!(
            "no key is called {named:?}: `orchestrion api-keys ls --all` shows what there is"
        ))),
        _ => Err(CliError::Usage(format!(
            "several keys are called {named:?}: say which by its id (`orchestrion api-keys ls --all` shows them)"
        ))),
    }
}

/// The public id of a key we have.
fn id_of(key: &str) -> String {
    api_key_id(KeyDigest::of(key))
}

fn table(look: &Look, keys: &[Known]) -> String {
    let columns = [
        Column::whole("ID"),
        Column::text("NAME"),
        Column::whole("MADE"),
        Column::whole("LAST USED"),
    ];
    let rows = keys.iter().map(|key| {
        let name = match (key.name.as_str(), key.current) {
            ("", false) => NOTHING.to_owned(),
            (name, true) => format!("{name} (this command line's)"),
            (name, false) => name.to_owned(),
        };
        vec![
            (Tone::Plain, key.id.clone()),
            (Tone::Plain, name),
            (Tone::Dim, look.age(key.created_at)),
            (Tone::Dim, look.age(key.last_used_at)),
        ]
    });
    look.table(&columns, rows.collect())
}

fn free(project: &Project, name: &str) -> Result<(), CliError> {
    if name.trim().is_empty() {
        return Err(CliError::Usage(
            "a key needs a name that is not blank".into(),
        ));
    }
    if project.api_key.contains_key(name) {
        return Err(CliError::Usage(format!(
            "a key called {name:?} is there already: choose another name (`orchestrion api-keys ls` shows them)"
        )));
    }
    Ok(())
}

fn entry(look: &Look, name: &str, key: &str) -> String {
    format!(
        "- {}\n  {} {key}\n",
        look.heading(name),
        look.paint(Tone::Dim, "KEY:")
    )
}

fn listing(look: &Look, project: &str, keys: &BTreeMap<String, String>) -> String {
    if keys.is_empty() {
        return format!(
            "No keys of {project} were made on this machine. Make one with:  orchestrion api-keys gen <name>\n"
        );
    }
    keys.iter()
        .map(|(name, key)| entry(look, name, key))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::tests::plain;

    #[test]
    fn lists() {
        let keys = [
            ("b".to_owned(), "sk-orra-v1-2".to_owned()),
            ("a".to_owned(), "sk-orra-v1-1".to_owned()),
        ]
        .into();
        assert_eq!(
            listing(&plain(), "shop", &keys),
            "- a\n  KEY: sk-orra-v1-1\n- b\n  KEY: sk-orra-v1-2\n"
        );
        assert!(listing(&plain(), "shop", &BTreeMap::new()).contains("api-keys gen <name>"));
    }

    #[test]
    fn a_key_is_named_by_id_or_name() {
        let key = |id: &str, name: &str| Known {
            id: id.into(),
            name: name.into(),
            ..Known::default()
        };
        let kept = [("mine".to_owned(), "sk-orra-v1-1".to_owned())].into();
        let keys = [
            key(&id_of("sk-orra-v1-1"), "on the server"),
            key("k_2", "same"),
            key("k_3", "same"),
        ];
        let picked = |named| pick(&keys, &kept, named).map(|key| key.id.clone());
        assert_eq!(picked("mine").unwrap(), id_of("sk-orra-v1-1"));
        assert_eq!(picked("on the server").unwrap(), id_of("sk-orra-v1-1"));
        assert_eq!(picked("k_3").unwrap(), "k_3");
        assert_eq!(picked("same").unwrap_err().code(), 2);
        assert_eq!(picked("other").unwrap_err().code(), 2);
    }

    #[test]
    fn a_name_is_taken_once() {
        let mut project = Project::default();
        assert!(free(&project, "a").is_ok());
        assert_eq!(free(&project, " ").unwrap_err().code(), 2);
        project.api_key.insert("a".into(), "k".into());
        assert_eq!(free(&project, "a").unwrap_err().code(), 2);
    }
}
