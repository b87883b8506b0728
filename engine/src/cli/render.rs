//! How things look on a terminal: colours, status icons, tables, ages and durations. Pure: a `Look`
//! says how wide the screen is, what time it is and whether there are colours; a test says it too.

use std::fmt::Write as _;

use comfy_table::{
    Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table, TableStyle, Width,
};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

/// Before the first column.
const INDENT: usize = 2;
/// Behind each column.
const BETWEEN_COLUMNS: usize = 2;

/// What the output is for.
#[derive(Debug, Clone)]
pub struct Look {
    /// Whether colours may be used.
    pub colour: bool,
    /// How wide the screen is; none when it is no screen, and nothing is cut.
    pub width: Option<u16>,
    /// The time that ages are counted to.
    pub now: Timestamp,
    /// The time zone that times of day are shown in.
    pub zone: TimeZone,
}

/// The colours that are used, by what they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Ordinary text.
    Plain,
    /// Less important than what is around it.
    Dim,
    /// A heading.
    Strong,
    /// Going on.
    Active,
    /// As wanted.
    Good,
    /// Needs attention.
    Warning,
    /// Not as wanted.
    Bad,
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Tone::Plain => "0",
            Tone::Dim => "2",
            Tone::Strong => "1",
            Tone::Active => "36",
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "31",
        }
    }
}

