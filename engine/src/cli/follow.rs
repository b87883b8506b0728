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

use super::client::{self, Client};
use super::error::CliError;
use super::inspect::results;
use super::render::{Look, Tone, bar, cut, error_text, json_line, key, progress};
use super::wire::{Inspection, Task};
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
    let look = &session.look;
    let bar = (!quiet && !session.json && io::stdout().is_terminal() && io::stderr().is_terminal())
        .then(spinner);
    let tell = |lines: &[String]| -> Result<(), CliError> {
        if quiet || session.json || lines.is_empty() {
            return Ok(());
        }
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        match &bar {
            Some(bar) => bar.suspend(|| show(&text)),
            None => show(&text),
        }
    };

    tell(&[String::new()])?;
    let mut watcher = Watcher::default();
    let (mut silent, mut still) = (0, 0);
    let (answer, inspection) = loop {
        let polled = client
            .get(&["orchestrations", "inspections", id], &[])
            .await
            .and_then(|answer| client::read::<Inspection>(&answer).map(|read| (answer, read)));
        match polled {
            Ok((answer, inspection)) => {
                if silent > 0 {
                    tell(&[look.paint(Tone::Good, "the server answers again")])?;
                    silent = 0;
                }
                let news = watcher.news(look, &inspection);
                still = if news.is_empty() { still + 1 } else { 0 };
                tell(&news)?;
                if let Some(bar) = &bar {
                    bar.set_message(standing(&inspection));
                }
                match rest(&inspection) {
                    Rest::Nothing => break (answer, inspection),
                    Rest::Perhaps if still >= QUIET_POLLS_MAX => break (answer, inspection),
                    Rest::Perhaps | Rest::Busy => {}
                }
            }
            Err(error) if passes(&error) && silent < SILENT_POLLS_MAX => {
                if silent == 0 {
                    tell(&[look.paint(
                        Tone::Warning,
                        "the server does not answer; asking again (what it has accepted is not lost)",
                    )])?;
                }
                silent += 1;
            }
            Err(error) => {
                if let Some(bar) = &bar {
                    bar.finish_and_clear();
                }
                return Err(error);
            }
        }
        tokio::time::sleep(EVERY).await;
    };
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    if session.json {
        show_json(&answer)?;
    } else if !quiet {
        show(&ending(look, &inspection))?;
    }
    outcome(&inspection)
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
        let mut news: Vec<(Option<Timestamp>, String)> = Vec::new();
        for task in &inspection.tasks {
            let told = self.tasks.entry(task.id.clone()).or_default();
            let mut say = |at: Option<Timestamp>, what: String| {
                let line = format!(
                    "  {}  {:<id_width$}  {:<service_width$}  {what}",
                    look.paint(Tone::Dim, &look.clock(at)),
                    task.id,
                    task.service_name
                );
                news.push((at, line));
            };
            for event in task.status_history.iter().skip(told.statuses) {
                // What has not begun yet is no news.
                if key(&event.status) != "registered" {
                    let why = reason(look, &event.error);
                    say(
                        event.timestamp,
                        format!("{}{why}", look.status(&event.status)),
                    );
                }
            }
            for update in task.interim_results.iter().skip(told.updates) {
                let text = match progress(&update.data) {
                    Some(percent) => look.paint(Tone::Active, &bar(percent)),
                    None => json_line(&update.data, LINE_LENGTH),
                };
                say(update.timestamp, text);
            }
            for event in task.compensation_history.iter().skip(told.reverts) {
                let attempt = match event.attempt {
                    0 | 1 => String::new(),
                    n => format!(" (attempt {n})"),
                };
                let why = reason(look, &event.error);
                say(
                    event.timestamp,
                    format!("revert {}{attempt}{why}", look.status(&event.status)),
                );
            }
            *told = Told {
                statuses: task.status_history.len(),
                updates: task.interim_results.len(),
                reverts: task.compensation_history.len(),
            };
        }
        news.sort_by_key(|(at, _)| *at);
        news.into_iter().map(|(_, line)| line).collect()
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
        "failed" | "aborted" => "undoing what was done".into(),
        _ => format!("{done} of {all} tasks done"),
    }
}

fn rest(inspection: &Inspection) -> Rest {
    match key(&inspection.status).as_str() {
        "" | "pending" | "processing" | "preparing" => Rest::Busy,
        "failed" | "aborted" => inspection
            .tasks
            .iter()
            .map(rest_of_task)
            .max_by_key(|rest| match rest {
                Rest::Nothing => 0,
                Rest::Perhaps => 1,
                Rest::Busy => 2,
            })
            .unwrap_or(Rest::Nothing),
        _ => Rest::Nothing,
    }
}

/// Of a task whose orchestration has failed or was aborted.
fn rest_of_task(task: &Task) -> Rest {
    match (key(&task.status).as_str(), &task.compensation) {
        ("processing", _) => Rest::Busy,
        (_, Some(compensation)) => match key(&compensation.status).as_str() {
            "pending" | "processing" | "active" | "attempted" | "running" => Rest::Busy,
            _ => Rest::Nothing,
        },
        // It may have left nothing to undo it with: then there will be no revert.
        ("completed", None) if task.is_revertible => Rest::Perhaps,
        _ => Rest::Nothing,
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
        text.push_str(&format!(
            "  {} ({}): {}\n",
            abort.task_id,
            abort.service_name,
            json_line(&abort.payload, LINE_LENGTH)
        ));
    }
    text.push_str(&results(look, inspection));
    text
}

/// How it ended, as an exit code.
fn outcome(inspection: &Inspection) -> Result<(), CliError> {
    match key(&inspection.status).as_str() {
        "completed" => Ok(()),
        "aborted" => Err(CliError::OrchestrationAborted),
        "notactionable" => Err(CliError::NotActionable(error_text(&inspection.error))),
        _ => Err(CliError::OrchestrationFailed),
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
        order.tasks[0].compensation.as_mut().unwrap().status = "processing".into();
        assert_eq!(rest(&order), Rest::Busy);
        order.tasks[0].compensation = None;
        assert_eq!(rest(&order), Rest::Perhaps);
        order.tasks[0].is_revertible = false;
        assert_eq!(rest(&order), Rest::Nothing);
        order.tasks[1].status = "processing".into();
        assert_eq!(rest(&order), Rest::Busy);
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
            "\n⊟ Aborted o_2yQ8kZpWn5VtRbXcDfGhJk\n  task2 (delivery): \
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
