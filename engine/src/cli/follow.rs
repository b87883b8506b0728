//! Following an orchestration to its end: asks for the inspection again and again and tells what is
//! new in it. On a terminal a line at the bottom says how far it is; elsewhere there are only lines.
//!
//! The end is where nothing more can happen: a failed or aborted orchestration is followed until
//! what was done has been undone.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde_json::Value;

use super::client::{self, Client};
use super::error::CliError;
use super::inspect::{abort_title, results};
use super::render::{Look, Tone, bar, cut, error_text, json_line, key, progress, words};
use super::wire::{AbortInfo, Inspection, Task};
use super::{Session, show, show_json};

/// How often to ask.
const EVERY: Duration = Duration::from_millis(300);
/// How often a server that does not answer is asked again before that is the outcome.
const SILENT_POLLS_MAX: u32 = 400;
/// How often it is asked, in polls, whether a run that may be over is closed.
const CLOSED_EVERY: u32 = 5;
/// How long a server that cannot say so is trusted to have more to come, in polls without news.
const QUIET_POLLS_MAX: u32 = 300;
/// How much of an update or an error fits on one line.
const LINE_LENGTH: usize = 100;

/// What comes first of what happened at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Task,
    RevertEnded,
    RevertBegins,
}

/// What is left to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// It goes on.
    Busy,
    /// It has failed or was aborted, and something may still have to be undone.
    Undoing,
    /// Nothing.
    Nothing,
}

/// Follows it, and returns as it ended. A quiet one prints nothing; with `--json` the last inspection.
pub async fn to_the_end(
    session: &Session,
    client: &Client,
    id: &str,
    quiet: bool,
) -> Result<(), CliError> {
    let on_screen = io::stdout().is_terminal() && io::stderr().is_terminal();
    let follower = Follower {
        client,
        id,
        look: &session.look,
        mute: quiet || session.json,
        bar: (!quiet && !session.json && on_screen).then(spinner),
    };
    let ended = follower.follow().await;
    if let Some(bar) = &follower.bar {
        bar.finish_and_clear();
    }
    let (answer, inspection) = ended?;
    if session.json {
        show_json(&answer)?;
    } else if !quiet {
        show(&ending(&session.look, &inspection))?;
    }
    outcome(&inspection)
}

struct Follower<'a> {
    client: &'a Client,
    id: &'a str,
    look: &'a Look,
    mute: bool,
    bar: Option<ProgressBar>,
}

