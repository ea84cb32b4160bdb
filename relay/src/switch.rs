//! The heart of the relay: all that it knows and decides, in one value, without a socket or a clock.
//!
//! A frame goes `admit → fingerprint → hand on`: its envelope is read and its sender's budget charged; its digest is made, once; then it goes
//! to the connections that take frames for its key, or waits for one that was here a moment ago, or is dropped for a reason with a name.
//! The digest is the dear step and needs nothing of the switch, so an edge with several threads makes it between two short calls
//! ([`Switch::admit`], [`Switch::hand_on`]); [`Switch::forward`] does all three.
//!
//! What always holds: every table is bounded ([`Limits`]); forwarding to a live connection allocates nothing; all recipients share the bytes
//! that came; a refused frame costs no digest. Absent on purpose: queues (a connection's is the edge's), retries, signatures.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::budget::{Crowd, Debt, Level, Over, Pool, Rates, Share};
use crate::envelope::{Envelope, KeyId, NetworkId};
use crate::feed::{BODY_BYTES_MAX, FEEDS_MAX, Feed, Taken};
use crate::fingerprint::{Fingerprint, Recent};
use crate::keys::{ANNOUNCEMENT_BYTES_MAX, Displaced, Keys, Place, Recipients};
use crate::peer::{ConnId, Prefix, Role, SPIFFE_BYTES_MAX, WEIGHT_MAX, Who};
use crate::roster::{Index, Roster};
use crate::score::{CloseCode, Fault, Score, Then};
use crate::seeded::Seeded;
use crate::store::{Store, StoreBounds};
use crate::tally::{DropReason, Tally};

/// Keys that one connection takes frames for, at most.
pub const KEYS_PER_CONNECTION: usize = 16;
/// Networks whose headers one connection follows, at most.
pub const FEEDS_PER_CONNECTION: usize = 8;
/// How long an announcement can be asked for after its key has left, in s.
pub const ANNOUNCEMENT_KEPT_S: u64 = 3600;
/// How long an account, a prefix or an ASN is remembered after its last connection, in s: as long as it may be cut off, and until its debts
/// have faded to nothing.
const REMEMBERED_S: u64 = 30;
/// What one look at the clock may clear away of each table, so that no call takes long. At ten looks a second it is 40 960 entries.
const SWEEP_MAX: usize = 4096;
/// Microseconds of a second.
const S_US: u64 = 1_000_000;

/// A moment, by two clocks: one that only goes forward, and the one that frames are dated by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Microseconds of a clock that never goes back, from any beginning.
    pub us: u64,
    /// Seconds since 1970.
    pub unix_s: u64,
}

/// Bounds of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one SPIFFE id.
    pub per_account: u32,
    /// Connections from one prefix.
    pub per_prefix: u32,
    /// Connections from one ASN.
    pub per_asn: u32,
    /// Keys that are known.
    pub keys: usize,
    /// Digests of one generation.
    pub recent: usize,
    /// How long a generation of digests lasts at most, in ms: copies of a frame that take different ways come within that time. What its sender
    /// sends again, because a datagram was lost behind this relay, comes later and has to pass.
    pub recent_ms: u64,
    /// For how long a frame may live at most, in s.
    pub lifetime_s: u32,
    /// By how much a sender's clock may be off, in s.
    pub skew_s: u32,
}

impl Default for Limits {
    fn default() -> Self {
        // 28 672 is what a table of 2^15 buckets holds, more than a million frames a second bring in 25 ms. Two of them take 1.2 MiB and stay
        // in the processor's cache; with eight times as many each new frame waits for memory four times, longer than for all else here.
        Self {
            connections: 4096,
            per_account: 8,
            per_prefix: 256,
            per_asn: 2048,
            keys: 16_384,
            recent: 28_672,
            recent_ms: 25,
            lifetime_s: 120,
            skew_s: 5,
        }
    }
}

