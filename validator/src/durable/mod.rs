//! What a validator must not forget, on disk.
//!
//! ```text
//! <key file>.watermark    how far the key has spoken: beside the key, never in a backup of the data
//! <data_dir>/votes.log    what was said and prepared at the height in progress
//! <data_dir>/headers/     final headers and their seals, in RocksDB
//! ```
//!
//! A vote goes **asked of the watermark → appended to the log → noted in the watermark**, each durable before the next, and only then to
//! peers. So the log knows all that the watermark knows, and after a crash at most one vote more, which is noted when the log is recovered. A
//! log that knows less was put back from a backup or has lost its end.
//!
//! Always true:
//! - what [`Durable::persist`] and [`Durable::append`] have returned for outlives the process and the power;
//! - nothing is kept, and so nothing is sent, that is not greater than all that this key has said, or that very thing again;
//! - at heights up to one of which something is forgotten, nothing is kept at all: a greater vote there could deny what was prepared.
//!
//! Absent on purpose: repair. What is damaged or contradictory is refused, with what to do.

#[cfg(feature = "node")]
pub mod headers;
pub mod log;
mod record;
pub mod watermark;

#[cfg(test)]
mod sample;
#[cfg(feature = "node")]
mod whole;

pub use record::{RECORD_BYTES_MAX, RecordError, position_of};
#[cfg(feature = "node")]
pub use whole::{Durable, DurableError, Found, headers_path, log_path};

use std::path::Path;

/// The folder that a path's last name is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
