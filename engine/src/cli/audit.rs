//! `orchestrion audit`: exports of what happened, and whether one is whole and unchanged. Only `export` and `key` ask a server.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use reqwest::header::HeaderMap;
use serde_json::json;

use super::error::CliError;
use super::render::{Tone, count};
use super::{Session, show, show_json};
use crate::audit::sign::PublicKey;
use crate::audit::verify::Verifier;
use crate::audit::{Line, delimited, json_lines, read, table};

/// What to do.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Write every record, attempt, update and administrative act of the project, or of one execution, to a file
    Export(ExportArgs),
    /// Find out whether an export is whole and unchanged; needs no server
    Verify(VerifyArgs),
    /// Take payloads out of an export; it still verifies; needs no server
    Redact(RedactArgs),
    /// Print the public key that exports of this server are signed with
    Key,
}

/// What to export.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Only this execution
    pub execution: Option<String>,
    /// Only what happened at this instant or later, such as 2026-03-04T11:55:00Z
    #[arg(long, value_name = "INSTANT")]
    pub from: Option<String>,
    /// Only what happened before this instant
    #[arg(long, value_name = "INSTANT")]
    pub to: Option<String>,
    /// Leave payloads out
    #[arg(long)]
    pub no_payloads: bool,
    /// How to write it
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    pub format: Format,
    /// Where to write it [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON object on each line
    Jsonl,
    /// For spreadsheets
    Csv,
    /// For data tools
    Parquet,
}

/// What to verify.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The export, in any of the formats
    pub file: PathBuf,
    /// The public key it must be signed with, as `audit key` prints it
    #[arg(long, value_name = "HEX")]
    pub key: Option<String>,
}

/// What to redact.
#[derive(Debug, Args)]
pub struct RedactArgs {
    /// The export
    pub file: PathBuf,
    /// Where to write what is left of it
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Only payloads of this execution (repeat it for more)
    #[arg(long, value_name = "ID")]
    pub execution: Vec<String>,
    /// How to write it
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    pub format: Format,
}

/// Does it.
pub async fn run(session: &Session, command: AuditCommand) -> Result<(), CliError> {
    match command {
        AuditCommand::Export(args) => export(session, args).await,
        AuditCommand::Verify(args) => verify(session, &args),
        AuditCommand::Redact(args) => redact(session, &args),
        AuditCommand::Key => {
            let target = session.target().await?;
            let answer = target.client.get(&["v1", "audit", "key"], &[]).await?;
            if session.json {
                return show_json(&answer);
            }
            show(&format!(
                "{}\n",
                answer["publicKey"].as_str().unwrap_or_default()
            ))
        }
    }
}

async fn export(session: &Session, args: ExportArgs) -> Result<(), CliError> {
    if args.output.is_none() && args.format == Format::Parquet {
        return Err(CliError::Usage(
            "a Parquet file cannot be written to the terminal: say where with --output FILE".into(),
        ));
    }
    let target = session.target().await?;
    let mut query = vec![("payloads", (!args.no_payloads).to_string())];
    query.extend(args.execution.map(|id| ("execution", id)));
    query.extend(args.from.map(|from| ("from", from)));
    query.extend(args.to.map(|to| ("to", to)));
    let client = &target.client;
    let mut answer = client
        .stream(&["v1", "audit"], &query, HeaderMap::new())
        .await?;
    let mut draft = Draft::begin(args.output.as_deref())?;
    let mut sink = Sink::new(args.format, draft.writer()?).map_err(|e| draft.failed(&e))?;
    // A connection that breaks must not leave a file that looks like an export.
    let mut verifier = Verifier::new(None);
    let (mut buffer, mut lines) = (Vec::new(), 0);
    while let Some(chunk) = answer.chunk().await.map_err(|e| client.unreachable(&e))? {
        buffer.extend_from_slice(&chunk);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let text: Vec<u8> = buffer.drain(..=end).collect();
            lines += 1;
            let text = String::from_utf8_lossy(&text[..end]).into_owned();
            let line =
                json_lines::read(&text, lines).map_err(|e| CliError::Failed(e.to_string()))?;
            verifier
                .take(&line)
                .map_err(|e| CliError::Failed(e.to_string()))?;
            sink.write(&line).map_err(|e| draft.failed(&e))?;
        }
    }
    let verified = verifier
        .finish()
        .map_err(|e| CliError::Failed(format!("the server broke the export off: {e}")))?;
    sink.finish().map_err(|e| draft.failed(&e))?;
    draft.keep()?;
    if let Some(output) = &args.output {
        if session.json {
            return show_json(&json!({
                "file": output.display().to_string(),
                "lines": verified.lines,
                "publicKey": verified.key.to_string(),
            }));
        }
        show(&format!(
            "{} {} lines, signed by key {}\n",
            output.display(),
            verified.lines,
            verified.key
        ))?;
    }
    Ok(())
}

