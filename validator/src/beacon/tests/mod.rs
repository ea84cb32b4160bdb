//! Whole ceremonies in memory, and what their members sign afterwards.

mod liars;
mod parts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use bpi_protocol::consensus::bls::{Keys, SecretKey};
use bpi_protocol::consensus::header::{Header, Seed};
use bpi_protocol::consensus::ids::{ChainId, Epoch, HeaderDigest, Height, Round, ValidatorIndex};
use bpi_protocol::consensus::light::LightProof;
use bpi_protocol::consensus::scheme::{PublicKey, Scheme as _, Signature};
use bpi_protocol::consensus::seal::Seal;
use bpi_protocol::consensus::statement::{self, Place};
use bpi_protocol::consensus::validators::{Signers, Validator, ValidatorSet, faults, quorum};
use commonware_codec::Encode as _;
use commonware_cryptography::bls12381::dkg::feldman_desmedt as library;
use commonware_cryptography::bls12381::primitives::variant::MinSig;

use super::ceremony::{Act, Ceremony, Failed, LogError, Outcome, Refused};
use super::member::MemberKey;
use super::message::{CEREMONY_MESSAGE_BYTES_MAX, CeremonyBody, CeremonyId, CeremonyMessage, Dealing};
use super::partials::Collector;
use super::plan::{Calendar, Plan, PlanError};
use super::share::{Share, ShareBook};
use super::sharing::{Sharing, SharingError};
use super::{journal::Journal, share_file};
use crate::core::Shares as _;
use crate::keys::KeyFileError;

const CHAIN: ChainId = ChainId([7; 32]);

/// Keys by number, made once: secret half, public half, proof of possession.
static KEYS: LazyLock<Vec<(Arc<SecretKey>, PublicKey, Signature)>> = LazyLock::new(|| {
    let made = (0..16).map(|number| SecretKey::generate(&[number; 32]).unwrap());
    made.map(|secret| (secret.public_key(), secret.prove_possession(), secret))
        .map(|(public, possession, secret)| (Arc::new(secret), public, possession))
        .collect()
});

fn secret(number: u8) -> Arc<SecretKey> {
    KEYS[usize::from(number)].0.clone()
}

fn set(epoch: u64, numbers: impl IntoIterator<Item = u8>) -> Arc<ValidatorSet> {
    let member = |number: u8| {
        let (_, key, possession) = &KEYS[usize::from(number)];
        let (key, possession) = (*key, *possession);
        Validator { key, possession, weight: 1 }
    };
    Arc::new(ValidatorSet::new(Epoch(epoch), numbers.into_iter().map(member).collect()).unwrap())
}

fn key(number: u8) -> PublicKey {
    KEYS[usize::from(number)].1
}

/// What goes wrong in a ceremony; members by their numbers.
#[derive(Clone, Debug, Default)]
struct Faults {
    /// Who is not there at all.
    absent: BTreeSet<u8>,
    /// (dealer, player) whose dealing is bent on the way.
    wrong: BTreeSet<(u8, u8)>,
    /// (dealer, player) whose acknowledgement never comes.
    withheld: BTreeSet<(u8, u8)>,
    /// Whose logs no block has.
    left_out: BTreeSet<u8>,
}

/// Members of a ceremony by number, and its logs as blocks have them.
struct Room {
    members: BTreeMap<u8, Ceremony>,
    logs: Vec<Vec<u8>>,
}

impl Room {
    fn new(plan: &Plan, numbers: impl IntoIterator<Item = u8>, shares: &BTreeMap<u8, Share>) -> Self {
        let join = |number: u8| {
            let ceremony =
                Ceremony::join(plan.clone(), secret(number), &[number; 32], shares.get(&number), &[]).unwrap();
            (number, ceremony)
        };
        Self { members: numbers.into_iter().map(join).collect(), logs: Vec::new() }
    }

    fn number_of(&self, key: &PublicKey) -> Option<u8> {
        self.members.keys().copied().find(|number| self::key(*number) == *key)
    }

    /// Carries messages, as real bytes, until nobody has anything to say.
    fn carry(&mut self, from: u8, acts: Vec<Act>, faults: &Faults) {
        for act in acts {
            match act {
                Act::Keep { .. } => {}
                Act::Submit { log } => {
                    if !self.logs.contains(&log) && !faults.left_out.contains(&from) {
                        self.logs.push(log);
                    }
                }
                Act::Send { to, message } => {
                    let Some(to) = self.number_of(&to).filter(|to| !faults.absent.contains(to)) else { continue };
                    let mut bytes = message.to_bytes();
                    match message.body {
                        CeremonyBody::Dealing(_) if faults.wrong.contains(&(from, to)) => bytes[40] ^= 1,
                        CeremonyBody::Ack(_) if faults.withheld.contains(&(to, from)) => continue,
                        _ => {}
                    }
                    let message = CeremonyMessage::from_bytes(&bytes).unwrap();
                    let heard = self.members.get_mut(&to).unwrap().hear(&key(from), message);
                    match heard {
                        Ok(acts) => self.carry(to, acts, faults),
                        Err(refused) => {
                            assert!(faults.wrong.contains(&(from, to)), "{from} to {to}: {refused}");
                        }
                    }
                }
            }
        }
    }

