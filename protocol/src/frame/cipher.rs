//! Sealing and opening with one key: XChaCha20-Poly1305, whose nonce is a prefix of 16 bytes that stays and a counter of 8.
//!
//! XChaCha20-Poly1305 is HChaCha20 of key and prefix, and then IETF ChaCha20-Poly1305 with the counter (draft-irtf-cfrg-xchacha, section 2.3). Since
//! the prefix stays, HChaCha20 is done once for a key. A nonce is never used twice: the counter is a frame's `seq`, which only rises, and no key outlives the process.

use std::fmt;

use chacha20::hchacha;
use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::header::{COMMIT_BYTES, TAG_BYTES};

/// Bytes of a key, a prefix and a commitment.
pub const MATERIAL_BYTES: usize = 32 + 16 + COMMIT_BYTES;

/// Frames that one key seals, at most (bpci.md).
pub const FRAMES_MAX: u64 = 1 << 24;
/// Bytes that one key seals, at most: 64 GiB.
pub const BYTES_MAX: u64 = 64 << 30;
/// How long a key is used, in µs: an hour.
pub const AGE_US_MAX: u64 = 3_600_000_000;

/// The bytes do not open under this key, header and counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the frame does not open")]
pub struct Unopened;

/// One key of a session, of one direction.
pub struct Phase {
    aead: backend::Key,
    commit: [u8; COMMIT_BYTES],
}

impl fmt::Debug for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Phase")
    }
}

impl Phase {
    /// From a key, a prefix and a commitment.
    pub fn new(material: &[u8; MATERIAL_BYTES]) -> Self {
        let (key, rest) = material.split_at(32);
        let (prefix, commit) = rest.split_at(16);
        let mut whole = Zeroizing::new([0; 32]);
        whole.copy_from_slice(key);
        let mut nonce = [0; 16];
        nonce.copy_from_slice(prefix);
        let mut committed = [0; COMMIT_BYTES];
        committed.copy_from_slice(commit);
        let mut copy = chacha20::Key::from(*whole);
        let subkey: Zeroizing<[u8; 32]> = Zeroizing::new(hchacha::<chacha20::R20>(&copy, &nonce.into()).into());
        copy.as_mut_slice().zeroize();
        Self { aead: backend::Key::new(&subkey), commit: committed }
    }

    /// What shows that this is the key that was meant: ChaCha20-Poly1305 alone would let one frame open under two keys.
    pub fn commit(&self) -> [u8; COMMIT_BYTES] {
        self.commit
    }

    /// Whether a commitment is to this key, in constant time.
    pub fn is_committed_by(&self, commit: &[u8]) -> bool {
        self.commit.ct_eq(commit).into()
    }

    /// Seals what follows the first `associated` bytes of a frame, in place, and appends the tag.
    pub fn seal(&self, seq: u64, frame: &mut Vec<u8>, associated: usize) {
        let at = associated.min(frame.len());
        let (head, body) = frame.split_at_mut(at);
        let tag = self.aead.seal(seq, head, body);
        frame.extend_from_slice(&tag);
    }

    /// Opens what follows the first `associated` bytes of a frame, in place: the plaintext.
    ///
    /// # Errors
    /// [`Unopened`]; what is in `frame` then is nothing.
    pub fn open<'a>(&self, seq: u64, frame: &'a mut [u8], associated: usize) -> Result<&'a mut [u8], Unopened> {
        let (head, body) = frame.split_at_mut_checked(associated).ok_or(Unopened)?;
        self.aead.open(seq, head, body)
    }
}

/// Keys one after the other, each from the one before; what was forgotten cannot be computed again.
pub struct Chain(Zeroizing<[u8; 32]>);

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chain")
    }
}

impl Chain {
    /// From a secret.
    pub(super) fn new(secret: Zeroizing<[u8; 32]>) -> Self {
        Self(secret)
    }

