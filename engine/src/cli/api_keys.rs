//! `orchestrion api-keys`: keys for services and agents. The server keeps digests and no names, so
//! names and keys are remembered here, in a file that only its owner can read.

use std::collections::BTreeMap;

use clap::Subcommand;
use serde_json::{Value, json};

use super::client;
use super::config::Project;
use super::error::CliError;
use super::render::{Look, Tone};
use super::{Session, show, show_json};

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
    Ls,
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
                .post(&["apikeys"], None, Default::default())
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
        ApiKeysCommand::Ls => {
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
    fn a_name_is_taken_once() {
        let mut project = Project::default();
        assert!(free(&project, "a").is_ok());
        assert_eq!(free(&project, " ").unwrap_err().code(), 2);
        project.api_key.insert("a".into(), "k".into());
        assert_eq!(free(&project, "a").unwrap_err().code(), 2);
    }
}
