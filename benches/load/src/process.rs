//! Processes that end with their owner, and what the kernel says they cost.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Result;

/// The kernel's unit of CPU time, as it shows it to programs.
const TICKS_PER_SECOND: f64 = 100.0;
/// A process that is to end is looked at this often.
const PAUSE: Duration = Duration::from_millis(10);

/// A process that ends with its owner.
pub struct Owned(Child);

impl Owned {
    /// This program in another role.
    pub fn role(arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        // It ends when this end of the pipe is gone.
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        Self::spawn(command)
    }

    pub fn spawn(mut command: Command) -> Result<Self> {
        let child = command.spawn();
        Ok(Self(child.map_err(|e| {
            format!("{:?} does not start: {e}", command.get_program())
        })?))
    }

    pub fn output(&mut self) -> Option<std::process::ChildStdout> {
        self.0.stdout.take()
    }

    /// User and system time so far, seconds.
    pub fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|f| f.parse::<f64>().ok());
        let used = ticks(11).unwrap_or_default() + ticks(12).unwrap_or_default();
        Ok(used / TICKS_PER_SECOND)
    }

    /// Resident memory, MB.
    pub fn resident(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kb = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        Ok(kb.unwrap_or_default() / 1_024.0)
    }

    /// Ends it in order. Connections of this process go on meanwhile: their end is part of the order.
    pub async fn stop(&mut self) -> Result<()> {
        let id = self.0.id().to_string();
        let told = Command::new("kill").args(["-TERM", &id]).status()?;
        if !told.success() {
            return Err(format!("process {id} cannot be told to stop").into());
        }
        loop {
            match self.0.try_wait()? {
                None => tokio::time::sleep(PAUSE).await,
                Some(ended) if ended.success() => return Ok(()),
                Some(ended) => return Err(format!("process {id} ended with {ended}").into()),
            }
        }
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process in another role ends when the one that started it is gone, however that went.
pub fn end_with_parent() {
    std::thread::spawn(|| {
        let mut rest = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut rest);
        std::process::exit(0);
    });
}

/// This process's own time so far, seconds.
pub fn own_cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.filter_map(|f| f.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
}

/// Bytes of the files in a folder and below.
pub fn bytes_in(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += match meta.is_dir() {
            true => bytes_in(&entry.path())?,
            false => meta.len(),
        };
    }
    Ok(bytes)
}

/// The first line that a process prints.
pub async fn first_line(output: std::process::ChildStdout) -> Result<String> {
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(output));
    let line = tokio::task::spawn_blocking(move || {
        let line = lines.next();
        // What follows is read and dropped, so that nobody waits for room in the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        line
    });
    let line = tokio::time::timeout(Duration::from_secs(60), line).await??;
    Ok(line.ok_or("a process ended before it was ready")??)
}
