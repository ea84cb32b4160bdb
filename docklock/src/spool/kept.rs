//! Configurations by their digest, beside the chain: what `docklock rerun` plans from.
//!
//! A receipt names the normal form of its configuration by digest and does not hold it, for arguments and environment may be nobody else's
//! business. So it is kept here, for this user alone. Always true: what is read back has the digest that was asked for. Losing one costs
//! a rerun and no proof, so nothing here is synced.

use std::io;

use bpi_protocol::digest::Sha256Digest;

use super::{Spool, SpoolError};

/// Longest configuration: as long as the specification it comes from may be.
const CONFIG_BYTES_MAX: u64 = 16 << 20;

impl Spool {
    /// Keeps a configuration; one that is kept already is left as it is.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub fn keep_config(&self, config: &[u8]) -> Result<(), SpoolError> {
        let folder = self.folder.join("configs");
        let path = folder.join(format!("{}.json", Sha256Digest::of(config)));
        if self.disk.exists(&path).map_err(|source| SpoolError::io("look for", &path, source))? {
            return Ok(());
        }
        self.disk.make_folder(&folder).map_err(|source| SpoolError::io("make the folder", &folder, source))?;
        let aside = path.with_extension(format!("{}.tmp", std::process::id()));
        self.disk.write(&aside, config).map_err(|source| SpoolError::io("write", &aside, source))?;
        self.disk.rename(&aside, &path).map_err(|source| SpoolError::io("rename", &aside, source))
    }

    /// The configuration of that digest; `None` when it is not kept, or what is kept has another digest.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub fn config(&self, digest: &Sha256Digest) -> Result<Option<Vec<u8>>, SpoolError> {
        let path = self.folder.join(format!("configs/{digest}.json"));
        match self.disk.read(&path, CONFIG_BYTES_MAX) {
            Ok(config) => Ok(Some(config).filter(|config| Sha256Digest::of(config) == *digest)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SpoolError::io("read", &path, source)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::spool::Boundary;

    #[test]
    fn a_configuration_is_kept_under_its_digest_and_a_changed_one_is_not_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path(), &Boundary::local()).unwrap();
        let digest = Sha256Digest::of(b"{}");
        assert_eq!(spool.config(&digest).unwrap(), None);
        spool.keep_config(b"{}").unwrap();
        spool.keep_config(b"{}").unwrap();
        assert_eq!(spool.config(&digest).unwrap().unwrap(), b"{}");
        std::fs::write(dir.path().join(format!("local/configs/{digest}.json")), "{ }").unwrap();
        assert_eq!(spool.config(&digest).unwrap(), None);
    }
}
