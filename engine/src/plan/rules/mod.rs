//! Rules that a plan must keep beyond being valid: an operator writes them, one line each, and the engine enforces them.
//!
//! | line                                                | class          | file              |
//! |-----------------------------------------------------|----------------|-------------------|
//! | `charge before deliver`                             | order          | `order.rs`        |
//! | `deliver only after charge`                         | precondition   | `precondition.rs` |
//! | `at most 2 refund`                                  | count          | `count.rs`        |
//! | `never express with standard`                       | exclusion      | `exclusion.rs`    |
//! | `must use fraud-check`                              | obligation     | `obligation.rs`   |
//! | `must offer check the stock`                        | capability     | `capability.rs`   |
//! | `refund requires approval by manager`               | approval       | `approval.rs`     |
//! | `send-mail is irreversible`                         | irreversible   | `irreversible.rs` |
//! | `parameter card only reaches charge, vault`         | reach          | `reach.rs`        |
//! | `parameters stay in their case`                     | isolation      | `isolation.rs`    |
//!
//! What stands for services is a name, an id, or either with `*` for any letters; a comma means "any of these". A plan is checked as its
//! references make it run: a task comes after another only if it refers to it, directly or through others.
//!
//! Invariant: a verdict depends on the plan and on what it is judged by, and on nothing else; a counterexample is a smallest one.

mod approval;
mod capability;
mod count;
mod exclusion;
mod graph;
mod irreversible;
mod isolation;
mod obligation;
mod order;
mod parse;
mod pattern;
mod precondition;
mod reach;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod violations;

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

pub use self::approval::Approval;
pub use self::capability::Offer;
pub use self::count::Count;
pub use self::exclusion::Exclusion;
use self::graph::Graph;
pub use self::irreversible::Irreversible;
pub use self::isolation::ForeignParameter;
pub use self::obligation::Obligation;
pub use self::order::Order;
pub use self::parse::RuleError;
pub use self::pattern::{Pattern, Patterns};
pub use self::precondition::Precondition;
pub use self::reach::Reach;
use super::{Parameter, Plan, Reason};

/// What a line begins with that is a rule; any other line is free text.
pub const RULE_PREFIX: &str = "rule:";

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// One before another, where both are planned.
    Order,
    /// One only where another came before it.
    Precondition,
    /// No more than so many.
    Count,
    /// Not both.
    Exclusion,
    /// At least one.
    Obligation,
    /// Something must be offered by what is planned.
    Capability,
    /// Nothing without an approval before it.
    Approval,
    /// What cannot be undone comes last, or is approved.
    Irreversible,
    /// A value goes to some services only.
    Reach,
    /// A parameter of one use case is no input of another.
    Isolation,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// `a before b`
    Order(Order),
    /// `b only after a`
    Precondition(Precondition),
    /// `at most 2 a`
    Count(Count),
    /// `never a with b`
    Exclusion(Exclusion),
    /// `must use a`
    Obligation(Obligation),
    /// `must offer some capability`
    Capability(String),
    /// `a requires approval`
    Approval(Approval),
    /// `a is irreversible`
    Irreversible(Irreversible),
    /// `parameter p only reaches a`
    Reach(Reach),
    /// `parameters stay in their case`
    Isolation,
}

impl Rule {
    /// What it is about.
    pub fn class(&self) -> Class {
        match self {
            Self::Order(_) => Class::Order,
            Self::Precondition(_) => Class::Precondition,
            Self::Count(_) => Class::Count,
            Self::Exclusion(_) => Class::Exclusion,
            Self::Obligation(_) => Class::Obligation,
            Self::Capability(_) => Class::Capability,
            Self::Approval(_) => Class::Approval,
            Self::Irreversible(_) => Class::Irreversible,
            Self::Reach(_) => Class::Reach,
            Self::Isolation => Class::Isolation,
        }
    }

    /// Everything in it that stands for services.
    pub fn patterns(&self) -> Vec<&Patterns> {
        match self {
            Self::Order(rule) => vec![&rule.first, &rule.then],
            Self::Precondition(rule) => vec![&rule.then, &rule.first],
            Self::Count(rule) => vec![&rule.of],
            Self::Exclusion(rule) => vec![&rule.one, &rule.other],
            Self::Obligation(rule) => vec![&rule.of],
            Self::Approval(rule) => vec![&rule.of],
            Self::Irreversible(rule) => vec![&rule.of],
            Self::Reach(rule) => vec![&rule.to],
            Self::Capability(_) | Self::Isolation => Vec::new(),
        }
    }

