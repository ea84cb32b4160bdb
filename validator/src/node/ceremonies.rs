//! Which ceremony of the validators' key is held when, what has come of each, and what a node keeps of them.
//!
//! Heights come in slots of `ceremony_heights` of the genesis. In a slot one ceremony is held, or none:
//!
//! ```text
//! first height    dealings, if the validators have no key yet or the set of the next epoch may vote from the next slot on
//! half            logs that lack acknowledgements go out too
//! three quarters  what the logs up to here say is the outcome, the same for all; if there is none it is held again in the next slot
//! last height     announces the set that has got shares; in the next slot its COMMIT votes carry parts, and headers after them seeds
//! ```
//!
//! Everything here follows from headers whose leaves the log has, in order, so nodes that have those agree on sets and seeds.
//!
//! ```text
//! <folder>/logs-<start>/<height>-<leaf hash>   a log that a final header carries: kept before the header is, and for ever, for who comes late
//! <folder>/outcome-<start>                     the sharing, or nothing if the ceremony failed
//! <folder>/ceremony-<start>/                   what a member must remember while it is held (private; erased then)
//! <folder>/share-<epoch>.toml                  this node's share (private; erased when the next set has taken over)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bpi_protocol::consensus::bls::SecretKey;
use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{Height, SetDigest};
use bpi_protocol::consensus::scheme::PublicKey;
use zeroize::Zeroizing;

use super::genesis::Genesis;
use crate::beacon::ceremony::{Act, Ceremony, LogError, Outcome, Refused};
use crate::beacon::journal::Journal;
use crate::beacon::message::CeremonyMessage;
use crate::beacon::plan::{Calendar, Plan, PlanError};
use crate::beacon::share::ShareBook;
use crate::beacon::share_file::{self, share_path, write_whole};
use crate::beacon::sharing::{Sharing, SharingError};
use crate::contents::dealings::leaf_of;
use crate::contents::leaf::LeafHash;
use crate::keys::KeyFileError;

/// So many heights after a set has taken over the shares of the one before are erased: until then peers may lack their parts.
const SHARES_LINGER: u64 = 4;