/// How a switch works.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Networks that are served; none means all.
    pub networks: Vec<NetworkId>,
    /// Bounds of the tables.
    pub limits: Limits,
    /// The capacity and how it is shared.
    pub rates: Rates,
    /// Bounds of what waits.
    pub store: StoreBounds,
    /// Of the kernel's randomness: strangers choose the keys of the tables.
    pub seed: [u8; 16],
}

/// Why a connection or a registration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The relay is about to end.
    #[error("the relay is draining and takes nothing new")]
    Draining,
    /// No more connections.
    #[error("there are {limit} connections, which is the limit")]
    Connections {
        /// The limit.
        limit: usize,
    },
    /// No more connections of this SPIFFE id.
    #[error("{spiffe} has {limit} connections, which is the limit of one id")]
    PerAccount {
        /// The SPIFFE id.
        spiffe: String,
        /// The limit.
        limit: u32,
    },
    /// No more connections from this prefix.
    #[error("the prefix {prefix:x?} has {limit} connections, which is the limit of one prefix")]
    PerPrefix {
        /// The prefix.
        prefix: Prefix,
        /// The limit.
        limit: u32,
    },
    /// No more connections from this ASN.
    #[error("AS{asn} has {limit} connections, which is the limit of one network")]
    PerAsn {
        /// The ASN.
        asn: u32,
        /// The limit.
        limit: u32,
    },
    /// The peer misbehaved.
    #[error("{spiffe} misbehaved and is refused for {left_ms} ms more")]
    CutOff {
        /// The SPIFFE id.
        spiffe: String,
        /// For so long.
        left_ms: u64,
    },
    /// No SPIFFE id is that long.
    #[error("a SPIFFE id of {bytes} bytes is refused: at most {SPIFFE_BYTES_MAX}")]
    SpiffeId {
        /// Its length.
        bytes: usize,
    },
    /// The edge has used a number twice.
    #[error("connection {conn:?} is known already")]
    ConnectionKnown {
        /// The connection.
        conn: ConnId,
    },
    /// The edge has not told of this connection, or told that it is gone.
    #[error("connection {conn:?} is not known")]
    ConnectionUnknown {
        /// The connection.
        conn: ConnId,
    },
    /// No announcement is that long.
    #[error("an announcement of {bytes} bytes is refused: at most {ANNOUNCEMENT_BYTES_MAX}")]
    Announcement {
        /// Its length.
        bytes: usize,
    },
    /// The connection takes frames for enough keys.
    #[error("the connection has registered {limit} keys, which is the limit")]
    KeysPerConnection {
        /// The limit.
        limit: usize,
    },
    /// The connection follows enough networks.
    #[error("the connection follows {limit} networks, which is the limit")]
    FeedsPerConnection {
        /// The limit.
        limit: usize,
    },
    /// Every place is taken by keys in use.
    #[error("{limit} keys are in use, which is the limit")]
    Keys {
        /// The limit.
        limit: usize,
    },
    /// A network that is not served here.
    #[error("network {network:?} is not served here")]
    Network {
        /// The network.
        network: NetworkId,
    },
}

/// What was dropped, and what follows for its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Why.
    pub reason: DropReason,
    /// What is to be done with the connection that it came from.
    pub then: Then,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Hand it to these connections.
    HandOn {
        /// One to four connections.
        to: Recipients,
        /// What [`Switch::undelivered`] wants to know when one of them cannot take it.
        print: Fingerprint,
    },
    /// It waits for its destination.
    Stored,
    /// It is gone.
    Dropped(Dropped),
}

/// A frame that may pass, but whose digest is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    envelope: Envelope,
    sender: u64,
}

/// How far a drain has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// Connections are still there, and there is time.
    Waiting {
        /// So many.
        connections: usize,
        /// Milliseconds to the deadline.
        left_ms: u64,
    },
    /// All connections are gone.
    Empty,
    /// The time is up.
    Deadline {
        /// Connections that are still there.
        connections: usize,
    },
}

