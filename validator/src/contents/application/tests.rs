use std::time::Duration;

use bpi_protocol::consensus::ids::{ChainId, Round};
use bpi_protocol::log::EMPTY_ROOT;
use proptest::prelude::*;

use super::*;
use crate::contents::attestations::sample;
use crate::contents::inbox::{InboxBlock, MemoryInbox};
use crate::contents::leaf::TenantId;

const RULES: Rules = Rules {
    rate: Rate { ticks_per_second: 100_000 },
    lists: ListRules { wait_ms: 1_000, early_ms: 100 },
    inbox: InboxRules { lag_blocks: 1, overdue_blocks: 4 },
    pinners: PinnerRules { chain: ChainId([0; 32]), kept_s_min: 0, pinners: BTreeSet::new() },
    bounds: Bounds { leaves_max: 10_000, tenant_leaves_max: 10_000 },
    ahead_ms_max: 300,
    threads: 2,
};
const FAULTS: usize = 1;

fn leaf(number: u32) -> Leaf {
    let mut hash = [0; 32];
    hash[..4].copy_from_slice(&number.to_be_bytes());
    Leaf { tenant: TenantId([number as u8 % 3; 16]), hash }
}

fn genesis() -> Header {
    Header { da_root: EMPTY_ROOT, inclusion_list_root: EMPTY_ROOT, time: TimeMs(10_000), ..Header::default() }
}

/// A node on a chain that grows one header after another.
struct Node {
    folder: tempfile::TempDir,
    application: Application<MemoryInbox>,
    tip: Header,
}

impl Node {
    fn new() -> Self {
        Self::with(RULES)
    }

    /// With pinners.
    fn pinned() -> Self {
        Self::with(Rules { pinners: sample::rules(), ..RULES })
    }

    fn with(rules: Rules) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        Ledger::create(&path).unwrap();
        let application = Application::open(&path, rules, MemoryInbox::new(), &genesis()).unwrap();
        Self { folder, application, tip: genesis() }
    }

    fn see(&mut self, height: u64, leaves: Vec<Leaf>) {
        let anchor = InboxAnchor { height, hash: [height as u8; 32] };
        self.application.inbox.push(InboxBlock { anchor, leaves }).unwrap();
    }

    fn admit(&mut self, numbers: std::ops::Range<u32>, now_ms: u64) {
        for number in numbers {
            self.application.admit(leaf(number), now_ms).unwrap();
        }
    }

    /// A header a quarter of a second after the last one, with its ticks.
    fn propose(&mut self) -> (Header, Contents) {
        let mut ticker = Ticker::new(RULES.rate, &self.tip);
        ticker.advance(Duration::from_millis(250), u64::MAX);
        let time = TimeMs(self.tip.time.0 + 250);
        let (commitments, contents) = self.application.assemble(&self.tip, time, &ticker, Vec::new()).unwrap();
        let header = Header { height: self.tip.height.next(), parent: self.tip.digest(), time, ..Header::default() };
        (commitments.in_header(header), contents)
    }

    fn check(&self, header: &Header, contents: &Contents) -> Result<(), ContentsError> {
        self.application.check(&self.tip, header, contents, self.tip.time.0 + 250, FAULTS)
    }

    /// The name of the error.
    fn refusal(&self, header: &Header, contents: &Contents) -> &'static str {
        self.check(header, contents).unwrap_err().name()
    }

    fn finalise(&mut self, header: &Header, contents: &Contents) {
        self.application.finalise(header, contents).unwrap();
        self.tip = *header;
    }

    fn next(&mut self) {
        let (header, contents) = self.propose();
        self.check(&header, &contents).unwrap();
        self.finalise(&header, &contents);
    }
}

/// The header that an honest node would make of these contents.
fn remade(node: &Node, header: &Header, contents: &Contents) -> Header {
    let appended = node.application.appended(contents).unwrap();
    let receipts = node.application.ledger.head_with(appended.iter().map(|(_, hash)| hash));
    let (inclusion_list_root, da_root) = (contents.answers_root(), contents.attestations_root());
    Header { receipts, inclusion_list_root, da_root, ..*header }
}

