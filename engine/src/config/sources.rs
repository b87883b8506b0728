//! Where settings come from, and in which order they win.
//!
//! Invariant: nothing here reads the process environment or a file except [`Sources::of_process`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Settings;
use super::table::{SETTINGS, Setting};

/// Why the settings cannot be used. The start stops with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value that cannot be right.
    #[error("setting {name} (from {source_name}) is {value}: it accepts {accepts}")]
    Value {
        /// The setting.
        name: &'static str,
        /// Where the value came from.
        source_name: String,
        /// The value, quoted, unless it is secret.
        value: String,
        /// What would do.
        accepts: String,
    },
    /// A member of the file that is no setting.
    #[error("{file}: there is no setting {name:?}; did you mean {nearest:?}?")]
    Unknown {
        /// The file.
        file: String,
        /// The member.
        name: String,
        /// The setting with the most similar name.
        nearest: &'static str,
    },
    /// A file that cannot be read or is not what it should be.
    #[error("{file} cannot be used: {reason}")]
    File {
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
}

/// What is set, by source.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The TOML file: its name and its text.
    pub file: Option<(String, String)>,
    /// The variables of `.env`.
    pub dotenv: BTreeMap<String, String>,
    /// The variables of the process.
    pub environment: BTreeMap<String, String>,
    /// Settings given as flags: name and value.
    pub flags: Vec<(&'static str, String)>,
}

impl Sources {
    /// The sources of this process: a TOML file, `.env` of the working directory, the environment, flags.
    pub fn of_process(
        config: Option<&Path>,
        flags: Vec<(&'static str, String)>,
    ) -> Result<Self, ConfigError> {
        let unusable = |path: &Path, error: &std::io::Error| ConfigError::File {
            file: path.display().to_string(),
            reason: error.to_string(),
        };
        let file = match config {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| unusable(path, &e))?;
                Some((path.display().to_string(), text))
            }
            None => None,
        };
        let path = PathBuf::from(".env");
        let dotenv = match std::fs::read_to_string(&path) {
            Ok(text) => dotenv(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(unusable(&path, &error)),
        };
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Ok(Self {
            file,
            dotenv,
            environment,
            flags,
        })
    }
}

impl Settings {
    /// The settings that the sources make.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let mut settings = Self::default();
        if let Some((file, text)) = &sources.file {
            settings.apply_file(file, text)?;
        }
        settings.apply_variables(".env", &sources.dotenv)?;
        settings.apply_variables("the environment", &sources.environment)?;
        for (name, value) in &sources.flags {
            if let Some(setting) = SETTINGS.iter().find(|setting| setting.name == *name) {
                settings.apply(setting, value, || {
                    format!("flag --{}", name.replace(['.', '_'], "-"))
                })?;
            }
        }
        Ok(settings)
    }

    fn apply_file(&mut self, file: &str, text: &str) -> Result<(), ConfigError> {
        let table: toml::Table = text
            .parse()
            .map_err(|e: toml::de::Error| ConfigError::File {
                file: file.to_owned(),
                // The full message quotes the line, which may hold a secret.
                reason: format!("it is not TOML: {}", e.message()),
            })?;
        let mut members = Vec::new();
        flatten(String::new(), &toml::Value::Table(table), &mut members);
        for (name, value) in members {
            let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
                return Err(ConfigError::Unknown {
                    file: file.to_owned(),
                    nearest: nearest(&name),
                    name,
                });
            };
            self.apply(setting, &value, || file.to_owned())?;
        }
        Ok(())
    }

    fn apply_variables(
        &mut self,
        source: &str,
        variables: &BTreeMap<String, String>,
    ) -> Result<(), ConfigError> {
        for setting in SETTINGS {
            // Our own name wins over orra's, an empty value counts as none.
            for variable in setting
                .orra
                .map(str::to_owned)
                .into_iter()
                .chain([setting.variable()])
            {
                if let Some(value) = variables
                    .get(&variable)
                    .filter(|value| !value.trim().is_empty())
                {
                    self.apply(setting, value.trim(), || format!("{variable} in {source}"))?;
                }
            }
        }
        Ok(())
    }

    fn apply(
        &mut self,
        setting: &Setting,
        value: &str,
        source: impl Fn() -> String,
    ) -> Result<(), ConfigError> {
        setting.set(self, value).ok_or_else(|| ConfigError::Value {
            name: setting.name,
            source_name: source(),
            value: if setting.is_secret() {
                "not usable".to_owned()
            } else {
                format!("{value:?}")
            },
            accepts: setting.accepts(),
        })
    }
}

fn flatten(prefix: String, value: &toml::Value, out: &mut Vec<(String, String)>) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let name = if prefix.is_empty() {
                    name.clone()
                } else {
                    format!("{prefix}.{name}")
                };
                flatten(name, value, out);
            }
        }
        toml::Value::String(text) => out.push((prefix, text.clone())),
        other => out.push((prefix, other.to_string())),
    }
}

