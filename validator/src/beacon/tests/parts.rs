//! What nodes tell each other of a final height, and what a node makes of it. Whole chains are in `tests/simulation`.

use bpi_protocol::consensus::message::Partials;
use bpi_protocol::consensus::seal::Votes;

use super::super::assembly::{Act as Deed, Assembly, PARTS_MESSAGE_BYTES_MAX, PartsBody, PartsMessage};
use super::*;

#[test]
fn parts_are_read_as_they_were_written_and_nothing_else_is() {
    let (seal, seed) = (Signature([1; 48]), Signature([2; 48]));
    let mine = PartsBody::Mine { sender: ValidatorIndex(9), partials: Partials { seal, seed } };
    for (body, length) in
        [(mine, PARTS_MESSAGE_BYTES_MAX), (PartsBody::Ask, 10), (PartsBody::Whole { seal, seed }, 106)]
    {
        let message = PartsMessage { height: Height(0x0102), body };
        let bytes = message.to_bytes();
        assert_eq!(bytes.len(), length);
        assert_eq!(PartsMessage::from_bytes(&bytes), Ok(message));
        for cut in 0..bytes.len() {
            assert!(PartsMessage::from_bytes(&bytes[..cut]).is_err());
        }
        for bent in [[&bytes[..], &[0]].concat(), [&[2], &bytes[1..]].concat(), [&[1, 4], &bytes[2..]].concat()] {
            assert!(PartsMessage::from_bytes(&bent).is_err());
        }
    }
    assert_eq!(PartsMessage { height: Height(5), body: PartsBody::Ask }.to_bytes(), [1, 2, 0, 0, 0, 0, 0, 0, 0, 5]);
}

#[test]
fn a_seal_whose_votes_came_in_a_later_round_is_made_again_for_the_headers_own_and_an_observer_asks_for_it() {
    let plan = first(numbers(4));
    let held = hold(&plan, numbers(4), &BTreeMap::new(), &Faults::default());
    let (sharing, shares) = (held.sharing(), held.shares);
    let digest = plan.players.digest();
    let header =
        Header { height: Height(3), round: Round(1), epoch: Epoch(1), validators: digest, ..Header::default() };
    let place = Place { chain: CHAIN, height: header.height };
    let votes = Seal::Votes(Votes { round: Round(4), signers: Signers::default(), signature: Signature([0; 48]) });
    let partials: Vec<_> =
        shares.values().map(|share| (share.index(), share.partials(place, Round(4), header.digest()))).collect();
    let mut members: Vec<_> = shares.values().map(|share| (Assembly::new(CHAIN), share)).collect();
    let mut calls = Vec::new();
    for (assembly, share) in &mut members {
        let acts = assembly.finalise(&header, Some(&votes), &partials, Some(&sharing), Some(share));
        let [Deed::Drawn { height: Height(4), .. }, Deed::Broadcast(call)] = acts[..] else { panic!("{acts:?}") };
        assert_eq!(assembly.tick(), [Deed::Broadcast(call)]);
        calls.push(call);
    }
    let first = &mut members[0].0;
    assert_eq!(first.hear(calls[0]), [], "its own");
    assert_eq!(first.hear(calls[1]), []);
    let acts = first.hear(calls[2]);
    let [Deed::Sealed { seal, .. }, Deed::Answer(whole)] = acts[..] else { panic!("{acts:?}") };
    assert_eq!((seal.round(), first.tick().len(), first.wrong(Height(3))), (Round(1), 0, Signers::default()));
    assert_eq!(LightProof::new(header, &seal).unwrap().check(CHAIN, sharing.group()), Ok(&header));

    let mut observer = Assembly::new(CHAIN);
    assert_eq!(observer.hear(whole), [], "not final here");
    let asks = observer.finalise(&header, Some(&votes), &[], Some(&sharing), None);
    let ask = PartsMessage { height: Height(3), body: PartsBody::Ask };
    assert_eq!(asks, [Deed::Broadcast(ask)]);
    assert_eq!(first.hear(ask), [Deed::Answer(whole)]);
    let PartsBody::Whole { seal: one, seed: two } = whole.body else { panic!("{whole:?}") };
    let swapped = PartsMessage { body: PartsBody::Whole { seal: two, seed: one }, ..whole };
    assert_eq!(observer.hear(swapped), [], "neither holds");
    assert_eq!(observer.hear(whole).len(), 2);
    assert_eq!(observer.hear(whole), [], "said once");

    // Who cannot have parts does nothing, and old heights are forgotten.
    assert_eq!(Assembly::new(CHAIN).finalise(&header, Some(&votes), &[], None, None), []);
    let other = Header { validators: plan.dealers.digest(), ..header };
    assert_eq!(Assembly::new(CHAIN).finalise(&other, Some(&votes), &[], Some(&sharing), None), []);
    for height in 4..8 {
        observer.finalise(&Header { height: Height(height), ..header }, None, &[], Some(&sharing), None);
    }
    assert_eq!((observer.seed_after(Height(3)), observer.tick().len()), (None, 4));
}