#[test]
fn a_batch_that_is_kept_is_in_the_next_header_once_and_voters_that_never_heard_of_it_accept_it() {
    let (mut node, mut voter) = (Node::pinned(), Node::pinned());
    // The header is of 10.25 s.
    let attestation = sample::attestation(1, 1, &[1, 2, 3], 110);
    node.application.attest(attestation.clone(), 10_000).unwrap();
    assert_eq!(node.application.attest(attestation.clone(), 10_000), Err(AttestationRefusal::Duplicate));
    let (header, contents) = node.propose();
    assert_eq!(contents.attestations, std::slice::from_ref(&attestation));
    assert_eq!(header.da_root, attestation.leaf_hash());
    voter.check(&header, &Contents::from_bytes(&contents.to_bytes()).unwrap()).unwrap();
    voter.application.attest(attestation, 10_000).unwrap();
    for node in [&mut node, &mut voter] {
        node.check(&header, &contents).unwrap();
        node.finalise(&header, &contents);
        assert_eq!(node.application.figures().attestations, 0);
        assert_eq!(node.propose().0.da_root, EMPTY_ROOT);
    }
}

#[test]
fn a_header_with_an_attestation_that_does_not_hold_is_refused_by_all_and_by_its_name() {
    let mut node = Node::pinned();
    node.application.attest(sample::attestation(1, 1, &[1, 2, 3], 110), 10_000).unwrap();
    let (header, contents) = node.propose();
    let lie = |change: &dyn Fn(&mut Contents)| {
        let mut contents = contents.clone();
        change(&mut contents);
        let error = node.check(&remade(&node, &header, &contents), &contents).unwrap_err();
        assert!(!error.is_of_the_voter());
        error.name()
    };
    let other = |pinners: &[u8], until_s| {
        lie(&|contents| contents.attestations = vec![sample::attestation(1, 1, pinners, until_s)])
    };
    assert_eq!(other(&[1], 110), "attestation-few");
    assert_eq!(other(&[1, 2, 9], 110), "attestation-stranger");
    assert_eq!(other(&[1, 2, 3], 109), "attestation-short");
    assert_eq!(lie(&|contents| contents.attestations[0].batch.receipts = 2), "attestation-signature");
    assert_eq!(lie(&|contents| contents.attestations.push(contents.attestations[0].clone())), "attested-twice");
    assert_eq!(node.refusal(&header, &Contents { attestations: Vec::new(), ..contents.clone() }), "da-root");
    assert_eq!(Node::new().refusal(&header, &contents), "attestation-stranger", "a chain without pinners");
    // What waits here lasts until the header's time, and is looked at again in a later header.
    let late = Header { time: TimeMs(11_000), ..header };
    let check = node.application.check(&node.tip, &late, &contents, 11_000, FAULTS).unwrap_err();
    assert_eq!(check.name(), "attestation-short");
}

#[test]
fn a_batch_that_is_proved_wrong_is_attested_no_more_and_its_refusal_is_the_voters_own() {
    let (mut node, mut voter) = (Node::pinned(), Node::pinned());
    let attestation = sample::attestation(1, 1, &[1, 2, 3], 110);
    node.application.attest(attestation.clone(), 10_000).unwrap();
    let (header, contents) = node.propose();
    voter.application.attest(attestation.clone(), 10_000).unwrap();
    assert!(
        voter.application.refuse(attestation.batch.da_root) && !voter.application.refuse(attestation.batch.da_root)
    );
    let error = voter.check(&header, &contents).unwrap_err();
    assert!(error.name() == "wrong-encoding" && error.is_of_the_voter());
    assert_eq!(voter.application.attest(attestation, 10_000), Err(AttestationRefusal::Wrong));
    assert_eq!(voter.propose().0.da_root, EMPTY_ROOT);
}