impl Follower<'_> {
    /// The last inspection, as it came and as it was read.
    async fn follow(&self) -> Result<(Value, Inspection), CliError> {
        let mut watcher = Watcher::default();
        let (mut silent, mut still, mut closed) = (0, 0, false);
        self.tell(&[String::new()])?;
        loop {
            match self.inspect().await {
                Ok((answer, inspection)) => {
                    if silent > 0 {
                        self.tell(&[self.look.paint(Tone::Good, "the server answers again")])?;
                        silent = 0;
                    }
                    let news = watcher.news(self.look, &inspection);
                    still = if news.is_empty() { still + 1 } else { 0 };
                    self.tell(&news)?;
                    if let Some(bar) = &self.bar {
                        bar.set_message(standing(&inspection));
                    }
                    match rest(&inspection) {
                        Rest::Nothing => return Ok((answer, inspection)),
                        Rest::Undoing if closed => return Ok((answer, inspection)),
                        Rest::Undoing if still % CLOSED_EVERY == 0 => {
                            match self.is_closed().await {
                                // Once more: what closed it may have come after this inspection.
                                Some(true) => {
                                    closed = true;
                                    continue;
                                }
                                Some(false) => {}
                                None if still >= QUIET_POLLS_MAX => {
                                    return Ok((answer, inspection));
                                }
                                None => {}
                            }
                        }
                        Rest::Undoing | Rest::Busy => {}
                    }
                }
                Err(error) if passes(&error) && silent < SILENT_POLLS_MAX => {
                    if silent == 0 {
                        self.tell(&[self.look.paint(
                            Tone::Warning,
                            "the server does not answer; asking again (what it has accepted is not lost)",
                        )])?;
                    }
                    silent += 1;
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn inspect(&self) -> Result<(Value, Inspection), CliError> {
        let answer = self
            .client
            .get(&["orchestrations", "inspections", self.id], &[])
            .await?;
        let inspection = client::read(&answer)?;
        Ok((answer, inspection))
    }

    /// Whether the run is over; nothing where the server cannot say so.
    async fn is_closed(&self) -> Option<bool> {
        let path = ["orchestrations", self.id, "replay"];
        let replay = self.client.get(&path, &[]).await.ok()?;
        Some(!replay.get("state")?.get("closedAt")?.is_null())
    }

    fn tell(&self, lines: &[String]) -> Result<(), CliError> {
        if self.mute || lines.is_empty() {
            return Ok(());
        }
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        match &self.bar {
            Some(bar) => bar.suspend(|| show(&text)),
            None => show(&text),
        }
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// Whether asking again may help: the server is restarting, or busy.
fn passes(error: &CliError) -> bool {
    matches!(
        error,
        CliError::Unreachable { .. }
            | CliError::Refused {
                status: 429 | 502 | 503 | 504,
                ..
            }
    )
}

/// What has been told of each task already.
#[derive(Debug, Default)]
struct Watcher {
    tasks: HashMap<String, Told>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Told {
    statuses: usize,
    updates: usize,
    reverts: usize,
}

impl Watcher {
    /// What is new since the last time, oldest first.
    fn news(&mut self, look: &Look, inspection: &Inspection) -> Vec<String> {
        let width = |part: fn(&Task) -> &str| {
            inspection
                .tasks
                .iter()
                .map(|t| part(t).chars().count())
                .max()
                .unwrap_or(0)
        };
        let (id_width, service_width) = (width(|t| &t.id), width(|t| &t.service_name));
        // By time; at the same time, what led to a revert comes before it, and a revert that ended before the next that begins.
        let mut news: Vec<(Option<Timestamp>, Rank, String)> = Vec::new();
        for task in &inspection.tasks {
            let told = self.tasks.entry(task.id.clone()).or_default();
            let mut say = |at: Option<Timestamp>, rank: Rank, what: String| {
                let line = format!(
                    "  {}  {:<id_width$}  {:<service_width$}  {what}",
                    look.paint(Tone::Dim, &look.clock(at)),
                    task.id,
                    task.service_name
                );
                news.push((at, rank, line));
            };
            for event in task.status_history.iter().skip(told.statuses) {
                // What has not begun yet is no news.
                if key(&event.status) != "registered" {
                    let why = reason(look, &event.error);
                    say(
                        event.timestamp,
                        Rank::Task,
                        format!("{}{why}", look.status(&event.status)),
                    );
                }
            }
            for update in task.interim_results.iter().skip(told.updates) {
                let text = match progress(&update.data) {
                    Some(percent) => look.paint(Tone::Active, &bar(percent)),
                    None => json_line(&update.data, LINE_LENGTH),
                };
                say(update.timestamp, Rank::Task, text);
            }
            for event in task.compensation_history.iter().skip(told.reverts) {
                let attempt = match event.attempt {
                    0 | 1 => String::new(),
                    n => format!(" (attempt {n})"),
                };
                let why = reason(look, &event.error);
                let rank = match key(&event.status).as_str() {
                    "processing" => Rank::RevertBegins,
                    _ => Rank::RevertEnded,
                };
                say(
                    event.timestamp,
                    rank,
                    format!("revert {}{attempt}{why}", look.status(&event.status)),
                );
            }
            *told = Told {
                statuses: task.status_history.len(),
                updates: task.interim_results.len(),
                reverts: task.compensation_history.len(),
            };
        }
        news.sort_by_key(|(at, rank, _)| (*at, *rank));
        news.into_iter().map(|(_, _, line)| line).collect()
    }
}

fn reason(look: &Look, error: &str) -> String {
    if error.is_empty() {
        String::new()
    } else {
        format!(" - {}", look.paint(Tone::Bad, &cut(error, LINE_LENGTH)))
    }
}

/// One line on how far it is.
fn standing(inspection: &Inspection) -> String {
    let done = inspection
        .tasks
        .iter()
        .filter(|t| key(&t.status) == "completed")
        .count();
    let all = inspection.tasks.len();
    match key(&inspection.status).as_str() {
        "pending" => "planning".into(),
        "failed" | "aborted" | "cancelled" => "undoing what was done".into(),
        _ => format!("{done} of {all} tasks done"),
    }
}

fn rest(inspection: &Inspection) -> Rest {
    match key(&inspection.status).as_str() {
        "" | "pending" | "processing" | "preparing" => Rest::Busy,
        "failed" | "aborted" | "cancelled" if !inspection.tasks.iter().all(is_settled) => {
            Rest::Undoing
        }
        _ => Rest::Nothing,
    }
}

/// Whether nothing more can happen to a task whose orchestration has failed or was aborted. Where
/// that cannot be told from the task alone, it may.
fn is_settled(task: &Task) -> bool {
    match (key(&task.status).as_str(), &task.compensation) {
        ("processing" | "unknown", _) => false,
        (_, Some(revert)) => match key(&revert.status).as_str() {
            "completed" | "partial" | "expired" | "unknown" => true,
            // An attempt has failed; that was the end of it only if it was the last one.
            "failed" => revert.attempt >= revert.max_attempts,
            _ => false,
        },
        ("completed", None) => !task.is_revertible,
        _ => true,
    }
}

/// The last words.
fn ending(look: &Look, inspection: &Inspection) -> String {
    let mut text = format!("\n{} {}\n", look.status(&inspection.status), inspection.id);
    let error = error_text(&inspection.error);
    if !error.is_empty() {
        text.push_str(&format!("  {}\n", look.paint(Tone::Bad, &error)));
    }
    if let Some(abort) = &inspection.abort_info {
        let said = match &abort.payload {
            Value::Null => String::new(),
            payload => format!(": {}", json_line(payload, LINE_LENGTH)),
        };
        text.push_str(&format!("  {}{said}\n", abort_title(abort)));
    }
    text.push_str(&results(look, inspection));
    text
}

/// How it ended, as an exit code and one line on why.
fn outcome(inspection: &Inspection) -> Result<(), CliError> {
    let error = match error_text(&inspection.error) {
        text if text.is_empty() => words(&inspection.status).to_lowercase(),
        text => text,
    };
    match key(&inspection.status).as_str() {
        "completed" => Ok(()),
        "aborted" => Err(CliError::OrchestrationAborted(
            match &inspection.abort_info {
                Some(AbortInfo { payload, .. }) if !payload.is_null() => {
                    json_line(payload, LINE_LENGTH)
                }
                Some(abort) => abort_title(abort).to_lowercase(),
                None => error,
            },
        )),
        "notactionable" => Err(CliError::NotActionable(error)),
        _ => Err(CliError::OrchestrationFailed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::inspect::tests::aborted;
    use crate::cli::render::tests::plain;
    use serde_json::json;

    #[test]
    fn the_whole_story_of_an_aborted_order_once() {
        let mut watcher = Watcher::default();
        assert_eq!(
            watcher.news(&plain(), &aborted()),
            [
                "  11:55:00  task1  payment   ◎ Processing",
                "  11:55:01  task1  payment   ✕ Failed - bank is busy",
                "  11:55:03  task1  payment   ◎ Processing",
                "  11:55:03  task1  payment   █░░░░░░░░░ 10%",
                "  11:55:03  task1  payment   █████░░░░░ 50%",
                "  11:55:03  task1  payment   █████████░ 90%",
                "  11:55:04  task1  payment   ● Completed",
                "  11:55:05  task2  delivery  ⊟ Aborted",
                "  11:55:06  task1  payment   revert ◎ Processing - bank is busy",
                "  11:55:09  task1  payment   revert ● Completed (attempt 2)",
            ]
        );
        assert!(watcher.news(&plain(), &aborted()).is_empty());
    }

    #[test]
    fn a_revert_that_begins_with_the_end_of_another_is_told_behind_it() {
        let mut order = aborted();
        let mut newer = order.tasks[0].clone();
        newer.id = "task3".to_owned();
        let ended = newer.compensation_history.last().unwrap().timestamp;
        let begins = &mut order.tasks[0].compensation_history;
        begins.truncate(1);
        begins[0].timestamp = ended;
        order.tasks.push(newer);
        let news = Watcher::default().news(&plain(), &order);
        let [.., end, begin] = &news[..] else {
            panic!("{news:?}")
        };
        assert!(
            end.contains("task3") && end.contains("revert ● Completed"),
            "{news:?}"
        );
        assert!(
            begin.contains("task1") && begin.contains("revert ◎ Processing"),
            "{news:?}"
        );
    }

    #[test]
    fn only_what_is_new_is_told() {
        let mut watcher = Watcher::default();
        let mut early = aborted();
        early.tasks[0].status_history.truncate(1);
        early.tasks[0].interim_results.clear();
        early.tasks[0].compensation_history.clear();
        early.tasks[1].status_history =
            serde_json::from_value(json!([{"status":"registered"}])).unwrap();
        assert_eq!(
            watcher.news(&plain(), &early),
            ["  11:55:00  task1  payment   ◎ Processing"]
        );
        assert_eq!(watcher.news(&plain(), &aborted()).len(), 8);
    }

    #[test]
    fn it_ends_when_what_was_done_has_been_undone() {
        let mut order = aborted();
        assert_eq!(rest(&order), Rest::Nothing);
        let revert = |order: &mut Inspection, status: &str, attempt| {
            let revert = order.tasks[0].compensation.as_mut().unwrap();
            (revert.status, revert.attempt) = (status.into(), attempt);
            rest(order)
        };
        assert_eq!(revert(&mut order, "processing", 1), Rest::Undoing);
        assert_eq!(revert(&mut order, "failed", 9), Rest::Undoing);
        assert_eq!(revert(&mut order, "failed", 10), Rest::Nothing);
        assert_eq!(revert(&mut order, "expired", 3), Rest::Nothing);
        order.tasks[0].compensation = None;
        assert_eq!(rest(&order), Rest::Undoing);
        order.tasks[0].is_revertible = false;
        assert_eq!(rest(&order), Rest::Nothing);
        order.tasks[1].status = "processing".into();
        assert_eq!(rest(&order), Rest::Undoing);
        order.status = "completed".into();
        assert_eq!(rest(&order), Rest::Nothing);
        for status in ["pending", "processing", ""] {
            order.status = status.into();
            assert_eq!(rest(&order), Rest::Busy);
        }
    }

    #[test]
    fn exit_codes() {
        for (status, code) in [
            ("completed", 0),
            ("failed", 4),
            ("cancelled", 4),
            ("aborted", 5),
            ("not_actionable", 6),
        ] {
            let inspection = Inspection {
                status: status.into(),
                ..Inspection::default()
            };
            let got = outcome(&inspection).map_or_else(|e| e.code(), |()| 0);
            assert_eq!(got, code, "{status}");
        }
    }

    #[test]
    fn the_error_of_a_followed_run_says_why() {
        let say = |inspection: &Inspection| outcome(inspection).unwrap_err().to_string();
        let mut order = aborted();
        assert_eq!(
            say(&order),
            "the orchestration was aborted: {\"reason\":\"no courier\",\"city\":{\"name\":\"Berlin\"}}"
        );
        order.status = "failed".into();
        order.error = json!({"id":"x","producer":"s","error":"card declined"});
        assert_eq!(say(&order), "the orchestration failed: card declined");
        order.status = "cancelled".into();
        order.error = json!(null);
        assert_eq!(say(&order), "the orchestration failed: cancelled");
    }

    #[test]
    fn how_far_it_is() {
        let mut order = aborted();
        assert_eq!(standing(&order), "undoing what was done");
        order.status = "processing".into();
        assert_eq!(standing(&order), "1 of 2 tasks done");
    }

    #[test]
    fn the_last_words() {
        assert_eq!(
            ending(&plain(), &aborted()),
            "\n⊟ Aborted o_2yQ8kZpWn5VtRbXcDfGhJk\n  Aborted by task2 (delivery): \
             {\"reason\":\"no courier\",\"city\":{\"name\":\"Berlin\"}}\n"
        );
    }

    #[test]
    fn a_restarting_server_is_asked_again() {
        let status = |status| CliError::Refused {
            status,
            refusal: Default::default(),
        };
        assert!(passes(&status(503)));
        assert!(!passes(&status(400)));
        assert!(passes(&CliError::Unreachable {
            server: String::new(),
            reason: String::new()
        }));
    }
}
