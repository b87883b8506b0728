//! Backups of a running engine: the data folder as it is at one moment, in a folder within it.
//!
//! ```text
//!  backups/2026-03-04T11-55-00.123Z.partial --store copied, key copied, synced--> backups/2026-03-04T11-55-00.123Z
//! ```
//!
//! Invariant: a folder whose name does not end in `.partial` is whole.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use orchestrion_history::ids::Timestamp;
use orchestrion_history::store::{RocksStore, StoreError, StoreErrorKind};
use tokio::sync::Mutex;

use crate::audit::sign::KEY_FILE;
use crate::orchestration::effect::rfc3339;
use crate::seams;
use crate::server::STORE_FOLDER;

/// Where they are, within the data folder.
const FOLDER: &str = "backups";
/// What the name of one that is not whole ends with.
const PARTIAL: &str = ".partial";

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store could not be copied.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be written.
    #[error("the backup {} cannot be written: {source}", folder.display())]
    File {
        /// The backup.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes backups, one at a time.
pub struct Backups {
    /// None of a store in memory.
    disk: Option<Arc<RocksStore>>,
    data_dir: PathBuf,
    turn: Mutex<()>,
}

impl Backups {
    /// Of this store and what lies beside it.
    pub fn of(disk: Arc<RocksStore>, data_dir: PathBuf) -> Self {
        Self {
            disk: Some(disk),
            data_dir,
            turn: Mutex::default(),
        }
    }

    /// Of a store that is on no disk.
    pub fn none() -> Self {
        Self {
            disk: None,
            data_dir: PathBuf::new(),
            turn: Mutex::default(),
        }
    }

    /// Makes one; where it is.
    pub async fn make(&self, at: Timestamp) -> Result<PathBuf, BackupError> {
        let _turn = self.turn.lock().await;
        let Some(disk) = self.disk.clone() else {
            let message = "the store is in memory: there is nothing to back up";
            return Err(StoreError::new(StoreErrorKind::Refused, "copy", message).into());
        };
        let data_dir = self.data_dir.clone();
        let copied = seams::blocking(move || copy(&disk, &data_dir, at)).await;
        copied.unwrap_or_else(|why| {
            let message = format!("the copy did not end: {why}");
            Err(StoreError::new(StoreErrorKind::Unavailable, "copy", message).into())
        })
    }
}

/// What a crash, or a full disk, left of an earlier one. It keeps files of the store from being freed.
fn forget_partial(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().ends_with(PARTIAL)
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(folder = %entry.path().display(), %error, "a backup that did not become whole cannot be removed");
        }
    }
}

fn copy(disk: &RocksStore, data_dir: &Path, at: Timestamp) -> Result<PathBuf, BackupError> {
    // Colons are no part of a name everywhere.
    let name = rfc3339(at).replace(':', "-");
    let folder = data_dir.join(FOLDER).join(&name);
    let partial = data_dir.join(FOLDER).join(format!("{name}{PARTIAL}"));
    let failed = |source| BackupError::File {
        folder: folder.clone(),
        source,
    };
    forget_partial(&data_dir.join(FOLDER));
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&partial);
    made.map_err(failed)?;
    disk.copy_to(&partial.join(STORE_FOLDER))?;
    let beside = || -> io::Result<()> {
        let key = partial.join(KEY_FILE);
        fs::copy(data_dir.join(KEY_FILE), &key)?;
        File::open(&key)?.sync_all()?;
        File::open(&partial)?.sync_all()?;
        fs::rename(&partial, &folder)?;
        File::open(data_dir.join(FOLDER))?.sync_all()
    };
    beside().map_err(failed)?;
    fs::canonicalize(&folder).map_err(failed)
}
