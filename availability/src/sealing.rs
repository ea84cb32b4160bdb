//! What only a tenant's readers open: the archive under a key of its own, and that key wrapped for each reader.
//!
//! ```text
//! sealed      version 1 | length 8 | prefix 19 | commitment 32 | chunk …
//! chunk       XChaCha20-Poly1305 of 64 KiB, the last one of what is left: bytes | tag 16
//!             nonce  prefix 19 | number of the chunk 4 | 1 for the last, 0 for others
//!             with   "bpi/1 sealed batch" | tenant 16 | the 60 bytes before the first chunk
//! commitment  SHA-256("bpi/1 batch key" | tenant 16 | key)
//! keyslot     version 1 | reader 32 | enc 32 | key sealed 32 | tag 16
//!             HPKE base mode (RFC 9180): DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305
//!             info   "bpi/1 keyslot" | tenant 16 | reader 32, with the commitment
//! ```
//!
//! Chunks with a counter and a last one are the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár 2015): a chunk left out, moved, taken from
//! elsewhere or cut off does not open. XChaCha20-Poly1305 does not commit to its key; the commitment does, so what one reader opens all others open
//! alike. A keyslot goes with one key: it can be revoked by deleting it, and given to another reader by who has one ([`grant`]).
//!
//! Always true: keys are wiped when they go out of use and stand in no error and no Debug. Absent on purpose: entropy, which the caller gives.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bpi_keyfile::{KeyFileError, read_private, write_private};
use bpi_protocol::availability::coding::LENGTH_MAX;
use bpi_protocol::consensus::bytes::{BytesError, Reader, Writer};
use bpi_protocol::log::leaf::TenantId;
use chacha20poly1305::aead::AeadInOut as _;
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem as _, OpModeR, OpModeS, Serializable as _};
use rand_core::CryptoRng;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

type Kem = X25519HkdfSha256;

const VERSION: u8 = 1;
/// Bytes of a chunk before it is sealed.
pub const CHUNK_BYTES: usize = 64 * 1024;
const TAG_BYTES: usize = 16;
const PREFIX_BYTES: usize = 19;
/// Bytes before the first chunk.
const HEAD_BYTES: usize = 1 + 8 + PREFIX_BYTES + 32;
/// Bytes that are sealed in whole chunks, at most, so that a batch with its frame can be coded.
pub const PLAIN_BYTES_MAX: usize = {
    let chunks = (LENGTH_MAX as usize - HEAD_BYTES) / (CHUNK_BYTES + TAG_BYTES);
    chunks * CHUNK_BYTES
};
/// Readers of a batch, at most: wrapping for each costs an exchange.
pub const READERS_MAX: usize = 64;
/// Bytes of a keyslot.
pub const KEY_SLOT_BYTES: usize = 1 + 32 + WRAPPED_BYTES;
const WRAPPED_BYTES: usize = 32 + 32 + TAG_BYTES;

const CHUNK_DOMAIN: &[u8] = b"bpi/1 sealed batch";
const KEY_DOMAIN: &[u8] = b"bpi/1 batch key";
const SLOT_DOMAIN: &[u8] = b"bpi/1 keyslot";

/// Why something is not sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealingError {
    /// Nothing, or too much.
    #[error("{bytes} bytes to seal; it can be 1 to {PLAIN_BYTES_MAX}")]
    Length {
        /// How many.
        bytes: u64,
    },
    /// No readers, or too many.
    #[error("{found} readers; a batch has 1 to {READERS_MAX}")]
    Readers {
        /// How many.
        found: usize,
    },
    /// A reader stands there twice.
    #[error("reader {reader} stands there twice")]
    Twice {
        /// Which.
        reader: ReaderId,
    },
    /// No X25519 key, or one of small order (RFC 7748, section 6.1).
    #[error("reader {reader} is no key that anything can be sealed to")]
    Reader {
        /// Which.
        reader: ReaderId,
    },
    /// No sealed batch.
    #[error("this is no sealed batch: {0}")]
    Malformed(#[from] BytesError),
    /// It has been cut, or something was added.
    #[error("{found} sealed bytes where {wanted} belong: they have been cut, or something was added")]
    Cut {
        /// There are.
        found: u64,
        /// There have to be.
        wanted: u64,
    },
    /// The keyslot is another reader's.
    #[error("the keyslot is for reader {slot}, and the key is that of {reader}")]
    Slot {
        /// Whose it is.
        slot: ReaderId,
        /// Who has come.
        reader: ReaderId,
    },
    /// The keyslot does not open: it is bent, or of another batch or tenant.
    #[error("the keyslot for reader {reader} does not open: it is bent, or of another batch or tenant")]
    Unwrap {
        /// Whose it is.
        reader: ReaderId,
    },
    /// The key is not the one that the batch is sealed with.
    #[error("the batch is sealed with another key than the keyslot holds")]
    Commitment,
    /// A chunk does not open.
    #[error("chunk {chunk} of {chunks} does not open: it is bent, moved, or of another batch or tenant")]
    Chunk {
        /// Which, from 0.
        chunk: u32,
        /// How many there are.
        chunks: u32,
    },
}

