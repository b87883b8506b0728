//! A disk of its own, small enough to be filled: a file system in memory, where this user may mount one.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Mounted until it is dropped.
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// So many megabytes, mounted on a folder. `Err` says why there is none.
    pub fn mount(folder: &Path, megabytes: u32) -> Result<Self, String> {
        fs::create_dir_all(folder).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(folder)
            .output()
            .map_err(|error| format!("there is no mount command: {error}"))?;
        if !mounted.status.success() {
            let why = String::from_utf8_lossy(&mounted.stderr).trim().to_owned();
            return Err(format!(
                "a file system of its own may not be mounted: {why}"
            ));
        }
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// There is no room any more until the answer is dropped.
    pub fn fill(&self) -> Full {
        let path = self.folder.join("filler");
        let mut file = File::create(&path).unwrap();
        let block = vec![1; 16 * 1024];
        while file.write_all(&block).is_ok() {}
        Full { path }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.folder).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted: umount it", self.folder.display());
        }
    }
}

/// A full disk.
pub struct Full {
    path: PathBuf,
}

impl Drop for Full {
    fn drop(&mut self) {
        fs::remove_file(&self.path).expect("the filler is there");
    }
}
