//! The key by which its peers know a member of the mesh: Ed25519, in PKCS#8 PEM. It opens connections and signs checkpoints, and never votes.

use std::fmt;
use std::path::Path;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use zeroize::Zeroizing;

use crate::{KeyFileError, read_private, write_private};

/// The private half. It is wiped when it goes out of use.
pub struct PeerKey(SigningKey);

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerKey({})", hex::encode(&self.public()[..6]))
    }
}

impl PeerKey {
    /// Makes a new key at `path` (mode 0600, durable when this returns).
    ///
    /// # Errors
    /// [`KeyFileError::Exists`] when something has that name; then nothing is changed.
    pub fn create(path: &Path) -> Result<Self, KeyFileError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(|error| KeyFileError::Entropy { reason: error.to_string() })?;
        let made = Self(SigningKey::from_bytes(&seed));
        let malformed = |_| KeyFileError::Malformed { path: path.to_path_buf(), reason: "it has no PEM form" };
        let text = made.0.to_pkcs8_pem(LineEnding::LF).map_err(malformed)?;
        write_private(path, text.as_bytes())?;
        Ok(made)
    }

    /// Reads the key at `path`: a regular file of mode 0600 that this process's user owns.
    ///
    /// # Errors
    /// [`KeyFileError`] for any doubt about who could have read it, or about what it holds.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let text = read_private(path)?;
        let reason = "it is not an Ed25519 private key in PKCS#8 PEM";
        SigningKey::from_pkcs8_pem(&text)
            .map(Self)
            .map_err(|_| KeyFileError::Malformed { path: path.to_path_buf(), reason })
    }

    /// The public half.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// A signature over `message` (RFC 8032).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        ed25519_dalek::Signer::sign(&self.0, message).to_bytes()
    }
}

#[cfg(feature = "frame")]
impl bpi_protocol::frame::key::Signer for PeerKey {
    fn identity(&self) -> [u8; 32] {
        self.public()
    }

    fn sign(&self, message: &[u8]) -> [u8; bpi_protocol::frame::key::SIGNATURE_BYTES] {
        Self::sign(self, message)
    }
}
