//! How the bytes of a batch become shards.
//!
//! ```text
//! bytes     codec 1 | hash 1 | k 2 | n 2 | stripe bytes 4 | leaf bytes 4 | length 8        22
//! ```
//!
//! The data are cut into stripes of `stripe_bytes`, each stripe into k chunks, and n - k chunks are computed from those (systematic Reed-Solomon over
//! GF(2^8)); shard `i` is the i-th chunk of every stripe, one after another. A chunk is a whole number of leaves: the chunks of the last stripe are as
//! long as they have to be, and what is missing in them is zeros. So a batch of one receipt costs n leaves and not n chunks.

use crate::consensus::bytes::{BytesError, Reader, Writer};

/// Reed-Solomon over GF(2^8) with the polynomial 0x11d and the Vandermonde matrix of `reed-solomon-erasure` (and klauspost's), made systematic.
pub const CODEC_REED_SOLOMON: u8 = 1;
/// SHA-256.
pub const HASH_SHA_256: u8 = 1;
/// Bytes of a leaf of the commitment.
pub const LEAF_BYTES: u32 = 1024;
/// Bytes of data of a stripe.
pub const STRIPE_BYTES: u32 = 1 << 20;
/// Shards, at most: points of the field.
pub const SHARDS_MAX: u16 = 256;
/// Bytes of a batch, at most.
pub const LENGTH_MAX: u64 = 64 << 20;

/// How one batch is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Coding {
    k: u16,
    n: u16,
    length: u64,
}

/// Numbers with which nothing can be coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodingError {
    /// Too few or too many shards, or a stripe that cannot be cut into k chunks of whole leaves.
    #[error("{k} of {n} shards: k has to be a power of two of at most 64, and n more than k and at most {SHARDS_MAX}")]
    Shards {
        /// Shards that are needed.
        k: u16,
        /// Shards that there are.
        n: u16,
    },
    /// Nothing, or too much.
    #[error("a batch of {length} bytes; it has to be 1 to {LENGTH_MAX}")]
    Length {
        /// Bytes.
        length: u64,
    },
}

impl Coding {
    /// Coding of `length` bytes into n shards, any k of which are enough.
    ///
    /// # Errors
    /// [`CodingError`].
    pub fn new(k: u16, n: u16, length: u64) -> Result<Self, CodingError> {
        if !k.is_power_of_two() || k > 64 || n <= k || n > SHARDS_MAX {
            return Err(CodingError::Shards { k, n });
        }
        if length == 0 || length > LENGTH_MAX {
            return Err(CodingError::Length { length });
        }
        Ok(Self { k, n, length })
    }

    /// Shards that are enough.
    pub fn k(&self) -> u16 {
        self.k
    }

    /// Shards.
    pub fn n(&self) -> u16 {
        self.n
    }

    /// Bytes of data.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Stripes.
    pub fn stripes(&self) -> u32 {
        self.length.div_ceil(u64::from(STRIPE_BYTES)) as u32
    }

    /// Bytes of each chunk of a stripe: 0 beyond the last one.
    pub fn chunk_bytes(&self, stripe: u32) -> u32 {
        let begin = u64::from(stripe) * u64::from(STRIPE_BYTES);
        let data = self.length.saturating_sub(begin).min(u64::from(STRIPE_BYTES));
        (data.div_ceil(u64::from(self.k))).next_multiple_of(u64::from(LEAF_BYTES)) as u32
    }

    /// Where in a shard the chunk of a stripe begins.
    pub fn chunk_begin(&self, stripe: u32) -> u64 {
        u64::from(stripe) * u64::from(STRIPE_BYTES) / u64::from(self.k)
    }

    /// Bytes of each shard, a whole number of leaves.
    pub fn shard_bytes(&self) -> u64 {
        let last = self.stripes() - 1;
        self.chunk_begin(last) + u64::from(self.chunk_bytes(last))
    }

    /// Leaves of each shard.
    pub fn leaves(&self) -> u64 {
        self.shard_bytes() / u64::from(LEAF_BYTES)
    }

    /// Shards that have to be acknowledged before a batch counts as available: with up to f = n / 3 of them lying or gone, k others are left, and
    /// so they are if f have not answered: max(n - f, k + f). 8 of 12, 32 of 48, 26 of 32.
    pub fn acknowledged_min(&self) -> u16 {
        let faults = self.n / 3;
        (self.n - faults).max(self.k + faults).min(self.n)
    }

    /// Appends it to bytes.
    pub fn write(&self, out: &mut Writer) {
        out.u8(CODEC_REED_SOLOMON).u8(HASH_SHA_256).u16(self.k).u16(self.n);
        out.u32(STRIPE_BYTES).u32(LEAF_BYTES).u64(self.length);
    }

    /// Takes it from a reader.
    ///
    /// # Errors
    /// When the bytes end, or say what nothing can be coded with.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, BytesError> {
        let wanted = |field, found: u64, wanted: u64| match found == wanted {
            true => Ok(()),
            false => Err(BytesError::Value { field, value: found }),
        };
        wanted("codec", reader.u8()?.into(), CODEC_REED_SOLOMON.into())?;
        wanted("hash of shards", reader.u8()?.into(), HASH_SHA_256.into())?;
        let (k, n) = (reader.u16()?, reader.u16()?);
        wanted("bytes of a stripe", reader.u32()?.into(), STRIPE_BYTES.into())?;
        wanted("bytes of a leaf", reader.u32()?.into(), LEAF_BYTES.into())?;
        let length = reader.u64()?;
        Self::new(k, n, length).map_err(|error| match error {
            CodingError::Shards { .. } => {
                BytesError::Value { field: "k of n shards", value: u64::from(k) << 16 | u64::from(n) }
            }
            CodingError::Length { length } => BytesError::Value { field: "length of a batch", value: length },
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn shards_are_whole_leaves_and_hold_all_the_data() {
        for length in [1, 1023, 1024, 4096, 4097, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5_000_000, LENGTH_MAX] {
            for (k, n) in [(1, 2), (4, 12), (16, 32), (16, 48), (64, 256)] {
                let coding = Coding::new(k, n, length).unwrap();
                assert!(coding.shard_bytes() * u64::from(k) >= length);
                assert_eq!(coding.shard_bytes() % u64::from(LEAF_BYTES), 0);
                let sum: u64 = (0..coding.stripes()).map(|stripe| u64::from(coding.chunk_bytes(stripe))).sum();
                assert_eq!((sum, coding.chunk_bytes(coding.stripes())), (coding.shard_bytes(), 0));
            }
        }
        assert_eq!(Coding::new(4, 12, 1).unwrap().shard_bytes(), 1024);
    }

    #[test]
    fn the_acknowledgements_that_are_needed_are_those_of_the_design() {
        let of = |k, n| Coding::new(k, n, 1).unwrap().acknowledged_min();
        assert_eq!([of(4, 12), of(16, 48), of(16, 32)], [8, 32, 26]);
    }

    #[test]
    fn numbers_that_cannot_work_are_refused() {
        for (k, n) in [(0, 4), (3, 9), (4, 4), (128, 256), (4, 257)] {
            assert_eq!(Coding::new(k, n, 1), Err(CodingError::Shards { k, n }));
        }
        for length in [0, LENGTH_MAX + 1] {
            assert_eq!(Coding::new(4, 12, length), Err(CodingError::Length { length }));
        }
    }
}