#[test]
fn what_one_assembles_the_others_accept_and_all_have_the_same_log() {
    let (mut one, mut other) = (Node::new(), Node::new());
    for node in [&mut one, &mut other] {
        (1..=5).for_each(|height| node.see(height, vec![leaf(900 + height as u32)]));
    }
    one.admit(0..50, 0);
    let mut heights = 0;
    while heights < 3 {
        let (header, contents) = one.propose();
        let contents = Contents::from_bytes(&contents.to_bytes()).unwrap();
        other.check(&header, &contents).unwrap();
        assert_eq!(header.poh.count, one.tip.poh.count + 25_000);
        one.finalise(&header, &contents);
        other.finalise(&header, &contents);
        one.admit(100 * (heights + 1)..100 * (heights + 1) + 7, 0);
        heights += 1;
    }
    assert_eq!(one.application.ledger.head(), other.application.ledger.head());
    assert_eq!(one.application.ledger.size(), 50 + 14 + 4);
    assert_eq!(
        one.application.figures(),
        Figures { waiting: 7, tenants: 3, attestations: 0, told: 0, logged: 68, inbox_lag_blocks: 1 }
    );
    let proof = other.application.ledger.prove_inclusion(&leaf(901).leaf_hash(), 68).unwrap().unwrap();
    assert_eq!(proof.index, 0, "the inbox goes first");
}

#[test]
fn each_lie_about_the_contents_is_refused_by_its_name() {
    let mut node = Node::new();
    node.admit(0..5, 0);
    node.next();
    node.admit(5..9, 0);
    let (header, contents) = node.propose();
    node.check(&header, &contents).unwrap();
    let lie = |change: &dyn Fn(&mut Header, &mut Contents)| {
        let (mut header, mut contents) = (header, contents.clone());
        change(&mut header, &mut contents);
        node.refusal(&header, &contents)
    };
    assert_eq!(lie(&|header, _| header.da_root = [0; 32]), "da-root");
    assert_eq!(lie(&|header, _| header.receipts.root = [0; 32]), "receipts");
    assert_eq!(lie(&|header, _| header.receipts.size += 1), "receipts");
    assert_eq!(lie(&|_, contents| contents.leaves.truncate(3)), "receipts");
    assert_eq!(lie(&|_, contents| contents.leaves.swap(0, 1)), "receipts");
    assert_eq!(lie(&|header, _| header.inclusion_list_root = [0; 32]), "answers-root");
    assert_eq!(lie(&|_, contents| contents.answers = vec![leaf(5).leaf_hash()]), "answers-root");
    assert_eq!(lie(&|_, contents| contents.answers = vec![leaf(99).leaf_hash()]), "answer");
    assert_eq!(lie(&|_, contents| contents.answers = vec![LeafHash::default(); 2]), "form");
    assert_eq!(lie(&|_, contents| contents.leaves = vec![leaf(99); LEAVES_MAX + 1]), "form");
    assert_eq!(lie(&|header, _| header.time.0 += 301), "time");
    assert_eq!(lie(&|header, _| header.poh.count += 1), "poh-too-many");
    assert_eq!(lie(&|header, _| header.poh.count -= 1), "poh-broken");
    assert_eq!(lie(&|_, contents| contents.segments.clear()), "poh-segments");
    assert_eq!(lie(&|header, _| header.inbox.height = 1), "inbox-unknown");
    assert_eq!(lie(&|header, _| header.inbox.hash = [1; 32]), "inbox-standing");
    let relie = |change: &dyn Fn(&mut Contents)| {
        let mut contents = contents.clone();
        change(&mut contents);
        node.refusal(&remade(&node, &header, &contents), &contents)
    };
    assert_eq!(relie(&|contents| contents.leaves.push(leaf(0))), "logged");
    assert_eq!(relie(&|contents| contents.leaves.push(leaf(5))), "twice");
    let elsewhere = node.application.check(&genesis(), &header, &contents, header.time.0, FAULTS).unwrap_err();
    assert!(elsewhere.name() == "not-at-parent" && elsewhere.is_of_the_voter());
}

