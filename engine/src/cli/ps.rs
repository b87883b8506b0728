//! `orchestrion ps`: the orchestrations of a project, what goes on first.

use clap::Args;

use super::error::CliError;
use super::render::{Column, Look, NOTHING, Tone, cut, error_text, mark, words};
use super::wire::{CompensationSummary, Listed, Orchestrations};
use super::{Session, client, show, show_json};

/// How much of an action is shown without `--wide`, at most and at least.
const ACTION_LENGTH: std::ops::RangeInclusive<u16> = 14..=48;
/// How much of an error is shown.
const ERROR_LENGTH: usize = 200;

/// How to list them.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Show actions whole, and errors
    #[arg(short, long)]
    pub wide: bool,
}

/// Lists them.
pub async fn run(session: &Session, args: PsArgs) -> Result<(), CliError> {
    let target = session.target().await?;
    let answer = target.client.get(&["orchestrations"], &[]).await?;
    if session.json {
        return show_json(&answer);
    }
    let all: Orchestrations = client::read(&answer)?;
    let listing = listing(&session.look, &all, args.wide);
    if listing.is_empty() {
        return show(&format!(
            "No orchestrations of {} yet. Start one with:  orchestrion verify run \"<action>\"\n",
            target.name
        ));
    }
    show(&format!(
        "{}{listing}",
        session.title("Orchestrations", &target)
    ))
}

fn listing(look: &Look, all: &Orchestrations, wide: bool) -> String {
    let groups = [
        ("processing", &all.processing),
        ("pending", &all.pending),
        ("aborted", &all.aborted),
        ("cancelled", &all.cancelled),
        ("completed", &all.completed),
        ("failed", &all.failed),
        ("notActionable", &all.not_actionable),
    ];
    let mut rows: Vec<Vec<(Tone, String)>> = groups
        .iter()
        .flat_map(|(status, group)| group.iter().map(move |one| row(look, status, one, wide)))
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut columns = vec![
        Column::whole("ID"),
        Column::at_least("ACTION", *ACTION_LENGTH.start()),
        Column::whole("STATUS"),
        Column::whole("REVERTS"),
        Column::whole("CREATED"),
    ];
    if wide {
        columns.push(Column::text("ERROR"));
    } else {
        let length = look.room(&columns, &rows, ACTION).clamp(
            (*ACTION_LENGTH.start()).into(),
            (*ACTION_LENGTH.end()).into(),
        );
        for row in &mut rows {
            row[ACTION].1 = cut(&row[ACTION].1, length);
        }
    }
    look.table(&columns, rows)
}

/// Below so many columns of the screen, reverts are told by icon and numbers alone.
const NARROW: u16 = 100;

/// The action's column.
const ACTION: usize = 1;

fn row(look: &Look, group: &str, one: &Listed, wide: bool) -> Vec<(Tone, String)> {
    // The group is what the server sorted it into; an absent status costs no row.
    let status = if one.status.is_empty() {
        group
    } else {
        &one.status
    };
    let (icon, tone) = mark(status);
    let narrow = look.width.is_some_and(|width| width < NARROW);
    let (undo_tone, undo) = undoing(one.compensation, narrow);
    let mut row = vec![
        (Tone::Plain, one.id.clone()),
        (Tone::Plain, cut(&one.action, usize::MAX)),
        (tone, format!("{icon} {}", words(status))),
        (undo_tone, undo),
        (Tone::Dim, look.age(one.timestamp)),
    ];
    if wide {
        row.push((Tone::Bad, cut(&error_text(&one.error), ERROR_LENGTH)));
    }
    row
}