/// Why a node cannot go on with what it has of ceremonies.
#[derive(Debug, thiserror::Error)]
pub enum CeremoniesError {
    /// A private file.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// There can be no such ceremony.
    #[error("the ceremony that begins at height {start} cannot be held: {source}")]
    Plan {
        /// Its first height.
        start: Height,
        /// Why.
        source: PlanError,
    },
    /// A final header has a log that is none here.
    #[error("a final header carries a dealer's log that is none here: {0}")]
    Log(#[from] LogError),
    /// A final header has a log, and nothing is held here.
    #[error("a final header carries a dealer's log, and no ceremony is held at its height")]
    NoCeremony,
    /// A kept outcome is damaged.
    #[error("the outcome {} is damaged: {source}; restore it from another node of this chain", path.display())]
    Outcome {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SharingError,
    },
    /// A kept outcome is of a set that the genesis does not have.
    #[error("the outcome {} is of a set that the genesis here does not have; bring the same genesis as the other nodes", path.display())]
    Set {
        /// The file.
        path: PathBuf,
    },
    /// The kernel gives no random bytes.
    #[error("no random bytes: {0}")]
    Entropy(String),
    /// A system call failed.
    #[error("could not {deed} {}: {source}", path.display())]
    Io {
        /// What was tried.
        deed: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why a header may not carry these logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogsError {
    /// None is open.
    #[error("no ceremony takes logs at this height")]
    Closed,
    /// One of them is none.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Two of one dealer.
    #[error("two logs are of one dealer")]
    Twice,
}

/// What is to be told to others.
#[derive(Debug)]
pub enum Said {
    /// To one member.
    To {
        /// Whose key it is.
        member: PublicKey,
        /// What.
        message: CeremonyMessage,
    },
    /// To all: a log that some header has to carry.
    Log(Vec<u8>),
}

/// A ceremony in progress.
struct Running {
    calendar: Calendar,
    ceremony: Ceremony,
    /// `None`: this node has no part in it.
    journal: Option<Journal>,
    included: BTreeSet<LeafHash>,
}

/// The ceremonies of a chain in the eyes of one node.
pub struct Ceremonies {
    genesis: Arc<Genesis>,
    folder: PathBuf,
    /// `None`: this node observes.
    key: Option<Arc<SecretKey>>,
    book: ShareBook,
    /// Who shares the key, by the height from which on.
    sharings: BTreeMap<Height, Arc<Sharing>>,
    running: Option<Running>,
    /// Logs that no header has yet, by dealer.
    pending: BTreeMap<[u8; 96], Vec<u8>>,
}

impl Ceremonies {
    /// Opens the folder, or makes it. [`Ceremonies::begin`] has to follow. `book`: where the core finds this node's shares.
    ///
    /// # Errors
    /// [`CeremoniesError`] for what is damaged or cannot be read.
    pub fn open(
        folder: &Path,
        genesis: Arc<Genesis>,
        key: Option<Arc<SecretKey>>,
        book: ShareBook,
    ) -> Result<Self, CeremoniesError> {
        make_folder(folder)?;
        let folder = folder.to_path_buf();
        let (sharings, pending) = (BTreeMap::new(), BTreeMap::new());
        let mut ceremonies = Self { genesis, folder, key, book, sharings, running: None, pending };
        for (name, path) in list(&ceremonies.folder)? {
            let Some(start) = name.strip_prefix("outcome-").and_then(|start| start.parse().ok()) else { continue };
            if let Some(sharing) = ceremonies.read_outcome(&path)? {
                let from = ceremonies.first_use(Height(start));
                let share = match ceremonies.key.as_ref().and_then(|key| ceremonies.place(&sharing, &key.public_key()))
                {
                    Some(index) => share_file::load(&share_path(&ceremonies.folder, sharing.epoch()), &sharing, index)?,
                    None => None,
                };
                ceremonies.book.install(from, share.map(Arc::new));
                ceremonies.sharings.insert(from, Arc::new(sharing));
            }
        }
        Ok(ceremonies)
    }

    /// Begins, or goes on with, what the slot after a header has. The log has the header's leaves.
    ///
    /// # Errors
    /// [`CeremoniesError`].
    pub fn begin(&mut self, logged: &Header) -> Result<(), CeremoniesError> {
        let heights = self.genesis.rules.ceremony_heights;
        self.running = None;
        self.pending.clear();
        self.forget(logged.height)?;
        let Some(slot) = logged.height.0.checked_div(heights) else { return Ok(()) };
        let start = Height(slot * heights + 1);
        let Some(calendar) = Calendar::new(start, heights) else { return Ok(()) };
        let journal = self.folder.join(format!("ceremony-{start}"));
        if self.outcome_path(start).exists() {
            // A crash may have come between the outcome and the end of what led to it.
            return if journal.exists() { Ok(Journal::open(&journal)?.destroy()?) } else { Ok(()) };
        }
        let Some(plan) = self.wanted(start, &logged.next_validators) else { return Ok(()) };
        let failed = |source| CeremoniesError::Plan { start, source };
        let is_member = |key: &Arc<SecretKey>| {
            [&plan.dealers, &plan.players].iter().any(|set| set.position(&key.public_key()).is_some())
        };
        let (mut ceremony, journal) = match self.key.clone().filter(is_member) {
            Some(key) => {
                let journal = Journal::open(&journal)?;
                let share = plan.previous.as_ref().and_then(|_| self.book.at(start));
                let (entropy, kept) = (journal.entropy()?, journal.kept()?);
                let joined = Ceremony::join(plan, key, &entropy, share.as_deref(), &kept);
                (joined.map_err(failed)?, Some(journal))
            }
            None => (Ceremony::observe(plan).map_err(failed)?, None),
        };
        let (logs, mut included) = (self.logs_folder(start), BTreeSet::new());
        make_folder(&logs)?;
        for (name, path) in list(&logs)? {
            // One of a later header may have been kept just before a crash: that header is to be judged again.
            let height = name.split_once('-').and_then(|(height, _)| height.parse().ok()).map(Height);
            if name.ends_with("unfinished") || height.is_none_or(|height| height > logged.height) {
                continue;
            }
            let log = fs::read(&path).map_err(failed_io("read", &path))?;
            ceremony.include(&log)?;
            included.insert(leaf_of(&log).leaf_hash());
        }
        tracing::info!(%start, conclude = %calendar.conclude, deals = journal.is_some(), "a ceremony of the validators' key is held");
        self.running = Some(Running { calendar, ceremony, journal, included });
        if logged.height >= calendar.conclude {
            self.conclude()?;
        }
        Ok(())
    }

    /// The log has the leaves of the next header.
    ///
    /// # Errors
    /// [`CeremoniesError`].
    pub fn advance(&mut self, header: &Header) -> Result<(), CeremoniesError> {
        if self.running.as_ref().is_some_and(|running| header.height >= running.calendar.conclude) {
            self.conclude()?;
        }
        match header.height.0.checked_rem(self.genesis.rules.ceremony_heights) {
            Some(0) => self.begin(header),
            _ => self.forget(header.height),
        }
    }

    /// What a ceremony of the slot from `start` on would be for. `None`: nothing.
    fn wanted(&self, start: Height, set: &SetDigest) -> Option<Plan> {
        let present = self.genesis.period(set)?;
        let previous = self.sharing_at(start).cloned();
        let next = self.genesis.period_after(set).filter(|next| next.first <= self.first_use(start));
        let players = match next {
            Some(next) => Arc::clone(&next.set),
            None if previous.is_none() => Arc::clone(&present.set),
            None => return None,
        };
        Some(Plan { chain: self.genesis.chain, start, dealers: Arc::clone(&present.set), players, previous })
    }

    fn conclude(&mut self) -> Result<(), CeremoniesError> {
        let Some(Running { calendar, ceremony, journal, .. }) = self.running.take() else { return Ok(()) };
        self.pending.clear();
        let mut entropy = Zeroizing::new([0; 32]);
        getrandom::fill(entropy.as_mut()).map_err(|error| CeremoniesError::Entropy(error.to_string()))?;
        let (start, path) = (calendar.start, self.outcome_path(calendar.start));
        match ceremony.conclude(&entropy) {
            Ok(Outcome { sharing, share, lost }) => {
                if let Some(share) = &share {
                    share_file::keep(&share_path(&self.folder, sharing.epoch()), share)?;
                }
                write_whole(&path, &sharing.to_bytes())?;
                let (from, has_share) = (self.first_use(start), share.is_some());
                let (group, revealed) = (hex::encode(sharing.group().public_key().0), sharing.revealed().len());
                tracing::info!(%start, %from, has_share, revealed, group, "a ceremony has given shares");
                if lost {
                    tracing::error!(%start, "this node has lost its share: its votes carry no parts until the next ceremony");
                }
                self.book.install(from, share.map(Arc::new));
                self.sharings.insert(from, Arc::new(sharing));
            }
            Err(error) => {
                write_whole(&path, &[])?;
                tracing::warn!(%start, %error, "a ceremony has failed, and is held again");
            }
        }
        Ok(journal.map_or(Ok(()), Journal::destroy)?)
    }

    /// Erases the shares of sets that others have taken over from.
    fn forget(&mut self, logged: Height) -> Result<(), CeremoniesError> {
        let long_past = Height(logged.0.saturating_sub(SHARES_LINGER));
        let Some(present) = self.sharings.range(..=long_past).next_back().map(|(from, _)| *from) else { return Ok(()) };
        let kept = self.sharings.split_off(&present);
        for sharing in std::mem::replace(&mut self.sharings, kept).values() {
            share_file::erase(&share_path(&self.folder, sharing.epoch()))?;
        }
        self.book.forget_before(present);
        Ok(())
    }

    /// What is to be said again, or now that a height is reached. To be called from time to time.
    ///
    /// # Errors
    /// As [`Ceremonies::hear`].
    pub fn tick(&mut self, logged: Height) -> Result<Vec<Said>, CeremoniesError> {
        let Some(running) = &mut self.running else { return Ok(Vec::new()) };
        let mut acts = running.ceremony.deal();
        if logged.next() >= running.calendar.close && !running.ceremony.is_included() {
            acts.extend(running.ceremony.close());
        }
        self.keep(acts)
    }

    /// A message of a member whose key the connection has shown.
    ///
    /// The inner error, [`Refused`]: it changes nothing.
    ///
    /// # Errors
    /// [`CeremoniesError::Key`]: a dealing cannot be kept. The ceremony in memory has it and would acknowledge it when it is dealt again, so
    /// this node has to end: after a start it has what the disk has.
    pub fn hear(
        &mut self,
        from: &PublicKey,
        message: CeremonyMessage,
    ) -> Result<Result<Vec<Said>, Refused>, CeremoniesError> {
        let Some(running) = &mut self.running else { return Ok(Err(Refused::Ceremony)) };
        match running.ceremony.hear(from, message) {
            Ok(acts) => self.keep(acts).map(Ok),
            Err(refused) => Ok(Err(refused)),
        }
    }

    /// Keeps what has to be kept, and says what is to be said after that.
    fn keep(&mut self, acts: Vec<Act>) -> Result<Vec<Said>, CeremoniesError> {
        let mut said = Vec::new();
        for act in acts {
            match act {
                Act::Keep { dealer, dealing } => {
                    if let Some(journal) = self.running.as_ref().and_then(|running| running.journal.as_ref()) {
                        journal.keep(&dealer, &dealing)?;
                    }
                }
                Act::Send { to, message } => said.push(Said::To { member: to, message }),
                Act::Submit { log } => {
                    if self.take(log.clone()).is_ok() {
                        said.push(Said::Log(log));
                    }
                }
            }
        }
        Ok(said)
    }

    /// A log, to be carried by a header that this node proposes.
    ///
    /// # Errors
    /// [`LogsError`].
    pub fn take(&mut self, log: Vec<u8>) -> Result<(), LogsError> {
        let Some(running) = &self.running else { return Err(LogsError::Closed) };
        // It is said again until a header has it, and a look into it takes as long as some signatures.
        if self.pending.values().any(|known| *known == log) {
            return Ok(());
        }
        let dealer = running.ceremony.check(&log)?;
        self.pending.entry(dealer.0).or_insert(log);
        Ok(())
    }

    /// Logs for the header of a height.
    pub fn logs_for(&self, height: Height) -> Vec<Vec<u8>> {
        let is_open = self.running.as_ref().is_some_and(|running| running.takes_logs_at(height));
        if is_open { self.pending.values().cloned().collect() } else { Vec::new() }
    }

    /// Whether the header of a height may carry these logs.
    ///
    /// # Errors
    /// [`LogsError`].
    pub fn check_logs(&self, height: Height, logs: &[Vec<u8>]) -> Result<(), LogsError> {
        if logs.is_empty() {
            return Ok(());
        }
        let running = self.running.as_ref().filter(|running| running.takes_logs_at(height)).ok_or(LogsError::Closed)?;
        let mut dealers = BTreeSet::new();
        for log in logs {
            if !dealers.insert(running.ceremony.check(log)?.0) {
                return Err(LogsError::Twice);
            }
        }
        Ok(())
    }

    /// Keeps the logs of a final header, durably, before its leaves are. Those that are kept already are passed over.
    ///
    /// # Errors
    /// [`CeremoniesError`]: the chain has something that should not be there, or the disk failed.
    pub fn include(&mut self, height: Height, logs: &[Vec<u8>]) -> Result<(), CeremoniesError> {
        for log in logs {
            let folder = self.running.as_ref().map(|running| self.logs_folder(running.calendar.start));
            let (Some(running), Some(folder)) = (&mut self.running, folder) else {
                return Err(CeremoniesError::NoCeremony);
            };
            let hash = leaf_of(log).leaf_hash();
            if running.included.contains(&hash) {
                continue;
            }
            running.ceremony.check(log)?;
            write_whole(&folder.join(format!("{height}-{}", hex::encode(hash.0))), log)?;
            let dealer = running.ceremony.include(log)?;
            running.included.insert(hash);
            self.pending.remove(&dealer.0);
        }
        Ok(())
    }

    /// A log that a final header carries, or one that waits, by the hash of its leaf.
    ///
    /// # Errors
    /// [`CeremoniesError::Io`].
    pub fn find(&self, leaf: &LeafHash) -> Result<Option<Vec<u8>>, CeremoniesError> {
        let end = format!("-{}", hex::encode(leaf.0));
        for (_, folder) in list(&self.folder)?.iter().filter(|(name, _)| name.starts_with("logs-")) {
            if let Some((_, path)) = list(folder)?.iter().find(|(name, _)| name.ends_with(&end)) {
                return fs::read(path).map(Some).map_err(failed_io("read", path));
            }
        }
        Ok(self.pending.values().find(|log| leaf_of(log).leaf_hash() == *leaf).cloned())
    }

    /// The set that a header has to announce. The log has its parent's leaves.
    pub fn announced(&self, header: &Header) -> SetDigest {
        let next = header.height.next();
        let after = match self.genesis.rules.ceremony_heights {
            0 => self
                .genesis
                .period_after(&header.validators)
                .filter(|after| after.first <= next)
                .map(|after| after.set.digest()),
            _ => self.sharings.get(&next).map(|sharing| sharing.set()),
        };
        after.unwrap_or(header.validators)
    }

    /// Who shares the key among those who vote at a height.
    pub fn sharing_at(&self, height: Height) -> Option<&Arc<Sharing>> {
        self.sharings.range(..=height).next_back().map(|(_, sharing)| sharing)
    }

    /// What the ceremony in progress does. `None`: there is none.
    pub fn stage(&self, logged: Height) -> Option<&'static str> {
        let running = self.running.as_ref()?;
        Some(if logged.next() < running.calendar.close { "deals" } else { "collects logs" })
    }

    /// This node's shares.
    pub fn book(&self) -> &ShareBook {
        &self.book
    }

    /// The first height at which what comes of a ceremony is used.
    fn first_use(&self, start: Height) -> Height {
        Height(start.0.saturating_add(self.genesis.rules.ceremony_heights))
    }

    fn place(&self, sharing: &Sharing, key: &PublicKey) -> Option<bpi_protocol::consensus::ids::ValidatorIndex> {
        self.genesis.period(&sharing.set())?.position(key)
    }

    fn read_outcome(&self, path: &Path) -> Result<Option<Sharing>, CeremoniesError> {
        let bytes = fs::read(path).map_err(failed_io("read", path))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let path = path.to_path_buf();
        let mut source = None;
        for period in &self.genesis.periods {
            match Sharing::from_bytes(&bytes, &period.set) {
                Ok(sharing) => return Ok(Some(sharing)),
                Err(SharingError::Set) => {}
                Err(error) => source = Some(error),
            }
        }
        Err(match source {
            Some(source) => CeremoniesError::Outcome { path, source },
            None => CeremoniesError::Set { path },
        })
    }

    fn outcome_path(&self, start: Height) -> PathBuf {
        self.folder.join(format!("outcome-{start}"))
    }

    fn logs_folder(&self, start: Height) -> PathBuf {
        self.folder.join(format!("logs-{start}"))
    }
}

impl Running {
    fn takes_logs_at(&self, height: Height) -> bool {
        (self.calendar.start..=self.calendar.conclude).contains(&height)
    }
}

fn make_folder(path: &Path) -> Result<(), CeremoniesError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(failed_io("make the folder", path)(source)),
        _ => Ok(()),
    }
}

/// Names and paths in a folder, in order.
fn list(folder: &Path) -> Result<BTreeMap<String, PathBuf>, CeremoniesError> {
    let entries = fs::read_dir(folder).map_err(failed_io("list", folder))?;
    let named = entries.map(|entry| {
        let entry = entry.map_err(failed_io("list", folder))?;
        Ok((entry.file_name().to_string_lossy().into_owned(), entry.path()))
    });
    named.collect()
}

fn failed_io(deed: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CeremoniesError {
    move |source| CeremoniesError::Io { deed, path: path.to_path_buf(), source }
}
