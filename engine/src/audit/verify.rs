//! Whether an export is whole and unchanged. Needs the file alone, and to be sure of who signed it, the signer's public key.
//!
//! ```text
//!  nothing --begin--> open --content--> open --checkpoint, signed--> open --end, signed--> ended --anything--> refused
//! ```
//!
//! Invariant: a changed, missing, added or swapped line and a missing end are found, each by the first line that is wrong.

use serde_json::Value;

use super::sign::PublicKey;
use super::{FORMAT, GENESIS, Line, LineKind, Unreadable};

/// What is wrong with an export.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Tampered {
    /// A line cannot be read.
    #[error("{0}")]
    Unreadable(#[from] Unreadable),
    /// The file does not begin with the first line of an export.
    #[error("line {line}: the beginning is missing: {why}")]
    NoBegin {
        /// Which, from 1.
        line: u64,
        /// What stands there.
        why: String,
    },
    /// A line is not where it should be.
    #[error(
        "line {line}: it says that it is line {says}: a line is missing, added, or in another's place"
    )]
    OutOfPlace {
        /// Which, from 1.
        line: u64,
        /// Its own number.
        says: u64,
    },
    /// A line does not follow the one before.
    #[error(
        "line {line}: it does not follow the line before it: one of them was changed, added, removed or swapped"
    )]
    Unchained {
        /// Which, from 1.
        line: u64,
    },
    /// A line is not what it was.
    #[error("line {line}: it was changed: its digest is of something else")]
    Changed {
        /// Which, from 1.
        line: u64,
    },
    /// A payload is not what it was.
    #[error("line {line}: its payload was changed")]
    PayloadChanged {
        /// Which, from 1.
        line: u64,
    },
    /// A signature is missing or somebody else's.
    #[error("line {line}: its signature is not one of key {key}")]
    BadSignature {
        /// Which, from 1.
        line: u64,
        /// Whose it should be.
        key: String,
    },
    /// The export is signed with another key than the one that was given.
    #[error("the export is signed with key {found}, not with {expected}: somebody else made it")]
    ForeignKey {
        /// The key of the file.
        found: String,
        /// The key that was given.
        expected: String,
    },
    /// Something stands behind the end.
    #[error("line {line}: it stands behind the end of the export")]
    BehindTheEnd {
        /// Which, from 1.
        line: u64,
    },
    /// The end is missing.
    #[error("the end is missing: the export was cut off behind line {lines} ({})", up_to(*.signed))]
    Truncated {
        /// Lines there are.
        lines: u64,
        /// The last line that a signature covers.
        signed: u64,
    },
}

fn up_to(signed: u64) -> String {
    match signed {
        0 => "none of it is signed".to_owned(),
        line => format!("signed up to line {line}"),
    }
}

/// What was found in an export that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Lines, all told.
    pub lines: u64,
    /// Lines of what happened.
    pub content: u64,
    /// Of those, the ones without their payload.
    pub redacted: u64,
    /// Signatures.
    pub signatures: u64,
    /// Whose.
    pub key: PublicKey,
    /// What was asked for, as the first line says it.
    pub scope: Value,
}

/// Verifies line by line.
pub struct Verifier {
    expected: Option<PublicKey>,
    begun: Option<(PublicKey, Value)>,
    ended: bool,
    lines: u64,
    content: u64,
    redacted: u64,
    signatures: u64,
    signed: u64,
    previous: String,
}

impl Verifier {
    /// Of an export of this key; without one, of whatever key the export names.
    pub fn new(expected: Option<PublicKey>) -> Self {
        Self {
            expected,
            begun: None,
            ended: false,
            lines: 0,
            content: 0,
            redacted: 0,
            signatures: 0,
            signed: 0,
            previous: GENESIS.to_owned(),
        }
    }

