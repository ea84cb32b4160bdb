//! One run in the foreground: from what it starts from to its receipt.

use std::path::{Path, PathBuf};

use bpi_protocol::chain::Record;
use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::receipt::Receipt;
use bpi_protocol::run::Image;
use docklock::outputs::{self, Limits};
use docklock::spool::{Appended, Boundary, Spool};
use docklock::task::{CreateRequest, Engine, Exit, ImageSource, Io};
use oci_spec::runtime::Spec;

use crate::failure::Failure;
use crate::foreground::{Attended, RawTerminal};
use crate::stage::{Bundle, Stage};

/// Media type of a root file system that is known by the digest of its listing and by nothing else.
pub(crate) const ROOTFS_TYPE: &str = "application/vnd.bpi.rootfs.listing.v1";
/// Bounds of a measured root file system: what is larger takes longer than most runs.
const PIN_LIMITS: Limits = Limits { entries_max: 5_000_000, bytes_max: 64 << 30, depth_max: 256 };

/// What runs start from.
pub(crate) struct Ground {
    /// What to run; its root path is the stage's, where there is one.
    pub(crate) spec: Spec,
    /// Its folder, for a run without a stage.
    pub(crate) bundle: PathBuf,
    /// The root file system, topmost layer first.
    pub(crate) lower: Vec<PathBuf>,
    /// The program wants a terminal.
    pub(crate) terminal: bool,
    /// Measure the root file system.
    pub(crate) pin: bool,
    /// Where every run gets a fresh layer; without one the bundle's root file system is written to.
    pub(crate) stage: Option<Stage>,
}

impl Ground {
    /// A bundle, with other arguments if there are some.
    pub(crate) fn of_bundle(bundle: &Path, argv: &[String]) -> Result<Self, Failure> {
        let (mut spec, path) = super::load(bundle)?;
        let refused = |reason: String| Failure::Bundle { path: path.clone(), reason };
        let (rootfs, terminal) = super::rootfs_of(bundle)?;
        let process = spec.process_mut().as_mut().ok_or_else(|| refused("it names no process".to_owned()))?;
        if !argv.is_empty() {
            process.set_args(Some(argv.to_vec()));
        }
        Ok(Self { spec, bundle: bundle.to_path_buf(), lower: vec![rootfs], terminal, pin: false, stage: None })
    }

    /// Where a run without a stage takes place: it has one lower layer, the bundle's own root file system.
    fn rootfs(&self) -> PathBuf {
        self.lower.first().cloned().unwrap_or_default()
    }

    /// Where the image's identity comes from.
    fn image(&self) -> ImageSource {
        let lower = self.lower.clone();
        match (self.pin, &lower[..]) {
            (true, [root]) => {
                let root = root.clone();
                Box::new(move || {
                    let digest = measure_root(&root).map_err(|error| error.to_string())?;
                    Ok(Some(Image { media_type: ROOTFS_TYPE.to_owned(), digest }))
                })
            }
            _ => Box::new(|| Ok(None)),
        }
    }
}

/// Digest of a root file system's listing.
pub(crate) fn measure_root(root: &Path) -> Result<Sha256Digest, outputs::OutputsError> {
    outputs::digest_image(root, &PIN_LIMITS)
}

/// What one run is to be like.
#[derive(Clone, Copy, Default)]
pub(crate) struct Order<'a> {
    /// Profile, where the specification has no annotation.
    pub(crate) profile: Option<&'a str>,
    /// Chroot instead of pivot_root.
    pub(crate) no_pivot: bool,
    /// Seed, if not the plan's own.
    pub(crate) seed: Option<[u8; 32]>,
    /// A new file for the engine's log.
    pub(crate) trace: Option<&'a Path>,
    /// What it writes is not measured, as in a run without a layer.
    pub(crate) unmeasured: bool,
    /// A new folder for what it writes.
    pub(crate) layer: Option<&'a Path>,
    /// Name of the container.
    pub(crate) id: Option<&'a str>,
    /// Its number in a series, for names.
    pub(crate) number: u64,
}

/// How a run went.
pub(crate) struct Attempt {
    /// Status and receipt.
    pub(crate) exit: Exit,
    /// What it wrote, where it had a layer of its own.
    pub(crate) layer: Option<PathBuf>,
}

impl Attempt {
    /// Its receipt's place, or why there is none.
    pub(crate) fn sealed(&self) -> Result<Appended, Failure> {
        let status = self.exit.status;
        self.exit.seal.clone().map_err(|reason| Failure::NoReceipt { status, reason })
    }

    /// Its receipt and its run-hash.
    pub(crate) fn receipt(&self, spool_dir: &Path) -> Result<(Receipt, Sha256Digest), Failure> {
        let seq = self.sealed()?.seq;
        let stored = Spool::open_existing(spool_dir, &Boundary::local())?.record(seq)?;
        let malformed = |reason: String| Failure::EvidenceMalformed { path: stored.path.clone(), reason };
        let Record::Receipt(receipt) = &stored.record else {
            let (boundary, kind) = ("local".to_owned(), stored.record.kind());
            return Err(Failure::NotAReceipt { boundary, seq, kind });
        };
        let (hash, _) = bpi_protocol::chain::run_json(&receipt.run).map_err(|error| malformed(error.to_string()))?;
        Ok((receipt.as_ref().clone(), hash))
    }
}

/// Runs it to its end, passing signals on, and removes the container.
pub(crate) fn make(
    engine: &Engine,
    ground: &Ground,
    attended: &Attended,
    order: Order<'_>,
    io: Io,
) -> Result<Attempt, Failure> {
    let id = match order.id {
        Some(id) => id.to_owned(),
        None => random_id()?,
    };
    let staged = stage(ground, order)?;
    let (bundle, rootfs, layer) = match &staged {
        Some(staged) => (staged.dir.clone(), staged.rootfs.clone(), Some(staged.layer.clone())),
        None => (ground.bundle.clone(), ground.rootfs(), None),
    };
    let terminal = io.terminal;
    let request = CreateRequest {
        id,
        boundary: Boundary::local(),
        bundle,
        rootfs,
        layer: layer.clone().filter(|_| !order.unmeasured),
        io,
        profile: order.profile.map(str::to_owned),
        image: ground.image(),
        no_pivot: order.no_pivot,
        seed: order.seed,
        trace_log: order.trace.map(Path::to_path_buf),
    };
    let raw = if terminal { RawTerminal::of_stdin()? } else { None };
    let task = engine.create(request)?;
    attended.set(Some(&task), terminal);
    let started = task.start();
    if started.is_ok() {
        task.wait();
    }
    attended.set(None, terminal);
    drop(raw);
    let exit = task.delete()?;
    if let Some(staged) = &staged {
        staged.unmount()?;
    }
    started?;
    Ok(Attempt { exit, layer })
}

/// A bundle of its own for this run, where there is a stage.
fn stage(ground: &Ground, order: Order<'_>) -> Result<Option<Bundle>, Failure> {
    let Some(stage) = &ground.stage else { return Ok(None) };
    let bundle = stage.bundle(&format!("run-{}", order.number), &ground.lower, order.layer)?;
    let mut spec = ground.spec.clone();
    let mut root = spec.root().clone().unwrap_or_default();
    root.set_path(bundle.rootfs.clone());
    spec.set_root(Some(root));
    bundle.write(&spec)?;
    Ok(Some(bundle))
}

fn random_id() -> Result<String, Failure> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::System { deed: "get random bytes", source: std::io::Error::other(error) })?;
    Ok(format!("run-{}", hex::encode(bytes)))
}
