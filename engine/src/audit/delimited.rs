//! Lines as CSV (RFC 4180), for spreadsheets: a row of names, then one row for each line.
//!
//! Invariant: an absent value and an empty text are told apart by no line: no text of a line is empty.

use std::cell::Cell;
use std::io::{Read, Write};
use std::rc::Rc;

use super::{Line, LineKind, Unreadable};

/// The names of the columns.
pub const COLUMNS: [&str; 13] = [
    "line",
    "kind",
    "at",
    "execution",
    "run",
    "record",
    "type",
    "salt",
    "payload",
    "payloadDigest",
    "previous",
    "digest",
    "signature",
];

/// Writes lines.
pub struct Writer<W: Write>(csv::Writer<W>);

impl<W: Write> Writer<W> {
    /// Begins with the names of the columns.
    pub fn new(out: W) -> std::io::Result<Self> {
        let mut writer = csv::Writer::from_writer(out);
        writer.write_record(COLUMNS)?;
        Ok(Self(writer))
    }

    /// One more row.
    pub fn write(&mut self, line: &Line) -> std::io::Result<()> {
        self.0.write_record(cells(line))?;
        Ok(())
    }

    /// Everything is written.
    pub fn finish(mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// The cells of a line's row.
pub fn cells(line: &Line) -> [String; 13] {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    [
        line.number.to_string(),
        line.kind.to_string(),
        line.at.clone(),
        text(&line.execution),
        text(&line.run),
        line.record.map_or_else(String::new, |n| n.to_string()),
        line.name.clone(),
        text(&line.salt),
        text(&line.payload),
        line.payload_digest.clone(),
        line.previous.clone(),
        line.digest.clone(),
        text(&line.signature),
    ]
}

/// The line of a row's cells; `number` is its place in the file, from 1.
pub fn line_of(cells: &[&str], number: u64) -> Result<Line, Unreadable> {
    let unreadable = |why: String| Unreadable { line: number, why };
    let [
        line,
        kind,
        at,
        execution,
        run,
        record,
        name,
        salt,
        payload,
        payload_digest,
        previous,
        digest,
        signature,
    ] = cells
    else {
        return Err(unreadable(format!(
            "it has {} columns: a line has {}",
            cells.len(),
            COLUMNS.len()
        )));
    };
    let count = |text: &str| {
        text.parse::<u64>()
            .ok()
            .filter(|number| number.to_string() == text)
            .ok_or_else(|| unreadable(format!("{text:?} is no number")))
    };
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Ok(Line {
        number: count(line)?,
        kind: LineKind::parse(kind)
            .ok_or_else(|| unreadable(format!("there is no kind {kind:?}")))?,
        at: (*at).to_owned(),
        execution: text(execution),
        run: text(run),
        record: match *record {
            "" => None,
            record => Some(count(record)?),
        },
        name: (*name).to_owned(),
        salt: text(salt),
        payload: text(payload),
        payload_digest: (*payload_digest).to_owned(),
        previous: (*previous).to_owned(),
        digest: (*digest).to_owned(),
        signature: text(signature),
    })
}

/// Remembers the last byte that was read.
struct Tail<R> {
    input: R,
    last: Rc<Cell<Option<u8>>>,
}

impl<R: Read> Read for Tail<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.input.read(into)?;
        if let Some(byte) = into[..count].last() {
            self.last.set(Some(*byte));
        }
        Ok(count)
    }
}

/// Reads lines.
pub fn read(input: impl Read) -> impl Iterator<Item = Result<Line, Unreadable>> {
    let last = Rc::new(Cell::new(None));
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(Tail {
            input,
            last: last.clone(),
        });
    let mut first = true;
    let mut number = 0;
    std::iter::from_fn(move || {
        let mut record = csv::StringRecord::new();
        loop {
            let at = number + u64::from(!first);
            match reader.read_record(&mut record) {
                // To a reader of CSV the end of a file ends a line as well.
                Ok(false) if last.take().is_some_and(|byte| byte != b'\n') => {
                    let why = super::CUT_OFF.to_owned();
                    return Some(Err(Unreadable { line: at, why }));
                }
                Ok(false) => return None,
                Ok(true) if first => {
                    first = false;
                    if record != COLUMNS[..] {
                        let why = "it does not name the columns of an export".to_owned();
                        return Some(Err(Unreadable { line: 0, why }));
                    }
                }
                Ok(true) => {
                    number += 1;
                    let cells: Vec<&str> = record.iter().collect();
                    return Some(line_of(&cells, number));
                }
                Err(error) => {
                    return Some(Err(Unreadable {
                        line: at,
                        why: error.to_string(),
                    }));
                }
            }
        }
    })
}
