//! `orchestrion version`: of this program, and of the server it talks to, where one answers.

use serde_json::json;

use super::error::CliError;
use super::{Session, show, show_json};

/// Prints them.
pub async fn run(session: &Session) -> Result<(), CliError> {
    let version = env!("CARGO_PKG_VERSION");
    // Without a project there is no server to ask, and that is no error here.
    let server = match session.target().await {
        Ok(target) => {
            let version = target.client.server_version().await;
            version.map(|version| (target.client.server().to_owned(), version))
        }
        Err(_) => None,
    };
    if session.json {
        let server = server.map(|(url, version)| json!({ "url": url, "version": version }));
        return show_json(&json!({ "version": version, "server": server }));
    }
    let server = server.map_or_else(String::new, |(url, version)| {
        format!("server {version} at {url}\n")
    });
    show(&format!("orchestrion {version}\n{server}"))
}
