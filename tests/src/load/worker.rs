//! A worker of workflows in a process of its own, on Temporal's Python SDK: it is started once, and has to come back by itself.

use std::process::Stdio;
use std::time::Duration;

use tempfile::NamedTempFile;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::py_service::python;

const LOG_LINES_SHOWN: usize = 40;
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Polls until it is dropped.
pub(super) struct Worker {
    process: Child,
    log: NamedTempFile,
}

impl Worker {
    /// Runs the workflows and activities of `tests/temporal/python/<file>.py` on a queue, and polls when this returns.
    pub(super) async fn start(address: &str, namespace: &str, queue: &str, file: &str) -> Self {
        let log = NamedTempFile::new().unwrap();
        let mut process = Command::new(python())
            .args(["-B", "doomed.py", address, namespace, queue, file])
            .current_dir(crate::root().join("tests/temporal/python"))
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.reopen().unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines();
        let worker = Self { process, log };
        let first = tokio::time::timeout(READY_WITHIN, said.next_line()).await;
        let first = first.expect("the worker is ready in time").unwrap();
        assert_eq!(first.as_deref(), Some("ready"), "what the worker says");
        worker
    }

    /// It is the process that was started.
    pub(super) fn still_runs(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.log.path()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
            eprintln!("--- the worker ---\n{}", lines[from..].join("\n"));
        }
    }
}
