//! The ceremony by which validators get shares of a key that nobody has: the first time a distributed key generation, later a resharing
//! that keeps the key. Feldman/Desmedt, by `commonware-cryptography`; here is what a validator says and when, and what it decides.
//!
//! ```text
//! dealer   begin ── dealing to each player ──►  player   keep it durably, then
//! dealer            ◄── acknowledgement ──               say so, in a signature
//! dealer   close ── log: the commitment, and for each player its acknowledgement, or else its share in the clear ──► into a block
//! all      include each log, in the order of the chain ── conclude at a height ──► sharing, and each its share
//! ```
//!
//! **The logs in the blocks up to a height decide.** Of each dealer the first signed one counts; who includes them in the same order gets
//! the same sharing, member or not. The ceremony is a function of what it hears: no clock, no network, no disk, and randomness is an
//! argument.
//!
//! Always true:
//! - a dealing is kept before it is acknowledged ([`Act::Keep`] comes before the acknowledgement): what all logs rely on is not lost in a
//!   crash;
//! - it takes dealings of a quorum of dealers, so at least one that is honest and whose polynomial nobody knows;
//! - a log with more shares in the clear than a quorum leaves over is no log, and an outcome in which more than f may be known to
//!   everybody is none;
//! - resharing keeps the group's key, or fails.
//!
//! What it relies on: dealings are private and their sender is known (the connection sees to that), and acknowledgements of honest players
//! reach honest dealers before the logs close. If a network that the attacker owns keeps f honest players out until then, their shares
//! stand in the logs: the key is still nobody's (N/3 + f shares are fewer than a quorum), but a seal by it is then worth less than votes.
//! Absent on purpose: complaints. Who does not acknowledge is given its share in public; who deals wrongly does not count.

use std::collections::BTreeMap;
use std::sync::Arc;

use bpi_protocol::consensus::bls::SecretKey;
use bpi_protocol::consensus::ids::ValidatorIndex;
use bpi_protocol::consensus::scheme::{PublicKey, Signature};
use bpi_protocol::consensus::validators::{ValidatorSet, faults};
use commonware_codec::{Copying, Decode as _, DecodeExt as _, Encode as _};
use commonware_cryptography::bls12381::dkg::feldman_desmedt as library;
use commonware_cryptography::bls12381::primitives::group::{self, Private, Scalar};
use commonware_cryptography::bls12381::primitives::variant::MinSig;
use commonware_cryptography::transcript::{Transcript, Version};
use commonware_parallel::Sequential;
use commonware_utils::Participant;
use rand_core::CryptoRng;
use thiserror::Error;
use zeroize::Zeroizing;

use super::member::{Absent, Autograph, Member, MemberKey};
use super::message::{CeremonyBody, CeremonyId, CeremonyMessage, Dealing};
use super::plan::{Info, Plan, PlanError};
use super::share::Share;
use super::sharing::{MEMBERS_MAX, Sharing, SharingError};

type Commitment = library::DealerPubMsg<MinSig>;
type Log = library::DealerLog<MinSig, Member>;
type SignedLog = library::SignedDealerLog<MinSig, Member>;

/// What a ceremony asks of its host, in order.
#[derive(Debug, PartialEq)]
pub enum Act {
    /// Keep a dealing, durably and privately, before what follows. It is given back to [`Ceremony::join`] after a crash.
    Keep {
        /// Who dealt.
        dealer: PublicKey,
        /// What.
        dealing: Dealing,
    },
    /// Send a member a message, over a connection that is private and knows both ends.
    Send {
        /// To whom.
        to: PublicKey,
        /// What.
        message: CeremonyMessage,
    },
    /// This node's log: to be included in a block, once.
    Submit {
        /// Its bytes, for [`Ceremony::include`].
        log: Vec<u8>,
    },
}

/// Why a message of a ceremony was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// Of another one.
    #[error("it is of another ceremony")]
    Ceremony,
    /// This node has no such part.
    #[error("this node does not {deed} here")]
    Part {
        /// What it does not do.
        deed: &'static str,
    },
    /// The sender has no such part.
    #[error("its sender does not {deed} here")]
    Stranger {
        /// What it does not do.
        deed: &'static str,
    },
    /// The bytes are no commitment or no share.
    #[error("it is no dealing")]
    Bytes,
    /// The share does not fit the commitment, or the commitment the plan.
    #[error("the dealing does not hold")]
    Dealing,
    /// The dealer has dealt something else before.
    #[error("its dealer has dealt otherwise before")]
    Otherwise,
    /// The acknowledgement is not its sender's, or of something else.
    #[error("the acknowledgement is not the sender's of this dealing")]
    Ack,
}

