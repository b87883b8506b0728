//! The store on disk: one RocksDB, a column family per [`Family`], one synced write per commit.
//!
//! A write that failed to sync may still turn up after a crash, as with any log: its outcome is
//! unknown. Nothing can be committed between, so what turns up still fits what was there.
//!
//! On a full disk commits fail as a whole and reads go on; RocksDB looks every few seconds whether there
//! is room again. After any other failed write the store stays read-only until it is opened anew.
//!
//! Invariant: nobody else has the folder open; one process holds its lock.
//! Invariant: a torn tail of the log is dropped, damage before the tail refuses to open.

mod lock;
mod log;
mod tuning;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{RwLock, RwLockReadGuard};

use ::rocksdb::checkpoint::Checkpoint;
use ::rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, ErrorKind, FlushOptions, ReadOptions, WriteBatch,
    WriteOptions,
};
use bytes::Bytes;

use self::lock::FolderLock;
use self::tuning::Tuning;
use super::{Batch, Family, Key, KeyRange, Op, Page, Store, StoreError, StoreErrorKind, admit};
use crate::ids::{RangeId, ShardId};

/// The layout this version writes, and the only one it opens. Persisted.
const FORMAT_VERSION: u32 = 1;

/// The range id of a shard that nobody has acquired since the folder was laid out.
const NEVER_ACQUIRED: RangeId = RangeId(0);

/// How a [`RocksStore`] is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RocksStoreOptions {
    /// How many shards a new folder is laid out with; a folder that exists must have been laid out with
    /// as many.
    pub shards: u16,
    /// Whether a commit waits for the disk. Without it a power cut loses acknowledged work: for benches only.
    pub sync: bool,
    /// Memory for what was read lately, indexes and filters included.
    pub block_cache_bytes: usize,
    /// Memory for what was written lately and is not in a table yet, over all families. Twice as much can
    /// be in use while it is written out.
    pub write_buffer_bytes: usize,
}

impl Default for RocksStoreOptions {
    fn default() -> Self {
        Self {
            shards: 4,
            sync: true,
            block_cache_bytes: 32 * 1024 * 1024,
            write_buffer_bytes: 16 * 1024 * 1024,
        }
    }
}

/// A [`Store`] in a folder.
pub struct RocksStore {
    folder: PathBuf,
    /// Locked for writing only while the index family is dropped and made anew.
    db: RwLock<DB>,
    /// By shard, as they are on disk. Commits read it for as long as they write,
    /// so that no acquire comes between fence and write.
    ranges: RwLock<Vec<RangeId>>,
    tuning: Tuning,
    write: WriteOptions,
    // The last field, so that the database is closed when the lock goes.
    _lock: FolderLock,
}

impl RocksStore {
    /// Opens the store in `folder`, or lays a new one out there.
    pub fn open(folder: impl AsRef<Path>, options: RocksStoreOptions) -> Result<Self, StoreError> {
        let folder = folder.as_ref().to_path_buf();
        let unavailable = |error: std::io::Error| {
            let message = format!("folder {}: {error}", folder.display());
            StoreError::new(StoreErrorKind::Unavailable, "open", message)
        };
        if options.shards == 0 || options.shards == u16::MAX {
            let message = format!("{} shards: give 1 to {}", options.shards, u16::MAX - 1);
            return Err(StoreError::new(StoreErrorKind::Refused, "open", message));
        }
        fs::create_dir_all(&folder).map_err(unavailable)?;
        let lock = FolderLock::take(&folder)?;
        refuse_headless(&folder)?;
        log::check(&folder)?;

        let tuning = Tuning::new(options.block_cache_bytes, options.write_buffer_bytes);
        // The default family is RocksDB's own: it must be there, and nothing is kept in it.
        let names = Family::ALL
            .map(|family| (family.name(), family))
            .into_iter();
        let families = names
            .chain([("default", Family::Meta)])
            .map(|(name, family)| ColumnFamilyDescriptor::new(name, tuning.family(family)));
        let db = DB::open_cf_descriptors(&tuning.database(), &folder, families)
            .map_err(|error| failed(&folder, "open", &error))?;
        let mut write = WriteOptions::default();
        write.set_sync(options.sync);
        let store = Self {
            folder,
            db: RwLock::new(db),
            ranges: RwLock::default(),
            tuning,
            write,
            _lock: lock,
        };
        store.check_format(options.shards)?;
        let ranges = (0..options.shards).map(|shard| store.range_on_disk(ShardId(shard)));
        let ranges = ranges.collect::<Result<_, _>>()?;
        Ok(Self {
            ranges: RwLock::new(ranges),
            ..store
        })
    }

