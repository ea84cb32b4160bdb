//! Batches under way, from packed to final: what to say to whom, and when to say it again.
//!
//! ```text
//! Opened ─┬─ Offer ─► pinners ─ Have ─► pieces ─► Kept, Kept, … enough ─ Attest ─┐
//!         └─ Submit ─► a validator ─► leaves wait for headers ────────────────────┴─ Wanted, at each header ─► Proofs ─► Final
//! ```
//!
//! Pure: an input and the time in, effects out; the host carries them out and gives back what comes of them. Nothing is believed that is not shown: a
//! header counts when `is_final` says so, a leaf when its path leads to that header, a batch when its attestation does. Always true: what is not
//! answered is said again, to the next validator, with pauses that grow to [`PAUSE_MS_MAX`]; batches that are not final are at most [`OPEN_MAX`]. A batch is
//! final when enough of its shards are kept, and is spread on for a while to pinners who were away. Absent on purpose:
//! bytes of shards, which are the host's, and disks.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bpi_protocol::availability::attestation::{Acknowledgement, Attestation, Batch, ShardSet};
use bpi_protocol::availability::placement::{Identity, placement};
use bpi_protocol::consensus::header::LogHead;
use bpi_protocol::consensus::ids::ChainId;
use bpi_protocol::log::Hash;
use bpi_protocol::log::leaf::LeafHash;
use bpi_protocol::log::proof::Inclusion;
use bpi_protocol::mesh::pinner;
use bpi_protocol::mesh::validator::{
    self, Attested, LEAVES_MAX, Reason, Sealed, WANTED_BATCHES_MAX, WANTED_LEAVES_MAX,
};

/// Batches that are open at a time; records beyond them wait in the spool.
pub const OPEN_MAX: usize = 64;
/// Batches that are final and still spread to pinners who were away, at most; of more the oldest are let be.
pub const SPREADING_MAX: usize = 256;
/// How long that goes on, in ms.
pub const SPREADING_MS: u64 = 3_600_000;
/// Shortest pause before something is said again, in ms: a few headers.
const PAUSE_MS: u64 = 2_000;
/// Longest pause, in ms.
pub const PAUSE_MS_MAX: u64 = 30_000;
/// How often proofs are asked for when no header is heard of, in ms.
const ASK_MS: u64 = 1_000;
/// Shortest time between two such questions, in ms: a header takes 250.
const ASK_MS_MIN: u64 = 50;
/// Questions at a time, of 256 leaves each.
const ASKS_MAX: usize = 4;
/// How often is asked after a header: who is asked first may hear of it last, and the next one comes after 250 ms.
const ASKS_PER_HEADER: u8 = 2;
/// How long who did not answer, or proved something else, is not asked for proofs, in ms.
const QUIET_MS: u64 = 5_000;

/// Whom a tenant's batches go to.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// The chain.
    pub chain: ChainId,
    /// Its validators.
    pub validators: Vec<Identity>,
    /// Its pinners.
    pub pinners: Vec<Identity>,
}

/// A leaf, by both its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// SHA-256 of the record's envelope.
    pub hash: Hash,
    /// The log's name for it.
    pub leaf: LeafHash,
}

/// A batch that is on disk here, new or found again.
#[derive(Clone, Debug)]
pub struct Opened {
    /// What it is.
    pub batch: Batch,
    /// The root of each shard.
    pub roots: Vec<Hash>,
    /// Its receipts and aborts, in order.
    pub entries: Vec<Entry>,
    /// What pinners have signed already.
    pub acknowledgements: Vec<Acknowledgement>,
    /// Leaves that are final already.
    pub included: BTreeSet<LeafHash>,
    /// A final header commits to it already.
    pub attested: bool,
}

/// What has happened.
#[derive(Debug)]
pub enum Input {
    /// A batch is on disk.
    Opened(Box<Opened>),
    /// A pinner has said something.
    Pinner(Identity, pinner::Answer),
    /// A validator has said something.
    Validator(Identity, validator::Answer),
    /// A relay tells of a header.
    Header,
    /// Time has passed.
    Time,
}

