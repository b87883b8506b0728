//! Lines as JSON, one on each line of a file.
//!
//! Invariant: a payload is the text it was: it is neither parsed nor written anew on its way.

use std::io::{BufRead as _, BufReader, Read};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Line, LineKind, Unreadable};

/// The members of a line, in their order.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct JsonLine<'a> {
    line: u64,
    kind: &'a str,
    at: &'a str,
    execution: Option<std::borrow::Cow<'a, str>>,
    run: Option<&'a str>,
    record: Option<u64>,
    #[serde(rename = "type")]
    name: std::borrow::Cow<'a, str>,
    salt: Option<&'a str>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    payload_digest: &'a str,
    previous: &'a str,
    digest: &'a str,
    signature: Option<&'a str>,
}

/// The text of a line, without its end.
pub fn write(line: &Line) -> String {
    let payload = line
        .payload
        .as_deref()
        .map(|payload| serde_json::from_str(payload).unwrap_or(RawValue::NULL));
    let json = JsonLine {
        line: line.number,
        kind: line.kind.as_str(),
        at: &line.at,
        execution: line.execution.as_deref().map(Into::into),
        run: line.run.as_deref(),
        record: line.record,
        name: line.name.as_str().into(),
        salt: line.salt.as_deref(),
        payload,
        payload_digest: &line.payload_digest,
        previous: &line.previous,
        digest: &line.digest,
        signature: line.signature.as_deref(),
    };
    serde_json::to_string(&json).expect("our JSON types have string keys only")
}

/// Reads one line; `number` is its place in the file, from 1. Only the text that [`write()`] gives is a line.
pub fn read(text: &str, number: u64) -> Result<Line, Unreadable> {
    let unreadable = |why: String| Unreadable { line: number, why };
    let json: JsonLine<'_> = serde_json::from_str(text)
        .map_err(|error| unreadable(format!("it is no line of an export: {error}")))?;
    let kind = LineKind::parse(json.kind)
        .ok_or_else(|| unreadable(format!("there is no kind {:?}", json.kind)))?;
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let line = Line {
        number: json.line,
        kind,
        at: json.at.to_owned(),
        execution: json.execution.map(Into::into),
        run: owned(json.run),
        record: json.record,
        name: json.name.into(),
        salt: owned(json.salt),
        payload: json.payload.map(|payload| payload.get().to_owned()),
        payload_digest: json.payload_digest.to_owned(),
        previous: json.previous.to_owned(),
        digest: json.digest.to_owned(),
        signature: owned(json.signature),
    };
    if write(&line) == text {
        Ok(line)
    } else {
        Err(unreadable(
            "it is not written as an export writes its lines: another program wrote it".to_owned(),
        ))
    }
}

/// Reads the lines of a file.
pub fn read_all(input: impl Read) -> impl Iterator<Item = Result<Line, Unreadable>> {
    let mut input = BufReader::new(input);
    let mut number = 0;
    std::iter::from_fn(move || {
        let mut text = Vec::new();
        number += 1;
        let unreadable = |why: String| Some(Err(Unreadable { line: number, why }));
        match input.read_until(b'\n', &mut text) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) => return unreadable(error.to_string()),
        }
        let Some(text) = text.strip_suffix(b"\n") else {
            return unreadable(super::CUT_OFF.to_owned());
        };
        match std::str::from_utf8(text) {
            Ok(text) => Some(read(text, number)),
            Err(error) => unreadable(error.to_string()),
        }
    })
}
