//! Every store passes the contract suite; RocksDB also survives what happens to files.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use orchestrion_history::ids::{RunId, ShardId};
use orchestrion_history::store::{
    Key, KeyRange, MemoryStore, Op, RocksStore, RocksStoreOptions, Store, StoreError,
    StoreErrorKind,
};
use orchestrion_tests::store_suite::{
    SHARD, batch, fill, journal, keys, matches_the_oracle, namespace, put, text, timer, truth,
};
use tempfile::TempDir;

/// Runs each contract against each store.
macro_rules! contracts {
    ($($contract:ident)*) => {
        mod memory {
            use super::*;
            $(
                #[test]
                fn $contract() {
                    orchestrion_tests::store_suite::$contract(&MemoryStore::new());
                }
            )*
        }

        mod rocksdb {
            use super::*;
            $(
                #[test]
                fn $contract() {
                    let folder = folder();
                    let store = open(folder.path()).expect("a new folder opens");
                    orchestrion_tests::store_suite::$contract(&store);
                }
            )*
        }
    };
}

contracts! {
    gets_what_was_committed
    a_batch_is_one
    operations_apply_in_order
    fences_off_the_former_owner
    refuses_writes_to_a_shard_without_owner
    refuses_keys_outside_the_shard
    an_empty_batch_writes_nothing
    scans_in_order_within_bounds
    pages_continue_after_the_last_key
    lists_newest_first
    namespaces_do_not_bleed
    dropping_indexes_keeps_the_truth
    resting_changes_nothing
    keeps_large_values
    keeps_long_and_odd_ids
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("the system has room for a folder")
}

fn open(folder: &Path) -> Result<RocksStore, StoreError> {
    RocksStore::open(folder, RocksStoreOptions::default())
}

fn refusal(folder: &Path) -> StoreError {
    match open(folder) {
        Ok(_) => panic!("{} opened", folder.display()),
        Err(error) => error,
    }
}

/// What a crash leaves: a copy of the files while the store is open, without what it holds in memory.
fn crash(from: &Path) -> TempDir {
    let copy = folder();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|ending| ending == extension))
        .collect();
    files.sort();
    files
}

/// The newest log: where commits go.
fn log(folder: &Path) -> PathBuf {
    files(folder, "log").pop().expect("an open store has a log")
}

fn log_bytes(folder: &Path) -> usize {
    fs::metadata(log(folder)).unwrap().len() as usize
}

#[test]
fn the_memory_store_matches_itself() {
    matches_the_oracle(
        64,
        || (),
        |(), before: Option<MemoryStore>| before.unwrap_or_default(),
    );
}

#[test]
fn rocksdb_matches_the_memory_store_over_restarts() {
    matches_the_oracle(
        48,
        folder,
        |folder: &TempDir, before: Option<RocksStore>| {
            drop(before);
            open(folder.path()).expect("the folder opens again")
        },
    );
}

#[test]
fn a_reopened_folder_holds_everything() {
    let folder = folder();
    let store = open(folder.path()).unwrap();
    let former = fill(
        &store,
        vec![put(truth("ns", "a"), "1"), put(journal(0), "j")],
    );
    store
        .commit(&batch(
            former,
            vec![put(timer(1), "t"), Op::Delete(truth("ns", "a"))],
        ))
        .unwrap();
    drop(store);
    for _ in 0..3 {
        let store = open(folder.path()).unwrap();
        assert_eq!(text(&store, &truth("ns", "a")), None);
        assert_eq!(text(&store, &journal(0)).as_deref(), Some("j"));
        assert_eq!(text(&store, &timer(1)).as_deref(), Some("t"));
        let owner = store.acquire(SHARD).unwrap();
        assert!(owner > former, "range ids outlive a restart");
        let error = store
            .commit(&batch(former, vec![put(journal(1), "old")]))
            .unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Fenced, "{error}");
        store.flush().unwrap();
    }
}

