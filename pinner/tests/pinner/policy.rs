//! Who may bring what, how much, and for how long.

use bpi_pinner::journal::EntryKind;
use bpi_pinner::keeper::TenantPolicy;
use bpi_protocol::availability::attestation::ShardSet;
use bpi_protocol::frame::key::Signer as _;
use bpi_protocol::log::leaf::TenantId;
use bpi_protocol::mesh::pinner::{Answer, Described, Piece, Reason};

use crate::model::Model;
use crate::site::{AGENT, DAY_S, Key, NOW_S, Pinner, TENANT, batch, pieces, policy, shards_of};

/// Why an offer is refused, and in which words.
fn refusal(pinner: &mut Pinner, from: [u8; 32], offer: &Described) -> (Reason, String) {
    match pinner.keeper.offer(NOW_S, from, offer.clone()).unwrap() {
        Answer::Refused { reason, sentence, .. } => (reason, sentence),
        other => panic!("{other:?}"),
    }
}

#[test]
fn strangers_and_agents_of_other_tenants_are_refused() {
    let (mut pinner, (offer, _)) = (Pinner::new(1), batch(1, 9_000));
    let (reason, sentence) = refusal(&mut pinner, [3; 32], &offer);
    assert!(reason == Reason::Stranger && sentence.contains(&hex::encode([3; 32])), "{sentence}");
    let mut other = offer;
    other.batch.tenant = TenantId([8; 16]);
    assert_eq!(refusal(&mut pinner, AGENT, &other).0, Reason::Stranger);
}

#[test]
fn an_offer_that_does_not_hold_is_refused() {
    let keys: Vec<_> = (1..=3).map(Key::of).collect();
    let identities: Vec<[u8; 32]> = keys.iter().map(|key| key.identity()).collect();
    let mut pinner = Pinner::open(&Model::default(), policy(&identities), &keys[0]).unwrap();
    let (offer, encoded) = batch(1, 9_000);
    let own = shards_of(&encoded.da_root, 12, &identities, &identities[0]);
    let (reason, sentence) = refusal(&mut pinner, AGENT, &offer);
    assert!(reason == Reason::False && sentence.starts_with("8 of the shards"), "{sentence}");
    let mine = Described { shards: own, ..offer };
    let mut bent = mine.clone();
    bent.roots[3][0] ^= 1;
    let (reason, sentence) = refusal(&mut pinner, AGENT, &bent);
    assert!(reason == Reason::False && sentence.contains("lead to"), "{sentence}");
    let none = Described { shards: ShardSet::default(), ..mine.clone() };
    assert_eq!(refusal(&mut pinner, AGENT, &none).0, Reason::False);
    assert_eq!(pinner.bring(&mine, &encoded, NOW_S).unwrap(), own);
    // The same shards in another tenant's name, or with other receipts.
    let mut other = mine.clone();
    other.batch.receipts = 4;
    assert_eq!(refusal(&mut pinner, AGENT, &other).0, Reason::False);
}

#[test]
fn pieces_that_are_none_are_refused_or_pass_without_a_trace() {
    let (mut pinner, (offer, encoded)) = (Pinner::new(1), batch(1, 1_100_000));
    let all = pieces(&encoded, offer.shards);
    // Nobody has offered it.
    assert_eq!(pinner.keeper.piece(NOW_S, AGENT, &all[0]).unwrap(), None);
    pinner.keeper.offer(NOW_S, AGENT, offer.clone()).unwrap();
    // Another agent's.
    assert_eq!(pinner.keeper.piece(NOW_S, [3; 32], &all[0]).unwrap(), None);
    let refused = |answer: Option<Answer>| matches!(answer, Some(Answer::Refused { reason: Reason::False, .. }));
    let short = Piece { bytes: all[0].bytes[1024..].to_vec(), ..all[0].clone() };
    assert!(refused(pinner.keeper.piece(NOW_S, AGENT, &short).unwrap()));
    let beyond = Piece { stripe: 2, bytes: Vec::new(), ..all[0].clone() };
    assert!(refused(pinner.keeper.piece(NOW_S, AGENT, &beyond).unwrap()));
    // A bent one is found when its shard is whole, and the others stand.
    let mut bent = all.clone();
    bent[0].bytes[8] ^= 1;
    let answers: Vec<_> = bent.iter().filter_map(|piece| pinner.keeper.piece(NOW_S, AGENT, piece).unwrap()).collect();
    assert!(answers.len() == 1 && refused(answers.into_iter().next()));
    let out = pinner.keeper.commit(NOW_S).unwrap();
    let [(_, Answer::Kept { acknowledgement, .. })] = out.as_slice() else { panic!("{out:?}") };
    assert_eq!(acknowledgement.shards.iter().collect::<Vec<_>>(), (1..12).collect::<Vec<u8>>());
    // What is missing is asked for and nothing else.
    let Answer::Have { shards, .. } = pinner.keeper.offer(NOW_S, AGENT, offer.clone()).unwrap() else { panic!() };
    assert_eq!(shards, acknowledgement.shards);
    assert_eq!(pinner.bring(&offer, &encoded, NOW_S).unwrap(), offer.shards);
}