    fn broken_by(&self, subject: &Subject<'_>) -> Option<Counterexample> {
        match self {
            Self::Order(rule) => rule.broken_by(subject),
            Self::Precondition(rule) => rule.broken_by(subject),
            Self::Count(rule) => rule.broken_by(subject),
            Self::Exclusion(rule) => rule.broken_by(subject),
            Self::Obligation(rule) => rule.broken_by(subject),
            Self::Capability(text) => capability::broken_by(text, subject),
            Self::Approval(rule) => rule.broken_by(subject),
            Self::Irreversible(rule) => rule.broken_by(subject),
            Self::Reach(rule) => rule.broken_by(subject),
            Self::Isolation => isolation::broken_by(subject),
        }
    }
}

/// A rule as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Without its prefix.
    pub text: String,
    /// What it says.
    pub rule: Rule,
}

/// The lines of one grounding: rules, and what only the planner is told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleSet {
    /// Enforced.
    pub rules: Vec<Line>,
    /// Told to the planner, and not enforced.
    pub told: Vec<String>,
}

impl RuleSet {
    /// Reads the lines. The error names the line.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self, RuleError> {
        let mut set = Self::default();
        for line in lines {
            match parse::rule_text(line) {
                Some(text) => set.rules.push(Line {
                    text: text.to_owned(),
                    rule: parse::parse(text)?,
                }),
                None => set.told.push(line.trim().to_owned()),
            }
        }
        Ok(set)
    }

    /// SHA-256 of the lines, hex: another order of the lines is another set.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (kind, text) in self
            .rules
            .iter()
            .map(|line| (b"r", &line.text))
            .chain(self.told.iter().map(|text| (b"t", text)))
        {
            hash.update(kind);
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        }
        let digest = hash.finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What a plan is judged by: the rules, and what they need to know of the case it is for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ruling {
    /// Whose rules these are: name and version.
    pub authority: String,
    /// The rules.
    pub rules: Vec<Line>,
    /// The capabilities that the case itself asks for.
    pub capabilities: Vec<String>,
    /// Who offers which capability, those of the rules included.
    pub offers: Vec<Offer>,
    /// Parameters that belong to other cases alone.
    pub foreign_parameters: Vec<ForeignParameter>,
}

/// A plan on trial.
struct Subject<'a> {
    plan: &'a Plan,
    data: &'a [Parameter],
    ruling: &'a Ruling,
    graph: Graph,
}

impl Subject<'_> {
    /// The places of the tasks that these patterns stand for, in plan order.
    fn tasks_of(&self, patterns: &Patterns) -> Vec<usize> {
        let tasks = self.plan.tasks.iter().enumerate();
        tasks
            .filter(|(_, task)| patterns.stand_for(task))
            .map(|(at, _)| at)
            .collect()
    }

    /// `task3 (charge)`
    fn name(&self, task: usize) -> String {
        let task = &self.plan.tasks[task];
        format!("`{}` ({})", task.id, task.service_name)
    }

    fn counterexample(&self, tasks: &[usize], text: String) -> Counterexample {
        Counterexample {
            tasks: tasks
                .iter()
                .map(|&task| self.plan.tasks[task].id.clone())
                .collect(),
            text,
        }
    }
}

/// What of a plan breaks a rule: nothing can be left out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counterexample {
    tasks: Vec<String>,
    text: String,
}

/// Every rule that a valid plan breaks, in the order they were written, each with a smallest counterexample.
pub fn check(plan: &Plan, data: &[Parameter], ruling: &Ruling) -> Vec<Reason> {
    let subject = Subject {
        plan,
        data,
        ruling,
        graph: Graph::of(plan),
    };
    let asked = ruling.capabilities.iter().map(|text| {
        let found = capability::broken_by(text, &subject);
        (Class::Capability, format!("must offer {text}"), found)
    });
    let ruled = ruling.rules.iter().map(|line| {
        let found = line.rule.broken_by(&subject);
        (line.rule.class(), line.text.clone(), found)
    });
    let mut told = BTreeSet::new();
    asked
        .chain(ruled)
        .filter_map(|(class, rule, found)| Some((class, rule, found?)))
        .filter(|(_, rule, _)| told.insert(rule.clone()))
        .map(|(class, rule, found)| Reason::RuleBroken {
            class,
            rule,
            authority: ruling.authority.clone(),
            tasks: found.tasks,
            text: found.text,
        })
        .collect()
}
