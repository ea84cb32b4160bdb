//! A validator's BLS key in a file.
//!
//! ```text
//! version = 1
//! public_key = "<96 bytes in hex>"
//! possession = "<48 bytes in hex>"
//! secret_key = "<32 bytes in hex, the scalar, big-endian>"
//! ```
//!
//! Always true: the file is one that only its owner reaches, its public half and its proof of possession are those of its secret half, and it
//! is never overwritten. The secret is wiped from memory when it goes out of use. Absent on purpose: passphrases (nobody is there to type
//! one), and remote signers.

use std::fmt;
use std::path::Path;

pub use bpi_keyfile::KeyFileError;
use bpi_keyfile::{FILE_BYTES_MAX, read_private, write_private};
use bpi_protocol::consensus::bls::SecretKey;
use bpi_protocol::consensus::scheme::{PublicKey, Signature};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// The only layout there is.
const VERSION: u32 = 1;

/// Names a key: SHA-256 of `bpi.validator-key.v1`, a zero byte and the compressed public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyFingerprint(pub [u8; 32]);

impl KeyFingerprint {
    /// Of a public key.
    pub fn of(key: &PublicKey) -> Self {
        Self(Sha256::new().chain_update("bpi.validator-key.v1").chain_update([0]).chain_update(key.0).finalize().into())
    }
}

impl fmt::Display for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFingerprint({})", &hex::encode(&self.0[..4]))
    }
}

/// A validator's key as it was read from its file.
pub struct KeyFile {
    secret: SecretKey,
    public: PublicKey,
    possession: Signature,
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFile").field("public", &self.public).finish_non_exhaustive()
    }
}

/// The file's fields, borrowed from its text: a copy of the secret would not be wiped.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    version: u32,
    #[serde(borrow)]
    public_key: &'a str,
    #[serde(borrow)]
    possession: &'a str,
    #[serde(borrow)]
    secret_key: &'a str,
}

impl KeyFile {
    /// Makes a new key at `path` (mode 0600, durable when this returns).
    ///
    /// # Errors
    /// [`KeyFileError::Exists`] when something has that name; then nothing is changed.
    pub fn create(path: &Path) -> Result<Self, KeyFileError> {
        let mut entropy = Zeroizing::new([0; 32]);
        getrandom::fill(entropy.as_mut()).map_err(|error| KeyFileError::Entropy { reason: error.to_string() })?;
        let secret =
            SecretKey::generate(&entropy).map_err(|error| KeyFileError::Entropy { reason: error.to_string() })?;
        let made = Self::from_secret(secret);
        made.write_new(path)?;
        Ok(made)
    }