#[derive(Debug)]
struct Account {
    /// Never used again, unlike its slot: what waits in the store may outlive it.
    serial: u64,
    share: Share,
    score: Score,
    /// Where its first connection came from: its guarantee counts there.
    home: (Index, Option<Index>),
}

/// A prefix or an ASN.
#[derive(Debug, Default)]
struct Crowded {
    debt: Debt,
    weight: f64,
}

#[derive(Debug)]
struct Conn {
    account: Index,
    prefix: Index,
    asn: Option<Index>,
    role: Role,
    keys: Vec<KeyId>,
    feeds: Vec<NetworkId>,
}

/// All that the relay knows.
#[derive(Debug)]
pub struct Switch {
    settings: Settings,
    conns: HashMap<ConnId, Conn, Seeded>,
    accounts: Roster<String, Account>,
    prefixes: Roster<Prefix, Crowded>,
    asns: Roster<u32, Crowded>,
    pool: Pool,
    keys: Keys,
    recent: Recent,
    store: Store,
    feeds: BTreeMap<NetworkId, Feed>,
    drain_until_us: Option<u64>,
    next_serial: u64,
    tally: Tally,
}

impl Switch {
    /// With nobody connected.
    pub fn new(settings: Settings) -> Self {
        let seeded = Seeded::new(settings.seed);
        let Limits { connections, keys, recent, recent_ms, .. } = settings.limits;
        // As many again are remembered as can be here: who left half a minute ago may come back as it was.
        let remembered = connections.saturating_mul(2);
        Self {
            conns: HashMap::with_hasher(seeded),
            accounts: Roster::new(remembered),
            prefixes: Roster::new(remembered),
            asns: Roster::new(remembered),
            pool: Pool::new(&settings.rates),
            keys: Keys::new(keys, seeded),
            recent: Recent::new(recent, recent_ms, seeded),
            store: Store::new(settings.store),
            feeds: settings.networks.iter().take(FEEDS_MAX).map(|network| (*network, Feed::default())).collect(),
            drain_until_us: None,
            next_serial: 0,
            tally: Tally::default(),
            settings,
        }
    }

    /// How it works.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A peer has connected and shown who it is.
    ///
    /// # Errors
    /// [`Refusal`]: close it, and nothing was done.
    pub fn connected(&mut self, now: Now, conn: ConnId, who: Who) -> Result<(), Refusal> {
        let Limits { connections, per_account, per_prefix, per_asn, .. } = self.settings.limits;
        if self.drain_until_us.is_some() {
            return Err(Refusal::Draining);
        }
        let Who { spiffe, role, addr, asn, weight } = who;
        if spiffe.len() > SPIFFE_BYTES_MAX {
            return Err(Refusal::SpiffeId { bytes: spiffe.len() });
        }
        if self.conns.contains_key(&conn) {
            return Err(Refusal::ConnectionKnown { conn });
        }
        let known = self.accounts.find(&spiffe).and_then(|at| self.accounts.get(at));
        if let Some(left_ms) = known.and_then(|account| account.score.cut_off_ms(now.us)) {
            return Err(Refusal::CutOff { spiffe, left_ms });
        }
        if self.conns.len() >= connections {
            return Err(Refusal::Connections { limit: connections });
        }
        let first = match self.accounts.connections_of(&spiffe) {
            count if count >= per_account => return Err(Refusal::PerAccount { spiffe, limit: per_account }),
            count => count == 0,
        };
        let prefix_key = Prefix::of(addr);
        if self.prefixes.connections_of(&prefix_key) >= per_prefix {
            return Err(Refusal::PerPrefix { prefix: prefix_key, limit: per_prefix });
        }
        if let Some(asn) = asn.filter(|asn| self.asns.connections_of(asn) >= per_asn) {
            return Err(Refusal::PerAsn { asn, limit: per_asn });
        }
        // Rosters hold twice as many as there may be connections, so none is full of those who are here.
        let full = || Refusal::Connections { limit: connections };
        let prefix = self.prefixes.enter(&prefix_key, Crowded::default).ok_or_else(full)?;
        let asn = match asn {
            Some(asn) => Some(self.asns.enter(&asn, Crowded::default).ok_or_else(full)?),
            None => None,
        };
        let serial = self.next_serial;
        self.next_serial += 1;
        let weight = weight.clamp(1, WEIGHT_MAX);
        let account = self
            .accounts
            .enter(&spiffe, || Account {
                serial,
                share: Share::new(now.us, weight),
                score: Score::default(),
                home: (prefix, asn),
            })
            .ok_or_else(full)?;
        if let (true, Some(state)) = (first, self.accounts.get_mut(account)) {
            state.share.rejoin(now.us, weight);
            state.home = (prefix, asn);
            self.pool.join(&state.share);
            let own = state.share.weight();
            self.hold_home((prefix, asn), own);
        }
        self.conns.insert(conn, Conn { account, prefix, asn, role, keys: Vec::new(), feeds: Vec::new() });
        Ok(())
    }