    /// The next key, and what comes after it.
    pub fn next(&self) -> (Phase, Self) {
        let material = expand::<MATERIAL_BYTES>(&self.0, &[b"bpci/1 phase"]);
        (Phase::new(&material), Self(expand(&self.0, &[b"bpci/1 next"])))
    }
}

/// HKDF-Expand (RFC 5869, section 2.3) with SHA-256.
pub(super) fn expand<const N: usize>(secret: &[u8; 32], info: &[&[u8]]) -> Zeroizing<[u8; N]> {
    let mut out = Zeroizing::new([0; N]);
    let hkdf = Hkdf::<Sha256>::from_prk(secret).expect("32 bytes are a pseudorandom key of SHA-256");
    hkdf.expand_multi_info(info, out.as_mut()).expect("less than 255 blocks are asked for");
    out
}

/// HKDF-Extract (RFC 5869, section 2.2) with SHA-256.
pub(super) fn extract(salt: &[u8; 32], secret: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    let (extracted, _) = Hkdf::<Sha256>::extract(Some(salt), secret);
    Zeroizing::new(extracted.into())
}

/// IETF nonce of a counter: four zero bytes and the last eight of XChaCha20's 24.
fn nonce(seq: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&seq.to_be_bytes());
    nonce
}

#[cfg(not(target_arch = "wasm32"))]
mod backend {
    //! ring, which has the fastest ChaCha20-Poly1305 that this project may use. It does not wipe its copy of the key.

    use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

    use super::{TAG_BYTES, Unopened, nonce};

    pub struct Key(LessSafeKey);

    impl Key {
        pub fn new(key: &[u8; 32]) -> Self {
            Self(LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("a key of 32 bytes")))
        }

        pub fn seal(&self, seq: u64, associated: &[u8], body: &mut [u8]) -> [u8; TAG_BYTES] {
            let nonce = Nonce::assume_unique_for_key(nonce(seq));
            let sealed = self.0.seal_in_place_separate_tag(nonce, Aad::from(associated), body);
            let mut tag = [0; TAG_BYTES];
            tag.copy_from_slice(sealed.expect("a frame is shorter than 256 GiB").as_ref());
            tag
        }

        pub fn open<'a>(&self, seq: u64, associated: &[u8], body: &'a mut [u8]) -> Result<&'a mut [u8], Unopened> {
            let nonce = Nonce::assume_unique_for_key(nonce(seq));
            self.0.open_in_place(nonce, Aad::from(associated), body).map_err(|_| Unopened)
        }
    }
}

#[cfg(target_arch = "wasm32")]
mod backend {
    //! The one in Rust alone.

    use chacha20poly1305::aead::AeadInOut as _;
    use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _};

    use super::{TAG_BYTES, Unopened, nonce};

    pub struct Key(ChaCha20Poly1305);

    impl Key {
        pub fn new(key: &[u8; 32]) -> Self {
            Self(ChaCha20Poly1305::new(&(*key).into()))
        }

        pub fn seal(&self, seq: u64, associated: &[u8], body: &mut [u8]) -> [u8; TAG_BYTES] {
            let sealed = self.0.encrypt_inout_detached(&nonce(seq).into(), associated, body.into());
            sealed.expect("a frame is shorter than 256 GiB").into()
        }

        pub fn open<'a>(&self, seq: u64, associated: &[u8], body: &'a mut [u8]) -> Result<&'a mut [u8], Unopened> {
            let split = body.len().checked_sub(TAG_BYTES).ok_or(Unopened)?;
            let (text, tag) = body.split_at_mut(split);
            let tag = <[u8; TAG_BYTES]>::try_from(&*tag).map_err(|_| Unopened)?;
            self.0
                .decrypt_inout_detached(&nonce(seq).into(), associated, (&mut *text).into(), &tag.into())
                .map_err(|_| Unopened)?;
            Ok(text)
        }
    }
}
