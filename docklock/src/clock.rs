//! The host's clock and boot id: the two facts that date a record.
//!
//! Records carry RFC 3339 UTC with milliseconds, so that two of them compare as text. Clocks of different boots are not
//! compared; the boot id beside them says so. Absent on purpose: the guest's clock, which belongs to the cage.

use std::time::SystemTime;

use jiff::Timestamp;

/// Where Linux publishes the id of the running boot (random(4)).
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// Why the host could not be dated.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The boot id cannot be read: /proc is not mounted, or this is not Linux.
    #[error("could not read the boot id from {BOOT_ID_FILE}: {source}")]
    BootId {
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A time outside the years that RFC 3339 can write.
    #[error("the time {seconds} s after 1970 is outside the years 0 to 9999 that RFC 3339 can write")]
    OutOfRange {
        /// Seconds since 1970.
        seconds: u64,
    },
}

impl ClockError {
    /// The code under which docs/errors.md explains it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BootId { .. } => "DL0501",
            Self::OutOfRange { .. } => "DL0502",
        }
    }
}

/// The present moment as RFC 3339 UTC with milliseconds: `2026-01-02T03:04:05.678Z`.
pub fn now() -> String {
    format!("{:.3}", Timestamp::now())
}

/// `time` as RFC 3339 UTC with milliseconds.
///
/// # Errors
/// [`ClockError::OutOfRange`] for a time before 1970 or after the year 9999.
pub fn rfc3339(time: SystemTime) -> Result<String, ClockError> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let timestamp = Timestamp::try_from(time).map_err(|_| ClockError::OutOfRange { seconds: since.as_secs() })?;
    Ok(format!("{timestamp:.3}"))
}

/// The id of the running boot, as the kernel writes it: a UUID in lower case.
///
/// # Errors
/// [`ClockError::BootId`] when /proc does not offer it.
pub fn boot_id() -> Result<String, ClockError> {
    let text = std::fs::read_to_string(BOOT_ID_FILE).map_err(|source| ClockError::BootId { source })?;
    Ok(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::{Duration, SystemTime};

    #[test]
    fn a_moment_is_written_with_milliseconds_and_z() {
        let moment = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_999);
        assert_eq!(super::rfc3339(moment).unwrap(), "2023-11-14T22:13:20.123Z");
        assert_eq!(super::now().len(), "2023-11-14T22:13:20.123Z".len());
    }

    #[test]
    fn the_boot_id_is_one_line_and_stays_the_same() {
        let id = super::boot_id().unwrap();
        assert_eq!(id.len(), 36);
        assert_eq!(id, super::boot_id().unwrap());
    }
}
