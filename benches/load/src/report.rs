//! What was measured, for tired people and for programs.

use std::path::Path;
use std::time::Duration;

use comfy_table::presets;
use comfy_table::{CellAlignment, Table};
use serde_json::{Value, json};

use crate::Result;
use crate::limits::Limits;

/// What a figure should come to.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    AtLeast(&'static str, f64),
    AtMost(&'static str, f64),
}

/// The figures of a row; those that it has not are zero.
#[derive(Debug, Default)]
pub struct Measured {
    pub name: &'static str,
    pub count: usize,
    pub per_second: f64,
    /// Milliseconds.
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    /// Seconds for a thousand.
    pub engine_cpu: f64,
    pub worker_cpu: f64,
    pub client_cpu: f64,
    /// MB.
    pub idle: f64,
    pub resident: f64,
    /// On disk, of one, after an orderly stop.
    pub bytes: f64,
    pub ready_after: Duration,
    /// Requests that came to nothing and were made again.
    pub errors: usize,
    /// RPCs of one.
    pub rpcs: f64,
    pub notes: Vec<String>,
    /// What only this row has.
    pub figures: Vec<(&'static str, f64)>,
    pub goals: &'static [Goal],
}

impl Measured {
    fn figure(&self, name: &str) -> f64 {
        match name {
            "per_second" => self.per_second,
            "p50" => self.p50,
            "p99" => self.p99,
            "engine_cpu" => self.engine_cpu,
            "bytes" => self.bytes,
            _ => {
                let own = self.figures.iter().find(|(own, _)| *own == name);
                own.map_or(f64::NAN, |(_, figure)| *figure)
            }
        }
    }

    /// Each goal, and whether it is reached.
    fn judged(&self) -> Vec<String> {
        let judge = |goal: &Goal| {
            let (name, sign, aim, reached) = match *goal {
                Goal::AtLeast(name, aim) => (name, ">=", aim, self.figure(name) >= aim),
                Goal::AtMost(name, aim) => (name, "<=", aim, self.figure(name) <= aim),
            };
            let name = name.replace("per_second", "per s").replace('_', " ");
            let mark = if reached { "yes" } else { "NO" };
            format!("{name} {sign} {}: {mark}", number(aim))
        };
        self.goals.iter().map(judge).collect()
    }

    /// One line, as soon as it is known.
    pub fn line(&self) -> String {
        let mut line = format!(
            "  {}: {}/s, p50 {} ms, p99 {} ms, engine {} s per 1,000, worker {}, client {}",
            self.name,
            number(self.per_second),
            number(self.p50),
            number(self.p99),
            number(self.engine_cpu),
            number(self.worker_cpu),
            number(self.client_cpu)
        );
        for note in self.notes.iter().chain(&self.judged()) {
            line.push_str("\n    ");
            line.push_str(note);
        }
        line
    }
}

fn number(figure: f64) -> String {
    match figure {
        figure if !figure.is_finite() => "-".to_owned(),
        0.0 => "-".to_owned(),
        figure if figure.abs() >= 1_000.0 => {
            let whole = format!("{:.0}", figure);
            let (head, tail) = whole.split_at(whole.len() - 3);
            match head.len() {
                4.. => {
                    let (first, second) = head.split_at(head.len() - 3);
                    format!("{first},{second},{tail}")
                }
                _ => format!("{head},{tail}"),
            }
        }
        figure if figure.abs() >= 20.0 => format!("{figure:.0}"),
        figure => format!("{figure:.2}"),
    }
}

/// Shares of the limits that a row comes to: of the RPC ceiling, and of the disk if it wrote nothing but its bytes.
fn shares(limits: &Limits, row: &Measured) -> (f64, f64) {
    let rpcs = row.per_second * row.rpcs / limits.rpcs_per_second;
    let disk = row.per_second * row.bytes / (limits.disk_mb_per_second * 1e6);
    (rpcs * 100.0, disk * 100.0)
}

pub fn print(limits: &Limits, rows: &[Measured]) {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "row",
        "per s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "engine CPU s\nper 1,000",
        "worker CPU s\nper 1,000",
        "MB idle",
        "MB end",
        "bytes\neach",
        "% of RPC\nceiling",
        "% of\ndisk",
        "errors",
        "goals",
    ]);
    for row in rows {
        let (rpcs, disk) = shares(limits, row);
        let mut cells = vec![row.name.to_owned()];
        cells.extend(
            [
                row.per_second,
                row.p50,
                row.p95,
                row.p99,
                row.engine_cpu,
                row.worker_cpu,
                row.idle,
                row.resident,
                row.bytes,
                rpcs,
                disk,
            ]
            .map(number),
        );
        cells.push(row.errors.to_string());
        cells.push(row.judged().join("\n"));
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(1).take(12) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
    for row in rows {
        for note in &row.notes {
            println!("{}: {note}", row.name);
        }
    }
    println!("{limits}");
}

pub fn write(path: &Path, limits: &Limits, rows: &[Measured]) -> Result<()> {
    let rows = rows.iter().map(|row| {
        let (rpcs, disk) = shares(limits, row);
        let mut json = json!({
            "row": row.name,
            "count": row.count,
            "per_second": row.per_second,
            "p50_ms": row.p50,
            "p95_ms": row.p95,
            "p99_ms": row.p99,
            "engine_cpu_s_per_1000": row.engine_cpu,
            "worker_cpu_s_per_1000": row.worker_cpu,
            "client_cpu_s_per_1000": row.client_cpu,
            "idle_mb": row.idle,
            "resident_mb": row.resident,
            "bytes_each": row.bytes,
            "ready_after_s": row.ready_after.as_secs_f64(),
            "rpc_share_percent": rpcs,
            "disk_share_percent": disk,
            "errors": row.errors,
            "notes": row.notes,
            "goals": row.judged(),
        });
        for (name, figure) in &row.figures {
            json[*name] = Value::from(*figure);
        }
        json
    });
    let all = json!({"limits": limits, "rows": rows.collect::<Vec<_>>()});
    std::fs::write(path, serde_json::to_string_pretty(&all)? + "\n")?;
    Ok(())
}
