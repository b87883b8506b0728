//! The command line, as a person or a script runs it, in a home of its own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::engine::{Engine, engine_binary};
use crate::project::{Project, text};

/// A person's home with the `orchestrion` command.
pub struct Cli {
    home: TempDir,
    url: String,
}

/// What a command said.
#[derive(Debug, Clone)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// Standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

impl Cli {
    /// With a project `shop` on this engine.
    pub async fn with_project(engine: &Engine) -> Self {
        let cli = Self::fresh(engine);
        cli.ok(&["projects", "add", "shop", "--server", &cli.url.clone()])
            .await;
        cli
    }

    /// With nothing configured.
    pub fn fresh(engine: &Engine) -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
            url: engine.url(),
        }
    }

    /// The project that `projects add` made, as a program would use it.
    pub fn project(&self, engine: &Engine) -> Project {
        self.project_called(engine, "shop")
    }

    /// The same of another name.
    pub fn project_called(&self, engine: &Engine, name: &str) -> Project {
        let config: Value =
            serde_json::from_slice(&fs::read(self.config_dir().join("config.json")).unwrap())
                .unwrap();
        let project = &config["projects"][name];
        Project::known(engine, &text(project, "id"), &text(project, "cli_auth"))
    }

    /// Where its commands run.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Where it keeps what it knows.
    pub fn config_dir(&self) -> PathBuf {
        self.home.path().join(".orchestrion")
    }

    /// Runs a command to its end.
    pub async fn run(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(engine_binary());
        command.args(arguments);
        self.say(command).await
    }

    /// Runs a line as a shell does in which `orchestrion` can be found.
    pub async fn shell(&self, line: &str) -> Said {
        let bin = self.home.path().join("bin");
        fs::create_dir_all(&bin).unwrap();
        // Whoever comes second finds it made.
        let _ = symlink(engine_binary(), bin.join("orchestrion"));
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sh");
        command
            .args(["-c", line])
            .env("PATH", format!("{}:{path}", bin.display()));
        self.say(command).await
    }

    async fn say(&self, mut command: Command) -> Said {
        command
            .env("HOME", self.home.path())
            .env("NO_COLOR", "1")
            .current_dir(self.home.path())
            .stdin(Stdio::null());
        let Output {
            status,
            stdout,
            stderr,
        } = tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        Said {
            code: status.code().expect("the command was not killed"),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        }
    }

    /// Runs a command that must succeed.
    pub async fn ok(&self, arguments: &[&str]) -> Said {
        let said = self.run(arguments).await;
        assert_eq!(
            said.code,
            0,
            "orchestrion {}: {said:#?}",
            arguments.join(" ")
        );
        said
    }

    /// Runs a command that must fail, and say why on standard error only.
    pub async fn fails(&self, arguments: &[&str]) -> Said {
        let said = self.run(arguments).await;
        assert_ne!(
            said.code,
            0,
            "orchestrion {}: {said:#?}",
            arguments.join(" ")
        );
        assert!(!said.err.trim().is_empty(), "no reason given: {said:#?}");
        said
    }
}