#[test]
fn a_tenant_over_its_quota_is_refused_with_the_figures() {
    let mut rules = policy(&[]);
    let (offer, encoded) = batch(1, 9_000);
    let file = 3 * 1024 + 32 * (3 + 2 + 1);
    rules.tenants.insert(TENANT.0, TenantPolicy { quota_bytes: file * 20, retention_days: 30, legal_hold: false });
    let mut pinner = Pinner::open(&Model::default(), rules, &Key::of(1)).unwrap();
    assert_eq!(pinner.bring(&offer, &encoded, NOW_S).unwrap(), offer.shards);
    let (second, _) = batch(2, 9_000);
    let (reason, sentence) = refusal(&mut pinner, AGENT, &second);
    assert_eq!(reason, Reason::Quota);
    for figure in [file * 12, file * 20] {
        assert!(sentence.contains(&figure.to_string()), "{sentence}");
    }
    // What is under way counts as well.
    let part = |shards: std::ops::Range<u8>| Described { shards: shards.collect(), ..second.clone() };
    assert!(matches!(pinner.keeper.offer(NOW_S, AGENT, part(0..8)).unwrap(), Answer::Have { .. }));
    let (third, _) = batch(3, 9_000);
    let third = Described { shards: ShardSet::default().with(1), ..third };
    assert_eq!(refusal(&mut pinner, AGENT, &third).0, Reason::Quota);
    // What is here already is acknowledged all the same.
    assert!(matches!(pinner.keeper.offer(NOW_S, AGENT, offer).unwrap(), Answer::Kept { .. }));
}

#[test]
fn what_waits_is_bounded_and_goes_after_a_while() {
    let mut pinner = Pinner::new(1);
    for seed in 0..8 {
        let (offer, encoded) = batch(seed, 9_000);
        assert!(matches!(pinner.keeper.offer(NOW_S, AGENT, offer.clone()).unwrap(), Answer::Have { .. }));
        pinner.keeper.piece(NOW_S, AGENT, &pieces(&encoded, offer.shards)[0]).unwrap();
    }
    assert_eq!(pinner.keeper.under_way().offers, 8);
    let (ninth, _) = batch(9, 9_000);
    let (reason, sentence) = refusal(&mut pinner, AGENT, &ninth);
    assert!(reason == Reason::Full && sentence.contains('8'), "{sentence}");
    pinner.keeper.release(NOW_S + 61).unwrap();
    assert_eq!(pinner.keeper.under_way().offers, 0);
    assert_eq!(pinner.keeper.under_way().bytes, 0);
}

#[test]
fn shards_are_let_go_at_their_time_unless_they_are_held() {
    for hold in [false, true] {
        let mut rules = policy(&[]);
        rules.tenant = TenantPolicy { quota_bytes: 1 << 30, retention_days: 30, legal_hold: hold };
        let mut pinner = Pinner::open(&Model::default(), rules, &Key::of(1)).unwrap();
        let (offer, encoded) = batch(1, 9_000);
        pinner.bring(&offer, &encoded, NOW_S).unwrap();
        // Whoever asks again ten days later has it for ten days more.
        let again = NOW_S + 10 * DAY_S;
        let Answer::Kept { acknowledgement, .. } = pinner.keeper.offer(again, AGENT, offer.clone()).unwrap() else {
            panic!()
        };
        assert_eq!(acknowledgement.until_s, again + 30 * DAY_S);
        assert_eq!(pinner.keeper.release(again + 30 * DAY_S - 1).unwrap(), 0);
        let released = pinner.keeper.release(again + 30 * DAY_S).unwrap();
        assert_eq!(released, usize::from(!hold));
        assert_eq!(pinner.catalogue.total().shards, if hold { 12 } else { 0 });
        assert_eq!(pinner.model.paths().len(), if hold { 12 } else { 0 });
        let last = pinner.catalogue.entries(0).unwrap().pop().unwrap().event;
        assert_eq!(last.kind, if hold { EntryKind::Kept } else { EntryKind::Released });
        // A hold that is over lets go within a day.
        assert_eq!(pinner.keeper.release(again + 31 * DAY_S).unwrap(), 0);
    }
}
