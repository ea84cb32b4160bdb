//! DockLock's driver: asked for an image by digest, it runs it under `io.bpi.docklock` through containerd, and hears of every container that ran so.
//!
//! ```text
//! order ─ image by digest ─ unpack layers ─ snapshot ─ container ─ task ─ start ─ wait ─► exit; then all of it is removed
//! ```
//!
//! Always true: what an order names is in the local content store, and its bytes have its digest; inputs are mounted read-only; what a run made is
//! removed when it ends, or by [`Driver::remove`] when the process that began it is gone (a lease keeps its parts no longer than a day). Absent on
//! purpose: pulling images, networks, and receipts: those the shim writes.

mod calls;
mod error;
mod image;
mod order;
mod run;
mod spec;
mod watch;

pub use error::DriverError;
pub use order::{Input, Order, OrderError};
pub use run::{Exit, Progress, Run};
pub use watch::{Container, Event, Events, Happening};

use containerd_client::tonic::transport::Channel;

/// The runtime that closes containers in the cage.
pub const RUNTIME: &str = "io.bpi.docklock";

/// A connection to containerd.
#[derive(Clone, Debug)]
pub struct Driver {
    channel: Channel,
    snapshotter: String,
}

impl Driver {
    /// Connects to containerd at a unix socket. `snapshotter` is `overlayfs`, or `native` where there is no overlay.
    ///
    /// # Errors
    /// [`DriverError::Connect`].
    pub async fn connect(socket: &std::path::Path, snapshotter: &str) -> Result<Self, DriverError> {
        let connected = containerd_client::connect(socket).await;
        let channel = connected.map_err(|source| DriverError::Connect { socket: socket.to_owned(), source })?;
        Ok(Self { channel, snapshotter: snapshotter.to_owned() })
    }
}
