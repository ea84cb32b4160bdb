//! The log as a Parquet file, for analysts: one row for each entry, in row groups of [`ROWS_PER_GROUP`].
//!
//! ```text
//! number INT64 | time INT64, ms UTC | kind, da_root, detail, digest as text | shard INT32, null for a batch
//! ```
//!
//! `digest` is the chain's after that entry, so that a row can be held against a head that was once seen. Columns are written by hand: a tenth of the
//! dependencies of Arrow. Absent on purpose: compression, which needs another library.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::Type;

use crate::journal::{Entry, Head};

const SCHEMA: &str = "
message log {
  REQUIRED INT64 number;
  REQUIRED INT64 time (TIMESTAMP(MILLIS, true));
  REQUIRED BYTE_ARRAY kind (UTF8);
  REQUIRED BYTE_ARRAY da_root (UTF8);
  OPTIONAL INT32 shard;
  REQUIRED BYTE_ARRAY detail (UTF8);
  REQUIRED BYTE_ARRAY digest (UTF8);
}";
/// Rows that are in memory at once: some 20 MiB.
pub const ROWS_PER_GROUP: usize = 65_536;

fn schema() -> Result<Arc<Type>, ParquetError> {
    parse_message_type(SCHEMA).map(Arc::new)
}

/// Writes entries as they come.
pub struct Export<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    rows: Vec<(Entry, Head)>,
}

impl<W: Write + Send> Export<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(out: W) -> Result<Self, ParquetError> {
        let properties = WriterProperties::builder().set_compression(Compression::UNCOMPRESSED).build();
        let writer = SerializedFileWriter::new(out, schema()?, Arc::new(properties))?;
        Ok(Self { writer, rows: Vec::new() })
    }

    /// Adds an entry, and the head after it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add(&mut self, entry: &Entry, head: &Head) -> Result<(), ParquetError> {
        self.rows.push((entry.clone(), *head));
        if self.rows.len() < ROWS_PER_GROUP { Ok(()) } else { self.flush() }
    }

    /// Ends the file and gives it back.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn end(mut self) -> Result<W, ParquetError> {
        self.flush()?;
        self.writer.into_inner()
    }

    fn flush(&mut self) -> Result<(), ParquetError> {
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return Ok(());
        }
        let text = |of: fn(&(Entry, Head)) -> String| {
            rows.iter().map(|row| ByteArray::from(of(row).into_bytes())).collect::<Vec<_>>()
        };
        let mut texts = [
            text(|(entry, _)| entry.event.kind.name().to_owned()),
            text(|(entry, _)| hex::encode(entry.event.da_root)),
            text(|(entry, _)| entry.event.detail.clone()),
            text(|(_, head)| hex::encode(head.digest)),
        ]
        .into_iter();
        let mut numbers = [
            rows.iter().map(|(entry, _)| entry.number as i64).collect::<Vec<_>>(),
            rows.iter().map(|(entry, _)| (entry.event.time_s as i64).saturating_mul(1000)).collect(),
        ]
        .into_iter();
        let mut group = self.writer.next_row_group()?;
        while let Some(mut column) = group.next_column()? {
            match column.untyped() {
                ColumnWriter::Int64ColumnWriter(writer) => {
                    writer.write_batch(&numbers.next().unwrap_or_default(), None, None)?;
                }
                ColumnWriter::Int32ColumnWriter(writer) => {
                    let shards: Vec<i32> =
                        rows.iter().filter_map(|(entry, _)| entry.event.shard.map(i32::from)).collect();
                    let present: Vec<i16> = rows.iter().map(|(entry, _)| entry.event.shard.is_some().into()).collect();
                    writer.write_batch(&shards, Some(&present), None)?;
                }
                ColumnWriter::ByteArrayColumnWriter(writer) => {
                    writer.write_batch(&texts.next().unwrap_or_default(), None, None)?;
                }
                _ => return Err(ParquetError::General("the schema has another type".to_owned())),
            }
            column.close()?;
        }
        group.close().map(drop)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::journal::{EntryKind, Event};

    #[test]
    fn a_file_begins_and_ends_as_parquet_does_and_holds_what_was_added() {
        let mut export = Export::begin(Vec::new()).unwrap();
        let mut head = Head::default();
        for number in 0..3 {
            let shard = (number != 1).then_some(7);
            let event =
                Event { time_s: 5, kind: EntryKind::Kept, da_root: [3; 32], shard, detail: format!("detail {number}") };
            let entry = Entry { number, event };
            head = head.after(&entry.to_bytes());
            export.add(&entry, &head).unwrap();
        }
        let bytes = export.end().unwrap();
        assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
        let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(has("detail 2") && has(&hex::encode(head.digest)) && has("da_root"));
    }
}
