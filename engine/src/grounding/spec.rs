//! A grounding as its author wrote it, checked.

use std::collections::BTreeMap;

use orchestrion_history::ids::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::plan::rules::RuleSet;

/// Characters of a name or a domain.
const NAME_CHARS: std::ops::RangeInclusive<usize> = 3..=63;
/// Bytes of a version.
const VERSION_BYTES_MAX: usize = 64;
/// Use cases of one grounding.
const USE_CASES_MAX: usize = 200;
/// Constraints of one grounding.
const CONSTRAINTS_MAX: usize = 200;
/// Capabilities of one use case, and its parameters.
const PARTS_MAX: usize = 50;
/// Bytes of any one text.
const TEXT_BYTES_MAX: usize = 4 * 1024;

/// What an author writes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Unique in the project.
    pub name: String,
    /// What it is about.
    pub domain: String,
    /// A new text needs a new one.
    pub version: String,
    /// What may be asked for.
    pub use_cases: Vec<UseCase>,
    /// Free text for the planner, and rules, which begin with `rule:`.
    pub constraints: Vec<String>,
}

/// Something that may be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UseCase {
    /// The action, with `{name}` where a parameter stands.
    pub action: String,
    /// An example value of each parameter.
    pub params: BTreeMap<String, String>,
    /// What planned services must offer.
    pub capabilities: Vec<String>,
    /// What is meant by it.
    pub intent: String,
}

impl UseCase {
    /// The action without its parameters.
    pub fn bare_action(&self) -> String {
        let mut text = String::new();
        let mut rest = self.action.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            text.push_str(before);
            match after.split_once('}') {
                Some((_, after)) => rest = after,
                None => {
                    rest = after;
                    break;
                }
            }
        }
        text.push_str(rest);
        text
    }

    /// The action with the example values in place.
    pub fn example(&self) -> String {
        let mut pieces = self.action.split('{');
        let mut text = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let named = piece.split_once('}');
            match named.and_then(|(name, after)| Some((self.params.get(name.trim())?, after))) {
                Some((value, after)) => text.extend([value.as_str(), after]),
                None => text.extend(["{", piece]),
            }
        }
        text
    }

    fn variables(&self) -> impl Iterator<Item = &str> {
        let pieces = self.action.split('{').skip(1);
        pieces.filter_map(|piece| Some(piece.split_once('}')?.0.trim()))
    }
}

/// A grounding that is checked and in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Grounding {
    /// As it was written.
    pub spec: Spec,
    /// What of it is enforced, and what is only told.
    pub rules: RuleSet,
    /// SHA-256 of all of it, hex.
    pub digest: String,
    /// When it was applied.
    pub applied_at: Timestamp,
    /// How often this name was applied, this time included.
    pub revision: i64,
}

/// Why a spec cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// The member, as orra's clients know it.
    pub param: &'static str,
    /// What is wrong with it.
    pub message: String,
}

impl Grounding {
    /// The lines that every plan is checked against.
    pub fn enforced(&self) -> impl Iterator<Item = &str> {
        self.rules.rules.iter().map(|line| line.text.as_str())
    }