/// Why a log cannot be in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LogError {
    /// Longer than a log of the largest set.
    #[error("a log of {bytes} bytes, of at most {max}")]
    Long {
        /// How long.
        bytes: usize,
        /// How long it may be.
        max: usize,
    },
    /// The bytes are none of a log, or not the ones that would be written.
    #[error("the bytes are no log")]
    Bytes,
    /// Nobody of the dealers has signed it, for this ceremony.
    #[error("the log is not signed by a dealer of this ceremony")]
    Signature,
    /// It says that there is nothing to say.
    #[error("the log has too few acknowledgements to count")]
    Empty,
    /// The first one counts.
    #[error("there is a log of this dealer already")]
    Twice,
}

/// Why a ceremony has no outcome. The sets stay as they are, and it is held again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Failed {
    /// Too few dealers have a log that holds.
    #[error("logs of {found} dealers hold, and it takes {required}; {} logs do not", faulty.len())]
    Logs {
        /// How many it takes.
        required: usize,
        /// How many there are.
        found: usize,
        /// Whose log is signed and wrong, and how: each is a fault that anybody can show.
        faulty: Vec<(PublicKey, String)>,
    },
    /// So many shares may be known to everybody that, with f faulty members, they are too many.
    #[error("the shares of {revealed} members may be known to everybody, and at most {max} may")]
    Revealed {
        /// How many.
        revealed: usize,
        /// How many may be.
        max: usize,
    },
    /// The key would be another one.
    #[error("the key that the members share would be another one than before")]
    Key,
    /// It is no sharing of the players.
    #[error(transparent)]
    Sharing(#[from] SharingError),
}

/// What a ceremony has come to.
#[derive(Debug)]
pub struct Outcome {
    /// The same for all.
    pub sharing: Sharing,
    /// This node's share. To be kept durably before it is used ([`super::share_file`]).
    pub share: Option<Share>,
    /// This node is a player and has no share: it has lost a dealing that it acknowledged. It votes without one until the next ceremony.
    pub lost: bool,
}

/// This node's part as a dealer.
struct Dealer {
    library: library::Dealer<MinSig, MemberKey>,
    /// For those who have not acknowledged yet.
    open: BTreeMap<Member, Dealing>,
}

/// This node's part as a player.
struct Player {
    library: library::Player<MinSig, MemberKey>,
    /// By dealer: what it dealt, and the acknowledgement.
    kept: BTreeMap<Member, (Dealing, Signature)>,
}

/// A ceremony in the eyes of one node.
pub struct Ceremony {
    plan: Plan,
    id: CeremonyId,
    info: Info,
    me: Option<Member>,
    dealer: Option<Dealer>,
    player: Option<Player>,
    /// The time for acknowledgements is over: the log goes out as soon as it has enough.
    closing: bool,
    /// This node's log, once it is written.
    log: Option<Vec<u8>>,
    /// The first log of each dealer that a block has.
    included: BTreeMap<Member, Log>,
}

impl Ceremony {
    /// For a node that only follows.
    ///
    /// # Errors
    /// [`PlanError`] when there can be no such ceremony.
    pub fn observe(plan: Plan) -> Result<Self, PlanError> {
        let (id, info) = (plan.id(), plan.info()?);
        let (me, dealer, player, log) = (None, None, None, None);
        Ok(Self { plan, id, info, me, dealer, player, closing: false, log, included: BTreeMap::new() })
    }

