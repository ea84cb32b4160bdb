//! What a header commits to: made by its proposer, checked by its voters, kept when it is final.
//!
//! ```text
//! receipts              the log after this header's leaves            leaf, mempool, ledger
//! inclusion_list_root   what others had asked for and is in here      lists
//! inbox                 how far the first layer's inbox is served     inbox
//! poh                   order and delay                               poh
//! receipts, too         logs of dealers in a ceremony                 dealings
//! da_root               attestations of batches whose data are kept  attestations
//! ```
//!
//! [`body::Contents`] travels beside the header, and [`application::Application`] is what a node calls: *admit* a receipt, *assemble* a
//! header, *check* another's, *finalise*. (The name is ABCI's: consensus on one side, the application on the other.)
//!
//! Always true: what is judged alike by all is a rule of the header; what hangs on what a validator has seen (lists, the first layer) is a
//! rule of the voter, and says so ([`application::ContentsError::is_of_the_voter`]). Absent on purpose: clocks, networks, threads but for
//! checking hashes, and payloads: validators never see them.

pub mod application;
pub mod attestations;
pub mod body;
pub mod dealings;
pub mod held;
pub mod inbox;
pub mod leaf;
pub mod ledger;
pub mod lists;
pub mod mempool;
pub mod poh;