/// A reader: an X25519 key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReaderId(pub [u8; 32]);

impl fmt::Display for ReaderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ReaderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReaderId({})", hex::encode(&self.0[..6]))
    }
}

impl std::str::FromStr for ReaderId {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut id = [0; 32];
        hex::decode_to_slice(text, &mut id)?;
        Ok(Self(id))
    }
}

/// A reader's private half. It is wiped when it goes out of use.
pub struct ReaderKey {
    secret: Zeroizing<[u8; 32]>,
    id: ReaderId,
}

impl fmt::Debug for ReaderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReaderKey({:?})", self.id)
    }
}

/// What stands before the 32 bytes of an X25519 key in PKCS#8 (RFC 8410, section 7).
const PKCS_8: [u8; 16] = [0x30, 0x2e, 0x02, 0x01, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x6e, 4, 0x22, 4, 0x20];
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----\n";
const PEM_END: &str = "\n-----END PRIVATE KEY-----\n";

impl ReaderKey {
    /// A new key.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(secret.as_mut());
        Self::from_secret(secret)
    }

    fn from_secret(secret: Zeroizing<[u8; 32]>) -> Self {
        let id = ReaderId(match <Kem as hpke::Kem>::PrivateKey::from_bytes(secret.as_ref()) {
            Ok(key) => Kem::sk_to_pk(&key).to_bytes().into(),
            // 32 bytes are always a key; a public half of zeros is one that nothing can be sealed to.
            Err(_) => [0; 32],
        });
        Self { secret, id }
    }

    /// Writes the key to a new file at `path`: PKCS#8 PEM, mode 0600, durable when this returns.
    ///
    /// # Errors
    /// [`KeyFileError::Exists`] when something has that name; then nothing is changed.
    pub fn save(&self, path: &Path) -> Result<(), KeyFileError> {
        write_private(path, self.to_pem().as_bytes())
    }

    /// Reads the key at `path`: a regular file of mode 0600 that this process's user owns.
    ///
    /// # Errors
    /// [`KeyFileError`] for any doubt about who could have read it, or about what it holds.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let reason = "it is not an X25519 private key in PKCS#8 PEM";
        Self::from_pem(&read_private(path)?).ok_or(KeyFileError::Malformed { path: path.to_path_buf(), reason })
    }

    /// PKCS#8 PEM.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let mut der = Zeroizing::new([0; 48]);
        der[..16].copy_from_slice(&PKCS_8);
        der[16..].copy_from_slice(self.secret.as_ref());
        let mut base64 = Zeroizing::new([0; 64]);
        // 48 bytes are 64 in base64.
        let written = BASE64.encode_slice(der.as_ref(), base64.as_mut()).unwrap_or(0);
        let mut pem = Zeroizing::new(String::with_capacity(PEM_BEGIN.len() + 64 + PEM_END.len()));
        pem.push_str(PEM_BEGIN);
        pem.push_str(std::str::from_utf8(&base64[..written]).unwrap_or_default());
        pem.push_str(PEM_END);
        pem
    }

    /// Of PKCS#8 PEM, as openssl writes it.
    pub fn from_pem(pem: &str) -> Option<Self> {
        let inner = pem.strip_prefix(PEM_BEGIN)?.strip_suffix(PEM_END)?;
        let mut der = Zeroizing::new([0; 48]);
        if inner.len() != 64 || BASE64.decode_slice(inner, der.as_mut()) != Ok(48) || der[..16] != PKCS_8 {
            return None;
        }
        let mut secret = Zeroizing::new([0; 32]);
        secret.copy_from_slice(&der[16..]);
        Some(Self::from_secret(secret))
    }

    /// The public half.
    pub fn id(&self) -> ReaderId {
        self.id
    }
}

/// The key of a batch, wrapped for one reader.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeySlot {
    /// For whom.
    pub reader: ReaderId,
    /// Encapsulated key and the batch's, sealed.
    pub wrapped: [u8; WRAPPED_BYTES],
}

impl fmt::Debug for KeySlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySlot({:?})", self.reader)
    }
}

impl KeySlot {
    /// Canonical bytes.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(VERSION).bytes(&self.reader.0).bytes(&self.wrapped);
        out.done()
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// When they are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BytesError> {
        let mut reader = Reader::new(bytes);
        version(&mut reader, "version of a keyslot")?;
        let slot = Self { reader: ReaderId(reader.array()?), wrapped: reader.array()? };
        reader.end()?;
        Ok(slot)
    }
}

