//! Lines as Parquet, for data tools: one column for each part of a line, row groups of a fixed number of lines.
//!
//! Invariant: a row group is in memory while it is written, never more.

use std::io::{Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, ConvertedType, Repetition, Type as PhysicalType};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::record::Field;
use parquet::schema::types::Type;

use super::delimited::{COLUMNS, cells, line_of};
use super::{Line, Unreadable};

/// What a file of this format begins with.
pub const MAGIC: &[u8; 4] = b"PAR1";
/// Lines of a row group.
const ROW_GROUP_LINES: usize = 2_000;
/// The columns that hold numbers.
const NUMBERS: [&str; 2] = ["line", "record"];

/// Writes lines.
pub struct Writer<W: Write + Send> {
    file: SerializedFileWriter<W>,
    group: Vec<[String; 13]>,
}

fn failed(error: ParquetError) -> std::io::Error {
    std::io::Error::other(error)
}

fn schema() -> Result<Arc<Type>, ParquetError> {
    let columns = COLUMNS.map(|name| {
        let column = if NUMBERS.contains(&name) {
            Type::primitive_type_builder(name, PhysicalType::INT64)
        } else {
            Type::primitive_type_builder(name, PhysicalType::BYTE_ARRAY)
                .with_converted_type(ConvertedType::UTF8)
        };
        column
            .with_repetition(Repetition::OPTIONAL)
            .build()
            .map(Arc::new)
    });
    let columns: Result<Vec<_>, _> = columns.into_iter().collect();
    Type::group_type_builder("audit")
        .with_fields(columns?)
        .build()
        .map(Arc::new)
}

impl<W: Write + Send> Writer<W> {
    /// An empty file.
    pub fn new(out: W) -> std::io::Result<Self> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::UNCOMPRESSED)
            .set_statistics_enabled(EnabledStatistics::None)
            .set_created_by(concat!("orchestrion ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let file = SerializedFileWriter::new(out, schema().map_err(failed)?, Arc::new(properties))
            .map_err(failed)?;
        Ok(Self {
            file,
            group: Vec::new(),
        })
    }

    /// One more row.
    pub fn write(&mut self, line: &Line) -> std::io::Result<()> {
        self.group.push(cells(line));
        if self.group.len() >= ROW_GROUP_LINES {
            self.write_group().map_err(failed)?;
        }
        Ok(())
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        let rows = std::mem::take(&mut self.group);
        let mut group = self.file.next_row_group()?;
        for (at, name) in COLUMNS.iter().enumerate() {
            let Some(mut column) = group.next_column()? else {
                break;
            };
            let present: Vec<i16> = rows
                .iter()
                .map(|row| i16::from(!row[at].is_empty()))
                .collect();
            let texts = rows
                .iter()
                .map(|row| &row[at])
                .filter(|text| !text.is_empty());
            if NUMBERS.contains(name) {
                let values: Vec<i64> = texts.filter_map(|text| text.parse().ok()).collect();
                column
                    .typed::<Int64Type>()
                    .write_batch(&values, Some(&present), None)?;
            } else {
                let values: Vec<ByteArray> =
                    texts.map(|text| ByteArray::from(text.as_str())).collect();
                column
                    .typed::<ByteArrayType>()
                    .write_batch(&values, Some(&present), None)?;
            }
            column.close()?;
        }
        group.close()?;
        Ok(())
    }

    /// The rest and the footer are written.
    pub fn finish(mut self) -> std::io::Result<()> {
        if !self.group.is_empty() {
            self.write_group().map_err(failed)?;
        }
        self.file.close().map_err(failed)?;
        Ok(())
    }
}

/// Reads all lines.
pub fn read(mut input: impl Read) -> Result<Vec<Line>, Unreadable> {
    let unreadable = |line: u64, error: &dyn std::fmt::Display| Unreadable {
        line,
        why: error.to_string(),
    };
    let mut bytes = Vec::new();
    input
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(0, &error))?;
    let reader =
        SerializedFileReader::new(Bytes::from(bytes)).map_err(|error| unreadable(0, &error))?;
    let rows = reader
        .get_row_iter(None)
        .map_err(|error| unreadable(0, &error))?;
    let mut lines = Vec::new();
    for (number, row) in (1..).zip(rows) {
        let row = row.map_err(|error| unreadable(number, &error))?;
        let columns = row.get_column_iter().zip(COLUMNS);
        let mut cells = Vec::with_capacity(COLUMNS.len());
        for ((name, field), expected) in columns {
            if name != expected {
                return Err(unreadable(
                    number,
                    &format!("column {name} stands where {expected} should"),
                ));
            }
            cells.push(match field {
                Field::Null => String::new(),
                Field::Str(text) => text.clone(),
                Field::Long(value) => value.to_string(),
                other => return Err(unreadable(number, &format!("{other} is no part of a line"))),
            });
        }
        let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
        lines.push(line_of(&cells, number)?);
    }
    Ok(lines)
}
