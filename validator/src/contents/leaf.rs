//! A leaf: what the log holds of a receipt. Its bytes are those that all must agree on: [`bpi_protocol::log::leaf`].

pub use bpi_protocol::log::leaf::{LEAF_BYTES, Leaf, LeafHash, TenantId};