    /// An account's home holds its prefix and its ASN as a connection does, so that they stay while it counts there.
    fn hold_home(&mut self, (prefix, asn): (Index, Option<Index>), weight: f64) {
        self.prefixes.hold(prefix);
        if let Some(prefix) = self.prefixes.get_mut(prefix) {
            prefix.weight += weight;
        }
        if let Some(asn) = asn {
            self.asns.hold(asn);
            if let Some(asn) = self.asns.get_mut(asn) {
                asn.weight += weight;
            }
        }
    }

    fn release_home(&mut self, now_us: u64, (prefix, asn): (Index, Option<Index>), weight: f64) {
        if let Some(prefix) = self.prefixes.get_mut(prefix) {
            prefix.weight = (prefix.weight - weight).max(0.0);
        }
        self.prefixes.release(prefix, now_us);
        if let Some(asn) = asn {
            if let Some(asn) = self.asns.get_mut(asn) {
                asn.weight = (asn.weight - weight).max(0.0);
            }
            self.asns.release(asn, now_us);
        }
    }

    /// A connection is gone, with its registrations.
    pub fn disconnected(&mut self, now: Now, conn: ConnId) {
        let Some(Conn { account, prefix, asn, keys, feeds, .. }) = self.conns.remove(&conn) else { return };
        for key in keys {
            self.left(now, conn, key);
        }
        for network in feeds {
            if let Some(feed) = self.feeds.get_mut(&network) {
                feed.leave(conn);
            }
        }
        if self.accounts.leave(account, now.us) == 0
            && let Some(state) = self.accounts.get(account)
        {
            let (home, weight) = (state.home, state.share.weight());
            self.pool.part(&state.share);
            self.release_home(now.us, home, weight);
        }
        self.prefixes.leave(prefix, now.us);
        if let Some(asn) = asn {
            self.asns.leave(asn, now.us);
        }
    }

    fn left(&mut self, now: Now, conn: ConnId, key: KeyId) {
        if let Some(forgotten) = self.keys.unregister(now.us, conn, key) {
            self.abandon(now, forgotten);
        }
    }

    /// Drops what waits for a key that is known no more.
    fn abandon(&mut self, now: Now, key: KeyId) {
        let (frames, late) = self.store.take(now.unix_s, key);
        self.tally.drop(DropReason::StoreKey, frames.len() as u64);
        self.tally.drop(DropReason::StoreExpired, late);
    }

