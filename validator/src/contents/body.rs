//! What travels beside a header: all that it commits to, and that validators therefore have to see.
//!
//! ```text
//! version 2
//! inbox     count 2 | L1 height 8, tenant 16, hash 32 …     entries served, in the contract's order
//! leaves    count 2 | tenant 16, hash 32 …                  as the log goes on, after the inbox's
//! answers   count 2 | leaf hash 32 …                        ascending, each of a leaf that this header appends
//! segments  count 2 | hash 32 …                             of the chain of hashes
//! logs      count 2 | length 2, bytes …                     of dealers; their leaves come after the inbox's
//! attested  count 2 | attestation …                         batches whose data are kept; they are under `da_root` and no leaves of the log
//! ```
//!
//! Always true: bytes have one reading and one writing, and nothing is longer than its bound. Absent on purpose: payloads.

use std::collections::BTreeSet;

use bpi_protocol::availability::attestation::Attestation;
use bpi_protocol::consensus::bytes::{BytesError, Reader, Writer};
use bpi_protocol::log::{Frontier, leaf_hash};

use super::attestations::{self, ATTESTATIONS_BYTES_MAX, ATTESTATIONS_MAX};
use super::dealings::{LOGS_BYTES_MAX, LOGS_MAX, is_of_log, leaf_of};
use super::inbox::{ENTRIES_MAX, InboxEntry};
use super::leaf::{LEAF_BYTES, Leaf, LeafHash};
use super::poh::SEGMENTS_MAX;

/// Version of the layout, the first byte.
const VERSION: u8 = 2;
/// Leaves of a header, at most, without those of the inbox: 16 384 in a second at four headers.
pub const LEAVES_MAX: usize = 4_096;
/// Answers of a header, at most: each leaf that it appends may have been asked for.
pub const ANSWERS_MAX: usize = LEAVES_MAX + ENTRIES_MAX;
/// Bytes of contents, at most: 546 kB.
pub const CONTENTS_BYTES_MAX: usize = 1
    + 6 * 2
    + ENTRIES_MAX * (8 + LEAF_BYTES)
    + LEAVES_MAX * LEAF_BYTES
    + 32 * (ANSWERS_MAX + SEGMENTS_MAX)
    + LOGS_MAX * 2
    + LOGS_BYTES_MAX
    + ATTESTATIONS_BYTES_MAX;

/// What a header commits to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Entries of the inbox that this header serves; their leaves are appended first.
    pub inbox: Vec<InboxEntry>,
    /// Leaves that are appended after them.
    pub leaves: Vec<Leaf>,
    /// Leaves among both that other validators had asked for, ascending.
    pub answers: Vec<LeafHash>,
    /// The ends of the segments of the chain of hashes.
    pub segments: Vec<[u8; 32]>,
    /// Logs of dealers in a ceremony.
    pub logs: Vec<Vec<u8>>,
    /// Batches whose data are kept.
    pub attestations: Vec<Attestation>,
}

impl Contents {
    /// As much as a ledger still tells of the contents of a final header: what it appended, at most [`ANSWERS_MAX`] leaves.
    pub fn of_leaves(leaves: Vec<Leaf>) -> Self {
        Self { leaves, ..Self::default() }
    }