/// What has to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask a pinner.
    AskPinner(Identity, pinner::Request),
    /// Send a pinner the pieces of these shards.
    SendPieces(Identity, Hash, ShardSet),
    /// Ask a validator.
    AskValidator(Identity, validator::Request),
    /// Keep what a pinner has signed.
    KeepAcknowledgement(Hash, Box<Acknowledgement>),
    /// Keep the places of leaves in the log of a final header.
    KeepInclusions(Hash, Box<Sealed>, Vec<(LeafHash, Inclusion)>),
    /// Keep where a batch is committed to.
    KeepAttested(Hash, Box<Attested>),
    /// All of a batch is final, and enough of its data are kept.
    Final(Hash),
    /// Nothing more is done for it: all pinners have their shards, or have been away for too long.
    Closed(Hash),
    /// Tell the operator.
    Trouble(Trouble),
}

/// What an operator has to know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// A pinner keeps nothing of a batch.
    #[error("pinner {} refuses batch {}: {sentence}", short(pinner), short(da_root))]
    Refused {
        /// Who.
        pinner: Identity,
        /// Which batch.
        da_root: Hash,
        /// Why.
        sentence: String,
    },
    /// A pinner's signature does not hold.
    #[error("pinner {} acknowledges batch {} with a signature that does not hold", short(pinner), short(da_root))]
    Forged {
        /// Who.
        pinner: Identity,
        /// Which batch.
        da_root: Hash,
    },
    /// A validator's header is not final, or its paths lead nowhere.
    #[error("validator {} gives a proof that proves nothing: {reason}", short(validator))]
    Unproved {
        /// Who.
        validator: Identity,
        /// Why.
        reason: String,
    },
    /// A validator refuses a tenant's leaves or a batch.
    #[error("validator {} refuses batch {}: {reason:?}", short(validator), short(da_root))]
    NotTaken {
        /// Who.
        validator: Identity,
        /// Which batch.
        da_root: Hash,
        /// Why.
        reason: Reason,
    },
}

impl Trouble {
    /// Its kind, in a word, and what makes it this trouble and not another: the same again is no news, whatever figures its sentence has.
    pub fn name(&self) -> (&'static str, String) {
        let of = |who: &Identity, da_root: &Hash| format!("{} {}", hex::encode(who), hex::encode(da_root));
        match self {
            Self::Refused { pinner, da_root, .. } => ("pinner-refuses", of(pinner, da_root)),
            Self::Forged { pinner, da_root } => ("pinner-forges", of(pinner, da_root)),
            Self::Unproved { validator, reason } => {
                ("validator-unproved", format!("{} {reason}", hex::encode(validator)))
            }
            Self::NotTaken { validator, da_root, reason } => {
                ("validator-refuses", format!("{} {reason:?}", of(validator, da_root)))
            }
        }
    }
}

fn short(bytes: &[u8; 32]) -> String {
    hex::encode(&bytes[..6])
}

/// When something was said, and how long to wait for what comes of it.
#[derive(Clone, Copy, Debug)]
struct Said {
    at_ms: u64,
    pause_ms: u64,
}

impl Said {
    fn first(now_ms: u64) -> Self {
        Self { at_ms: now_ms, pause_ms: PAUSE_MS }
    }

    fn again_at_ms(&self) -> u64 {
        self.at_ms.saturating_add(self.pause_ms)
    }

    fn again(&mut self, now_ms: u64) {
        *self = Self { at_ms: now_ms, pause_ms: (2 * self.pause_ms).min(PAUSE_MS_MAX) };
    }
}

#[derive(Debug)]
struct Place {
    pinner: Identity,
    shards: ShardSet,
    offered: Said,
    kept: bool,
}

#[derive(Debug)]
struct Open {
    batch: Batch,
    roots: Vec<Hash>,
    /// Those that are not final yet.
    waiting: BTreeMap<LeafHash, Hash>,
    places: Vec<Place>,
    acknowledgements: BTreeMap<Identity, Acknowledgement>,
    submitted: Said,
    /// When it was given to a validator; `None`: too few pinners keep it yet.
    attest: Option<Said>,
    attested: bool,
    /// Who is asked, counted on at each silence.
    turn: usize,
    /// When it was opened, among all.
    number: usize,
    /// When it became final; it is spread on until all pinners keep their shards.
    final_ms: Option<u64>,
}

/// Says whether a header is final, by whom this agent trusts: `Err` with the reason if not.
pub trait Judge {
    /// Judges one.
    ///
    /// # Errors
    /// Why it does not count.
    fn is_final(&mut self, sealed: &Sealed) -> Result<(), String>;
}

