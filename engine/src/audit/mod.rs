//! Exports of what happened, such that nobody can change them unseen: every line is chained to the one before by its digest, and
//! checkpoints, the end above all, are signed.
//!
//! ```text
//!  begin --> line --> line --> … --> checkpoint (signed) --> line --> … --> end (signed)
//!  digest  = SHA-256(line, kind, at, execution, run, record, type, payload digest, previous digest)
//!  payload digest = SHA-256(salt, payload text)          so a payload can be left out later, and the chain still holds
//! ```
//!
//! A line is the same in every format (JSON Lines, CSV, Parquet): the digest is over its parts, not over the bytes of a file.
//!
//! Invariant: a line's digest covers everything in it but its payload, which its payload digest covers, and its signature.
//! Invariant: a payload that was left out cannot be guessed from its digest: the salt that would confirm a guess left with it.

pub mod delimited;
pub mod export;
pub mod json_lines;
pub mod sign;
pub mod table;
pub mod verify;

use std::fmt;
use std::io::Read;

use serde_json::Value;

use crate::registry::ids::{digest, hex};

/// The version of the format: what `begin` says.
pub const FORMAT: u64 = 1;
/// Lines between two checkpoints.
pub const CHECKPOINT_LINES: u64 = 1_000;
/// What stands for the digest of the line before the first.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What is wrong with a line that does not end.
const CUT_OFF: &str = "its end is missing: the file was cut off within it";

const LINE_DOMAIN: &str = "orchestrion.audit.line.v1";
const PAYLOAD_DOMAIN: &str = "orchestrion.audit.payload.v1";

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineKind {
    /// The first: what was asked for, and whose key signs.
    Begin,
    /// An event of a history.
    Event,
    /// A note beside it: an attempt, a progress update, a wait.
    Note,
    /// Something an administrator did.
    Act,
    /// A signature in between.
    Checkpoint,
    /// The last, signed.
    End,
}

impl LineKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Begin,
        Self::Event,
        Self::Note,
        Self::Act,
        Self::Checkpoint,
        Self::End,
    ];

    /// As a line says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Event => "event",
            Self::Note => "note",
            Self::Act => "act",
            Self::Checkpoint => "checkpoint",
            Self::End => "end",
        }
    }

    /// Of the word a line has.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Whether it must be signed.
    pub fn is_signed(self) -> bool {
        matches!(self, Self::Checkpoint | Self::End)
    }

    /// Whether its payload is what was exported, and may be left out.
    pub fn is_content(self) -> bool {
        matches!(self, Self::Event | Self::Note | Self::Act)
    }
}

impl fmt::Display for LineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One line of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// From 1.
    pub number: u64,
    /// What it is.
    pub kind: LineKind,
    /// When it happened, RFC 3339.
    pub at: String,
    /// The execution it is of.
    pub execution: Option<String>,
    /// Its run.
    pub run: Option<String>,
    /// The number of the record in its journal, from 1.
    pub record: Option<u64>,
    /// What happened.
    pub name: String,
    /// Hex. There as long as the payload is.
    pub salt: Option<String>,
    /// JSON text; `None` where it was left out.
    pub payload: Option<String>,
    /// Hex.
    pub payload_digest: String,
    /// The digest of the line before, hex.
    pub previous: String,
    /// Hex.
    pub digest: String,
    /// Of checkpoints and the end: the signature of the digest, hex.
    pub signature: Option<String>,
}

/// What a line is about, before it has its place in a chain.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// What it is.
    pub kind: LineKind,
    /// When it happened, RFC 3339.
    pub at: String,
    /// The execution it is of.
    pub execution: Option<String>,
    /// Its run.
    pub run: Option<String>,
    /// The number of the record in its journal, from 1.
    pub record: Option<u64>,
    /// What happened.
    pub name: String,
    /// All of it.
    pub payload: Value,
}

impl Line {
    /// What the digest should be.
    pub fn computed_digest(&self) -> String {
        let number = |number: Option<u64>| number.map_or_else(String::new, |n| n.to_string());
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let parts = [
            self.number.to_string(),
            self.kind.as_str().to_owned(),
            self.at.clone(),
            text(&self.execution),
            text(&self.run),
            number(self.record),
            self.name.clone(),
            self.payload_digest.clone(),
            self.previous.clone(),
        ];
        hex(&digest(
            LINE_DOMAIN,
            &parts.each_ref().map(|part| part.as_bytes()),
        ))
    }