#[test]
fn a_receipt_is_admitted_once_whether_it_waits_or_is_final() {
    let mut node = Node::new();
    node.admit(0..1, 0);
    assert!(matches!(node.application.admit(leaf(0), 0), Err(AdmitError::Refused(Refusal::Duplicate))));
    node.next();
    assert!(matches!(node.application.admit(leaf(0), 0), Err(AdmitError::Refused(Refusal::Included { index: 0 }))));
}

#[test]
fn a_proposer_that_leaves_out_what_was_told_is_refused_in_rounds_up_to_f_and_then_accepted() {
    let (mut voter, mut censor) = (Node::new(), Node::new());
    voter.admit(7..8, 8_000);
    let list = voter.application.tell(Height(0), 10_000);
    assert_eq!(list.leaves, [leaf(7)]);
    let (header, contents) = censor.propose();
    let error = voter.check(&header, &contents).unwrap_err();
    assert!(matches!(error, ContentsError::LeftOut { hash } if hash == leaf(7).leaf_hash()) && error.is_of_the_voter());
    assert_eq!(voter.refusal(&Header { round: Round(1), ..header }, &contents), "left-out");
    voter.check(&Header { round: Round(2), ..header }, &contents).unwrap();
    // A header set back in time is heard no earlier for that.
    assert_eq!(voter.refusal(&Header { time: TimeMs(10_001), poh: genesis().poh, ..header }, &contents), "left-out");
    // An honest proposer has heard the list, and says so in its answers.
    censor.application.hear(ValidatorIndex(0), list, 4);
    let (header, contents) = censor.propose();
    assert_eq!((&contents.leaves[..], &contents.answers[..]), (&[leaf(7)][..], &[leaf(7).leaf_hash()][..]));
    voter.check(&header, &contents).unwrap();
    voter.finalise(&header, &contents);
    assert_eq!(voter.application.tell(Height(1), 20_000).leaves, []);
}

#[test]
fn a_full_header_may_leave_out_what_was_told() {
    let (mut voter, mut proposer) = (Node::new(), Node::new());
    voter.admit(7..8, 0);
    voter.application.tell(Height(0), 9_000);
    proposer.admit(10_000..10_000 + LEAVES_MAX as u32, 0);
    let (header, contents) = proposer.propose();
    assert_eq!(contents.leaves.len(), LEAVES_MAX);
    voter.check(&header, &contents).unwrap();
}

#[test]
fn lists_of_junk_of_all_faulty_validators_leave_room_and_block_nothing() {
    let (voter, mut proposer) = (Node::new(), Node::new());
    proposer.admit(0..4_000, 0);
    for sender in 0..3_u16 {
        let mut leaves: Vec<_> = (0..64).map(|number| leaf(20_000 + 100 * u32::from(sender) + number)).collect();
        leaves.sort_unstable();
        proposer.application.hear(ValidatorIndex(sender), List { height: Height(0), leaves }, 10);
    }
    let (header, contents) = proposer.propose();
    assert_eq!((contents.leaves.len(), contents.answers.len()), (LEAVES_MAX, 3 * 64));
    voter.check(&header, &contents).unwrap();
}

#[test]
fn an_overdue_entry_blocks_a_header_without_it_in_every_round() {
    let (mut voter, mut censor) = (Node::new(), Node::new());
    voter.see(1, vec![leaf(1)]);
    voter.see(6, vec![]);
    let (header, contents) = censor.propose();
    for round in [0, 1, 2, 90] {
        let error = voter.check(&Header { round: Round(round), ..header }, &contents).unwrap_err();
        assert!(error.name() == "inbox-overdue" && error.is_of_the_voter());
    }
    censor.see(1, vec![leaf(1)]);
    censor.see(6, vec![]);
    let (header, contents) = censor.propose();
    voter.check(&header, &contents).unwrap();
    voter.finalise(&header, &contents);
    assert_eq!(voter.application.ledger.find(&leaf(1).leaf_hash()).unwrap(), Some(0));
}