    /// Checks a spec.
    pub fn new(spec: Spec, applied_at: Timestamp, revision: i64) -> Result<Self, Fault> {
        check_name("name", &spec.name)?;
        check_name("domain", &spec.domain)?;
        if spec.version.trim().is_empty() || spec.version.len() > VERSION_BYTES_MAX {
            return fault(
                "version",
                format!(
                    "version is {:?}: give 1 to {VERSION_BYTES_MAX} bytes, such as 1.0",
                    spec.version
                ),
            );
        }
        if spec.use_cases.is_empty() || spec.use_cases.len() > USE_CASES_MAX {
            let count = spec.use_cases.len();
            return fault(
                "use-cases",
                format!("there are {count} use cases: give 1 to {USE_CASES_MAX}"),
            );
        }
        for (at, case) in spec.use_cases.iter().enumerate() {
            if let Err(what) = check_case(case) {
                return fault("use-cases", format!("use case {}: {what}", at + 1));
            }
        }
        if spec.constraints.len() > CONSTRAINTS_MAX {
            let count = spec.constraints.len();
            return fault(
                "constraints",
                format!("there are {count} constraints: at most {CONSTRAINTS_MAX} are allowed"),
            );
        }
        for (at, constraint) in spec.constraints.iter().enumerate() {
            if constraint.trim().is_empty() || constraint.len() > TEXT_BYTES_MAX {
                return fault(
                    "constraints",
                    format!(
                        "constraint {} is empty or has more than {TEXT_BYTES_MAX} bytes",
                        at + 1
                    ),
                );
            }
        }
        let rules =
            RuleSet::parse(spec.constraints.iter().map(String::as_str)).map_err(|error| Fault {
                param: "constraints",
                message: error.to_string(),
            })?;
        Ok(Self {
            digest: digest_of(&spec),
            spec,
            rules,
            applied_at,
            revision,
        })
    }

    /// How errors call it.
    pub fn authority(&self) -> String {
        format!("the grounding {} {}", self.spec.name, self.spec.version)
    }

    /// SHA-256 of several groundings together, hex; of none it is empty.
    pub fn digest_of_all<'a>(groundings: impl IntoIterator<Item = &'a Self>) -> String {
        let mut digests: Vec<_> = groundings.into_iter().map(|g| g.digest.as_str()).collect();
        if digests.is_empty() {
            return String::new();
        }
        digests.sort_unstable();
        hex_digest(digests.join("\n").as_bytes())
    }
}

fn digest_of(spec: &Spec) -> String {
    let text = serde_json::to_vec(spec).expect("a spec has string keys only");
    hex_digest(&text)
}

fn hex_digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fault<T>(param: &'static str, message: String) -> Result<T, Fault> {
    Err(Fault { param, message })
}

fn check_name(param: &'static str, name: &str) -> Result<(), Fault> {
    let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    let good = NAME_CHARS.contains(&name.len())
        && bytes.first().copied().is_some_and(edge)
        && bytes.last().copied().is_some_and(edge)
        && bytes
            .iter()
            .all(|&byte| edge(byte) || byte == b'.' || byte == b'-');
    if good {
        return Ok(());
    }
    let (min, max) = (NAME_CHARS.start(), NAME_CHARS.end());
    fault(
        param,
        format!(
            "{param} is {name:?}: give {min} to {max} lower-case letters, digits, dots and dashes, a letter or digit first and last"
        ),
    )
}

fn check_case(case: &UseCase) -> Result<(), String> {
    let text = |what: &str, text: &str| {
        if text.trim().is_empty() {
            Err(format!("its {what} is empty"))
        } else if text.len() > TEXT_BYTES_MAX {
            Err(format!("its {what} has more than {TEXT_BYTES_MAX} bytes"))
        } else {
            Ok(())
        }
    };
    text("action", &case.action)?;
    text("intent", &case.intent)?;
    if case.capabilities.is_empty() || case.capabilities.len() > PARTS_MAX {
        return Err(format!(
            "it has {} capabilities: give 1 to {PARTS_MAX}",
            case.capabilities.len()
        ));
    }
    for capability in &case.capabilities {
        text("capability", capability)?;
    }
    if case.params.len() > PARTS_MAX {
        return Err(format!(
            "it has {} params: at most {PARTS_MAX} are allowed",
            case.params.len()
        ));
    }
    for (name, value) in &case.params {
        text("param's name", name)?;
        if value.len() > TEXT_BYTES_MAX {
            return Err(format!(
                "its param {name:?} has more than {TEXT_BYTES_MAX} bytes"
            ));
        }
    }
    match case
        .variables()
        .find(|name| !case.params.contains_key(*name))
    {
        Some(name) => Err(format!(
            "its action has {{{name}}}, and params has no {name:?}: give it an example value"
        )),
        None => Ok(()),
    }
}