    /// A connection takes frames for a key from now on; the edge has checked the signature over that. Of four others that do, the one that
    /// came first does so no more. Gives the frames that waited.
    ///
    /// # Errors
    /// [`Refusal`], and nothing was done.
    pub fn register(&mut self, now: Now, conn: ConnId, key: KeyId, announcement: &[u8]) -> Result<Vec<Bytes>, Refusal> {
        if self.drain_until_us.is_some() {
            return Err(Refusal::Draining);
        }
        if announcement.len() > ANNOUNCEMENT_BYTES_MAX {
            return Err(Refusal::Announcement { bytes: announcement.len() });
        }
        let state = self.conns.get_mut(&conn).ok_or(Refusal::ConnectionUnknown { conn })?;
        let known = state.keys.contains(&key);
        if !known && state.keys.len() >= KEYS_PER_CONNECTION {
            return Err(Refusal::KeysPerConnection { limit: KEYS_PER_CONNECTION });
        }
        let account = self
            .accounts
            .get(state.account)
            .map(|account| account.serial)
            .ok_or(Refusal::ConnectionUnknown { conn })?;
        // Copied: as a slice of a receive buffer it would hold all of that for an hour.
        let Displaced { conn: older, key: forgotten } = self
            .keys
            .register(conn, account, key, Bytes::copy_from_slice(announcement))
            .ok_or(Refusal::Keys { limit: self.settings.limits.keys })?;
        if !known {
            state.keys.push(key);
        }
        if let Some(older) = older.and_then(|older| self.conns.get_mut(&older)) {
            older.keys.retain(|other| *other != key);
        }
        if let Some(forgotten) = forgotten {
            self.abandon(now, forgotten);
        }
        self.tally.registrations += 1;
        let (frames, late) = self.store.take(now.unix_s, key);
        self.tally.drop(DropReason::StoreExpired, late);
        self.tally.stored_out += frames.len() as u64;
        self.tally.frames_out += frames.len() as u64;
        self.tally.bytes_out += frames.iter().map(|(_, frame)| frame.len() as u64).sum::<u64>();
        let handed = frames.into_iter().map(|(print, frame)| {
            self.recent.remember(now.us, print, 1);
            frame
        });
        Ok(handed.collect())
    }

