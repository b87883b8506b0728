//! The client's own file, `~/.orchestrion/config.json`: which projects there are, where their servers
//! are, and the keys to them. Members are named as in orra's file, so that one can be copied over.
//!
//! Invariant: the file is readable by its owner alone, and is replaced as a whole or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::CliError;

/// Where a server is unless one says otherwise.
pub const DEFAULT_SERVER: &str = "http://localhost:8005";

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The project that commands act on unless `-p` names another; empty when there is none.
    pub current_project: String,
    /// By the name that was given on this machine.
    pub projects: BTreeMap<String, Project>,
    /// Servers that somebody logged in to, by their base URL.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub servers: BTreeMap<String, Server>,
    /// Members of other programs and versions, kept as they are.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A server that somebody logged in to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Server {
    /// Its admin key.
    pub admin_key: String,
    /// Members of other programs and versions, kept as they are.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// One project as this machine knows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Project {
    /// The server's id of it.
    pub id: String,
    /// The key that the command line itself uses.
    pub cli_auth: String,
    /// The keys made for services, by the name that was given on this machine.
    #[serde(alias = "api_keys")]
    pub api_key: BTreeMap<String, String>,
    /// The base URL of its server.
    pub server_addr: String,
    /// The result webhooks added from this machine.
    pub webhooks: Vec<String>,
    /// The compensation-failure webhooks added from this machine.
    pub compensation_failure_webhooks: Vec<String>,
    /// The signing secrets of webhooks that were added or rotated from this machine, by the webhook's id, the newest first.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub webhook_secrets: BTreeMap<String, Vec<String>>,
    /// Members of other programs and versions, kept as they are.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// The file's place, and how to read and change it.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    path: PathBuf,
}

impl ConfigFile {
    /// The file that `--config` names, or the one in the home folder.
    pub fn locate(named: Option<&Path>) -> Result<ConfigFile, CliError> {
        let path = match named {
            Some(path) => path.to_path_buf(),
            None => std::env::home_dir()
                .filter(|home| !home.as_os_str().is_empty())
                .ok_or_else(|| {
                    CliError::Usage(
                        "no home folder to keep the configuration in: set HOME, or name a file with --config"
                            .into(),
                    )
                })?
                .join(".orchestrion")
                .join("config.json"),
        };
        Ok(ConfigFile { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds; an absent file holds nothing.
    pub fn load(&self) -> Result<Config, CliError> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Config::default()),
            Err(e) => return Err(self.trouble("read", &e)),
        };
        serde_json::from_slice(&text).map_err(|e| {
            CliError::Usage(format!(
                "{path} is not a configuration: {e}. Mend it, or start over with `orchestrion config reset --config {path}`",
                path = self.path.display()
            ))
        })
    }

    /// Changes it under a lock, so that two commands at once do not lose each other's change.
    pub fn change<T>(
        &self,
        edit: impl FnOnce(&mut Config) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        self.make_folder()?;
        let lock = private(OpenOptions::new().create(true).truncate(false).write(true))
            .open(self.path.with_extension("lock"))
            .and_then(|lock| lock.lock().map(|()| lock))
            .map_err(|e| self.trouble("lock", &e))?;
        let mut config = self.load()?;
        let result = edit(&mut config)?;
        self.replace(&config)?;
        drop(lock);
        Ok(result)
    }

    /// Removes it; says whether there was one.
    pub fn remove(&self) -> Result<bool, CliError> {
        match fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(self.trouble("remove", &e)),
        }
    }

    fn make_folder(&self) -> Result<(), CliError> {
        let Some(folder) = self.path.parent().filter(|f| !f.as_os_str().is_empty()) else {
            return Ok(());
        };
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(folder)
            .map_err(|e| self.trouble("make the folder of", &e))
    }

    fn replace(&self, config: &Config) -> Result<(), CliError> {
        let draft = self
            .path
            .with_extension(format!("{}.tmp", std::process::id()));
        let write = || -> io::Result<()> {
            let mut file: File =
                private(OpenOptions::new().create(true).truncate(true).write(true)).open(&draft)?;
            serde_json::to_writer_pretty(&mut file, config)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&draft, &self.path)
        };
        write().map_err(|e| {
            let _ = fs::remove_file(&draft);
            self.trouble("write", &e)
        })
    }

    fn trouble(&self, operation: &str, error: &io::Error) -> CliError {
        CliError::Failed(format!(
            "cannot {operation} {}: {error}",
            self.path.display()
        ))
    }
}

/// A file only for its owner.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

