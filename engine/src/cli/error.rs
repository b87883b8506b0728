//! What can end a command, the words for it, and its exit code: scripts tell outcomes apart by the
//! code alone, so the table in `ExitCode`'s conversion is part of the interface (and of `--help`).

use std::process::ExitCode;

use serde::Deserialize;

/// The body of a refusal: `{"error":{kind,code,param,message}}`, each member absent when empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Refusal {
    /// The family of the error, for example `invalid request error`.
    pub kind: String,
    /// The code that programs match on, for example `Orra:ActionNotActionable`.
    pub code: String,
    /// The member of the request that is to blame.
    pub param: String,
    /// What happened, for people.
    pub message: String,
}

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line, the configuration or a file given to it does not make sense.
    #[error("{0}")]
    Usage(String),
    /// The server answered, and refused.
    #[error("{}", refused(*.status, .refusal))]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What its body says; empty members when it had none.
        refusal: Refusal,
    },
    /// The server could not be reached, or stopped answering.
    #[error(
        "cannot reach the server at {server}: {reason}. Start one with `orchestrion dev`, or check the \
         address with `orchestrion projects ls`"
    )]
    Unreachable {
        /// Its base URL.
        server: String,
        /// What the network said.
        reason: String,
    },
    /// Something on this side failed: a file that cannot be written, an answer that makes no sense.
    #[error("{0}")]
    Failed(String),
    /// The followed orchestration failed.
    #[error("the orchestration failed: {0}")]
    OrchestrationFailed(String),
    /// The followed orchestration was aborted by one of its tasks.
    #[error("the orchestration was aborted: {0}")]
    OrchestrationAborted(String),
    /// Whoever read our output has stopped reading, as `head` does: the end, but no failure.
    #[error("nobody reads the output any more")]
    OutputClosed,
    /// What was asked cannot be done with the services there are.
    #[error("the action is not actionable: {0}")]
    NotActionable(String),
}

/// `--help` shows this.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the request was refused or failed
  2  the command line or the configuration makes no sense
  3  the server cannot be reached
  4  the followed orchestration failed
  5  the followed orchestration was aborted
  6  the followed action cannot be done with the services there are (not actionable)
Codes 4 to 6 come from --follow of `verify run` and `fork` alone.";

impl CliError {
    /// Whether there is nothing to tell, or nobody to tell it to.
    pub fn is_silent(&self) -> bool {
        matches!(self, CliError::OutputClosed)
    }

    /// The code of the table in `EXIT_CODES`.
    pub fn code(&self) -> u8 {
        match self {
            CliError::OutputClosed => 0,
            CliError::Refused { .. } | CliError::Failed(_) => 1,
            CliError::Usage(_) => 2,
            CliError::Unreachable { .. } => 3,
            CliError::OrchestrationFailed(_) => 4,
            CliError::OrchestrationAborted(_) => 5,
            CliError::NotActionable(_) => 6,
        }
    }
}

impl From<&CliError> for ExitCode {
    fn from(error: &CliError) -> ExitCode {
        ExitCode::from(error.code())
    }
}

/// The words for a refusal, from whatever the server said of it.
fn refused(status: u16, refusal: &Refusal) -> String {
    let Refusal {
        kind,
        code,
        param,
        message,
    } = refusal;
    let said = match (message.as_str(), kind.as_str()) {
        ("", "") => match status {
            401 | 403 => {
                "the server does not accept the project's key: check the project with `orchestrion projects ls`, \
                 or make one on this server with `orchestrion projects add <name>`"
            }
            404 | 405 => {
                "the server does not know this request: is it an orchestrion server, and of this version?"
            }
            500.. => "the server gave no reason: its log has one",
            _ => "the server gave no reason",
        },
        ("", kind) => kind,
        (message, _) => message,
    };
    let mut details = vec![format!("HTTP {status}")];
    if !code.is_empty() {
        details.push(code.clone());
    }
    if !param.is_empty() {
        details.push(format!("about {param}"));
    }
    format!("{} ({})", as_commands(said), details.join(", "))
}

