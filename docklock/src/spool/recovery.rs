//! Closing what nobody will close any more.
//!
//! Two cases. The owner of an open intent ended in this boot: its entry in open/ says what to kill, then an abort closes it.
//! The host restarted: every container ended with it and entries may be lost, so the records themselves are searched, once a boot,
//! from the last settled place. Always true: an abort is chained only after the kill has succeeded.

use std::collections::BTreeMap;

use bpi_protocol::chain::Record;
use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::receipt::{Abort, ChainLink, Host};

use super::chain::Settled;
use super::{Appended, OpenIntent, Spool, SpoolError};
use crate::seal::SealError;
use crate::signer::Signer;
use crate::{clock, seal};

/// Reason in an abort for an owner that ended in this boot.
const OWNER_ENDED: &str = "the shim that ran it ended before the run was sealed";
/// Reason in an abort for a run that a restart of the host ended.
const HOST_RESTARTED: &str = "the host restarted before the run was sealed";

/// The statement of an abort.
fn abort(host: &Host, container_id: String, reason: &str, chain: ChainLink) -> Result<Vec<u8>, SealError> {
    let reason = reason.to_owned();
    seal::abort_statement(&Abort { container_id, reason, aborted_on: clock::now(), host: host.clone(), chain })
}

impl Spool {
    /// Closes with an abort every open intent whose owner is gone. `kill` must end all that is left of the container and remove
    /// its state; it may be called again for one that it has ended before. Safe beside other processes that do the same.
    ///
    /// # Errors
    /// [`SpoolError::Kill`] when a kill failed: that intent stays open, the others are closed. Any other [`SpoolError`] stops at once.
    pub fn close_orphans(
        &self,
        signer: &dyn Signer,
        host_id: &str,
        kill: &dyn Fn(&OpenIntent) -> Result<(), String>,
    ) -> Result<Vec<Appended>, SpoolError> {
        // One at a time: a second one would kill and find closed what the first is busy with.
        let _turn = self.lock_file("orphans.lock")?;
        let host = seal::host(host_id, signer)?;
        let mut closed = self.recover_after_boot(signer, &host)?;
        let mut failure = None;
        for open in self.open_intents()? {
            if open.owner.is_alive(&self.boot_id)? {
                continue;
            }
            match kill(&open) {
                Ok(()) => closed.extend(self.abort_orphan(signer, &host, &open.intent)?),
                Err(reason) => failure = Some(SpoolError::Kill { container_id: open.container_id, reason }),
            }
        }
        self.sweep_entries()?;
        failure.map_or(Ok(closed), Err)
    }

    /// Ends one entry whose container is gone. Another process may have ended it meanwhile.
    fn abort_orphan(
        &self,
        signer: &dyn Signer,
        host: &Host,
        intent: &Sha256Digest,
    ) -> Result<Option<Appended>, SpoolError> {
        let _held = self.lock_chain()?;
        let Some(open) = self.read_open(intent)? else { return Ok(None) };
        // An entry precedes its record. Without the record nothing was intended, so nothing was started.
        if !self.has_record(open.seq)? || self.record(open.seq)?.digest != *intent {
            self.remove_open(intent)?;
            return Ok(None);
        }
        self.close_held(signer, intent, |chain| abort(host, open.container_id, OWNER_ENDED, chain)).map(Some)
    }

    /// The search of the records, once a boot.
    fn recover_after_boot(&self, signer: &dyn Signer, host: &Host) -> Result<Vec<Appended>, SpoolError> {
        let settled = self.read_settled()?;
        if settled.as_ref().is_some_and(|settled| settled.boot_id == self.boot_id) {
            return Ok(Vec::new());
        }
        let _held = self.lock_chain()?;
        self.drop_entries_of_other_boots()?;
        let end = self.tail(Some(&signer.public_key()))?.map_or(0, |(seq, _)| seq + 1);
        let start = settled.map_or(0, |settled| settled.seq.min(end));
        let mut closed = Vec::new();
        let mut oldest_running = None;
        for (seq, (intent, container_id)) in self.unclosed_in(start..end)? {
            if self.read_open(&intent)?.is_some() {
                // Intended in this boot, before anybody recovered: it has an owner, dead or alive.
                oldest_running = oldest_running.or(Some(seq));
                continue;
            }
            // No entry: after a crash here the next search finds the abort in the records, or does it again.
            let draft = self.draft(signer, Some(intent), |chain| abort(host, container_id, HOST_RESTARTED, chain))?;
            closed.push(self.commit(draft)?);
        }
        let seq = oldest_running.unwrap_or(end);
        self.write_settled(&Settled { boot_id: self.boot_id.clone(), seq })?;
        Ok(closed)
    }

    /// The intents in a stretch of the chain that nothing in it closes.
    fn unclosed_in(&self, seqs: std::ops::Range<u64>) -> Result<BTreeMap<u64, (Sha256Digest, String)>, SpoolError> {
        let mut unclosed = BTreeMap::new();
        let mut place = BTreeMap::new();
        for seq in seqs {
            let record = self.record(seq)?;
            match &record.record {
                Record::Intent(intent) => {
                    place.insert(record.digest, seq);
                    unclosed.insert(seq, (record.digest, intent.container_id.clone()));
                }
                Record::Receipt(_) | Record::Abort(_) => {
                    if let Some(intent) = record.link().started_ref.and_then(|intent| place.remove(&intent)) {
                        unclosed.remove(&intent);
                    }
                }
            }
        }
        Ok(unclosed)
    }

    /// Entries of a boot that is over say nothing that the records do not, and a loss of power may have torn them.
    fn drop_entries_of_other_boots(&self) -> Result<(), SpoolError> {
        for intent in self.open_digests()? {
            match self.read_open(&intent) {
                Ok(Some(open)) if open.owner.boot_id == self.boot_id => {}
                Ok(_) | Err(SpoolError::Malformed { .. }) => self.remove_open(&intent)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Files that a process left in open/ when it ended between writing one and naming it.
    fn sweep_entries(&self) -> Result<(), SpoolError> {
        let names = self.open_names()?;
        let mut left =
            names.iter().filter_map(|name| name.strip_suffix(".tmp").and_then(Sha256Digest::from_hex)).peekable();
        if left.peek().is_none() {
            return Ok(());
        }
        // Under the lock a file without its entry has no writer; with one, a living owner may be about to rename it.
        let _held = self.lock_chain()?;
        for intent in left {
            if self.read_open(&intent)?.is_none() {
                self.discard(&self.open_path(&intent).with_extension("tmp"))?;
            }
        }
        Ok(())
    }
}
