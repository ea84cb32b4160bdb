//! What validators agree on, and what anybody needs to check that they did: headers, votes, seals, validator sets.
//!
//! Validators run the *Istanbul BFT Consensus Algorithm* (H. Moniz, arXiv 2002.03613) over headers alone. The rules of a node are in
//! `bpi-validator`; here are the bytes that travel, what each signature covers, and the predicates that two parties must judge alike:
//! a certificate, a round change, a proposal's justification, a seal, the step from one header to the next.
//!
//! Always true: bytes are fixed-width big-endian, a parser refuses what it would not have written, and each signature covers the chain it is
//! for. Absent on purpose: clocks, networks, storage, and which signature scheme it is ([`scheme::Scheme`]; [`bls`] is the real one).

pub mod bls;
pub mod bytes;
pub mod equivocation;
pub mod header;
pub mod ids;
pub mod justification;
pub mod light;
pub mod message;
pub mod scheme;
pub mod seal;
pub mod statement;
pub mod validators;