fn version(reader: &mut Reader<'_>, field: &'static str) -> Result<(), BytesError> {
    match reader.u8()? {
        VERSION => Ok(()),
        other => Err(BytesError::Value { field, value: other.into() }),
    }
}

/// What stands before the first chunk.
struct Head<'a> {
    bytes: &'a [u8],
    length: u64,
    prefix: [u8; PREFIX_BYTES],
    commitment: [u8; 32],
}

impl<'a> Head<'a> {
    /// Head and chunks of sealed bytes that have the length which the head says.
    fn read(sealed: &'a [u8]) -> Result<(Self, &'a [u8]), SealingError> {
        let mut reader = Reader::new(sealed);
        let bytes = reader.clone().take(HEAD_BYTES)?;
        version(&mut reader, "version of a sealed batch")?;
        let (length, prefix, commitment) = (reader.u64()?, reader.array()?, reader.array()?);
        if length == 0 || length > PLAIN_BYTES_MAX as u64 {
            return Err(SealingError::Length { bytes: length });
        }
        let (found, wanted) = (sealed.len() as u64, sealed_bytes(length as usize) as u64);
        if found != wanted {
            return Err(SealingError::Cut { found, wanted });
        }
        Ok((Self { bytes, length, prefix, commitment }, reader.rest()))
    }

    fn chunks(&self) -> u32 {
        self.length.div_ceil(CHUNK_BYTES as u64) as u32
    }

    fn associated(&self, tenant: TenantId) -> Vec<u8> {
        [CHUNK_DOMAIN, &tenant.0, self.bytes].concat()
    }

    fn nonce(&self, chunk: u32) -> [u8; 24] {
        let mut nonce = [0; 24];
        nonce[..PREFIX_BYTES].copy_from_slice(&self.prefix);
        nonce[PREFIX_BYTES..23].copy_from_slice(&chunk.to_be_bytes());
        nonce[23] = u8::from(chunk + 1 == self.chunks());
        nonce
    }
}

/// Bytes of what so many are when they are sealed.
pub fn sealed_bytes(plain: usize) -> usize {
    HEAD_BYTES + plain + plain.div_ceil(CHUNK_BYTES) * TAG_BYTES
}

fn commitment(tenant: TenantId, key: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(KEY_DOMAIN).chain_update(tenant.0).chain_update(key).finalize().into()
}

fn slot_info(tenant: TenantId, reader: ReaderId) -> Vec<u8> {
    [SLOT_DOMAIN, &tenant.0, &reader.0].concat()
}