    /// Canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(VERSION).u16(self.inbox.len() as u16);
        self.inbox.iter().for_each(|entry| entry.write(&mut out));
        out.u16(self.leaves.len() as u16);
        self.leaves.iter().for_each(|leaf| leaf.write(&mut out));
        out.u16(self.answers.len() as u16);
        for hash in &self.answers {
            out.bytes(&hash.0);
        }
        out.u16(self.segments.len() as u16).bytes(self.segments.as_flattened());
        out.u16(self.logs.len() as u16);
        for log in &self.logs {
            out.u16(log.len() as u16).bytes(log);
        }
        write_attestations(&mut out, &self.attestations);
        out.done()
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// When they are none, a list is longer than it may be, or the answers do not ascend.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BytesError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            other => return Err(BytesError::Value { field: "version of contents", value: other.into() }),
        }
        let inbox = read_list(&mut reader, "inbox", ENTRIES_MAX, InboxEntry::read)?;
        let leaves = read_list(&mut reader, "leaves", LEAVES_MAX, Leaf::read)?;
        let answers = read_list(&mut reader, "answers", ANSWERS_MAX, |reader| reader.array().map(LeafHash))?;
        let segments = read_list(&mut reader, "segments", SEGMENTS_MAX, Reader::array)?;
        let logs = read_list(&mut reader, "logs", LOGS_MAX, |reader| {
            let length = reader.count("bytes of a log", LOGS_BYTES_MAX)?;
            reader.take(length).map(<[u8]>::to_vec)
        })?;
        let attestations = read_attestations(&mut reader)?;
        reader.end()?;
        let contents = Self { inbox, leaves, answers, segments, logs, attestations };
        contents.check_form()?;
        Ok(contents)
    }

    /// Checks what reading checks, of contents that were never bytes.
    ///
    /// # Errors
    /// When a list is longer than it may be, or the answers do not ascend.
    pub fn check_form(&self) -> Result<(), BytesError> {
        for (field, count, max) in [
            ("inbox", self.inbox.len(), ENTRIES_MAX),
            ("leaves", self.leaves.len(), LEAVES_MAX),
            ("answers", self.answers.len(), ANSWERS_MAX),
            ("segments", self.segments.len(), SEGMENTS_MAX),
            ("logs", self.logs.len(), LOGS_MAX),
            ("bytes of logs", self.logs.iter().map(Vec::len).sum(), LOGS_BYTES_MAX),
            ("attestations", self.attestations.len(), ATTESTATIONS_MAX),
            ("bytes of attestations", bytes_of_all(&self.attestations), ATTESTATIONS_BYTES_MAX),
        ] {
            if count > max {
                return Err(BytesError::Count { field, count, max });
            }
        }
        match first_unordered(&self.answers) {
            Some(at) => Err(BytesError::Value { field: "place of an answer that does not ascend", value: at as u64 }),
            None => Ok(()),
        }
    }

    /// The root that stands in the header for the answers: RFC 9162, section 2.1.1, each leaf hash being a leaf.
    pub fn answers_root(&self) -> [u8; 32] {
        let mut tree = Frontier::new();
        for hash in &self.answers {
            tree.append(leaf_hash(&hash.0));
        }
        tree.head().root
    }

    /// The root that stands in the header for the attestations ([`attestations::root_of`]).
    pub fn attestations_root(&self) -> [u8; 32] {
        attestations::root_of(&self.attestations)
    }

    /// What the log goes on with: the inbox's leaves but for those that are in the log already or came twice or stand for a dealer's log, then
    /// those of dealers' logs, then the others.
    ///
    /// # Errors
    /// Those of `is_logged`.
    pub fn appended<E>(
        &self,
        mut is_logged: impl FnMut(&LeafHash) -> Result<bool, E>,
    ) -> Result<Vec<(Leaf, LeafHash)>, E> {
        let mut forced = BTreeSet::new();
        let mut out = Vec::with_capacity(self.inbox.len() + self.logs.len() + self.leaves.len());
        for entry in &self.inbox {
            let hash = entry.leaf.leaf_hash();
            if !is_of_log(&entry.leaf) && forced.insert(hash) && !is_logged(&hash)? {
                out.push((entry.leaf, hash));
            }
        }
        let of_logs = self.logs.iter().map(|log| leaf_of(log));
        out.extend(of_logs.chain(self.leaves.iter().copied()).map(|leaf| (leaf, leaf.leaf_hash())));
        Ok(out)
    }
}

/// Takes a list from a reader: its count in two bytes, at most `max`, and so many values.
pub(super) fn read_list<'a, T>(
    reader: &mut Reader<'a>,
    field: &'static str,
    max: usize,
    mut read: impl FnMut(&mut Reader<'a>) -> Result<T, BytesError>,
) -> Result<Vec<T>, BytesError> {
    let count = reader.count(field, max)?;
    // Grows with what is there, whatever the count says.
    (0..count).map(|_| read(reader)).collect()
}

/// Appends attestations to bytes: their count in two, and each.
pub fn write_attestations(out: &mut Writer, attestations: &[Attestation]) {
    out.u16(attestations.len() as u16);
    attestations.iter().for_each(|attestation| attestation.write(out));
}

