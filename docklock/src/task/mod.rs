//! One container from its plan to its receipt: the thread through all the other rooms.
//!
//! ```text
//! create ─ plan ─┬─ intent (durable, on its own thread) ─┐
//!                └─ launch, held before its first step ───┴─ start ─ … ─ exit ─ drain ─ measure ─ seal ─ spool ─ published ─ delete
//! ```
//!
//! Always true: no first instruction before the intent is durable; no exit is told before the receipt or the abort is durable, or could
//! not be made; and what `create` began and could not finish leaves no directory, group, process or open intent behind.
//! The interface blocks. The shim calls it from its blocking pool; the command line calls it as it is.

mod container;
mod create;
mod ending;
mod engine;
mod error;
mod exec;
mod orphan;

use std::path::PathBuf;
use std::time::SystemTime;

use bpi_protocol::run::Image;
use oci_spec::runtime::Process;

pub use crate::streams::{Io, Stdio};
pub use container::Task;
pub use engine::Engine;
pub use error::{ErrorCode, TaskError};
pub use exec::Exec;
pub use orphan::{Remains, clean_up_orphan};

use crate::spool::{Appended, Boundary};

/// Finds out which image the root file system came from. It runs on its own thread, while the container does.
pub type ImageSource = Box<dyn FnOnce() -> Result<Option<Image>, String> + Send>;

/// What to create.
pub struct CreateRequest {
    /// The caller's name for it, unique within the boundary.
    pub id: String,
    /// Whose chain its records join.
    pub boundary: Boundary,
    /// Directory with config.json.
    pub bundle: PathBuf,
    /// Its root file system, mounted.
    pub rootfs: PathBuf,
    /// The directory that takes its writes, where the root file system is an overlay.
    pub layer: Option<PathBuf>,
    /// The client's streams.
    pub io: Io,
    /// Profile that the runtime's options ask for; an annotation goes before it.
    pub profile: Option<String>,
    /// Where the image's identity comes from.
    pub image: ImageSource,
    /// Chroot instead of pivot_root.
    pub no_pivot: bool,
    /// Where its random bytes come from; without one, a seed that follows from the plan.
    pub seed: Option<[u8; 32]>,
    /// A new file that gets the engine's log of decisions.
    pub trace_log: Option<PathBuf>,
}

/// What to start inside a running container.
pub struct ExecRequest {
    /// The caller's name for it, unique within the container.
    pub exec_id: String,
    /// The OCI process.
    pub process: Process,
    /// The client's streams.
    pub io: Io,
}

/// Where a process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Made, and held before its first instruction.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Ended.
    Stopped,
}

/// How a process ended.
#[derive(Clone, Debug)]
pub struct Exit {
    /// Exit status 0–255, or 128 + the signal that ended it.
    pub status: u32,
    /// When it was reaped.
    pub at: SystemTime,
    /// Its receipt, or why there is none. Of an exec: the reason is that an exec has none.
    pub seal: Result<Appended, String>,
}
