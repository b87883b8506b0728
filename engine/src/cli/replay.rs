//! `orchestrion replay`: the server folds an orchestration's journal again, record by record; this
//! prints the records as a story, and whether the fold came to the stored state.

use clap::Args;

use super::error::CliError;
use super::render::{Column, Look, Tone, cut, json};
use super::wire::{Record, Replay};
use super::{Session, client, show, show_json};

/// The column of a record's content.
const SUMMARY: usize = 4;
/// How much of it is shown on the narrowest screen.
const SUMMARY_LENGTH_MIN: usize = 30;

/// What to replay.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The orchestration's id; with a file only where the file holds several
    #[arg(required_unless_present = "file")]
    pub id: Option<String>,
    /// Replay an audit export of it, without any server
    #[arg(long, value_name = "FILE")]
    pub file: Option<std::path::PathBuf>,
    /// Stop after that record, and show the state there
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub until: Option<u64>,
    /// Show long records whole
    #[arg(short, long)]
    pub wide: bool,
}

/// Replays it. A state that differs from the stored one is a failure.
pub async fn run(session: &Session, args: ReplayArgs) -> Result<(), CliError> {
    if let Some(file) = &args.file {
        let replay = super::replay_file::replay(file, args.id.as_deref(), args.until)?;
        return told(session, &args, &replay, None);
    }
    let id = args.id.clone().unwrap_or_default();
    let target = session.target().await?;
    let query: Vec<(&str, String)> = args
        .until
        .map(|until| ("until", until.to_string()))
        .into_iter()
        .collect();
    let answer = target
        .client
        .get(&["orchestrations", &id, "replay"], &query)
        .await?;
    let replay: Replay = client::read(&answer)?;
    told(session, &args, &replay, Some(&answer))
}

/// Shows a replay; one that came out otherwise is a failure. Of a file, `answer` is `None`, and it is compared with itself alone.
fn told(
    session: &Session,
    args: &ReplayArgs,
    replay: &Replay,
    answer: Option<&serde_json::Value>,
) -> Result<(), CliError> {
    if session.json {
        match answer {
            Some(answer) => show_json(answer)?,
            None => show_json(&super::replay_file::as_json(replay))?,
        }
    } else {
        let look = &session.look;
        let state = match replay.until.or(args.until) {
            Some(until) => state_at(look, replay, until),
            None => String::new(),
        };
        show(&format!(
            "{}{state}{}",
            story(look, replay, args.wide),
            match answer {
                Some(_) => verdict(look, replay),
                None => super::replay_file::verdict(look, replay),
            }
        ))?;
    }
    // The server compares the whole fold, also when it shows only the beginning.
    if !replay.verified {
        return Err(CliError::Failed(match answer {
            Some(_) => format!(
                "the journal of {} does not lead to the stored state: keep a copy of the data folder, and report this",
                replay.id
            ),
            None => format!("the journal of {} does not replay", replay.id),
        }));
    }
    Ok(())
}

/// The records, one line each: their number, the number that workers see, the time, what happened.
fn story(look: &Look, replay: &Replay, wide: bool) -> String {
    let mut text = format!(
        "{}\n",
        look.heading(&format!("The journal of {}", replay.id))
    );
    let execution: Vec<String> = [("workflow", &replay.workflow_id), ("run", &replay.run_id)]
        .into_iter()
        .filter(|(_, id)| !id.is_empty())
        .map(|(name, id)| format!("{name} {id}"))
        .collect();
    if !execution.is_empty() {
        text.push_str(&look.paint(Tone::Dim, &execution.join(", ")));
        text.push('\n');
    }
    text.push('\n');
    let digits = |n: Option<u64>| n.map_or(1, |n| n.to_string().len());
    let seq = digits(replay.records.iter().map(|r| r.seq).max()).max(3);
    let event = digits(replay.records.iter().filter_map(|r| r.event_id).max()).max(5);
    let columns = [
        Column::whole("  #"),
        Column::whole("EVENT"),
        Column::whole("TIME"),
        Column::whole("RECORD"),
        Column::text(""),
    ];
    let mut rows: Vec<_> = replay
        .records
        .iter()
        .map(|record| line(look, record, seq, event))
        .collect();
    if !wide {
        let length = look.room(&columns, &rows, SUMMARY).max(SUMMARY_LENGTH_MIN);
        for row in &mut rows {
            row[SUMMARY].1 = cut(&row[SUMMARY].1, length);
        }
    }
    text.push_str(&look.table(&columns, rows));
    text
}

fn line(look: &Look, record: &Record, seq: usize, event: usize) -> Vec<(Tone, String)> {
    let number = match record.event_id {
        Some(id) => format!("{id:>event$}"),
        None => format!("{:>event$}", "--"),
    };
    let tone = if record.kind == "note" {
        Tone::Dim
    } else {
        tone(&record.kind_of)
    };
    vec![
        (Tone::Strong, format!("{:>seq$}", record.seq)),
        (Tone::Dim, number),
        (Tone::Dim, look.precise_clock(record.at)),
        (tone, record.kind_of.clone()),
        (Tone::Plain, record.summary.clone()),
    ]
}