/// How far the undoing is: how many tasks are through, of how many that can be undone.
fn undoing(summary: Option<CompensationSummary>, narrow: bool) -> (Tone, String) {
    let nothing = (Tone::Dim, NOTHING.to_owned());
    let Some(CompensationSummary {
        active,
        total,
        completed,
        failed,
    }) = summary
    else {
        return nothing;
    };
    let (tone, icon, word, number) = if active {
        (Tone::Active, "◎", "Active", completed + failed)
    } else if failed > 0 {
        (Tone::Bad, "✕", "Failed", failed)
    } else if completed > 0 {
        (Tone::Good, "●", "Completed", completed)
    } else {
        return nothing;
    };
    let text = if narrow {
        format!("{icon} {number}/{total}")
    } else {
        format!("{icon} {word} ({number}/{total})")
    };
    (tone, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::tests::plain;
    use serde_json::json;

    fn sample() -> Orchestrations {
        serde_json::from_value(json!({
            "completed": [
                {"id":"o_CCCCCCCCCCCCCCCCCCCCCC","action":"Ship the order","status":"completed",
                 "timestamp":"2026-03-04T11:54:59.123456789Z"}
            ],
            "processing": [
                {"id":"o_PPPPPPPPPPPPPPPPPPPPPP",
                 "action":"Check whether the product is there, charge the customer\nand deliver it by noon",
                 "status":"processing","timestamp":"2026-03-04T11:59:58Z"}
            ],
            "failed": [
                {"id":"o_FFFFFFFFFFFFFFFFFFFFFF","action":"Pay","status":"failed",
                 "error":{"id":"task_fail_task1_x","producer":"s_a","error":"card declined"},
                 "timestamp":"2026-03-03T11:59:58Z",
                 "compensation":{"active":true,"total":3,"completed":1,"failed":1}}
            ],
            "aborted": [
                {"id":"o_AAAAAAAAAAAAAAAAAAAAAA","action":"Send","status":"aborted",
                 "timestamp":"2026-03-01T12:00:00Z",
                 "compensation":{"active":0,"total":2,"completed":2,"failed":0}}
            ],
            "notActionable": [
                {"id":"o_NNNNNNNNNNNNNNNNNNNNNN","action":"Fly","status":"not_actionable",
                 "error":"no service flies","timestamp":"0001-01-01T00:00:00Z"}
            ]
        }))
        .unwrap()
    }

    #[test]
    fn what_goes_on_comes_first_and_ids_are_whole() {
        let expected = "
  ID                        ACTION                                            STATUS            REVERTS          CREATED
  o_PPPPPPPPPPPPPPPPPPPPPP  Check whether the product is there, charge the…   ◎ Processing      ─                just now
  o_AAAAAAAAAAAAAAAAAAAAAA  Send                                              ⊟ Aborted         ● Completed (2/2)  3d
  o_CCCCCCCCCCCCCCCCCCCCCC  Ship the order                                    ● Completed       ─                5m
  o_FFFFFFFFFFFFFFFFFFFFFF  Pay                                               ✕ Failed          ◎ Active (2/3)   1d
  o_NNNNNNNNNNNNNNNNNNNNNN  Fly                                               ⊘ Not Actionable  ─                ─
";
        let squeeze = |text: &str| -> Vec<String> {
            text.trim()
                .lines()
                .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
                .collect()
        };
        assert_eq!(
            squeeze(&listing(&plain(), &sample(), false)),
            squeeze(expected)
        );
    }

    #[test]
    fn wide_shows_errors_and_whole_actions() {
        let text = listing(&plain(), &sample(), true);
        assert!(text.contains("deliver it by noon"), "{text}");
        assert!(text.contains("card declined"), "{text}");
        assert!(text.contains("no service flies"), "{text}");
    }

    #[test]
    fn a_narrow_screen_has_one_line_for_each_too() {
        let narrow = crate::cli::render::Look {
            width: Some(100),
            ..plain()
        };
        let text = listing(&narrow, &sample(), false);
        assert_eq!(text.lines().count(), 6, "{text}");
        assert!(
            text.lines().all(|line| line.chars().count() < 100),
            "{text}"
        );
    }

    #[test]
    fn eighty_columns_take_a_table_and_a_list_is_not_cut_like_one() {
        let screen = |width| crate::cli::render::Look {
            width: Some(width),
            ..plain()
        };
        let table = listing(&screen(80), &sample(), false);
        assert_eq!(table.lines().count(), 6, "{table}");
        assert!(table.lines().all(|l| l.chars().count() <= 80), "{table}");
        let list = listing(&screen(70), &sample(), false);
        assert!(list.lines().count() > 6, "{list}");
        assert!(
            list.contains("Check whether the product is there, charge the…"),
            "{list}"
        );
        assert!(list.lines().all(|l| l.chars().count() <= 70), "{list}");
    }

    #[test]
    fn null_lists_and_no_lists_are_no_rows() {
        let none: Orchestrations = serde_json::from_value(json!({"completed": null})).unwrap();
        assert_eq!(listing(&plain(), &none, false), "");
    }

    #[test]
    fn undoing_is_told_only_when_there_was_something_to_undo() {
        let say = |active, total, completed, failed| {
            let summary = CompensationSummary {
                active,
                total,
                completed,
                failed,
            };
            undoing(Some(summary), false).1
        };
        assert_eq!(say(true, 3, 0, 0), "◎ Active (0/3)");
        assert_eq!(say(false, 3, 2, 1), "✕ Failed (1/3)");
        assert_eq!(say(false, 3, 3, 0), "● Completed (3/3)");
        assert_eq!(say(false, 3, 0, 0), "─");
        assert_eq!(undoing(None, false).1, "─");
    }
}
