//! Readings as Parquet: typed columns, for notebooks and other databases.
//!
//! A file is written one row group at a time, and each group is sent before the next begins. So an export takes
//! the memory of one group, plus a few hundred bytes of footer for each earlier group.

use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;

use crate::http::api::reading_view::{Field, FieldType, ReadingView, Value, fields};
use crate::reading::Stream;
use crate::store::export::{Piece, READINGS_MAX};

/// The least readings of a row group, except for the last group.
///
/// Why this many: readers skip whole groups by time and device, and read one group at a time. With more, an export
/// would need more than 16 MB of memory.
const GROUP_READINGS: usize = 10 * READINGS_MAX;

/// The Parquet schema of a stream: the API's fields with their types.
fn schema(stream: Stream) -> String {
    let column = |field: &Field| {
        let name = field.name;
        match field.holds {
            FieldType::Text => format!("required binary {name} (STRING);"),
            FieldType::OptionalText => format!("optional binary {name} (STRING);"),
            FieldType::Number => format!("required double {name};"),
            FieldType::Instant => format!("required int64 {name} (TIMESTAMP(MICROS,true));"),
        }
    };
    let columns: String = fields(stream).iter().map(column).collect();
    format!("message {} {{ {columns} }}", stream.name())
}

/// One column of the current row group.
enum Column {
    Text(Vec<ByteArray>),
    /// The texts that exist and, for each reading, whether it has one: 1 or 0.
    OptionalText(Vec<ByteArray>, Vec<i16>),
    Number(Vec<f64>),
    /// Microseconds since 1970 UTC.
    Instant(Vec<i64>),
}

impl Column {
    const fn new(holds: FieldType) -> Self {
        match holds {
            FieldType::Text => Column::Text(Vec::new()),
            FieldType::OptionalText => Column::OptionalText(Vec::new(), Vec::new()),
            FieldType::Number => Column::Number(Vec::new()),
            FieldType::Instant => Column::Instant(Vec::new()),
        }
    }

    fn push(&mut self, value: Value<'_>) {
        match (self, value) {
            (Column::Text(texts), Value::Text(text)) => texts.push(shared(text, texts.last())),
            (Column::OptionalText(texts, levels), Value::OptionalText(text)) => {
                levels.push(i16::from(text.is_some()));
                let text = text.map(|text| shared(text, texts.last()));
                texts.extend(text);
            }
            (Column::Number(numbers), Value::Number(number)) => numbers.push(number),
            (Column::Instant(instants), Value::Instant(at)) => instants.push(at.as_micros()),
            _ => tracing::error!("a reading's values do not match the columns of its stream"),
        }
    }

    fn write(&mut self, mut to: SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        match self {
            Column::Text(texts) => {
                let texts = mem::take(texts);
                to.typed::<ByteArrayType>().write_batch(&texts, None, None)
            }
            Column::OptionalText(texts, levels) => {
                let (texts, levels) = (mem::take(texts), mem::take(levels));
                let to = to.typed::<ByteArrayType>();
                to.write_batch(&texts, Some(&levels), None)
            }
            Column::Number(numbers) => {
                let numbers = mem::take(numbers);
                to.typed::<DoubleType>().write_batch(&numbers, None, None)
            }
            Column::Instant(instants) => {
                let instants = mem::take(instants);
                to.typed::<Int64Type>().write_batch(&instants, None, None)
            }
        }?;
        to.close()
    }
}

/// The text, sharing the memory of the previous one if they are equal.
fn shared(text: &str, before: Option<&ByteArray>) -> ByteArray {
    let same = before.filter(|before| before.data() == text.as_bytes());
    same.cloned()
        .unwrap_or_else(|| ByteArray::from(Bytes::copy_from_slice(text.as_bytes())))
}

/// A file that is being written.
pub(super) struct ParquetFile {
    writer: SerializedFileWriter<Vec<u8>>,
    columns: Vec<Column>,
    readings: usize,
}

impl ParquetFile {
    /// Begins a file for a stream.
    ///
    /// # Errors
    /// [`ParquetError`]: cannot occur, because the schema comes from constants.
    pub(super) fn new(stream: Stream) -> Result<Self, ParquetError> {
        // Statistics per group only, because the footer stays in memory until the end.
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .set_created_by(concat!("wattgate ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let schema = Arc::new(parse_message_type(&schema(stream))?);
        Ok(ParquetFile {
            writer: SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?,
            columns: fields(stream)
                .iter()
                .map(|field| Column::new(field.holds))
                .collect(),
            readings: 0,
        })
    }

    /// Adds readings of one device.
    pub(super) fn push(&mut self, piece: &Piece) {
        for reading in &piece.readings {
            let view = ReadingView {
                device: &piece.device,
                reading,
            };
            for (column, value) in self.columns.iter_mut().zip(view.values()) {
                column.push(value);
            }
        }
        self.readings += piece.readings.len();
    }

    /// Whether there are enough readings for a row group.
    pub(super) const fn is_full(&self) -> bool {
        self.readings >= GROUP_READINGS
    }

    /// Writes the readings as a row group and returns the file's new bytes.
    ///
    /// Blocks: for some 20 ms of computing, for a full group
    pub(super) fn group(&mut self) -> Result<Bytes, ParquetError> {
        if self.readings > 0 {
            let mut group = self.writer.next_row_group()?;
            for column in &mut self.columns {
                if let Some(to) = group.next_column()? {
                    column.write(to)?;
                }
            }
            group.close()?;
            self.readings = 0;
        }
        self.writer.flush()?;
        Ok(Bytes::from(mem::take(self.writer.inner_mut())))
    }

    /// Ends the file and returns its remaining bytes.
    ///
    /// Blocks: like [`ParquetFile::group`]
    pub(super) fn end(mut self) -> Result<Bytes, ParquetError> {
        let group = self.group()?;
        let rest = self.writer.into_inner()?;
        Ok(Bytes::from([&group[..], &rest].concat()))
    }
}