    /// Writes out what only the log and memory hold, so that the next open has nothing to replay. Commits
    /// are durable without it.
    pub fn flush(&self) -> Result<(), StoreError> {
        let db = self.db();
        let families = Family::ALL.map(|family| self.family(&db, family, "flush"));
        let families = families.into_iter().collect::<Result<Vec<_>, _>>()?;
        db.flush_cfs_opt(&families, &FlushOptions::default())
            .map_err(|error| failed(&self.folder, "flush", &error))
    }

    /// The store as it is at one moment, in a new folder on the same disk: files that never change again are linked there, the others
    /// copied. It opens as this one does. Commits go on meanwhile.
    pub fn copy_to(&self, folder: &Path) -> Result<(), StoreError> {
        let db = self.db();
        Checkpoint::new(&db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(folder))
            .map_err(|error| failed(folder, "copy", &error))
    }

    /// Refuses a layout that is not this version's; writes it into a folder that has none.
    fn check_format(&self, shards: u16) -> Result<(), StoreError> {
        let folder = self.folder.display();
        let refused = |message| Err(StoreError::new(StoreErrorKind::Refused, "open", message));
        let Some(value) = self.get(&Key::Format)? else {
            for family in Family::ALL {
                let everything = KeyRange {
                    family,
                    from: vec![],
                    until: vec![u8::MAX; 4],
                };
                if self.scan(&everything, 0, false)?.more {
                    let message = format!(
                        "folder {folder} holds {family} records but no format: restore it from a backup"
                    );
                    return Err(StoreError::new(StoreErrorKind::Corrupt, "open", message));
                }
            }
            return self.write_meta(&Key::Format, &format_value(FORMAT_VERSION, shards), "open");
        };
        let Some((version, rest)) = value.split_first_chunk::<4>() else {
            return Err(corrupt("open", &Key::Format, &value));
        };
        let version = u32::from_be_bytes(*version);
        if version != FORMAT_VERSION {
            return refused(format!(
                "folder {folder} has format {version}, this version opens format {FORMAT_VERSION}: \
                 start the version that wrote it, or name another folder"
            ));
        }
        let [high, low] = rest else {
            return Err(corrupt("open", &Key::Format, &value));
        };
        let laid_out = u16::from_be_bytes([*high, *low]);
        if laid_out != shards {
            return refused(format!(
                "folder {folder} was laid out with {laid_out} shards, {shards} were asked for: \
                 ask for {laid_out}, or name another folder"
            ));
        }
        Ok(())
    }

    fn range_on_disk(&self, shard: ShardId) -> Result<RangeId, StoreError> {
        let key = Key::ShardInfo { shard };
        let Some(value) = self.get(&key)? else {
            return Ok(NEVER_ACQUIRED);
        };
        let number = value[..]
            .try_into()
            .map_err(|_| corrupt("open", &key, &value))?;
        Ok(RangeId(u64::from_be_bytes(number)))
    }

    fn write_meta(
        &self,
        key: &Key,
        value: &[u8],
        operation: &'static str,
    ) -> Result<(), StoreError> {
        let db = self.db();
        let meta = self.family(&db, Family::Meta, operation)?;
        db.put_cf_opt(meta, key.encode(), value, &self.write)
            .map_err(|error| failed(&self.folder, operation, &error).at(key))
    }

