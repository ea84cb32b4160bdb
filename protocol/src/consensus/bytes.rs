//! Fixed-width big-endian bytes, written and read in one order. A reader refuses what is too short, too long, or not canonical.

use thiserror::Error;

/// Why bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BytesError {
    /// They end before the value does.
    #[error("{wanted} more bytes are needed at offset {offset}, and {left} are left")]
    Short {
        /// Where.
        offset: usize,
        /// How many are needed.
        wanted: usize,
        /// How many there are.
        left: usize,
    },
    /// They go on after the value.
    #[error("{extra} bytes follow the value")]
    Long {
        /// How many.
        extra: usize,
    },
    /// A field holds what its type does not have.
    #[error("{field} cannot be {value}")]
    Value {
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
    /// A list is longer than it may be.
    #[error("{field} has {count} entries, of at most {max}")]
    Count {
        /// Which list.
        field: &'static str,
        /// What it holds.
        count: usize,
        /// What it may hold.
        max: usize,
    },
}

/// Appends values to bytes.
#[derive(Clone, Debug, Default)]
pub struct Writer(Vec<u8>);

/// Room for what is written most often, a header or a vote, at once.
const ROOM: usize = 512;

impl Writer {
    /// Nothing yet.
    pub fn new() -> Self {
        Self(Vec::with_capacity(ROOM))
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Sixteen bytes.
    pub fn u128(&mut self, value: u128) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.0.extend_from_slice(value);
        self
    }

    /// What was written.
    pub fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Takes values from bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// From the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// So many bytes as they are.
    pub fn take(&mut self, wanted: usize) -> Result<&'a [u8], BytesError> {
        let left = self.bytes.len() - self.offset;
        let short = BytesError::Short { offset: self.offset, wanted, left };
        let taken = self.bytes.get(self.offset..self.offset.saturating_add(wanted)).ok_or(short)?;
        self.offset += wanted;
        Ok(taken)
    }

    /// An array of bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], BytesError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, BytesError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, BytesError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, BytesError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, BytesError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// Sixteen bytes.
    pub fn u128(&mut self) -> Result<u128, BytesError> {
        Ok(u128::from_be_bytes(self.array()?))
    }

    /// A byte that says whether something follows.
    pub fn flag(&mut self, field: &'static str) -> Result<bool, BytesError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(BytesError::Value { field, value: value.into() }),
        }
    }

    /// The length of a list, two bytes.
    pub fn count(&mut self, field: &'static str, max: usize) -> Result<usize, BytesError> {
        let count = usize::from(self.u16()?);
        if count > max { Err(BytesError::Count { field, count, max }) } else { Ok(count) }
    }

    /// All that is left, for who reads it to its end.
    pub fn rest(self) -> &'a [u8] {
        self.bytes.get(self.offset..).unwrap_or_default()
    }

    /// The end: nothing may follow.
    pub fn end(self) -> Result<(), BytesError> {
        match self.bytes.len() - self.offset {
            0 => Ok(()),
            extra => Err(BytesError::Long { extra }),
        }
    }
}