#[test]
fn a_second_open_is_refused_until_the_first_ends() {
    let folder = folder();
    let store = open(folder.path()).unwrap();
    let error = refusal(folder.path());
    assert_eq!(error.kind, StoreErrorKind::Refused, "{error}");
    assert!(
        error.message.contains(&folder.path().display().to_string()),
        "{error}"
    );
    assert!(
        error
            .message
            .contains(&format!("process {}", std::process::id())),
        "{error}"
    );
    fill(&store, vec![put(journal(0), "the first goes on")]);
    drop(store);
    open(folder.path()).unwrap();
}

#[test]
fn a_folder_of_another_format_or_layout_is_refused() {
    let folder = folder();
    drop(open(folder.path()).unwrap());
    let shards = RocksStoreOptions {
        shards: 8,
        ..RocksStoreOptions::default()
    };
    let error = RocksStore::open(folder.path(), shards)
        .err()
        .expect("other shards");
    assert_eq!(error.kind, StoreErrorKind::Refused, "{error}");
    assert!(
        error
            .message
            .contains("laid out with 4 shards, 8 were asked for"),
        "{error}"
    );
    for shards in [0, u16::MAX] {
        let shards = RocksStoreOptions {
            shards,
            ..RocksStoreOptions::default()
        };
        let error = RocksStore::open(folder.path(), shards)
            .err()
            .expect("no such shard count");
        assert_eq!(error.kind, StoreErrorKind::Refused, "{error}");
    }

    let db = ::rocksdb::DB::open_cf(
        &::rocksdb::Options::default(),
        folder.path(),
        ["meta", "truth", "journal", "index"],
    )
    .unwrap();
    let newer = [&2u32.to_be_bytes()[..], b"something else"].concat();
    db.put_cf(db.cf_handle("meta").unwrap(), Key::Format.encode(), newer)
        .unwrap();
    drop(db);
    let error = refusal(folder.path());
    assert_eq!(error.kind, StoreErrorKind::Refused, "{error}");
    assert!(
        error
            .message
            .contains("has format 2, this version opens format 1"),
        "{error}"
    );

    let mut db = ::rocksdb::DB::open_cf(
        &::rocksdb::Options::default(),
        folder.path(),
        ["meta", "truth", "journal", "index"],
    )
    .unwrap();
    db.create_cf("a later family", &::rocksdb::Options::default())
        .unwrap();
    drop(db);
    let error = refusal(folder.path());
    assert_eq!(error.kind, StoreErrorKind::Refused, "{error}");
}

#[test]
fn a_torn_tail_is_dropped_and_everything_before_it_is_there() {
    let folder = folder();
    let store = open(folder.path()).unwrap();
    let range = fill(
        &store,
        vec![put(journal(0), "whole"), put(truth("ns", "a"), "1")],
    );
    let whole = log_bytes(folder.path());
    // Longer than a block of the log, so that it lies there in pieces.
    let last = vec![
        put(journal(1), &"torn".repeat(20_000)),
        Op::Delete(truth("ns", "a")),
    ];
    store.commit(&batch(range, last)).unwrap();
    let end = log_bytes(folder.path());
    let left = crash(folder.path());
    drop(store);

    let places = [
        whole,
        whole + 1,
        whole + 6,
        whole + 7,
        whole + 40,
        whole + 30_000,
    ];
    for place in places.into_iter().chain([end - 1]) {
        for zeros in [0, 100, 40_000] {
            let torn = crash(left.path());
            let mut bytes = fs::read(log(torn.path())).unwrap();
            bytes.truncate(place);
            bytes.resize(place + zeros, 0);
            fs::write(log(torn.path()), bytes).unwrap();
            let store = open(torn.path()).unwrap_or_else(|error| panic!("cut at {place}: {error}"));
            assert_eq!(
                text(&store, &journal(0)).as_deref(),
                Some("whole"),
                "cut at {place}"
            );
            assert_eq!(
                text(&store, &truth("ns", "a")).as_deref(),
                Some("1"),
                "cut at {place}"
            );
            assert_eq!(text(&store, &journal(1)), None, "cut at {place}");
            // And goes on from there, also over the next restart.
            fill(&store, vec![put(journal(1), "again")]);
            drop(store);
            let store = open(torn.path()).unwrap();
            assert_eq!(
                text(&store, &journal(1)).as_deref(),
                Some("again"),
                "cut at {place}"
            );
        }
    }
    // A page of the last record that never reached the disk, though later ones did.
    let torn = crash(left.path());
    let mut bytes = fs::read(log(torn.path())).unwrap();
    bytes[whole + 8_192..whole + 12_288].fill(0);
    fs::write(log(torn.path()), bytes).unwrap();
    let store = open(torn.path()).unwrap();
    assert_eq!(text(&store, &journal(0)).as_deref(), Some("whole"));
    assert_eq!(text(&store, &journal(1)), None);

    let store = open(left.path()).unwrap();
    assert_eq!(
        text(&store, &journal(1)).map(|value| value.len()),
        Some(80_000),
        "untorn"
    );
    assert_eq!(text(&store, &truth("ns", "a")), None);
}