    /// Deals, closes the logs and puts them into blocks.
    fn run(&mut self, faults: &Faults) {
        let present: Vec<_> = self.members.keys().copied().filter(|number| !faults.absent.contains(number)).collect();
        for number in &present {
            let acts = self.members.get_mut(number).unwrap().deal();
            self.carry(*number, acts, faults);
        }
        for number in &present {
            let acts = self.members.get_mut(number).unwrap().close();
            self.carry(*number, acts, faults);
        }
        for log in self.logs.clone() {
            self.members.values_mut().for_each(|member| assert!(member.include(&log).is_ok()));
        }
    }

    fn conclude(self) -> BTreeMap<u8, Result<Outcome, Failed>> {
        self.members.into_iter().map(|(number, member)| (number, member.conclude(&[number ^ 0xaa; 32]))).collect()
    }
}

fn first(numbers: impl IntoIterator<Item = u8> + Clone) -> Plan {
    let (dealers, players) = (set(0, numbers.clone()), set(1, numbers));
    Plan { chain: CHAIN, start: Height(1), dealers, players, previous: None }
}

/// A ceremony and its outcomes: all agree on the sharing; shares by member.
fn hold(plan: &Plan, numbers: impl IntoIterator<Item = u8>, shares: &BTreeMap<u8, Share>, faults: &Faults) -> Held {
    let mut room = Room::new(plan, numbers, shares);
    room.run(faults);
    let mut held = Held { sharing: None, shares: BTreeMap::new(), lost: BTreeSet::new() };
    for (number, outcome) in room.conclude() {
        let outcome = outcome.unwrap();
        assert_eq!(*held.sharing.get_or_insert_with(|| Arc::new(outcome.sharing.clone())).as_ref(), outcome.sharing);
        if let Some(share) = outcome.share {
            held.shares.insert(number, share);
        }
        if outcome.lost {
            held.lost.insert(number);
        }
    }
    held
}

struct Held {
    sharing: Option<Arc<Sharing>>,
    shares: BTreeMap<u8, Share>,
    lost: BTreeSet<u8>,
}

impl Held {
    fn sharing(&self) -> Arc<Sharing> {
        self.sharing.clone().unwrap()
    }

    /// Partial signatures of all who have a share.
    fn parts(&self, statement: &[u8]) -> Vec<(ValidatorIndex, Signature)> {
        self.shares.values().map(|share| (share.index(), share.sign(statement))).collect()
    }
}

fn numbers(count: u8) -> std::ops::Range<u8> {
    1..count + 1
}

const STATEMENT: &[u8] = b"what all sign";

/// Any quorum makes the same signature, an ordinary one under the group's key, and fewer make none.
fn check_signatures(held: &Held, count: usize) {
    let (sharing, parts) = (held.sharing(), held.parts(STATEMENT));
    let whole = sharing.recover(&parts).unwrap();
    assert!(sharing.group().verify(STATEMENT, &whole));
    let reversed: Vec<_> = parts.iter().rev().copied().collect();
    assert_eq!(sharing.recover(&reversed), Some(whole), "another quorum, the same signature");
    assert_eq!(sharing.recover(&parts[..quorum(count) - 1]), None);
    for (index, part) in &parts {
        assert!(sharing.key(*index).unwrap().verify(STATEMENT, part));
    }
}

#[test]
fn a_ceremony_of_one_of_four_and_of_nine_ends_with_one_key_and_a_share_for_each() {
    for count in [1, 2, 3, 4, 9] {
        let held = hold(&first(numbers(count)), numbers(count), &BTreeMap::new(), &Faults::default());
        assert_eq!((held.shares.len(), held.lost.len()), (count.into(), 0));
        assert_eq!(held.sharing().quorum(), quorum(count.into()), "as many shares as votes");
        assert_eq!(held.sharing().revealed(), Signers::default());
        check_signatures(&held, count.into());
    }
}