    /// For a member. `entropy`: 32 secret random bytes, kept durably before this is called the first time, and the same after a crash, so
    /// that what is dealt stays the same; they are destroyed when the ceremony is over. `share`: what this node has of `previous`, without
    /// which it does not deal. `kept`: what [`Act::Keep`] gave before a crash.
    ///
    /// # Errors
    /// [`PlanError`], [`PlanError::Kept`] if a dealing was changed on disk.
    pub fn join(
        plan: Plan,
        key: Arc<SecretKey>,
        entropy: &[u8; 32],
        share: Option<&Share>,
        kept: &[(PublicKey, Dealing)],
    ) -> Result<Self, PlanError> {
        let mut ceremony = Self::observe(plan)?;
        let (public, key) = (key.public_key(), MemberKey(key));
        let me = Member::of(&public);
        ceremony.me = Some(me);
        let deals = ceremony.plan.dealers.position(&public).is_some();
        let share = match (&ceremony.plan.previous, share) {
            (Some(previous), Some(share)) => Some(old_share(previous, share, &public, &ceremony.plan.dealers)?),
            (Some(_), None) | (None, None) => None,
            (None, Some(_)) => return Err(PlanError::Share),
        };
        if deals && (share.is_some() || ceremony.plan.previous.is_none()) {
            ceremony.dealer = Some(deal(ceremony.id, &ceremony.info, key.clone(), entropy, share)?);
        }
        if ceremony.plan.players.position(&public).is_some() {
            let library = library::Player::new(ceremony.info.clone(), key).map_err(|_| PlanError::Members)?;
            let mut player = Player { library, kept: BTreeMap::new() };
            for (dealer, dealing) in kept {
                player.take(&Member::of(dealer), dealing).map_err(|_| PlanError::Kept)?;
            }
            ceremony.player = Some(player);
        }
        Ok(ceremony)
    }

    /// Its name.
    pub fn id(&self) -> CeremonyId {
        self.id
    }

    /// What it is for.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Deals to all who have not acknowledged yet. To be called at the start, and again from time to time while the logs are open.
    pub fn deal(&mut self) -> Vec<Act> {
        let mut acts = Vec::new();
        let Some(dealer) = &self.dealer else { return acts };
        let open: Vec<_> = dealer.open.iter().map(|(player, dealing)| (*player, dealing.clone())).collect();
        for (player, dealing) in open {
            if Some(player) == self.me {
                // What it deals to itself takes the same way, without the network.
                acts.extend(self.hear_dealing(player, dealing).unwrap_or_default());
            } else {
                let message = CeremonyMessage { ceremony: self.id, body: CeremonyBody::Dealing(dealing) };
                acts.push(Act::Send { to: player.key(), message });
            }
        }
        acts
    }

    /// A message of a member, whose key the connection has shown.
    ///
    /// # Errors
    /// [`Refused`]: it changes nothing.
    pub fn hear(&mut self, from: &PublicKey, message: CeremonyMessage) -> Result<Vec<Act>, Refused> {
        if message.ceremony != self.id {
            return Err(Refused::Ceremony);
        }
        match message.body {
            CeremonyBody::Dealing(dealing) => self.hear_dealing(Member::of(from), dealing),
            CeremonyBody::Ack(signature) => self.hear_ack(Member::of(from), signature),
        }
    }

    fn hear_dealing(&mut self, from: Member, dealing: Dealing) -> Result<Vec<Act>, Refused> {
        let player = self.player.as_mut().ok_or(Refused::Part { deed: "get a share" })?;
        let is_new = !player.kept.contains_key(&from);
        let signature = player.take(&from, &dealing)?;
        let mut acts = Vec::new();
        if is_new {
            acts.push(Act::Keep { dealer: from.key(), dealing });
        }
        if Some(from) == self.me {
            acts.extend(self.hear_ack(from, signature)?);
        } else {
            let message = CeremonyMessage { ceremony: self.id, body: CeremonyBody::Ack(signature) };
            acts.push(Act::Send { to: from.key(), message });
        }
        Ok(acts)
    }

    fn hear_ack(&mut self, from: Member, signature: Signature) -> Result<Vec<Act>, Refused> {
        let dealer = self.dealer.as_mut().ok_or(Refused::Part { deed: "deal" })?;
        if self.plan.players.position(&from.key()).is_none() {
            return Err(Refused::Stranger { deed: "get a share" });
        }
        if !dealer.open.contains_key(&from) {
            return Ok(Vec::new());
        }
        let ack = library::PlayerAck::decode(Copying(&signature.0)).map_err(|_| Refused::Ack)?;
        dealer.library.receive_player_ack(from, ack).map_err(|_| Refused::Ack)?;
        dealer.open.remove(&from);
        Ok(self.submit())
    }

    /// The time for acknowledgements is over. The log is written with what there is, or as soon as there is enough; and said again when it
    /// was.
    pub fn close(&mut self) -> Vec<Act> {
        self.closing = true;
        self.submit()
    }