/// A server speaks of routes; whoever reads this has commands.
fn as_commands(said: &str) -> String {
    const ONE: &str = "look at GET /compensation-failures/";
    if let Some((before, id)) = said.split_once(ONE) {
        return format!("{before}look at it with `orchestrion comp-fail inspect {id}`");
    }
    if said.starts_with("unknown api key") {
        return format!(
            "{said}. The project's key was revoked, or the server has other data than when it was made: \
             `orchestrion projects forget <name>` lets go of it, `orchestrion projects add <name>` makes it anew"
        );
    }
    if let Some((before, after)) = said.split_once("say force=true") {
        return format!("{before}say --force{after}");
    }
    const LIST: &str = "list what there is with GET ";
    let Some((before, route)) = said.split_once(LIST) else {
        return said.to_owned();
    };
    let command = match route.trim_start_matches("/v1").trim_matches('/') {
        "orchestrations" => "ps",
        "compensation-failures" => "comp-fail ls --all",
        "services" => "services ls",
        "webhooks" => "webhooks ls",
        "apikeys" | "keys" => "api-keys ls --all",
        "groundings" => "grounding ls",
        "admin/projects" => "projects ls --server <url>",
        _ => return said.to_owned(),
    };
    format!("{before}`orchestrion {command}` shows what there is")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_the_message_then_status_code_and_parameter() {
        let error = CliError::Refused {
            status: 400,
            refusal: Refusal {
                kind: "invalid operation".into(),
                code: "Orra:Something".into(),
                param: "version".into(),
                message: "already there".into(),
            },
        };
        assert_eq!(
            error.to_string(),
            "already there (HTTP 400, Orra:Something, about version)"
        );
        assert_eq!(error.code(), 1);
    }

    #[test]
    fn routes_become_commands() {
        for (said, shown) in [
            (
                "unknown orchestration \"o_1\": list what there is with GET /v1/orchestrations",
                "unknown orchestration \"o_1\": `orchestrion ps` shows what there is",
            ),
            (
                "unknown x: list what there is with GET /compensation-failures",
                "unknown x: `orchestrion comp-fail ls --all` shows what there is",
            ),
            (
                "unknown x: list what there is with GET /else",
                "unknown x: list what there is with GET /else",
            ),
            (
                "it runs already: look at GET /compensation-failures/c_1",
                "it runs already: look at it with `orchestrion comp-fail inspect c_1`",
            ),
            (
                "unknown api key (its sha-256 begins with 0a): use a key that this server made",
                "unknown api key (its sha-256 begins with 0a): use a key that this server made. The project's key was revoked, or the server \
                 has other data than when it was made: `orchestrion projects forget <name>` lets go of it, `orchestrion projects add <name>` \
                 makes it anew",
            ),
            (
                "in use: stop it first, or say force=true to delete it all the same",
                "in use: stop it first, or say --force to delete it all the same",
            ),
            ("no", "no"),
        ] {
            assert_eq!(as_commands(said), shown);
        }
    }

    #[test]
    fn a_refusal_without_a_body_still_says_what_to_do() {
        let error = CliError::Refused {
            status: 403,
            refusal: Refusal::default(),
        };
        let text = error.to_string();
        assert!(text.contains("projects ls"), "{text}");
        assert!(text.ends_with("(HTTP 403)"), "{text}");
    }

    #[test]
    fn every_code_of_the_table_is_said_in_the_help() {
        for error in [
            CliError::Failed(String::new()),
            CliError::Usage(String::new()),
            CliError::Unreachable {
                server: String::new(),
                reason: String::new(),
            },
            CliError::OrchestrationFailed(String::new()),
            CliError::OrchestrationAborted(String::new()),
            CliError::NotActionable(String::new()),
        ] {
            assert!(EXIT_CODES.contains(&format!("\n  {}  ", error.code())));
        }
    }
}