#[test]
fn a_group_signature_is_one_that_the_protocol_and_a_light_client_check_without_knowing_of_shares() {
    let plan = first(numbers(4));
    let held = hold(&plan, numbers(4), &BTreeMap::new(), &Faults::default());
    let (sharing, set) = (held.sharing(), &plan.players);
    let header = Header { height: Height(70), epoch: Epoch(1), validators: set.digest(), ..Header::default() };
    let place = Place { chain: CHAIN, height: header.height };
    let mut seal = Collector::new(sharing.clone(), statement::commit(place, Round(2), header.digest()));
    let mut seed = Collector::new(sharing.clone(), statement::seed(Place { height: Height(71), ..place }, Epoch(1)));
    for share in held.shares.values() {
        let partials = share.partials(place, Round(2), header.digest());
        seal.add(share.index(), partials.seal);
        seed.add(share.index(), partials.seed);
    }
    let sealed = Seal::Threshold { round: Round(2), signature: *seal.whole().unwrap() };
    let keys = Keys::new(set).unwrap().with_group(&sharing.group().public_key()).unwrap();
    assert_eq!(sealed.check(place, &header, set, &keys), Ok(()));
    let proof = LightProof::from_bytes(&LightProof::new(header, &sealed).unwrap().to_bytes()).unwrap();
    assert_eq!(proof.check(CHAIN, sharing.group()), Ok(&header));

    let drawn = Seed::Threshold(*seed.whole().unwrap());
    let next = Header { height: Height(71), epoch: Epoch(1), seed: drawn, ..header };
    assert_eq!(super::seed::check_seed(CHAIN, &header, &next, Some(sharing.group())), Ok(()));
    assert!(!keys.verify_group(&statement::commit(place, Round(1), header.digest()), seal.whole().unwrap()));
}

#[test]
fn dealers_that_are_gone_that_deal_wrongly_and_players_that_do_not_answer_do_not_stop_nine() {
    // Member 1 is gone; 2 deals wrongly to three, whose shares it must tell in public; 3 answers nobody but itself.
    let faults = Faults {
        absent: [1].into(),
        wrong: [(2, 4), (2, 5)].into(),
        withheld: (2..=9).filter(|dealer| *dealer != 3).map(|dealer| (dealer, 3)).collect(),
        left_out: BTreeSet::new(),
    };
    let plan = first(numbers(9));
    let mut room = Room::new(&plan, numbers(9), &BTreeMap::new());
    room.run(&faults);
    assert_eq!(room.logs.len(), 7, "2 has four who did not acknowledge, and three may be missing");
    let outcomes = room.conclude();
    let sharing = &outcomes[&5].as_ref().unwrap().sharing;
    let revealed: Vec<_> = sharing.revealed().iter().map(|index| index.0).collect();
    assert_eq!(revealed, [0, 2], "members 1 and 3, and nobody who was honest");
    for (number, outcome) in &outcomes {
        let outcome = outcome.as_ref().unwrap();
        assert_eq!(&outcome.sharing, sharing, "{number}");
        assert!(outcome.share.is_some(), "{number}: even who was away finds its share in the logs");
    }
}

#[test]
fn a_dealer_with_few_wrong_dealings_counts_and_those_it_wronged_have_their_shares_from_its_log() {
    let faults = Faults { wrong: [(2, 4), (2, 5)].into(), left_out: [7, 8, 9].into(), ..Faults::default() };
    let held = hold(&first(numbers(9)), numbers(9), &BTreeMap::new(), &faults);
    assert_eq!(held.shares.len(), 9, "exactly a quorum of logs, that of 2 among them");
    check_signatures(&held, 9);
    assert_eq!(held.sharing().revealed(), Signers::default(), "one dealer alone gives nobody's share away");
}

#[test]
fn with_one_log_fewer_than_a_quorum_there_is_no_key_and_all_say_so() {
    for (count, left_out) in [(4_u8, 2..=3_u8), (9, 6..=9)] {
        let mut room = Room::new(&first(numbers(count)), numbers(count), &BTreeMap::new());
        room.run(&Faults { left_out: left_out.clone().collect(), ..Faults::default() });
        let (required, found) = (quorum(count.into()), usize::from(count) - left_out.count());
        for outcome in room.conclude().into_values() {
            assert_eq!(outcome.unwrap_err(), Failed::Logs { required, found, faulty: Vec::new() });
        }
    }
}

#[test]
fn more_shares_in_the_open_than_f_are_no_outcome() {
    // Three of nine are cut off: their shares stand in every log. Two may.
    let cut = |dealer: u8| (7..=9).map(move |player| (dealer, player));
    let withheld = (1..=6).flat_map(cut).collect();
    let mut room = Room::new(&first(numbers(9)), numbers(9), &BTreeMap::new());
    room.run(&Faults { withheld, left_out: [7, 8, 9].into(), ..Faults::default() });
    for outcome in room.conclude().into_values() {
        assert_eq!(outcome.unwrap_err(), Failed::Revealed { revealed: 3, max: faults(9) });
    }
}

