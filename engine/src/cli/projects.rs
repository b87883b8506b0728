//! `orchestrion projects`: make a project on a server, and remember it and its key on this machine.

use clap::Subcommand;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::client::{self, Client};
use super::config::{Config, DEFAULT_SERVER, Project};
use super::error::CliError;
use super::render::{Look, Tone};
use super::{Session, show, show_json};

/// Add, list and choose projects.
#[derive(Debug, Subcommand)]
pub enum ProjectsCommand {
    /// Make a project on a server; the first one becomes the current one
    Add {
        /// What to call it, on the server and on this machine
        name: String,
        /// Where the server is
        #[arg(long, value_name = "URL", default_value = DEFAULT_SERVER)]
        server: String,
        /// The server's admin key, where it has one (`orchestrion dev` has none)
        #[arg(
            long,
            value_name = "KEY",
            env = "ORCHESTRION_ADMIN_KEY",
            hide_env_values = true
        )]
        admin_key: Option<String>,
    },
    /// List the projects that this machine knows
    #[command(alias = "list")]
    Ls,
    /// Choose the project that commands act on
    Use {
        /// Its name
        name: String,
    },
}

/// What we keep of the answer to `POST /register/project`.
#[derive(serde::Deserialize)]
struct Registered {
    id: String,
    #[serde(rename = "apiKey")]
    api_key: String,
}

/// Runs one of them.
pub async fn run(session: &Session, command: ProjectsCommand) -> Result<(), CliError> {
    match command {
        ProjectsCommand::Add {
            name,
            server,
            admin_key,
        } => {
            let admin_key = admin_key.as_deref().filter(|key| !key.is_empty());
            add(session, &name, &server, admin_key).await
        }
        ProjectsCommand::Ls => {
            let config = session.file.load()?;
            if session.json {
                show_json(&listing_json(&config))
            } else {
                show(&listing(&session.look, &config))
            }
        }
        ProjectsCommand::Use { name } => {
            session.file.change(|config| {
                config.project(Some(&name))?;
                config.current_project.clone_from(&name);
                Ok(())
            })?;
            if session.json {
                show_json(&json!({ "current": name }))
            } else {
                show(&format!("The current project is now {name}\n"))
            }
        }
    }
}

async fn add(
    session: &Session,
    name: &str,
    server: &str,
    admin_key: Option<&str>,
) -> Result<(), CliError> {
    if name.trim().is_empty() {
        return Err(CliError::Usage(
            "a project needs a name that is not blank".into(),
        ));
    }
    free(&session.file.load()?, name)?;
    let client = Client::new(server, admin_key)?;
    let body = json!({ "name": name, "createdAt": Timestamp::now().to_string() });
    let answer = client
        .post(&["register", "project"], Some(&body), Default::default())
        .await
        .map_err(|e| match (e, admin_key) {
            (CliError::Refused { status: 401 | 403, .. }, None) => CliError::Usage(format!(
                "the server at {} creates projects only for its admin key: give it with --admin-key or ORCHESTRION_ADMIN_KEY",
                client.server()
            )),
            (CliError::Refused { status: 401 | 403, .. }, Some(_)) => CliError::Usage(format!(
                "the server at {} does not accept this admin key",
                client.server()
            )),
            (e, _) => e,
        })?;
    let registered: Registered = client::read(&answer)?;
    let current = session.file.change(|config| {
        free(config, name)?;
        config.projects.insert(
            name.to_owned(),
            Project {
                id: registered.id.clone(),
                cli_auth: registered.api_key,
                server_addr: client.server().to_owned(),
                ..Project::default()
            },
        );
        if !config.projects.contains_key(&config.current_project) {
            name.clone_into(&mut config.current_project);
        }
        Ok(config.current_project.clone())
    })?;
    if session.json {
        return show_json(&answer);
    }
    let look = &session.look;
    let choose = if current == name {
        String::new()
    } else {
        format!(
            "  The current project is still {current}; to change that:  orchestrion projects use {name}\n"
        )
    };
    show(&format!(
        "{} {}\n\n{choose}{}\n  orchestrion api-keys gen my-service          a key for a service or an agent\n  \
         orchestrion webhooks add http://host/path    where results are posted, if anywhere\n  \
         orchestrion verify run \"<action>\" --follow   an action, once a service has registered\n",
        look.paint(Tone::Good, "●"),
        look.heading(&format!("Project {name} ({})", registered.id)),
        look.paint(Tone::Dim, "  Next:"),
    ))
}

fn free(config: &Config, name: &str) -> Result<(), CliError> {
    if config.projects.contains_key(name) {
        return Err(CliError::Usage(format!(
            "this machine knows a project called {name:?} already: choose another name, or make it the current one \
             with `orchestrion projects use {name}`"
        )));
    }
    Ok(())
}

fn listing_json(config: &Config) -> Value {
    let projects: Vec<Value> = config
        .projects
        .iter()
        .map(|(name, p)| json!({ "name": name, "id": p.id, "server": p.server_addr }))
        .collect();
    json!({ "current": config.current_project, "projects": projects })
}

fn listing(look: &Look, config: &Config) -> String {
    if config.projects.is_empty() {
        return "No projects yet. Make one with:  orchestrion projects add <name>\n".into();
    }
    let mut text = format!("{}\n\n", look.heading("Projects"));
    for (name, project) in &config.projects {
        let (star, name) = if *name == config.current_project {
            (look.paint(Tone::Good, "*"), look.heading(name))
        } else {
            (" ".into(), name.clone())
        };
        text.push_str(&format!(
            "{star} {name}\n    {} {}\n    {} {}\n",
            look.paint(Tone::Dim, "ID:    "),
            project.id,
            look.paint(Tone::Dim, "Server:"),
            project.server_addr
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::tests::plain;

    fn config() -> Config {
        let project = |id: &str| Project {
            id: id.into(),
            cli_auth: "sk-orra-v1-secret".into(),
            server_addr: "http://localhost:8005".into(),
            ..Project::default()
        };
        Config {
            current_project: "shop".into(),
            projects: [
                ("shop".into(), project("p_1")),
                ("lab".into(), project("p_2")),
            ]
            .into(),
            ..Config::default()
        }
    }

    #[test]
    fn the_list_marks_the_current_one() {
        assert_eq!(
            listing(&plain(), &config()),
            "Projects\n\n  lab\n    ID:     p_2\n    Server: http://localhost:8005\n\
             * shop\n    ID:     p_1\n    Server: http://localhost:8005\n"
        );
        assert!(listing(&plain(), &Config::default()).contains("projects add"));
    }

    #[test]
    fn the_list_shows_no_key() {
        assert!(!listing(&plain(), &config()).contains("secret"));
        assert!(!listing_json(&config()).to_string().contains("secret"));
    }

    #[test]
    fn a_name_is_taken_once() {
        assert!(free(&config(), "new").is_ok());
        let error = free(&config(), "lab").unwrap_err();
        assert_eq!(error.code(), 2);
        assert!(error.to_string().contains("projects use lab"), "{error}");
    }
}