impl Look {
    /// The text in that tone.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.colour || tone == Tone::Plain || text.is_empty() {
            return text.to_owned();
        }
        format!("\u{1b}[{}m{text}\u{1b}[0m", tone.code())
    }

    /// A heading.
    pub fn heading(&self, text: &str) -> String {
        self.paint(Tone::Strong, text)
    }

    /// A status with its icon, in its colour.
    pub fn status(&self, status: &str) -> String {
        let (icon, tone) = mark(status);
        self.paint(tone, &format!("{icon} {}", words(status)))
    }

    /// How long ago: `just now`, `5m`, `3h`, `2d`.
    pub fn age(&self, at: Option<Timestamp>) -> String {
        let Some(at) = at else {
            return NOTHING.into();
        };
        let seconds = self.now.duration_since(at).as_secs();
        match seconds {
            ..60 => "just now".into(),
            60..3_600 => format!("{}m", seconds / 60),
            3_600..86_400 => format!("{}h", seconds / 3_600),
            _ => format!("{}d", seconds / 86_400),
        }
    }

    /// The time of day.
    pub fn clock(&self, at: Option<Timestamp>) -> String {
        self.format(at, "%H:%M:%S", "--:--:--")
    }

    /// The time of day to the millisecond.
    pub fn precise_clock(&self, at: Option<Timestamp>) -> String {
        self.format(at, "%H:%M:%S%.3f", "--:--:--.---")
    }

    /// Date, time of day, and how long ago that was.
    pub fn moment(&self, at: Option<Timestamp>) -> String {
        match self.age(at).as_str() {
            NOTHING => NOTHING.into(),
            "just now" => self.format(at, "%Y-%m-%d %H:%M:%S (just now)", ""),
            age => format!("{} ({age} ago)", self.format(at, "%Y-%m-%d %H:%M:%S", "")),
        }
    }

    /// Date and time of day, of something to come.
    pub fn instant(&self, at: Option<Timestamp>) -> String {
        self.format(at, "%Y-%m-%d %H:%M:%S", "now")
    }

    fn format(&self, at: Option<Timestamp>, format: &str, absent: &str) -> String {
        match at {
            Some(at) => at.to_zoned(self.zone.clone()).strftime(format).to_string(),
            None => absent.into(),
        }
    }

    /// How wide the text of one column may be for each row to fit on one line of the screen, or, where no table fits, for the cell to.
    pub fn room(&self, columns: &[Column], rows: &[Vec<(Tone, String)>], of: usize) -> usize {
        let Some(width) = self.width else {
            return usize::MAX;
        };
        let others: usize = columns
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != of)
            .map(|(index, column)| {
                let cells = rows.iter().map(|row| row[index].1.chars().count());
                cells.max().unwrap_or(0).max(column.title_length()) + 2
            })
            .sum();
        if Self::least(columns, rows) > width.into() {
            return usize::from(width).saturating_sub(Self::cell_indent(columns));
        }
        usize::from(width).saturating_sub(others + INDENT + 1)
    }

    /// How wide the columns are at least: text broken over lines, everything else whole.
    fn least(columns: &[Column], rows: &[Vec<(Tone, String)>]) -> usize {
        let widths = columns.iter().enumerate().map(|(index, column)| {
            let cells = rows.iter().map(|row| row[index].1.chars().count());
            let content = cells.max().unwrap_or(0).max(column.title_length());
            let width = match column.fit {
                Fit::Whole => content,
                Fit::Wrap { least } => content.min(least.into()),
            };
            width + BETWEEN_COLUMNS
        });
        // Nothing is between the last one and the end of the line.
        INDENT + widths.sum::<usize>() - BETWEEN_COLUMNS
    }

    /// Where the cells of a list begin, which stands for a table on a screen that none fits on.
    fn cell_indent(columns: &[Column]) -> usize {
        let titles = columns.iter().skip(1).map(Column::title_length);
        2 * INDENT + titles.max().unwrap_or(0) + BETWEEN_COLUMNS
    }

    /// What a table shows, a line for each cell: for screens that no table fits on.
    fn cards(&self, columns: &[Column], rows: &[Vec<(Tone, String)>], width: usize) -> String {
        let titles = columns.iter().skip(1).map(Column::title_length);
        let title = titles.max().unwrap_or(0);
        let room = width.saturating_sub(Self::cell_indent(columns)).max(1);
        let mut text = String::new();
        for row in rows {
            let mut cells = columns.iter().zip(row);
            if let Some((_, (_, id))) = cells.next() {
                let _ = writeln!(text, "  {}", self.heading(id.trim()));
            }
            for (column, (tone, cell)) in cells {
                if cell.trim().is_empty() || cell == NOTHING {
                    continue;
                }
                for (number, line) in wrapped(cell, room).iter().enumerate() {
                    let name = if number == 0 { column.title } else { "" };
                    let name = self.paint(Tone::Dim, &format!("{name:<title$}"));
                    let _ = writeln!(text, "    {name}  {}", self.paint(*tone, line));
                }
            }
        }
        text
    }

    /// A table without lines, indented by two. Where the screen is too narrow for one, the same as a list.
    pub fn table(&self, columns: &[Column], rows: Vec<Vec<(Tone, String)>>) -> String {
        if let Some(width) = self.width.map(usize::from)
            && Self::least(columns, &rows) > width
        {
            return self.cards(columns, &rows, width);
        }
        let longest: Vec<usize> = (0..columns.len())
            .map(|index| {
                let cells = rows.iter().map(|row| row[index].1.chars().count());
                cells.max().unwrap_or(0).max(columns[index].title_length())
            })
            .collect();
        let mut table = Table::new();
        table.load_style(TableStyle::new());
        match self.width {
            Some(width) => {
                table.set_content_arrangement(ContentArrangement::Dynamic);
                table.set_width(width);
            }
            None => {
                table.set_content_arrangement(ContentArrangement::Disabled);
            }
        }
        table.force_no_tty();
        if self.colour {
            table.enforce_styling();
        }
        table.set_header(columns.iter().map(|column| {
            let cell = Cell::new(column.title);
            if self.colour {
                cell.add_attribute(Attribute::Dim)
            } else {
                cell
            }
        }));
        for row in rows {
            table.add_row(row.into_iter().map(|(tone, text)| {
                let cell = Cell::new(text);
                match tone {
                    _ if !self.colour => cell,
                    Tone::Plain => cell,
                    Tone::Dim => cell.add_attribute(Attribute::Dim),
                    Tone::Strong => cell.add_attribute(Attribute::Bold),
                    Tone::Active => cell.fg(Color::DarkCyan),
                    Tone::Good => cell.fg(Color::DarkGreen),
                    Tone::Warning => cell.fg(Color::DarkYellow),
                    Tone::Bad => cell.fg(Color::DarkRed),
                }
            }));
        }
        for (index, column) in columns.iter().enumerate() {
            if let Some(shown) = table.column_mut(index) {
                let is_last = index + 1 == columns.len();
                let behind = if is_last { 0 } else { BETWEEN_COLUMNS };
                let before = if index == 0 { INDENT } else { 0 };
                let padding = [before, behind].map(|n| u16::try_from(n).unwrap_or(u16::MAX));
                shown.set_padding(padding.into());
                match column.fit {
                    Fit::Whole => shown.set_constraint(ColumnConstraint::ContentWidth),
                    Fit::Wrap { least } => {
                        // The padding counts here.
                        let least = longest[index].min(least.into()) + behind;
                        let least = u16::try_from(least).unwrap_or(u16::MAX);
                        shown.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(
                            if self.width.is_some() { least } else { 0 },
                        )))
                    }
                };
            }
        }
        table
            .lines()
            .map(|line| format!("{}\n", line.trim_end()))
            .collect()
    }
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    title: &'static str,
    fit: Fit,
}