#[test]
fn resharing_to_other_members_keeps_the_key_and_old_shares_do_not_mix_with_new_ones() {
    let before = hold(&first(numbers(4)), numbers(4), &BTreeMap::new(), &Faults::default());
    // Members 3 and 4 stay, 1 and 2 go, five come; one of the old does not deal.
    let (dealers, players) = (set(1, numbers(4)), set(2, 3..10));
    let previous = Some(before.sharing());
    let plan = Plan { chain: CHAIN, start: Height(100), dealers, players: players.clone(), previous };
    let faults = Faults { left_out: [2].into(), ..Faults::default() };
    let after = hold(&plan, 1..10, &before.shares, &faults);
    assert_eq!(after.sharing().group(), before.sharing().group());
    assert_eq!(after.shares.keys().copied().collect::<Vec<_>>(), (3..10).collect::<Vec<_>>());
    check_signatures(&after, 7);

    let (old, new) = (before.parts(STATEMENT), after.parts(STATEMENT));
    assert_eq!(before.sharing().recover(&old), after.sharing().recover(&new), "the same signature under the same key");
    // 3 and 4 are validators 0 and 1 of the new set.
    let mixed: Vec<_> = old[2..].iter().zip(0..).map(|((_, part), index)| (ValidatorIndex(index), *part)).collect();
    let mixed = [&mixed[..], &new[2..]].concat();
    let whole = after.sharing().recover(&mixed).unwrap();
    assert!(!after.sharing().group().verify(STATEMENT, &whole));

    // And once more, to the same members.
    let previous = Some(after.sharing());
    let plan = Plan { start: Height(200), dealers: players, players: set(3, 3..10), previous, ..plan };
    let again = hold(&plan, 3..10, &after.shares, &Faults::default());
    assert_eq!(again.sharing().group(), before.sharing().group());
    assert_ne!(again.sharing().key(ValidatorIndex(0)), after.sharing().key(ValidatorIndex(0)), "the shares are fresh");
    check_signatures(&again, 7);
}

#[test]
fn a_dealer_without_its_share_does_not_deal_and_one_with_anothers_is_refused() {
    let before = hold(&first(numbers(4)), numbers(4), &BTreeMap::new(), &Faults::default());
    let previous = Some(before.sharing());
    let plan =
        Plan { chain: CHAIN, start: Height(100), dealers: set(1, numbers(4)), players: set(2, numbers(4)), previous };
    let mut forgetful = Ceremony::join(plan.clone(), secret(1), &[1; 32], None, &[]).unwrap();
    assert!(forgetful.deal().is_empty() && forgetful.close().is_empty() && forgetful.is_included());
    let joined = |share| Ceremony::join(plan.clone(), secret(1), &[1; 32], share, &[]).map(|_| ());
    assert_eq!(joined(Some(&before.shares[&2])), Err(PlanError::Share));
    let elsewhere = Plan { chain: ChainId([8; 32]), ..first(numbers(4)) };
    let elsewhere = hold(&elsewhere, numbers(4), &BTreeMap::new(), &Faults::default());
    assert_eq!(joined(Some(&elsewhere.shares[&1])), Err(PlanError::Share), "of the same set, from another ceremony");
    assert_eq!(joined(Some(&before.shares[&1])), Ok(()));
    let others = Plan { dealers: set(1, 2..6), ..plan.clone() };
    assert_eq!(Ceremony::observe(others).map(|_| ()), Err(PlanError::Dealers));
    // The rest are enough.
    let shares: BTreeMap<_, _> = before.shares.into_iter().filter(|(number, _)| *number != 1).collect();
    let after = hold(&plan, numbers(4), &shares, &Faults::default());
    assert_eq!(after.shares.len(), 4, "the forgetful member has a share again");
}

#[test]
fn who_only_follows_the_chain_gets_the_same_sharing_in_whatever_order_it_hears_of_anything_else() {
    let plan = first(numbers(4));
    let mut room = Room::new(&plan, numbers(4), &BTreeMap::new());
    room.run(&Faults::default());
    let mut observer = Ceremony::observe(plan).unwrap();
    for log in &room.logs {
        observer.include(log).unwrap();
    }
    assert!(observer.is_included());
    let seen = observer.conclude(&[9; 32]).unwrap();
    assert!(seen.share.is_none() && !seen.lost);
    assert_eq!(seen.sharing, room.conclude().remove(&1).unwrap().unwrap().sharing);
}