/// All open batches of one mesh.
#[derive(Debug)]
pub struct Outbox<J> {
    mesh: Mesh,
    judge: J,
    open: BTreeMap<Hash, Open>,
    batch_of: BTreeMap<LeafHash, Hash>,
    /// Batches that were ever opened: by it they begin at different validators.
    opened: usize,
    asked_ms: u64,
    /// Who is asked for proofs first.
    turn: usize,
    /// Questions for proofs that are not answered yet.
    unanswered: BTreeMap<Identity, usize>,
    /// Who is not asked before then, unless nobody else is left.
    quiet: BTreeMap<Identity, u64>,
    /// Questions that are due at once, because of a header.
    due: u8,
}

impl<J: Judge> Outbox<J> {
    /// Without batches.
    pub fn new(mesh: Mesh, judge: J) -> Self {
        let (open, batch_of) = (BTreeMap::new(), BTreeMap::new());
        let (unanswered, quiet) = (BTreeMap::new(), BTreeMap::new());
        Self { mesh, judge, open, batch_of, opened: 0, asked_ms: 0, turn: 0, unanswered, quiet, due: 0 }
    }

    /// Batches that are not final.
    pub fn len(&self) -> usize {
        self.open.values().filter(|open| open.final_ms.is_none()).count()
    }

    /// True when nothing is under way, and nothing is spread.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// True when one more may be opened.
    pub fn has_room(&self) -> bool {
        self.len() < OPEN_MAX
    }

    /// When [`Input::Time`] is due next; `None` while nothing is under way.
    pub fn deadline_ms(&self) -> Option<u64> {
        let again = self.open.values().flat_map(|open| {
            let offers = open.places.iter().filter(|place| !place.kept).map(|place| place.offered.again_at_ms());
            let submitted = (!open.waiting.is_empty()).then(|| open.submitted.again_at_ms());
            let attest = open.attest.filter(|_| !open.attested).map(|said| said.again_at_ms());
            offers.chain(submitted).chain(attest)
        });
        let ask = self.wants_proofs().then_some(self.ask_at_ms());
        again.chain(ask).min()
    }

    /// When proofs are asked for next: at a header, but not before the last questions are answered; without either after a while.
    fn ask_at_ms(&self) -> u64 {
        let soon = self.due > 0 && self.unanswered.is_empty();
        self.asked_ms.saturating_add(if soon { ASK_MS_MIN } else { ASK_MS })
    }

    fn wants_proofs(&self) -> bool {
        self.open.values().any(|open| !open.waiting.is_empty() || (open.attest.is_some() && !open.attested))
    }

    fn validator(&self, turn: usize) -> Option<Identity> {
        let validators = &self.mesh.validators;
        validators.get(turn % validators.len().max(1)).copied()
    }

    /// Takes an input at a time of a clock that only goes forward, in ms.
    pub fn step(&mut self, now_ms: u64, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        match input {
            Input::Opened(opened) => self.open(now_ms, *opened, &mut out),
            Input::Pinner(from, answer) => self.hear_pinner(now_ms, from, answer, &mut out),
            Input::Validator(from, answer) => self.hear_validator(now_ms, from, answer, &mut out),
            Input::Header => self.due = ASKS_PER_HEADER,
            Input::Time => self.say_again(now_ms, &mut out),
        }
        if now_ms >= self.ask_at_ms() && self.wants_proofs() {
            self.ask(now_ms, &mut out);
        }
        out
    }

    fn open(&mut self, now_ms: u64, opened: Opened, out: &mut Vec<Effect>) {
        let Opened { batch, roots, entries, acknowledgements, included, attested } = opened;
        let da_root = batch.da_root;
        let waiting: BTreeMap<_, _> = entries
            .iter()
            .filter(|entry| !included.contains(&entry.leaf))
            .map(|entry| (entry.leaf, entry.hash))
            .collect();
        let acknowledgements: BTreeMap<_, _> = acknowledgements.into_iter().map(|each| (each.pinner, each)).collect();
        let said = Said::first(now_ms);
        let kept = |pinner: &Identity, shards: ShardSet| {
            acknowledgements.get(pinner).is_some_and(|each| each.shards.union(shards) == each.shards)
        };
        let places: Vec<_> = placement(&da_root, batch.coding.n(), &self.mesh.pinners)
            .into_iter()
            .filter(|(_, shards)| !shards.is_empty())
            .map(|(pinner, shards)| Place { pinner, shards, offered: said, kept: kept(&pinner, shards) })
            .collect();
        self.batch_of.extend(waiting.keys().map(|leaf| (*leaf, da_root)));
        let turn = self.opened;
        self.opened += 1;
        let open = Open {
            batch,
            roots,
            waiting,
            places,
            acknowledgements,
            submitted: said,
            attest: None,
            attested,
            turn,
            number: turn,
            final_ms: None,
        };
        out.extend(open.places.iter().filter(|place| !place.kept).map(|place| open.offer(place)));
        out.extend(self.validator(turn).and_then(|validator| open.submission(validator)));
        self.open.insert(da_root, open);
        self.attest(now_ms, &da_root, out);
        self.close(now_ms, &da_root, out);
    }

