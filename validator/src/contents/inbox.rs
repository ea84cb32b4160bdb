//! The force-inclusion inbox: entries of a contract on the first layer (L1) that the chain has to serve, whoever its proposers are.
//!
//! A header says up to which L1 block it has served the inbox, and its contents hold the entries of the blocks since its parent's anchor,
//! in their order. An anchor never goes back (`protocol::consensus::light`). A voter has an L1 view of its own and refuses a header
//! - whose anchor it does not see, or sees with another hash;
//! - whose entries are not those of its view;
//! - that leaves out an entry older than [`InboxRules::overdue_blocks`], unless the block of that entry has no room any more.
//!
//! These are rules of the voter, not of the header: views differ in how far they go. A header that a quorum has prepared is accepted without
//! them, so two views cannot hold up a height for ever (docs/decisions/0081).
//!
//! Always true of an [`Inbox`]: only blocks that L1 has finalised are in it, so what two views both have is the same. Absent on purpose:
//! how L1 is read. [`file::FileInbox`] reads lines until the L1 client comes.

pub mod file;

use std::collections::BTreeMap;

use bpi_protocol::consensus::bytes::{BytesError, Reader, Writer};
use bpi_protocol::consensus::header::InboxAnchor;

use super::leaf::Leaf;

/// Entries of an L1 block, and of a header, at most: the contract takes no more into one block.
pub const ENTRIES_MAX: usize = 1_024;
/// Blocks that are held ahead of what is served, at most; more are read when these are served.
const BLOCKS_AHEAD_MAX: usize = 4_096;
/// Entries that are held ahead, at most and but for the last block's: 1 MiB.
const ENTRIES_AHEAD_MAX: usize = 16 * ENTRIES_MAX;

/// A leaf that somebody has put into the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboxEntry {
    /// In which L1 block.
    pub height: u64,
    /// What is to be included.
    pub leaf: Leaf,
}

impl InboxEntry {
    pub(super) fn write(&self, out: &mut Writer) {
        out.u64(self.height);
        self.leaf.write(out);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, BytesError> {
        Ok(Self { height: reader.u64()?, leaf: Leaf::read(reader)? })
    }
}

/// A block of L1 with its entries, in the contract's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxBlock {
    /// Which block.
    pub anchor: InboxAnchor,
    /// At most [`ENTRIES_MAX`].
    pub leaves: Vec<Leaf>,
}

/// A view of L1: some of its final blocks in order, among them all that have entries.
pub trait Inbox {
    /// The last block that is known. `None`: nothing of L1 is known yet.
    fn tip(&self) -> Option<InboxAnchor>;

    /// The hash of a known block.
    fn hash(&self, height: u64) -> Option<[u8; 32]>;

    /// The first block above a height.
    fn next(&self, above: u64) -> Option<&InboxBlock>;

    /// Blocks below this height are served for good and may be forgotten; the one of the height is still asked for.
    fn forget_below(&mut self, height: u64);
}

/// Why a block does not go on from those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InboxError {
    /// Heights go up.
    #[error("block {height} of the first layer comes after block {tip}")]
    Order {
        /// The block's.
        height: u64,
        /// The last one's.
        tip: u64,
    },
    /// The contract promises fewer.
    #[error("block {height} of the first layer has {count} entries, of at most {ENTRIES_MAX}")]
    Many {
        /// The block.
        height: u64,
        /// How many.
        count: usize,
    },
}

/// Blocks in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryInbox {
    blocks: BTreeMap<u64, InboxBlock>,
    entries: usize,
    tip: Option<InboxAnchor>,
}

impl MemoryInbox {
    /// Without blocks.
    pub fn new() -> Self {
        Self::default()
    }

    /// True when enough blocks are held: no more are to be added until some are served.
    pub fn is_full(&self) -> bool {
        self.blocks.len() >= BLOCKS_AHEAD_MAX || self.entries >= ENTRIES_AHEAD_MAX
    }

