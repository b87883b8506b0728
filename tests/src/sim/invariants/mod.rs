//! What must hold in every world, one file each.
//!
//! | invariant | source | file |
//! |---|---|---|
//! | nothing acknowledged is lost | what askers were told, journals | `acknowledged.rs` |
//! | nothing refused leaves a trace | what askers were told, journals | `refused.rs` |
//! | replay equals state | folds of journals, the engine's memory, snapshots | `replay.rs` |
//! | kept indexes equal rebuilt ones | folds of journals, index family, heads, current runs | `indexes.rs` |
//! | one writer per shard | batches and the range ids of that moment | `one_writer.rs` |
//! | what operators were granted is done, or was so already | what they were told, journals | `operators.rs` |
//! | what is paused is handed out to nobody | journals, what operators were told, what workers were handed | `held_back.rs` |
//! | nothing that happens to a run is left unseen | journals | `unseen.rs` |
//! | no record is of a moment that is still to come | journals | `times.rs` |
//! | each attempt has one outcome and one holder | journals, what workers were handed | `outcomes.rs` |
//! | a revert that is run again is run once at a time until it is undone | records of what could not be undone, journals | `retries.rs` |
//! | each turn is what its code makes of what it counts as having seen | journals, what workers had seen | `turns.rs` |
//! | a recorded answer of the model is not asked for again | journals, the model's own book | `plans.rs` |
//! | a plan that was made before serves its own tenant, and the services it was made for | journals, the registry, what owners were told | `cached.rs` |
//! | undoing is newest first, each success once | journals | `undo.rs` |
//! | a closed execution stays closed | journals, heads | `closed.rs` |
//! | closed runs leave when their retention is over, wholly and for good | the disk, journals | `retention.rs` |
//! | webhooks arrive at least once, under one id | outbox entries, the receivers' own book | `webhooks.rs` |
//! | once faults stop, every execution ends | folds of journals | `ends.rs` |
//! | tenants never mix | batches, journals, what anybody got | `namespaces.rs` |

pub mod acknowledged;
pub mod cached;
pub mod closed;
pub mod ends;
pub mod held_back;
pub mod indexes;
pub mod namespaces;
pub mod one_writer;
pub mod operators;
pub mod outcomes;
pub mod plans;
pub mod refused;
pub mod replay;
pub mod retention;
pub mod retries;
pub mod times;
pub mod turns;
pub mod undo;
pub mod unseen;
pub mod webhooks;

use std::collections::BTreeSet;
use std::time::Duration;

use orchestrion_history::ids::Timestamp;
use orchestrion_history::state::MutableState;

use super::disk::Written;
use super::ledger::{Ledger, Run};
use super::observer::{News, Observer};

/// Holds, or how it does not.
pub type Check = Result<(), String>;

/// Everything an invariant may look at.
pub struct View<'a> {
    /// The disk.
    pub observer: &'a Observer,
    /// Those outside.
    pub ledger: &'a Ledger,
    /// What the last step brought.
    pub news: &'a News,
    /// The commits of the last step.
    pub written: &'a [Written],
    /// Marks whose fate was told in the last step.
    pub told: &'a BTreeSet<String>,
    /// Runs as the engine has them in memory, some of those that the step touched.
    pub held: &'a [(Run, MutableState)],
    /// What the model was asked in the last step.
    pub asked: &'a [String],
    /// The engine has just started, and its disk did all it was asked to.
    pub restarted: bool,
    /// The time.
    pub now: Timestamp,
    /// How long closed runs are kept.
    pub retention: Duration,
    /// When faults stopped; the beginning as long as they have not.
    pub calm_since: Timestamp,
    /// Webhooks that arrived in the last step: URL, event id, body.
    pub arrived: &'a [(String, String, String)],
}

/// Something that must hold.
pub trait Invariant {
    /// As its file is called.
    fn name(&self) -> &'static str;

    /// Holds after every step.
    fn after_step(&mut self, view: &View<'_>) -> Check;

    /// Holds also when everything is looked at anew: after a start of the engine, and at the end.
    fn of_everything(&mut self, _view: &View<'_>) -> Check {
        Ok(())
    }

    /// Holds once faults have stopped and everything has ended.
    fn at_the_end(&mut self, _view: &View<'_>) -> Check {
        Ok(())
    }

    /// The disk has lost what was not synced: what was noted of it is forgotten, and everything comes again as news.
    fn begin_again(&mut self) {}
}

/// All of them.
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(one_writer::OneWriter),
        Box::new(acknowledged::Acknowledged),
        Box::new(refused::Refused),
        Box::new(replay::Replay),
        Box::new(closed::Closed::default()),
        Box::new(retention::Retention),
        Box::new(indexes::Indexes),
        Box::new(times::Times),
        Box::new(operators::Operators::default()),
        Box::new(held_back::HeldBack::default()),
        Box::new(unseen::Unseen::default()),
        Box::new(outcomes::Outcomes::default()),
        Box::new(turns::Turns),
        Box::new(retries::Retries::default()),
        Box::new(undo::Undo::default()),
        Box::new(plans::Plans::default()),
        Box::new(cached::Cached::default()),
        Box::new(webhooks::Webhooks::default()),
        Box::new(namespaces::Namespaces::default()),
        Box::new(ends::Ends),
    ]
}