    /// Writes the log: at once when all have acknowledged, and at the end with those who have not, if they are few enough.
    fn submit(&mut self) -> Vec<Act> {
        let players = &self.plan.players;
        let spared = if self.closing { players.len() - players.quorum() } else { 0 };
        if let Some(dealer) = self.dealer.take_if(|dealer| dealer.open.len() <= spared) {
            self.log = Some(dealer.library.finalize::<Absent>().encode().to_vec());
        }
        self.log.iter().map(|log| Act::Submit { log: log.clone() }).collect()
    }

    /// Most bytes of a log: of the largest set.
    pub fn log_bytes_max() -> usize {
        SignedLog::max_encode_size(MEMBERS_MAX)
    }

    /// Whether a log may be in the next block, and whose it is. A block with one that may not is wrong.
    ///
    /// # Errors
    /// [`LogError`] otherwise.
    pub fn check(&self, log: &[u8]) -> Result<PublicKey, LogError> {
        self.judge(log).map(|(dealer, _)| dealer.key())
    }

    /// A log that a final block has, in the order of the chain and of the block.
    ///
    /// # Errors
    /// [`LogError`] for what should not have been there.
    pub fn include(&mut self, log: &[u8]) -> Result<PublicKey, LogError> {
        let (dealer, log) = self.judge(log)?;
        self.included.insert(dealer, log);
        Ok(dealer.key())
    }

    fn judge(&self, bytes: &[u8]) -> Result<(Member, Log), LogError> {
        let max = Self::log_bytes_max();
        if bytes.len() > max {
            return Err(LogError::Long { bytes: bytes.len(), max });
        }
        // The dealer's key comes first: a stranger costs no more than this.
        let dealer = Member::decode(Copying(bytes.get(..96).unwrap_or_default())).map_err(|_| LogError::Bytes)?;
        if self.plan.dealers.position(&dealer.key()).is_none() {
            return Err(LogError::Signature);
        }
        if self.included.contains_key(&dealer) {
            return Err(LogError::Twice);
        }
        let log = SignedLog::decode_cfg(Copying(bytes), &MEMBERS_MAX).map_err(|_| LogError::Bytes)?;
        if log.encode() != bytes {
            return Err(LogError::Bytes);
        }
        let (dealer, log) = log.check(&self.info).ok_or(LogError::Signature)?;
        match log.summary() {
            library::DealerLogSummary::Ok { .. } => Ok((dealer, log)),
            library::DealerLogSummary::TooManyReveals => Err(LogError::Empty),
        }
    }

    /// True when a block has this node's log, or there is none to have.
    pub fn is_included(&self) -> bool {
        self.me.is_none_or(|me| self.included.contains_key(&me)) || (self.dealer.is_none() && self.log.is_none())
    }

    /// The end: all logs that count are included. `entropy`: 32 fresh random bytes that nobody could know before, for checks by random
    /// sums; what comes out does not depend on them.
    ///
    /// # Errors
    /// [`Failed`], the same for everybody.
    pub fn conclude(self, entropy: &[u8; 32]) -> Result<Outcome, Failed> {
        let mut rng = randomness(b"conclude", self.id, entropy);
        let mut logs = library::Logs::<MinSig, Member, Absent>::new(self.info);
        for (dealer, log) in self.included {
            logs.record(dealer, log);
        }
        logs.pre_verify(&mut rng, &Sequential);
        let mine = self.player.map(|player| player.library.finalize::<Absent>(&mut rng, logs.clone(), &Sequential));
        let (output, share) = match mine {
            Some(Ok((output, share))) => (output, Some(share)),
            Some(Err(library::FinalizeError::Failure(failure))) => return Err(failed(failure)),
            // Its own dealings are gone; what the others have is no less true.
            Some(Err(library::FinalizeError::Error(_))) | None => {
                (library::observe(&mut rng, logs, &Sequential).map_err(failed)?, None)
            }
        };
        let players = &self.plan.players;
        let sharing = Sharing::new(players, output)?;
        let (revealed, max) = (sharing.revealed().len(), faults(players.len()));
        if revealed > max {
            return Err(Failed::Revealed { revealed, max });
        }
        if self.plan.previous.is_some_and(|previous| previous.group() != sharing.group()) {
            return Err(Failed::Key);
        }
        let index = self.me.and_then(|me| players.position(&me.key()));
        let share = share.zip(index).and_then(|(share, index)| new_share(&sharing, index, &share));
        let lost = index.is_some() && share.is_none();
        Ok(Outcome { sharing, share, lost })
    }
}