    /// Adds the next final block.
    ///
    /// # Errors
    /// [`InboxError`] when it is not above the last one, or has too many entries.
    pub fn push(&mut self, block: InboxBlock) -> Result<(), InboxError> {
        let (anchor, count) = (block.anchor, block.leaves.len());
        if let Some(tip) = self.tip.filter(|tip| tip.height >= anchor.height) {
            return Err(InboxError::Order { height: anchor.height, tip: tip.height });
        }
        if count > ENTRIES_MAX {
            return Err(InboxError::Many { height: anchor.height, count });
        }
        self.tip = Some(anchor);
        self.entries += count;
        self.blocks.insert(anchor.height, block);
        Ok(())
    }
}

impl Inbox for MemoryInbox {
    fn tip(&self) -> Option<InboxAnchor> {
        self.tip
    }

    fn hash(&self, height: u64) -> Option<[u8; 32]> {
        self.blocks.get(&height).map(|block| block.anchor.hash)
    }

    fn next(&self, above: u64) -> Option<&InboxBlock> {
        self.blocks.range(above.checked_add(1)?..).next().map(|(_, block)| block)
    }

    fn forget_below(&mut self, height: u64) {
        self.blocks = self.blocks.split_off(&height);
        self.entries = self.blocks.values().map(|block| block.leaves.len()).sum();
    }
}

/// The numbers of the inbox's rules, in L1 blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboxRules {
    /// How far a proposer stays behind its own view, so that the others have seen what it anchors.
    pub lag_blocks: u64,
    /// How old an entry may be before a header without it is refused; more than `lag_blocks`.
    pub overdue_blocks: u64,
}

impl Default for InboxRules {
    /// With L1 blocks of 12 s: half a minute behind, and overdue after six and a half.
    fn default() -> Self {
        Self { lag_blocks: 2, overdue_blocks: 32 }
    }
}

/// Why a voter refuses what a header says of the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InboxRefusal {
    /// The anchor goes back.
    #[error("the inbox was served up to block {parent} and now up to {header}")]
    Backwards {
        /// Of the header.
        header: u64,
        /// Of its parent.
        parent: u64,
    },
    /// Without a new anchor there are no entries, and the old one stays.
    #[error("the anchor stays at block {height}, and its hash or the entries say otherwise")]
    Standing {
        /// Of both headers.
        height: u64,
    },
    /// This voter does not see the block.
    #[error("block {height} of the first layer is not known here")]
    Unknown {
        /// Which.
        height: u64,
    },
    /// This voter sees another block there.
    #[error("block {height} of the first layer has another hash")]
    Hash {
        /// Which.
        height: u64,
    },
    /// The entries are not those of this voter's view.
    #[error("entry {at} of the inbox is not what the first layer has")]
    Entries {
        /// The first that differs.
        at: usize,
    },
    /// Something that had to be served was not.
    #[error("the entries of block {height} of the first layer are overdue")]
    Overdue {
        /// The first such block.
        height: u64,
    },
}

impl InboxRefusal {
    /// For counters.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Backwards { .. } => "inbox-backwards",
            Self::Standing { .. } => "inbox-standing",
            Self::Unknown { .. } => "inbox-unknown",
            Self::Hash { .. } => "inbox-hash",
            Self::Entries { .. } => "inbox-entries",
            Self::Overdue { .. } => "inbox-overdue",
        }
    }
}

/// The anchor that a header can go to from its parent's, and the entries up to it: whole blocks, as many as a header holds.
pub fn serve(inbox: &impl Inbox, rules: InboxRules, parent: InboxAnchor) -> (InboxAnchor, Vec<InboxEntry>) {
    let (mut anchor, mut entries) = (parent, Vec::new());
    let Some(tip) = inbox.tip() else { return (anchor, entries) };
    let upto = tip.height.saturating_sub(rules.lag_blocks);
    while let Some(block) = inbox.next(anchor.height) {
        if block.anchor.height > upto || entries.len() + block.leaves.len() > ENTRIES_MAX {
            break;
        }
        anchor = block.anchor;
        entries.extend(entries_of(block));
    }
    (anchor, entries)
}

