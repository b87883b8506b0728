//! Looks through the write-ahead logs before RocksDB does, to tell a torn tail from damage.
//!
//! A commit is synced before the next one is written, so only the last record can be unfinished. When
//! something whole begins behind a broken place, what broke there had been acknowledged.
//!
//! Invariant: nothing is changed; either the folder is refused, or RocksDB drops an unfinished tail.

// A log is a row of 32 KB blocks. A record lies in one block (full), or in pieces, one per block (first,
// middle, last). Each piece: masked CRC-32C of all that follows it (u32 LE), length (u16 LE), type (u8),
// bytes. Less than a head's room at the end of a block is filled with zeros.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::super::{StoreError, StoreErrorKind};

const BLOCK_BYTES: u64 = 32 * 1024;
const HEAD_BYTES: usize = 7;
const FULL: u8 = 1;
const FIRST: u8 = 2;
const LAST: u8 = 4;

/// Refuses a folder with a log that is damaged before its tail.
pub(super) fn check(folder: &Path) -> Result<(), StoreError> {
    let unavailable = |error: io::Error| {
        let message = format!("folder {}: reading its logs: {error}", folder.display());
        StoreError::new(StoreErrorKind::Unavailable, "open", message)
    };
    for file in fs::read_dir(folder).map_err(unavailable)? {
        let path = file.map_err(unavailable)?.path();
        if path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        let log = File::open(&path).map_err(unavailable)?;
        if let Some(damage) = find_damage(log).map_err(unavailable)? {
            let message = format!(
                "log {} is damaged at byte {}, and whole records follow at byte {}: restore the \
                 folder from a backup",
                path.display(),
                damage.at,
                damage.whole_again_at
            );
            return Err(StoreError::new(StoreErrorKind::Corrupt, "open", message));
        }
    }
    Ok(())
}

/// A broken place with something whole behind it.
#[derive(Debug, PartialEq, Eq)]
struct Damage {
    at: u64,
    whole_again_at: u64,
}

fn find_damage(mut log: impl Read) -> io::Result<Option<Damage>> {
    let mut block = Vec::with_capacity(BLOCK_BYTES as usize);
    let mut block_at = 0;
    let mut broken_at = None;
    loop {
        block.clear();
        if (&mut log).take(BLOCK_BYTES).read_to_end(&mut block)? == 0 {
            return Ok(None);
        }
        let (mut at, mut searching) = (0, false);
        while at + HEAD_BYTES <= block.len() {
            let place = &block[at..];
            let piece = if searching && !may_begin_a_record(place) {
                None
            } else {
                whole_piece(place)
            };
            match (piece, broken_at) {
                (Some((FULL | FIRST, _)), Some(broken_at)) => {
                    let whole_again_at = block_at + at as u64;
                    return Ok(Some(Damage {
                        at: broken_at,
                        whole_again_at,
                    }));
                }
                // A middle or a last piece behind a broken place may belong to the record that broke.
                (Some((_, bytes)), _) => (at, searching) = (at + bytes, false),
                (None, _) => {
                    broken_at.get_or_insert(block_at + at as u64);
                    // Its length cannot be trusted: look everywhere behind it.
                    (at, searching) = (at + 1, true);
                }
            }
        }
        block_at += block.len() as u64;
    }
}

/// Cheap to ask at every byte, where checksums over whatever lies there would cost minutes. A record
/// begins with its sequence number (u64 LE) and its count of operations (u32 LE), neither near its limit.
fn may_begin_a_record(bytes: &[u8]) -> bool {
    let is = |at: usize, wanted: fn(u8) -> bool| bytes.get(at).is_none_or(|byte| wanted(*byte));
    let short = matches!(bytes, [_, _, _, _, 0..12, 0, ..]);
    is(6, |kind| matches!(kind, FULL | FIRST))
        && (short || [13, 14, 18].into_iter().all(|at| is(at, |byte| byte == 0)))
}

/// Type and size of the piece that `bytes` begin with, if its checksum is right.
fn whole_piece(bytes: &[u8]) -> Option<(u8, usize)> {
    let (head, _) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let [c0, c1, c2, c3, l0, l1, piece] = *head;
    if !(FULL..=LAST).contains(&piece) {
        return None;
    }
    let size = HEAD_BYTES + usize::from(u16::from_le_bytes([l0, l1]));
    let checked = bytes.get(HEAD_BYTES - 1..size)?;
    (masked(crc32c(checked)) == u32::from_le_bytes([c0, c1, c2, c3])).then_some((piece, size))
}

/// RocksDB masks a checksum that it stores, as the checksum of data that holds one is weak.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), eight bytes a step.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    let (steps, rest) = bytes.as_chunks::<8>();
    for step in steps {
        let word = u64::from_le_bytes(*step) ^ u64::from(crc);
        crc = 0;
        for (table, byte) in CRC_TABLES.iter().rev().zip(word.to_le_bytes()) {
            crc ^= table[usize::from(byte)];
        }
    }
    for byte in rest {
        crc = (crc >> 8) ^ CRC_TABLES[0][usize::from(crc as u8 ^ byte)];
    }
    !crc
}