#[test]
fn a_node_that_crashes_deals_the_same_and_has_its_share_if_it_kept_its_dealings() {
    let plan = first(numbers(4));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ceremony");
    let mut room = Room::new(&plan, numbers(4), &BTreeMap::new());
    let entropy = Journal::open(&path).unwrap().entropy().unwrap();
    *room.members.get_mut(&1).unwrap() = Ceremony::join(plan.clone(), secret(1), &entropy, None, &[]).unwrap();
    // All have dealt to member 1, which has kept it, and crashes.
    for number in numbers(4) {
        for act in room.members.get_mut(&number).unwrap().deal() {
            match act {
                Act::Send { to, message } if to == key(1) => {
                    let acts = room.members.get_mut(&1).unwrap().hear(&key(number), message).unwrap();
                    let [Act::Keep { dealer, dealing }, Act::Send { .. }] = &acts[..] else { panic!("{acts:?}") };
                    Journal::open(&path).unwrap().keep(dealer, dealing).unwrap();
                }
                Act::Keep { dealer, dealing } if number == 1 => {
                    Journal::open(&path).unwrap().keep(&dealer, &dealing).unwrap();
                }
                _ => {}
            }
        }
    }
    let journal = Journal::open(&path).unwrap();
    let kept = journal.kept().unwrap();
    assert_eq!((kept.len(), journal.entropy().unwrap()), (4, entropy.clone()));
    let back = Ceremony::join(plan.clone(), secret(1), &entropy, None, &kept).unwrap();
    let before = std::mem::replace(room.members.get_mut(&1).unwrap(), back).deal();
    let after = Ceremony::join(plan.clone(), secret(1), &entropy, None, &[]).unwrap().deal();
    let sent = |acts: Vec<Act>| acts.into_iter().filter(|act| matches!(act, Act::Send { .. })).collect::<Vec<_>>();
    assert_eq!(sent(before), sent(after), "the same polynomial");
    room.run(&Faults::default());
    let outcomes = room.conclude();
    assert!(outcomes.values().all(|outcome| outcome.as_ref().unwrap().share.is_some()));

    // One that forgot what it acknowledged has none, and knows.
    let mut room = Room::new(&plan, numbers(4), &BTreeMap::new());
    room.run(&Faults::default());
    let mut forgetful = Ceremony::join(plan.clone(), secret(1), &entropy, None, &[]).unwrap();
    room.logs.iter().for_each(|log| assert!(forgetful.include(log).is_ok()));
    let outcome = forgetful.conclude(&[3; 32]).unwrap();
    assert!(outcome.lost && outcome.share.is_none());
    assert_eq!(outcome.sharing, room.conclude().remove(&2).unwrap().unwrap().sharing);

    let mut bent = kept;
    bent[0].1.share[31] ^= 1;
    assert_eq!(Ceremony::join(plan, secret(1), &entropy, None, &bent).map(|_| ()), Err(PlanError::Kept));
    journal.destroy().unwrap();
    assert!(!path.exists());
}

#[test]
fn messages_of_strangers_of_other_ceremonies_and_of_liars_change_nothing() {
    let plan = first(numbers(4));
    let mut room = Room::new(&plan, numbers(4), &BTreeMap::new());
    let dealt = room.members.get_mut(&2).unwrap().deal();
    let to = |number: u8| {
        let sent = dealt.iter().find_map(|act| match act {
            Act::Send { to, message } if *to == key(number) => Some(message.clone()),
            _ => None,
        });
        sent.unwrap()
    };
    let CeremonyBody::Dealing(mine) = to(1).body else { panic!("a dealing") };
    let member = room.members.get_mut(&1).unwrap();
    let dealing = |dealing: Dealing| CeremonyMessage { ceremony: to(1).ceremony, body: CeremonyBody::Dealing(dealing) };
    let elsewhere = CeremonyMessage { ceremony: CeremonyId([0; 32]), ..to(1) };
    assert_eq!(member.hear(&key(2), elsewhere), Err(Refused::Ceremony));
    assert_eq!(member.hear(&key(9), to(1)), Err(Refused::Stranger { deed: "deal" }));
    assert_eq!(member.hear(&key(2), to(3)), Err(Refused::Dealing), "another's share");
    let cut = Dealing { commitment: mine.commitment[..97].to_vec(), ..mine.clone() };
    assert_eq!(member.hear(&key(2), dealing(cut)), Err(Refused::Bytes));
    let shorter = [&[2_u8], &mine.commitment[1..193]].concat();
    assert_eq!(member.hear(&key(2), dealing(Dealing { commitment: shorter, ..mine.clone() })), Err(Refused::Dealing));
    let mut zero = mine.clone();
    zero.share.fill(0);
    assert_eq!(member.hear(&key(2), dealing(zero)), Err(Refused::Bytes));

    let acts = member.hear(&key(2), to(1)).unwrap();
    let [Act::Keep { .. }, Act::Send { message: ack, .. }] = &acts[..] else { panic!("{acts:?}") };
    let again = member.hear(&key(2), to(1)).unwrap();
    assert_eq!(again, [Act::Send { to: key(2), message: ack.clone() }], "said again, kept once");
    let other = Ceremony::join(plan.clone(), secret(2), &[0x55; 32], None, &[]).unwrap().deal();
    let other = other.into_iter().find_map(|act| match act {
        Act::Send { to, message } if to == key(1) => Some(message),
        _ => None,
    });
    assert_eq!(member.hear(&key(2), other.unwrap()), Err(Refused::Otherwise));

    let dealer = room.members.get_mut(&2).unwrap();
    assert_eq!(dealer.hear(&key(3), ack.clone()), Err(Refused::Ack), "another's");
    assert_eq!(dealer.hear(&key(9), ack.clone()), Err(Refused::Stranger { deed: "get a share" }));
    assert_eq!(dealer.hear(&key(1), ack.clone()), Ok(Vec::new()));
    let mut observer = Ceremony::observe(plan).unwrap();
    assert_eq!(observer.hear(&key(2), to(1)), Err(Refused::Part { deed: "get a share" }));
    assert_eq!(observer.hear(&key(2), ack.clone()), Err(Refused::Part { deed: "deal" }));
}

