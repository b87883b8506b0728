//! `orchestrion inspect`: one orchestration, from its status down to what each task was given, said
//! on the way and came to.

use clap::Args;
use serde_json::Value;

use super::comp_fail;
use super::error::CliError;
use super::render::{
    Column, Look, NOTHING, Tone, bar, cut, duration, error_text, json, json_line, key, mark,
    progress, words,
};
use super::wire::{AbortInfo, Inspection, Task};
use super::{Session, client, show, show_json};

/// How much of a value or an error fits on one line.
const LINE_LENGTH: usize = 160;

/// What to show, and how much of it.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The orchestration's id
    pub id: String,
    /// Show each task's history, inputs, outputs and reverts
    #[arg(short, long)]
    pub detailed: bool,
    /// Show the first and the latest progress update of each task
    #[arg(short, long, requires = "detailed", conflicts_with = "long_updates")]
    pub updates: bool,
    /// Show all progress updates of each task
    #[arg(long, requires = "detailed")]
    pub long_updates: bool,
}

/// Which progress updates are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Updates {
    Count,
    FirstAndLast,
    All,
}

/// Shows it.
pub async fn run(session: &Session, args: InspectArgs) -> Result<(), CliError> {
    let target = session.target().await?;
    let answer = target
        .client
        .get(&["orchestrations", "inspections", &args.id], &[])
        .await?;
    if session.json {
        return show_json(&answer);
    }
    let inspection: Inspection = client::read(&answer)?;
    let updates = match (args.updates, args.long_updates) {
        (_, true) => Updates::All,
        (true, _) => Updates::FirstAndLast,
        _ => Updates::Count,
    };
    let look = &session.look;
    let mut text = overview(look, &inspection);
    if inspection.tasks.iter().any(is_left_undone) {
        let failed = comp_fail::of_orchestration(look, &target, &inspection.id).await;
        // What is known already is shown all the same.
        text.push_str(&failed.unwrap_or_else(|error| {
            let why =
                format!("\n  What became of the reverts that failed cannot be read: {error}\n");
            look.paint(Tone::Bad, &why)
        }));
    }
    if args.detailed {
        text.push_str(&details(look, &inspection, updates));
    }
    text.push_str(&results(look, &inspection));
    if !args.detailed && !inspection.tasks.is_empty() {
        text.push_str(&look.paint(
            Tone::Dim,
            &format!(
                "\n  More:  orchestrion inspect {} -d\n         orchestrion replay {}\n",
                inspection.id, inspection.id
            ),
        ));
    }
    show(&text)
}

/// Status, action, error, abort, and the table of tasks.
fn overview(look: &Look, inspection: &Inspection) -> String {
    let mut text = format!("{}\n\n", look.heading(&inspection.id));
    let mut line = |name: &str, value: &str| {
        text.push_str(&format!(
            "  {} {value}\n",
            look.paint(Tone::Dim, &format!("{name:<8}"))
        ));
    };
    line("Status", &look.status(&inspection.status));
    line("Action", &inspection.action);
    line("Changed", &look.moment(inspection.timestamp));
    let error = error_text(&inspection.error);
    if !error.is_empty() {
        line("Error", &look.paint(Tone::Bad, &error));
    }
    if let Some(abort) = &inspection.abort_info {
        text.push_str(&format!("\n{}\n\n", look.heading(&abort_title(abort))));
        text.push_str(&members(look, &abort.payload));
    }
    if !inspection.tasks.is_empty() {
        let columns = [
            Column::whole("ID"),
            Column::whole("SERVICE"),
            Column::whole("STATUS"),
            Column::whole("REVERT"),
            Column::whole("DURATION"),
            Column::text("LAST ERROR"),
        ];
        let rows = inspection.tasks.iter().map(row).collect();
        text.push_str(&format!("\n{}\n\n", look.heading("Tasks")));
        text.push_str(&look.table(&columns, rows));
    }
    text
}

