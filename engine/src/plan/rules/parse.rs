//! Lines of text to rules.
//!
//! ```text
//!  rule: <services> before <services>
//!        <services> only after <services>
//!        at most <number> <services>
//!        never <services> with <services>
//!        must use <services>
//!        must offer <text>
//!        <services> requires approval [by <services>]
//!        <services> is irreversible [unless approved by <services>]
//!        parameter <name> only reaches <services>
//!        parameters stay in their case
//!  <services>: name, id or pattern [, …]        keywords in any case
//! ```

use super::{
    Approval, Count, Exclusion, Irreversible, Obligation, Order, Pattern, Patterns, Precondition,
    RULE_PREFIX, Reach, Rule,
};

/// The greatest number of `at most`.
const COUNT_MAX: usize = 1_000;

/// A line that begins as a rule and is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the rule {line:?} is not understood: {expected}")]
pub struct RuleError {
    /// The line, without its prefix.
    pub line: String,
    /// What should stand there.
    pub expected: String,
}

/// The forms, for whoever wrote something else.
const FORMS: &str = "write one of: A before B; A only after B; at most N A; never A with B; must use A; must offer TEXT; \
    A requires approval [by B]; A is irreversible [unless approved by B]; parameter P only reaches A; parameters stay in their case";

/// The text of a line that is a rule.
pub(super) fn rule_text(line: &str) -> Option<&str> {
    let line = line.trim();
    let (prefix, text) = line.split_at_checked(RULE_PREFIX.len())?;
    prefix
        .eq_ignore_ascii_case(RULE_PREFIX)
        .then(|| text.trim())
}

/// The rule that a text says.
pub(super) fn parse(text: &str) -> Result<Rule, RuleError> {
    let spaced = text.replace(',', " , ");
    let mut words = Words {
        words: spaced.split_whitespace().collect(),
        at: 0,
    };
    let rule = rule(&mut words, text).ok_or_else(|| FORMS.to_owned());
    let rule = rule.and_then(|rule| rule);
    rule.map_err(|expected| RuleError {
        line: text.to_owned(),
        expected,
    })
}

/// `None` when it is no form at all, an error when it is one that goes wrong in a way worth telling.
fn rule(words: &mut Words<'_>, text: &str) -> Option<Result<Rule, String>> {
    if words.take("parameters stay in their case") {
        return words.end(Rule::Isolation);
    }
    if words.take("at most") {
        let number = words.next()?;
        let Some(max) = number.parse().ok().filter(|max| *max <= COUNT_MAX) else {
            return Some(Err(format!(
                "{number:?} is no number from 0 to {COUNT_MAX}"
            )));
        };
        let of = words.patterns()?;
        return words.end(Rule::Count(Count { max, of }));
    }
    if words.take("never") {
        let one = words.patterns()?;
        let other = words.take("with").then(|| words.patterns())??;
        return words.end(Rule::Exclusion(Exclusion { one, other }));
    }
    if words.take("must use") {
        let of = words.patterns()?;
        return words.end(Rule::Obligation(Obligation { of }));
    }
    if words.take("must offer") {
        let capability = text["must".len()..].trim_start()["offer".len()..].trim();
        let capability = capability.trim_matches('"').trim();
        return (!capability.is_empty()).then(|| Ok(Rule::Capability(capability.to_owned())));
    }
    if words.take("parameter") {
        let parameter = words.next()?.to_owned();
        let to = words.take("only reaches").then(|| words.patterns())??;
        return words.end(Rule::Reach(Reach { parameter, to }));
    }
    let subject = words.patterns()?;
    if words.take("before") {
        let then = words.patterns()?;
        return words.end(Rule::Order(Order {
            first: subject,
            then,
        }));
    }
    if words.take("only after") {
        let first = words.patterns()?;
        return words.end(Rule::Precondition(Precondition {
            then: subject,
            first,
        }));
    }
    if words.take("requires approval") || words.take("require approval") {
        let by = match words.take("by") {
            true => words.patterns()?,
            false => Patterns::approvers(),
        };
        return words.end(Rule::Approval(Approval { of: subject, by }));
    }
    if words.take("is irreversible") || words.take("are irreversible") {
        let approved_by = match words.take("unless approved by") {
            true => words.patterns()?,
            false => Patterns::approvers(),
        };
        return words.end(Rule::Irreversible(Irreversible {
            of: subject,
            approved_by,
        }));
    }
    None
}

