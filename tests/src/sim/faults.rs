//! What goes wrong, and when: the process is killed, also in the middle of a commit; the power goes; the disk refuses, fills up, cannot be read
//! or loses a bit; the clock jumps; an engine that was believed dead goes on writing.

use std::time::Duration;

use orchestrion_history::ids::ShardId;
use orchestrion_history::store::{Key, KeyRange, Store, StoreErrorKind};

use super::dice::Dice;
use super::disk::{KillAt, SimDisk};
use super::life::SHARDS;

/// Longer than any world lasts.
const YEAR: u64 = 366 * 24 * 3_600;

/// Of a thousand steps, how many bring what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// Steps before the faults stop.
    pub steps: u32,
    /// The process is killed between two commits.
    pub kills: u64,
    /// The process is killed in a commit.
    pub kills_in_commit: u64,
    /// A commit is refused.
    pub refusals: u64,
    /// The disk breaks in a commit, and writes nothing before the next start.
    pub breakdowns: u64,
    /// The disk is full for a while.
    pub full: u64,
    /// Reads fail for a while.
    pub unreadable: u64,
    /// The clock jumps ahead.
    pub jumps: u64,
    /// A bit of some journal or snapshot flips.
    pub flips: u64,
    /// The indexes are gone at the next start.
    pub lost_indexes: u64,
    /// Workers, networks, models and receivers misbehave.
    pub outside: bool,
    /// How long closed runs are kept: no fault, but it takes away what others still ask for.
    pub retention: Duration,
}

impl Profile {
    /// Nothing goes wrong.
    pub const CALM: Self = Self {
        steps: 2_000,
        kills: 0,
        kills_in_commit: 0,
        refusals: 0,
        breakdowns: 0,
        full: 0,
        unreadable: 0,
        jumps: 0,
        flips: 0,
        lost_indexes: 0,
        outside: false,
        retention: Duration::from_secs(300),
    };

    /// What a seed brings: not all of everything, so that rare things get their turn.
    pub fn of_seed(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x5eed);
        let mut some = |usual: u64| match dice.roll(4) {
            0 => 0,
            1 => usual * 4,
            _ => usual,
        };
        Self {
            steps: 2_000,
            kills: some(4),
            kills_in_commit: some(4),
            refusals: some(8),
            breakdowns: some(2),
            full: some(2),
            unreadable: some(2),
            jumps: some(2),
            flips: if some(1) == 4 { 2 } else { 0 },
            lost_indexes: some(60),
            outside: some(1) > 0,
            retention: Duration::from_secs(match some(1) {
                0 => YEAR,
                1 => 300,
                _ => 30,
            }),
        }
    }
}

/// What happens to the engine itself in a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Strike {
    /// Nothing, or something that the disk keeps to itself.
    None,
    /// The process is gone; with the power, or without.
    Kill {
        /// What was not synced is gone as well.
        power: bool,
    },
    /// A bit of this value flipped.
    Flip(Key),
    /// It is later than anybody thought, by so many seconds.
    Jump(u64),
}

/// Draws what goes wrong in this step.
pub fn strike(dice: &mut Dice, profile: &Profile, disk: &SimDisk, say: impl Fn(String)) -> Strike {
    // Somebody notices that nothing is written any more.
    if dice.per_mille(profile.kills) || (disk.is_broken() && dice.per_mille(50)) {
        return Strike::Kill {
            power: dice.roll(2) == 0,
        };
    }
    if dice.per_mille(profile.kills_in_commit) {
        let at = *dice.pick(&[KillAt::BeforeWrite, KillAt::BeforeSync, KillAt::AfterSync]);
        say(format!("the next commit is the last: {at:?}"));
        disk.kill_in_next_commit(at);
    }
    if dice.per_mille(profile.refusals) {
        say("the next commit is refused".to_owned());
        disk.refuse_next(StoreErrorKind::Unavailable);
    }
    if dice.per_mille(profile.breakdowns) {
        say("the disk breaks in the next commit".to_owned());
        disk.break_in_next_commit();
    }
    if dice.per_mille(profile.full) {
        say("the disk is full".to_owned());
        disk.set_full(true);
    } else if dice.per_mille(50) {
        disk.set_full(false);
    }
    if dice.per_mille(profile.unreadable) {
        let reads = 1 + dice.roll(4) as u32;
        say(format!("{reads} reads fail"));
        disk.set_unreadable(reads);
    }
    if dice.per_mille(profile.flips)
        && let Some(key) = flip(dice, disk)
    {
        say(format!("a bit flips in {key}"));
        return Strike::Flip(key);
    }
    if dice.per_mille(profile.jumps) {
        return Strike::Jump(1 + dice.roll(400));
    }
    Strike::None
}

/// A bit of some run's journal or snapshot flips.
fn flip(dice: &mut Dice, disk: &SimDisk) -> Option<Key> {
    let shard = ShardId(dice.roll(u64::from(SHARDS)) as u16);
    let all = |range: &KeyRange| {
        let page = disk.contents().scan(range, usize::MAX, false);
        page.map(|page| page.entries).unwrap_or_default()
    };
    let snapshots = all(&KeyRange::snapshots(shard));
    let key = if dice.roll(2) == 0 && !snapshots.is_empty() {
        dice.pick(&snapshots).0.clone()
    } else {
        let heads = all(&KeyRange::run_heads(shard));
        if heads.is_empty() {
            return None;
        }
        let Key::RunHead {
            namespace, run_id, ..
        } = &dice.pick(&heads).0
        else {
            return None;
        };
        let entries = all(&KeyRange::journal_of(shard, namespace, *run_id));
        if entries.is_empty() {
            return None;
        }
        dice.pick(&entries).0.clone()
    };
    disk.damage(&key);
    Some(key)
}