#[test]
fn damage_before_the_tail_of_the_log_refuses_to_open() {
    let folder = folder();
    let store = open(folder.path()).unwrap();
    let range = fill(&store, vec![put(journal(0), "0")]);
    let start = log_bytes(folder.path());
    store
        .commit(&batch(range, vec![put(journal(1), "acknowledged")]))
        .unwrap();
    let end = log_bytes(folder.path());
    store
        .commit(&batch(range, vec![put(journal(2), "acknowledged too")]))
        .unwrap();
    let left = crash(folder.path());
    drop(store);

    for place in start..end {
        let damaged = crash(left.path());
        let path = log(damaged.path());
        let mut bytes = fs::read(&path).unwrap();
        bytes[place] ^= 0x40;
        fs::write(&path, &bytes).unwrap();
        let error = refusal(damaged.path());
        assert_eq!(error.kind, StoreErrorKind::Corrupt, "{error}");
        assert!(
            error.message.contains(&format!("damaged at byte {start}")),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), bytes, "the evidence is kept");
    }
    let damaged = crash(left.path());
    let mut bytes = fs::read(log(damaged.path())).unwrap();
    bytes[start..end].fill(0);
    fs::write(log(damaged.path()), bytes).unwrap();
    assert_eq!(refusal(damaged.path()).kind, StoreErrorKind::Corrupt);
    open(left.path()).expect("undamaged, it opens");
}

#[test]
fn a_damaged_table_is_an_error_and_never_a_wrong_answer() {
    let folder = folder();
    let store = open(folder.path()).unwrap();
    // Random enough not to shrink, large enough that the data fills most of the table.
    let value = |seq: u64| format!("{:0>4000}", seq.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    fill(
        &store,
        (0..100).map(|seq| put(journal(seq), &value(seq))).collect(),
    );
    store.flush().unwrap();
    drop(store);

    let table = files(folder.path(), "sst")
        .into_iter()
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let mut bytes = fs::read(&table).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x01;
    fs::write(&table, bytes).unwrap();

    let store = open(folder.path()).expect("unread blocks are not known to be damaged");
    let mut damaged = 0;
    for seq in 0..100 {
        match store.get(&journal(seq)) {
            Ok(read) => assert_eq!(read.as_deref(), Some(value(seq).as_bytes())),
            Err(error) => {
                assert_eq!(error.kind, StoreErrorKind::Corrupt, "{error}");
                assert_eq!(error.key, Some(journal(seq).to_string()));
                damaged += 1;
            }
        }
    }
    assert!((1..20).contains(&damaged), "{damaged} of 100");
    let run = KeyRange::journal_of(SHARD, &namespace("ns"), RunId([7; 16]));
    let error = store.scan(&run, 200, false).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Corrupt, "{error}");
    assert!(
        error
            .key
            .expect("a place")
            .starts_with("what follows journal of run")
    );
}