    /// Whether the end has come.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The next line.
    pub fn take(&mut self, line: &Line) -> Result<(), Tampered> {
        self.lines += 1;
        let at = self.lines;
        if self.ended {
            return Err(Tampered::BehindTheEnd { line: at });
        }
        if line.number != at {
            return Err(match self.begun {
                None => Tampered::NoBegin {
                    line: at,
                    why: format!("it is line {}", line.number),
                },
                Some(_) => Tampered::OutOfPlace {
                    line: at,
                    says: line.number,
                },
            });
        }
        if line.previous != self.previous {
            return Err(Tampered::Unchained { line: at });
        }
        if line.digest != line.computed_digest() {
            return Err(Tampered::Changed { line: at });
        }
        self.check_payload(line, at)?;
        let key = match &self.begun {
            Some((key, _)) => key.clone(),
            None => self.begin(line, at)?,
        };
        if line.kind == LineKind::Begin && at > 1 {
            return Err(Tampered::Changed { line: at });
        }
        match &line.signature {
            Some(signature) if line.kind.is_signed() && key.verifies(&line.digest, signature) => {
                self.signatures += 1;
                self.signed = at;
            }
            None if !line.kind.is_signed() => {}
            _ => {
                return Err(Tampered::BadSignature {
                    line: at,
                    key: key.to_string(),
                });
            }
        }
        self.content += u64::from(line.kind.is_content());
        self.redacted += u64::from(line.payload.is_none());
        self.ended = line.kind == LineKind::End;
        self.previous.clone_from(&line.digest);
        Ok(())
    }

    /// A payload that is there is the one that was; one that is not there took its salt with it.
    fn check_payload(&self, line: &Line, at: u64) -> Result<(), Tampered> {
        let whole = match (&line.payload, &line.salt) {
            (Some(_), Some(_)) => {
                line.computed_payload_digest().as_ref() == Some(&line.payload_digest)
            }
            (None, None) => line.kind.is_content(),
            _ => false,
        };
        if whole {
            Ok(())
        } else {
            Err(Tampered::PayloadChanged { line: at })
        }
    }

    fn begin(&mut self, line: &Line, at: u64) -> Result<PublicKey, Tampered> {
        let missing = |why: &str| Tampered::NoBegin {
            line: at,
            why: why.to_owned(),
        };
        if line.kind != LineKind::Begin {
            return Err(missing("the first line is of another kind"));
        }
        let scope: Value = line
            .payload
            .as_deref()
            .and_then(|payload| serde_json::from_str(payload).ok())
            .ok_or_else(|| missing("the first line says nothing"))?;
        if scope["format"].as_u64() != Some(FORMAT) {
            return Err(missing(
                "its format is another one: verify it with the version that made it, or a newer one",
            ));
        }
        let key = scope["publicKey"].as_str().and_then(PublicKey::parse);
        let key = key.ok_or_else(|| missing("the first line names no key"))?;
        if let Some(expected) = &self.expected
            && *expected != key
        {
            return Err(Tampered::ForeignKey {
                found: key.to_string(),
                expected: expected.to_string(),
            });
        }
        self.begun = Some((key.clone(), scope));
        Ok(key)
    }

    /// There are no more lines.
    pub fn finish(self) -> Result<Verified, Tampered> {
        match self.begun {
            Some((key, scope)) if self.ended => Ok(Verified {
                lines: self.lines,
                content: self.content,
                redacted: self.redacted,
                signatures: self.signatures,
                key,
                scope,
            }),
            _ => Err(Tampered::Truncated {
                lines: self.lines,
                signed: self.signed,
            }),
        }
    }
}

