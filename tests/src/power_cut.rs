//! Power cuts for real processes: a preloaded shim notes what they sync, and what they did not is taken back once they are killed.
//!
//! `kill -9` does not lose what was written and not synced: the system has it. A power cut does.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Watches a folder.
pub struct PowerCut {
    shim: PathBuf,
    book: PathBuf,
    folder: PathBuf,
}

impl PowerCut {
    /// Compiles the shim into `beside`, for programs that write into `folder`. `Err` says why there are no power cuts here.
    pub fn over(folder: &Path, beside: &Path) -> Result<Self, String> {
        if !cfg!(target_os = "linux") {
            return Err("libraries are preloaded on Linux only".to_owned());
        }
        fs::create_dir_all(folder).unwrap();
        let source = crate::root().join("tests/power_cut/shim.c");
        let shim = beside.join("shim.so");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let compiled = Command::new(&compiler)
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(&shim)
            .arg(&source)
            .output()
            .map_err(|error| format!("there is no C compiler {compiler}: {error}"))?;
        assert!(
            compiled.status.success(),
            "the shim does not compile: {}",
            String::from_utf8_lossy(&compiled.stderr)
        );
        Ok(Self {
            shim,
            book: beside.join("book"),
            folder: fs::canonicalize(folder).unwrap(),
        })
    }

    /// What a program needs in its environment to be watched. Syncs of files that end so are taken for left out.
    pub fn env(&self, deaf_for: &str) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        vec![
            ("LD_PRELOAD", text(&self.shim)),
            ("POWER_CUT_BOOK", text(&self.book)),
            ("POWER_CUT_FOLDER", text(&self.folder)),
            ("POWER_CUT_DEAF", deaf_for.to_owned()),
        ]
    }

    /// The program was killed and the power went: what it had not synced is gone. Answers how many bytes were lost.
    pub fn strike(&self) -> u64 {
        let book = fs::read_to_string(&self.book).unwrap_or_default();
        assert!(
            !book.is_empty(),
            "the shim noted nothing: was it preloaded?"
        );
        let mut synced: BTreeMap<String, u64> = BTreeMap::new();
        for line in book.lines() {
            let (kind, rest) = line.split_at(2);
            if kind == "R " {
                let (from, to) = rest.split_once('\t').unwrap();
                let bytes = synced.remove(from).unwrap_or(0);
                synced.insert(to.to_owned(), bytes);
                continue;
            }
            let (bytes, path) = rest.split_once(' ').unwrap();
            let bytes: u64 = bytes.parse().unwrap();
            let known = synced.entry(path.to_owned()).or_insert(bytes);
            match kind {
                "S " => *known = (*known).max(bytes),
                // Opened again, it has what was written before, synced or not; cut off, it has less.
                _ => *known = (*known).min(bytes),
            }
        }
        let mut lost = 0;
        for (path, bytes) in synced {
            let Ok(file) = File::options().write(true).open(&path) else {
                continue; // It was removed.
            };
            let length = file.metadata().unwrap().len();
            if length > bytes {
                lost += length - bytes;
                file.set_len(bytes).unwrap();
            }
        }
        fs::remove_file(&self.book).unwrap();
        lost
    }
}