/// The setting whose name shares the most with `name`.
fn nearest(name: &str) -> &'static str {
    let likeness = |candidate: &str| {
        let head = candidate
            .bytes()
            .zip(name.bytes())
            .take_while(|(a, b)| a == b)
            .count();
        let tail = candidate
            .bytes()
            .rev()
            .zip(name.bytes().rev())
            .take_while(|(a, b)| a == b)
            .count();
        head + tail
    };
    SETTINGS
        .iter()
        .map(|setting| setting.name)
        .max_by_key(|candidate| likeness(candidate))
        .unwrap_or("data_dir")
}

/// The variables of a `.env` file: `NAME=value` lines, `export` in front allowed, quotes around the value, `#` comments.
fn dotenv(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(dotenv_line).collect()
}

fn dotenv_line(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").unwrap_or(line);
    if line.starts_with('#') {
        return None;
    }
    let (name, value) = line.split_once('=')?;
    let value = value.trim();
    let quoted = ['"', '\''].into_iter().find_map(|quote| {
        let rest = value.strip_prefix(quote)?;
        rest.find(quote).map(|end| &rest[..end])
    });
    let value = quoted.unwrap_or_else(|| {
        value
            .split_once(" #")
            .map_or(value, |(value, _)| value.trim_end())
    });
    Some((name.trim().to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn file(text: &str) -> Sources {
        Sources {
            file: Some(("o.toml".to_owned(), text.to_owned())),
            ..Sources::default()
        }
    }

    #[test]
    fn later_sources_win() {
        let mut sources =
            file("[tasks]\nattempt_timeout = \"1s\"\nattempts = 7\nbackoff_factor = 1.5\n");
        sources.dotenv = variables(&[
            ("ORCHESTRION_TASKS_ATTEMPT_TIMEOUT", "2s"),
            ("PORT", "9000"),
        ]);
        sources.environment = variables(&[
            ("ORCHESTRION_TASKS_ATTEMPT_TIMEOUT", "3s"),
            ("LLM_API_KEY", "  "),
        ]);
        sources.flags = vec![("http_addr", "127.0.0.1:9001".to_owned())];
        let settings = Settings::load(&sources).unwrap();
        assert_eq!(settings.tasks.attempt_timeout, Duration::from_secs(3));
        assert_eq!(settings.tasks.attempts, 7);
        assert_eq!(settings.tasks.backoff_factor, 1.5);
        assert_eq!(settings.http_addr.port(), 9001);
        assert!(!settings.llm.is_configured());
    }

    #[test]
    fn orras_names_are_understood() {
        let environment = variables(&[
            ("PORT", "8100"),
            ("LLM_MODEL", "o1-mini"),
            ("LLM_API_BASE_URL", "http://localhost:11434/v1"),
            ("STORAGE_PATH", "/var/orra"),
            ("LOG_LEVEL", "debug"),
        ]);
        let settings = Settings::load(&Sources {
            environment,
            ..Sources::default()
        })
        .unwrap();
        assert_eq!(settings.http_addr.to_string(), "127.0.0.1:8100");
        assert_eq!(settings.llm.model.as_deref(), Some("o1-mini"));
        assert_eq!(settings.data_dir, PathBuf::from("/var/orra"));
        assert_eq!(settings.log.level, "debug");
    }

    #[test]
    fn our_name_wins_over_orras() {
        let environment = variables(&[("ORCHESTRION_LLM_MODEL", "a"), ("LLM_MODEL", "b")]);
        let settings = Settings::load(&Sources {
            environment,
            ..Sources::default()
        })
        .unwrap();
        assert_eq!(settings.llm.model.as_deref(), Some("a"));
    }

    #[test]
    fn a_bad_value_is_named_with_what_is_accepted() {
        let environment = variables(&[("PORT", "eighty")]);
        let error = Settings::load(&Sources {
            environment,
            ..Sources::default()
        })
        .unwrap_err()
        .to_string();
        assert_eq!(
            error,
            "setting http_port (from PORT in the environment) is \"eighty\": it accepts a port from 0 to 65535"
        );
        let error = Settings::load(&file("[tasks]\nattempt_timeout = 30\n"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("tasks.attempt_timeout") && error.contains("45s"),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_member_of_the_file_is_named_with_its_neighbour() {
        let error = Settings::load(&file("[tasks]\nattempt_timeouts = \"1s\"\n"))
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "o.toml: there is no setting \"tasks.attempt_timeouts\"; did you mean \"tasks.attempt_timeout\"?"
        );
    }

    #[test]
    fn an_error_in_the_file_does_not_quote_it() {
        let error = Settings::load(&file("admin_key = \"hunter2\n"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("o.toml cannot be used: it is not TOML"),
            "{error}"
        );
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_dotenv_file_reads_as_shells_write_it() {
        let text = "# keys\nexport LLM_MODEL=\"o1 mini\" # quoted\nPORT=8005 # plain\nEMPTY=\nURL=http://x/#y\nnonsense\n";
        let expected = variables(&[
            ("LLM_MODEL", "o1 mini"),
            ("PORT", "8005"),
            ("EMPTY", ""),
            ("URL", "http://x/#y"),
        ]);
        assert_eq!(dotenv(text), expected);
    }
}
