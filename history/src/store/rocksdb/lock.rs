//! The folder's lock: one process at a time.
//!
//! Invariant: the lock file stays when the lock goes; deleting it would let two processes hold "the" lock.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use super::super::{StoreError, StoreErrorKind};

/// Persisted: every version must ask for the same file.
const LOCK_FILE: &str = "orchestrion.lock";

/// Held until dropped, or until the process ends however it ends.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

impl FolderLock {
    pub(super) fn take(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(LOCK_FILE);
        let unavailable = |error: std::io::Error| {
            let message = format!("lock file {}: {error}", path.display());
            StoreError::new(StoreErrorKind::Unavailable, "open", message)
        };
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(unavailable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(unavailable(error)),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for the message: who the holder is may not be written yet.
                let read = file.read_to_string(&mut holder);
                let holder = match holder.trim() {
                    pid if read.is_ok() && !pid.is_empty() => format!("process {pid}"),
                    _ => "another process".to_owned(),
                };
                let message = format!(
                    "folder {} is in use by {holder}: stop that, or name another folder",
                    folder.display()
                );
                return Err(StoreError::new(StoreErrorKind::Refused, "open", message));
            }
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(unavailable)?;
        Ok(Self { _file: file })
    }
}