/// Who stopped it.
pub fn abort_title(abort: &AbortInfo) -> String {
    if abort.task_id.is_empty() {
        return "Cancelled by a caller".into();
    }
    format!("Aborted by {} ({})", abort.task_id, abort.service_name)
}

/// The members of an object, a line each, sorted; any other value as it is.
fn members(look: &Look, value: &Value) -> String {
    match value {
        Value::Null => format!("  {}\n", look.paint(Tone::Dim, "without a word")),
        Value::Object(object) => {
            let mut names: Vec<&String> = object.keys().collect();
            names.sort();
            let width = names.iter().map(|n| n.chars().count()).max().unwrap_or(0);
            names
                .into_iter()
                .map(|name| {
                    format!(
                        "  {} {}\n",
                        look.paint(Tone::Dim, &format!("{name:<width$}")),
                        json_line(&object[name], LINE_LENGTH)
                    )
                })
                .collect()
        }
        other => json(other, 2),
    }
}

/// Its revert has ended, and not as it should: there is a record of it, with what was decided since.
fn is_left_undone(task: &Task) -> bool {
    task.compensation.as_ref().is_some_and(|compensation| {
        matches!(
            key(&compensation.status).as_str(),
            "failed" | "expired" | "unknown"
        )
    })
}

fn row(task: &Task) -> Vec<(Tone, String)> {
    let (icon, tone) = mark(&task.status);
    let (undo_tone, undo) = match &task.compensation {
        None => (Tone::Dim, NOTHING.to_owned()),
        Some(compensation) => {
            let (icon, tone) = mark(&compensation.status);
            let at = match key(&compensation.status).as_str() {
                "completed" | "pending" => String::new(),
                _ => attempt(compensation.attempt, compensation.max_attempts),
            };
            (tone, format!("{icon} {}{at}", words(&compensation.status)))
        }
    };
    vec![
        (Tone::Strong, task.id.clone()),
        (Tone::Plain, task.service_name.clone()),
        (tone, format!("{icon} {}", words(&task.status))),
        (undo_tone, undo),
        (Tone::Plain, duration(task.duration)),
        (Tone::Bad, cut(&task.error, LINE_LENGTH)),
    ]
}

/// ` (2/10)`, or nothing when there was no attempt.
fn attempt(attempt: u64, most: u64) -> String {
    match (attempt, most) {
        (0, _) => String::new(),
        (n, 0) => format!(" (attempt {n})"),
        (n, most) => format!(" ({n}/{most})"),
    }
}

fn details(look: &Look, inspection: &Inspection, updates: Updates) -> String {
    inspection
        .tasks
        .iter()
        .map(|task| task_details(look, task, updates))
        .collect()
}

fn task_details(look: &Look, task: &Task, updates: Updates) -> String {
    let mut text = format!(
        "\n{} {} {}\n",
        look.heading(&task.id),
        task.service_name,
        look.status(&task.status)
    );
    let label = |name: &str| format!("\n  {}\n", look.paint(Tone::Dim, name));

    if !task.status_history.is_empty() {
        text.push_str(&label("History"));
    }
    for event in &task.status_history {
        let why = reason(look, &event.error);
        text.push_str(&format!(
            "    {}  {}{why}\n",
            look.clock(event.timestamp),
            look.status(&event.status)
        ));
    }

    if !task.interim_results.is_empty() {
        text.push_str(&label(&format!("Updates ({})", task.interim_results.len())));
        if let Some(percent) = task
            .interim_results
            .iter()
            .rev()
            .find_map(|u| progress(&u.data))
        {
            text.push_str(&format!(
                "    {}\n",
                look.paint(Tone::Active, &bar(percent))
            ));
        }
        let last = task.interim_results.len() - 1;
        for (index, update) in task.interim_results.iter().enumerate() {
            let shown = match updates {
                Updates::All => true,
                Updates::FirstAndLast => index == 0 || index == last,
                Updates::Count => false,
            };
            if shown {
                text.push_str(&format!(
                    "    {}  {}\n",
                    look.clock(update.timestamp),
                    json_line(&update.data, LINE_LENGTH)
                ));
            } else if updates == Updates::FirstAndLast && index == 1 {
                let skipped = format!("    … {} more: --long-updates shows them\n", last - 1);
                text.push_str(&look.paint(Tone::Dim, &skipped));
            }
        }
    }

    if !task.compensation_history.is_empty() {
        text.push_str(&label("Reverting"));
    }
    for event in &task.compensation_history {
        let why = reason(look, &event.error);
        text.push_str(&format!(
            "    {}  {}{}{why}\n",
            look.clock(event.timestamp),
            look.status(&event.status),
            attempt(event.attempt, event.max_attempts)
        ));
    }

    for (name, value) in [
        ("Input", &task.input),
        ("Output", &task.output),
        ("Abort payload", &task.abort_payload),
    ] {
        if !value.is_null() {
            text.push_str(&label(name));
            text.push_str(&json(value, 4));
        }
    }
    text
}