/// Seals an archive of a tenant under a fresh key, and wraps that key for each reader.
///
/// # Errors
/// [`SealingError`] when it is empty or too long, or a reader is no key or stands there twice.
pub fn seal(
    plain: &[u8],
    tenant: TenantId,
    readers: &[ReaderId],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<(Vec<u8>, Vec<KeySlot>), SealingError> {
    if plain.is_empty() || plain.len() > PLAIN_BYTES_MAX {
        return Err(SealingError::Length { bytes: plain.len() as u64 });
    }
    if readers.is_empty() || readers.len() > READERS_MAX {
        return Err(SealingError::Readers { found: readers.len() });
    }
    if let Some((_, reader)) = readers.iter().enumerate().find(|(at, reader)| readers[..*at].contains(reader)) {
        return Err(SealingError::Twice { reader: *reader });
    }
    let mut key = Zeroizing::new([0; 32]);
    rng.fill_bytes(key.as_mut());
    let mut prefix = [0; PREFIX_BYTES];
    rng.fill_bytes(&mut prefix);
    let commitment = commitment(tenant, &key);
    let slots = readers.iter().map(|reader| wrap(&key, &commitment, tenant, *reader, rng)).collect::<Result<_, _>>()?;

    let mut sealed = Vec::with_capacity(sealed_bytes(plain.len()));
    sealed.push(VERSION);
    sealed.extend_from_slice(&(plain.len() as u64).to_be_bytes());
    sealed.extend_from_slice(&prefix);
    sealed.extend_from_slice(&commitment);
    let bytes = sealed.clone();
    let head = Head { bytes: &bytes, length: plain.len() as u64, prefix, commitment };
    let (cipher, associated, chunks) = (XChaCha20Poly1305::new((&*key).into()), head.associated(tenant), head.chunks());
    for (chunk, part) in (0..chunks).zip(plain.chunks(CHUNK_BYTES)) {
        let begin = sealed.len();
        sealed.extend_from_slice(part);
        let nonce = head.nonce(chunk).into();
        let sealing = cipher.encrypt_inout_detached(&nonce, &associated, (&mut sealed[begin..]).into());
        // It fails for 256 GiB and more alone.
        let tag = sealing.map_err(|_| SealingError::Chunk { chunk, chunks })?;
        sealed.extend_from_slice(&tag);
    }
    Ok((sealed, slots))
}

/// Opens what was sealed for this tenant, with the keyslot and the key of one reader.
///
/// # Errors
/// [`SealingError`]: nothing that was opened is handed out then.
pub fn open(sealed: &[u8], tenant: TenantId, slot: &KeySlot, reader: &ReaderKey) -> Result<Vec<u8>, SealingError> {
    let (head, mut rest) = Head::read(sealed)?;
    let key = unwrap(&head, tenant, slot, reader)?;
    let (cipher, associated, chunks) = (XChaCha20Poly1305::new((&*key).into()), head.associated(tenant), head.chunks());
    // As long as the sealed bytes, which are here, say.
    let mut plain = Vec::with_capacity(head.length as usize);
    for chunk in 0..chunks {
        let bent = SealingError::Chunk { chunk, chunks };
        let length = (head.length as usize - plain.len()).min(CHUNK_BYTES);
        let (Some((bytes, behind)), begin) = (rest.split_at_checked(length), plain.len()) else { return Err(bent) };
        let Some((tag, behind)) = behind.split_first_chunk::<TAG_BYTES>() else { return Err(bent) };
        plain.extend_from_slice(bytes);
        let (nonce, tag) = (head.nonce(chunk).into(), (*tag).into());
        let opening = cipher.decrypt_inout_detached(&nonce, &associated, (&mut plain[begin..]).into(), &tag);
        opening.map_err(|_| bent)?;
        rest = behind;
    }
    Ok(plain)
}

/// A keyslot of a sealed batch for another reader, made by one who has a keyslot.
///
/// # Errors
/// [`SealingError`], when the keyslot at hand does not open or the reader is no key.
pub fn grant(
    sealed: &[u8],
    tenant: TenantId,
    slot: &KeySlot,
    reader: &ReaderKey,
    to: ReaderId,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<KeySlot, SealingError> {
    let (head, _) = Head::read(sealed)?;
    let key = unwrap(&head, tenant, slot, reader)?;
    wrap(&key, &head.commitment, tenant, to, rng)
}

fn wrap(
    key: &[u8; 32],
    commitment: &[u8; 32],
    tenant: TenantId,
    reader: ReaderId,
    mut rng: &mut (impl CryptoRng + ?Sized),
) -> Result<KeySlot, SealingError> {
    let no_key = |_| SealingError::Reader { reader };
    let to = <Kem as hpke::Kem>::PublicKey::from_bytes(&reader.0).map_err(no_key)?;
    let mut wrapped = [0; WRAPPED_BYTES];
    let (enc, sealed) = wrapped.split_at_mut(32);
    let (bytes, tag) = sealed.split_at_mut(32);
    bytes.copy_from_slice(key);
    let (encapsulated, sealing_tag) =
        hpke::single_shot_seal_inout_detached_with_rng::<ChaCha20Poly1305, HkdfSha256, Kem>(
            &OpModeS::Base,
            &to,
            &slot_info(tenant, reader),
            bytes.into(),
            commitment,
            &mut rng,
        )
        .map_err(no_key)?;
    enc.copy_from_slice(&encapsulated.to_bytes());
    tag.copy_from_slice(&sealing_tag.to_bytes());
    Ok(KeySlot { reader, wrapped })
}

fn unwrap(
    head: &Head<'_>,
    tenant: TenantId,
    slot: &KeySlot,
    reader: &ReaderKey,
) -> Result<Zeroizing<[u8; 32]>, SealingError> {
    if slot.reader != reader.id {
        return Err(SealingError::Slot { slot: slot.reader, reader: reader.id });
    }
    let bent = |_| SealingError::Unwrap { reader: reader.id };
    let secret = <Kem as hpke::Kem>::PrivateKey::from_bytes(reader.secret.as_ref()).map_err(bent)?;
    let (enc, sealed) = slot.wrapped.split_at(32);
    let (bytes, tag) = sealed.split_at(32);
    let enc = <Kem as hpke::Kem>::EncappedKey::from_bytes(enc).map_err(bent)?;
    let tag = hpke::aead::AeadTag::<ChaCha20Poly1305>::from_bytes(tag).map_err(bent)?;
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(bytes);
    hpke::single_shot_open_inout_detached::<ChaCha20Poly1305, HkdfSha256, Kem>(
        &OpModeR::Base,
        &secret,
        &enc,
        &slot_info(tenant, reader.id),
        key.as_mut_slice().into(),
        &head.commitment,
        &tag,
    )
    .map_err(bent)?;
    match commitment(tenant, &key) == head.commitment {
        true => Ok(key),
        false => Err(SealingError::Commitment),
    }
}

const _: () = assert!(HEAD_BYTES == 60 && PLAIN_BYTES_MAX > 63 << 20);