#[test]
fn a_folder_that_lost_its_head_is_never_laid_out_anew() {
    let folder = folder();
    let store = open(folder.path()).unwrap();
    fill(&store, vec![put(journal(0), "j")]);
    drop(store);
    fs::remove_file(folder.path().join("CURRENT")).unwrap();
    let before = fs::read_dir(folder.path()).unwrap().count();
    let error = refusal(folder.path());
    assert_eq!(error.kind, StoreErrorKind::Corrupt, "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), before);
}

#[test]
fn indexes_dropped_half_way_are_empty_and_everything_else_is_there() {
    let folder = folder();
    let store = open(folder.path()).unwrap();
    fill(&store, vec![put(journal(0), "j"), put(timer(1), "t")]);
    drop(store);
    // The crash comes between dropping the family and making it anew.
    let families = ["meta", "truth", "journal", "index"];
    let mut db =
        ::rocksdb::DB::open_cf(&::rocksdb::Options::default(), folder.path(), families).unwrap();
    db.drop_cf("index").unwrap();
    drop(db);
    let store = open(folder.path()).unwrap();
    assert_eq!(
        keys(&store, &KeyRange::timers(SHARD), 9, false),
        (vec![], false)
    );
    assert_eq!(text(&store, &journal(0)).as_deref(), Some("j"));
}

#[test]
fn a_shard_beyond_the_layout_cannot_be_acquired() {
    let folder = folder();
    let store = open(folder.path()).unwrap();
    store.acquire(ShardId(3)).unwrap();
    let error = store.acquire(ShardId(4)).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Refused, "{error}");
}

/// Run by hand with a small file system of its own, for example:
/// `mount -t tmpfs -o size=48m none /mnt/small && ORCHESTRION_SMALL_DISK=/mnt/small cargo test ... -- --ignored`
#[test]
#[ignore = "wants ORCHESTRION_SMALL_DISK, a folder on a file system of 48 MB"]
fn a_full_disk_writes_nothing_and_goes_on_when_there_is_room() {
    let disk = PathBuf::from(std::env::var_os("ORCHESTRION_SMALL_DISK").expect("a folder"));
    let folder = disk.join("store");
    let ballast = disk.join("ballast");
    fs::write(&ballast, vec![1; 24 * 1024 * 1024]).unwrap();
    let store = open(&folder).unwrap();
    let range = store.acquire(SHARD).unwrap();
    let mut written = 0;
    let error = loop {
        let ops = vec![
            put(journal(written), &"x".repeat(64 * 1024)),
            put(timer(1), "t"),
        ];
        match store.commit(&batch(range, ops)) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    eprintln!("after {written} commits: {error}");
    assert_eq!(error.kind, StoreErrorKind::Full, "{error}");
    assert!(written > 0);
    assert_eq!(
        store.get(&journal(written)),
        Ok(None),
        "nothing of it is there"
    );
    assert_eq!(
        text(&store, &journal(0)).map(|value| value.len()),
        Some(64 * 1024),
        "reads go on"
    );
    let again = store
        .commit(&batch(range, vec![put(truth("ns", "a"), "1")]))
        .unwrap_err();
    assert_eq!(again.kind, StoreErrorKind::Full, "{again}");

    let elsewhere = crash(&folder);
    let restarted = open(elsewhere.path()).unwrap();
    for seq in 0..written {
        assert!(
            restarted.get(&journal(seq)).unwrap().is_some(),
            "{seq} of {written}"
        );
    }
    assert_eq!(restarted.get(&journal(written)), Ok(None));
    drop(restarted);

    fs::remove_file(&ballast).unwrap();
    let began = Instant::now();
    while let Err(error) = store.commit(&batch(range, vec![put(truth("ns", "a"), "1")])) {
        assert_eq!(error.kind, StoreErrorKind::Full, "{error}");
        assert!(began.elapsed().as_secs() < 30, "still {error}");
        sleep(Duration::from_millis(100));
    }
    eprintln!("went on after {:?}", began.elapsed());
    drop(store);
    let store = open(&folder).unwrap();
    assert_eq!(text(&store, &truth("ns", "a")).as_deref(), Some("1"));
    assert_eq!(store.get(&journal(written)), Ok(None));
    for seq in 0..written {
        assert!(
            store.get(&journal(seq)).unwrap().is_some(),
            "{seq} of {written}"
        );
    }
}
