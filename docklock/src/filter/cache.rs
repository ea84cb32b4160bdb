//! Compiled filters on disk, by the digest of what they enforce.
//!
//! Compiling costs 1.4 ms and a start has 8, so each policy is compiled once. A file appears complete or not at all, and in
//! a directory only its owner can write: whoever could place a filter there could open the cage.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bpi_policies::Policy;
use libseccomp::ScmpVersion;

use super::{FilterError, INSTRUCTION_BYTES, INSTRUCTIONS_MAX, compile, failed};

/// Raised whenever [`compile`] makes another program of the same policy.
const FORMAT: u32 = 1;

/// The file that holds the filter of `policy`, compiled now if it was not before.
///
/// # Errors
/// When the directory is not private to this user or cannot be written, or the filter cannot be compiled.
pub fn cached(policy: &Policy, cache_dir: &Path) -> Result<PathBuf, FilterError> {
    make_private(cache_dir)?;
    let version = ScmpVersion::current().map_err(failed("say its version"))?;
    let file = cache_dir.join(format!("{}-{FORMAT}-libseccomp-{version}.bpf", policy.digest()));
    if is_whole(&file) {
        return Ok(file);
    }
    let program = compile(policy)?;
    replace(cache_dir, &file, &program)?;
    Ok(file)
}

fn make_private(dir: &Path) -> Result<(), FilterError> {
    let failed = |deed| move |source: io::Error| FilterError::Cache { deed, path: dir.to_owned(), source };
    match DirBuilder::new().mode(0o700).recursive(true).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("make the filter cache")(error));
        }
        _ => {}
    }
    let meta = fs::symlink_metadata(dir).map_err(failed("look at the filter cache"))?;
    let uid = nix::unistd::geteuid().as_raw();
    if !meta.is_dir() || meta.uid() != uid || meta.mode() & 0o022 != 0 {
        return Err(FilterError::CacheExposed {
            path: dir.to_owned(),
            uid,
            owner: meta.uid(),
            mode: meta.mode() & 0o7777,
        });
    }
    Ok(())
}

/// A file that lost its content in a crash is compiled again.
fn is_whole(file: &Path) -> bool {
    let unit = INSTRUCTION_BYTES as u64;
    let longest = unit * INSTRUCTIONS_MAX as u64;
    fs::symlink_metadata(file)
        .is_ok_and(|meta| meta.is_file() && (unit..=longest).contains(&meta.len()) && meta.len().is_multiple_of(unit))
}

fn replace(dir: &Path, file: &Path, program: &[u8]) -> Result<(), FilterError> {
    let temporary = dir.join(format!(".{}.{:?}", std::process::id(), std::thread::current().id()));
    let failed = |deed| {
        let path = temporary.clone();
        move |source: io::Error| FilterError::Cache { deed, path, source }
    };
    let mut open = OpenOptions::new();
    open.write(true).create(true).truncate(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
    let mut handle = open.open(&temporary).map_err(failed("make the filter file"))?;
    handle.write_all(program).map_err(failed("write the filter file"))?;
    fs::rename(&temporary, file).map_err(failed("rename the filter file"))
}
