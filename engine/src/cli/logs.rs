//! `orchestrion logs`: the journal of an orchestration as a log, one line for each record; with `--follow` as it grows, over lost
//! connections and restarts of the server.

use std::time::Duration;

use clap::Args;
use reqwest::header::{HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::Value;

use super::error::CliError;
use super::render::{Look, Tone, cut};
use super::{Session, Target, show};

/// How much of a record fits on a line without `--wide`.
const SUMMARY_LENGTH: usize = 100;
/// Between two tries to reach a server that went away.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How often a server that does not answer is asked again.
const RETRIES_MAX: u32 = 240;

/// Whose log.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The orchestration's id
    pub id: String,
    /// Go on until nothing of it goes on any more
    #[arg(short, long)]
    pub follow: bool,
    /// Show long records whole
    #[arg(short, long)]
    pub wide: bool,
}

/// A record, as far as a log shows it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Record {
    /// Its number.
    pub sequence: u64,
    /// When.
    #[serde(deserialize_with = "super::wire::time")]
    pub time: Option<jiff::Timestamp>,
    /// What happened.
    #[serde(rename = "type")]
    pub name: String,
    /// To which step.
    pub step: Option<String>,
    /// Of which service.
    pub component: Option<String>,
    /// In a few words.
    pub summary: String,
    /// All of it.
    pub record: Value,
}

/// Prints it.
pub async fn run(session: &Session, args: LogsArgs) -> Result<(), CliError> {
    let target = session.target().await?;
    let mut reader = Reader {
        session,
        target: &target,
        args: &args,
        last: 0,
    };
    let mut failures = 0;
    loop {
        let before = reader.last;
        match reader.read().await {
            Ok(true) => return Ok(()),
            Ok(false) => failures = 0,
            Err(error) if args.follow && passes(&error) && failures < RETRIES_MAX => {
                failures = if reader.last > before {
                    0
                } else {
                    failures + 1
                };
            }
            Err(error) => return Err(error),
        }
        crate::seams::sleep(RETRY_AFTER).await;
    }
}

fn passes(error: &CliError) -> bool {
    match error {
        CliError::Unreachable { .. } => true,
        CliError::Refused { status, .. } => *status == 503,
        _ => false,
    }
}

struct Reader<'a> {
    session: &'a Session,
    target: &'a Target,
    args: &'a LogsArgs,
    /// The number of the last record that was printed.
    last: u64,
}

impl Reader<'_> {
    /// One connection; whether the end was told.
    async fn read(&mut self) -> Result<bool, CliError> {
        let mut headers = HeaderMap::new();
        headers.insert("last-event-id", HeaderValue::from(self.last));
        let query: &[(&str, String)] = &[("once", (!self.args.follow).to_string())];
        let path = ["v1", "orchestrations", &self.args.id, "events"];
        let client = &self.target.client;
        let mut answer = client.stream(&path, query, headers).await?;
        let mut buffer: Vec<u8> = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|e| client.unreachable(&e))? {
            buffer.extend_from_slice(&chunk);
            while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = buffer.drain(..end + 2).collect();
                if self.tell(&String::from_utf8_lossy(&block))? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Prints one event; whether it is the end.
    fn tell(&mut self, block: &str) -> Result<bool, CliError> {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        let Some(data) = field("data: ") else {
            return Ok(false);
        };
        let data: Value = serde_json::from_str(data)
            .map_err(|e| CliError::Failed(format!("the server's answer is not JSON ({e})")))?;
        if field("event: ") == Some("end") {
            return Ok(true);
        }
        let record: Record = super::client::read(&data)?;
        self.last = record.sequence;
        show(&if self.session.json {
            format!("{data}\n")
        } else {
            line(&self.session.look, &record, self.args.wide)
        })?;
        Ok(false)
    }
}

fn line(look: &Look, record: &Record, wide: bool) -> String {
    let about = match (&record.step, &record.component) {
        (Some(step), Some(component)) => format!("{step} ({component}) "),
        (Some(step), None) => format!("{step} "),
        _ => String::new(),
    };
    let time = look.precise_clock(record.time);
    // On a screen a line stays a line.
    let before = [4, time.chars().count(), about.chars().count()];
    let before = before.iter().sum::<usize>() + record.name.chars().count() + 6;
    let room = look.width.map_or(SUMMARY_LENGTH, |width| {
        usize::from(width).saturating_sub(before)
    });
    let summary = if wide {
        record.summary.clone()
    } else {
        cut(&record.summary, room)
    };
    let tone = match record.name.as_str() {
        name if name.ends_with("Failed") || name.ends_with("TimedOut") => Tone::Bad,
        name if name.ends_with("Completed") => Tone::Good,
        name if name.starts_with("WorkflowTask") => Tone::Dim,
        _ => Tone::Plain,
    };
    let line = format!(
        "{:>4}  {}  {}{}  {summary}",
        record.sequence,
        look.paint(Tone::Dim, &time),
        look.paint(Tone::Strong, &about),
        look.paint(tone, &record.name),
    );
    format!("{}\n", line.trim_end())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::render::tests::plain;

    #[test]
    fn a_line_says_when_what_and_to_which_step() {
        let record: Record = serde_json::from_value(json!({
            "sequence": 7, "time": "2026-03-04T11:55:00.0105Z", "type": "ActivityTaskFailed", "step": "task1",
            "component": "payment", "summary": "of 5 \"card declined\"", "record": {},
        }))
        .unwrap();
        assert_eq!(
            line(&plain(), &record, false),
            "   7  11:55:00.010  task1 (payment) ActivityTaskFailed  of 5 \"card declined\"\n"
        );
        let bare = Record {
            summary: String::new(),
            step: None,
            ..record
        };
        assert_eq!(
            line(&plain(), &bare, false),
            "   7  11:55:00.010  ActivityTaskFailed\n"
        );
    }
}