/// `CRC_TABLES[n][byte]` is the checksum of the byte with `n` zero bytes behind it.
static CRC_TABLES: [[u32; 256]; 8] = {
    let mut tables = [[0u32; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut zeros = 1;
    while zeros < 8 {
        let mut byte = 0;
        while byte < 256 {
            let crc = tables[zeros - 1][byte];
            tables[zeros][byte] = (crc >> 8) ^ tables[0][(crc & 0xff) as usize];
            byte += 1;
        }
        zeros += 1;
    }
    tables
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Appends a record as RocksDB does, in pieces where it crosses a block's end.
    fn append(log: &mut Vec<u8>, record: &[u8]) {
        let block = BLOCK_BYTES as usize;
        let mut rest = record;
        let mut begun = false;
        loop {
            let mut room = block - log.len() % block;
            if room < HEAD_BYTES {
                log.resize(log.len() + room, 0);
                room = block;
            }
            let (piece, left) = rest.split_at(rest.len().min(room - HEAD_BYTES));
            let kind = match (begun, left.is_empty()) {
                (false, true) => FULL,
                (false, false) => FIRST,
                (true, false) => 3,
                (true, true) => LAST,
            };
            let checked = [&[kind], piece].concat();
            log.extend_from_slice(&masked(crc32c(&checked)).to_le_bytes());
            log.extend_from_slice(&(piece.len() as u16).to_le_bytes());
            log.extend_from_slice(&checked);
            (rest, begun) = (left, true);
            if rest.is_empty() {
                return;
            }
        }
    }

    /// A record of one operation: its head, then noise.
    fn record(bytes: usize, sequence: u64) -> Vec<u8> {
        let mut state = sequence as u32 | 1;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        let head = sequence.to_le_bytes().into_iter().chain(1u32.to_le_bytes());
        head.chain(noise).take(bytes).collect()
    }

    fn damage(log: &[u8]) -> Option<Damage> {
        find_damage(log).unwrap()
    }

    /// Three records of these sizes, and where each begins.
    fn log_of(sizes: [usize; 3]) -> (Vec<u8>, [usize; 3]) {
        let mut log = Vec::new();
        let starts = [0, 1, 2].map(|i| {
            let start = log.len();
            append(&mut log, &record(sizes[i], i as u64 + 7));
            start
        });
        (log, starts)
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn a_whole_log_is_whole() {
        assert_eq!(damage(&[]), None);
        assert_eq!(damage(&log_of([40, 100, 30]).0), None);
        assert_eq!(damage(&log_of([100_000, 32_768, 70_000]).0), None);
        // A record that leaves less than a head's room in its block.
        assert_eq!(damage(&log_of([32_768 - 7 - 3, 50, 50]).0), None);
    }

    #[test]
    fn a_log_cut_anywhere_has_a_torn_tail() {
        let (log, _) = log_of([300, 40_000, 200]);
        for cut in (0..log.len()).step_by(17) {
            assert_eq!(damage(&log[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn pages_of_the_last_record_that_never_came_are_a_torn_tail() {
        let (log, starts) = log_of([300, 500, 100_000]);
        for page in (starts[2]..log.len()).step_by(4_096) {
            let mut torn = log.clone();
            let end = log.len().min(page + 4_096);
            torn[page..end].fill(0);
            assert_eq!(damage(&torn), None, "page at {page}");
        }
        let zeros = [log, vec![0; 100_000]].concat();
        assert_eq!(damage(&zeros), None);
    }

    #[test]
    fn a_flipped_byte_before_the_last_record_is_damage() {
        let (log, starts) = log_of([300, 500, 60]);
        for at in 0..starts[2] {
            let mut damaged = log.clone();
            damaged[at] ^= 0x10;
            let broken_at = if at < starts[1] { 0 } else { starts[1] };
            let whole_again_at = if at < starts[1] { starts[1] } else { starts[2] };
            let (at_expected, whole_again_at) = (broken_at as u64, whole_again_at as u64);
            assert_eq!(
                damage(&damaged),
                Some(Damage {
                    at: at_expected,
                    whole_again_at
                }),
                "{at}"
            );
        }
        for at in starts[2]..log.len() {
            let mut torn = log.clone();
            torn[at] ^= 0x10;
            assert_eq!(
                damage(&torn),
                None,
                "the last record may be unfinished, {at}"
            );
        }
    }

    #[test]
    fn damage_before_a_record_that_hardly_begins_in_its_block_is_damage() {
        // The first piece of the last record holds 0 to 20 of its bytes.
        for room in 7..28 {
            let (log, starts) = log_of([20, 32_768 - 27 - 7 - room, 60]);
            assert_eq!(starts[2], 32_768 - room);
            let mut damaged = log.clone();
            damaged[starts[1] + 4] ^= 0x10;
            let (at, whole_again_at) = (starts[1] as u64, starts[2] as u64);
            assert_eq!(
                damage(&damaged),
                Some(Damage { at, whole_again_at }),
                "{room} bytes left"
            );
        }
    }

    #[test]
    fn a_lost_page_before_the_last_record_is_damage() {
        let (log, starts) = log_of([90_000, 70_000, 60]);
        for page in (0..starts[2]).step_by(4_096) {
            let mut damaged = log.clone();
            let end = starts[2].min(page + 4_096);
            damaged[page..end].fill(0);
            assert!(damage(&damaged).is_some(), "page at {page}");
        }
    }
}