#[test]
fn a_leaf_that_is_forced_told_and_waiting_is_appended_once() {
    let (mut node, mut voter) = (Node::new(), Node::new());
    for node in [&mut node, &mut voter] {
        node.see(1, vec![leaf(1), leaf(1)]);
        node.see(2, vec![]);
    }
    node.admit(1..2, 0);
    node.application.hear(ValidatorIndex(1), List { height: Height(0), leaves: vec![leaf(1)] }, 4);
    let (header, contents) = node.propose();
    assert_eq!((header.receipts.size, contents.leaves.len(), contents.answers.len()), (1, 0, 1));
    voter.check(&header, &contents).unwrap();
    node.finalise(&header, &contents);
    assert_eq!(node.application.figures().waiting, 0);
    // Forced once more when it is final: served, and not appended.
    node.see(3, vec![leaf(1)]);
    node.see(4, vec![]);
    let (header, contents) = node.propose();
    assert_eq!((header.receipts.size, header.inbox.height, contents.inbox.len()), (1, 3, 1));
    node.check(&header, &contents).unwrap();
}

#[test]
fn other_contents_are_not_finalised_and_a_start_goes_on_from_the_last_header_that_was_kept() {
    let mut node = Node::new();
    node.admit(0..5, 0);
    node.next();
    node.admit(5..9, 0);
    let (header, contents) = node.propose();
    let wrong = node.application.finalise(&header, &Contents::default()).unwrap_err();
    assert!(matches!(wrong, ContentsError::Ledger(LedgerError::Head { count: 0, size: 9 })));
    assert_eq!(node.application.ledger.size(), 5);
    // A crash after the leaves and before the header.
    node.application.finalise(&header, &contents).unwrap();
    let path = node.folder.path().join("ledger");
    node.application = Application::open(&path, RULES, MemoryInbox::new(), &node.tip).unwrap();
    assert_eq!(node.application.ledger.head(), node.tip.receipts);
    node.check(&header, &contents).unwrap();
    node.finalise(&header, &contents);
    node.next();
}

#[test]
fn who_has_missed_a_header_keeps_what_a_peers_ledger_serves() {
    let (mut node, mut late) = (Node::new(), Node::new());
    node.see(1, vec![leaf(900)]);
    node.see(2, vec![]);
    node.admit(0..5, 0);
    let (header, contents) = node.propose();
    node.finalise(&header, &contents);
    let served = node.application.ledger.leaves(late.tip.receipts.size, header.receipts.size).unwrap();
    late.finalise(&header, &Contents::of_leaves(served));
    assert_eq!(late.application.ledger.head(), header.receipts);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn whatever_came_is_final_once_when_all_is_served(
        waiting in prop::collection::btree_set(0_u32..60, 0..40), told in prop::collection::btree_set(0_u32..60, 0..40),
        forced in prop::collection::vec(prop::collection::vec(0_u32..60, 0..6), 0..6),
    ) {
        let mut node = Node::new();
        let mut all: BTreeSet<_> = waiting.iter().chain(&told).copied().collect();
        waiting.iter().for_each(|number| node.admit(*number..number + 1, 0));
        let mut leaves: Vec<_> = told.iter().map(|number| leaf(*number)).collect();
        leaves.sort_unstable();
        node.application.hear(ValidatorIndex(1), List { height: Height(0), leaves }, 4);
        for (height, numbers) in (1..).zip(&forced) {
            node.see(height, numbers.iter().map(|number| leaf(*number)).collect());
            all.extend(numbers);
        }
        node.see(90, vec![]);
        node.next();
        node.next();
        prop_assert_eq!(node.application.ledger.size(), all.len() as u64);
        for number in all {
            prop_assert!(node.application.ledger.find(&leaf(number).leaf_hash()).unwrap().is_some());
        }
    }
}