#[test]
fn a_log_counts_once_if_a_dealer_of_this_ceremony_has_signed_these_bytes() {
    let plan = first(numbers(4));
    let mut room = Room::new(&plan, numbers(4), &BTreeMap::new());
    room.run(&Faults::default());
    let log = room.logs[0].clone();
    let mut observer = Ceremony::observe(plan.clone()).unwrap();
    assert_eq!(observer.check(&log), Ok(key(1)));
    // Every byte counts; where points are bent it takes no longer than that.
    for at in (0..log.len()).step_by(7) {
        let mut bent = log.clone();
        bent[at] ^= 1 << (at % 8);
        assert!(observer.check(&bent).is_err(), "byte {at}");
    }
    assert_eq!(observer.check(&log[..log.len() - 1]), Err(LogError::Bytes));
    assert_eq!(observer.check(&[&log[..], &[0]].concat()), Err(LogError::Bytes));
    let max = Ceremony::log_bytes_max();
    assert_eq!(observer.check(&vec![0; max + 1]), Err(LogError::Long { bytes: max + 1, max }));
    assert_eq!(observer.check(&lie::<1, 1>(&plan, 2)), Err(LogError::Empty), "nobody has acknowledged");
    assert_eq!(observer.include(&log), Ok(key(1)));
    assert_eq!(observer.include(&log), Err(LogError::Twice));
    for other in [
        Plan { start: Height(2), ..plan.clone() },
        Plan { chain: ChainId([8; 32]), ..plan.clone() },
        Plan { players: set(1, 2..6), ..plan.clone() },
    ] {
        assert_eq!(Ceremony::observe(other).unwrap().check(&log), Err(LogError::Signature));
    }
    let others = Plan { dealers: set(0, 2..6), ..plan };
    assert_eq!(Ceremony::observe(others).unwrap().check(&log), Err(LogError::Signature));
}

/// Another idea of how many may be missing than all others have.
#[derive(Clone)]
struct Odd<const MISSING: u32>;

impl<const MISSING: u32> commonware_utils::Faults for Odd<MISSING> {
    fn max_faults(_: impl num_traits::ToPrimitive) -> u32 {
        MISSING
    }
}

/// The signed log of a dealer without an acknowledgement, that has dealt with `DEALT` less than all as its quorum. It tells every share in
/// the open, if it thinks that `OPEN` may be.
fn lie<const DEALT: u32, const OPEN: u32>(plan: &Plan, number: u8) -> Vec<u8> {
    let rng = super::ceremony::randomness(b"lie", plan.id(), &[number; 32]);
    let (info, key) = (plan.info().unwrap(), MemberKey(secret(number)));
    let (dealer, ..) = library::Dealer::<MinSig, _>::start::<Odd<DEALT>>(rng, info, key, None).unwrap();
    dealer.finalize::<Odd<OPEN>>().encode().to_vec()
}

#[test]
fn a_signed_log_that_is_wrong_does_not_count_and_convicts_its_dealer() {
    let plan = first(numbers(9));
    let left_out = |numbers: &[u8]| Faults { left_out: numbers.iter().copied().collect(), ..Faults::default() };
    // 1 told every share, and the polynomial of 2 takes seven shares, not six. Blocks have both, and nobody misses them.
    let lies = [lie::<3, 9>(&plan, 1), lie::<2, 9>(&plan, 2)];
    let mut room = Room::new(&plan, numbers(9), &BTreeMap::new());
    room.logs = lies.to_vec();
    room.run(&left_out(&[1, 2]));
    let sharing = room.conclude().into_values().map(|outcome| outcome.unwrap().sharing).reduce(|one, other| {
        assert_eq!(one, other);
        one
    });
    let mut room = Room::new(&plan, numbers(9), &BTreeMap::new());
    room.run(&left_out(&[1, 2]));
    assert_eq!(sharing, room.conclude().remove(&3).map(|outcome| outcome.unwrap().sharing), "as if they had not dealt");

    // With one log more missing they are missed.
    let mut room = Room::new(&plan, numbers(9), &BTreeMap::new());
    room.logs = lies.to_vec();
    room.run(&left_out(&[1, 2, 3, 4]));
    for outcome in room.conclude().into_values() {
        let Failed::Logs { required: 6, found: 5, faulty } = outcome.unwrap_err() else { panic!("five hold") };
        let dealers: BTreeSet<_> = faulty.iter().map(|(dealer, _)| *dealer).collect();
        assert_eq!(dealers, [key(1), key(2)].into());
    }
}

