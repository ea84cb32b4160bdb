//! What an agent asks of a validator, and its answers.
//!
//! ```text
//! 1 Submit     tenant 16 | count 2 | hash 32 …                              leaves that wait for a header
//! 2 Attest     attestation                                                  a batch that is kept, for a header to commit to
//! 3 Wanted     count 2 | leaf hash 32 … | count 2 | da_root 32 …            what has become of them
//! 4 Wrong      length 4 | proof                                             a batch whose shards are no code word
//! 17 Submitted tenant 16 | accepted 2 | count 2 | (hash 32, reason 1) …
//! 18 Attest'd  da_root 32 | reason 1                                        0: it waits for a header
//! 19 Proofs    sealed header | count 2 | (leaf hash 32, length 2, inclusion) … | count 2 | attested …
//! ```

use super::{read_list, write_list};
use crate::availability::attestation::{ATTESTATION_BYTES_MAX, Attestation};
use crate::consensus::bytes::{BytesError, Reader, Writer};
use crate::consensus::header::Header;
use crate::consensus::seal::Seal;
use crate::consensus::validators::{SetError, ValidatorSet};
use crate::log::Hash;
use crate::log::leaf::{LeafHash, TenantId};
use crate::log::proof::Inclusion;

/// Leaves of one submission, at most.
pub const LEAVES_MAX: usize = 1024;
/// Leaves that are asked about at a time, at most: their proofs, of 1.7 KiB at most, fit a message.
pub const WANTED_LEAVES_MAX: usize = 256;
/// Batches that are asked about at a time, at most.
pub const WANTED_BATCHES_MAX: usize = 16;
/// Bytes of a proof of a wrong encoding, at most.
pub const WRONG_BYTES_MAX: usize = 256 * 1024;
/// Bytes of an inclusion, at most.
const INCLUSION_BYTES_MAX: usize = 18 + 53 * 32;

/// First byte of a proof of a wrong encoding: pinners send it too, whose other messages begin with 17 or more ([`super::pinner::Answer`]).
const WRONG: u8 = 4;

/// What an agent says, and a pinner of what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// "Put these into the log."
    Submit {
        /// Whose.
        tenant: TenantId,
        /// SHA-256 of each envelope.
        leaves: Vec<Hash>,
    },
    /// "Commit to this batch: it is kept."
    Attest(Box<Attestation>),
    /// "What has become of these?"
    Wanted {
        /// Leaves of the log.
        leaves: Vec<LeafHash>,
        /// `da_root` of batches.
        batches: Vec<Hash>,
    },
    /// "This batch is wrongly encoded": a [`crate::availability::wrong`] proof.
    Wrong(Vec<u8>),
}

/// Why a leaf or an attestation was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// It was: it waits for a header.
    Taken = 0,
    /// Too much waits; again later.
    Full = 1,
    /// It waits already.
    Waiting = 2,
    /// A header has it already.
    Included = 3,
    /// This agent may not speak for this tenant.
    Tenant = 4,
    /// It does not hold: too few acknowledgements, a signature, an unknown pinner.
    False = 5,
    /// It is proved to be wrongly encoded.
    Wrong = 6,
    /// Nobody may use this.
    Reserved = 7,
}

impl Reason {
    const ALL: [Self; 8] = [
        Self::Taken,
        Self::Full,
        Self::Waiting,
        Self::Included,
        Self::Tenant,
        Self::False,
        Self::Wrong,
        Self::Reserved,
    ];

    fn read(reader: &mut Reader<'_>) -> Result<Self, BytesError> {
        let byte = reader.u8()?;
        let value = u64::from(byte);
        Self::ALL.get(usize::from(byte)).copied().ok_or(BytesError::Value { field: "reason", value })
    }
}

/// A header, what makes it final, and who votes on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The header.
    pub header: Header,
    /// Its seal.
    pub seal: Seal,
    /// Who votes on it.
    pub set: ValidatorSet,
}

/// Where a batch is committed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested {
    /// The header whose `da_root` it is under.
    pub sealed: Sealed,
    /// As it stands there.
    pub attestation: Attestation,
    /// The way from [`Attestation::leaf_hash`] to `da_root`.
    pub inclusion: Inclusion,
}

/// What a validator answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Request::Submit`].
    Submitted {
        /// Whose.
        tenant: TenantId,
        /// How many were taken.
        accepted: u16,
        /// Which were not, and why.
        refused: Vec<(Hash, Reason)>,
    },
    /// To [`Request::Attest`] and [`Request::Wrong`].
    Attest {
        /// Which batch.
        da_root: Hash,
        /// What became of it.
        reason: Reason,
    },
    /// To [`Request::Wanted`]: what is final. What is not, is not mentioned.
    Proofs {
        /// The last final header.
        sealed: Box<Sealed>,
        /// Leaves, and the way to `sealed.header.receipts`.
        leaves: Vec<(LeafHash, Inclusion)>,
        /// Batches.
        batches: Vec<Attested>,
    },
}

