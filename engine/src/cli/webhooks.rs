//! `orchestrion webhooks`: the URLs that results are posted to. The server tells nobody its list, so
//! this machine remembers what it added.

use clap::Subcommand;
use serde_json::{Value, json};

use super::error::CliError;
use super::render::{Look, Tone};
use super::{Session, show, show_json};

/// Add and list result webhooks.
#[derive(Debug, Subcommand)]
pub enum WebhooksCommand {
    /// Have the results of the project's orchestrations posted to a URL
    Add {
        /// Where to post them
        url: String,
    },
    /// List the URLs added from this machine
    #[command(alias = "list")]
    Ls,
}

/// Runs one of them.
pub async fn run(session: &Session, command: WebhooksCommand) -> Result<(), CliError> {
    match command {
        WebhooksCommand::Add { url } => {
            let target = session.target().await?;
            let answer = target
                .client
                .post(
                    &["webhooks"],
                    Some(&json!({ "url": url })),
                    Default::default(),
                )
                .await?;
            session.file.change(|config| {
                let webhooks = &mut config.project_mut(&target.name)?.webhooks;
                if !webhooks.contains(&url) {
                    webhooks.push(url.clone());
                }
                Ok(())
            })?;
            if session.json {
                return show_json(&answer);
            }
            show(&added(&session.look, &target.name, &url, &answer))
        }
        WebhooksCommand::Ls => {
            let config = session.file.load()?;
            let (name, project) = config.project(session.project.as_deref())?;
            if session.json {
                return show_json(&json!({ "webhooks": project.webhooks }));
            }
            show(&listing(&session.look, name, &project.webhooks))
        }
    }
}

fn added(look: &Look, project: &str, url: &str, answer: &Value) -> String {
    let mut text = format!(
        "{} Results of {project} will be posted to {url}\n",
        look.paint(Tone::Good, "●")
    );
    if let Some(secret) = answer.get("secret").and_then(Value::as_str) {
        text.push_str(&format!(
            "\n  Signing secret, shown this once:  {secret}\n  {}\n",
            look.paint(
                Tone::Dim,
                "Each delivery is signed with it as Standard Webhooks has it: check the webhook-signature header."
            )
        ));
    }
    text
}

fn listing(look: &Look, project: &str, webhooks: &[String]) -> String {
    if webhooks.is_empty() {
        return format!(
            "No webhooks of {project} were added from this machine. Add one with:  orchestrion webhooks add <url>\n"
        );
    }
    let mut text = format!(
        "{} {}\n\n",
        look.heading("Webhooks"),
        look.paint(Tone::Dim, &format!("of {project}"))
    );
    for url in webhooks {
        text.push_str(&format!("  {url}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::tests::plain;

    #[test]
    fn a_secret_is_shown_where_there_is_one() {
        let url = "http://h/hook";
        assert_eq!(
            added(&plain(), "shop", url, &json!({ "url": url })),
            "● Results of shop will be posted to http://h/hook\n"
        );
        let signed = added(
            &plain(),
            "shop",
            url,
            &json!({ "url": url, "secret": "whsec_x" }),
        );
        assert!(signed.contains("shown this once:  whsec_x\n"), "{signed}");
    }

    #[test]
    fn lists() {
        assert_eq!(
            listing(&plain(), "shop", &["http://a".into(), "http://b".into()]),
            "Webhooks of shop\n\n  http://a\n  http://b\n"
        );
        assert!(listing(&plain(), "shop", &[]).contains("webhooks add <url>"));
    }
}