#[test]
fn a_message_of_a_ceremony_is_read_as_it_was_written_and_bounded() {
    let ceremony = CeremonyId([6; 32]);
    let dealing = Dealing { share: zeroize::Zeroizing::new([1; 32]), commitment: vec![2; 97] };
    for body in [CeremonyBody::Dealing(dealing), CeremonyBody::Ack(Signature([3; 48]))] {
        let message = CeremonyMessage { ceremony, body };
        let bytes = message.to_bytes();
        assert_eq!(CeremonyMessage::from_bytes(&bytes), Ok(message));
        for (at, value) in [(0, 2), (1, 0), (1, 3)] {
            let mut bent = bytes.clone();
            bent[at] = value;
            assert!(CeremonyMessage::from_bytes(&bent).is_err());
        }
    }
    let ack = CeremonyMessage { ceremony, body: CeremonyBody::Ack(Signature([3; 48])) }.to_bytes();
    assert!(CeremonyMessage::from_bytes(&ack[..81]).is_err());
    assert!(CeremonyMessage::from_bytes(&[&ack[..], &[0]].concat()).is_err());
    assert_eq!(CEREMONY_MESSAGE_BYTES_MAX, 8_324);
    let longest = [&[1_u8, 1][..], &vec![0; CEREMONY_MESSAGE_BYTES_MAX - 2]].concat();
    assert!(CeremonyMessage::from_bytes(&longest).is_ok());
    assert!(CeremonyMessage::from_bytes(&[&longest[..], &[0]].concat()).is_err());
}

#[test]
fn up_to_f_who_withhold_or_bend_their_parts_delay_nothing_and_are_named() {
    for count in [4_u8, 9] {
        let held = hold(&first(numbers(count)), numbers(count), &BTreeMap::new(), &Faults::default());
        let (f, honest) = (faults(count.into()), held.parts(STATEMENT));
        let expected = held.sharing().recover(&honest).unwrap();
        // Withheld: what is left is a quorum.
        let mut collector = Collector::new(held.sharing(), STATEMENT.to_vec());
        for (index, part) in &honest[f..] {
            collector.add(*index, *part);
        }
        assert_eq!(collector.whole(), Some(&expected));

        // Bent: the first f parts are others' or none. They come first, and are thrown out when a quorum is there.
        let mut collector = Collector::new(held.sharing(), STATEMENT.to_vec());
        for (at, (index, _)) in honest[..f].iter().enumerate() {
            let bent = if at == 0 { Signature([0xc0; 48]) } else { honest[f].1 };
            assert_eq!(collector.add(*index, bent), None);
        }
        for (index, part) in &honest[f..] {
            collector.add(*index, *part);
        }
        assert_eq!(collector.whole(), Some(&expected));
        let named: Vec<_> = collector.wrong().iter().collect();
        assert_eq!(named, honest[..f].iter().map(|(index, _)| *index).collect::<Vec<_>>());
    }
}