/// Checks what a header says of the inbox by this voter's view.
///
/// # Errors
/// [`InboxRefusal`] for the first thing that does not hold.
pub fn check(
    inbox: &impl Inbox,
    rules: InboxRules,
    parent: InboxAnchor,
    header: InboxAnchor,
    entries: &[InboxEntry],
) -> Result<(), InboxRefusal> {
    let height = header.height;
    if height < parent.height {
        return Err(InboxRefusal::Backwards { header: height, parent: parent.height });
    }
    if height == parent.height {
        if header != parent || !entries.is_empty() {
            return Err(InboxRefusal::Standing { height });
        }
    } else {
        let known = inbox.hash(height).ok_or(InboxRefusal::Unknown { height })?;
        if known != header.hash {
            return Err(InboxRefusal::Hash { height });
        }
        check_entries(inbox, parent.height, height, entries)?;
    }
    overdue(inbox, rules, height, entries.len())
}

fn check_entries(inbox: &impl Inbox, above: u64, upto: u64, entries: &[InboxEntry]) -> Result<(), InboxRefusal> {
    let (mut at, mut seen) = (above, 0);
    while let Some(block) = inbox.next(at).filter(|block| block.anchor.height <= upto) {
        for wanted in entries_of(block) {
            if entries.get(seen) != Some(&wanted) {
                return Err(InboxRefusal::Entries { at: seen });
            }
            seen += 1;
        }
        at = block.anchor.height;
    }
    if seen == entries.len() { Ok(()) } else { Err(InboxRefusal::Entries { at: seen }) }
}

/// The first block with entries above the anchor may not be overdue, unless its entries find no room.
fn overdue(inbox: &impl Inbox, rules: InboxRules, above: u64, served: usize) -> Result<(), InboxRefusal> {
    let Some(tip) = inbox.tip() else { return Ok(()) };
    let mut at = above;
    while let Some(block) =
        inbox.next(at).filter(|block| block.anchor.height.saturating_add(rules.overdue_blocks) < tip.height)
    {
        if !block.leaves.is_empty() {
            let fits = served + block.leaves.len() <= ENTRIES_MAX;
            return if fits { Err(InboxRefusal::Overdue { height: block.anchor.height }) } else { Ok(()) };
        }
        at = block.anchor.height;
    }
    Ok(())
}