#[derive(Debug, Clone, Copy)]
enum Fit {
    /// Never broken: ids, statuses, numbers.
    Whole,
    /// Broken over lines where the screen is narrow, but never narrower than this.
    Wrap { least: u16 },
}

impl Column {
    fn title_length(&self) -> usize {
        self.title.chars().count()
    }

    /// Never broken over lines.
    pub const fn whole(title: &'static str) -> Column {
        Column {
            title,
            fit: Fit::Whole,
        }
    }

    /// Broken over lines where the screen is narrow, but never narrower than this.
    pub const fn at_least(title: &'static str, least: u16) -> Column {
        Column {
            title,
            fit: Fit::Wrap { least },
        }
    }

    /// Broken over lines where the screen is narrow.
    pub const fn text(title: &'static str) -> Column {
        Column {
            title,
            fit: Fit::Wrap { least: 16 },
        }
    }
}

/// The text in lines of at most so many characters, broken between words where that can be done.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut rest: Vec<char> = word.chars().collect();
        let line = lines.last_mut().expect("there is a line");
        let taken = line.chars().count();
        if taken > 0 && taken + 1 + rest.len() <= room {
            line.push(' ');
            line.extend(rest);
            continue;
        }
        if taken > 0 {
            lines.push(String::new());
        }
        while rest.len() > room {
            let tail = rest.split_off(room);
            lines.last_mut().expect("there is a line").extend(rest);
            lines.push(String::new());
            rest = tail;
        }
        lines.last_mut().expect("there is a line").extend(rest);
    }
    lines
}

/// What an absent thing looks like.
pub const NOTHING: &str = "─";

/// The icon of a status, and its tone.
pub fn mark(status: &str) -> (&'static str, Tone) {
    match key(status).as_str() {
        "pending" | "registered" => ("○", Tone::Dim),
        "processing" | "active" | "inprogress" | "preparing" | "running" | "attempted" => {
            ("◎", Tone::Active)
        }
        "completed" | "complete" => ("●", Tone::Good),
        "partial" | "completedpartially" => ("◐", Tone::Warning),
        "failed" | "expired" | "failednotretryable" => ("✕", Tone::Bad),
        "notactionable" => ("⊘", Tone::Warning),
        "paused" => ("⏸", Tone::Warning),
        "aborted" => ("⊟", Tone::Warning),
        "cancelled" | "canceled" | "terminated" => ("⊖", Tone::Dim),
        "" | "unknown" => ("?", Tone::Warning),
        _ => ("·", Tone::Plain),
    }
}

/// A status without the ways of writing it: `not_actionable`, `notActionable` and `Not Actionable`
/// are the same.
pub fn key(status: &str) -> String {
    status
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

/// A status as words: `not_actionable` and `notActionable` read `Not Actionable`.
pub fn words(status: &str) -> String {
    let mut words = String::with_capacity(status.len() + 2);
    for c in status.chars() {
        let begins = words.is_empty() || words.ends_with(' ');
        match c {
            '_' | '-' | ' ' => words.push(' '),
            c if begins => words.push(c.to_ascii_uppercase()),
            c if c.is_ascii_uppercase() => words.extend([' ', c]),
            c => words.push(c),
        }
    }
    if words.is_empty() {
        "Unknown".into()
    } else {
        words
    }
}

/// A duration in nanoseconds: `350ms`, `1.2s`, `2m05s`, `3h07m`.
pub fn duration(nanoseconds: i64) -> String {
    let milliseconds = nanoseconds.max(0) / 1_000_000;
    let seconds = milliseconds / 1_000;
    match milliseconds {
        0 if nanoseconds <= 0 => NOTHING.into(),
        0 => "<1ms".into(),
        1..1_000 => format!("{milliseconds}ms"),
        1_000..60_000 => format!("{seconds}.{}s", milliseconds % 1_000 / 100),
        60_000..3_600_000 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
    }
}

/// One line of at most that many characters; the last is `…` where something is missing.
pub fn cut(text: &str, most: usize) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= most {
        return line;
    }
    let mut short: String = line.chars().take(most.saturating_sub(1)).collect();
    short.truncate(short.trim_end().len());
    short.push('…');
    short
}