#[test]
fn two_parts_that_are_wrong_in_opposite_ways_are_both_found() {
    let held = hold(&first(numbers(9)), numbers(9), &BTreeMap::new(), &Faults::default());
    let (sharing, parts) = (held.sharing(), held.parts(STATEMENT));
    // Each has the other's: their sum is right.
    let mut swapped = parts.clone();
    (swapped[0].1, swapped[1].1) = (parts[1].1, parts[0].1);
    let mut collector = Collector::new(sharing, STATEMENT.to_vec());
    for (index, part) in &swapped[..8] {
        collector.add(*index, *part);
    }
    assert!(collector.whole().is_some());
    assert_eq!(collector.wrong().iter().map(|index| index.0).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a_wrong_part_does_not_keep_out_the_right_one_of_the_same_validator() {
    let held = hold(&first(numbers(4)), numbers(4), &BTreeMap::new(), &Faults::default());
    let parts = held.parts(STATEMENT);
    let mut collector = Collector::new(held.sharing(), STATEMENT.to_vec());
    assert!(collector.is_empty());
    collector.add(parts[0].0, parts[1].1);
    collector.add(parts[0].0, parts[0].1);
    assert_eq!(collector.len(), 1, "the right one takes its place before a quorum is there");
    collector.add(parts[0].0, parts[2].1);
    collector.add(ValidatorIndex(4), parts[2].1);
    assert_eq!(collector.len(), 1, "what was checked stays, and nobody is validator 4");
    collector.add(parts[1].0, parts[0].1);
    assert_eq!(collector.add(parts[2].0, parts[2].1), None, "three, of which one is wrong");
    assert_eq!(collector.wrong(), Signers::one(parts[1].0));
    assert_eq!(collector.add(parts[1].0, parts[0].1), None, "wrong again");
    let whole = collector.add(parts[1].0, parts[1].1).copied();
    assert!(whole.is_some());

    let mut second = Collector::new(held.sharing(), STATEMENT.to_vec());
    assert!(!second.take_whole(&parts[0].1), "a part is not the whole");
    assert!(second.take_whole(&whole.unwrap()) && second.whole() == whole.as_ref());
}

#[test]
fn a_sharing_is_read_as_it_was_written_and_only_for_its_set() {
    let plan = first(numbers(4));
    let sharing = hold(&plan, numbers(4), &BTreeMap::new(), &Faults::default()).sharing();
    let bytes = sharing.to_bytes();
    let read = Sharing::from_bytes(&bytes, &plan.players).unwrap();
    assert_eq!((&read, read.digest(), read.group()), (sharing.as_ref(), sharing.digest(), sharing.group()));
    assert_eq!(Sharing::from_bytes(&bytes, &plan.dealers), Err(SharingError::Set));
    for cut in 0..bytes.len() {
        assert!(Sharing::from_bytes(&bytes[..cut], &plan.players).is_err(), "{cut}");
    }
    assert!(Sharing::from_bytes(&[&bytes[..], &[0]].concat(), &plan.players).is_err());
}

#[test]
fn a_share_is_kept_privately_read_only_where_it_fits_and_erased() {
    let held = hold(&first(numbers(4)), numbers(4), &BTreeMap::new(), &Faults::default());
    let folder = tempfile::tempdir().unwrap();
    let path = share_file::share_path(folder.path(), Epoch(1));
    let (sharing, share, index) = (held.sharing(), &held.shares[&2], held.shares[&2].index());
    std::fs::write(path.with_extension("unfinished"), "half of an ear").unwrap();
    share_file::keep(&path, share).unwrap();
    share_file::keep(&path, share).unwrap();
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap()) & 0o7777;
    assert_eq!((mode, std::fs::read_dir(folder.path()).unwrap().count()), (0o600, 1));
    assert!(matches!(share_file::keep(&path, &held.shares[&3]), Err(KeyFileError::Exists { .. })));

    let read = share_file::load(&path, &sharing, index).unwrap().unwrap();
    assert_eq!(read.sign(STATEMENT), share.sign(STATEMENT));
    let hidden = hex::encode(share.secret().to_bytes().as_ref());
    assert!(!format!("{read:?}").contains(&hidden[..16]));
    assert!(matches!(share_file::load(&path, &sharing, ValidatorIndex(0)), Err(KeyFileError::Malformed { .. })));
    let text = std::fs::read_to_string(&path).unwrap();
    for (from, to) in [("version = 1", "version = 2"), ("epoch = 1", "epoch = 2"), ("index", "indeks")] {
        std::fs::write(&path, text.replace(from, to)).unwrap();
        let error = share_file::load(&path, &sharing, index).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&hidden[..16]));
    }
    let digit = if hidden.ends_with('0') { "1" } else { "0" };
    std::fs::write(&path, text.replace(&hidden, &(hidden[..63].to_owned() + digit))).unwrap();
    assert!(share_file::load(&path, &sharing, index).is_err(), "another share");
    share_file::erase(&path).unwrap();
    share_file::erase(&path).unwrap();
    assert!(share_file::load(&path, &sharing, index).unwrap().is_none(), "no share is no error");
}

#[test]
fn a_book_signs_each_height_with_the_share_of_its_epoch() {
    let held = hold(&first(numbers(4)), numbers(4), &BTreeMap::new(), &Faults::default());
    let mut shares = held.shares.into_values().map(Arc::new);
    let (one, two) = (shares.next().unwrap(), shares.next().unwrap());
    let book = ShareBook::default();
    let at = |height| {
        let place = Place { chain: CHAIN, height: Height(height) };
        book.partials(place, Round(0), HeaderDigest([5; 32])).map(|partials| partials.seed)
    };
    let seed = |share: &Share, height| Some(share.seed_after(Place { chain: CHAIN, height: Height(height) }));
    assert_eq!(at(5), None);
    book.install(Height(10), Some(one.clone()));
    book.install(Height(20), None);
    book.install(Height(30), Some(two.clone()));
    assert_eq!([9, 10, 19, 20, 30].map(at), [None, seed(&one, 10), seed(&one, 19), None, seed(&two, 30)]);
    book.forget_before(Height(15));
    assert_eq!(at(15), seed(&one, 15));
    book.forget_before(Height(31));
    assert_eq!([15, 29, 30].map(at), [None, None, seed(&two, 30)]);
}

#[test]
fn a_calendar_leaves_time_for_dealings_logs_and_what_comes_of_them() {
    let calendar = Calendar::new(Height(1000), 100).unwrap();
    assert_eq!((calendar.start, calendar.close, calendar.conclude), (Height(1000), Height(1050), Height(1075)));
    assert_eq!(Calendar::new(Height(0), 7), None);
    assert_eq!(Calendar::new(Height(u64::MAX), 8), None);
}