fn entries_of(block: &InboxBlock) -> impl Iterator<Item = InboxEntry> + '_ {
    block.leaves.iter().map(|leaf| InboxEntry { height: block.anchor.height, leaf: *leaf })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::contents::leaf::TenantId;

    const RULES: InboxRules = InboxRules { lag_blocks: 2, overdue_blocks: 5 };

    fn anchor(height: u64) -> InboxAnchor {
        InboxAnchor { height, hash: [height as u8; 32] }
    }

    fn block(height: u64, leaves: usize) -> InboxBlock {
        let leaf = |number: usize| Leaf { tenant: TenantId([height as u8; 16]), hash: [number as u8; 32] };
        InboxBlock { anchor: anchor(height), leaves: (0..leaves).map(leaf).collect() }
    }

    fn view(leaves: &[usize]) -> MemoryInbox {
        let mut inbox = MemoryInbox::new();
        for (height, leaves) in (1..).zip(leaves) {
            inbox.push(block(height, *leaves)).unwrap();
        }
        inbox
    }

    #[test]
    fn a_proposer_stays_behind_its_view_and_serves_whole_blocks_in_order() {
        let inbox = view(&[1, 0, 2, 3]);
        let (reached, entries) = serve(&inbox, RULES, InboxAnchor::default());
        assert_eq!(reached, anchor(2));
        assert_eq!(entries, [InboxEntry { height: 1, leaf: block(1, 1).leaves[0] }]);
        assert_eq!(serve(&MemoryInbox::new(), RULES, anchor(9)), (anchor(9), vec![]));
    }

    #[test]
    fn each_departure_from_the_view_is_refused_by_its_name() {
        let inbox = view(&[1, 0, 2, 3]);
        let (reached, entries) = serve(&inbox, RULES, InboxAnchor::default());
        let check = |parent, header, entries: &[_]| check(&inbox, RULES, parent, header, entries);
        let none = InboxAnchor::default();
        assert_eq!(check(none, reached, &entries), Ok(()));
        assert_eq!(check(anchor(3), reached, &entries), Err(InboxRefusal::Backwards { header: 2, parent: 3 }));
        assert_eq!(check(anchor(2), anchor(2), &entries), Err(InboxRefusal::Standing { height: 2 }));
        let other = InboxAnchor { hash: [0xff; 32], ..anchor(2) };
        assert_eq!(check(anchor(2), other, &[]), Err(InboxRefusal::Standing { height: 2 }));
        assert_eq!(check(none, other, &entries), Err(InboxRefusal::Hash { height: 2 }));
        assert_eq!(check(none, anchor(5), &entries), Err(InboxRefusal::Unknown { height: 5 }));
        assert_eq!(check(none, reached, &[]), Err(InboxRefusal::Entries { at: 0 }));
        assert_eq!(check(none, reached, &[entries[0], entries[0]]), Err(InboxRefusal::Entries { at: 1 }));
    }

    #[test]
    fn an_entry_is_overdue_only_after_so_many_blocks_and_only_while_there_is_room() {
        let none = InboxAnchor::default();
        assert_eq!(check(&view(&[0, 1, 0, 0, 0, 0, 0]), RULES, none, none, &[]), Ok(()));
        let late = view(&[0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(check(&late, RULES, none, none, &[]), Err(InboxRefusal::Overdue { height: 2 }));
        assert_eq!(check(&late, RULES, none, anchor(2), &serve(&late, RULES, none).1), Ok(()));
        let full = view(&[ENTRIES_MAX, 1, 0, 0, 0, 0, 0, 0, 0]);
        let (reached, entries) = serve(&full, RULES, none);
        assert_eq!((reached, entries.len()), (anchor(1), ENTRIES_MAX));
        assert_eq!(check(&full, RULES, none, reached, &entries), Ok(()));
        assert_eq!(check(&full, RULES, reached, reached, &[]), Err(InboxRefusal::Overdue { height: 2 }));
    }

    #[test]
    fn blocks_come_in_order_and_within_the_contracts_bound() {
        let mut inbox = view(&[0, 0]);
        assert_eq!(inbox.push(block(2, 0)), Err(InboxError::Order { height: 2, tip: 2 }));
        let many = InboxError::Many { height: 3, count: ENTRIES_MAX + 1 };
        assert_eq!(inbox.push(block(3, ENTRIES_MAX + 1)), Err(many));
        inbox.push(block(3, ENTRIES_MAX)).unwrap();
        (4..19).for_each(|height| inbox.push(block(height, ENTRIES_MAX)).unwrap());
        assert!(inbox.is_full());
        inbox.forget_below(5);
        assert!(!inbox.is_full());
        let mut inbox = view(&[0, 0]);
        inbox.forget_below(2);
        assert_eq!((inbox.hash(1), inbox.hash(2), inbox.tip()), (None, Some([2; 32]), Some(anchor(2))));
    }

    proptest! {
        #[test]
        fn what_a_proposer_serves_is_never_refused_by_who_sees_as_much(
            leaves in prop::collection::vec(0_usize..600, 0..40), seen in 0_usize..40, rules in (0_u64..4, 4_u64..9),
        ) {
            // The proposer's view is a beginning of the voter's, at most `overdue - lag` blocks shorter.
            let rules = InboxRules { lag_blocks: rules.0, overdue_blocks: rules.1 };
            let known = leaves.len() - seen.min(leaves.len()).min((rules.overdue_blocks - rules.lag_blocks) as usize);
            let (proposer, voter) = (view(&leaves[..known]), view(&leaves));
            let (mut parent, mut served) = (InboxAnchor::default(), Vec::new());
            loop {
                let (reached, entries) = serve(&proposer, rules, parent);
                prop_assert_eq!(check(&voter, rules, parent, reached, &entries), Ok(()));
                served.extend(entries);
                if reached == parent {
                    break;
                }
                parent = reached;
            }
            let upto = known.saturating_sub(rules.lag_blocks as usize);
            prop_assert_eq!(served.len(), leaves[..upto].iter().sum::<usize>(), "all of it, once");
        }
    }
}
