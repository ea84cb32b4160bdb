//! What a member must remember of a ceremony in progress, in a private folder: what it deals with, and what it was dealt.
//!
//! ```text
//! <folder>/entropy              32 bytes in hex: the same polynomial is dealt after a crash
//! <folder>/<dealer's key>       share and commitment in hex: kept before it is acknowledged
//! ```
//!
//! Always true: a file is whole or absent, only its owner reaches it, and all are overwritten and removed when the ceremony is over. Who
//! reads the entropy knows what this member dealt; it is random, and not made from the member's key, so that a key that is stolen later
//! tells nothing.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use bpi_protocol::consensus::scheme::PublicKey;
use zeroize::Zeroizing;

use super::message::{COMMITMENT_BYTES_MAX, Dealing};
use super::share_file::{erase, failed, push_hex, write_whole};
use bpi_keyfile::{KeyFileError, read_private_up_to};

/// Most bytes of a file: a dealing in hex and the end of the line.
const FILE_BYTES_MAX: u64 = 2 * (32 + COMMITMENT_BYTES_MAX as u64) + 1;

/// The folder of one ceremony.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
}

impl Journal {
    /// Opens the folder of a ceremony, or makes it (mode 0700).
    ///
    /// # Errors
    /// [`KeyFileError::Exposed`] when others reach it.
    pub fn open(folder: &Path) -> Result<Self, KeyFileError> {
        match DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => {}
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(failed("make the folder", folder)(source)),
        }
        let mode = fs::symlink_metadata(folder).map_err(failed("stat", folder))?.mode() & 0o7777;
        if mode != 0o700 {
            return Err(KeyFileError::Exposed { path: folder.to_path_buf(), mode });
        }
        Ok(Self { folder: folder.to_path_buf() })
    }

    /// The 32 bytes that this member deals with: drawn from the kernel and kept, the first time.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn entropy(&self) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
        let path = self.folder.join("entropy");
        let mut entropy = Zeroizing::new([0; 32]);
        match read_private_up_to(&path, FILE_BYTES_MAX) {
            Ok(text) => hex::decode_to_slice(text.trim_end(), entropy.as_mut())
                .map_err(|_| KeyFileError::Malformed { path, reason: "it is not 32 bytes in hex" })?,
            Err(KeyFileError::Missing { .. }) => {
                getrandom::fill(entropy.as_mut())
                    .map_err(|error| KeyFileError::Entropy { reason: error.to_string() })?;
                self.write(&path, &[entropy.as_ref()])?;
            }
            Err(error) => return Err(error),
        }
        Ok(entropy)
    }

    /// Keeps a dealing, durably: it may be acknowledged now ([`super::ceremony::Act::Keep`]).
    ///
    /// # Errors
    /// [`KeyFileError`]: then it may not.
    pub fn keep(&self, dealer: &PublicKey, dealing: &Dealing) -> Result<(), KeyFileError> {
        self.write(&self.folder.join(hex::encode(dealer.0)), &[dealing.share.as_ref(), &dealing.commitment])
    }

    /// What was kept, for [`super::ceremony::Ceremony::join`].
    ///
    /// # Errors
    /// [`KeyFileError`] for a file that is none of these, or that others could have reached.
    pub fn kept(&self) -> Result<Vec<(PublicKey, Dealing)>, KeyFileError> {
        let mut kept = Vec::new();
        for path in self.files()? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name == "entropy" || name.ends_with(".unfinished") {
                continue;
            }
            let malformed = |reason| KeyFileError::Malformed { path: path.clone(), reason };
            let mut dealer = PublicKey([0; 96]);
            hex::decode_to_slice(name, &mut dealer.0).map_err(|_| malformed("its name is no key in hex"))?;
            let text = read_private_up_to(&path, FILE_BYTES_MAX)?;
            let bytes = hex::decode(text.trim_end()).map(Zeroizing::new).map_err(|_| malformed("it is not in hex"))?;
            let (share, commitment) = bytes.split_at_checked(32).ok_or_else(|| malformed("it is too short"))?;
            let mut dealing = Dealing { share: Zeroizing::new([0; 32]), commitment: commitment.to_vec() };
            dealing.share.copy_from_slice(share);
            kept.push((dealer, dealing));
        }
        Ok(kept)
    }

    /// The ceremony is over: overwrites and removes all.
    ///
    /// # Errors
    /// [`KeyFileError::Io`].
    pub fn destroy(self) -> Result<(), KeyFileError> {
        for path in self.files()? {
            erase(&path)?;
        }
        fs::remove_dir(&self.folder).map_err(failed("remove", &self.folder))
    }

    fn files(&self) -> Result<Vec<PathBuf>, KeyFileError> {
        let entries = fs::read_dir(&self.folder).map_err(failed("list", &self.folder))?;
        entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed("list", &self.folder))).collect()
    }

    fn write(&self, path: &Path, parts: &[&[u8]]) -> Result<(), KeyFileError> {
        // Reserved up front: growing would leave unwiped copies behind.
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let mut text = Zeroizing::new(String::with_capacity(2 * bytes + 1));
        parts.iter().for_each(|part| push_hex(&mut text, part));
        text.push('\n');
        write_whole(path, text.as_bytes())
    }
}
