//! Ceremonies in which up to f members do what they like; which of it is decided by a number.

use sha2::{Digest as _, Sha256};

use super::*;

/// What `f` of `count` members do in the history of a number, and who they are.
fn history(number: u8, count: u8, f: usize) -> (Faults, BTreeSet<u8>) {
    let mut block = 0_u8;
    let mut below = |bound: u8| {
        block += 1;
        Sha256::digest([number, count, block])[0] % bound
    };
    let mut liars = BTreeSet::new();
    while liars.len() < f {
        liars.insert(1 + below(count));
    }
    let mut faults = Faults::default();
    for liar in liars.iter().copied() {
        match below(4) {
            0 => drop(faults.absent.insert(liar)),
            1 => drop(faults.left_out.insert(liar)),
            _ => {
                for other in numbers(count).filter(|other| *other != liar) {
                    match below(3) {
                        0 => drop(faults.wrong.insert((liar, other))),
                        1 => drop(faults.withheld.insert((other, liar))),
                        _ => {}
                    }
                }
            }
        }
    }
    (faults, liars)
}

#[test]
fn whatever_up_to_f_members_do_all_agree_each_honest_one_has_a_share_and_none_of_theirs_is_in_the_open() {
    for (number, count) in (0..8).map(|number| (number, 4)).chain((0..4).map(|number| (number, 7))) {
        let (wrongs, liars) = history(number, count, faults(count.into()));
        let held = hold(&first(numbers(count)), numbers(count), &BTreeMap::new(), &wrongs);
        let honest: Vec<_> = numbers(count).filter(|number| !liars.contains(number)).collect();
        assert!(honest.iter().all(|number| held.shares.contains_key(number)), "{count}, {number}: {wrongs:?}");
        // Members' numbers are one more than their indices.
        let open = held.sharing().revealed().iter().all(|index| liars.contains(&(index.0 as u8 + 1)));
        assert!(open, "{count}, {number}: {:?} of {wrongs:?}", held.sharing().revealed());
        let parts: Vec<_> = honest.iter().map(|number| &held.shares[number]).collect();
        let parts: Vec<_> = parts.into_iter().map(|share| (share.index(), share.sign(STATEMENT))).collect();
        let whole = held.sharing().recover(&parts).unwrap();
        assert!(held.sharing().group().verify(STATEMENT, &whole), "the honest alone sign");
    }
}