impl Request {
    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Self::Submit { tenant, leaves } => {
                out.u8(1).bytes(&tenant.0);
                write_list(&mut out, leaves, |out, leaf| {
                    out.bytes(leaf);
                });
            }
            Self::Attest(attestation) => attestation.write(out.u8(2)),
            Self::Wanted { leaves, batches } => {
                out.u8(3);
                write_list(&mut out, leaves, |out, leaf| {
                    out.bytes(&leaf.0);
                });
                write_list(&mut out, batches, |out, batch| {
                    out.bytes(batch);
                });
            }
            Self::Wrong(proof) => {
                out.u8(WRONG).u32(proof.len() as u32).bytes(proof);
            }
        }
        out.done()
    }

    /// True for bytes that can only be [`Request::Wrong`].
    pub fn is_wrong(bytes: &[u8]) -> bool {
        bytes.first() == Some(&WRONG)
    }

    /// Reads a request.
    ///
    /// # Errors
    /// [`BytesError`] for what is none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BytesError> {
        let mut reader = Reader::new(bytes);
        let request = match reader.u8()? {
            1 => {
                let tenant = TenantId(reader.array()?);
                Self::Submit { tenant, leaves: read_list(&mut reader, "leaves", LEAVES_MAX, Reader::array)? }
            }
            2 => Self::Attest(Box::new(Attestation::read(&mut reader)?)),
            3 => {
                let leaf = |reader: &mut Reader<'_>| reader.array().map(LeafHash);
                let leaves = read_list(&mut reader, "leaves that are wanted", WANTED_LEAVES_MAX, leaf)?;
                let batches = read_list(&mut reader, "batches that are wanted", WANTED_BATCHES_MAX, Reader::array)?;
                Self::Wanted { leaves, batches }
            }
            WRONG => {
                let count = reader.u32()? as usize;
                if count > WRONG_BYTES_MAX {
                    let max = WRONG_BYTES_MAX;
                    return Err(BytesError::Count { field: "bytes of a proof of a wrong encoding", count, max });
                }
                Self::Wrong(reader.take(count)?.to_vec())
            }
            value => return Err(BytesError::Value { field: "kind of a request", value: value.into() }),
        };
        reader.end()?;
        Ok(request)
    }
}

impl Sealed {
    /// Appends it to bytes.
    pub fn write(&self, out: &mut Writer) {
        out.bytes(&self.header.to_bytes());
        self.seal.write(out);
        self.set.write(out);
    }

    /// Takes it from a reader.
    ///
    /// # Errors
    /// When the bytes end or are none.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, AnswerError> {
        Ok(Self { header: Header::read(reader)?, seal: Seal::read(reader)?, set: ValidatorSet::read(reader)? })
    }
}

/// Why bytes are no answer, or no sealed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Of anything but the validators.
    #[error(transparent)]
    Bytes(#[from] BytesError),
    /// The validators are no set.
    #[error("the validators: {0}")]
    Set(#[from] SetError),
}

impl Answer {
    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Self::Submitted { tenant, accepted, refused } => {
                out.u8(17).bytes(&tenant.0).u16(*accepted);
                write_list(&mut out, refused, |out, (leaf, reason)| {
                    out.bytes(leaf).u8(*reason as u8);
                });
            }
            Self::Attest { da_root, reason } => {
                out.u8(18).bytes(da_root).u8(*reason as u8);
            }
            Self::Proofs { sealed, leaves, batches } => {
                out.u8(19);
                sealed.write(&mut out);
                write_list(&mut out, leaves, |out, (leaf, inclusion)| {
                    out.bytes(&leaf.0);
                    write_inclusion(out, inclusion);
                });
                write_list(&mut out, batches, |out, attested| {
                    attested.sealed.write(out);
                    attested.attestation.write(out);
                    write_inclusion(out, &attested.inclusion);
                });
            }
        }
        out.done()
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// [`AnswerError`] for what is none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AnswerError> {
        let mut reader = Reader::new(bytes);
        let answer = match reader.u8()? {
            17 => {
                let (tenant, accepted) = (TenantId(reader.array()?), reader.u16()?);
                let read = |reader: &mut Reader<'_>| Ok((reader.array()?, Reason::read(reader)?));
                Self::Submitted { tenant, accepted, refused: read_list(&mut reader, "leaves", LEAVES_MAX, read)? }
            }
            18 => Self::Attest { da_root: reader.array()?, reason: Reason::read(&mut reader)? },
            19 => {
                let sealed = Box::new(Sealed::read(&mut reader)?);
                let leaf = |reader: &mut Reader<'_>| Ok((LeafHash(reader.array()?), read_inclusion(reader)?));
                let leaves = read_list(&mut reader, "proofs of leaves", WANTED_LEAVES_MAX, leaf)?;
                let count = reader.count("proofs of batches", WANTED_BATCHES_MAX)?;
                let batches = (0..count).map(|_| read_attested(&mut reader)).collect::<Result<_, _>>()?;
                Self::Proofs { sealed, leaves, batches }
            }
            value => return Err(BytesError::Value { field: "kind of an answer", value: value.into() }.into()),
        };
        reader.end()?;
        Ok(answer)
    }
}

fn read_attested(reader: &mut Reader<'_>) -> Result<Attested, AnswerError> {
    let sealed = Sealed::read(reader)?;
    Ok(Attested { sealed, attestation: Attestation::read(reader)?, inclusion: read_inclusion(reader)? })
}

fn write_inclusion(out: &mut Writer, inclusion: &Inclusion) {
    let bytes = inclusion.to_bytes();
    out.u16(bytes.len() as u16).bytes(&bytes);
}

fn read_inclusion(reader: &mut Reader<'_>) -> Result<Inclusion, BytesError> {
    let count = reader.count("bytes of an inclusion", INCLUSION_BYTES_MAX)?;
    Inclusion::from_bytes(reader.take(count)?)
}

const _: () = {
    let sealed = crate::consensus::header::HEADER_BYTES + 70 + crate::consensus::validators::SET_BYTES_MAX;
    let leaves = WANTED_LEAVES_MAX * (32 + 2 + INCLUSION_BYTES_MAX);
    let batches = WANTED_BATCHES_MAX * (sealed + ATTESTATION_BYTES_MAX + 2 + INCLUSION_BYTES_MAX);
    assert!(1 + sealed + 2 + leaves + 2 + batches <= super::MESSAGE_BYTES_MAX);
};