    fn db(&self) -> RwLockReadGuard<'_, DB> {
        self.db
            .read()
            .expect("no call panics while it holds the lock")
    }

    fn family<'db>(
        &self,
        db: &'db DB,
        family: Family,
        operation: &'static str,
    ) -> Result<&'db ColumnFamily, StoreError> {
        db.cf_handle(family.name()).ok_or_else(|| {
            // Only the index family can be missing: dropped, and then not made anew.
            let message = format!(
                "folder {} has no {family} family: make room on the disk and drop the indexes again",
                self.folder.display()
            );
            StoreError::new(StoreErrorKind::Unavailable, operation, message)
        })
    }
}

impl Store for RocksStore {
    fn acquire(&self, shard: ShardId) -> Result<RangeId, StoreError> {
        let mut ranges = self
            .ranges
            .write()
            .expect("no call panics while it holds the lock");
        let shards = ranges.len();
        let Some(held) = ranges.get_mut(usize::from(shard.0)) else {
            let message = format!("there is no shard {}: the store has {shards}", shard.0);
            return Err(StoreError::new(StoreErrorKind::Refused, "acquire", message));
        };
        let next = RangeId(held.0 + 1);
        self.write_meta(&Key::ShardInfo { shard }, &next.0.to_be_bytes(), "acquire")?;
        *held = next;
        Ok(next)
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let ranges = self
            .ranges
            .read()
            .expect("no call panics while it holds the lock");
        let (mut bytes_expected, mut ops_expected) = (0, 0);
        for write in &batch.shards {
            let held = ranges.get(usize::from(write.shard.0)).copied();
            admit(write, held.filter(|range| *range > NEVER_ACQUIRED))?;
            ops_expected += write.ops.len();
            for op in &write.ops {
                bytes_expected += match op {
                    Op::Put(_, value) => OP_BYTES + value.len(),
                    Op::Delete(_) => OP_BYTES,
                };
            }
        }
        if bytes_expected == 0 {
            return Ok(());
        }
        let db = self.db();
        let families = [
            self.family(&db, Family::Meta, "commit")?,
            self.family(&db, Family::Truth, "commit")?,
            self.family(&db, Family::Journal, "commit")?,
            self.family(&db, Family::Index, "commit")?,
        ];
        let mut keys = Vec::with_capacity(ops_expected * OP_BYTES);
        let ops = batch.shards.iter().flat_map(|write| &write.ops);
        let mut sorted = Vec::with_capacity(ops_expected);
        sorted.extend(ops.map(|op| {
            let (Op::Put(key, _) | Op::Delete(key)) = op;
            let from = keys.len();
            key.encode_into(&mut keys);
            (key.family() as usize, from..keys.len(), op)
        }));
        // Neighbours in a table are found from each other. What is said of one key keeps its order.
        sorted.sort_by(|(one, key, _), (other, than, _)| {
            (one, &keys[key.clone()]).cmp(&(other, &keys[than.clone()]))
        });
        let mut writes = WriteBatch::with_capacity_bytes(bytes_expected);
        for (family, key, op) in sorted {
            let (family, key) = (families[family], &keys[key]);
            match op {
                Op::Put(_, value) => writes.put_cf(family, key, value),
                Op::Delete(_) => writes.delete_cf(family, key),
            }
        }
        db.write_opt(writes, &self.write)
            .map_err(|error| failed(&self.folder, "commit", &error))
    }

    fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        let db = self.db();
        let family = self.family(&db, key.family(), "get")?;
        db.get_pinned_cf(family, key.encode())
            .map(|value| value.map(|value| Bytes::copy_from_slice(&value)))
            .map_err(|error| failed(&self.folder, "get", &error).at(key))
    }

    fn scan(&self, range: &KeyRange, limit: usize, backwards: bool) -> Result<Page, StoreError> {
        let mut page = Page::default();
        if range.is_empty() {
            return Ok(page);
        }
        let db = self.db();
        let mut read = ReadOptions::default();
        read.set_iterate_lower_bound(range.from.as_slice());
        read.set_iterate_upper_bound(range.until.as_slice());
        let mut rows = db.raw_iterator_cf_opt(self.family(&db, range.family, "scan")?, read);
        if backwards {
            rows.seek_to_last()
        } else {
            rows.seek_to_first()
        }
        while let Some((bytes, value)) = rows.item() {
            if page.entries.len() == limit {
                page.more = true;
                return Ok(page);
            }
            let key = Key::decode(range.family, bytes).map_err(|error| {
                StoreError::new(StoreErrorKind::Corrupt, "scan", error.to_string()).at(range)
            })?;
            page.entries.push((key, Bytes::copy_from_slice(value)));
            if backwards { rows.prev() } else { rows.next() }
        }
        // The rows also end where one cannot be read.
        match rows.status() {
            Ok(()) => Ok(page),
            Err(error) => {
                let error = failed(&self.folder, "scan", &error);
                Err(match page.entries.last() {
                    Some((last, _)) => error.at(&format_args!("what follows {last}")),
                    None => error.at(range),
                })
            }
        }
    }

    fn rest(&self) {
        let db = self.db();
        let families = Family::ALL.map(|family| self.family(&db, family, "flush"));
        let mut beside = FlushOptions::default();
        beside.set_wait(false);
        if let Ok(families) = families.into_iter().collect::<Result<Vec<_>, _>>() {
            // What cannot be written out stays where it is; why not is told to the next commit.
            _ = db.flush_cfs_opt(&families, &beside);
        }
    }

    fn drop_indexes(&self) -> Result<(), StoreError> {
        let mut db = self
            .db
            .write()
            .expect("no call panics while it holds the lock");
        let index = Family::Index.name();
        let failed = |error| failed(&self.folder, "drop indexes", &error);
        if db.cf_handle(index).is_some() {
            db.drop_cf(index).map_err(failed)?;
        }
        db.create_cf(index, &self.tuning.family(Family::Index))
            .map_err(failed)
    }
}

/// What one operation takes in a batch beside its value: a typical key and its frame.
const OP_BYTES: usize = 96;

fn format_value(version: u32, shards: u16) -> [u8; 6] {
    let mut value = [0; 6];
    value[..4].copy_from_slice(&version.to_be_bytes());
    value[4..].copy_from_slice(&shards.to_be_bytes());
    value
}

/// RocksDB would lay a new database out beside the tables of one whose CURRENT file is gone, and then
/// delete them.
fn refuse_headless(folder: &Path) -> Result<(), StoreError> {
    let unavailable = |error: std::io::Error| {
        let message = format!("folder {}: {error}", folder.display());
        StoreError::new(StoreErrorKind::Unavailable, "open", message)
    };
    if folder.join("CURRENT").try_exists().map_err(unavailable)? {
        return Ok(());
    }
    for file in fs::read_dir(folder).map_err(unavailable)? {
        let path = file.map_err(unavailable)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "sst" || extension == "log")
        {
            let message = format!(
                "folder {} holds {} but no file CURRENT: restore it from a backup",
                folder.display(),
                path.file_name().unwrap_or_default().display()
            );
            return Err(StoreError::new(StoreErrorKind::Corrupt, "open", message));
        }
    }
    Ok(())
}

fn corrupt(operation: &'static str, key: &Key, value: &[u8]) -> StoreError {
    let message = format!(
        "its value is \"{}\": restore the folder from a backup",
        value.escape_ascii()
    );
    StoreError::new(StoreErrorKind::Corrupt, operation, message).at(key)
}

/// What RocksDB's status means here. It comes as text.
fn failed(folder: &Path, operation: &'static str, error: &::rocksdb::Error) -> StoreError {
    let (text, folder) = (error.as_ref(), folder.display());
    let full = ["No space left on device", "Disk quota exceeded"];
    let (kind, todo) = match error.kind() {
        _ if full.iter().any(|full| text.contains(full)) => (
            StoreErrorKind::Full,
            "make room on its disk for at least the write buffer, and writes go on within seconds",
        ),
        ErrorKind::Corruption => (StoreErrorKind::Corrupt, "restore it from a backup"),
        ErrorKind::InvalidArgument | ErrorKind::NotSupported if operation == "open" => (
            StoreErrorKind::Refused,
            "start the version that wrote it, or name another folder",
        ),
        _ => (
            StoreErrorKind::Unavailable,
            "check its disk and restart: after a failed write the store stays read-only",
        ),
    };
    StoreError::new(kind, operation, format!("folder {folder}: {text}: {todo}"))
}
