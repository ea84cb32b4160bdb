//! What a validator must not forget, on disk.
//!
//! ```text
//! <key file>.watermark    how far the key has spoken: beside the key, never in a backup of the data
//! <data_dir>/votes.log    what was said and prepared at the height in progress
//! ```
//!
//! A vote goes **asked of the watermark → appended to the log → noted in the watermark**, each durable before the next, and only then to
//! peers. So the log knows all that the watermark knows, and after a crash at most one vote more, which is noted when the log is recovered. A
//! log that knows less was put back from a backup or has lost its end.

pub mod log;
mod record;
pub mod watermark;

#[cfg(test)]
mod sample;

use std::path::Path;

pub use record::{RECORD_BYTES_MAX, RecordError, position_of};

/// The folder that a path's last name is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
