//! A secret share in a file of its own, written before it is used.
//!
//! ```text
//! version = 1
//! epoch = 7
//! set = "<32 bytes in hex, the set's digest>"
//! index = 3
//! share = "<32 bytes in hex, the scalar, big-endian>"
//! ```
//!
//! Always true: only its owner reaches the file, it is whole or absent after a crash, it is never overwritten, and what is read fits the
//! public half that the sharing has for this validator. A share that is lost cannot be had again before the next ceremony; one that is not
//! erased when its epoch is over can sign for the group's key as long as a quorum of its kind is left.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bpi_protocol::consensus::bls::SecretKey;
use bpi_protocol::consensus::ids::{Epoch, ValidatorIndex};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::share::Share;
use super::sharing::Sharing;
use crate::durable::folder_of;
use bpi_keyfile::{KeyFileError, read_private, write_private};

/// The only layout there is.
const VERSION: u32 = 1;
/// Room for the text: one takes 310 bytes.
const TEXT_BYTES: usize = 512;

/// The file's fields, borrowed from its text: a copy of the secret would not be wiped.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    version: u32,
    epoch: u64,
    #[serde(borrow)]
    set: &'a str,
    index: u16,
    #[serde(borrow)]
    share: &'a str,
}

/// Where the share of an epoch is in a folder.
pub fn share_path(folder: &Path, epoch: Epoch) -> PathBuf {
    folder.join(format!("share-{epoch}.toml"))
}

/// Keeps a share (mode 0600, durable when this returns). Keeping the same one again changes nothing.
///
/// # Errors
/// [`KeyFileError::Exists`] when another file has that name.
pub fn keep(path: &Path, share: &Share) -> Result<(), KeyFileError> {
    let text = text(share);
    match read_private(path) {
        Ok(kept) if kept == text => return Ok(()),
        Ok(_) => return Err(KeyFileError::Exists { path: path.to_path_buf() }),
        Err(KeyFileError::Missing { .. }) => {}
        Err(error) => return Err(error),
    }
    write_whole(path, text.as_bytes())
}

/// Writes a private file that is whole or absent: under another name first, which a crash may leave behind.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), KeyFileError> {
    let unfinished = path.with_extension("unfinished");
    remove(&unfinished)?;
    write_private(&unfinished, bytes)?;
    fs::rename(&unfinished, path).map_err(failed("rename", &unfinished))?;
    sync_folder(path)
}

/// Reads the share of a validator. `None`: there is none, and it votes without one until the next ceremony.
///
/// # Errors
/// [`KeyFileError`] for any doubt about who could have read it, or when it is not the validator's in this sharing.
pub fn load(path: &Path, sharing: &Sharing, index: ValidatorIndex) -> Result<Option<Share>, KeyFileError> {
    let text = match read_private(path) {
        Err(KeyFileError::Missing { .. }) => return Ok(None),
        read => read?,
    };
    let share = parse(&text, sharing, index);
    share.map(Some).map_err(|reason| KeyFileError::Malformed { path: path.to_path_buf(), reason })
}

/// Overwrites a share that is out of use, and removes it. A file that is not there is no error. On a disk that does not write in place the
/// bytes may live on until it reuses them.
///
/// # Errors
/// [`KeyFileError::Io`].
pub fn erase(path: &Path) -> Result<(), KeyFileError> {
    for path in [path, &path.with_extension("unfinished")] {
        let length = match fs::symlink_metadata(path) {
            Ok(facts) => facts.len(),
            Err(source) if source.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(failed("stat", path)(source)),
        };
        let mut file =
            OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(path).map_err(failed("open", path))?;
        let zeros = vec![0; usize::try_from(length).unwrap_or(TEXT_BYTES)];
        file.write_all(&zeros).and_then(|()| file.sync_all()).map_err(failed("overwrite", path))?;
        remove(path)?;
    }
    sync_folder(path)
}

fn parse(text: &str, sharing: &Sharing, index: ValidatorIndex) -> Result<Share, &'static str> {
    let fields: Fields<'_> = toml::from_str(text).map_err(|_| "it is not TOML of exactly the five fields")?;
    if fields.version != VERSION {
        return Err("its version is not 1");
    }
    if fields.epoch != sharing.epoch().0 || fields.set != hex::encode(sharing.set().0) {
        return Err("it is the share of another epoch or set");
    }
    if fields.index != index.0 {
        return Err("it is the share of another validator");
    }
    let mut scalar = Zeroizing::new([0; 32]);
    hex::decode_to_slice(fields.share, scalar.as_mut()).map_err(|_| "share is not 32 bytes in hex")?;
    let secret = SecretKey::from_bytes(&scalar).map_err(|_| "share is no scalar of the group's order")?;
    Share::new(sharing, index, secret).ok_or("share does not fit its public half")
}

fn text(share: &Share) -> Zeroizing<String> {
    // Reserved up front: growing would leave unwiped copies behind.
    let mut text = Zeroizing::new(String::with_capacity(TEXT_BYTES));
    text.push_str("# A validator's share of the group's key. A quorum of such can sign for all.\n");
    text.push_str(&format!("version = {VERSION}\nepoch = {}\n", share.epoch()));
    text.push_str(&format!("set = \"{}\"\nindex = {}\nshare = \"", hex::encode(share.set().0), share.index()));
    push_hex(&mut text, share.secret().to_bytes().as_ref());
    text.push_str("\"\n");
    text
}

/// Appends bytes in hex without a copy that would not be wiped.
pub(super) fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        text.extend([byte >> 4, byte & 15].map(|nibble| char::from(b"0123456789abcdef"[usize::from(nibble)])));
    }
}

fn remove(path: &Path) -> Result<(), KeyFileError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(source)),
        _ => Ok(()),
    }
}

fn sync_folder(path: &Path) -> Result<(), KeyFileError> {
    File::open(folder_of(path)).and_then(|folder| folder.sync_all()).map_err(failed("sync the folder of", path))
}

pub(crate) fn failed(deed: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyFileError {
    move |source| KeyFileError::Io { deed, path: path.to_path_buf(), source }
}
