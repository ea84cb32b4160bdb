//! The log: a line for each event, on standard error.

use tracing_subscriber::EnvFilter;

/// What a level may be.
pub const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Starts the log at a level. A second start in one process changes nothing, as when tests run several nodes.
pub fn start(level: &str) {
    let log =
        tracing_subscriber::fmt().with_env_filter(EnvFilter::new(level)).with_writer(std::io::stderr).with_ansi(false);
    if log.try_init().is_err() {
        tracing::debug!("the log was started before");
    }
}