impl Config {
    /// The project that `-p` names, or the current one.
    pub fn project(&self, named: Option<&str>) -> Result<(&str, &Project), CliError> {
        let name = match named {
            Some(name) => name,
            None if !self.current_project.is_empty() => &self.current_project,
            None if self.projects.is_empty() => {
                return Err(CliError::Usage(
                    "no project is configured yet: run `orchestrion projects add <name>`".into(),
                ));
            }
            None => {
                return Err(CliError::Usage(format!(
                    "no project is current: run `orchestrion projects use <name>` ({})",
                    self.known()
                )));
            }
        };
        match self.projects.get_key_value(name) {
            Some((name, project)) => Ok((name, project)),
            None => Err(CliError::Usage(format!(
                "no project is called {name:?} ({}): add it with `orchestrion projects add {name}`",
                self.known()
            ))),
        }
    }

    /// The same, to change it.
    pub fn project_mut(&mut self, name: &str) -> Result<&mut Project, CliError> {
        self.project(Some(name))?;
        self.projects
            .get_mut(name)
            .ok_or_else(|| CliError::Usage(format!("no project is called {name:?}")))
    }

    /// Takes a project out; none is current where it was.
    pub fn forget(&mut self, name: &str) -> Result<Project, CliError> {
        self.project(Some(name))?;
        if self.current_project == name {
            self.current_project.clear();
        }
        self.projects
            .remove(name)
            .ok_or_else(|| CliError::Usage(format!("no project is called {name:?}")))
    }

    fn known(&self) -> String {
        if self.projects.is_empty() {
            return "there is none".into();
        }
        let names: Vec<&str> = self.projects.keys().map(String::as_str).collect();
        format!("there is: {}", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &tempfile::TempDir) -> ConfigFile {
        ConfigFile::locate(Some(&folder.path().join("deep/er/config.json"))).unwrap()
    }

    fn add(file: &ConfigFile, name: &str) {
        file.change(|config| {
            config.projects.insert(name.into(), Project::default());
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn an_absent_file_is_an_empty_configuration() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(file(&folder).load().unwrap(), Config::default());
        assert!(!file(&folder).remove().unwrap());
    }

    #[test]
    fn a_change_is_read_back_and_leaves_no_draft() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder);
        add(&file, "one");
        add(&file, "two");
        let names: Vec<String> = file.load().unwrap().projects.into_keys().collect();
        assert_eq!(names, ["one", "two"]);
        let left: Vec<_> = fs::read_dir(file.path().parent().unwrap())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(left.iter().all(|n| !n.ends_with(".tmp")), "{left:?}");
    }

    #[test]
    fn a_refused_change_leaves_the_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder);
        add(&file, "one");
        let refused = file.change(|config| {
            config.projects.clear();
            Err::<(), _>(CliError::Usage("no".into()))
        });
        assert!(refused.is_err());
        assert_eq!(file.load().unwrap().projects.len(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read_it_even_when_it_was_open_before() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder);
        add(&file, "one");
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
        add(&file, "two");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(file.path()), 0o600);
        assert_eq!(mode(file.path().parent().unwrap()), 0o700);
    }

    #[test]
    fn what_others_wrote_into_the_file_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = ConfigFile::locate(Some(&folder.path().join("config.json"))).unwrap();
        fs::write(
            file.path(),
            r#"{"current_project":"shop","projects":{"shop":{"id":"p_1","cli_auth":"sk-orra-v1-1",
               "api_keys":{"a":"sk-orra-v1-2"},"server_addr":"http://h:1","theirs":1}},"more":[2]}"#,
        )
        .unwrap();
        add(&file, "one");
        let config = file.load().unwrap();
        assert_eq!(config.other["more"], serde_json::json!([2]));
        assert_eq!(config.projects["shop"].other["theirs"], 1);
        assert_eq!(config.projects["shop"].api_key["a"], "sk-orra-v1-2");
        assert_eq!(config.current_project, "shop");
    }

    #[test]
    fn a_missing_project_is_answered_with_what_to_do() {
        let mut config = Config::default();
        let say = |config: &Config, named: Option<&str>| match config.project(named) {
            Ok((name, _)) => format!("found {name}"),
            Err(e) => {
                assert_eq!(e.code(), 2);
                e.to_string()
            }
        };
        assert_eq!(
            say(&config, None),
            "no project is configured yet: run `orchestrion projects add <name>`"
        );
        config.projects.insert("a".into(), Project::default());
        config.projects.insert("b".into(), Project::default());
        assert_eq!(
            say(&config, None),
            "no project is current: run `orchestrion projects use <name>` (there is: a, b)"
        );
        assert_eq!(
            say(&config, Some("c")),
            "no project is called \"c\" (there is: a, b): add it with `orchestrion projects add c`"
        );
        config.current_project = "a".into();
        assert_eq!(say(&config, None), "found a");
        assert_eq!(say(&config, Some("b")), "found b");
    }

    #[test]
    fn a_file_that_makes_no_sense_is_a_usage_error_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = ConfigFile::locate(Some(&folder.path().join("config.json"))).unwrap();
        fs::write(file.path(), "{").unwrap();
        let error = file.load().unwrap_err();
        assert_eq!(error.code(), 2);
        assert!(
            error.to_string().contains("config reset --config"),
            "{error}"
        );
    }
}
