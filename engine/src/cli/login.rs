//! `orchestrion login` and `logout`: the admin key of a server, kept on this machine for the commands that need it.
//!
//! Invariant: a key is kept only after its server has accepted it.

use std::io::{self, BufRead, IsTerminal};

use clap::Args;
use serde_json::{Value, json};

use super::client::Client;
use super::config::{Config, DEFAULT_SERVER, Server};
use super::error::CliError;
use super::render::Tone;
use super::{Session, show, show_json};

/// Which server, and its key.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// Where the server is
    #[arg(long, value_name = "URL", default_value = DEFAULT_SERVER)]
    pub server: String,
    /// Its admin key; without this it is read from standard input
    #[arg(
        long,
        value_name = "KEY",
        env = "ORCHESTRION_ADMIN_KEY",
        hide_env_values = true
    )]
    pub admin_key: Option<String>,
}

/// Which server.
#[derive(Debug, Args)]
pub struct LogoutArgs {
    /// Where the server is
    #[arg(long, value_name = "URL", default_value = DEFAULT_SERVER)]
    pub server: String,
}

/// Asks the server, then keeps the key.
pub async fn login(session: &Session, args: LoginArgs) -> Result<(), CliError> {
    let key = match args.admin_key.filter(|key| !key.trim().is_empty()) {
        Some(key) => key,
        None => read_key()?,
    };
    let key = key.trim();
    let client = Client::new(&args.server, Some(key))?;
    let answer = client
        .post(&["admin", "login"], None, Default::default())
        .await
        .map_err(|error| match error {
            CliError::Refused {
                status: 401 | 403, ..
            } => CliError::Usage(format!(
                "the server at {} does not accept this admin key",
                client.server()
            )),
            error => error,
        })?;
    if answer.get("open").and_then(Value::as_bool) == Some(true) {
        return show(&format!(
            "The server at {} lets anybody create projects: there is nothing to log in to\n",
            client.server()
        ));
    }
    session.file.change(|config| {
        let kept = Server {
            admin_key: key.to_owned(),
            ..Server::default()
        };
        config.servers.insert(client.server().to_owned(), kept);
        Ok(())
    })?;
    if session.json {
        return show_json(&json!({ "server": client.server() }));
    }
    show(&format!(
        "{} Logged in to {}: `orchestrion projects add` finds the admin key by itself now\n",
        session.look.paint(Tone::Good, "●"),
        client.server()
    ))
}

/// Forgets the key.
pub fn logout(session: &Session, args: LogoutArgs) -> Result<(), CliError> {
    let client = Client::new(&args.server, None)?;
    let known = session
        .file
        .change(|config| Ok(config.servers.remove(client.server()).is_some()))?;
    if session.json {
        return show_json(&json!({ "server": client.server(), "removed": known }));
    }
    show(&if known {
        format!("Logged out of {}\n", client.server())
    } else {
        format!("Nobody was logged in to {}\n", client.server())
    })
}

/// The key that is kept for a server, if one is.
pub fn kept_key(config: &Config, server: &str) -> Option<String> {
    let kept = config.servers.get(server)?;
    Some(kept.admin_key.clone()).filter(|key| !key.is_empty())
}

/// A key in the arguments of a process is seen by others: standard input is not.
fn read_key() -> Result<String, CliError> {
    let wanted = || {
        CliError::Usage(
            "no admin key is given: pipe it in, or set ORCHESTRION_ADMIN_KEY, or say --admin-key"
                .into(),
        )
    };
    if io::stdin().is_terminal() {
        return Err(wanted());
    }
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|e| CliError::Failed(format!("cannot read the admin key: {e}")))?;
    Some(line)
        .filter(|line| !line.trim().is_empty())
        .ok_or_else(wanted)
}