    /// What the payload digest should be, where the payload is there.
    pub fn computed_payload_digest(&self) -> Option<String> {
        let payload = self.payload.as_ref()?;
        let salt = self.salt.as_deref().unwrap_or_default();
        let parts = [salt.as_bytes(), payload.as_bytes()];
        Some(hex(&digest(PAYLOAD_DOMAIN, &parts)))
    }

    /// Without its payload. What a chain itself says is kept.
    #[must_use]
    pub fn redacted(self) -> Self {
        if !self.kind.is_content() {
            return self;
        }
        Self {
            payload: None,
            salt: None,
            ..self
        }
    }
}

/// Puts entries into a chain.
pub struct Chain {
    key: sign::AuditKey,
    with_payloads: bool,
    lines: u64,
    previous: String,
    since_checkpoint: u64,
}

impl Chain {
    /// An empty one, signed with this key.
    pub fn new(key: sign::AuditKey, with_payloads: bool) -> Self {
        Self {
            key,
            with_payloads,
            lines: 0,
            previous: GENESIS.to_owned(),
            since_checkpoint: 0,
        }
    }

    /// The next line, and the checkpoint behind it if one is due. `now` is the time of the checkpoint.
    pub fn link(&mut self, entry: Entry, now: &str) -> Vec<Line> {
        let mut lines = vec![self.line(entry)];
        self.since_checkpoint += 1;
        if self.since_checkpoint >= CHECKPOINT_LINES {
            lines.push(self.signed(LineKind::Checkpoint, now));
        }
        lines
    }

    /// The last line.
    pub fn end(mut self, now: &str) -> Line {
        self.signed(LineKind::End, now)
    }

    fn signed(&mut self, kind: LineKind, now: &str) -> Line {
        self.since_checkpoint = 0;
        let mut line = self.line(Entry {
            kind,
            at: now.to_owned(),
            execution: None,
            run: None,
            record: None,
            name: kind.as_str().to_owned(),
            payload: serde_json::json!({ "linesBefore": self.lines }),
        });
        line.signature = Some(self.key.sign(&line.digest));
        line
    }

    fn line(&mut self, entry: Entry) -> Line {
        self.lines += 1;
        let payload = entry.payload.to_string();
        // The same record has the same salt in every export, so that two exports of it are equal.
        let salt = self.key.salt(&[
            entry.kind.as_str(),
            &entry.at,
            entry.execution.as_deref().unwrap_or_default(),
            entry.run.as_deref().unwrap_or_default(),
            &entry.record.unwrap_or_default().to_string(),
            &payload,
        ]);
        let mut line = Line {
            number: self.lines,
            kind: entry.kind,
            at: entry.at,
            execution: entry.execution,
            run: entry.run,
            record: entry.record,
            name: entry.name,
            salt: Some(salt),
            payload: Some(payload),
            payload_digest: String::new(),
            previous: std::mem::take(&mut self.previous),
            digest: String::new(),
            signature: None,
        };
        line.payload_digest = line.computed_payload_digest().unwrap_or_default();
        line.digest = line.computed_digest();
        self.previous.clone_from(&line.digest);
        if self.with_payloads {
            line
        } else {
            line.redacted()
        }
    }
}

/// Why a file is not an export, or not readable as one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct Unreadable {
    /// Which, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub why: String,
}

/// The lines of a file in any of the formats, which its first bytes tell apart. A Parquet file is read whole, the others line by line.
pub fn read<'a>(
    mut input: impl Read + 'a,
) -> Result<Box<dyn Iterator<Item = Result<Line, Unreadable>> + 'a>, Unreadable> {
    let unreadable = |error: std::io::Error| Unreadable {
        line: 0,
        why: error.to_string(),
    };
    let mut head = [0; 4];
    let mut known = 0;
    while known < head.len() {
        match input.read(&mut head[known..]).map_err(unreadable)? {
            0 => break,
            more => known += more,
        }
    }
    let head = head[..known].to_vec();
    let whole = std::io::Cursor::new(head.clone()).chain(input);
    Ok(match head.first() {
        _ if head == *table::MAGIC => Box::new(table::read(whole)?.into_iter().map(Ok)),
        Some(b'{') => Box::new(json_lines::read_all(whole)),
        _ => Box::new(delimited::read(whole)),
    })
}