/// What a history event means for the run, by its name.
fn tone(event: &str) -> Tone {
    let ends = |words: &[&str]| words.iter().any(|word| event.ends_with(word));
    if ends(&["Failed", "TimedOut", "Terminated"]) {
        Tone::Bad
    } else if ends(&["Canceled", "CancelRequested"]) {
        Tone::Warning
    } else if event.starts_with("WorkflowExecution") || event == "ActivityTaskCompleted" {
        Tone::Good
    } else {
        Tone::Plain
    }
}

fn state_at(look: &Look, replay: &Replay, until: u64) -> String {
    format!(
        "\n{}\n\n{}",
        look.heading(&format!("The state after record {until}")),
        json(&replay.state, 2)
    )
}

fn verdict(look: &Look, replay: &Replay) -> String {
    let folded = match (replay.until, replay.records.len()) {
        (Some(_), _) => "all records".to_owned(),
        (None, 1) => "1 record".to_owned(),
        (None, n) => format!("{n} records"),
    };
    if !replay.verified {
        let difference = replay
            .difference
            .as_deref()
            .unwrap_or("the server does not say where");
        return format!(
            "\n{} {folded} folded again: the state DIFFERS from the stored one\n  {difference}\n",
            look.paint(Tone::Bad, "✕")
        );
    }
    let mut text = format!(
        "\n{} {folded} folded again: the state equals the stored one\n",
        look.paint(Tone::Good, "●"),
    );
    if replay.until.is_none() {
        text.push_str(&look.paint(
            Tone::Dim,
            &format!(
                "  The state after record N:  orchestrion replay {} --until N\n",
                replay.id
            ),
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::tests::plain;
    use serde_json::json;

    fn sample(verified: bool) -> Replay {
        serde_json::from_value(json!({
            "id":"o_1","workflowId":"o_1","runId":"0199-run",
            "records":[
                {"seq":1,"kind":"event","eventId":1,"type":"WorkflowExecutionStarted",
                 "at":"2026-03-04T11:55:00.001Z","summary":"orchestrion.plan \"Order one lamp\""},
                {"seq":9,"kind":"event","eventId":9,"type":"ActivityTaskScheduled",
                 "at":"2026-03-04T11:55:00.0105Z","summary":"task1 payment"},
                {"seq":10,"kind":"note","eventId":null,"type":"AttemptStarted",
                 "at":"2026-03-04T11:55:00.012Z","summary":"task1 attempt 1"},
                {"seq":11,"kind":"event","eventId":10,"type":"ActivityTaskFailed",
                 "at":"2026-03-04T11:55:01.5Z","summary":"task1 \"card declined\""}
            ],
            "state":{"status":"failed"},
            "verified": verified,
            "difference": if verified { None } else { Some("activities[5].attempt: 2, stored 1") },
            "until": null
        }))
        .unwrap()
    }

    #[test]
    fn the_story_numbers_every_record_and_the_events_among_them() {
        assert_eq!(
            story(&plain(), &sample(true), false),
            "The journal of o_1\n\
             workflow o_1, run 0199-run\n\
             \n\
             \u{20}   #  EVENT  TIME          RECORD\n\
             \u{20}   1      1  11:55:00.001  WorkflowExecutionStarted  orchestrion.plan \"Order one lamp\"\n\
             \u{20}   9      9  11:55:00.010  ActivityTaskScheduled     task1 payment\n\
             \u{20}  10     --  11:55:00.012  AttemptStarted            task1 attempt 1\n\
             \u{20}  11     10  11:55:01.500  ActivityTaskFailed        task1 \"card declined\"\n"
        );
    }

    #[test]
    fn a_long_record_is_one_line_on_a_screen_unless_wide() {
        let mut replay = sample(true);
        replay.records[0].summary = "word ".repeat(60);
        let screen = Look {
            width: Some(100),
            ..plain()
        };
        let story_of = |wide| story(&screen, &replay, wide);
        assert_eq!(story_of(false).lines().count(), 8, "{}", story_of(false));
        assert!(story_of(false).contains('…'));
        assert!(story_of(true).lines().count() > 8);
    }

    #[test]
    fn the_verdict() {
        let same = verdict(&plain(), &sample(true));
        assert!(
            same.starts_with("\n● 4 records folded again: the state equals the stored one\n"),
            "{same}"
        );
        assert_eq!(
            verdict(&plain(), &sample(false)),
            "\n✕ 4 records folded again: the state DIFFERS from the stored one\n  \
             activities[5].attempt: 2, stored 1\n"
        );
    }

    #[test]
    fn a_beginning_is_shown_but_the_whole_is_compared() {
        let beginning = Replay {
            until: Some(9),
            ..sample(true)
        };
        assert_eq!(
            verdict(&plain(), &beginning),
            "\n● all records folded again: the state equals the stored one\n"
        );
    }

    #[test]
    fn the_state_after_a_record() {
        assert_eq!(
            state_at(&plain(), &sample(true), 9),
            "\nThe state after record 9\n\n  {\n    \"status\": \"failed\"\n  }\n"
        );
    }
}
