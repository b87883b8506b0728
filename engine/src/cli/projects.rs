//! `orchestrion projects`: make a project on a server, and remember it and its key on this machine.

use clap::Subcommand;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::client::{self, Client};
use super::config::{Config, DEFAULT_SERVER, Project};
use super::error::CliError;
use super::render::{Column, Look, Tone};
use super::{Session, login, show, show_json};

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
    Ls {
        /// Instead those of a server, which takes its admin key (see `login`)
        #[arg(long, value_name = "URL")]
        server: Option<String>,
    },
    /// Make a project of a server known to this machine, by a new key; takes the server's admin key
    Join {
        /// The project's id (`projects ls --server` shows it)
        project: String,
        /// What to call it on this machine; its name on the server unless told otherwise
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Where the server is
        #[arg(long, value_name = "URL", default_value = DEFAULT_SERVER)]
        server: String,
        /// The server's admin key, where it has one
        #[arg(
            long,
            value_name = "KEY",
            env = "ORCHESTRION_ADMIN_KEY",
            hide_env_values = true
        )]
        admin_key: Option<String>,
    },
    /// Choose the project that commands act on
    Use {
        /// Its name
        name: String,
    },
    /// Forget a project and its keys on this machine; the server keeps it
    Forget {
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

/// A project of a server.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OnServer {
    id: String,
    name: String,
    #[serde(deserialize_with = "super::wire::time")]
    created_at: Option<Timestamp>,
}

/// What we keep of the answer to a join.
#[derive(serde::Deserialize)]
struct Joined {
    #[serde(rename = "apiKey")]
    api_key: String,
    project: OnServer,
}

/// The key that is given, or the one that `login` kept for this server.
pub(super) fn admin_key_for(
    session: &Session,
    server: &str,
    given: Option<String>,
) -> Result<Option<String>, CliError> {
    if let Some(key) = given.filter(|key| !key.is_empty()) {
        return Ok(Some(key));
    }
    let server = Client::new(server, None)?.server().to_owned();
    Ok(login::kept_key(&session.file.load()?, &server))
}

/// What a refusal of the admin key means.
pub(super) fn admin_only(error: CliError, client: &Client, had_key: bool) -> CliError {
    match (error, had_key) {
        (
            CliError::Refused {
                status: 401 | 403, ..
            },
            false,
        ) => CliError::Usage(format!(
            "this takes the admin key of the server at {}: log in with `orchestrion login --server {}`",
            client.server(),
            client.server()
        )),
        (
            CliError::Refused {
                status: 401 | 403, ..
            },
            true,
        ) => CliError::Usage(format!(
            "the server at {} does not accept this admin key",
            client.server()
        )),
        (error, _) => error,
    }
}

async fn join(
    session: &Session,
    project: &str,
    name: Option<String>,
    server: &str,
    admin_key: Option<&str>,
) -> Result<(), CliError> {
    if let Some(name) = &name {
        free(&session.file.load()?, name)?;
    }
    let client = Client::new(server, admin_key)?;
    let body = json!({ "name": "command line" });
    let answer = client
        .post(
            &["admin", "projects", project, "apikeys"],
            Some(&body),
            Default::default(),
        )
        .await
        .map_err(|e| admin_only(e, &client, admin_key.is_some()))?;
    let joined: Joined = client::read(&answer)?;
    let name = name.unwrap_or_else(|| match joined.project.name.as_str() {
        "" => joined.project.id.clone(),
        name => name.to_owned(),
    });
    let name = session.file.change(|config| {
        // The key is made and shown once: it is kept under the id rather than lost.
        let name = match config.projects.contains_key(&name) {
            true => joined.project.id.clone(),
            false => name.clone(),
        };
        config.projects.insert(
            name.clone(),
            Project {
                id: joined.project.id.clone(),
                cli_auth: joined.api_key,
                server_addr: client.server().to_owned(),
                ..Project::default()
            },
        );
        if !config.projects.contains_key(&config.current_project) {
            config.current_project = name.clone();
        }
        Ok(name)
    })?;
    if session.json {
        return show_json(&json!({ "name": name, "id": joined.project.id }));
    }
    show(&format!(
        "{} {} is known as {name} now; to act on it:  orchestrion projects use {name}\n",
        session.look.paint(Tone::Good, "●"),
        joined.project.id
    ))
}

fn of_server(look: &Look, server: &str, projects: &[OnServer]) -> String {
    if projects.is_empty() {
        return format!("No projects at {server} yet\n");
    }
    let columns = [
        Column::whole("ID"),
        Column::text("NAME"),
        Column::whole("CREATED"),
    ];
    let rows = projects.iter().map(|project| {
        vec![
            (Tone::Plain, project.id.clone()),
            (Tone::Plain, project.name.clone()),
            (Tone::Dim, look.age(project.created_at)),
        ]
    });
    look.table(&columns, rows.collect())
}

/// Runs one of them.
pub async fn run(session: &Session, command: ProjectsCommand) -> Result<(), CliError> {
    match command {
        ProjectsCommand::Add {
            name,
            server,
            admin_key,
        } => {
            let admin_key = admin_key_for(session, &server, admin_key)?;
            add(session, &name, &server, admin_key.as_deref()).await
        }
        ProjectsCommand::Join {
            project,
            name,
            server,
            admin_key,
        } => {
            let admin_key = admin_key_for(session, &server, admin_key)?;
            join(session, &project, name, &server, admin_key.as_deref()).await
        }
        ProjectsCommand::Ls {
            server: Some(server),
        } => {
            let admin_key = admin_key_for(session, &server, None)?;
            let client = Client::new(&server, admin_key.as_deref())?;
            let answer = client
                .get(&["admin", "projects"], &[])
                .await
                .map_err(|e| admin_only(e, &client, admin_key.is_some()))?;
            if session.json {
                return show_json(&answer);
            }
            let known: Vec<OnServer> = client::read(&answer)?;
            show(&of_server(&session.look, client.server(), &known))
        }
        ProjectsCommand::Ls { server: None } => {
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
        ProjectsCommand::Forget { name } => {
            let gone = session.file.change(|config| config.forget(&name))?;
            if session.json {
                return show_json(&json!({ "forgotten": name, "id": gone.id }));
            }
            show(&format!(
                "{} {name} ({}) is forgotten here; {} keeps it\n",
                session.look.paint(Tone::Good, "●"),
                gone.id,
                gone.server_addr
            ))
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
            "this machine knows a project called {name:?} already: choose another name, make it the current one \
             with `orchestrion projects use {name}`, or let go of it with `orchestrion projects forget {name}`"
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