fn reason(look: &Look, error: &str) -> String {
    if error.is_empty() {
        String::new()
    } else {
        format!(" - {}", look.paint(Tone::Bad, &cut(error, LINE_LENGTH)))
    }
}

/// What came of it, if anything did.
pub fn results(look: &Look, inspection: &Inspection) -> String {
    let results: Vec<&Value> = inspection.results.iter().filter(|r| !r.is_null()).collect();
    if results.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "\n{}\n\n",
        look.heading(if results.len() == 1 {
            "Result"
        } else {
            "Results"
        })
    );
    for result in results {
        text.push_str(&json(result, 2));
    }
    text
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::cli::render::tests::plain;
    use serde_json::json;

    /// An order whose delivery was aborted, and the payment undone.
    pub fn aborted() -> Inspection {
        serde_json::from_value(json!({
            "id": "o_2yQ8kZpWn5VtRbXcDfGhJk",
            "status": "aborted",
            "action": "Order one lamp",
            "timestamp": "2026-03-04T11:55:09Z",
            "duration": 291_000_000_000_i64,
            "abortInfo": {"taskId":"task2","serviceId":"s_d","serviceName":"delivery",
                          "payload":{"reason":"no courier","city":{"name":"Berlin"}}},
            "tasks": [
                {"id":"task1","serviceId":"s_p","serviceName":"payment","status":"completed",
                 "statusHistory":[
                    {"id":"evt_1","status":"processing","timestamp":"2026-03-04T11:55:00Z"},
                    {"id":"evt_2","status":"failed","timestamp":"2026-03-04T11:55:01Z","error":"bank is busy"},
                    {"id":"evt_3","status":"processing","timestamp":"2026-03-04T11:55:03Z"},
                    {"id":"evt_4","status":"completed","timestamp":"2026-03-04T11:55:04Z"}],
                 "input":{"amount":7}, "output":{"receipt":"r-1"},
                 "duration":4_000_000_000_i64,
                 "interimResults":[
                    {"id":"i1","timestamp":"2026-03-04T11:55:03Z","data":{"progress":10}},
                    {"id":"i2","timestamp":"2026-03-04T11:55:03Z","data":{"progress":50}},
                    {"id":"i3","timestamp":"2026-03-04T11:55:03Z","data":{"progress":90,"step":"booking"}}],
                 "compensation":{"status":"completed","attempt":2,"max_attempts":10,
                                 "timestamp":"2026-03-04T11:55:09Z"},
                 "compensationHistory":[
                    {"id":"c1","taskId":"task1","status":"processing","attempt":1,"maxAttempts":10,
                     "timestamp":"2026-03-04T11:55:06Z","error":"bank is busy"},
                    {"id":"c2","taskId":"task1","status":"completed","attempt":2,"maxAttempts":10,
                     "timestamp":"2026-03-04T11:55:09Z"}],
                 "isRevertible":true},
                {"id":"task2","serviceId":"s_d","serviceName":"delivery","status":"aborted",
                 "statusHistory":[{"id":"evt_5","status":"aborted","timestamp":"2026-03-04T11:55:05Z"}],
                 "abortPayload":{"reason":"no courier"},
                 "duration":0, "isRevertible":false}
            ],
            "results": [null]
        }))
        .unwrap()
    }

    #[test]
    fn the_overview_of_an_aborted_order() {
        assert_eq!(
            overview(&plain(), &aborted()),
            "o_2yQ8kZpWn5VtRbXcDfGhJk\n\
             \n\
             \u{20} Status   ⊟ Aborted\n\
             \u{20} Action   Order one lamp\n\
             \u{20} Changed  2026-03-04 11:55:09 (4m ago)\n\
             \n\
             Aborted by task2 (delivery)\n\
             \n\
             \u{20} city   {\"name\":\"Berlin\"}\n\
             \u{20} reason no courier\n\
             \n\
             Tasks\n\
             \n\
             \u{20} ID     SERVICE   STATUS       REVERT       DURATION  LAST ERROR\n\
             \u{20} task1  payment   ● Completed  ● Completed  4.0s\n\
             \u{20} task2  delivery  ⊟ Aborted    ─            ─\n"
        );
    }

    #[test]
    fn the_details_of_its_payment() {
        assert_eq!(
            task_details(&plain(), &aborted().tasks[0], Updates::FirstAndLast),
            "\n\
             task1 payment ● Completed\n\
             \n\
             \u{20} History\n\
             \u{20}   11:55:00  ◎ Processing\n\
             \u{20}   11:55:01  ✕ Failed - bank is busy\n\
             \u{20}   11:55:03  ◎ Processing\n\
             \u{20}   11:55:04  ● Completed\n\
             \n\
             \u{20} Updates (3)\n\
             \u{20}   █████████░ 90%\n\
             \u{20}   11:55:03  {\"progress\":10}\n\
             \u{20}   … 1 more: --long-updates shows them\n\
             \u{20}   11:55:03  {\"progress\":90,\"step\":\"booking\"}\n\
             \n\
             \u{20} Reverting\n\
             \u{20}   11:55:06  ◎ Processing (1/10) - bank is busy\n\
             \u{20}   11:55:09  ● Completed (2/10)\n\
             \n\
             \u{20} Input\n\
             \u{20}   {\n\
             \u{20}     \"amount\": 7\n\
             \u{20}   }\n\
             \n\
             \u{20} Output\n\
             \u{20}   {\n\
             \u{20}     \"receipt\": \"r-1\"\n\
             \u{20}   }\n"
        );
    }

    #[test]
    fn all_updates_or_only_their_number() {
        let all = task_details(&plain(), &aborted().tasks[0], Updates::All);
        assert!(all.contains("{\"progress\":50}"), "{all}");
        assert!(!all.contains("more:"), "{all}");
        let count = task_details(&plain(), &aborted().tasks[0], Updates::Count);
        assert!(
            count.contains("Updates (3)\n    █████████░ 90%\n\n  Reverting"),
            "{count}"
        );
    }

    #[test]
    fn a_result_of_null_is_no_result() {
        assert_eq!(results(&plain(), &aborted()), "");
        let done: Inspection =
            serde_json::from_value(json!({"id":"o_1","results":[{"ok":true}]})).unwrap();
        assert_eq!(
            results(&plain(), &done),
            "\nResult\n\n  {\n    \"ok\": true\n  }\n"
        );
    }

    #[test]
    fn an_orchestration_that_never_ran_has_a_status_and_an_error() {
        let inspection: Inspection = serde_json::from_value(json!({
            "id":"o_1","status":"not_actionable","action":"Fly","timestamp":"2026-03-04T12:00:00Z",
            "error":"no service flies","duration":5
        }))
        .unwrap();
        assert_eq!(
            overview(&plain(), &inspection),
            "o_1\n\n  Status   ⊘ Not Actionable\n  Action   Fly\n  \
             Changed  2026-03-04 12:00:00 (just now)\n  Error    no service flies\n"
        );
    }
}