impl Player {
    /// Takes a dealing, or the same again, and says so.
    fn take(&mut self, from: &Member, dealing: &Dealing) -> Result<Signature, Refused> {
        if let Some((first, signature)) = self.kept.get(from) {
            return if first == dealing { Ok(*signature) } else { Err(Refused::Otherwise) };
        }
        let commitment =
            Commitment::decode_cfg(Copying(&dealing.commitment), &MEMBERS_MAX).map_err(|_| Refused::Bytes)?;
        if commitment.encode() != dealing.commitment {
            return Err(Refused::Bytes);
        }
        let share = library::DealerPrivMsg::decode(Copying(dealing.share.as_ref())).map_err(|_| Refused::Bytes)?;
        let ack = self.library.dealer_message::<Absent>(*from, commitment, share).map_err(|error| match error {
            library::DealerMessageError::UnexpectedDealer => Refused::Stranger { deed: "deal" },
            _ => Refused::Dealing,
        })?;
        let ack = ack.ok_or(Refused::Otherwise)?.encode();
        let signature = Autograph::decode(ack).map(|ack| Signature(ack.0)).map_err(|_| Refused::Bytes)?;
        self.kept.insert(*from, (dealing.clone(), signature));
        Ok(signature)
    }
}

fn deal(
    id: CeremonyId,
    info: &Info,
    key: MemberKey,
    entropy: &[u8; 32],
    share: Option<group::Share>,
) -> Result<Dealer, PlanError> {
    let rng = randomness(b"deal", id, entropy);
    let (library, commitment, dealings) =
        library::Dealer::start::<Absent>(rng, info.clone(), key, share).map_err(|_| PlanError::Members)?;
    let commitment = commitment.encode().to_vec();
    let mut open = BTreeMap::new();
    for (player, private) in dealings {
        let mut share = Zeroizing::new([0; 32]);
        share.copy_from_slice(&Zeroizing::new(private.encode().to_vec()));
        open.insert(player, Dealing { share, commitment: commitment.clone() });
    }
    Ok(Dealer { library, open })
}

/// This node's share as the library has it.
fn old_share(
    previous: &Sharing,
    share: &Share,
    public: &PublicKey,
    dealers: &ValidatorSet,
) -> Result<group::Share, PlanError> {
    let fits = previous.key(share.index()).is_some_and(|key| key.public_key() == share.secret().public_key());
    let own = fits && dealers.position(public) == Some(share.index()) && share.set() == previous.set();
    let point = previous.output().players().position(&Member::of(public)).filter(|_| own).ok_or(PlanError::Share)?;
    let private = Private::decode(Copying(share.secret().to_bytes().as_ref())).map_err(|_| PlanError::Share)?;
    Ok(group::Share::new(Participant::from_usize(point), private))
}

/// The library's share as this node keeps it.
fn new_share(sharing: &Sharing, index: ValidatorIndex, share: &group::Share) -> Option<Share> {
    let mut scalar = Zeroizing::new([0; 32]);
    share.private.expose(|private: &Scalar| scalar.copy_from_slice(&Zeroizing::new(private.encode().to_vec())));
    Share::new(sharing, index, SecretKey::from_bytes(&scalar).ok()?)
}

/// The library's stream of random bytes, from 32. Another ceremony has another one, even of the same bytes.
pub(super) fn randomness(label: &'static [u8], id: CeremonyId, entropy: &[u8; 32]) -> impl CryptoRng + use<> {
    let mut transcript = Transcript::new(b"bpi.ceremony.v1", Version::V1);
    transcript.commit(id.0.as_slice()).commit(entropy.as_slice());
    transcript.noise(label)
}

fn failed(failure: library::Failure<Member>) -> Failed {
    let library::Failure::InsufficientLogs { required, found, faults, .. } = failure;
    let faulty = faults.iter_pairs().map(|(dealer, reason)| (dealer.key(), reason.to_string())).collect();
    Failed::Logs { required: required as usize, found: found as usize, faulty }
}
