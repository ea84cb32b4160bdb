//! The thread that repairs: it looks for bad shards, asks other pinners, and tells validators of batches that are wrongly encoded.
//!
//! What it finds to be wrong it says at once, and again every hour: validators come and go, and forget nothing that they were told.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bpi_protocol::log::Hash;
use bpi_protocol::mesh::pinner::{Answer, Request};
use bpi_protocol::mesh::validator;
use bpi_transport::mesh::Mesh;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::work::{Orders, Work};
use crate::catalogue::{Catalogue, Record};
use crate::disk::{Disk, DiskError};
use crate::keeper::KeeperError;
use crate::metrics::Metrics;
use crate::repair::{Outcome, Peers, Repairer, bytes_max, described};

/// How often proofs are said again.
const SAID_AGAIN: Duration = Duration::from_secs(3600);
/// How long the thread sleeps at a time, so that it ends soon after it is asked to.
const NAP: Duration = Duration::from_millis(100);

/// Other pinners over the mesh.
#[derive(Debug)]
pub struct MeshPeers {
    /// The mesh.
    pub mesh: Mesh,
    /// What they answer.
    pub answers: Receiver<([u8; 32], Answer)>,
    /// When to end.
    pub orders: Arc<Orders>,
}

impl Peers for MeshPeers {
    fn ask(&mut self, to: &[u8; 32], request: &Request) {
        self.mesh.send(*to, Arc::new(Zeroizing::new(request.to_bytes())));
    }

    fn next(&mut self, wait: Duration) -> Option<([u8; 32], Answer)> {
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.answers.recv_timeout(left.min(NAP)) {
                Ok(answer) => return Some(answer),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) if left.is_zero() || self.orders.stop.load(Ordering::Relaxed) => {
                    return None;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// What a repairer of a running pinner needs besides.
#[derive(Debug)]
pub struct Setup {
    /// What is kept.
    pub catalogue: Arc<Catalogue>,
    /// The writer.
    pub work: mpsc::Sender<Work>,
    /// When to end.
    pub orders: Arc<Orders>,
    /// The figures.
    pub metrics: Arc<Metrics>,
    /// Who is told of wrong encodings.
    pub validators: Vec<[u8; 32]>,
    /// Where their proofs are put.
    pub proofs: PathBuf,
    /// How often bad shards are looked for.
    pub every: Duration,
    /// Bytes of disk that stay free.
    pub reserve_bytes: u64,
}

/// Repairs until it is told to end.
///
/// # Errors
/// [`KeeperError`] when the index or the disk fails.
pub fn run(mut repairer: Repairer<MeshPeers>, setup: &Setup) -> Result<(), KeeperError> {
    repairer.begin()?;
    repairer.disk.make_folder(&setup.proofs)?;
    let ended = || setup.orders.stop.load(Ordering::Relaxed);
    let (mut next, mut say_again) = (Instant::now(), Instant::now());
    while !ended() {
        std::thread::sleep(NAP);
        let now = Instant::now();
        if now >= say_again {
            say_again = now + SAID_AGAIN;
            for proof in setup.catalogue.proofs()? {
                tell(&repairer.peers.mesh, &setup.validators, proof);
            }
        }
        if now < next {
            continue;
        }
        let mut after = None;
        loop {
            let roots = setup.catalogue.with_bad_shards(after.as_ref())?;
            let Some(last) = roots.last() else { break };
            after = Some(*last);
            for root in &roots {
                if ended() {
                    return Ok(());
                }
                repair(&mut repairer, setup, root)?;
            }
        }
        next = Instant::now() + setup.every;
    }
    Ok(())
}

fn repair(repairer: &mut Repairer<MeshPeers>, setup: &Setup, root: &Hash) -> Result<(), KeeperError> {
    let Some(record) = setup.catalogue.record(root)? else { return Ok(()) };
    if setup.catalogue.wrong(root)?.is_some() {
        return Ok(());
    }
    let needed = bytes_max(&record.batch.coding).saturating_add(setup.reserve_bytes);
    let free = repairer.disk.free_bytes(&repairer.folder)?;
    if free < needed {
        tracing::warn!(free, needed, "the disk has no room to repair a batch");
        setup.metrics.repair("no-room");
        return Ok(());
    }
    for shard in record.bad.iter() {
        let outcome = match repairer.repair(&record, shard) {
            Err(KeeperError::Store(error)) if error.is_passing() => {
                tracing::warn!(%error, "a shard cannot be repaired now");
                setup.metrics.repair("failed");
                return Ok(());
            }
            outcome => outcome?,
        };
        if !done(repairer, setup, &record, shard, outcome)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Tells what became of a shard. False: there is nothing more to do for the batch now.
fn done(
    repairer: &Repairer<MeshPeers>,
    setup: &Setup,
    record: &Record,
    shard: u8,
    outcome: Outcome,
) -> Result<bool, KeeperError> {
    let da_root = hex::encode(record.batch.da_root);
    match outcome {
        Outcome::Repaired { key, path } => {
            tracing::info!(da_root, shard, "a shard is made anew");
            setup.metrics.repair("repaired");
            Ok(setup.work.blocking_send(Work::Repaired(Box::new(described(record)), key, path)).is_ok())
        }
        Outcome::Few { found, wanted } => {
            tracing::warn!(da_root, shard, found, wanted, "too few shards of other pinners can be had to repair one");
            setup.metrics.repair("too-few");
            Ok(false)
        }
        Outcome::Gone => {
            tracing::error!(
                da_root,
                shard,
                "the other shards say another one than the batch commits to, and nobody has that"
            );
            setup.metrics.repair("gone");
            Ok(true)
        }
        Outcome::Wrong(proof) => {
            tracing::error!(da_root, "a batch is proved to be wrongly encoded");
            setup.metrics.repair("wrong");
            let bytes = proof.to_bytes();
            keep_proof(repairer.disk.as_ref(), &setup.proofs, &da_root, &bytes)?;
            tell(&repairer.peers.mesh, &setup.validators, bytes.clone());
            drop(setup.work.blocking_send(Work::Wrong(record.batch.da_root, bytes)));
            Ok(false)
        }
    }
}

/// Puts a proof where an operator finds it.
fn keep_proof(disk: &dyn Disk, folder: &Path, da_root: &str, bytes: &[u8]) -> Result<(), DiskError> {
    let (path, half) = (folder.join(format!("{da_root}.proof")), folder.join(format!("{da_root}.half")));
    disk.remove(&half)?;
    disk.write_at(&half, 0, bytes)?;
    disk.sync_file(&half)?;
    disk.rename(&half, &path)?;
    disk.sync_folder(folder)
}

fn tell(mesh: &Mesh, validators: &[[u8; 32]], proof: Vec<u8>) {
    let message = Arc::new(Zeroizing::new(validator::Request::Wrong(proof).to_bytes()));
    for validator in validators {
        mesh.send(*validator, Arc::clone(&message));
    }
}
