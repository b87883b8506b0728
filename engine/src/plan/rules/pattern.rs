//! What stands for services in a rule: a name, an id, or either with `*` for any letters. Case does not matter.

use std::fmt;

use crate::plan::PlanTask;

/// Bytes of one pattern.
const PATTERN_BYTES_MAX: usize = 128;

/// One name or id, perhaps with `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// A pattern, if the text can be one.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-*".contains(&byte);
        let good = !text.is_empty() && text.len() <= PATTERN_BYTES_MAX && text.bytes().all(fits);
        good.then(|| Self(text.to_ascii_lowercase()))
    }

    /// Whether it stands for this name or id.
    pub fn fits(&self, name: &str) -> bool {
        let pieces: Vec<&str> = self.0.split('*').collect();
        let [first, middle @ .., last] = pieces.as_slice() else {
            return name.eq_ignore_ascii_case(&self.0);
        };
        let name = name.to_ascii_lowercase();
        let Some(mut rest) = name.strip_prefix(first) else {
            return false;
        };
        for piece in middle {
            match rest.find(piece) {
                Some(at) => rest = &rest[at + piece.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

/// Any of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patterns(pub(super) Vec<Pattern>);

impl Patterns {
    /// Who approves when a rule does not say.
    pub(super) fn approvers() -> Self {
        let names = ["approval", "approval-*", "*-approval"];
        Self(names.map(|name| Pattern(name.to_owned())).into())
    }

    /// Whether one of them stands for a service of this name or id.
    pub fn fit(&self, name: &str, id: &str) -> bool {
        self.0
            .iter()
            .any(|pattern| pattern.fits(name) || pattern.fits(id))
    }

    pub(super) fn stand_for(&self, task: &PlanTask) -> bool {
        self.fit(&task.service_name, &task.service)
    }
}

impl fmt::Display for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patterns: Vec<_> = self.0.iter().map(|pattern| pattern.0.as_str()).collect();
        f.write_str(&patterns.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_letters() {
        for (pattern, name, fits) in [
            ("charge", "charge", true),
            ("Charge", "CHARGE", true),
            ("charge", "charge-card", false),
            ("charge*", "charge", true),
            ("charge*", "charge-card", true),
            ("*-card", "charge-card", true),
            ("c*-*d", "charge-card", true),
            ("c*x*d", "charge-card", false),
            ("a*a", "a", false),
            ("*", "anything", true),
        ] {
            let pattern = Pattern::parse(pattern).unwrap();
            assert_eq!(pattern.fits(name), fits, "{pattern:?} {name}");
        }
        for bad in ["", "two words", "a,b", "ö"] {
            assert_eq!(Pattern::parse(bad), None, "{bad}");
        }
    }
}