    fn hear_pinner(&mut self, now_ms: u64, from: Identity, answer: pinner::Answer, out: &mut Vec<Effect>) {
        match answer {
            pinner::Answer::Have { da_root, shards } => {
                let Some(place) = self.place(&da_root, &from) else { return };
                let missing: ShardSet = place.shards.iter().filter(|shard| !shards.contains(*shard)).collect();
                if !place.kept && !missing.is_empty() {
                    place.offered.at_ms = now_ms;
                    out.push(Effect::SendPieces(from, da_root, missing));
                }
            }
            pinner::Answer::Kept { da_root, acknowledgement } => {
                let chain = self.mesh.chain;
                let Some(open) = self.open.get_mut(&da_root) else { return };
                let Some(place) = open.places.iter_mut().find(|place| place.pinner == from) else { return };
                let shards = acknowledgement.shards;
                if acknowledgement.pinner != from
                    || !shards.within(open.batch.coding.n())
                    || !acknowledgement.is_signed(chain, &open.batch)
                {
                    return out.push(Effect::Trouble(Trouble::Forged { pinner: from, da_root }));
                }
                place.kept = place.shards.union(shards) == shards;
                open.acknowledgements.insert(from, *acknowledgement);
                out.push(Effect::KeepAcknowledgement(da_root, acknowledgement));
                self.attest(now_ms, &da_root, out);
                self.close(now_ms, &da_root, out);
            }
            pinner::Answer::Refused { da_root, sentence, .. } => {
                if self.place(&da_root, &from).is_some_and(|place| !place.kept) {
                    out.push(Effect::Trouble(Trouble::Refused { pinner: from, da_root, sentence }));
                }
            }
            // Nobody asked for these.
            pinner::Answer::Opening { .. } | pinner::Answer::Piece(_) | pinner::Answer::Described(_) => {}
        }
    }

    fn place(&mut self, da_root: &Hash, pinner: &Identity) -> Option<&mut Place> {
        self.open.get_mut(da_root)?.places.iter_mut().find(|place| place.pinner == *pinner)
    }

    /// Gives a batch to a validator, when enough pinners keep it and it was not given yet.
    fn attest(&mut self, now_ms: u64, da_root: &Hash, out: &mut Vec<Effect>) {
        let Some(turn) = self.open.get(da_root).map(|open| open.turn) else { return };
        let Some(validator) = self.validator(turn) else { return };
        let Some(open) = self.open.get_mut(da_root) else { return };
        if open.attested || open.attest.is_some() {
            return;
        }
        if let Some(attestation) = open.attestation() {
            open.attest = Some(Said::first(now_ms));
            out.push(Effect::AskValidator(validator, validator::Request::Attest(Box::new(attestation))));
        }
    }