/// So many of something: `1 plan`, `2 plans`.
pub fn count(number: u64, of: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {of}{plural}")
}

/// The text of an error as the wire has it: a string, or `{id,producer,error}`.
pub fn error_text(error: &Value) -> String {
    match error {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Object(members) => match members.get("error") {
            Some(Value::String(text)) => text.clone(),
            Some(inner @ Value::Object(_)) => error_text(inner),
            _ => error.to_string(),
        },
        other => other.to_string(),
    }
}

/// A JSON value, indented, over as many lines as it takes.
pub fn json(value: &Value, indent: usize) -> String {
    let text = serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string());
    let margin = " ".repeat(indent);
    text.lines()
        .map(|line| format!("{margin}{line}\n"))
        .collect()
}

/// A JSON value on one line of at most that many characters; a string goes without its quotes.
pub fn json_line(value: &Value, most: usize) -> String {
    match value {
        Value::String(text) => cut(text, most),
        other => cut(&other.to_string(), most),
    }
}

/// A progress of 0 to 100 from an update that tells one.
pub fn progress(update: &Value) -> Option<f64> {
    ["progress", "percentComplete"]
        .iter()
        .find_map(|name| update.get(name)?.as_f64())
        .map(|percent| percent.clamp(0.0, 100.0))
}