/// Takes attestations from a reader, as many as a header may have.
///
/// # Errors
/// When the bytes end or are none, or the list is longer than it may be.
pub fn read_attestations(reader: &mut Reader<'_>) -> Result<Vec<Attestation>, BytesError> {
    let attestations = read_list(reader, "attestations", ATTESTATIONS_MAX, Attestation::read)?;
    match bytes_of_all(&attestations) {
        0..=ATTESTATIONS_BYTES_MAX => Ok(attestations),
        count => Err(BytesError::Count { field: "bytes of attestations", count, max: ATTESTATIONS_BYTES_MAX }),
    }
}

fn bytes_of_all(attestations: &[Attestation]) -> usize {
    attestations.iter().map(attestations::bytes_of).sum()
}

/// The first place where a list does not ascend.
pub(super) fn first_unordered<T: Ord>(list: &[T]) -> Option<usize> {
    list.windows(2).position(|pair| pair[0] >= pair[1]).map(|at| at + 1)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bpi_protocol::log::EMPTY_ROOT;
    use proptest::prelude::*;

    use bpi_protocol::availability::attestation::Acknowledgement;

    use super::*;
    use crate::contents::attestations::sample;
    use crate::contents::leaf::TenantId;

    fn leaf() -> impl Strategy<Value = Leaf> {
        (any::<[u8; 16]>(), any::<[u8; 32]>()).prop_map(|(tenant, hash)| Leaf { tenant: TenantId(tenant), hash })
    }

    fn contents() -> impl Strategy<Value = Contents> {
        let entry = (any::<u64>(), leaf()).prop_map(|(height, leaf)| InboxEntry { height, leaf });
        let answers = prop::collection::btree_set(any::<[u8; 32]>().prop_map(LeafHash), 0..9);
        let segments = prop::collection::vec(any::<[u8; 32]>(), 0..9);
        let logs = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..99), 0..9);
        let (inbox, leaves) = (prop::collection::vec(entry, 0..9), prop::collection::vec(leaf(), 0..9));
        let attestations = prop::collection::vec(attestation(), 0..5);
        let lists = (inbox, leaves, answers, segments, logs, attestations);
        lists.prop_map(|(inbox, leaves, answers, segments, logs, attestations)| Contents {
            inbox,
            leaves,
            answers: answers.into_iter().collect(),
            segments,
            logs,
            attestations,
        })
    }

    /// Whether it holds does not matter here.
    fn attestation() -> impl Strategy<Value = Attestation> {
        let pinners = prop::collection::btree_map(any::<[u8; 32]>(), (any::<[u8; 32]>(), any::<u64>()), 0..5);
        (any::<u8>(), any::<u32>(), pinners).prop_map(|(tenant, number, pinners)| {
            let mut attestation = sample::attestation(tenant, number, &[], 0);
            let acknowledgements = pinners.into_iter().map(|(pinner, (half, until_s))| {
                let shards = half.iter().copied().collect();
                let mut signature = [3; 64];
                signature[..32].copy_from_slice(&half);
                Acknowledgement { pinner, shards, until_s, signature }
            });
            attestation.acknowledgements = acknowledgements.collect();
            attestation
        })
    }

    /// Attestations of so many pinners each.
    fn of_pinners(counts: &[u8]) -> Vec<Attestation> {
        let of = |(number, count): (u32, &u8)| {
            let mut attestation = sample::attestation(1, number, &[], 0);
            let acknowledge = |at: u8| Acknowledgement {
                pinner: [at; 32],
                shards: [at].into_iter().collect(),
                until_s: 5,
                signature: [at; 64],
            };
            attestation.acknowledgements = (0..*count).map(acknowledge).collect();
            attestation
        };
        (0..).zip(counts).map(of).collect()
    }

    #[test]
    fn the_longest_contents_are_as_long_as_the_bound_and_read_again() {
        let leaf = Leaf::default();
        let mut answers: Vec<_> =
            (0..ANSWERS_MAX as u32).map(|number| LeafHash(leaf_hash(&number.to_be_bytes()))).collect();
        answers.sort_unstable();
        let longest = Contents {
            inbox: vec![InboxEntry { height: 1, leaf }; ENTRIES_MAX],
            leaves: vec![leaf; LEAVES_MAX],
            answers,
            segments: vec![[7; 32]; SEGMENTS_MAX],
            logs: vec![vec![5; LOGS_BYTES_MAX / LOGS_MAX]; LOGS_MAX],
            attestations: of_pinners(&[64, 64, 64, 64, 64, 64, 64, 27]),
        };
        let bytes = longest.to_bytes();
        // An acknowledgement does not go into what is left.
        let left = ATTESTATIONS_BYTES_MAX - bytes_of_all(&longest.attestations);
        assert!(left < 136, "{left}");
        assert_eq!((bytes.len() + left, Contents::from_bytes(&bytes)), (CONTENTS_BYTES_MAX, Ok(longest.clone())));
        let much = Contents { attestations: of_pinners(&[64; 8]), ..Contents::default() };
        let refused = Contents::from_bytes(&much.to_bytes());
        assert!(matches!(refused, Err(BytesError::Count { field: "bytes of attestations", .. })), "{refused:?}");
        let many = Contents { attestations: of_pinners(&[0; ATTESTATIONS_MAX + 1]), ..Contents::default() };
        let (count, max) = (ATTESTATIONS_MAX + 1, ATTESTATIONS_MAX);
        let refused = Err(BytesError::Count { field: "attestations", count, max });
        assert_eq!(Contents::from_bytes(&many.to_bytes()), refused);
        let longer = Contents { leaves: vec![leaf; LEAVES_MAX + 1], ..longest };
        let error = BytesError::Count { field: "leaves", count: LEAVES_MAX + 1, max: LEAVES_MAX };
        assert_eq!(Contents::from_bytes(&longer.to_bytes()), Err(error));
    }

    #[test]
    fn answers_that_do_not_ascend_are_refused_and_without_any_the_root_is_the_empty_one() {
        let of = |answers: &[u8]| Contents {
            answers: answers.iter().map(|byte| LeafHash([*byte; 32])).collect(),
            ..Contents::default()
        };
        assert_eq!(of(&[]).answers_root(), EMPTY_ROOT);
        for (answers, at) in [(&[1, 1][..], 1), (&[1, 3, 2], 2)] {
            let error = BytesError::Value { field: "place of an answer that does not ascend", value: at };
            assert_eq!(Contents::from_bytes(&of(answers).to_bytes()), Err(error));
        }
        assert_ne!(of(&[1]).answers_root(), of(&[1, 2]).answers_root());
    }

    #[test]
    fn a_forced_leaf_is_appended_once_whoever_forces_it_again() {
        let [logged, new, usual] = [1, 2, 3].map(|byte| Leaf { tenant: TenantId::default(), hash: [byte; 32] });
        let entry = |leaf| InboxEntry { height: 1, leaf };
        let inbox = vec![entry(logged), entry(new), entry(new)];
        let contents = Contents { inbox, leaves: vec![usual], ..Contents::default() };
        let appended = contents.appended(|hash| Ok::<_, Infallible>(*hash == logged.leaf_hash())).unwrap();
        assert_eq!(appended, [(new, new.leaf_hash()), (usual, usual.leaf_hash())]);
    }

    proptest! {
        #[test]
        fn contents_are_read_as_they_were_written_and_not_a_byte_short_or_long(contents in contents()) {
            let bytes = contents.to_bytes();
            prop_assert_eq!(Contents::from_bytes(&bytes), Ok(contents));
            prop_assert!(Contents::from_bytes(&bytes[..bytes.len() - 1]).is_err());
            prop_assert!(Contents::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
        }

        #[test]
        fn bytes_that_a_stranger_has_changed_are_refused_or_are_other_contents(
            contents in contents(), at in any::<prop::sample::Index>(), by in 1_u8..,
        ) {
            let mut bytes = contents.to_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= by;
            if let Ok(other) = Contents::from_bytes(&bytes) {
                prop_assert_eq!(other.to_bytes(), bytes);
                prop_assert_ne!(other, contents);
            }
        }
    }
}
