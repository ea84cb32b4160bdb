//! What the probe's messages look like, and what it is told in TOML.
//!
//! ```text
//! number 8 | time it was sent, in µs of the monotonic clock 8 | the 32 bytes of a pattern, again and again
//! ```
//!
//! The clock is one for all namespaces of a machine, so that both ends' times can be compared. The pattern is what nobody may find on a wire.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bpi_protocol::frame::key::{SIGNATURE_BYTES, Signer};
use bpi_transport::config::{IdentityConfig, RelayConfig};
use ed25519_dalek::SigningKey;
use ed25519_dalek::ed25519::signature::Signer as _;
use serde::Deserialize;
use zeroize::Zeroizing;

/// Bytes before the pattern.
pub const HEAD_BYTES: usize = 16;
/// What fills messages.
pub const PATTERN: [u8; 32] = *b"<in the clear: nobody reads me!>";

/// Who a probe is, and over which relays it goes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Which network.
    pub network: u64,
    /// 64 hexadecimal digits: the seed of an Ed25519 key.
    pub key_file: PathBuf,
    /// Relays of each frame.
    pub relays_per_frame: usize,
    /// Its SVID.
    pub identity: IdentityConfig,
    /// Relays.
    pub relay: Vec<RelayConfig>,
}

impl Config {
    /// Reads a file. Relative paths in it count from its folder.
    ///
    /// # Errors
    /// In words: which file, and what is wrong.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut config: Self = toml::from_str(&text).with_context(|| format!("{} is refused", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        config.key_file = folder.join(&config.key_file);
        config.identity.resolve(folder);
        Ok(config)
    }

    /// The key.
    ///
    /// # Errors
    /// In words.
    pub fn key(&self) -> anyhow::Result<Key> {
        let failed = || format!("{} is no seed of a key", self.key_file.display());
        let text = Zeroizing::new(std::fs::read_to_string(&self.key_file).with_context(failed)?);
        let mut seed = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.trim(), seed.as_mut()).with_context(failed)?;
        Ok(Key(SigningKey::from_bytes(&seed)))
    }
}

/// Signs as the probe.
pub struct Key(SigningKey);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", hex::encode(&self.identity()[..6]))
    }
}

impl Signer for Key {
    fn identity(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(message).to_bytes()
    }
}

/// A message. Shorter ones than its head are made as long as that.
pub fn message(number: u64, sent_us: u64, bytes: usize) -> Vec<u8> {
    let filled = PATTERN.iter().copied().cycle().take(bytes.saturating_sub(HEAD_BYTES));
    number.to_be_bytes().into_iter().chain(sent_us.to_be_bytes()).chain(filled).collect()
}

/// Number and time of a message, if it is one that nobody has changed.
pub fn read(bytes: &[u8]) -> Option<(u64, u64)> {
    let (number, rest) = bytes.split_first_chunk()?;
    let (sent_us, filled) = rest.split_first_chunk()?;
    let whole = filled.iter().zip(PATTERN.iter().cycle()).all(|(byte, wanted)| byte == wanted);
    whole.then(|| (u64::from_be_bytes(*number), u64::from_be_bytes(*sent_us)))
}

/// Now, in µs of the clock that all namespaces share.
pub fn now_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_made_and_one_that_was_changed_is_none() {
        for bytes in [0, 16, 17, 48, 40_000] {
            let made = message(7, 9, bytes);
            assert_eq!(made.len(), bytes.max(HEAD_BYTES));
            assert_eq!(read(&made), Some((7, 9)));
        }
        let mut changed = message(7, 9, 300);
        changed[100] ^= 1;
        assert_eq!(read(&changed), None);
        assert_eq!(read(&changed[..10]), None);
    }
}