fn verify(session: &Session, args: &VerifyArgs) -> Result<(), CliError> {
    let key = match &args.key {
        Some(text) => Some(PublicKey::parse(text.trim()).ok_or_else(|| {
            CliError::Usage(format!(
                "--key is {text:?}: give the 64 hex digits that `orchestrion audit key` prints"
            ))
        })?),
        None => None,
    };
    let pinned = key.is_some();
    let lines = open(&args.file)?;
    let file = args.file.display();
    let verified = crate::audit::verify::verify(lines, key)
        .map_err(|e| CliError::Failed(format!("{file} is not what was exported: {e}")))?;
    if session.json {
        return show_json(&json!({
            "verified": true,
            "lines": verified.lines,
            "records": verified.content,
            "redacted": verified.redacted,
            "signatures": verified.signatures,
            "publicKey": verified.key.to_string(),
            "keyGiven": pinned,
            "scope": verified.scope,
        }));
    }
    let mut text = format!(
        "{} {file} is whole and unchanged: {} lines, {} ({} without payload), {}\n  signed by key {}\n",
        session.look.paint(Tone::Good, "●"),
        verified.lines,
        count(verified.content, "record"),
        verified.redacted,
        count(verified.signatures, "signature"),
        verified.key
    );
    if !pinned {
        text.push_str(
            "  Is that your server's key? Compare it with `orchestrion audit key`, or give it with --key.\n",
        );
    }
    show(&text)
}

fn redact(session: &Session, args: &RedactArgs) -> Result<(), CliError> {
    let mut draft = Draft::begin(Some(&args.output))?;
    let mut sink = Sink::new(args.format, draft.writer()?).map_err(|e| draft.failed(&e))?;
    let mut verifier = Verifier::new(None);
    let mut redacted = 0;
    let mut unknown: BTreeSet<&String> = args.execution.iter().collect();
    for line in open(&args.file)? {
        let line = line.map_err(|e| CliError::Failed(e.to_string()))?;
        // What is redacted must be worth keeping.
        verifier
            .take(&line)
            .map_err(|e| CliError::Failed(e.to_string()))?;
        let wanted = match &line.execution {
            _ if args.execution.is_empty() => true,
            Some(id) => {
                unknown.remove(id);
                args.execution.contains(id)
            }
            None => false,
        };
        let line = if wanted && line.kind.is_content() {
            redacted += u64::from(line.payload.is_some());
            line.redacted()
        } else {
            line
        };
        sink.write(&line).map_err(|e| draft.failed(&e))?;
    }
    verifier
        .finish()
        .map_err(|e| CliError::Failed(e.to_string()))?;
    // Whoever must take something out has to know that it was not there under this id.
    if let Some(id) = unknown.first() {
        return Err(CliError::Failed(format!(
            "{} holds no records of {id}: nothing was written; check the id, or leave --execution out for all of them",
            args.file.display()
        )));
    }
    sink.finish().map_err(|e| draft.failed(&e))?;
    draft.keep()?;
    if session.json {
        return show_json(
            &json!({"file": args.output.display().to_string(), "redacted": redacted}),
        );
    }
    show(&format!(
        "{}: {} taken out; it still verifies\n",
        args.output.display(),
        count(redacted, "payload")
    ))
}

fn open(
    path: &Path,
) -> Result<Box<dyn Iterator<Item = Result<Line, crate::audit::Unreadable>>>, CliError> {
    let file = File::open(path)
        .map_err(|e| CliError::Usage(format!("cannot read {}: {e}", path.display())))?;
    read(file).map_err(|e| CliError::Failed(format!("{}: {e}", path.display())))
}

/// The file that is written, under another name until it is whole; or standard output.
struct Draft {
    path: Option<(PathBuf, PathBuf)>,
    kept: bool,
}

impl Draft {
    fn begin(path: Option<&Path>) -> Result<Self, CliError> {
        let path = path.map(|path| {
            let mut draft = path.as_os_str().to_owned();
            draft.push(".part");
            (path.to_owned(), PathBuf::from(draft))
        });
        Ok(Self { path, kept: false })
    }

    fn writer(&self) -> Result<Box<dyn Write + Send>, CliError> {
        Ok(match &self.path {
            Some((_, draft)) => Box::new(BufWriter::new(
                File::create(draft).map_err(|e| self.failed(&e))?,
            )),
            None => Box::new(BufWriter::new(io::stdout())),
        })
    }

    fn failed(&self, error: &io::Error) -> CliError {
        match &self.path {
            Some((path, _)) => {
                CliError::Failed(format!("cannot write {}: {error}", path.display()))
            }
            None if error.kind() == io::ErrorKind::BrokenPipe => CliError::OutputClosed,
            None => CliError::Failed(format!("cannot write the output: {error}")),
        }
    }

    fn keep(&mut self) -> Result<(), CliError> {
        if let Some((path, draft)) = &self.path {
            std::fs::rename(draft, path).map_err(|e| self.failed(&e))?;
        }
        self.kept = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let (Some((_, draft)), false) = (&self.path, self.kept) {
            // It may never have been made.
            let _ = std::fs::remove_file(draft);
        }
    }
}

/// Writes lines in one of the formats.
enum Sink {
    Jsonl(Box<dyn Write + Send>),
    Csv(Box<delimited::Writer<Box<dyn Write + Send>>>),
    Parquet(Box<table::Writer<Box<dyn Write + Send>>>),
}

impl Sink {
    fn new(format: Format, out: Box<dyn Write + Send>) -> io::Result<Self> {
        Ok(match format {
            Format::Jsonl => Self::Jsonl(out),
            Format::Csv => Self::Csv(Box::new(delimited::Writer::new(out)?)),
            Format::Parquet => Self::Parquet(Box::new(table::Writer::new(out)?)),
        })
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        match self {
            Self::Jsonl(out) => writeln!(out, "{}", json_lines::write(line)),
            Self::Csv(out) => out.write(line),
            Self::Parquet(out) => out.write(line),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Jsonl(mut out) => out.flush(),
            Self::Csv(out) => out.finish(),
            Self::Parquet(out) => out.finish(),
        }
    }
}
