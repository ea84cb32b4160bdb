//! Logs of dealers in a ceremony of the validators' key, as headers carry them. What they say is the ceremony's business; here they are bytes.
//!
//! Each is a leaf of the log of receipts, under a tenant that is nobody's: so the header commits to it, in its place, and whoever has missed
//! the header can ask for the bytes by the leaf's hash. A leaf of that tenant without its bytes is no leaf: none waits, none is asked for in
//! a list, and an entry of the inbox that is one is served by leaving it out.

use bpi_protocol::log::leaf::{Leaf, TenantId};
use sha2::{Digest as _, Sha256};

/// Whose leaves they are.
pub const TENANT: TenantId = TenantId([0xff; 16]);
/// Logs of a header, at most.
pub const LOGS_MAX: usize = 16;
/// Bytes of all logs of a header, at most: some of the largest set's.
pub const LOGS_BYTES_MAX: usize = 60 * 1024;

/// The leaf of a log: SHA-256 of `bpi.dealer-log.v1`, a zero byte and the log.
pub fn leaf_of(log: &[u8]) -> Leaf {
    let hash = Sha256::new().chain_update("bpi.dealer-log.v1").chain_update([0]).chain_update(log).finalize();
    Leaf { tenant: TENANT, hash: hash.into() }
}

/// Whether a leaf is that of a log.
pub fn is_of_log(leaf: &Leaf) -> bool {
    leaf.tenant == TENANT
}

/// As many logs as a header has room for, from the first on.
pub fn fitting(logs: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let mut room = LOGS_BYTES_MAX;
    let fits = |log: &Vec<u8>| {
        let fits = log.len() <= room;
        room = room.saturating_sub(log.len());
        fits
    };
    logs.into_iter().take_while(fits).take(LOGS_MAX).collect()
}