/// Verifies all lines of a file.
pub fn verify(
    lines: impl IntoIterator<Item = Result<Line, Unreadable>>,
    expected: Option<PublicKey>,
) -> Result<Verified, Tampered> {
    let mut verifier = Verifier::new(expected);
    for line in lines {
        verifier.take(&line?)?;
    }
    verifier.finish()
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;
    use crate::audit::sign::AuditKey;
    use crate::audit::{CHECKPOINT_LINES, Chain, Entry, delimited, json_lines, table};

    fn key() -> AuditKey {
        AuditKey::from_seed([7; 32])
    }

    fn entry(kind: LineKind, record: u64, payload: Value) -> Entry {
        let of = |text: &str| kind.is_content().then(|| text.to_owned());
        Entry {
            kind,
            at: "2026-03-04T11:55:00.001Z".into(),
            execution: of("o_1"),
            run: of("0199-run"),
            record: kind.is_content().then_some(record),
            name: "ActivityTaskScheduled".into(),
            payload,
        }
    }

    /// A whole export of so many records.
    pub(in crate::audit) fn export(key: AuditKey, records: u64, with_payloads: bool) -> Vec<Line> {
        let begin = json!({"format": FORMAT, "publicKey": key.public(), "project": "p_1"});
        let mut chain = Chain::new(key, with_payloads);
        let now = "2026-03-04T12:00:00Z";
        let mut lines = chain.link(entry(LineKind::Begin, 0, begin), now);
        for record in 1..=records {
            let kind = if record % 3 == 0 {
                LineKind::Note
            } else {
                LineKind::Event
            };
            let payload = json!({"note": {"at": record.to_string(), "said": "so, \"it\"\nis é"}});
            lines.extend(chain.link(entry(kind, record, payload), now));
        }
        lines.push(chain.end(now));
        lines
    }

    fn check(lines: &[Line]) -> Result<Verified, Tampered> {
        verify(lines.iter().cloned().map(Ok), None)
    }

    #[test]
    fn a_whole_export_verifies_with_payloads_and_without() {
        let whole = check(&export(key(), 5, true)).unwrap();
        assert_eq!((whole.lines, whole.content, whole.redacted), (7, 5, 0));
        assert_eq!(whole.signatures, 1);
        assert_eq!(whole.scope["project"], "p_1");
        let without = check(&export(key(), 5, false)).unwrap();
        assert_eq!((without.content, without.redacted), (5, 5));
        let mut partly = export(key(), 5, true);
        partly[2] = partly[2].clone().redacted();
        assert_eq!(check(&partly).unwrap().redacted, 1);
        assert_eq!(
            export(key(), 5, true)[3].digest,
            export(key(), 5, false)[3].digest
        );
    }

    #[test]
    fn checkpoints_come_in_between() {
        let lines = export(key(), CHECKPOINT_LINES + 500, true);
        assert_eq!(check(&lines).unwrap().signatures, 2);
        let cut = &lines[..usize::try_from(CHECKPOINT_LINES).unwrap() + 200];
        assert_eq!(
            check(cut),
            Err(Tampered::Truncated {
                lines: CHECKPOINT_LINES + 200,
                signed: CHECKPOINT_LINES + 1
            })
        );
    }

    #[test]
    fn a_missing_an_added_and_a_swapped_line_are_found() {
        let lines = export(key(), 6, true);
        for at in 0..lines.len() {
            let mut missing = lines.clone();
            missing.remove(at);
            assert!(check(&missing).is_err(), "line {at} removed");
            let mut twice = lines.clone();
            twice.insert(at, lines[at].clone());
            assert!(check(&twice).is_err(), "line {at} twice");
            for other in at + 1..lines.len() {
                let mut swapped = lines.clone();
                swapped.swap(at, other);
                assert!(check(&swapped).is_err(), "lines {at} and {other} swapped");
                // Also by one who corrects the numbers.
                for (index, line) in swapped.iter_mut().enumerate() {
                    line.number = index as u64 + 1;
                }
                assert!(check(&swapped).is_err(), "{at} and {other}, renumbered");
            }
        }
    }

    #[test]
    fn a_file_that_lacks_a_single_byte_at_its_end_is_cut_off() {
        let lines = export(key(), 3, true);
        let mut json = Vec::new();
        let mut table = Vec::new();
        let mut csv = super::super::delimited::Writer::new(&mut table).unwrap();
        for line in &lines {
            json.extend(super::super::json_lines::write(line).bytes());
            json.push(b'\n');
            csv.write(line).unwrap();
        }
        csv.finish().unwrap();
        for whole in [json, table] {
            let read = |bytes: &[u8]| {
                let lines = super::super::read(bytes)
                    .map_err(|_| ())
                    .map(Vec::from_iter);
                lines.map(|lines| verify(lines, None).is_ok())
            };
            assert_eq!(read(&whole), Ok(true));
            for length in 0..whole.len() {
                assert_ne!(read(&whole[..length]), Ok(true), "cut to {length} bytes");
            }
        }
    }

    #[test]
    fn any_cut_is_found() {
        let lines = export(key(), 6, true);
        for length in 0..lines.len() {
            assert!(
                matches!(check(&lines[..length]), Err(Tampered::Truncated { lines, .. }) if lines == length as u64),
                "cut to {length}"
            );
        }
    }

    #[test]
    fn a_forger_who_chains_anew_cannot_sign() {
        // Everything but the signatures can be computed by anybody.
        let mut forged = export(AuditKey::from_seed([9; 32]), 3, true);
        let pinned = PublicKey::parse(&key().public()).unwrap();
        assert!(matches!(
            verify(forged.iter().cloned().map(Ok), Some(pinned)),
            Err(Tampered::ForeignKey { .. })
        ));
        // With the name of the true key in the first line, the signatures are wrong.
        let begin = json!({"format": FORMAT, "publicKey": key().public()}).to_string();
        forged[0].payload = Some(begin);
        let mut previous = GENESIS.to_owned();
        for line in &mut forged {
            line.previous = previous;
            line.payload_digest = line.computed_payload_digest().unwrap();
            line.digest = line.computed_digest();
            previous = line.digest.clone();
        }
        assert!(matches!(
            check(&forged),
            Err(Tampered::BadSignature { line: 5, .. })
        ));
    }

    #[test]
    fn a_payload_that_was_left_out_cannot_be_put_back_otherwise() {
        let mut lines = export(key(), 2, false);
        lines[1].payload = Some("{}".to_owned());
        assert_eq!(check(&lines), Err(Tampered::PayloadChanged { line: 2 }));
        lines[1].salt = Some("00".to_owned());
        assert_eq!(check(&lines), Err(Tampered::PayloadChanged { line: 2 }));
    }

    fn json_file(lines: &[Line]) -> Vec<u8> {
        let text = lines.iter().map(|line| json_lines::write(line) + "\n");
        text.collect::<String>().into_bytes()
    }

    fn csv_file(lines: &[Line]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = delimited::Writer::new(&mut out).unwrap();
        lines.iter().for_each(|line| writer.write(line).unwrap());
        writer.finish().unwrap();
        out
    }

    #[test]
    fn every_flipped_bit_of_a_file_is_found() {
        for with_payloads in [true, false] {
            let lines = export(key(), 2, with_payloads);
            for file in [json_file(&lines), csv_file(&lines)] {
                assert!(
                    crate::audit::read(&file[..]).is_ok_and(|lines| verify(lines, None).is_ok())
                );
                for bit in 0..file.len() * 8 {
                    let mut flipped = file.clone();
                    flipped[bit / 8] ^= 1 << (bit % 8);
                    let found = match crate::audit::read(&flipped[..]) {
                        Ok(lines) => verify(lines, None).is_err(),
                        Err(_) => true,
                    };
                    assert!(found, "bit {bit}: {}", String::from_utf8_lossy(&flipped));
                }
            }
        }
    }

    #[test]
    fn every_cut_byte_of_a_file_is_found() {
        let lines = export(key(), 3, true);
        for file in [json_file(&lines), csv_file(&lines)] {
            // Without its last byte, the end of the last line, nothing of it is missing.
            for length in 0..file.len() - 1 {
                let found = match crate::audit::read(&file[..length]) {
                    Ok(lines) => verify(lines, None).is_err(),
                    Err(_) => true,
                };
                assert!(found, "cut to {length} bytes");
            }
        }
    }

    #[test]
    fn a_line_is_the_same_in_every_format() {
        let mut lines = export(key(), 7, true);
        lines[3] = lines[3].clone().redacted();
        let mut parquet = Vec::new();
        let mut writer = table::Writer::new(&mut parquet).unwrap();
        lines.iter().for_each(|line| writer.write(line).unwrap());
        writer.finish().unwrap();
        for file in [json_file(&lines), csv_file(&lines), parquet] {
            let read: Result<Vec<Line>, _> = crate::audit::read(&file[..]).unwrap().collect();
            assert_eq!(read.unwrap(), lines);
        }
    }
}
