//! Messages that are longer than a frame, put together again. What waits is bounded by bytes; a frame that has no room is as if it had not come.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

/// Longest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Bytes of incomplete messages of one session, at most: two of the longest.
pub const INCOMPLETE_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

/// Why a part was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// Its parts do not agree on their number.
    #[error("a part says {found} parts of a message that has {wanted}")]
    Count {
        /// What it says.
        found: u16,
        /// What others said.
        wanted: u16,
    },
    /// The message is longer than any.
    #[error("a message of more than {MESSAGE_BYTES_MAX} bytes")]
    Long,
    /// There is no room now; there may be later.
    #[error("more than {INCOMPLETE_BYTES_MAX} bytes of incomplete messages")]
    Full,
}

/// Wiped when it goes, since a message may hold a secret.
type Part = Zeroizing<Vec<u8>>;

#[derive(Debug)]
struct Incomplete {
    parts: Vec<Option<Part>>,
    missing: u16,
    bytes: usize,
}

/// Incomplete messages of a session, by the counter of their first frame.
#[derive(Debug, Default)]
pub struct Fragments {
    incomplete: BTreeMap<u64, Incomplete>,
    bytes: usize,
}

impl Fragments {
    /// Whether a part may come that is authentic: asked before its counter is marked, so that what has no room is sent again.
    ///
    /// # Errors
    /// [`FragmentError`].
    pub fn admits(&self, seq: u64, fragment: u16, fragments: u16, bytes: usize) -> Result<(), FragmentError> {
        let known = self.incomplete.get(&seq.saturating_sub(fragment.into()));
        if let Some(known) = known {
            let wanted = known.parts.len() as u16;
            if wanted != fragments {
                return Err(FragmentError::Count { found: fragments, wanted });
            }
        }
        if known.map_or(0, |known| known.bytes) + bytes > MESSAGE_BYTES_MAX {
            return Err(FragmentError::Long);
        }
        // A part costs its place too, so that empty parts are not free.
        let places = if known.is_none() { usize::from(fragments) * size_of::<Option<Part>>() } else { 0 };
        if fragments > 1 && self.bytes + bytes + places > INCOMPLETE_BYTES_MAX {
            return Err(FragmentError::Full);
        }
        Ok(())
    }

    /// Takes a part that [`admits`](Self::admits) lets in and that comes for the first time: the message when it is complete.
    pub fn add(&mut self, seq: u64, fragment: u16, fragments: u16, part: &[u8]) -> Option<Part> {
        if fragments == 1 {
            return Some(Zeroizing::new(part.to_vec()));
        }
        let first = seq.checked_sub(fragment.into())?;
        let message = self.incomplete.entry(first).or_insert_with(|| Incomplete {
            parts: vec![None; fragments.into()],
            missing: fragments,
            bytes: 0,
        });
        if message.missing == fragments {
            self.bytes += message.parts.len() * size_of::<Option<Part>>();
        }
        let place = message.parts.get_mut(usize::from(fragment))?;
        if place.replace(Zeroizing::new(part.to_vec())).is_none() {
            message.missing -= 1;
            message.bytes += part.len();
            self.bytes += part.len();
        }
        if message.missing > 0 {
            return None;
        }
        let complete = self.incomplete.remove(&first)?;
        self.bytes -= complete.bytes + complete.parts.len() * size_of::<Option<Part>>();
        let mut whole = Zeroizing::new(Vec::with_capacity(complete.bytes));
        complete.parts.into_iter().flatten().for_each(|part| whole.extend_from_slice(&part));
        Some(whole)
    }

    /// Bytes that wait for their others.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