    /// A connection takes frames for a key no more.
    pub fn unregister(&mut self, now: Now, conn: ConnId, key: KeyId) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        let had = state.keys.len();
        state.keys.retain(|other| *other != key);
        if state.keys.len() < had {
            self.left(now, conn, key);
        }
    }

    /// The announcement of a key that is registered or was within the last hour.
    pub fn announcement(&self, now: Now, key: KeyId) -> Option<Bytes> {
        match self.keys.place(key) {
            Place::Left { at_us } if now.us.saturating_sub(at_us) >= ANNOUNCEMENT_KEPT_S * S_US => None,
            _ => self.keys.announcement(key),
        }
    }

    /// Decides about a frame, all steps at once.
    pub fn forward(&mut self, now: Now, from: ConnId, frame: &Bytes) -> Verdict {
        match self.admit(now, from, frame) {
            Ok(admitted) => self.hand_on(now, admitted, Fingerprint::of(frame), frame),
            Err(dropped) => Verdict::Dropped(dropped),
        }
    }

    /// Whether a frame may pass: its envelope, its sender's credit and budget.
    ///
    /// # Errors
    /// [`Dropped`], when it may not.
    pub fn admit(&mut self, now: Now, from: ConnId, frame: &[u8]) -> Result<Admitted, Dropped> {
        self.tally.frames_in += 1;
        self.tally.bytes_in += frame.len() as u64;
        let sender = self.charge(now, from, frame.len())?.serial;
        let blamed = match Envelope::read(frame) {
            Ok(envelope) => match self.fault_of(now, &envelope) {
                None => return Ok(Admitted { envelope, sender }),
                Some(blamed) => blamed,
            },
            Err(_) => (DropReason::Malformed, Fault::Malformed),
        };
        self.tally.drop(blamed.0, 1);
        Err(Dropped { reason: blamed.0, then: self.blame(now, from, blamed.1) })
    }

    fn fault_of(&self, now: Now, envelope: &Envelope) -> Option<(DropReason, Fault)> {
        let Limits { lifetime_s, skew_s, .. } = self.settings.limits;
        let (expiry_s, skew_s) = (u64::from(envelope.expiry_s), u64::from(skew_s));
        if !self.serves(envelope.network) {
            Some((DropReason::WrongNetwork, Fault::WrongNetwork))
        } else if expiry_s <= now.unix_s {
            Some((DropReason::Expired, Fault::Expired))
        } else if expiry_s > now.unix_s.saturating_add(u64::from(lifetime_s) + skew_s) {
            Some((DropReason::FarExpiry, Fault::FarExpiry))
        } else {
            None
        }
    }

    fn serves(&self, network: NetworkId) -> bool {
        self.settings.networks.is_empty() || self.settings.networks.contains(&network)
    }

    /// Takes what so many bytes cost from the budgets of a connection. Gives its account.
    fn charge(&mut self, now: Now, from: ConnId, bytes: usize) -> Result<&mut Account, Dropped> {
        let unknown = Dropped { reason: DropReason::UnknownConnection, then: Then::Close { code: CloseCode::Refused } };
        let tally = &mut self.tally;
        let mut refuse = |dropped: Dropped| {
            tally.drop(dropped.reason, 1);
            dropped
        };
        let Some(conn) = self.conns.get(&from) else { return Err(refuse(unknown)) };
        let (account, prefix) = (self.accounts.get_mut(conn.account), conn.prefix);
        let Some(account) = account else { return Err(refuse(unknown)) };
        if account.score.cut_off_ms(now.us).is_some() {
            let then = Then::Close { code: CloseCode::Misbehaved };
            return Err(refuse(Dropped { reason: DropReason::CutOff, then }));
        }
        let (home_prefix, home_asn) = account.home;
        let crowd = Crowd {
            prefix: self.prefixes.get(home_prefix).map_or(0.0, |crowd| crowd.weight),
            asn: home_asn.and_then(|asn| self.asns.get(asn)).map(|crowd| crowd.weight),
        };
        let Some(prefix) = self.prefixes.get_mut(prefix) else { return Err(refuse(unknown)) };
        let asn = conn.asn.and_then(|asn| self.asns.get_mut(asn)).map(|crowd| &mut crowd.debt);
        match self.pool.spend(now.us, bytes, (&mut account.share, crowd), &mut prefix.debt, asn) {
            Ok(()) => Ok(account),
            Err(Over { level, wait_ms }) => {
                let reason = match level {
                    Level::Account => DropReason::BudgetAccount,
                    Level::Prefix => DropReason::BudgetPrefix,
                    Level::Asn => DropReason::BudgetAsn,
                    Level::Relay => DropReason::BudgetRelay,
                };
                Err(refuse(Dropped { reason, then: Then::Slow { delay_ms: wait_ms } }))
            }
        }
    }

    /// A peer did something wrong that the edge has seen. Says what follows.
    pub fn blame(&mut self, now: Now, conn: ConnId, fault: Fault) -> Then {
        let account = self.conns.get(&conn).map(|conn| conn.account);
        let Some(account) = account.and_then(|at| self.accounts.get_mut(at)) else { return Then::Go };
        let then = account.score.blame(now.us, fault);
        self.tally.closed += u64::from(matches!(then, Then::Close { .. }));
        then
    }

    /// Decides where an admitted frame goes.
    pub fn hand_on(&mut self, now: Now, admitted: Admitted, print: Fingerprint, frame: &[u8]) -> Verdict {
        let Admitted { envelope, sender } = admitted;
        if self.recent.copies(now.us, &print).is_some() {
            return self.dropped(DropReason::Duplicate);
        }
        match self.keys.place(envelope.key) {
            Place::Here(to) => {
                self.recent.remember(now.us, print, to.len() as u8);
                self.tally.frames_taken += 1;
                self.tally.frames_out += to.len() as u64;
                self.tally.bytes_out += to.len() as u64 * frame.len() as u64;
                Verdict::HandOn { to, print }
            }
            Place::Left { at_us } if now.us.saturating_sub(at_us) < self.keep_us() => {
                if self.store.holds(&print) {
                    return self.dropped(DropReason::Duplicate);
                }
                let place = (envelope.key, sender, u64::from(envelope.expiry_s));
                let Some(evicted) = self.store.keep(now.unix_s, place, print, frame) else {
                    return self.dropped(DropReason::StoreTooLarge);
                };
                self.tally.drop(DropReason::StoreSender, evicted.sender);
                self.tally.drop(DropReason::StoreKey, evicted.key);
                self.tally.drop(DropReason::StoreTotal, evicted.total);
                self.tally.frames_taken += 1;
                self.tally.stored += 1;
                Verdict::Stored
            }
            Place::Left { .. } | Place::Unknown => self.dropped(DropReason::NoRoute),
        }
    }

    fn keep_us(&self) -> u64 {
        u64::from(self.settings.store.keep_s) * S_US
    }

    fn dropped(&mut self, reason: DropReason) -> Verdict {
        self.tally.drop(reason, 1);
        Verdict::Dropped(Dropped { reason, then: Then::Go })
    }

    /// A connection's full queue refused a frame that was handed to it. Gives how many other copies are on their way; when there is none,
    /// the frame is forgotten, and its next copy is taken.
    pub fn undelivered(&mut self, print: &Fingerprint) -> u8 {
        self.tally.drop(DropReason::Undelivered, 1);
        self.recent.lost(print)
    }

    /// A validator publishes a header of a network. Gives who follows; each takes it by [`Switch::take`].
    ///
    /// # Errors
    /// [`Dropped`]: the peer is no validator, the body is too long, the network is not served, or the budget is spent.
    pub fn publish(
        &mut self,
        now: Now,
        from: ConnId,
        (network, height): (NetworkId, u64),
        body: &[u8],
    ) -> Result<Vec<ConnId>, Dropped> {
        let publisher = self.charge(now, from, body.len())?.serial;
        let fault = if self.conns.get(&from).is_none_or(|conn| conn.role != Role::Validator) {
            Some((DropReason::NotAllowed, Fault::NotAllowed))
        } else if body.len() > BODY_BYTES_MAX {
            Some((DropReason::Malformed, Fault::Malformed))
        } else {
            (!self.may_open(network)).then_some((DropReason::WrongNetwork, Fault::WrongNetwork))
        };
        if let Some((reason, fault)) = fault {
            self.tally.drop(reason, 1);
            return Err(Dropped { reason, then: self.blame(now, from, fault) });
        }
        let waiting: Vec<ConnId> = match self.feeds.contains_key(&network) {
            true => Vec::new(),
            false => self.conns.iter().filter(|(_, conn)| conn.feeds.contains(&network)).map(|(id, _)| *id).collect(),
        };
        let feed = self.feeds.entry(network).or_default();
        for conn in waiting {
            feed.follow(conn);
        }
        if !feed.publish(publisher, height, body) {
            self.tally.drop(DropReason::Duplicate, 1);
            return Ok(Vec::new());
        }
        self.tally.published += 1;
        Ok(feed.followers().collect())
    }

    fn may_open(&self, network: NetworkId) -> bool {
        self.serves(network) && (self.feeds.len() < FEEDS_MAX || self.feeds.contains_key(&network))
    }

    /// A connection follows the headers of a network. Gives those that are kept. Only the configuration and validators open feeds, else anybody
    /// could fill the table with networks that are none; who comes before that follows from then on.
    ///
    /// # Errors
    /// [`Refusal`]: the network is not served, the connection is not known, or it follows enough.
    pub fn subscribe(&mut self, conn: ConnId, network: NetworkId) -> Result<Vec<Bytes>, Refusal> {
        if !self.serves(network) {
            return Err(Refusal::Network { network });
        }
        let state = self.conns.get_mut(&conn).ok_or(Refusal::ConnectionUnknown { conn })?;
        if !state.feeds.contains(&network) {
            if state.feeds.len() >= FEEDS_PER_CONNECTION {
                return Err(Refusal::FeedsPerConnection { limit: FEEDS_PER_CONNECTION });
            }
            state.feeds.push(network);
        }
        Ok(self.feeds.get_mut(&network).map(|feed| feed.follow(conn)).unwrap_or_default())
    }

    /// What a follower has not had yet of the headers of a network.
    pub fn take(&mut self, conn: ConnId, network: NetworkId) -> Taken {
        self.feeds.get_mut(&network).map(|feed| feed.take(conn)).unwrap_or_default()
    }

    /// Clears away what is over. To be called some ten times a second.
    pub fn tick(&mut self, now: Now) {
        let late = self.store.expire(now.unix_s, SWEEP_MAX);
        self.tally.drop(DropReason::StoreExpired, late);
        self.keys.sweep(now.us.saturating_sub(ANNOUNCEMENT_KEPT_S * S_US), SWEEP_MAX);
        let before_us = now.us.saturating_sub(REMEMBERED_S * S_US);
        self.accounts.sweep(before_us, SWEEP_MAX);
        self.prefixes.sweep(before_us, SWEEP_MAX);
        self.asns.sweep(before_us, SWEEP_MAX);
    }

    /// From now on nothing new is taken: no connections, no registrations. Frames still pass. A second call changes nothing.
    pub fn drain(&mut self, now: Now, within_ms: u64) {
        self.drain_until_us.get_or_insert(now.us.saturating_add(within_ms.saturating_mul(1000)));
    }

    /// How far the drain has come. `None`: there is none.
    pub fn drained(&self, now: Now) -> Option<Drain> {
        let until_us = self.drain_until_us?;
        Some(match self.conns.len() {
            0 => Drain::Empty,
            connections if now.us >= until_us => Drain::Deadline { connections },
            connections => Drain::Waiting { connections, left_ms: (until_us - now.us).div_ceil(1000) },
        })
    }

    /// What happened since this was asked last.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Sizes of the tables.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            connections: self.conns.len(),
            accounts: self.accounts.len(),
            prefixes: self.prefixes.len(),
            asns: self.asns.len(),
            keys: self.keys.len(),
            keys_registered: self.keys.registered(),
            recent: self.recent.len(),
            stored: self.store.len(),
            stored_bytes: self.store.bytes(),
            headers: self.feeds.values().map(Feed::len).sum(),
        }
    }

    /// Bytes of memory that all tables take, roughly: what was counted where it is bounded, and sizes of types.
    pub fn bytes(&self) -> usize {
        let conns = self.conns.capacity() * (size_of::<(ConnId, Conn)>() + 1)
            + self.conns.values().map(|conn| conn.keys.capacity() * 8 + conn.feeds.capacity() * 8).sum::<usize>();
        // An account's id stands in its slot and in the index.
        let ids = self.accounts.len() * 2 * 64;
        conns
            + ids
            + self.accounts.bytes()
            + self.prefixes.bytes()
            + self.asns.bytes()
            + self.keys.bytes()
            + self.recent.bytes()
            + self.store.bytes()
            + self.feeds.values().map(Feed::bytes).sum::<usize>()
    }
}

/// Sizes of the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Connections.
    pub connections: usize,
    /// SPIFFE ids that are connected or were a moment ago.
    pub accounts: usize,
    /// Prefixes likewise.
    pub prefixes: usize,
    /// ASNs likewise.
    pub asns: usize,
    /// Keys that are known.
    pub keys: usize,
    /// Keys that somebody takes frames for.
    pub keys_registered: usize,
    /// Digests of frames that were taken lately.
    pub recent: usize,
    /// Frames that wait.
    pub stored: usize,
    /// Bytes that wait, with what each frame costs.
    pub stored_bytes: usize,
    /// Headers that are kept for followers.
    pub headers: usize,
}
