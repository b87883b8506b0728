//! How RocksDB is set up: every option that is not its default, with the reason.
//!
//! Invariant: no option here decides what is true; a folder written with one tuning opens with another.

use ::rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, LogLevel,
    LruCacheOptions, Options,
};

use super::super::Family;

/// As RocksDB has them where nobody asks for anything else.
const NO_WINDOW: i32 = -14;
const DEFAULT_STRATEGY: i32 = 0;
const NO_DICTIONARY: i32 = 0;
/// Of zstd.
const FASTEST_LEVEL: i32 = 1;
/// Parts of the cache, each with its own lock, as a power of two; by itself it makes 64 of our 32 MB, and a block larger than a
/// part is read from the disk each time.
const CACHE_PART_BITS: i32 = 4;

/// The memory that all families share.
pub(super) struct Tuning {
    cache: Cache,
    write_buffer_bytes: usize,
}

impl Tuning {
    pub(super) fn new(block_cache_bytes: usize, write_buffer_bytes: usize) -> Self {
        let mut cache = LruCacheOptions::default();
        cache.set_capacity(block_cache_bytes);
        cache.set_num_shard_bits(CACHE_PART_BITS);
        Self {
            cache: Cache::new_lru_cache_opts(&cache),
            write_buffer_bytes,
        }
    }

    /// Options of the database as a whole.
    pub(super) fn database(&self) -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);

        // Every damage is an error, here and in reads (checksums are verified by default).
        options.set_paranoid_checks(true);
        // By itself this mode opens whatever the damage and drops all that follows it. `log::check` has
        // seen by now that nothing whole follows. The mode named "tolerate corrupted tail" would refuse
        // a tail whose pages reached the disk out of order, and drop whole records behind a damaged length.
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        // Closed logs that are shorter than when they were synced, or missing, refuse to open.
        options.set_track_and_verify_wals_in_manifest(true);

        options.set_db_write_buffer_size(self.write_buffer_bytes);
        // What an open has to replay at most.
        options.set_max_total_wal_size(4 * self.write_buffer_bytes as u64);
        options.set_max_open_files(512);
        options.set_max_background_jobs(2);

        options.set_log_level(LogLevel::Warn);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(1024 * 1024);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options
    }

    /// Options of one family.
    pub(super) fn family(&self, family: Family) -> Options {
        let mut options = Options::default();
        options.set_write_buffer_size(self.write_buffer_bytes);
        // Memtables take memory in steps of this, five families each at least one.
        options.set_arena_block_size(256 * 1024);
        // Every compaction of a small store rewrites all of it: half as often.
        options.set_level_zero_file_num_compaction_trigger(8);
        // Each table that is written out reaches over all shards, so that its compaction rewrites the first level whole: that one is kept
        // small, in small tables, and what lies below it is moved by parts. Tables grow with the levels, for the sake of open files.
        options.set_max_bytes_for_level_base(32 * 1024 * 1024);
        options.set_target_file_size_base(8 * 1024 * 1024);
        options.set_target_file_size_multiplier(2);
        // The fastest level takes a few microseconds for a run, and leaves a third of its bytes on disk.
        options.set_compression_type(DBCompressionType::Zstd);
        options.set_compression_options(NO_WINDOW, FASTEST_LEVEL, DEFAULT_STRATEGY, NO_DICTIONARY);
        options.set_bottommost_compression_type(DBCompressionType::Zstd);

        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        // Counted against the cache, so that memory stays bounded however large the folder grows.
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        // In blocks of their own: whole, those of a table with a million keys would be larger than what the cache takes as one, and be
        // read anew for each key that is looked up.
        table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        table.set_partition_filters(true);
        table.set_metadata_block_size(4 * 1024);
        table.set_pin_top_level_index_and_filter(true);
        match family {
            Family::Meta => {}
            // Read by key, and each new workflow id asks for one that is not there.
            Family::Truth => table.set_bloom_filter(10.0, false),
            // Read in runs of entries: larger blocks compress better.
            Family::Journal => table.set_block_size(16 * 1024),
            // Queues and timers leave tombstones where the next scan begins: compact such tables early.
            Family::Index => {
                options.add_compact_on_deletion_collector_factory(64 * 1024, 32 * 1024, 0.5);
            }
        }
        options.set_block_based_table_factory(&table);
        options
    }
}