    /// Reads the key at `path`: a regular file (not a link to one) of mode 0600 that this process's user owns.
    ///
    /// # Errors
    /// [`KeyFileError`] for any doubt about who could have read it, or about what it holds.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let text = read_private(path)?;
        Self::parse(&text).map_err(|reason| KeyFileError::Malformed { path: path.to_path_buf(), reason })
    }

    /// Reads the text of a key file.
    ///
    /// # Errors
    /// What is wrong with it, without a word of it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let fields: Fields<'_> = toml::from_str(text).map_err(|_| "it is not TOML of exactly the four fields")?;
        if fields.version != VERSION {
            return Err("its version is not 1");
        }
        let mut scalar = Zeroizing::new([0; 32]);
        hex::decode_to_slice(fields.secret_key, scalar.as_mut()).map_err(|_| "secret_key is not 32 bytes in hex")?;
        let secret = SecretKey::from_bytes(&scalar).map_err(|_| "secret_key is no scalar of the group's order")?;
        let key = Self::from_secret(secret);
        if !fields.public_key.eq_ignore_ascii_case(&hex::encode(key.public.0)) {
            return Err("public_key is not that of secret_key");
        }
        if !fields.possession.eq_ignore_ascii_case(&hex::encode(key.possession.0)) {
            return Err("possession is not the proof of secret_key");
        }
        Ok(key)
    }

    fn from_secret(secret: SecretKey) -> Self {
        let (public, possession) = (secret.public_key(), secret.prove_possession());
        Self { secret, public, possession }
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        self.public
    }

    /// The proof that goes into the validator set beside the public half.
    pub fn possession(&self) -> Signature {
        self.possession
    }

    /// Its name, for the watermark.
    pub fn fingerprint(&self) -> KeyFingerprint {
        KeyFingerprint::of(&self.public)
    }

    /// The secret half, to sign with.
    pub fn into_secret(self) -> SecretKey {
        self.secret
    }

    fn text(&self) -> Zeroizing<String> {
        // Reserved up front: growing would leave unwiped copies behind.
        let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX as usize));
        text.push_str("# A validator's key. Who has it can vote in its name; two processes with it are slashed.\n");
        text.push_str(&format!("version = {VERSION}\n"));
        text.push_str(&format!("public_key = \"{}\"\n", hex::encode(self.public.0)));
        text.push_str(&format!("possession = \"{}\"\n", hex::encode(self.possession.0)));
        text.push_str("secret_key = \"");
        for byte in self.secret.to_bytes().iter() {
            text.extend([byte >> 4, byte & 15].map(|nibble| char::from(b"0123456789abcdef"[usize::from(nibble)])));
        }
        text.push_str("\"\n");
        text
    }

    fn write_new(&self, path: &Path) -> Result<(), KeyFileError> {
        write_private(path, self.text().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use bpi_protocol::consensus::bls::Keys;
    use bpi_protocol::consensus::ids::{Epoch, ValidatorIndex};
    use bpi_protocol::consensus::scheme::{Scheme, Signer};
    use bpi_protocol::consensus::validators::{Validator, ValidatorSet};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_created_key_loads_and_a_set_accepts_its_possession_and_its_votes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("validator.key");
        let made = KeyFile::create(&path).unwrap();
        let read = KeyFile::load(&path).unwrap();
        assert_eq!((made.public_key(), made.fingerprint()), (read.public_key(), read.fingerprint()));
        let member = Validator { key: read.public_key(), possession: read.possession(), weight: 1 };
        let keys = Keys::new(&ValidatorSet::new(Epoch(0), vec![member]).unwrap()).unwrap();
        assert!(keys.verify(ValidatorIndex(0), b"vote", &read.into_secret().sign(b"vote")));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("validator.key");
        KeyFile::create(&path).unwrap();
        let before = std::fs::read(&path).unwrap();
        assert!(matches!(KeyFile::create(&path), Err(KeyFileError::Exists { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_key_that_others_may_reach_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("validator.key");
        KeyFile::create(&path).unwrap();
        for exposed in [0o640, 0o604, 0o700, 0o660, 0o4600] {
            mode(&path, exposed);
            assert!(matches!(KeyFile::load(&path), Err(KeyFileError::Exposed { mode, .. }) if mode == exposed));
        }
        mode(&path, 0o600);
        KeyFile::load(&path).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(KeyFile::load(&link), Err(KeyFileError::NotAFile { .. })));
        assert!(matches!(KeyFile::load(folder.path()), Err(KeyFileError::NotAFile { .. })));
        assert!(matches!(KeyFile::load(&folder.path().join("none")), Err(KeyFileError::Missing { .. })));
    }

    #[test]
    fn a_key_file_cut_or_changed_anywhere_that_counts_is_refused_or_is_the_same_key() {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyFile::create(&folder.path().join("validator.key")).unwrap();
        let text = key.text();
        for cut in 0..text.len() - 1 {
            if let Ok(read) = KeyFile::parse(&text[..cut]) {
                assert_eq!(read.public_key(), key.public_key());
            }
        }
        let comment = text.find('\n').unwrap();
        for at in comment + 1..text.len() {
            // One bit of each byte: each parse computes two points.
            let mut bent = text.as_bytes().to_vec();
            bent[at] ^= 1 << (at % 7);
            if let Ok(read) = KeyFile::parse(std::str::from_utf8(&bent).unwrap()) {
                assert_eq!(read.public_key(), key.public_key(), "byte {at}");
            }
        }
        let unknown = format!("{}extra = 1\n", text.as_str());
        assert!(KeyFile::parse(&unknown).is_err());
    }

    #[test]
    fn no_error_and_no_debug_text_tells_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("validator.key");
        let key = KeyFile::create(&path).unwrap();
        let secret = hex::encode(key.secret.to_bytes().as_ref());
        assert!(!format!("{key:?}").contains(&secret[..16]));
        let text = key.text().replace("version = 1", "version = 2");
        std::fs::write(&path, text).unwrap();
        let error = KeyFile::load(&path).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&secret[..16]));
    }
}