    fn hear_validator(&mut self, now_ms: u64, from: Identity, answer: validator::Answer, out: &mut Vec<Effect>) {
        if !self.mesh.validators.contains(&from) {
            return;
        }
        match answer {
            validator::Answer::Submitted { refused, .. } => {
                let refused = refused.iter().find(|(_, reason)| matches!(reason, Reason::Tenant | Reason::Reserved));
                if let Some((hash, reason)) = refused
                    && let Some((da_root, _)) =
                        self.open.iter().find(|(_, open)| open.waiting.values().any(|waiting| waiting == hash))
                {
                    let (validator, da_root, reason) = (from, *da_root, *reason);
                    out.push(Effect::Trouble(Trouble::NotTaken { validator, da_root, reason }));
                }
            }
            validator::Answer::Attest { da_root, reason } => {
                let refused = !matches!(reason, Reason::Taken | Reason::Waiting | Reason::Included | Reason::Full);
                if refused && self.open.contains_key(&da_root) {
                    out.push(Effect::Trouble(Trouble::NotTaken { validator: from, da_root, reason }));
                }
            }
            validator::Answer::Proofs { sealed, leaves, batches } => {
                if let Some(left) = self.unanswered.get_mut(&from) {
                    *left -= 1;
                    self.unanswered.retain(|_, left| *left > 0);
                }
                // More of them are final, as it seems: the rest is asked for without waiting for a header.
                self.due = self.due.max(u8::from(!leaves.is_empty()));
                if let Err(reason) = self.take_proofs(now_ms, *sealed, leaves, batches, out) {
                    self.quiet.insert(from, now_ms.saturating_add(QUIET_MS));
                    out.push(Effect::Trouble(Trouble::Unproved { validator: from, reason }));
                }
            }
        }
    }

    fn take_proofs(
        &mut self,
        now_ms: u64,
        sealed: Sealed,
        leaves: Vec<(LeafHash, Inclusion)>,
        batches: Vec<Attested>,
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        let mut proved: BTreeMap<Hash, Vec<(LeafHash, Inclusion)>> = BTreeMap::new();
        if !leaves.is_empty() {
            self.judge.is_final(&sealed)?;
        }
        for (leaf, inclusion) in leaves {
            // It may have been proved by another answer.
            let Some(da_root) = self.batch_of.get(&leaf).copied() else { continue };
            inclusion.check(&leaf.0, &sealed.header.receipts).map_err(|error| error.to_string())?;
            proved.entry(da_root).or_default().push((leaf, inclusion));
        }
        let mut changed: BTreeSet<Hash> = proved.keys().copied().collect();
        for (da_root, leaves) in proved {
            for (leaf, _) in &leaves {
                self.batch_of.remove(leaf);
                if let Some(open) = self.open.get_mut(&da_root) {
                    open.waiting.remove(leaf);
                }
            }
            out.push(Effect::KeepInclusions(da_root, Box::new(sealed.clone()), leaves));
        }
        for attested in batches {
            let batch = attested.attestation.batch;
            let Some(open) = self.open.get_mut(&batch.da_root).filter(|open| !open.attested) else { continue };
            if batch != open.batch {
                return Err("it attests another batch of the same da_root".to_owned());
            }
            let Attested { sealed, attestation, inclusion } = &attested;
            self.judge.is_final(sealed)?;
            let head = LogHead { size: inclusion.size, root: sealed.header.da_root };
            inclusion.check(&attestation.leaf_hash(), &head).map_err(|error| error.to_string())?;
            let made_s = sealed.header.time.0 / 1000;
            let pinners = &self.mesh.pinners;
            let counts = |pinner: &Identity| pinners.contains(pinner);
            attestation.check(self.mesh.chain, made_s, counts).map_err(|error| error.to_string())?;
            open.attested = true;
            changed.insert(batch.da_root);
            out.push(Effect::KeepAttested(batch.da_root, Box::new(attested)));
        }
        changed.iter().for_each(|da_root| self.close(now_ms, da_root, out));
        Ok(())
    }

    /// A batch that has all its proofs is final; it is under way no more when all pinners keep their shards, too.
    fn close(&mut self, now_ms: u64, da_root: &Hash, out: &mut Vec<Effect>) {
        let Some(open) = self.open.get_mut(da_root) else { return };
        if !open.attested || !open.waiting.is_empty() {
            return;
        }
        if open.final_ms.is_none() {
            open.final_ms = Some(now_ms);
            out.push(Effect::Final(*da_root));
        }
        if open.places.iter().all(|place| place.kept) {
            self.open.remove(da_root);
            out.push(Effect::Closed(*da_root));
        }
    }

    /// Lets batches be whose last pinners have been away for too long, or are too many.
    fn let_be(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        let spreading = self.open.values().filter_map(|open| Some((open.final_ms?, open.batch.da_root)));
        let mut spreading: Vec<(u64, Hash)> = spreading.collect();
        spreading.sort_unstable();
        let many = spreading.len().saturating_sub(SPREADING_MAX);
        for (at, (final_ms, da_root)) in spreading.into_iter().enumerate() {
            if at < many || now_ms.saturating_sub(final_ms) >= SPREADING_MS {
                self.open.remove(&da_root);
                out.push(Effect::Closed(da_root));
            }
        }
    }