/// A bar for it: `███████░░░ 70%`.
pub fn bar(percent: f64) -> String {
    let filled = (percent / 10.0).round() as usize;
    format!(
        "{}{} {percent:.0}%",
        "█".repeat(filled),
        "░".repeat(10 - filled.min(10))
    )
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::json;

    /// No screen, no colours, noon UTC.
    pub fn plain() -> Look {
        Look {
            colour: false,
            width: None,
            now: "2026-03-04T12:00:00Z".parse().unwrap(),
            zone: TimeZone::UTC,
        }
    }

    fn at(text: &str) -> Option<Timestamp> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn ages() {
        let look = plain();
        for (then, age) in [
            ("2026-03-04T11:59:01Z", "just now"),
            ("2026-03-04T12:00:05Z", "just now"),
            ("2026-03-04T11:59:00Z", "1m"),
            ("2026-03-04T11:00:01Z", "59m"),
            ("2026-03-04T09:00:00Z", "3h"),
            ("2026-03-02T12:00:00Z", "2d"),
        ] {
            assert_eq!(look.age(at(then)), age, "{then}");
        }
        assert_eq!(look.age(None), "─");
        assert_eq!(
            look.moment(at("2026-03-04T11:54:59.5Z")),
            "2026-03-04 11:54:59 (5m ago)"
        );
        assert_eq!(
            look.precise_clock(at("2026-03-04T11:55:00.5Z")),
            "11:55:00.500"
        );
    }

    #[test]
    fn durations() {
        for (nanoseconds, text) in [
            (0, "─"),
            (-5, "─"),
            (400_000, "<1ms"),
            (350_000_000, "350ms"),
            (1_250_000_000, "1.2s"),
            (125_000_000_000, "2m05s"),
            (11_220_000_000_000, "3h07m"),
        ] {
            assert_eq!(duration(nanoseconds), text);
        }
    }

    #[test]
    fn a_status_is_the_same_however_it_is_written() {
        let look = plain();
        for status in ["not_actionable", "notActionable", "Not Actionable"] {
            assert_eq!(key(status), "notactionable");
        }
        assert_eq!(look.status("notActionable"), "⊘ Not Actionable");
        assert_eq!(look.status("processing"), "◎ Processing");
        assert_eq!(look.status(""), "? Unknown");
        let colourful = Look {
            colour: true,
            ..plain()
        };
        assert_eq!(colourful.status("failed"), "\u{1b}[31m✕ Failed\u{1b}[0m");
    }

    #[test]
    fn cutting_keeps_one_line_and_says_that_something_is_missing() {
        assert_eq!(cut("ship  the\norder", 20), "ship the order");
        assert_eq!(cut("ship the order", 10), "ship the…");
        assert_eq!(cut("äöüäöü", 6), "äöüäöü");
        assert_eq!(cut("äöüäöü", 5), "äöüä…");
    }

    #[test]
    fn errors_are_strings_or_objects() {
        assert_eq!(error_text(&json!(null)), "");
        assert_eq!(error_text(&json!("no services")), "no services");
        assert_eq!(
            error_text(&json!({"id":"task_fail_task1_x","producer":"s_a","error":"declined"})),
            "declined"
        );
        assert_eq!(error_text(&json!({"code":7})), r#"{"code":7}"#);
    }

    #[test]
    fn bars() {
        assert_eq!(bar(0.0), "░░░░░░░░░░ 0%");
        assert_eq!(bar(72.4), "███████░░░ 72%");
        assert_eq!(bar(100.0), "██████████ 100%");
        assert_eq!(progress(&json!({"percentComplete": 130})), Some(100.0));
        assert_eq!(progress(&json!({"note": "x"})), None);
    }

    #[test]
    fn no_line_is_wider_than_the_screen() {
        let columns = [
            Column::whole("ID"),
            Column::text("ACTION"),
            Column::whole("STATUS"),
            Column::text("ERROR"),
        ];
        let row = |action: &str, error: &str| {
            vec![
                (Tone::Plain, "o_2yQ8kZpWn5VtRbXcDfGhJk".into()),
                (Tone::Plain, action.into()),
                (Tone::Bad, "⊘ Not Actionable".into()),
                (Tone::Bad, error.into()),
            ]
        };
        let rows = vec![
            row(
                "ship it",
                "no service is called inventory-of-the-northern-warehouse-2",
            ),
            row("ship the order to the customer in Berlin", ""),
        ];
        for width in 40..140 {
            let look = Look {
                width: Some(width),
                ..plain()
            };
            let text = look.table(&columns, rows.clone());
            for line in text.lines() {
                assert!(
                    line.chars().count() <= width.into(),
                    "{width} columns:\n{text}"
                );
            }
            assert_eq!(text.matches("o_2yQ8kZpWn5VtRbXcDfGhJk").count(), 2);
            assert!(text.contains("⊘ Not Actionable"));
        }
        let narrow = Look {
            width: Some(44),
            ..plain()
        };
        assert_eq!(
            narrow.table(&columns, rows),
            "  o_2yQ8kZpWn5VtRbXcDfGhJk\n    \
             ACTION  ship it\n    \
             STATUS  ⊘ Not Actionable\n    \
             ERROR   no service is called\n            \
             inventory-of-the-northern-wareho\n            \
             use-2\n  \
             o_2yQ8kZpWn5VtRbXcDfGhJk\n    \
             ACTION  ship the order to the customer\n            \
             in Berlin\n    \
             STATUS  ⊘ Not Actionable\n"
        );
    }

    #[test]
    fn a_narrow_table_breaks_text_but_never_an_id() {
        let columns = [
            Column::whole("ID"),
            Column::text("ACTION"),
            Column::whole("CREATED"),
        ];
        let rows = vec![vec![
            (Tone::Plain, "o_2yQ8kZpWn5VtRbXcDfGhJk".into()),
            (
                Tone::Plain,
                "ship the order to the customer in Berlin".into(),
            ),
            (Tone::Dim, "just now".into()),
        ]];
        assert_eq!(
            plain().table(&columns, rows.clone()),
            "  ID                        ACTION                                    CREATED\n  \
             o_2yQ8kZpWn5VtRbXcDfGhJk  ship the order to the customer in Berlin  just now\n"
        );
        let narrow = Look {
            width: Some(60),
            ..plain()
        };
        assert_eq!(
            narrow.table(&columns, rows),
            "  ID                        ACTION                  CREATED\n  \
             o_2yQ8kZpWn5VtRbXcDfGhJk  ship the order to the   just now\n\
             \u{20}                           customer in Berlin\n"
        );
    }
}