struct Words<'a> {
    words: Vec<&'a str>,
    at: usize,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.at)?;
        self.at += 1;
        Some(word)
    }

    /// Goes over these words, if they come next.
    fn take(&mut self, words: &str) -> bool {
        let mut at = self.at;
        for word in words.split(' ') {
            if !self
                .words
                .get(at)
                .is_some_and(|next| next.eq_ignore_ascii_case(word))
            {
                return false;
            }
            at += 1;
        }
        self.at = at;
        true
    }

    fn patterns(&mut self) -> Option<Patterns> {
        let mut patterns = vec![Pattern::parse(self.next()?)?];
        while self.take(",") {
            patterns.push(Pattern::parse(self.next()?)?);
        }
        Some(Patterns(patterns))
    }

    fn end(&self, rule: Rule) -> Option<Result<Rule, String>> {
        let rest = &self.words[self.at..];
        Some(if rest.is_empty() {
            Ok(rule)
        } else {
            Err(format!("the rule ends before {:?}", rest.join(" ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::rules::{Class, RuleSet};

    #[test]
    fn every_form_is_read() {
        for (text, class) in [
            ("charge before deliver", Class::Order),
            ("Charge, charge-card BEFORE deliver-*", Class::Order),
            ("deliver only after charge, invoice", Class::Precondition),
            ("at most 2 refund", Class::Count),
            ("at most 0 refund*", Class::Count),
            ("never express with standard", Class::Exclusion),
            ("must use fraud-check", Class::Obligation),
            ("must offer \"check the stock\"", Class::Capability),
            ("Must  Offer checking, in time", Class::Capability),
            ("refund requires approval", Class::Approval),
            ("refund requires approval by manager", Class::Approval),
            ("send-mail is irreversible", Class::Irreversible),
            (
                "send-mail is irreversible unless approved by lead",
                Class::Irreversible,
            ),
            (
                "parameter cardNumber only reaches charge,vault",
                Class::Reach,
            ),
            ("parameters stay in their case", Class::Isolation),
        ] {
            assert_eq!(parse(text).unwrap().class(), class, "{text}");
        }
        let Rule::Capability(text) = parse("Must  Offer checking, in time").unwrap() else {
            panic!("a capability")
        };
        assert_eq!(text, "checking, in time");
    }

    #[test]
    fn what_is_no_rule_is_refused_with_the_forms() {
        for (text, said) in [
            ("", "write one of"),
            ("charge after deliver", "write one of"),
            ("charge before", "write one of"),
            ("charge card before deliver", "write one of"),
            ("never express", "write one of"),
            ("must offer", "write one of"),
            ("at most two refund", "\"two\" is no number from 0 to 1000"),
            ("at most -1 refund", "\"-1\" is no number"),
            (
                "charge before deliver please",
                "the rule ends before \"please\"",
            ),
            ("a before b, ", "write one of"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn lines_without_the_prefix_are_told_and_not_enforced() {
        let set = RuleSet::parse(["Be kind", " RULE: a before b ", "rules: are text"]).unwrap();
        assert_eq!(set.told, ["Be kind", "rules: are text"]);
        assert_eq!(set.rules[0].text, "a before b");
        assert!(RuleSet::parse(["rule: nonsense"]).is_err());
        let other = RuleSet::parse(["Be kind", "rule: a before c"]).unwrap();
        assert_ne!(set.digest(), other.digest());
    }
}