    fn say_again(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        self.let_be(now_ms, out);
        let due = |said: &Said| now_ms >= said.again_at_ms();
        let validators = &self.mesh.validators;
        for open in self.open.values_mut() {
            let late: Vec<usize> =
                (0..open.places.len()).filter(|at| !open.places[*at].kept && due(&open.places[*at].offered)).collect();
            for at in late {
                open.places[at].offered.again(now_ms);
                out.push(open.offer(&open.places[at]));
            }
            let submit = !open.waiting.is_empty() && due(&open.submitted);
            let attest = !open.attested && open.attest.as_ref().is_some_and(due);
            if !submit && !attest {
                continue;
            }
            // Who was asked is silent, or has lost it.
            open.turn += 1;
            let Some(validator) = validators.get(open.turn % validators.len().max(1)).copied() else { continue };
            if submit {
                open.submitted.again(now_ms);
                out.extend(open.submission(validator));
            }
            if attest && let Some(attestation) = open.attestation() {
                open.attest.iter_mut().for_each(|said| said.again(now_ms));
                out.push(Effect::AskValidator(validator, validator::Request::Attest(Box::new(attestation))));
            }
        }
    }

    /// Asks validators what has become of all that waits, each of them something else: one alone looks up no more than 1 250 leaves in a second for one
    /// agent. Each time they are asked in another order, so that who says of everything that it is not final, or lags, is asked for the same once.
    fn ask(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        let silent = std::mem::take(&mut self.unanswered).into_keys();
        self.quiet.extend(silent.map(|validator| (validator, now_ms.saturating_add(QUIET_MS))));
        self.quiet.retain(|_, until_ms| *until_ms > now_ms);
        let all = &self.mesh.validators;
        let mut asked: Vec<Identity> = all.iter().copied().filter(|each| !self.quiet.contains_key(each)).collect();
        if asked.is_empty() {
            asked.clone_from(all);
        }
        if asked.is_empty() {
            return;
        }
        self.turn += 1;
        // Those that wait for longest first: headers take leaves in that order too.
        let mut oldest: Vec<&Open> = self.open.values().collect();
        oldest.sort_unstable_by_key(|open| open.number);
        let leaves = oldest.iter().flat_map(|open| open.waiting.keys().copied());
        let leaves: Vec<LeafHash> = leaves.take(ASKS_MAX * WANTED_LEAVES_MAX).collect();
        let given = oldest.iter().filter(|open| open.attest.is_some() && !open.attested);
        let batches: Vec<Hash> = given.map(|open| open.batch.da_root).collect();
        let (mut leaves, mut batches) = (leaves.chunks(WANTED_LEAVES_MAX), batches.chunks(WANTED_BATCHES_MAX));
        for at in 0..ASKS_MAX {
            let (leaves, batches) = (leaves.next().unwrap_or_default(), batches.next().unwrap_or_default());
            if leaves.is_empty() && batches.is_empty() {
                break;
            }
            let request = validator::Request::Wanted { leaves: leaves.to_vec(), batches: batches.to_vec() };
            let validator = asked[(self.turn + at) % asked.len()];
            out.push(Effect::AskValidator(validator, request));
            *self.unanswered.entry(validator).or_default() += 1;
        }
        (self.asked_ms, self.due) = (now_ms, self.due.saturating_sub(1));
    }
}

impl Open {
    fn offer(&self, place: &Place) -> Effect {
        let described = pinner::Described { batch: self.batch, shards: place.shards, roots: self.roots.clone() };
        Effect::AskPinner(place.pinner, pinner::Request::Offer(Box::new(described)))
    }

    fn submission(&self, validator: Identity) -> Option<Effect> {
        let leaves: Vec<Hash> = self.waiting.values().copied().take(LEAVES_MAX).collect();
        let tenant = self.batch.tenant;
        match leaves.is_empty() {
            true => None,
            false => Some(Effect::AskValidator(validator, validator::Request::Submit { tenant, leaves })),
        }
    }

    /// What can be shown of it, if that is enough.
    fn attestation(&self) -> Option<Attestation> {
        let acknowledgements = self.acknowledgements.values().copied().collect();
        let attestation = Attestation { batch: self.batch, acknowledgements };
        (attestation.shards().len() >= self.batch.coding.acknowledged_min()).then_some(attestation)
    }
}
