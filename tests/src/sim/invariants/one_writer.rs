//! One writer per shard: whatever reaches the disk comes from whoever took the shard over last, and touches nothing else's keys.

use orchestrion_history::store::Op;

use super::{Check, Invariant, View};

pub(super) struct OneWriter;

impl Invariant for OneWriter {
    fn name(&self) -> &'static str {
        "one_writer"
    }

    fn after_step(&mut self, view: &View<'_>) -> Check {
        for written in view.written {
            for write in &written.batch.shards {
                let held = written.held.iter().find(|(shard, _)| *shard == write.shard);
                if held.is_none_or(|(_, range)| *range != write.range) {
                    return Err(format!(
                        "shard {} was written under range {}, and is held as {held:?}",
                        write.shard.0, write.range.0
                    ));
                }
                for op in &write.ops {
                    let (Op::Put(key, _) | Op::Delete(key)) = op;
                    if key.shard() != Some(write.shard) {
                        return Err(format!("{key} was written as shard {}'s", write.shard.0));
                    }
                }
            }
        }
        Ok(())
    }
}
